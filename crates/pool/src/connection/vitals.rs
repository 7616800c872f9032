//! Whether a connection still hears from its provider, and how much it is trusted with.
//!
//! Owns suspicion: response time-outs without a byte from the provider make a connection doubted; a PING decides. One
//! that answers it is on probation, with one stream at a time, until a response arrives. Also how the connection
//! stood when the provider announced its end: the sample that limits are learned from.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::health::HealthFault;

/// How far a connection is trusted with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Trust {
    /// It carries what its capacity allows.
    Full,
    /// Requests timed out on it and nothing was heard: a PING is under way.
    Doubted,
    /// It acknowledged a PING, but no response has come since: one stream at a time.
    Probation,
}

impl Trust {
    const ALL: [Trust; 3] = [Self::Full, Self::Doubted, Self::Probation];

    /// The one transition function.
    fn next(self, event: TrustEvent) -> Self {
        match (self, event) {
            (_, TrustEvent::Silence) | (Self::Full, TrustEvent::Late) => Self::Doubted,
            (Self::Doubted, TrustEvent::Pong) => Self::Probation,
            (_, TrustEvent::Response) => Self::Full,
            (other, TrustEvent::Pong | TrustEvent::Late) => other,
        }
    }
}

/// What changes how far a connection is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrustEvent {
    /// Too many requests timed out and nothing was heard meanwhile.
    Silence,
    /// The answer to a PING takes long.
    Late,
    /// It acknowledged a PING.
    Pong,
    /// A response arrived.
    Response,
}

/// How a connection stood when the provider announced its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Farewell {
    pub(crate) at: Instant,
    /// Requests that the provider took, as far as it said.
    pub(crate) requests: u64,
    /// How far that may be off.
    pub(crate) uncertain: u64,
    /// How long it had carried nothing; `None` when it carried something.
    pub(crate) idle: Option<Duration>,
    /// The provider gave no error: it ends connections as a matter of routine.
    pub(crate) routine: bool,
    /// It announced the end, or closed as TLS wants it: nothing broke.
    pub(crate) orderly: bool,
    /// It found our PINGs too many (ENHANCE_YOUR_CALM).
    pub(crate) calm: bool,
}

/// The vital signs of one connection.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Reads that brought bytes, so far.
    heard: AtomicU64,
    trust: AtomicU8,
    /// Response time-outs in a row without a byte heard in between.
    silences: AtomicU8,
    farewell: OnceLock<Farewell>,
    sampled: AtomicBool,
    worn: AtomicBool,
    /// How the application failed the health request of the proof.
    unwell: Mutex<Option<HealthFault>>,
}

impl Vitals {
    /// A mark to compare with later: has anything been heard since?
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// So many reads brought bytes by now.
    pub(crate) fn note_heard(&self, reads: u64) {
        self.heard.store(reads, Ordering::Relaxed);
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::ALL[usize::from(self.trust.load(Ordering::Relaxed)) % Trust::ALL.len()]
    }

    fn advance(&self, event: TrustEvent) -> Trust {
        let next = self.trust().next(event);
        self.trust.store(next as u8, Ordering::Relaxed);
        next
    }

    /// A request timed out; `mark` is what [`Self::heard`] said when it was sent. Returns whether the connection has
    /// become doubtful by it.
    pub(crate) fn timed_out(&self, mark: u64, suspect_after: u8) -> bool {
        if self.heard() != mark {
            self.silences.store(0, Ordering::Relaxed);
            return false;
        }
        let silences = self.silences.load(Ordering::Relaxed).saturating_add(1);
        self.silences.store(silences, Ordering::Relaxed);
        silences >= suspect_after && self.advance(TrustEvent::Silence) == Trust::Doubted
    }

    /// The answer to a PING takes long.
    pub(crate) fn late(&self) {
        self.advance(TrustEvent::Late);
    }

    /// A PING was acknowledged.
    pub(crate) fn pong(&self) {
        if self.trust() != Trust::Full {
            self.advance(TrustEvent::Pong);
        }
    }

    /// A response arrived: whatever was suspected was wrong. Returns whether anything was.
    pub(crate) fn responded(&self) -> bool {
        // The common case costs one load.
        if self.trust() == Trust::Full {
            return false;
        }
        self.silences.store(0, Ordering::Relaxed);
        self.advance(TrustEvent::Response);
        true
    }

    /// What it may bear of its provider's habits is nearly used up: it goes as soon as its successor serves.
    pub(crate) fn wear_out(&self) {
        self.worn.store(true, Ordering::Relaxed);
    }

    /// Whether it is to go for that.
    pub(crate) fn is_worn(&self) -> bool {
        self.worn.load(Ordering::Relaxed)
    }

    /// Keeps how it stood when its end was announced; later announcements change nothing.
    pub(crate) fn bid_farewell(&self, farewell: Farewell) {
        let _ = self.farewell.set(farewell);
    }

    pub(crate) fn farewell(&self) -> Option<Farewell> {
        self.farewell.get().copied()
    }

    /// The connection is proven, but the application failed the health request that went with it.
    pub(crate) fn note_unwell(&self, fault: HealthFault) {
        *self.unwell.lock() = Some(fault);
    }

    /// That failure, for the first one who asks.
    pub(crate) fn take_unwell(&self) -> Option<HealthFault> {
        self.unwell.lock().take()
    }

    /// The farewell, for the first one who asks.
    pub(crate) fn sample_once(&self) -> Option<Farewell> {
        let farewell = self.farewell()?;
        (!self.sampled.swap(true, Ordering::Relaxed)).then_some(farewell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_makes_doubt_a_pong_probation_and_a_response_trust() {
        let vitals = Vitals::default();
        let mark = vitals.heard();
        assert!(!vitals.timed_out(mark, 2));
        assert!(vitals.timed_out(mark, 2));
        assert_eq!(vitals.trust(), Trust::Doubted);
        vitals.pong();
        assert_eq!(vitals.trust(), Trust::Probation);
        assert!(vitals.responded());
        assert_eq!(vitals.trust(), Trust::Full);
    }

    #[test]
    fn a_late_answer_is_doubt_until_it_comes_and_changes_no_probation() {
        let vitals = Vitals::default();
        vitals.late();
        assert_eq!(vitals.trust(), Trust::Doubted);
        vitals.pong();
        vitals.late();
        assert_eq!(vitals.trust(), Trust::Probation, "it has one stream at a time already");
    }

    #[test]
    fn a_time_out_while_others_are_answered_is_no_suspicion() {
        let vitals = Vitals::default();
        for reads in 1..10 {
            let mark = vitals.heard();
            vitals.note_heard(reads);
            assert!(!vitals.timed_out(mark, 2));
        }
        assert_eq!(vitals.trust(), Trust::Full);
    }

    #[test]
    fn a_failed_trial_is_doubt_again() {
        let vitals = Vitals::default();
        let mark = vitals.heard();
        vitals.timed_out(mark, 1);
        vitals.pong();
        assert!(vitals.timed_out(mark, 1));
        assert_eq!(vitals.trust(), Trust::Doubted);
    }

    #[test]
    fn a_farewell_is_sampled_once() {
        let vitals = Vitals::default();
        assert!(vitals.sample_once().is_none());
        let at = Instant::now();
        let farewell = Farewell {
            at,
            requests: 200,
            uncertain: 0,
            idle: None,
            routine: true,
            orderly: true,
            calm: false,
        };
        vitals.bid_farewell(farewell);
        assert_eq!(vitals.sample_once().map(|f| f.requests), Some(200));
        assert!(vitals.sample_once().is_none());
    }
}
