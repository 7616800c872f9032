//! Connections as they run, against a provider that is played frame by frame in memory, with the clock paused.

mod opening;
mod overtaken;
mod streams;
mod writes;

use crate::{RetryPolicy, SendOptions, Timeouts};

fn options(timeouts: Timeouts) -> SendOptions {
    SendOptions {
        timeouts,
        retry: RetryPolicy::Unprocessed,
        max_body_bytes: u64::MAX,
        caller: crate::Caller::default(),
    }
}
