//! One connection to the provider: its states, its driver task, what it counts.
//!
//! Owns a connection from the end of its handshake to its end. When connections are made or retired is the
//! supervisor's decision; how the transport comes to be is `dial`'s.

mod driver;
mod link;
mod permits;
mod state;
mod sync;
mod tap;
mod wire;

pub(crate) use driver::{Driver, Ended, Limits};
pub(crate) use link::{Birth, Link};
pub(crate) use permits::{Grant, Notice, Share, Standing, View, Waiters};
pub use state::{Event, Illegal, State};
pub(crate) use wire::{Wire, WireHandle, fault_of, wire};
