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

use self::estimate::{age_of, idle_of, requests_of};

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
}

impl Learned {
    /// Nothing is known; a limit is put to the test again `retest_after` its last test.
    pub(crate) fn new(retest_after: Duration) -> Self {
        Self { samples: VecDeque::new(), limits: LearnedLimits::default(), tested: None, retest_after }
    }

    /// The limits as they stand.
    pub(crate) fn limits(&self) -> LearnedLimits {
        self.limits
    }

    /// The provider ended a connection. Returns whether the limits changed.
    pub(crate) fn note(&mut self, sample: Sample) -> bool {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let before = self.limits;
        let newest_first: Vec<_> = self.samples.iter().rev().copied().collect();
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
        if self.limits.is_empty() {
            return false;
        }
        self.tested = Some(sample.at);
        self.limits != before
    }

    /// Whether the limits have stood untested for so long that one connection should try to outlive them.
    pub(crate) fn retest_due(&self, now: Instant) -> bool {
        self.retest_at().is_some_and(|at| at <= now)
    }

    /// When the next test is due; `None` while there is nothing to test.
    pub(crate) fn retest_at(&self) -> Option<Instant> {
        if self.limits.is_empty() { None } else { self.tested.map(|at| at + self.retest_after) }
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
