//! One circuit of the breaker: three states, as short functions. Time is passed in.
//!
//! Owns nothing but the state; what opens and closes it is `breaker`.

use std::sync::Arc;

use tokio::time::Instant;

use super::breaker::BreakerState;
use crate::error::DialError;

/// Whether something may pass.
#[derive(Clone, Debug, Default)]
pub(super) enum Circuit {
    /// All of it.
    #[default]
    Closed,
    /// Nothing.
    Open { ends: Ends, why: Arc<DialError> },
    /// One trial at a time, since this moment.
    HalfOpen { since: Instant, why: Arc<DialError> },
}

/// What ends the open state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Time: at this moment a trial may be made.
    At(Instant),
    /// Health requests that succeed: at this moment at the earliest, and only then.
    WhenHealthy(Instant),
}

impl Ends {
    fn at(self) -> Instant {
        match self {
            Self::At(at) | Self::WhenHealthy(at) => at,
        }
    }
}

impl Circuit {
    pub(super) fn open(&mut self, ends: Ends, why: Arc<DialError>) {
        *self = Self::Open { ends, why };
    }

    pub(super) fn close(&mut self) {
        *self = Self::Closed;
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Instant) {
        if let Self::Open { ends: Ends::At(at), why } = self
            && *at <= now
        {
            *self = Self::HalfOpen { since: now, why: why.clone() };
        }
    }

    /// The application is healthy again: a trial may be made.
    pub(super) fn recover(&mut self, now: Instant) {
        if let Self::Open { ends: Ends::WhenHealthy(_), why } = self {
            *self = Self::HalfOpen { since: now, why: why.clone() };
        }
    }

    /// It is open until health requests succeed.
    pub(super) fn waits_for_health(&self) -> bool {
        matches!(self, Self::Open { ends: Ends::WhenHealthy(_), .. })
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// Why it is not closed.
    pub(super) fn why(&self) -> Option<&Arc<DialError>> {
        match self {
            Self::Closed => None,
            Self::Open { why, .. } | Self::HalfOpen { why, .. } => Some(why),
        }
    }

    /// Until when nothing passes; `None` unless it is open.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Self::Open { ends, .. } => Some(ends.at()),
            Self::Closed | Self::HalfOpen { .. } => None,
        }
    }

    /// When [`Self::tick`] changes anything.
    pub(super) fn ticks_at(&self) -> Option<Instant> {
        match self {
            Self::Open { ends: Ends::At(at), .. } => Some(*at),
            Self::Open { .. } | Self::Closed | Self::HalfOpen { .. } => None,
        }
    }

    /// The state's word.
    pub(super) fn word(&self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}
