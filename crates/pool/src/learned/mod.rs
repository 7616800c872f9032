//! What a provider does to connections of its own accord, learned from how they ended.
//!
//! Many providers end a connection after N requests, after T seconds, or when it was idle for T. They rarely say so.
//! This module takes one [`Sample`] per ended connection and says which limits fit; the supervisor then has the
//! successor serving before the limit is reached. Pure: no clock, no chance, no task. What to do about a limit is
//! the supervisor's policy; HTTP/1.1 uses the same module.

mod estimate;

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use self::estimate::{age_of, are_alike, are_together, common_age_of, idle_of, requests_of};

/// How one connection was when the provider ended it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When the end was announced (GOAWAY) or seen.
    pub(crate) at: Instant,
    /// Requests that the provider took on it.
    pub(crate) requests: u64,
    /// How far `requests` may be off: streams that crossed the end on the wire.
    pub(crate) uncertain: u64,
    /// From the beginning of its dial.
    pub(crate) age: Duration,
    /// How long it had carried nothing; `None` when it carried something.
    pub(crate) idle: Option<Duration>,
    /// The provider announced the end, or closed as TLS wants it.
    pub(crate) orderly: bool,
}

/// What a sample taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Nothing new.
    Nothing,
    /// Connections of one age ended together: a limit on age stands from now on, and is to be tested at once.
    Suspected,
    /// Limits were learned, confirmed or changed.
    Learned,
}

/// The limits that fit what was seen. `None`: no limit is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LearnedLimits {
    /// The provider ends a connection after this many requests.
    pub requests: Option<u64>,
    /// The provider ends a connection of this age.
    pub age: Option<Duration>,
    /// The provider ends a connection that has carried nothing for this long.
    pub idle: Option<Duration>,
}

impl LearnedLimits {
    /// Whether there is any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Samples kept; older ones say what the provider did long ago.
const KEPT: usize = 16;

/// The habits of one provider, as far as they are known.
#[derive(Debug)]
pub(crate) struct Learned {
    samples: VecDeque<Sample>,
    limits: LearnedLimits,
    /// When a limit was last learned, confirmed or put to the test.
    tested: Option<Instant>,
    retest_after: Duration,
    /// The ends that made us suspect the limit on age, while nothing has confirmed it: the newest of them.
    suspected: Option<Sample>,
}

impl Learned {
    /// Nothing is known; a limit is put to the test again `retest_after` its last test.
    pub(crate) fn new(retest_after: Duration) -> Self {
        let (samples, limits) = (VecDeque::new(), LearnedLimits::default());
        Self { samples, limits, tested: None, retest_after, suspected: None }
    }

    /// The limits as they stand.
    pub(crate) fn limits(&self) -> LearnedLimits {
        self.limits
    }

    /// The provider ended a connection.
    pub(crate) fn note(&mut self, sample: Sample) -> Noted {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let before = self.limits;
        let newest_first: Vec<_> = self.samples.iter().rev().copied().collect();
        let confirmed = self.weigh_suspicion(&sample);
        if let Some(idle) = idle_of(&newest_first) {
            self.limits.idle = Some(idle);
        }
        let (requests, age) = (requests_of(&newest_first), age_of(&newest_first));
        // Under a steady rate N requests take T seconds: the tighter fit is the rule, the other follows from it.
        match (requests, age) {
            (Some(requests), Some(age)) if requests.spread <= age.spread => {
                self.limits.requests = Some(requests.value);
            }
            (_, Some(age)) => self.limits.age = Some(age.value),
            (Some(requests), None) => self.limits.requests = Some(requests.value),
            (None, None) => {}
        }
        if self.limits.age != before.age && age.is_some() {
            self.suspected = None;
        }
        if requests.is_none() && self.suspects(&newest_first) {
            return Noted::Suspected;
        }
        if self.limits.is_empty() {
            return Noted::Nothing;
        }
        if self.suspected.is_none() {
            self.tested = Some(sample.at);
        }
        if confirmed || self.limits != before { Noted::Learned } else { Noted::Nothing }
    }

    /// One common end of connections of one age is enough to act on, for waiting for another would be an outage each
    /// time: their successors get staggered lives below that age. It may have been an accident (a restart), so the
    /// limit is put to the test by the first connection that reaches it.
    fn suspects(&mut self, newest_first: &[Sample]) -> bool {
        if self.limits.age.is_some() || self.limits.requests.is_some() {
            return false;
        }
        let Some(age) = common_age_of(newest_first) else { return false };
        self.limits.age = Some(age);
        self.suspected = newest_first.first().copied();
        true
    }

    /// What one more end says about a suspicion. Returns whether it confirms it.
    fn weigh_suspicion(&mut self, sample: &Sample) -> bool {
        let Some(suspected) = self.suspected else { return false };
        match (are_together(&suspected, sample), are_alike(&suspected, sample)) {
            // What also ended connections of other ages was an accident.
            (true, false) => {
                self.limits.age = None;
                self.suspected = None;
                false
            }
            (false, true) => {
                self.suspected = None;
                true
            }
            (true, true) => {
                self.suspected = Some(*sample);
                false
            }
            (false, false) => false,
        }
    }

    /// Whether the limits have stood untested for so long that one connection should try to outlive them.
    pub(crate) fn retest_due(&self, now: Instant) -> bool {
        self.retest_at().is_some_and(|at| at <= now)
    }

    /// When the next test is due; `None` while there is nothing to test.
    pub(crate) fn retest_at(&self) -> Option<Instant> {
        if self.limits.is_empty() {
            return None;
        }
        match &self.suspected {
            Some(suspected) if self.tested.is_none_or(|at| at <= suspected.at) => Some(suspected.at),
            _ => self.tested.map(|at| at + self.retest_after),
        }
    }

    /// A test begins.
    pub(crate) fn begin_test(&mut self, now: Instant) {
        self.tested = Some(now);
    }

    /// A connection still serves after so many requests, at this age, idle for so long. Limits that it has outlived
    /// by a quarter are dropped. Returns whether the limits changed.
    pub(crate) fn outlived(&mut self, requests: u64, age: Duration, idle: Duration) -> bool {
        let before = self.limits;
        let limits = &mut self.limits;
        limits.requests = limits.requests.filter(|limit| requests <= limit + limit / 4 + SLACK);
        limits.age = limits.age.filter(|limit| age <= *limit + *limit / 4);
        limits.idle = limits.idle.filter(|limit| idle <= *limit + *limit / 4);
        let changed = *limits != before;
        if limits.age.is_none() {
            self.suspected = None;
        }
        if changed {
            // What made us believe it is no longer true.
            self.samples.clear();
        }
        changed
    }
}

/// Requests by which a small limit must be exceeded before it counts as outlived.
const SLACK: u64 = 8;

#[cfg(test)]
mod tests;
