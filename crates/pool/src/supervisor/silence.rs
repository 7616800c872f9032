//! What an environment left unanswered: PINGs, and requests during which nothing was heard. Pure; time is passed in.
//!
//! Owns the count and its threshold. Whether one connection has lost touch is `connection::vitals`; what follows for all of
//! them is `breaker`.

use std::time::Duration;

use tokio::time::Instant;

/// What was left unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// A keep-alive PING: its connection is dead.
    Ping,
    /// Requests on a connection that is doubted for it.
    Requests,
}

/// So many in a row, without an answer in between, mean that the provider is out of touch. Below that it may be one
/// connection and its successor.
const MANY: u8 = 3;
/// What fails together is one failure: connections that a middlebox forgot die in the same moment.
const TOGETHER: Duration = Duration::from_secs(1);

/// What was left unanswered in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    count: u8,
    /// Requests are among it.
    requests: bool,
    last: Option<Instant>,
}

impl Silence {
    /// One more. Returns whether the provider is out of touch.
    pub(super) fn note(&mut self, what: Unanswered, now: Instant) -> bool {
        self.requests |= what == Unanswered::Requests;
        if self.last.is_none_or(|last| now >= last + TOGETHER) {
            self.last = Some(now);
            self.count = self.count.saturating_add(1);
        }
        self.count >= MANY
    }

    /// A connection that was dialled at `born` came to serve. Returns whether that disproves what was noted: a PING that it
    /// answered says that the network carries again, but not that requests are answered.
    pub(super) fn is_disproved_by(&self, born: Instant) -> bool {
        !self.requests && self.last.is_none_or(|last| born >= last)
    }

    /// So many so far.
    pub(super) fn count(&self) -> u8 {
        self.count
    }

    /// Something was answered.
    pub(super) fn broken(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_are_many_and_an_answer_begins_the_count_anew() {
        let t0 = Instant::now();
        let mut silence = Silence::default();
        let at = |silence: &mut Silence, n| silence.note(Unanswered::Requests, t0 + TOGETHER * n);
        assert_eq!([1, 2, 3].map(|n| at(&mut silence, n)), [false, false, true]);
        silence.broken();
        assert_eq!([4, 5, 6].map(|n| at(&mut silence, n)), [false, false, true]);
    }

    #[test]
    fn connections_that_die_together_are_one_failure() {
        let t0 = Instant::now();
        let mut silence = Silence::default();
        assert!((0..8).all(|n| !silence.note(Unanswered::Ping, t0 + Duration::from_millis(n))));
        assert_eq!(silence.count(), 1);
    }

    #[test]
    fn a_later_proof_disproves_dead_connections_but_not_unanswered_requests() {
        let t0 = Instant::now();
        let mut silence = Silence::default();
        silence.note(Unanswered::Ping, t0 + TOGETHER);
        assert!(!silence.is_disproved_by(t0), "it was dialled before");
        assert!(silence.is_disproved_by(t0 + TOGETHER));
        silence.note(Unanswered::Requests, t0 + TOGETHER);
        assert!(!silence.is_disproved_by(t0 + TOGETHER * 2));
    }
}
