//! What is sent to hear from the provider, and when its answer is overdue: the keep-alive of one connection, as a state
//! machine without I/O.
//!
//! One PING at a time, never given up: h2 refuses a second one while the first is unanswered. The deadline counts
//! from when the PING was queued, not from when it was written: a connection whose writes stand still is as dead as
//! one whose reads do. Some load balancers are said to answer no PINGs: a connection on which none was ever answered asks
//! by SETTINGS that change nothing, which have to be acknowledged (RFC 9113 §6.5.3). So bytes flow on it while it is idle,
//! and its death is noticed. A PING that is answered after all ends that.

use std::time::Duration;

use tokio::time::Instant;

/// What is sent to hear from the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A PING.
    Ping,
    /// SETTINGS that change nothing.
    Settings,
}

/// What is known of PINGs on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pings {
    /// The first is on its way.
    Untold,
    /// One was answered: an unanswered one means that the connection is dead.
    Answered,
    /// The first was not answered in time, but SETTINGS that were sent after it were acknowledged.
    Ignored,
}

/// Where the keep-alive stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next probe is due at this moment.
    Resting { until: Instant },
    /// A probe is on its way; it is overdue at this moment.
    Waiting { since: Instant, until: Instant },
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this.
    Send(Probe),
    /// The answer takes long: a successor should be on its way before the connection is found dead. Told once for each
    /// probe.
    Late,
    /// The connection is dead.
    Overdue,
    /// Nothing before this moment.
    Wait(Instant),
}

/// The keep-alive of one connection.
#[derive(Debug)]
pub(crate) struct Pinger {
    state: State,
    /// What is on its way, or is sent next.
    probe: Probe,
    pings: Pings,
    /// That the answer takes long has been told.
    late: bool,
    timeout: Duration,
}

/// The part of the time-out after which an answer is late.
const LATE: u32 = 4;

impl Pinger {
    /// The first PING, the proof, was queued at `now`.
    pub(crate) fn begin(now: Instant, timeout: Duration) -> Self {
        let state = State::Waiting { since: now, until: now + timeout };
        Self { state, probe: Probe::Ping, pings: Pings::Untold, late: false, timeout }
    }

    /// Whether an answer to this is awaited. That to a PING may come after it was given up.
    pub(crate) fn awaits(&self, answer: Probe) -> bool {
        let waiting = matches!(self.state, State::Waiting { .. }) && self.probe == answer;
        waiting || (answer == Probe::Ping && self.pings != Pings::Answered)
    }

    /// A PING was answered. Returns the round trip, unless it had been given up.
    pub(crate) fn ponged(&mut self, now: Instant, interval: Duration) -> Option<Duration> {
        let rtt = match self.state {
            State::Waiting { since, .. } if self.probe == Probe::Ping => {
                Some(now.saturating_duration_since(since))
            }
            State::Waiting { .. } | State::Resting { .. } => None,
        };
        self.probe = Probe::Ping;
        self.pings = Pings::Answered;
        self.state = State::Resting { until: now + interval };
        rtt
    }

    /// The SETTINGS were acknowledged. Returns whether it is known by this, and was not before, that PINGs are ignored.
    pub(crate) fn acknowledged(&mut self, now: Instant, interval: Duration) -> bool {
        self.state = State::Resting { until: now + interval };
        std::mem::replace(&mut self.pings, Pings::Ignored) != Pings::Ignored
    }

    /// Somebody doubts that the connection lives: the next probe is due now; so is another kind where PINGs may be ignored.
    pub(crate) fn hurry(&mut self, now: Instant) {
        match &mut self.state {
            State::Resting { until } => *until = (*until).min(now),
            State::Waiting { until, .. } if self.probe == Probe::Ping && self.pings == Pings::Untold => {
                *until = (*until).min(now);
            }
            State::Waiting { .. } => {}
        }
    }

    /// What is to be done at `now`; a probe that is to be sent counts as queued.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        match self.state {
            State::Resting { until } if until <= now => self.send(now),
            State::Waiting { until, .. } if until <= now => {
                if self.probe == Probe::Settings || self.pings == Pings::Answered {
                    return Step::Overdue;
                }
                self.probe = Probe::Settings;
                self.send(now)
            }
            State::Waiting { since, until } if !self.late && self.pings != Pings::Untold => {
                let late_at = since + self.timeout / LATE;
                if late_at > now {
                    return Step::Wait(late_at.min(until));
                }
                self.late = true;
                Step::Late
            }
            State::Resting { until } | State::Waiting { until, .. } => Step::Wait(until),
        }
    }

    fn send(&mut self, now: Instant) -> Step {
        self.late = false;
        self.state = State::Waiting { since: now, until: now + self.timeout };
        Step::Send(self.probe)
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
        assert_eq!(pinger.step(t0), Step::Wait(t0 + TIMEOUT));
        assert_eq!(pinger.ponged(t0 + TIMEOUT / 2, INTERVAL), Some(TIMEOUT / 2));
        let due = t0 + TIMEOUT / 2 + INTERVAL;
        assert_eq!(pinger.step(t0 + TIMEOUT), Step::Wait(due));
        assert_eq!(pinger.step(due), Step::Send(Probe::Ping));
        assert_eq!(pinger.step(due), Step::Wait(due + TIMEOUT / LATE));
        assert_eq!(pinger.step(due + TIMEOUT / LATE), Step::Late);
        assert_eq!(
            pinger.step(due + TIMEOUT - Duration::from_millis(1)),
            Step::Wait(due + TIMEOUT),
            "told once"
        );
        assert_eq!(pinger.step(due + TIMEOUT), Step::Overdue);
    }

    #[test]
    fn an_answer_is_late_once_for_each_probe_and_never_for_the_proof() {
        let t0 = Instant::now();
        let mut pinger = Pinger::begin(t0, TIMEOUT);
        let mut now = t0 + TIMEOUT / 2;
        assert_eq!(pinger.step(now), Step::Wait(t0 + TIMEOUT), "the proof has a limit of its own");
        for _ in 0..2 {
            pinger.ponged(now, INTERVAL);
            now += INTERVAL;
            assert_eq!(pinger.step(now), Step::Send(Probe::Ping));
            now += TIMEOUT / 2;
            assert_eq!(pinger.step(now), Step::Late);
            assert!(matches!(pinger.step(now), Step::Wait(_)));
        }
    }

    #[test]
    fn doubt_brings_the_next_ping_forward_but_never_a_second_one() {
        let t0 = Instant::now();
        let mut pinger = Pinger::begin(t0, TIMEOUT);
        pinger.ponged(t0, INTERVAL);
        pinger.hurry(t0 + TIMEOUT);
        assert_eq!(pinger.step(t0 + TIMEOUT), Step::Send(Probe::Ping));
        pinger.hurry(t0 + TIMEOUT);
        assert!(matches!(pinger.step(t0 + TIMEOUT), Step::Wait(_)), "one is on its way already");
    }

    /// A connection whose first PING was not answered, asked by SETTINGS since `t0 + TIMEOUT`.
    fn unanswered(t0: Instant) -> Pinger {
        let mut pinger = Pinger::begin(t0, TIMEOUT);
        assert_eq!(pinger.step(t0 + TIMEOUT), Step::Send(Probe::Settings), "no sign of death yet");
        pinger
    }

    #[test]
    fn a_provider_that_answers_no_pings_is_asked_by_settings_at_the_interval() {
        let t0 = Instant::now();
        let mut pinger = unanswered(t0);
        let mut now = t0 + TIMEOUT;
        for first in [true, false, false] {
            assert!(pinger.awaits(Probe::Settings));
            assert_eq!(pinger.acknowledged(now, INTERVAL), first, "said once");
            assert_eq!(pinger.step(now), Step::Wait(now + INTERVAL));
            now += INTERVAL;
            assert_eq!(pinger.step(now), Step::Send(Probe::Settings));
        }
        assert_eq!(pinger.step(now + TIMEOUT), Step::Overdue, "SETTINGS have to be acknowledged");
    }

    #[test]
    fn a_pong_that_comes_late_ends_the_belief_that_pings_are_ignored() {
        let t0 = Instant::now();
        for acknowledged in [0, 1, 2] {
            let mut pinger = unanswered(t0);
            let mut now = t0 + TIMEOUT;
            for _ in 0..acknowledged {
                pinger.acknowledged(now, INTERVAL);
                now += INTERVAL;
                pinger.step(now);
            }
            assert!(pinger.awaits(Probe::Ping), "never given up");
            assert_eq!(pinger.ponged(now, INTERVAL), None, "no round trip of the present probe");
            now += INTERVAL;
            assert_eq!(pinger.step(now), Step::Send(Probe::Ping));
            assert_eq!(pinger.step(now + TIMEOUT), Step::Overdue, "it answers PINGs: silence is death");
        }
    }

    #[test]
    fn doubt_has_an_exit_where_pings_are_not_answered() {
        let t0 = Instant::now();
        let mut pinger = Pinger::begin(t0, TIMEOUT);
        pinger.hurry(t0);
        assert_eq!(pinger.step(t0), Step::Send(Probe::Settings), "a second opinion at once");
        pinger.acknowledged(t0, INTERVAL);
        pinger.hurry(t0);
        assert_eq!(pinger.step(t0), Step::Send(Probe::Settings));
        pinger.hurry(t0);
        assert_eq!(pinger.step(t0), Step::Wait(t0 + TIMEOUT / LATE));
        assert_eq!(pinger.step(t0 + TIMEOUT), Step::Overdue);
    }
}
