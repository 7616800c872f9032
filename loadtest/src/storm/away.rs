//! When the provider could not be reached: from the moment it stops listening until a while after it came back; and the
//! moments in which it cut everything, dials on their way too.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::books::Reach;

/// How long after its return a refusal is still put down to the absence: the back-off that failed dials built up,
/// and the limit of the queue (2 s), which a request that came in the last moment may use up.
const AFTERWARDS: Duration = Duration::from_millis(2500);

/// How long after it cut all dials a refusal is put down to that: whoever waits while nothing serves is told at once why
/// the dial failed, and so are those who come in the pause after it (100 ms), or until the next dial serves.
const SHAKEN: Duration = Duration::from_millis(500);

/// One provider's absences.
#[derive(Debug)]
pub(super) struct Absence {
    origin: Instant,
    /// Milliseconds since `origin` until which a dial that was cut excuses a refusal; 0: never cut.
    shaken_until: AtomicU64,
    /// Milliseconds since `origin` until which refusals are excused; 0: never away.
    until: AtomicU64,
}

impl Absence {
    /// A provider that is there, at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, shaken_until: AtomicU64::new(0), until: AtomicU64::new(0) }
    }

    /// It goes, until [`ends`](Self::ends) says otherwise.
    pub(super) fn begins(&self) {
        self.until.store(u64::MAX, Ordering::Relaxed);
    }

    /// It listens again at `now`.
    pub(super) fn ends(&self, now: Instant) {
        self.until.store(self.millis(now + AFTERWARDS), Ordering::Relaxed);
    }

    /// It listens at `now` as before, but has just cut every connection, dials on their way too.
    pub(super) fn shakes(&self, now: Instant) {
        self.shaken_until.store(self.millis(now + SHAKEN), Ordering::Relaxed);
    }

    fn millis(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it can be reached at `now`.
    pub(super) fn reach(&self, now: Instant) -> Reach {
        let before = |until: &AtomicU64| self.millis(now) < until.load(Ordering::Relaxed);
        match (before(&self.until), before(&self.shaken_until)) {
            (true, _) => Reach::Away,
            (false, true) => Reach::Shaken,
            (false, false) => Reach::There,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_absence_ends_a_while_after_the_return() {
        let absence = Absence::new(Instant::now());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(absence.reach(Instant::now()), Reach::There);
        absence.begins();
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(absence.reach(Instant::now()), Reach::Away);
        absence.ends(Instant::now());
        let end = Instant::now() + AFTERWARDS;
        assert_eq!(absence.reach(end - Duration::from_millis(1)), Reach::Away);
        assert_eq!(absence.reach(end), Reach::There);
        absence.shakes(end);
        assert_eq!(absence.reach(end), Reach::Shaken);
        assert_eq!(absence.reach(end + SHAKEN), Reach::There);
    }
}
