//! How often PINGs are sent to a provider that found them too many. Pure; time is passed in.
//!
//! Owns the interval. That a provider asked for calm is heard by `connection::driver`.

use std::time::Duration;

use tokio::time::Instant;

/// Longest interval that is learned: what gRPC servers tolerate by default, and within what most load balancers remember
/// (60 s to 350 s). One that forgets sooner and wants fewer PINGs cannot be pleased.
const LONGEST: Duration = Duration::from_secs(300);
/// After so long without a complaint a shorter interval is tried.
const RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The interval of PINGs and when it was last changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calm {
    configured: Duration,
    interval: Duration,
    changed: Option<Instant>,
}

impl Calm {
    pub(super) fn new(configured: Duration) -> Self {
        Self { configured, interval: configured, changed: None }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// The provider asked for calm at `at`. Returns whether that changed the interval: several connections may be told of
    /// the same pace, and only one that had the time to keep the present one can say that this is too fast still.
    pub(super) fn asked(&mut self, at: Instant) -> bool {
        if self.changed.is_some_and(|changed| at < changed + self.interval) {
            return false;
        }
        self.change((self.interval * 2).min(LONGEST.max(self.configured)), at)
    }

    /// Lets time pass. Returns whether that changed the interval.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let due = self.changed.is_some_and(|changed| now >= changed + RETRY_AFTER);
        due && self.change((self.interval / 2).max(self.configured), now)
    }

    fn change(&mut self, interval: Duration, now: Instant) -> bool {
        self.changed = Some(now);
        std::mem::replace(&mut self.interval, interval) != interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Duration = Duration::from_secs(30);

    #[test]
    fn connections_that_are_told_together_double_the_interval_once() {
        let t0 = Instant::now();
        let mut calm = Calm::new(CONFIGURED);
        let changes = (0..8).filter(|n| calm.asked(t0 + Duration::from_millis(*n))).count();
        assert_eq!((changes, calm.interval()), (1, CONFIGURED * 2));
        assert!(!calm.asked(t0 + CONFIGURED), "told of the old pace");
        assert!(calm.asked(t0 + CONFIGURED * 2), "told of the new one");
        assert_eq!(calm.interval(), CONFIGURED * 4);
    }

    #[test]
    fn the_interval_stays_within_what_load_balancers_remember() {
        let mut now = Instant::now();
        let mut calm = Calm::new(CONFIGURED);
        for _ in 0..20 {
            now += LONGEST;
            calm.asked(now);
        }
        assert_eq!(calm.interval(), LONGEST);
        let mut rare = Calm::new(LONGEST * 2);
        assert!(!rare.asked(now), "what is configured is never shortened by a complaint");
        assert_eq!(rare.interval(), LONGEST * 2);
    }

    #[test]
    fn a_shorter_interval_is_tried_again_after_an_hour_without_a_complaint() {
        let t0 = Instant::now();
        let mut calm = Calm::new(CONFIGURED);
        calm.asked(t0);
        assert!(!calm.tick(t0 + RETRY_AFTER / 2));
        assert!(calm.tick(t0 + RETRY_AFTER));
        assert_eq!(calm.interval(), CONFIGURED);
        assert!(!calm.tick(t0 + RETRY_AFTER * 9), "and never below what is configured");
    }
}
