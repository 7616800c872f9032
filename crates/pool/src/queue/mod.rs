//! The order in which requests get a stream when none is free: fair between callers, bounded, pure.
//!
//! Owns who is next, who must give way, and how long a place in the queue will take. Streams, clocks and wake-ups
//! are the hub's: nothing here waits.

mod caller;
mod fair;
mod rate;
#[cfg(test)]
mod tests;

pub use caller::Caller;
pub(crate) use fair::{FairQueue, Joined, Limits, Ticket};
pub(crate) use rate::ServiceRate;
