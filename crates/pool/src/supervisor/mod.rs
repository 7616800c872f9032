//! One task per pool that keeps its connections: looks at the facts, lets the policy decide, carries it out.
//!
//! Owns when connections are dialled, retired and cut, and the snapshot that requests pick from. How one
//! connection lives is `life`; what should be done is `policy`, which is pure; what is known of the provider is kept by
//! `breaker`, `learned` and `pace`.

mod backoff;
mod breaker;
mod calm;
mod checks;
mod circuit;
mod ends;
mod life;
mod look;
mod pace;
mod policy;
mod silence;
mod standing;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::Instant,
};

pub use self::breaker::BreakerState;
pub(crate) use self::breaker::Passage;
pub(crate) use self::life::Destiny;
use self::{
    breaker::{Breaker, Signal},
    calm::Calm,
    checks::Checks,
    life::{LifeEnd, live},
    pace::Meter,
    policy::Plan,
    standing::Budget,
};
use crate::{
    config::{PoolConfig, Timeouts},
    connection::{Link, Role, State},
    dial::Target,
    dns::Directory,
    health::Health,
    hub::{Hub, Known},
    journey::ConnectionId,
    key::PoolKey,
    learned::Learned,
    observe::Observer,
    passport::Records,
    send::Sending,
    status::{BreakerStatus, LearnedStatus, Protocol},
    workers::Workers,
};

/// What every part of one pool needs to know.
pub(crate) struct Context {
    pub(crate) key: PoolKey,
    pub(crate) target: Target,
    pub(crate) config: PoolConfig,
    pub(crate) timeouts: Timeouts,
    pub(crate) hub: Arc<Hub>,
    pub(crate) workers: Workers,
    /// The addresses that dials may use.
    pub(crate) directory: Directory,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) records: Records,
    /// What requests share on their way.
    pub(crate) sending: Sending,
}

/// Numbers connections across all pools of the process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The next connection number.
pub(crate) fn next_id() -> ConnectionId {
    ConnectionId(NEXT_ID.fetch_add(1, Ordering::Relaxed))
}

/// A dial under way.
#[derive(Clone, Copy, Debug)]
struct Dialling {
    worker: usize,
    began: Instant,
}

/// The task.
pub(crate) struct Supervisor {
    context: Arc<Context>,
    lives: JoinSet<(Destiny, LifeEnd)>,
    aborts: HashMap<ConnectionId, AbortHandle>,
    dialling: HashMap<ConnectionId, Dialling>,
    breaker: Breaker,
    /// How often PINGs are sent.
    calm: Calm,
    learned: Learned,
    /// The connection that puts the learned limits to the test.
    probe: Option<ConnectionId>,
    health: Health,
    checks: Checks,
    meter: Meter,
    /// Serial of the generation that was active when last looked.
    active: u64,
}

impl Supervisor {
    pub(crate) fn new(context: Arc<Context>, seed: u64) -> Self {
        let now = Instant::now();
        context.hub.set_ping_interval(context.config.ping_interval);
        Self {
            lives: JoinSet::new(),
            aborts: HashMap::new(),
            dialling: HashMap::new(),
            breaker: Breaker::new(seed),
            calm: Calm::new(context.config.ping_interval),
            learned: Learned::new(context.config.retest_after),
            probe: None,
            health: Health::default(),
            checks: Checks::start(&context),
            meter: Meter::new(now),
            active: 0,
            context,
        }
    }

    /// Keeps the pool until it is stopped and its last connection has ended.
    pub(crate) async fn run(mut self) {
        loop {
            let plan = self.look();
            let wake_at = plan.wake_at.into_iter().chain(self.breaker.ticks_at()).min();
            if !plan.retire.is_empty() && !self.context.hub.is_stopping() {
                // Who takes over is known to requests before anybody goes: none finds a set of the retired only.
                self.publish();
            }
            self.carry_out(&plan);
            self.publish();
            if self.context.hub.is_stopping() && self.lives.is_empty() {
                return;
            }
            let hub = self.context.hub.clone();
            tokio::select! {
                biased;
                Some(end) = self.lives.join_next(), if !self.lives.is_empty() => self.note(end),
                answer = self.checks.answer() => self.note_check(&answer),
                () = hub.supervisor.notified() => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        let now = Instant::now();
        if self.context.hub.is_stopping() {
            // Nobody waits for them any more.
            self.dialling.keys().filter_map(|id| self.aborts.get(id)).for_each(AbortHandle::abort);
        }
        for _ in 0..plan.dials {
            self.start_dial();
        }
        if let Some(id) = plan.probe {
            self.probe = Some(id);
            self.learned.begin_test(now);
            tracing::info!(environment = %self.context.key.environment, connection = %id,
                limits = ?self.learned.limits(), "this connection tries to outlive what was learned");
        }
        let budget = Budget::of(&self.learned.limits(), &self.meter.pace());
        for link in self.context.hub.links() {
            let role = if self.probe == Some(link.id()) { Role::Probe } else { Role::Regular };
            if link.allot(role, budget.map(|b| (b.requests, b.wake_at))) {
                self.context.hub.supervisor.notify_one();
            }
            if let Some((_, cause)) = plan.retire.iter().find(|(id, _)| *id == link.id()) {
                link.retire(*cause, now);
            }
            if plan.cut.contains(&link.id()) {
                tracing::warn!(environment = %self.context.key.environment, connection = %link.id(),
                    in_flight = link.in_flight(), "drain deadline passed; cutting the connection");
                if let Some(abort) = self.aborts.get(&link.id()) {
                    abort.abort();
                }
            }
        }
    }

    fn start_dial(&mut self) {
        let worker = self.least_used_worker();
        let destiny =
            Destiny { id: next_id(), worker, max_age: self.breaker.jittered(self.context.config.max_age) };
        let handle = self.context.workers.handle(worker).clone();
        let abort = self.lives.spawn_on(live(self.context.clone(), destiny), &handle);
        self.aborts.insert(destiny.id, abort);
        self.dialling.insert(destiny.id, Dialling { worker, began: Instant::now() });
    }

    fn least_used_worker(&self) -> usize {
        let links = self.context.hub.links();
        let used = |worker: usize| {
            let serving =
                links.iter().filter(|l| l.state() == State::Serving && l.birth.worker == worker).count();
            serving + self.dialling.values().filter(|dial| dial.worker == worker).count()
        };
        (0..self.context.workers.len()).min_by_key(|w| used(*w)).unwrap_or(0)
    }

    /// A dial that came to serve is no dial any more: counted as both, it would stand for a connection that is missing.
    fn note_proven(&mut self, links: &[Arc<Link>]) {
        for link in links {
            if self.dialling.remove(&link.id()).is_some() {
                self.meter.note_dial(link.dialled().0);
                self.signal(Signal::Proved(link.birth.born));
                self.context.hub.forget_failures();
            }
        }
    }

    /// Publishes what serves, eldest first, and whether the floor is met.
    fn publish(&mut self) {
        let hub = self.context.hub.clone();
        let links = hub.links();
        self.note_proven(&links);
        hub.set_dialling(self.dialling.len());
        let (mut serving, exclusive): (Vec<_>, Vec<_>) = links
            .into_iter()
            .filter(|l| l.state() == State::Serving)
            .partition(|l| l.birth.protocol == Protocol::H2);
        let all = serving.len() + exclusive.len();
        serving.sort_by_key(|l| l.id());
        hub.set_floor_met(all >= self.context.config.min_connections as usize);
        if hub.set_differs(&serving) {
            hub.publish(serving);
        } else {
            hub.dispatch();
        }
        let nothing_serves = all == 0;
        if nothing_serves && self.dialling.is_empty() && self.breaker.dials_resume_at().is_some() {
            // No dial is made for a while, for a known reason: whoever waits should not wait for nothing.
            hub.report_outage();
        }
    }

    /// Tells the breaker, and everybody who wants to know what became of it.
    fn signal(&mut self, signal: Signal) {
        let changed = self.breaker.on(signal, &self.context.config, Instant::now());
        self.tell_breaker(changed);
    }

    fn tell_breaker(&self, changed: Option<BreakerState>) {
        if let Some(state) = changed {
            let why = self.breaker.why().map(|why| why.code());
            tracing::info!(environment = %self.context.key.environment, state = state.as_str(), why, "breaker");
            self.context.observer.breaker(state);
            // What it allows has changed after the policy looked.
            self.context.hub.supervisor.notify_one();
        }
        self.make_known();
    }

    /// Publishes what is known of the provider.
    fn make_known(&self) {
        let context = &self.context;
        let why = self.breaker.why().cloned();
        let passage = self.breaker.passage();
        let breaker = BreakerStatus {
            state: self.breaker.word(),
            refuses_requests: passage != Passage::All,
            code: why.as_ref().map(|why| why.code()),
            message: why.as_ref().map(|why| context.explain(why)),
            next_trial_in: None,
            until: self.breaker.until(),
            why,
        };
        let learned = LearnedStatus {
            limits: self.learned.limits(),
            under_test: self.probe,
            ping_interval: Duration::ZERO,
            ignores_pings: context.hub.ignores_pings(),
        };
        let health = context.config.health.as_ref().map(|_| self.health);
        context.hub.known.store(Arc::new(Known { breaker, learned, health }));
        context.hub.set_passage(passage);
        if self.breaker.listens() {
            context.hub.listen_for_answer();
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
