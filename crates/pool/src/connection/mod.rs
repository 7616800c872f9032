//! One connection to the provider: its states, its driver task, what it counts.
//!
//! Owns a connection from the end of its handshake to its end. When connections are made or retired is the
//! supervisor's decision; how the transport comes to be is `dial`'s.

mod driver;
mod link;
mod opening;
mod outbound;
mod permits;
mod pinger;
mod proof;
mod state;
mod sync;
mod tap;
#[cfg(test)]
mod tests;
mod vitals;
mod wire;

pub(crate) use driver::{Driver, Ended, Limits};
pub(crate) use link::{Birth, Link, Role};
pub(crate) use permits::{Grant, Notice, STREAM_ROOM, STREAM_WARNING, Waiters};
pub use proof::Proof;
pub use state::{Event, Illegal, State};
pub(crate) use tap::Seen;
pub use tap::{Announced, Setting};
pub(crate) use vitals::{Farewell, Trust, Vitals};
pub(crate) use wire::{Wire, WireHandle, fault_of, wire};
