//! The gate through which streams are opened: none is handed to h2 that the provider's limit does not let out at once.
//!
//! h2 accepts every stream and parks those above the provider's limit in a queue of its own, without bound, without a
//! time limit and unseen. Worse, a parked stream that is dropped is written all the same, later: HEADERS, then
//! RST_STREAM. So nothing may ever be parked. A lease alone does not see to that, for the provider may lower its limit
//! between the lease and the opening, or while h2 has not yet written what was opened. The driver therefore keeps such
//! SETTINGS back until everything opened before is written ([`super::wire`]), and this gate stops what comes after:
//!
//! ```text
//! request: enter (count itself) ─▶ look at the limit ─▶ open, or give the lease back ─▶ leave
//! driver:  lower the limit ─▶ wait until nobody is inside ─▶ let h2 write ─▶ let h2 read the SETTINGS
//! ```
//!
//! Each side writes first and looks then. The count is changed and looked at by read-modify-writes only, the driver's
//! look too: whichever of the two comes second in the order of the count sees what the other wrote before it. Free of
//! tokio, so that loom can walk through every interleaving (package `pool-loom`). Owns no permit.

use std::sync::OnceLock;

use super::{
    outbound::Departed,
    sync::{AtomicU32, Ordering},
};

/// The gate of one connection.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Streams that may be open at once, as the driver last said.
    limit: AtomicU32,
    /// Requests between their look at the limit and the opening of their stream.
    inside: AtomicU32,
    departed: OnceLock<Departed>,
}

impl Default for Opening {
    fn default() -> Self {
        Self { limit: AtomicU32::new(u32::MAX), inside: AtomicU32::new(0), departed: OnceLock::new() }
    }
}

/// The right to open one stream now. To be held while h2 is handed the stream, and no longer.
#[derive(Debug)]
#[must_use = "the stream is to be opened while this is held"]
pub(crate) struct Entered<'a>(&'a Opening);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Opening {
    /// Enters to open a stream, where `in_flight` says how many are leased, this one included. `None` when the limit was
    /// lowered below that since the lease: the lease is to be given back, nothing was sent.
    pub(crate) fn enter(&self, in_flight: impl FnOnce() -> u32) -> Option<Entered<'_>> {
        self.inside.fetch_add(1, Ordering::AcqRel);
        let entered = Entered(self);
        (in_flight() <= self.limit.load(Ordering::Acquire)).then_some(entered)
    }

    /// The provider's limit, or our own where that is lower.
    pub(crate) fn set_limit(&self, streams: u32) {
        // Looked at first: it changes about never, and a store would take the line from every worker that opens.
        if self.limit.load(Ordering::Relaxed) != streams {
            self.limit.store(streams, Ordering::Release);
        }
    }

    /// Nobody is about to open a stream by a limit that was read before the last [`Self::set_limit`].
    pub(crate) fn is_quiet(&self) -> bool {
        // Not a plain load, which could miss somebody who in turn misses the limit set before it. Whoever counts himself
        // after this look sees that limit.
        self.inside.fetch_add(0, Ordering::AcqRel) == 0
    }

    /// Tells where to read which streams left. Before that every stream counts as sent.
    pub(crate) fn watch(&self, departed: Departed) {
        let _ = self.departed.set(departed);
    }

    /// Whether the provider can have heard of this stream.
    pub(crate) fn has_departed(&self, stream: u32) -> bool {
        self.departed.get().is_none_or(|departed| departed.includes(stream))
    }
}
