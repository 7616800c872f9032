//! The life of the process: threads, limits, start, signals, stop.
//!
//! Owns the order in which parts start and stop. What the parts do is theirs.

mod environment;
mod rlimit;
mod server;
mod signal;
mod threads;

pub(crate) use self::environment::spec as pool_spec;
pub use self::{
    rlimit::{raise_descriptor_limit, room_for_callers},
    server::{Gateway, StartError, Stopped},
    signal::stop_requested,
    threads::WorkerThreads,
};
