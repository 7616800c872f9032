//! On whose behalf a request is sent.
//!
//! Owns the identity and weight that the queue shares streams by. Who is which caller is the gateway's decision.

use std::num::NonZeroU16;

/// On whose behalf a request is sent: streams are shared between callers when they are scarce, and only then.
///
/// # Defaults
/// One anonymous caller, number 0, of weight 1: everybody first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Who it is; any number that is the same for all requests of one caller.
    pub id: u64,
    /// Its share against the others' that wait. Range 1..=65 535. Default 1. Where requests of one caller name
    /// different weights, the last one counts.
    pub weight: NonZeroU16,
}

impl Caller {
    /// A caller of weight 1.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self { id, weight: NonZeroU16::MIN }
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self::new(0)
    }
}
