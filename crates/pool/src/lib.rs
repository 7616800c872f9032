//! Warm, pinned, proven mutual-TLS connections to one provider environment.
//!
//! Owns dialling, proof, leases, draining, replacement and retry verdicts. Trust decisions belong to `tls-core`,
//! routing and replies to the gateway. The entry is [`Pool`].

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod coalesce;
mod config;
mod connection;
mod dial;
mod error;
mod health;
mod http1;
mod hub;
mod journey;
mod key;
mod learned;
mod observe;
mod pool;
mod send;
mod status;
mod supervisor;
mod verdict;
pub mod workers;

pub use config::{LearnedLimitsMode, PoolConfig, RetryPolicy, Timeouts};
pub use connection::{Event, Illegal, Proof, State};
pub use dial::{HostPort, Target};
pub use error::{BodyError, DialError, SendError, SendErrorKind};
pub use health::{Expected, Health, HealthCheck};
pub use journey::{ConnectionId, Journey};
pub use key::PoolKey;
pub use learned::LearnedLimits;
pub use observe::{DialReport, Observer, Unobserved};
pub use pool::{Cut, Pool, PoolSpec};
pub use send::{BoxError, ResponseBody, SendOptions, TimeForm, TimeLeft};
pub use status::{
    BreakerStatus, CauseOfDeath, ConnectionStatus, DialFailureStatus, DialPhases, GenerationRole,
    LearnedStatus, PoolStatus, PoolTotals, Protocol,
};
pub use supervisor::BreakerState;
pub use verdict::{BodyHeld, Decision, MAX_ATTEMPTS, RetrySafe, Verdict};
pub use workers::Workers;
