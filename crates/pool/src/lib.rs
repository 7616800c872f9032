//! Warm, pinned, proven mutual-TLS connections to one provider environment.
//!
//! Owns dialling, proof, leases, draining, replacement and retry verdicts. Trust decisions belong to `tls-core`,
//! routing and replies to the gateway. The entry is [`Pool`].

pub mod config;
pub mod connection;
pub mod error;
pub mod journey;
pub mod key;
pub mod observe;
pub mod status;
pub mod verdict;

pub use config::{PoolConfig, RetryPolicy, Timeouts};
pub use connection::State;
pub use error::{BodyError, DialError, SendError, SendErrorKind};
pub use journey::{ConnectionId, Journey};
pub use key::PoolKey;
pub use observe::{DialPhases, DialReport, Observer, Unobserved};
pub use status::{
    CauseOfDeath, ConnectionStatus, DialFailureStatus, GenerationRole, PoolStatus, PoolTotals, Protocol,
};
pub use verdict::{RetrySafe, Verdict};
