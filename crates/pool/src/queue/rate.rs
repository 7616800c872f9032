//! How fast the queue moves, and what that means for a place in it.
//!
//! Owns the estimate; what is refused because of it is the hub's decision.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Intervals between turns that must have been measured before the estimate says anything.
const SAMPLES_NEEDED: usize = 16;
/// Intervals that count; older ones are forgotten.
const MEMORY: usize = 32;

/// The mean time between two turns, since the queue was last empty: what was measured in another jam, with other
/// connections, says nothing of this one. The longest of the intervals is left out, so that one stall that is over does
/// not turn away those who come after it.
#[derive(Debug, Default)]
pub(crate) struct ServiceRate {
    turns: VecDeque<Instant>,
}

impl ServiceRate {
    /// A waiter was given a stream.
    pub(crate) fn served(&mut self, now: Instant) {
        if self.turns.len() > MEMORY {
            self.turns.pop_front();
        }
        self.turns.push_back(now);
    }

    /// Nobody waits any more.
    pub(crate) fn rested(&mut self) {
        self.turns.clear();
    }

    /// How long it takes until `ahead` waiters were served, if enough was measured to say so. The turn that is under
    /// way is not counted: it may end at any moment.
    pub(crate) fn wait_behind(&self, ahead: u64) -> Option<Duration> {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.interval().map(|interval| interval.saturating_mul(ahead))
    }

    fn interval(&self) -> Option<Duration> {
        let intervals = self.turns.len().checked_sub(1).filter(|count| *count >= SAMPLES_NEEDED)?;
        let (first, last) = (self.turns.front()?, self.turns.back()?);
        let between = self.turns.iter().zip(self.turns.iter().skip(1));
        let longest = between.map(|(one, next)| next.saturating_duration_since(*one)).max()?;
        let rest = last.saturating_duration_since(*first).saturating_sub(longest);
        Some(rest / u32::try_from(intervals - 1).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(turns: usize, interval: Duration) -> ServiceRate {
        let start = Instant::now();
        let mut rate = ServiceRate::default();
        (0..u32::try_from(turns).unwrap()).for_each(|n| rate.served(start + interval * n));
        rate
    }

    #[test]
    fn nothing_is_said_before_enough_turns_were_measured() {
        let interval = Duration::from_millis(10);
        assert_eq!(measured(SAMPLES_NEEDED, interval).wait_behind(3), None);
        assert_eq!(measured(SAMPLES_NEEDED + 1, interval).wait_behind(3), Some(interval * 3));
    }

    #[test]
    fn an_empty_queue_forgets_what_was_measured() {
        let mut rate = measured(100, Duration::from_millis(10));
        rate.rested();
        assert_eq!(rate.wait_behind(1), None);
    }

    #[test]
    fn the_average_follows_a_change_within_some_dozen_turns() {
        let start = Instant::now();
        let mut rate = ServiceRate::default();
        let mut now = start;
        for interval in [10; 50].into_iter().chain([100; 40]) {
            rate.served(now);
            now += Duration::from_millis(interval);
        }
        let one = rate.wait_behind(1).unwrap();
        assert!((Duration::from_millis(95)..Duration::from_millis(101)).contains(&one), "{one:?}");
    }

    #[test]
    fn one_stall_that_is_over_turns_nobody_away() {
        let mut now = Instant::now();
        let mut rate = ServiceRate::default();
        for interval in [10; 20].into_iter().chain([5000]).chain([10; 40]) {
            rate.served(now);
            now += Duration::from_millis(interval);
            let one = rate.wait_behind(1).unwrap_or_default();
            assert!(one <= Duration::from_millis(11), "{one:?}");
        }
    }

    #[test]
    fn turns_that_come_in_bursts_count_by_their_mean() {
        let mut now = Instant::now();
        let mut rate = ServiceRate::default();
        for interval in [0, 0, 0, 40].into_iter().cycle().take(64) {
            rate.served(now);
            now += Duration::from_millis(interval);
        }
        let sixteen = rate.wait_behind(16).unwrap();
        assert!((Duration::from_millis(130)..=Duration::from_millis(160)).contains(&sixteen), "{sixteen:?}");
    }

    #[test]
    fn no_place_overflows() {
        assert!(measured(100, Duration::from_secs(3600)).wait_behind(u64::MAX).is_some());
    }
}
