//! How one serving connection stands: fresh, about to go, due, or under test. Pure.
//!
//! Owns how learned limits translate into moments and budgets. What follows for the pool is `policy`.

use std::time::Duration;

use tokio::time::Instant;

use crate::{journey::ConnectionId, learned::LearnedLimits, status::CauseOfDeath};

/// A connection that carries new streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Serving {
    pub(super) id: ConnectionId,
    pub(super) in_flight: u32,
    /// Streams it may carry at once.
    pub(super) capacity: u32,
    /// Requests given to it so far.
    pub(super) requests: u64,
    pub(super) born: Instant,
    pub(super) retire_at: Instant,
    /// Why it has to go whatever its age, if it has to: its generation or its address is no longer in use.
    pub(super) condemned: Option<CauseOfDeath>,
    /// It is under suspicion: it may serve, but is not counted on.
    pub(super) doubted: bool,
    /// It puts the learned limits to the test.
    pub(super) probing: bool,
    /// How long it has carried nothing.
    pub(super) idle_for: Duration,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is counted on; look again at this moment.
    Fresh { until: Option<Instant> },
    /// It serves, but its successor should be on its way.
    Fading { until: Option<Instant> },
    /// It goes as soon as it can be spared.
    Due(CauseOfDeath),
    /// It is to outlive the limits if it can.
    Probing,
}

/// How fast things happen in this pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// Requests per second, all connections together.
    pub(super) requests: f64,
    /// Connections that ended per second, for whatever reason but a stop.
    pub(super) ends: f64,
    /// How long a dial takes, to the proof.
    pub(super) dial: Duration,
}

/// Shortest and longest time by which a successor is dialled ahead.
const LEAST_LEAD: Duration = Duration::from_millis(100);
const LONGEST_LEAD: Duration = Duration::from_secs(15);

impl Pace {
    /// How long before its end a connection's successor is dialled: a dial may take longer than usual, or fail once.
    pub(super) fn lead(&self) -> Duration {
        (self.dial * 3).clamp(LEAST_LEAD, LONGEST_LEAD)
    }

    /// Dials that must run side by side to replace connections as fast as they end.
    pub(super) fn replacements_at_once(&self) -> u32 {
        // Non-negative and small: the cast cannot surprise.
        1 + (self.ends * self.dial.as_secs_f64() * 2.0).ceil() as u32
    }
}

/// How many requests a connection may carry under a learned limit, and at which its successor is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) requests: u64,
    pub(super) wake_at: u64,
}

impl Budget {
    /// The budget under `limits`; `None` without a limit on requests.
    pub(super) fn of(limits: &LearnedLimits, pace: &Pace) -> Option<Self> {
        let limit = limits.requests?;
        // Stay below: a stream that was cancelled before it was sent may have counted or not.
        let requests = limit - (limit / 64 + 1).min(limit / 2);
        let lead = (pace.requests * pace.lead().as_secs_f64()).ceil() as u64;
        let wake_at = requests - lead.clamp(requests / 8, requests * 3 / 4).min(requests);
        Some(Self { requests, wake_at })
    }
}

impl Serving {
    pub(super) fn standing(&self, now: Instant, limits: &LearnedLimits, pace: &Pace) -> Standing {
        if self.probing {
            return Standing::Probing;
        }
        if let Some(cause) = self.condemned {
            return Standing::Due(cause);
        }
        if now >= self.retire_at {
            return Standing::Due(CauseOfDeath::Age);
        }
        if let Some(budget) = Budget::of(limits, pace) {
            if self.requests >= budget.requests {
                return Standing::Due(CauseOfDeath::LearnedLimit);
            }
            if self.requests >= budget.wake_at {
                return Standing::Fading { until: self.next_end(now, limits) };
            }
        }
        match self.next_end(now, limits) {
            Some(end) if now >= end => Standing::Due(CauseOfDeath::LearnedLimit),
            Some(end) if now + pace.lead() >= end => Standing::Fading { until: Some(end) },
            _ if self.doubted => Standing::Fading { until: Some(self.retire_at) },
            Some(end) => {
                let lead = pace.lead();
                Standing::Fresh { until: Some((end.checked_sub(lead).unwrap_or(end)).min(self.retire_at)) }
            }
            None => Standing::Fresh { until: Some(self.retire_at) },
        }
    }

    /// When it must be gone by the learned limits on time: nine tenths of the age, eight of the idle time, less a
    /// share that differs from connection to connection, so that those born together do not go together.
    fn next_end(&self, now: Instant, limits: &LearnedLimits) -> Option<Instant> {
        let stagger = [0.0, 0.05, 0.1, 0.15][usize::try_from(self.id.0 % 4).unwrap_or(0)];
        let by_age = limits.age.map(|age| self.born + age.mul_f64(0.9 - stagger));
        let idle_since = now.checked_sub(self.idle_for).unwrap_or(now);
        let by_idle = limits
            .idle
            .filter(|_| self.in_flight == 0 && !self.idle_for.is_zero())
            .map(|idle| idle_since + idle.mul_f64(0.8 - stagger));
        match (by_age, by_idle) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
