//! When the provider could not be reached: from the moment it stops listening until a while after it came back.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::books::Reach;

/// How long after its return a refusal is still put down to the absence: the back-off that failed dials built up,
/// and the limit of the queue (2 s), which a request that came in the last moment may use up.
const AFTERWARDS: Duration = Duration::from_millis(2500);

/// One provider's absences.
#[derive(Debug)]
pub(super) struct Absence {
    origin: Instant,
    /// Milliseconds since `origin` until which refusals are excused; 0: never away.
    until: AtomicU64,
}

impl Absence {
    /// A provider that is there, at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, until: AtomicU64::new(0) }
    }

    /// It goes, until [`ends`](Self::ends) says otherwise.
    pub(super) fn begins(&self) {
        self.until.store(u64::MAX, Ordering::Relaxed);
    }

    /// It listens again at `now`.
    pub(super) fn ends(&self, now: Instant) {
        let until = now.saturating_duration_since(self.origin) + AFTERWARDS;
        self.until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether it can be reached at `now`.
    pub(super) fn reach(&self, now: Instant) -> Reach {
        let until = Duration::from_millis(self.until.load(Ordering::Relaxed));
        if now.saturating_duration_since(self.origin) < until { Reach::Away } else { Reach::There }
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
    }
}
