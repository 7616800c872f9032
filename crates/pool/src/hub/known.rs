//! What the supervisor knows about the provider, for those who do not decide: drivers, requests, status.
//!
//! Owns the published values only; how they come to be is the supervisor's.

use std::{sync::atomic::Ordering, time::Duration};

use super::Hub;
use crate::{
    error::SendErrorKind,
    health::Health,
    status::{BreakerStatus, LearnedStatus},
};

/// What the supervisor knows about the provider, published for status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) breaker: BreakerStatus,
    pub(crate) learned: LearnedStatus,
    pub(crate) health: Option<Health>,
}

impl Hub {
    /// How often connections send a PING now.
    pub(crate) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_ping_interval(&self, interval: Duration) {
        self.ping_interval_ms
            .store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the provider answers no PINGs.
    pub(crate) fn ignores_pings(&self) -> bool {
        self.ignores_pings.load(Ordering::Relaxed)
    }

    /// Notes whether the provider ignored a PING; returns what was known before.
    pub(crate) fn set_ignores_pings(&self, ignores: bool) -> bool {
        self.ignores_pings.swap(ignores, Ordering::Relaxed)
    }

    /// Whether a new HTTP/1.1 connection that is asked for the application's health is lost by it.
    pub(crate) fn questions_cost(&self) -> bool {
        self.questions_cost.load(Ordering::Relaxed)
    }

    /// Notes whether one was; returns what was known before.
    pub(crate) fn set_questions_cost(&self, cost: bool) -> bool {
        self.questions_cost.swap(cost, Ordering::Relaxed)
    }

    /// Why requests are refused although connections serve, if they are.
    pub(crate) fn withheld(&self) -> Option<SendErrorKind> {
        // The common case costs one load.
        if !self.withheld.load(Ordering::Relaxed) {
            return None;
        }
        let why = self.known.load().breaker.why.clone()?;
        Some(SendErrorKind::Unavailable(why))
    }

    pub(crate) fn set_withheld(&self, withheld: bool) {
        self.withheld.store(withheld, Ordering::Relaxed);
    }
}
