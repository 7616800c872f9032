//! Whether the pool may dial, and whether requests may go to a provider that seems sick. Three states.
//!
//! ```text
//! Closed ──dial failed, unhealthy──▶ Open ──pause over──▶ HalfOpen ──proof──▶ Closed
//!                                     ▲                      │
//!                                     └──────trial failed────┘
//! ```
//! It closes by proof only: a connection that came to serve, or health requests that succeed. Time alone moves it to
//! one trial. While it is open, connections that serve go on carrying requests, unless the application itself is
//! unhealthy: then requests are refused too. Pauses are `backoff`'s; what a dial is, is `life`'s.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::backoff::{Backoff, Refusal};
use crate::{config::PoolConfig, error::DialError};

/// Where the breaker stands.
#[derive(Clone, Debug)]
enum State {
    /// Dial as needed.
    Closed,
    /// No dial before `until`.
    Open { until: Instant, why: Arc<DialError>, withholds: Withholds },
    /// One trial is allowed.
    HalfOpen { why: Arc<DialError>, withholds: Withholds },
}

/// What an open breaker holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withholds {
    /// New dials; connections that serve go on.
    Dials,
    /// Requests too: the application behind the connections is unhealthy.
    Requests,
}

/// What moves the breaker.
#[derive(Clone, Debug)]
pub(crate) enum Signal {
    /// A dial that was begun at this moment, or its proof, failed.
    DialFailed { why: Arc<DialError>, began: Instant },
    /// A connection that was dialled at this moment and came to serve ended at once without having carried anything.
    EndedAtOnce { why: Arc<DialError>, began: Instant },
    /// A connection dialled at this moment came to serve.
    Proved,
    /// A connection dialled at this moment carried something, or lasted.
    Worthy(Instant),
    /// The application's health requests fail.
    Unhealthy(Arc<DialError>),
    /// They succeed again.
    Healthy,
    /// Another identity or trust is in use: what was met before says nothing.
    Renewed,
}

/// How many dials the breaker allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// As many as the policy wants.
    Any,
    /// One, if none is under way.
    Trial,
    /// None before this moment.
    NotBefore(Instant),
}

/// The breaker of one environment.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    backoff: Backoff,
    /// When a full handshake ended before the proof without a word, if nothing else came of a dial since. One is an
    /// accident; another one that was begun later is a refusal. Those that were under way together are one accident.
    wordless: Option<Instant>,
}

/// The word for a state in status, metrics and logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Dials are made as needed.
    #[default]
    Closed,
    /// No dial is made for a while.
    Open,
    /// One trial is under way or allowed.
    HalfOpen,
}

impl BreakerState {
    /// All states, for registering metrics.
    pub const ALL: [BreakerState; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The metric label and log word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Breaker {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: State::Closed, backoff: Backoff::new(seed), wordless: None }
    }

    /// The one transition function. Returns the state's word if that changed.
    pub(crate) fn on(&mut self, signal: Signal, config: &PoolConfig, now: Instant) -> Option<BreakerState> {
        let before = self.word();
        match signal {
            Signal::DialFailed { why, began } | Signal::EndedAtOnce { why, began } => {
                self.failed(why, began, config, now);
            }
            Signal::Proved => self.proved(),
            Signal::Worthy(born) => self.backoff.succeeded_by(born),
            Signal::Unhealthy(why) => {
                let refusal = Refusal::of(&why);
                self.open(why, Withholds::Requests, refusal, config, now);
            }
            Signal::Healthy => self.healthy(),
            Signal::Renewed => self.renew(),
        }
        self.changed(before)
    }

    /// Lets time pass: an open breaker whose pause is over allows one trial. Returns the word if that changed.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<BreakerState> {
        let before = self.word();
        if let State::Open { until, why, withholds } = &self.state
            && *until <= now
        {
            self.state = State::HalfOpen { why: why.clone(), withholds: *withholds };
        }
        self.changed(before)
    }

    fn failed(&mut self, why: Arc<DialError>, began: Instant, config: &PoolConfig, now: Instant) {
        let refusal = self.judge(&why, began, now);
        // An application that is unhealthy stays withheld whatever its dials do.
        let withholds = self.withholds().unwrap_or(Withholds::Dials);
        self.open(why, withholds, refusal, config, now);
    }

    /// What the failure of a dial says of our certificate.
    fn judge(&mut self, why: &DialError, began: Instant, now: Instant) -> Refusal {
        if !matches!(why, DialError::EndedBeforeProof { .. }) {
            self.wordless = None;
            return Refusal::of(why);
        }
        match self.wordless {
            Some(first) if began >= first => Refusal::Identity,
            _ => {
                self.wordless.get_or_insert(now);
                Refusal::None
            }
        }
    }

    fn open(
        &mut self,
        why: Arc<DialError>,
        withholds: Withholds,
        refusal: Refusal,
        config: &PoolConfig,
        now: Instant,
    ) {
        self.backoff.failed(config, refusal, now);
        let until = self.backoff.not_before().unwrap_or(now);
        self.state = State::Open { until, why, withholds };
    }

    fn proved(&mut self) {
        self.wordless = None;
        self.backoff.served();
        if self.withholds() != Some(Withholds::Requests) {
            self.state = State::Closed;
        }
    }

    fn healthy(&mut self) {
        if self.withholds() == Some(Withholds::Requests) {
            self.backoff.served();
            self.state = State::Closed;
        }
    }

    fn renew(&mut self) {
        self.wordless = None;
        self.backoff.succeeded();
        self.state = State::Closed;
    }

    fn changed(&self, before: BreakerState) -> Option<BreakerState> {
        let after = self.word();
        (before != after).then_some(after)
    }

    /// How many dials may be made now.
    pub(crate) fn allowance(&self) -> Allowance {
        match self.state {
            State::Closed => Allowance::Any,
            State::Open { until, .. } => Allowance::NotBefore(until),
            State::HalfOpen { .. } => Allowance::Trial,
        }
    }

    /// What it holds back, while it is not closed.
    pub(crate) fn withholds(&self) -> Option<Withholds> {
        match self.state {
            State::Closed => None,
            State::Open { withholds, .. } | State::HalfOpen { withholds, .. } => Some(withholds),
        }
    }

    /// Why it is not closed.
    pub(crate) fn why(&self) -> Option<&Arc<DialError>> {
        match &self.state {
            State::Closed => None,
            State::Open { why, .. } | State::HalfOpen { why, .. } => Some(why),
        }
    }

    /// Until when it holds back; `None` unless it is open.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// The state's word.
    pub(crate) fn word(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// `base` ± 20 %, so that connections born together do not age together.
    pub(crate) fn jittered(&mut self, base: std::time::Duration) -> std::time::Duration {
        self.backoff.jittered(base)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gone() -> Arc<DialError> {
        Arc::new(DialError::ProveTimeout { after: Duration::from_secs(5) })
    }

    fn refused() -> Arc<DialError> {
        Arc::new(DialError::Tls(tls_core::TlsFault::IdentityRefused { alert: "bad_certificate" }))
    }

    fn wordless() -> Arc<DialError> {
        Arc::new(DialError::EndedBeforeProof { detail: "eof".to_owned() })
    }

    struct Bench {
        breaker: Breaker,
        config: PoolConfig,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            Self { breaker: Breaker::new(7), config: PoolConfig::default(), now }
        }

        fn on(&mut self, signal: Signal) -> Option<BreakerState> {
            self.breaker.on(signal, &self.config, self.now)
        }

        /// A dial that is begun now fails.
        fn fail(&mut self, why: Arc<DialError>) -> Option<BreakerState> {
            let began = self.now;
            self.on(Signal::DialFailed { why, began })
        }

        fn pause(&self) -> Duration {
            self.breaker.until().map_or(Duration::ZERO, |until| until - self.now)
        }

        fn wait_it_out(&mut self) -> Option<BreakerState> {
            self.now += self.pause();
            self.breaker.tick(self.now)
        }
    }

    #[test]
    fn a_failure_opens_time_allows_one_trial_and_only_proof_closes() {
        let mut b = Bench::new();
        assert_eq!(b.breaker.allowance(), Allowance::Any);
        assert_eq!(b.fail(gone()), Some(BreakerState::Open));
        assert!(matches!(b.breaker.allowance(), Allowance::NotBefore(_)));
        assert_eq!(b.wait_it_out(), Some(BreakerState::HalfOpen));
        assert_eq!(b.breaker.allowance(), Allowance::Trial);
        b.now += Duration::from_secs(3600);
        assert_eq!(b.breaker.tick(b.now), None, "time alone closes nothing");
        assert_eq!(b.on(Signal::Proved), Some(BreakerState::Closed));
    }

    #[test]
    fn a_failed_trial_opens_it_for_longer() {
        let mut b = Bench::new();
        b.config.backoff_max = Duration::from_secs(60);
        let mut longest = Duration::ZERO;
        for _ in 0..8 {
            b.fail(gone());
            longest = longest.max(b.pause());
            b.wait_it_out();
        }
        assert!(longest > b.config.backoff_initial * 16, "{longest:?}");
    }

    #[test]
    fn a_refused_identity_is_probed_slowly_and_singly() {
        let mut b = Bench::new();
        b.fail(refused());
        assert!(b.pause() >= b.config.identity_fault_pause / 2);
        assert_eq!(b.breaker.withholds(), Some(Withholds::Dials), "what serves goes on");
        b.wait_it_out();
        assert_eq!(b.breaker.allowance(), Allowance::Trial);
    }

    #[test]
    fn an_end_without_a_word_is_confirmed_by_a_second_dial_before_it_is_a_refusal() {
        let mut b = Bench::new();
        b.fail(wordless());
        assert!(b.pause() <= b.config.backoff_initial, "the second dial comes at once");
        b.wait_it_out();
        b.fail(wordless());
        assert!(b.pause() >= b.config.identity_fault_pause / 2);
    }

    #[test]
    fn ends_without_a_word_of_dials_that_were_under_way_together_confirm_nothing() {
        let mut b = Bench::new();
        let began = b.now;
        for _ in 0..4 {
            b.now += Duration::from_millis(1);
            b.on(Signal::DialFailed { why: wordless(), began });
        }
        assert!(b.pause() <= b.config.backoff_initial, "one blip, not four refusals: {:?}", b.pause());
        b.wait_it_out();
        b.fail(wordless());
        assert!(
            b.pause() >= b.config.identity_fault_pause / 2,
            "this one was begun after the first had ended"
        );
    }

    #[test]
    fn a_proof_between_two_ends_without_a_word_clears_the_certificate() {
        let mut b = Bench::new();
        b.fail(wordless());
        b.wait_it_out();
        b.on(Signal::Proved);
        b.fail(wordless());
        assert!(b.pause() <= b.config.backoff_initial * 2);
    }

    #[test]
    fn an_unhealthy_application_withholds_requests_until_it_is_healthy_whatever_dials_do() {
        let mut b = Bench::new();
        b.on(Signal::Unhealthy(gone()));
        assert_eq!(b.breaker.withholds(), Some(Withholds::Requests));
        b.on(Signal::Proved);
        b.fail(gone());
        assert_eq!(b.breaker.withholds(), Some(Withholds::Requests));
        assert_eq!(b.on(Signal::Healthy), Some(BreakerState::Closed));
    }

    #[test]
    fn another_identity_begins_anew() {
        let mut b = Bench::new();
        b.fail(refused());
        assert_eq!(b.on(Signal::Renewed), Some(BreakerState::Closed));
        b.fail(gone());
        assert!(b.pause() <= b.config.backoff_initial);
    }
}
