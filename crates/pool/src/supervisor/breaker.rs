//! Whether the pool may dial, and whether requests may go to a provider that seems sick. Two circuits of three states.
//!
//! ```text
//! Closed ──failure──▶ Open ──pause over, healthy──▶ HalfOpen ──proof──▶ Closed
//!                      ▲                               │
//!                      └──────────trial failed─────────┘
//! ```
//! The circuit of *dials* opens when one fails; requests go on over the connections that serve. The circuit of *requests*
//! opens when health requests fail, or when the provider leaves PINGs and requests unanswered in a row. Each closes by
//! proof of its own kind only: a connection that came to serve for the one, an answer for the other. Time alone, or
//! health, moves it to one trial. Pauses are `backoff`'s; what a dial is, is `life`'s.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    backoff::{Backoff, Refusal},
    circuit::{Circuit, Ends},
    silence::{Silence, Unanswered},
};
use crate::{config::PoolConfig, error::DialError};

/// What moves the breaker.
#[derive(Clone, Debug)]
pub(crate) enum Signal {
    /// A dial that was begun at this moment, or its proof, failed.
    DialFailed { why: Arc<DialError>, began: Instant },
    /// A connection that was dialled at this moment and came to serve ended at once without having carried anything.
    EndedAtOnce { why: Arc<DialError>, began: Instant },
    /// A connection that was dialled at this moment came to serve.
    Proved(Instant),
    /// A connection dialled at this moment carried something, or lasted.
    Worthy(Instant),
    /// A PING, or requests during which nothing was heard, were left unanswered.
    Unanswered(Unanswered),
    /// A request was answered.
    Answered,
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

/// Which requests the breaker lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Passage {
    /// All.
    #[default]
    All,
    /// One at a time, until one is answered.
    Trial,
    /// None.
    None,
}

/// The breaker of one environment.
#[derive(Debug)]
pub(crate) struct Breaker {
    dials: Circuit,
    requests: Circuit,
    /// Pauses between dials.
    backoff: Backoff,
    /// Pauses between trial requests.
    trials: Backoff,
    silence: Silence,
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
        Self {
            dials: Circuit::Closed,
            requests: Circuit::Closed,
            backoff: Backoff::new(seed),
            trials: Backoff::new(!seed),
            silence: Silence::default(),
            wordless: None,
        }
    }

    /// The one transition function. Returns the state's word if that changed.
    pub(crate) fn on(&mut self, signal: Signal, config: &PoolConfig, now: Instant) -> Option<BreakerState> {
        let before = self.word();
        match signal {
            Signal::DialFailed { why, began } | Signal::EndedAtOnce { why, began } => {
                self.failed(why, began, config, now);
            }
            Signal::Proved(born) => self.proved(born),
            Signal::Worthy(born) => self.backoff.succeeded_by(born),
            Signal::Unanswered(what) => self.unanswered(what, config, now),
            Signal::Answered => self.answered(),
            Signal::Unhealthy(why) => self.unhealthy(why, config, now),
            Signal::Healthy => self.requests.recover(now),
            Signal::Renewed => self.renew(),
        }
        self.changed(before)
    }

    /// Lets time pass: an open circuit whose pause is over allows one trial. Returns the word if that changed.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<BreakerState> {
        let before = self.word();
        self.dials.tick(now);
        self.requests.tick(now);
        self.changed(before)
    }

    fn failed(&mut self, why: Arc<DialError>, began: Instant, config: &PoolConfig, now: Instant) {
        let refusal = self.judge(&why, began, now);
        self.backoff.failed(config, refusal, began, now);
        let until = self.backoff.not_before().unwrap_or(now);
        self.dials.open(Ends::At(until), why);
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

    fn proved(&mut self, born: Instant) {
        self.wordless = None;
        self.backoff.served();
        self.dials.close();
        if self.silence.count() > 0 && self.silence.is_disproved_by(born) {
            self.heard();
        }
    }

    fn unanswered(&mut self, what: Unanswered, config: &PoolConfig, now: Instant) {
        let many = self.silence.note(what, now);
        let trial_failed = matches!(self.requests, Circuit::HalfOpen { .. });
        if trial_failed || (many && self.requests.is_closed()) {
            self.trials.failed(config, Refusal::None, now, now);
            let until = self.trials.not_before().unwrap_or(now);
            let why = DialError::Unanswering { times: self.silence.count() };
            self.requests.open(Ends::At(until), Arc::new(why));
        }
    }

    fn answered(&mut self) {
        self.trials.succeeded();
        self.heard();
    }

    /// The provider answers; whether its application is well is another matter.
    fn heard(&mut self) {
        self.silence.broken();
        if !self.requests.waits_for_health() {
            self.requests.close();
        }
    }

    fn unhealthy(&mut self, why: Arc<DialError>, config: &PoolConfig, now: Instant) {
        // So many good answers are needed, the first of them one interval from now.
        let recovery = config.health.as_ref().map(|check| check.interval * u32::from(check.healthy_after));
        self.requests.open(Ends::WhenHealthy(now + recovery.unwrap_or_default()), why);
    }

    fn renew(&mut self) {
        self.wordless = None;
        self.backoff.succeeded();
        self.dials.close();
        if self.requests.why().is_some_and(|why| why.is_identity_fault()) {
            self.requests.close();
        }
    }

    fn changed(&self, before: BreakerState) -> Option<BreakerState> {
        let after = self.word();
        (before != after).then_some(after)
    }

    /// How many dials may be made at `now`, while so many are under way.
    pub(crate) fn allowance(&self, dialling: usize, now: Instant) -> Allowance {
        match &self.dials {
            Circuit::Closed => Allowance::Any,
            Circuit::Open { .. } => Allowance::NotBefore(self.dials.until().unwrap_or(now)),
            Circuit::HalfOpen { since, why } => {
                // Nobody needed the trial: what failed then says nothing of the need that arises now. A certificate that
                // was refused stays refused.
                let stale = dialling == 0 && now > *since + TRIAL_UNUSED;
                if stale && self.wordless.is_none() && !why.is_identity_fault() {
                    Allowance::Any
                } else {
                    Allowance::Trial
                }
            }
        }
    }

    /// Which requests may go.
    pub(crate) fn passage(&self) -> Passage {
        match self.requests {
            Circuit::Closed => Passage::All,
            Circuit::Open { .. } => Passage::None,
            Circuit::HalfOpen { .. } => Passage::Trial,
        }
    }

    /// Whether the next answer to a request changes anything.
    pub(crate) fn listens(&self) -> bool {
        let open = !self.requests.is_closed() && !self.requests.waits_for_health();
        open || self.silence.count() > 0
    }

    /// When time changes what it allows.
    pub(crate) fn ticks_at(&self) -> Option<Instant> {
        self.dials.ticks_at().into_iter().chain(self.requests.ticks_at()).min()
    }

    /// When dials go on, while none is made.
    pub(crate) fn dials_resume_at(&self) -> Option<Instant> {
        self.dials.until()
    }

    /// The circuit that tells more: that of requests, if it is not closed.
    fn foremost(&self) -> &Circuit {
        if self.requests.is_closed() { &self.dials } else { &self.requests }
    }

    /// Why it is not closed.
    pub(crate) fn why(&self) -> Option<&Arc<DialError>> {
        self.foremost().why()
    }

    /// Until when it holds back; `None` unless it is open.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.foremost().until()
    }

    /// The state's word.
    pub(crate) fn word(&self) -> BreakerState {
        self.foremost().word()
    }

    /// `base` ± 20 %, so that connections born together do not age together.
    pub(crate) fn jittered(&mut self, base: std::time::Duration) -> std::time::Duration {
        self.backoff.jittered(base)
    }
}

/// A pool that lacks a connection makes its trial at once: one that made none for so long lacked none.
const TRIAL_UNUSED: std::time::Duration = std::time::Duration::from_secs(1);

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

    fn unhealthy() -> Arc<DialError> {
        Arc::new(DialError::Unhealthy { path: "/health".to_owned(), detail: "it answered 503".to_owned() })
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

        /// A connection that was dialled now serves.
        fn prove(&mut self) -> Option<BreakerState> {
            let born = self.now;
            self.on(Signal::Proved(born))
        }

        fn allowance(&self) -> Allowance {
            self.breaker.allowance(0, self.now)
        }

        fn pause(&self) -> Duration {
            self.breaker.dials_resume_at().map_or(Duration::ZERO, |until| until - self.now)
        }

        fn wait_it_out(&mut self) -> Option<BreakerState> {
            self.now += self.pause();
            self.breaker.tick(self.now)
        }
    }

    #[test]
    fn a_failure_opens_time_allows_one_trial_and_only_proof_closes() {
        let mut b = Bench::new();
        assert_eq!(b.allowance(), Allowance::Any);
        assert_eq!(b.fail(gone()), Some(BreakerState::Open));
        assert!(matches!(b.allowance(), Allowance::NotBefore(_)));
        assert_eq!(b.wait_it_out(), Some(BreakerState::HalfOpen));
        assert_eq!(b.allowance(), Allowance::Trial);
        b.now += Duration::from_secs(3600);
        assert_eq!(b.breaker.tick(b.now), None, "time alone closes nothing");
        assert_eq!(b.prove(), Some(BreakerState::Closed));
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
        assert_eq!(b.breaker.passage(), Passage::All, "what serves goes on");
        b.wait_it_out();
        assert_eq!(b.allowance(), Allowance::Trial);
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
        b.prove();
        b.fail(wordless());
        assert!(b.pause() <= b.config.backoff_initial * 2);
    }

    #[test]
    fn an_unhealthy_application_withholds_requests_until_it_is_healthy_whatever_dials_do() {
        let mut b = Bench::new();
        b.on(Signal::Unhealthy(unhealthy()));
        assert_eq!(b.breaker.passage(), Passage::None);
        b.prove();
        b.fail(gone());
        b.on(Signal::Answered);
        b.now += Duration::from_secs(3600);
        b.breaker.tick(b.now);
        assert_eq!(b.breaker.passage(), Passage::None, "neither time nor an answer heals it");
        assert_eq!(b.breaker.why().map(|why| why.code()), Some("provider_unhealthy"));
    }

    #[test]
    fn what_is_healthy_again_gets_one_trial_before_everybody() {
        let mut b = Bench::new();
        b.on(Signal::Unhealthy(unhealthy()));
        assert_eq!(b.on(Signal::Healthy), Some(BreakerState::HalfOpen));
        assert_eq!(b.breaker.passage(), Passage::Trial);
        assert_eq!(
            b.on(Signal::Unanswered(Unanswered::Requests)),
            Some(BreakerState::Open),
            "a failed trial"
        );
        b.now = b.breaker.ticks_at().expect("a pause");
        assert_eq!(b.breaker.tick(b.now), Some(BreakerState::HalfOpen));
        assert_eq!(b.on(Signal::Answered), Some(BreakerState::Closed));
        assert_eq!(b.breaker.passage(), Passage::All);
    }

    #[test]
    fn health_says_nothing_of_a_refused_certificate_and_does_not_hurry_its_next_dial() {
        let mut b = Bench::new();
        b.on(Signal::Unhealthy(unhealthy()));
        b.fail(refused());
        let until = b.breaker.dials_resume_at();
        b.on(Signal::Healthy);
        b.on(Signal::Answered);
        assert_eq!(b.breaker.word(), BreakerState::Open);
        assert_eq!(b.breaker.why().map(|why| why.is_identity_fault()), Some(true));
        assert_eq!(b.breaker.dials_resume_at(), until);
        assert!(b.pause() >= b.config.identity_fault_pause / 2);
    }

    #[test]
    fn failed_health_requests_are_no_failed_dials() {
        let mut b = Bench::new();
        for _ in 0..10 {
            b.on(Signal::Unhealthy(unhealthy()));
            b.now += Duration::from_secs(10);
        }
        assert_eq!(b.allowance(), Allowance::Any, "connections are kept whatever the application says");
        let address = "127.0.0.1:443".to_owned();
        b.fail(Arc::new(DialError::Refused { address, detail: "refused".to_owned() }));
        assert!(
            b.pause() <= Duration::from_millis(25),
            "it restarts, and is dialled eagerly: {:?}",
            b.pause()
        );
    }

    #[test]
    fn an_unhealthy_application_is_said_to_recover_not_before_its_health_requests_can_tell() {
        let mut b = Bench::new();
        let path = http::uri::PathAndQuery::from_static("/health");
        b.config.health = Some(crate::health::HealthCheck::get(path));
        b.on(Signal::Unhealthy(unhealthy()));
        assert_eq!(b.breaker.until(), Some(b.now + Duration::from_secs(20)));
    }

    #[test]
    fn what_is_left_unanswered_in_a_row_opens_it_and_an_answer_closes_it() {
        for what in [Unanswered::Ping, Unanswered::Requests] {
            let mut b = Bench::new();
            b.on(Signal::Unanswered(what));
            b.now += Duration::from_secs(30);
            b.on(Signal::Unanswered(what));
            assert_eq!(b.breaker.passage(), Passage::All, "two may be one connection and its successor");
            b.now += Duration::from_secs(30);
            assert_eq!(b.on(Signal::Unanswered(what)), Some(BreakerState::Open));
            assert_eq!(b.breaker.passage(), Passage::None);
            assert_eq!(b.on(Signal::Answered), Some(BreakerState::Closed));
        }
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let mut b = Bench::new();
        for _ in 0..10 {
            b.on(Signal::Unanswered(Unanswered::Requests));
            b.now += Duration::from_secs(30);
            b.on(Signal::Unanswered(Unanswered::Ping));
            b.now += Duration::from_secs(30);
            assert!(b.breaker.listens());
            assert_eq!(b.on(Signal::Answered), None);
        }
    }

    #[test]
    fn a_new_connection_closes_what_dead_ones_opened_but_not_what_unanswered_requests_did() {
        for (what, passage) in [(Unanswered::Ping, Passage::All), (Unanswered::Requests, Passage::None)] {
            let mut b = Bench::new();
            for _ in 0..3 {
                b.on(Signal::Unanswered(what));
                b.now += Duration::from_secs(30);
            }
            b.prove();
            assert_eq!(b.breaker.passage(), passage);
        }
    }

    #[test]
    fn a_trial_that_nobody_needed_does_not_slow_the_next_outage() {
        let mut b = Bench::new();
        b.fail(gone());
        b.wait_it_out();
        b.now += Duration::from_secs(60);
        assert_eq!(b.allowance(), Allowance::Any);
        assert_eq!(b.breaker.allowance(1, b.now), Allowance::Trial, "but no herd while one is under way");
        b.fail(refused());
        b.wait_it_out();
        b.now += Duration::from_secs(60);
        assert_eq!(b.allowance(), Allowance::Trial, "a refused certificate stays refused");
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
