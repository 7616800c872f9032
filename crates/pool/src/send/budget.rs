//! The retry budget: how many requests that may have been processed are sent again.
//!
//! The rule is Finagle's: a share of the requests of the last ten seconds that may be replayed so, and a few per second
//! besides, so that a provider in trouble is not given the more work the worse it gets. Replays of what provably was not processed are
//! never charged. Time is passed in. Owns the counts; whether a replay is allowed at all is the ledger's question.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Seconds that the budget looks back.
const WINDOW: u64 = 10;
/// One slot more than the window: the one that fills.
const SLOTS: usize = WINDOW as usize + 1;

/// Counts of the last seconds.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    percent: u64,
    min_per_second: u64,
    requests: Seconds,
    replays: Seconds,
}

impl RetryBudget {
    /// `percent` of the noted requests of the last ten seconds may be replayed, and `min_per_second` each second in any case.
    pub(crate) fn new(percent: u32, min_per_second: u32) -> Self {
        Self {
            percent: u64::from(percent),
            min_per_second: u64::from(min_per_second),
            requests: Seconds::default(),
            replays: Seconds::default(),
        }
    }

    /// A request that may be replayed under this budget was made. `now` is the time since any fixed moment, the same for all calls.
    pub(crate) fn note_request(&self, now: Duration) {
        self.requests.add(now.as_secs());
    }

    /// Charges one replay, if there is room for it.
    pub(crate) fn try_charge(&self, now: Duration) -> bool {
        let now = now.as_secs();
        let room = self.requests.sum(now) * self.percent / 100 + self.min_per_second * WINDOW;
        if self.replays.sum(now) >= room {
            return false;
        }
        self.replays.add(now);
        true
    }
}

/// Counts per second: each slot holds the second (upper half) and its count (lower half). Counts that cross a turn of the
/// second on two workers may be lost: the budget is an estimate.
#[derive(Debug, Default)]
struct Seconds([AtomicU64; SLOTS]);

impl Seconds {
    fn add(&self, second: u64) {
        // Stamped one higher, so that an untouched slot is no second.
        let stamp = (second + 1) << 32;
        let slot = &self.0[(second % SLOTS as u64) as usize];
        let was = slot.load(Ordering::Relaxed);
        if was & STAMP == stamp {
            slot.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = slot.compare_exchange(was, stamp | 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn sum(&self, second: u64) -> u64 {
        let now = second + 1;
        let slots = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        slots.filter(|slot| slot >> 32 != 0 && (slot >> 32) + WINDOW > now).map(|slot| slot & !STAMP).sum()
    }
}

const STAMP: u64 = !0 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(budget: &RetryBudget, tries: u32, now: Duration) -> usize {
        (0..tries).filter(|_| budget.try_charge(now)).count()
    }

    #[test]
    fn a_share_of_the_last_ten_seconds_may_be_replayed_and_a_few_besides() {
        let budget = RetryBudget::new(20, 10);
        for second in 0..10 {
            (0..100).for_each(|_| budget.note_request(Duration::from_secs(second)));
        }
        assert_eq!(charge(&budget, 1000, Duration::from_secs(9)), 200 + 100);
        assert_eq!(charge(&budget, 1000, Duration::from_secs(9)), 0);
    }

    #[test]
    fn what_is_older_than_ten_seconds_no_longer_counts() {
        let budget = RetryBudget::new(20, 0);
        (0..100).for_each(|_| budget.note_request(Duration::from_secs(3)));
        assert_eq!(charge(&budget, 10, Duration::from_secs(12)), 10);
        assert_eq!(charge(&budget, 100, Duration::from_secs(13)), 0, "the requests are forgotten");
        (0..100).for_each(|_| budget.note_request(Duration::from_secs(30)));
        assert_eq!(charge(&budget, 100, Duration::from_secs(30)), 20, "so are the replays");
    }

    #[test]
    fn without_traffic_the_minimum_is_left() {
        let budget = RetryBudget::new(20, 10);
        assert_eq!(charge(&budget, 1000, Duration::from_secs(1_000_000)), 100);
        assert_eq!(charge(&RetryBudget::new(0, 0), 5, Duration::ZERO), 0);
    }
}
