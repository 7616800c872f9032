//! How one serving connection stands: fresh, about to go, due, or under test. Pure.
//!
//! Owns how learned limits translate into moments and budgets. What follows for the pool is `policy`.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    connection::{STREAM_ROOM, STREAM_WARNING},
    http1::IDLE_LIMIT,
    journey::ConnectionId,
    learned::LearnedLimits,
    status::{CauseOfDeath, Protocol},
};

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
    /// How long it has carried nothing; zero while it carries something.
    pub(super) idle_for: Duration,
    pub(super) lending: Lending,
}

/// How a connection is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lending {
    /// To many requests at once (HTTP/2).
    Shared,
    /// To one request at a time (HTTP/1.1). No PING keeps it alive while it is idle.
    Exclusive,
}

impl Lending {
    pub(super) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::H2 => Self::Shared,
            Protocol::Http11 => Self::Exclusive,
        }
    }

    /// How long such a connection may be idle, whatever was learned.
    fn idle_limit(self) -> Option<Duration> {
        match self {
            Self::Shared => None,
            Self::Exclusive => Some(IDLE_LIMIT),
        }
    }
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
        if self.requests >= STREAM_ROOM {
            return Standing::Due(CauseOfDeath::Exhausted);
        }
        if let Some(budget) = Budget::of(limits, pace) {
            if self.requests >= budget.requests {
                return Standing::Due(CauseOfDeath::LearnedLimit);
            }
            if self.requests >= budget.wake_at {
                return Standing::Fading { until: self.next_end(now, limits, pace).map(|end| end.at) };
            }
        }
        if self.requests >= STREAM_ROOM - STREAM_WARNING {
            return Standing::Fading { until: self.next_end(now, limits, pace).map(|end| end.at) };
        }
        match self.next_end(now, limits, pace) {
            Some(end) if now >= end.at => Standing::Due(end.cause),
            Some(end) if now >= end.fades_at => Standing::Fading { until: Some(end.at) },
            _ if self.doubted => Standing::Fading { until: Some(self.retire_at) },
            Some(end) => Standing::Fresh { until: Some(end.fades_at.min(self.retire_at)) },
            None => Standing::Fresh { until: Some(self.retire_at) },
        }
    }

    /// When it must be gone by the limits on time: nine tenths of a learned age, eight of a learned idle time, less a
    /// share that differs from connection to connection, so that those born together do not go together. While it
    /// carries something it may fall idle at any moment: then this is when to look again, at the latest.
    fn next_end(&self, now: Instant, limits: &LearnedLimits, pace: &Pace) -> Option<End> {
        let stagger = [0.0, 0.05, 0.1, 0.15][usize::try_from(self.id.0 % 4).unwrap_or(0)];
        let idle_since = now.checked_sub(self.idle_for).unwrap_or(now);
        let by_age =
            limits.age.map(|age| (self.born, age.mul_f64(0.9 - stagger), CauseOfDeath::LearnedLimit));
        let by_rule =
            limits.idle.map(|idle| (idle_since, idle.mul_f64(0.8 - stagger), CauseOfDeath::LearnedLimit));
        let by_habit = self
            .lending
            .idle_limit()
            .map(|idle| (idle_since, idle.mul_f64(1.0 - stagger), CauseOfDeath::Idle));
        let ends = [by_age, by_rule, by_habit].into_iter().flatten().map(|(since, span, cause)| {
            // Where a dial takes long against the span, a successor would fade as soon as it serves.
            let lead = pace.lead().min(span / 4);
            End { at: since + span, fades_at: since + (span - lead), cause }
        });
        ends.min_by_key(|end| end.at)
    }
}

/// A foreseeable end.
#[derive(Clone, Copy, Debug)]
struct End {
    at: Instant,
    /// When its successor should be dialled.
    fades_at: Instant,
    cause: CauseOfDeath,
}
