//! When the next dial may start after failures: jittered, doubling, shared by the whole pool.

use std::time::Duration;

use tokio::time::Instant;

use crate::{config::PoolConfig, error::DialError};

/// For so long after the first failure a host that refuses connections is dialled again and again: it restarts, and a
/// refusal costs it one packet. (A failed handshake costs it much more, and is never hurried.)
const EAGER: Duration = Duration::from_secs(2);
/// Between two such dials; one at a time, so never more often than a round trip.
const EAGER_PAUSE: Duration = Duration::from_millis(25);

/// A pool that lacks a connection dials as soon as the pause is over. A dial that was begun later than this after it was
/// not waited for: nothing was missing in between, and its failure is the first of another outage.
const SAME_OUTAGE: Duration = Duration::from_secs(1);

/// The failures of one outage and what follows from them.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    /// When the first of them was.
    failing_since: Option<Instant>,
    not_before: Option<Instant>,
    /// When the last pause is over, or was.
    pause_ends: Option<Instant>,
    last_failed: Option<Instant>,
    rng: fastrand::Rng,
}

/// Whether a failure means that the provider does not want us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It refused our certificate.
    Identity,
    /// Nothing listens at its address: it refused the connection.
    Connection,
    /// It did not; dialling again may help.
    None,
}

impl Refusal {
    /// What this failure means.
    pub(crate) fn of(error: &DialError) -> Self {
        match error {
            error if error.is_identity_fault() => Self::Identity,
            DialError::Refused { .. } => Self::Connection,
            _ => Self::None,
        }
    }
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            failing_since: None,
            not_before: None,
            pause_ends: None,
            last_failed: None,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// A dial failed that was begun at `began`: the next waits. Returns for how long.
    pub(crate) fn failed(
        &mut self,
        config: &PoolConfig,
        refusal: Refusal,
        began: Instant,
        now: Instant,
    ) -> Duration {
        if self.pause_ends.is_some_and(|end| began > end + SAME_OUTAGE) {
            self.succeeded();
        }
        let since = *self.failing_since.get_or_insert(now);
        let eager = refusal == Refusal::Connection && now.saturating_duration_since(since) < EAGER;
        // Dials that were under way together fail together: that is one failure.
        if !eager && !self.is_pausing(now) {
            self.failures = self.failures.saturating_add(1);
        }
        self.last_failed = Some(now);
        let longest = match refusal {
            // Redialling cannot mend a refused certificate.
            Refusal::Identity => config.identity_fault_pause,
            Refusal::Connection if eager => EAGER_PAUSE.min(config.backoff_initial),
            Refusal::Connection | Refusal::None => {
                let doublings = self.failures.saturating_sub(1).min(16);
                config.backoff_initial.saturating_mul(1 << doublings).min(config.backoff_max)
            }
        };
        let delay = longest.mul_f64(0.5 + self.rng.f64() / 2.0);
        // Several dials may fail together: the pause is the longest of theirs, not their sum.
        let moment = now + delay;
        self.not_before = Some(self.not_before.map_or(moment, |earlier| earlier.max(moment)));
        self.pause_ends = self.not_before;
        delay
    }

    /// A connection came to serve: the next dial need not wait. Failures are forgotten only when it proves its worth
    /// ([`Self::succeeded`]): one that ends at once must not be redialled at full speed.
    pub(crate) fn served(&mut self) {
        self.not_before = None;
    }

    /// No dial is to be made at `now`.
    pub(crate) fn is_pausing(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|moment| moment > now)
    }

    /// A connection dialled at `born` carried something, or lasted. That says nothing of dials that failed later.
    pub(crate) fn succeeded_by(&mut self, born: Instant) {
        if self.last_failed.is_none_or(|failed| born > failed) {
            self.succeeded();
        }
    }

    /// Failures are forgotten.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.not_before = None;
    }

    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// `base` ± 20 %, so that connections born together do not age together.
    pub(crate) fn jittered(&mut self, base: Duration) -> Duration {
        base.mul_f64(0.8 + self.rng.f64() * 0.4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_maximum_with_jitter_and_ends_with_success() {
        let config = PoolConfig::default();
        let mut now = Instant::now();
        let mut backoff = Backoff::new(7);
        for n in 0..12u32 {
            now = backoff.not_before().unwrap_or(now);
            let delay = backoff.failed(&config, Refusal::None, now, now);
            let longest = config.backoff_initial.saturating_mul(1 << n.min(16)).min(config.backoff_max);
            assert!(delay >= longest / 2 && delay <= longest, "{n}: {delay:?} of {longest:?}");
        }
        backoff.succeeded();
        assert_eq!(backoff.not_before(), None);
    }

    #[test]
    fn a_host_that_restarts_is_dialled_eagerly_for_two_seconds_only() {
        let config = PoolConfig::default();
        let refused = Refusal::Connection;
        let mut now = Instant::now();
        let mut backoff = Backoff::new(7);
        let began = now;
        let mut dials = 0;
        while now < began + EAGER {
            let delay = backoff.failed(&config, refused, now, now);
            assert!(delay <= EAGER_PAUSE, "{delay:?}");
            // The refusal itself takes a round trip.
            now += delay + Duration::from_millis(40);
            dials += 1;
        }
        assert!(dials < 50, "{dials}");
        assert!(backoff.failed(&config, refused, now, now) > EAGER_PAUSE);
        now = backoff.not_before().expect("a pause");
        assert!(
            backoff.failed(&config, refused, now, now) > config.backoff_initial / 2,
            "and doubles from there"
        );
        backoff.succeeded();
        assert!(backoff.failed(&config, refused, now, now) <= EAGER_PAUSE, "until it has served");
    }

    #[test]
    fn an_outage_that_is_over_says_nothing_of_the_next_one() {
        let config = PoolConfig::default();
        let mut now = Instant::now();
        let mut backoff = Backoff::new(7);
        for _ in 0..12 {
            backoff.failed(&config, Refusal::None, now, now);
            now = backoff.not_before().expect("a pause");
        }
        // Older connections carried the traffic; none was dialled until the provider restarted.
        now += Duration::from_secs(60);
        let delay = backoff.failed(&config, Refusal::Connection, now, now);
        assert!(delay <= EAGER_PAUSE, "the first refusal of a restart: {delay:?}");
        now += Duration::from_secs(60);
        assert!(
            backoff.failed(&config, Refusal::None, now, now) <= config.backoff_initial,
            "an isolated failure"
        );
    }

    #[test]
    fn a_dial_that_takes_long_to_fail_belongs_to_its_outage() {
        let config = PoolConfig::default();
        let mut began = Instant::now();
        let mut backoff = Backoff::new(7);
        let mut last = Duration::ZERO;
        for _ in 0..6 {
            last = backoff.failed(&config, Refusal::None, began, began + Duration::from_secs(15));
            began = backoff.not_before().expect("a pause");
        }
        assert!(last >= config.backoff_initial * 8, "{last:?}");
    }

    #[test]
    fn a_refused_identity_is_probed_slowly() {
        let config = PoolConfig::default();
        let now = Instant::now();
        let delay = Backoff::new(7).failed(&config, Refusal::Identity, now, now);
        assert!(delay >= config.identity_fault_pause / 2);
    }
}
