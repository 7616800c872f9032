//! When a PING is sent and when it is overdue: the keep-alive of one connection, as a state machine without I/O.
//!
//! One PING at a time, never given up: h2 refuses a second one while the first is unanswered. The deadline counts
//! from when the PING was queued, not from when it was written: a connection whose writes stand still is as dead as
//! one whose reads do.

use std::time::Duration;

use tokio::time::Instant;

/// Whether the provider answers PINGs at all. Some load balancers are said not to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingAnswers {
    /// It does: an unanswered PING means that the connection is dead.
    Expected,
    /// It let one pass unanswered but proved itself otherwise: no PING is waited for.
    Never,
}

/// Where the keep-alive stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next PING is due at this moment.
    Resting { until: Instant },
    /// A PING is on its way; without an answer by then the connection is dead.
    Waiting { since: Instant, until: Instant },
    /// A PING was never answered, and that is no sign of death here.
    Silent,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a PING.
    Send,
    /// The connection is dead.
    Overdue,
    /// Nothing before this moment; `None`: nothing at all.
    Wait(Option<Instant>),
}

/// The keep-alive of one connection.
#[derive(Debug)]
pub(crate) struct Pinger {
    state: State,
    timeout: Duration,
}

impl Pinger {
    /// The first PING, the proof, was queued at `now`.
    pub(crate) fn begin(now: Instant, timeout: Duration) -> Self {
        Self { state: State::Waiting { since: now, until: now + timeout }, timeout }
    }

    /// Whether a PING is on its way.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// The answer came. Returns the round trip.
    pub(crate) fn answered(&mut self, now: Instant, interval: Duration) -> Option<Duration> {
        let State::Waiting { since, .. } = self.state else { return None };
        self.state = State::Resting { until: now + interval };
        Some(now.saturating_duration_since(since))
    }

    /// This provider answers no PINGs.
    pub(crate) fn give_up(&mut self) {
        self.state = State::Silent;
    }

    /// Somebody doubts that the connection lives: the next PING is due now.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if let State::Resting { until } = &mut self.state {
            *until = (*until).min(now);
        }
    }

    /// What is to be done at `now`; a PING that is to be sent counts as queued.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        match self.state {
            State::Resting { until } if until <= now => {
                self.state = State::Waiting { since: now, until: now + self.timeout };
                Step::Send
            }
            State::Waiting { until, .. } if until <= now => Step::Overdue,
            State::Resting { until } | State::Waiting { until, .. } => Step::Wait(Some(until)),
            State::Silent => Step::Wait(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const INTERVAL: Duration = Duration::from_secs(30);

    #[test]
    fn the_deadline_counts_from_when_the_ping_was_queued() {
        let t0 = Instant::now();
        let mut pinger = Pinger::begin(t0, TIMEOUT);
        assert_eq!(pinger.step(t0), Step::Wait(Some(t0 + TIMEOUT)));
        assert_eq!(pinger.answered(t0 + TIMEOUT / 2, INTERVAL), Some(TIMEOUT / 2));
        let due = t0 + TIMEOUT / 2 + INTERVAL;
        assert_eq!(pinger.step(t0 + TIMEOUT), Step::Wait(Some(due)));
        assert_eq!(pinger.step(due), Step::Send);
        assert_eq!(pinger.step(due + TIMEOUT - Duration::from_millis(1)), Step::Wait(Some(due + TIMEOUT)));
        assert_eq!(pinger.step(due + TIMEOUT), Step::Overdue);
    }

    #[test]
    fn doubt_brings_the_next_ping_forward_but_never_a_second_one() {
        let t0 = Instant::now();
        let mut pinger = Pinger::begin(t0, TIMEOUT);
        pinger.hurry(t0);
        assert!(matches!(pinger.step(t0), Step::Wait(_)), "one is on its way already");
        pinger.answered(t0, INTERVAL);
        pinger.hurry(t0 + TIMEOUT);
        assert_eq!(pinger.step(t0 + TIMEOUT), Step::Send);
    }

    #[test]
    fn a_provider_that_answers_no_pings_is_not_declared_dead_for_it() {
        let t0 = Instant::now();
        let mut pinger = Pinger::begin(t0, TIMEOUT);
        pinger.give_up();
        assert_eq!(pinger.step(t0 + TIMEOUT * 9), Step::Wait(None));
        assert_eq!(pinger.answered(t0, INTERVAL), None);
    }
}
