//! Warm, pinned, proven mutual-TLS connections to one provider environment.
//!
//! Owns dialling, proof, leases, draining, replacement and retry verdicts. Trust decisions belong to `tls-core`,
//! routing and replies to the gateway. The entry is [`Pool`].

#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench;
pub mod coalesce;
mod config;
mod connection;
mod dial;
mod dns;
mod drift;
mod error;
mod health;
mod http1;
mod hub;
mod journey;
mod key;
mod learned;
mod observe;
mod passport;
mod pool;
mod queue;
mod send;
mod status;
mod supervisor;
#[cfg(test)]
mod testing;
mod verdict;
pub mod workers;

pub use config::{LastStreamId, LearnedLimitsMode, PoolConfig, RetryPolicy, Timeouts};
pub use connection::{Announced, Event, Illegal, Proof, Setting, State};
pub use dial::{HostPort, Target};
pub use drift::{DriftChange, DriftField, DriftKind, DriftSeverity, DriftValue};
pub use error::{BodyError, DialError, ResponseCut, SendError, SendErrorKind};
pub use health::{Expected, Health, HealthCheck};
pub use journey::{ConnectionId, Journey, Phase};
pub use key::PoolKey;
pub use learned::LearnedLimits;
pub use observe::{DialReport, Observer, Stale, Unobserved};
pub use passport::{
    DialTimes, GoAwaySeen, Micros, Name, Obituaries, Obituary, ObituaryFilter, PING_SERIES, PassportStatus,
    PinStart, PingMicros, PingSeries, PingTimes, Prefix, RemoteAddress, ShortText, UnixMicros,
};
pub use pool::{Cut, Pool, PoolSpec};
pub use queue::Caller;
pub use send::{BoxError, ResponseBody, SendOptions, TimeForm, TimeLeft};
pub use status::{
    AddressStatus, BreakerStatus, CauseOfDeath, ConnectionStatus, DRIFT_SHOWN, DialFailureStatus, DialPhases,
    GenerationRole, LearnedStatus, PoolStatus, PoolTotals, Protocol, ResolutionStatus,
};
pub use supervisor::BreakerState;
pub use verdict::{BodyHeld, Decision, MAX_ATTEMPTS, RetrySafe, Verdict};
pub use workers::Workers;
