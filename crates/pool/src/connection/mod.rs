//! One connection to the provider: its states, its driver task, what it counts.
//!
//! Owns a connection from the first byte of the handshake to its obituary. When connections are made or retired
//! is the supervisor's decision.

mod state;

pub use state::{Event, Illegal, State};
