//! Events that a pool reports: the seam between its work and the metrics and logs made of it.
//!
//! The pool calls an [`Observer`] off the hot path only: for handshakes, deaths, GOAWAYs and retries. Gauges are
//! not events; they are read from [`crate::PoolStatus`] when somebody looks, so they cannot drift.

use serde::Serialize;

use crate::{
    drift::DriftField,
    journey::ConnectionId,
    status::{CauseOfDeath, DialPhases},
    supervisor::BreakerState,
    verdict::Verdict,
};

/// The end of one dial, good or bad.
#[derive(Clone, Debug, Serialize)]
pub struct DialReport {
    /// The connection that was dialled.
    pub connection: ConnectionId,
    /// The address that was dialled, as text; empty when none was reached.
    pub address: String,
    /// Durations.
    pub phases: DialPhases,
    /// Resumed or full; `None` if the handshake did not end.
    pub resumed: Option<bool>,
    /// `None` when it serves; else the stable code of the failure.
    pub failure: Option<&'static str>,
    /// Serial of the generation used.
    pub generation: u64,
}

/// What became of the request that met a connection which the provider had just closed (HTTP/1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stale {
    /// Not a byte of it was written; it went out on another connection.
    Unsent,
    /// It was written and not answered: the provider may have processed it.
    InDoubt,
}

impl Stale {
    /// All of them, for registering metrics.
    pub const ALL: [Stale; 2] = [Self::Unsent, Self::InDoubt];

    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::InDoubt => "in_doubt",
        }
    }
}

/// Receives a pool's events. Implementations must not block: they are called on the pool's tasks.
pub trait Observer: Send + Sync + 'static {
    /// A dial ended.
    fn dialled(&self, report: &DialReport);
    /// A connection that had served is gone, after carrying `requests`.
    fn closed(&self, connection: ConnectionId, cause: CauseOfDeath, requests: u64);
    /// The provider sent GOAWAY with this error code.
    fn goaway(&self, connection: ConnectionId, error_code: u32);
    /// A request was sent again, or was not, by this verdict.
    fn retried(&self, verdict: Verdict);
    /// The provider changed in this respect.
    fn drifted(&self, field: DriftField);
    /// A replay that the route's policy allows was not made: the retry budget is used up.
    fn retry_denied(&self) {}
    /// A request failed although the provider provably did not process it and its body was still held. Stays 0.
    fn unprocessed_lost(&self) {}
    /// HTTP/1.1: a connection turned out to be closed by the provider.
    fn stale(&self, _stale: Stale) {}
    /// The breaker came to this state.
    fn breaker(&self, _state: BreakerState) {}
}

/// An observer that ignores everything; for tests and tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn dialled(&self, _: &DialReport) {}
    fn closed(&self, _: ConnectionId, _: CauseOfDeath, _: u64) {}
    fn goaway(&self, _: ConnectionId, _: u32) {}
    fn retried(&self, _: Verdict) {}
    fn drifted(&self, _: DriftField) {}
}
