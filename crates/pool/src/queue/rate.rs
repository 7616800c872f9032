//! How fast the queue moves, and what that means for a place in it.
//!
//! Owns the estimate; what is refused because of it is the hub's decision.

use std::time::Duration;

use tokio::time::Instant;

/// Turns that must have been measured before the estimate says anything.
const SAMPLES_NEEDED: u32 = 16;
/// Weight of a new interval in the moving average, as one over this: about the last 16 turns count.
const MEMORY: u32 = 8;

/// A moving average of the time between two turns, since the queue was last empty: what was measured in another
/// jam, with other connections, says nothing of this one.
#[derive(Debug, Default)]
pub(crate) struct ServiceRate {
    last: Option<Instant>,
    interval: Duration,
    samples: u32,
}

impl ServiceRate {
    /// A waiter was given a stream.
    pub(crate) fn served(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let sample = now.saturating_duration_since(last);
            self.samples = self.samples.saturating_add(1);
            let memory = MEMORY.min(self.samples);
            self.interval = (self.interval * (memory - 1) + sample) / memory;
        }
    }

    /// Nobody waits any more.
    pub(crate) fn rested(&mut self) {
        *self = Self::default();
    }

    /// How long it takes until `ahead` waiters were served, if enough was measured to say so. The turn that is under
    /// way is not counted: it may end at any moment.
    pub(crate) fn wait_behind(&self, ahead: u64) -> Option<Duration> {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        (self.samples >= SAMPLES_NEEDED).then(|| self.interval.saturating_mul(ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(turns: u32, interval: Duration) -> ServiceRate {
        let start = Instant::now();
        let mut rate = ServiceRate::default();
        (0..turns).for_each(|n| rate.served(start + interval * n));
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
    fn no_place_overflows() {
        assert!(measured(100, Duration::from_secs(3600)).wait_behind(u64::MAX).is_some());
    }
}
