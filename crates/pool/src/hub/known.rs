//! What the supervisor knows about the provider, for those who do not decide: drivers, requests, status.
//!
//! Owns the published values only; how they come to be is the supervisor's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use super::Hub;
use crate::{
    error::SendErrorKind,
    health::Health,
    status::{BreakerStatus, LearnedStatus},
    supervisor::Passage,
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

    /// Whether the provider answers no PINGs, as far as is known.
    pub(crate) fn ignores_pings(&self) -> bool {
        self.ignores_pings.load(Ordering::Relaxed)
    }

    /// A connection found out whether the provider answers PINGs. The supervisor hears of it if that is news.
    pub(crate) fn note_pings(&self, pings: Pings) {
        let ignored = pings == Pings::Ignored;
        if self.ignores_pings() != ignored {
            self.ignores_pings.store(ignored, Ordering::Relaxed);
            self.supervisor.notify_one();
        }
    }

    /// Whether a new HTTP/1.1 connection that is asked for the application's health is lost by it.
    pub(crate) fn questions_cost(&self) -> bool {
        self.questions_cost.load(Ordering::Relaxed)
    }

    /// Notes whether one was; returns what was known before.
    pub(crate) fn set_questions_cost(&self, cost: bool) -> bool {
        self.questions_cost.swap(cost, Ordering::Relaxed)
    }

    /// Which requests the breaker lets through from now on.
    pub(crate) fn set_passage(&self, passage: Passage) {
        self.gate.passage.store(passage as u8, Ordering::Relaxed);
    }

    /// Lets a request in, unless the breaker withholds it although connections serve. Where it allows one at a time,
    /// the guard that comes with it is held until the answer has begun.
    ///
    /// # Errors
    /// Why it is withheld.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Option<Trial>, SendErrorKind> {
        // The common case costs one load.
        let passage = self.gate.passage.load(Ordering::Relaxed);
        if passage == Passage::All as u8 {
            return Ok(None);
        }
        let Some(why) = self.known.load().breaker.why.clone() else { return Ok(None) };
        if passage == Passage::Trial as u8 && !self.gate.on_trial.swap(true, Ordering::Relaxed) {
            return Ok(Some(Trial(self.clone())));
        }
        Err(SendErrorKind::Unavailable(why))
    }

    /// The supervisor wants to hear of the next answer.
    pub(crate) fn listen_for_answer(&self) {
        self.gate.listens.store(true, Ordering::Relaxed);
    }

    /// A response began. Nothing is written unless somebody listens.
    pub(crate) fn note_answer(&self) {
        if self.gate.listens.load(Ordering::Relaxed) && self.gate.listens.swap(false, Ordering::Relaxed) {
            self.gate.answered.store(true, Ordering::Release);
            self.supervisor.notify_one();
        }
    }

    /// Whether one began since this was last asked.
    pub(crate) fn take_answer(&self) -> bool {
        self.gate.answered.swap(false, Ordering::Acquire)
    }

    /// Requests timed out on a connection, and nothing was heard: it is doubted.
    pub(crate) fn note_silence(&self) {
        self.gate.silent.store(true, Ordering::Release);
        self.supervisor.notify_one();
    }

    /// Whether that happened since this was last asked.
    pub(crate) fn take_silence(&self) -> bool {
        self.gate.silent.swap(false, Ordering::Acquire)
    }
}

/// What became of PINGs on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pings {
    /// One was answered.
    Answered,
    /// None was in time, but SETTINGS were acknowledged.
    Ignored,
}

/// What the breaker lets through, and what it wants to hear of.
#[derive(Debug, Default)]
pub(super) struct Gate {
    passage: AtomicU8,
    /// A trial request is under way.
    on_trial: AtomicBool,
    listens: AtomicBool,
    answered: AtomicBool,
    silent: AtomicBool,
}

/// The only request that is let through for the time being. Dropping it makes room for another.
#[derive(Debug)]
#[must_use = "a trial that is dropped at once lets the next one in"]
pub(crate) struct Trial(Arc<Hub>);

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.gate.on_trial.store(false, Ordering::Relaxed);
    }
}
