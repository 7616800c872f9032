//! What telemetry, admin and gRPC see of an environment: its pool's status, or why it has none.
//!
//! Owns the seam only; the run wiring implements it over `pool::Pool` and the configuration.

use pool::{DriftChange, PoolStatus};
use time::OffsetDateTime;

use crate::outcome::ErrorCode;

/// Whether `/readyz` depends on an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Not ready until its floor was met once.
    Required,
    /// Readiness does not wait for it.
    Optional,
}

/// Why an environment serves nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The code that its requests get.
    pub code: ErrorCode,
    /// What is wrong and how to mend it, for a person.
    pub message: String,
}

/// An environment at one moment.
#[derive(Clone, Debug)]
pub enum Condition {
    /// It has a pool.
    Pooled(Box<PoolStatus>),
    /// It has none.
    Quarantined(Quarantined),
}

/// Whose certificate an expiry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRole {
    /// Our client certificate.
    Client,
    /// The provider's certificate, as last presented.
    Server,
    /// The trust anchor that expires first.
    Anchor,
}

impl CertificateRole {
    /// All roles, for registering metrics.
    pub const ALL: [CertificateRole; 3] = [Self::Client, Self::Server, Self::Anchor];

    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Anchor => "anchor",
        }
    }
}

/// The end of a certificate's validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// Whose.
    pub role: CertificateRole,
    /// When.
    pub not_after: OffsetDateTime,
}

/// One environment, looked at from outside. Cheap enough to be asked several times per second.
pub trait PoolView: Send + Sync + 'static {
    /// Name of the environment, as configured.
    fn environment(&self) -> &str;

    /// Whether readiness depends on it.
    fn requirement(&self) -> Requirement;

    /// How it stands now.
    fn condition(&self) -> Condition;

    /// Whether the floor of serving connections is met now. Override where that costs less than a status.
    fn floor_met(&self) -> bool {
        matches!(self.condition(), Condition::Pooled(status) if status.floor_met)
    }

    /// Whether a request could be carried now: at least one connection serves.
    fn can_serve(&self) -> bool {
        match self.condition() {
            Condition::Pooled(status) => status.connections.iter().any(|c| c.state == pool::State::Serving),
            Condition::Quarantined(_) => false,
        }
    }

    /// What changed about the provider, newest first. Override where more is known than the status shows.
    fn drift(&self) -> Vec<DriftChange> {
        match self.condition() {
            Condition::Pooled(status) => status.drift,
            Condition::Quarantined(_) => Vec::new(),
        }
    }

    /// Expiry of our certificate and of the anchors in use. The provider's is read from the connections.
    fn certificates(&self) -> Vec<CertificateExpiry>;
}
