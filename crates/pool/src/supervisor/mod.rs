//! One task per pool that keeps its connections: looks at the facts, lets the policy decide, carries it out.
//!
//! Owns when connections are dialled, retired and cut, and the snapshot that requests pick from. How one
//! connection lives is `life`; what should be done is `policy`, which is pure.

mod backoff;
mod life;
mod policy;

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

pub(crate) use self::backoff::Backoff;
use self::{
    life::{Destiny, LifeEnd, live},
    policy::{Draining, Facts, Mode, Plan, Serving, decide},
};
use crate::{
    config::{PoolConfig, Timeouts},
    connection::{Link, State},
    dial::{Dialled, Progress, Target},
    error::DialError,
    http1::Http1Pool,
    hub::Hub,
    journey::ConnectionId,
    key::PoolKey,
    observe::Observer,
    passport::{Buried, Records},
    status::{CauseOfDeath, Protocol},
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
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) records: Records,
}

/// Connections that the provider ended within this time make a spare worth having.
const RECENT: Duration = Duration::from_secs(10);
/// Most ends remembered; more of them say nothing new.
const RECENT_MAX: usize = 64;

/// A connection that the provider ends before it carried anything and before this age counts as a failed dial.
const WORTHY_AGE: Duration = Duration::from_secs(1);

/// Numbers connections across all pools of the process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The next connection number.
pub(crate) fn next_id() -> ConnectionId {
    ConnectionId(NEXT_ID.fetch_add(1, Ordering::Relaxed))
}

/// The task.
pub(crate) struct Supervisor {
    context: Arc<Context>,
    lives: JoinSet<(Destiny, LifeEnd)>,
    aborts: HashMap<ConnectionId, AbortHandle>,
    dialling: HashMap<ConnectionId, usize>,
    backoff: Backoff,
    recent_ends: Vec<Instant>,
    /// Per connection: requests carried when last looked at, and since when that number stands.
    idle: HashMap<ConnectionId, (u64, Instant)>,
    /// Serial of the generation that was active when last looked.
    active: u64,
}

impl Supervisor {
    pub(crate) fn new(context: Arc<Context>, seed: u64) -> Self {
        Self {
            context,
            lives: JoinSet::new(),
            aborts: HashMap::new(),
            dialling: HashMap::new(),
            backoff: Backoff::new(seed),
            recent_ends: Vec::new(),
            idle: HashMap::new(),
            active: 0,
        }
    }

    /// Keeps the pool until it is stopped and its last connection has ended.
    pub(crate) async fn run(mut self) {
        loop {
            let plan = self.look();
            let wake_at = plan.wake_at;
            self.carry_out(plan);
            self.publish();
            if self.context.hub.is_stopping() && self.lives.is_empty() && !self.lends() {
                // bb8 keeps a floor of its own: without its pool nothing dials any more.
                self.context.hub.set_http1(None);
                return;
            }
            let hub = self.context.hub.clone();
            tokio::select! {
                biased;
                Some(end) = self.lives.join_next(), if !self.lives.is_empty() => self.note(end),
                () = hub.supervisor.notified() => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn look(&mut self) -> Plan {
        let now = Instant::now();
        let hub = &self.context.hub;
        self.recent_ends.retain(|at| now.saturating_duration_since(*at) < RECENT);
        let active = hub.generation.load().serial();
        if std::mem::replace(&mut self.active, active) != active {
            // What the old identity met says nothing of the new one.
            self.backoff.succeeded();
            hub.forget_failures();
        }
        let mut facts = Facts {
            now,
            mode: self.mode(),
            serving: Vec::new(),
            draining: Vec::new(),
            dialling: u32::try_from(self.dialling.len()).unwrap_or(u32::MAX),
            waiting: hub.waiting(),
            growth_wanted: hub.take_growth_wanted(),
            recent_ends: u32::try_from(self.recent_ends.len()).unwrap_or(u32::MAX),
            not_before: self.backoff.not_before(),
        };
        // Connections that are lent exclusively are bb8's to keep.
        for link in hub.links().into_iter().filter(|link| link.birth.protocol == Protocol::H2) {
            if link.passport.take_settings_changed() {
                self.context.note_settings(&link);
            }
            match link.state() {
                State::Serving => {
                    let worthy =
                        link.requests() > 0 || now.saturating_duration_since(link.birth.born) > WORTHY_AGE;
                    if worthy && link.credit_once() {
                        self.backoff.succeeded_by(link.birth.born);
                    }
                    let idle_for = self.idle_for(&link, now);
                    facts.serving.push(Serving {
                        id: link.id(),
                        in_flight: link.in_flight(),
                        capacity: link.capacity(),
                        retire_at: link.birth.retire_at,
                        current: link.birth.generation == active,
                        idle_for,
                    });
                }
                State::Draining => {
                    let since = link.drain_since().unwrap_or(now);
                    facts.draining.push(Draining { id: link.id(), since });
                }
                State::Dialing | State::Proving | State::Closed => {}
            }
        }
        decide(&self.context.config, &facts)
    }

    /// Whether an HTTP/1.1 connection is on loan.
    fn lends(&self) -> bool {
        self.context.hub.links().iter().any(|l| l.birth.protocol == Protocol::Http11 && l.in_flight() > 0)
    }

    fn mode(&self) -> Mode {
        let hub = &self.context.hub;
        if hub.is_stopping() {
            Mode::Stopping
        } else if hub.http1().is_some() {
            Mode::Http1
        } else {
            Mode::Running
        }
    }

    fn idle_for(&mut self, link: &Link, now: Instant) -> Duration {
        let carried = link.requests();
        let entry = self.idle.entry(link.id()).or_insert((carried, now));
        if entry.0 != carried || link.in_flight() > 0 {
            *entry = (carried, now);
        }
        now.saturating_duration_since(entry.1)
    }

    fn carry_out(&mut self, plan: Plan) {
        let now = Instant::now();
        if self.context.hub.is_stopping() {
            // Nobody waits for them any more.
            self.dialling.keys().filter_map(|id| self.aborts.get(id)).for_each(AbortHandle::abort);
        }
        for _ in 0..plan.dials {
            self.start_dial();
        }
        for link in self.context.hub.links() {
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
            Destiny { id: next_id(), worker, max_age: self.backoff.jittered(self.context.config.max_age) };
        let handle = self.context.workers.handle(worker).clone();
        let abort = self.lives.spawn_on(live(self.context.clone(), destiny), &handle);
        self.aborts.insert(destiny.id, abort);
        self.dialling.insert(destiny.id, worker);
    }

    fn least_used_worker(&self) -> usize {
        let links = self.context.hub.links();
        let used = |worker: usize| {
            let serving =
                links.iter().filter(|l| l.state() == State::Serving && l.birth.worker == worker).count();
            serving + self.dialling.values().filter(|w| **w == worker).count()
        };
        (0..self.context.workers.len()).min_by_key(|w| used(*w)).unwrap_or(0)
    }

    /// Publishes what serves, eldest first, and whether the floor is met.
    fn publish(&mut self) {
        let hub = &self.context.hub;
        let links = hub.links();
        for link in &links {
            if self.dialling.remove(&link.id()).is_some() {
                self.backoff.served();
                hub.forget_failures();
            }
        }
        hub.set_dialling(self.dialling.len());
        let mut serving: Vec<_> = links
            .into_iter()
            .filter(|l| l.birth.protocol == Protocol::H2 && l.state() == State::Serving)
            .collect();
        serving.sort_by_key(|l| l.id());
        self.idle.retain(|id, _| serving.iter().any(|l| l.id() == *id));
        let floor_met = match hub.http1() {
            Some(pool) if pool.floor_met() => true,
            Some(pool) => {
                if !hub.is_stopping() {
                    pool.mend(self.context.workers.handle(0));
                }
                false
            }
            None => serving.len() >= self.context.config.min_connections as usize,
        };
        hub.set_floor_met(floor_met);
        let nothing_serves = serving.is_empty() && hub.http1().is_none();
        if hub.set_differs(&serving) {
            hub.publish(serving);
        } else {
            hub.dispatch();
        }
        if nothing_serves && self.dialling.is_empty() && self.backoff.is_pausing(Instant::now()) {
            // No dial is made for a while, for a known reason: whoever waits should not wait for nothing.
            hub.report_outage();
        }
    }

    fn note(&mut self, joined: Result<(Destiny, LifeEnd), tokio::task::JoinError>) {
        match joined {
            Ok((destiny, end)) => {
                self.dialling.remove(&destiny.id);
                self.aborts.remove(&destiny.id);
                match end {
                    LifeEnd::Failed(error) => self.note_failure(destiny.id, error),
                    LifeEnd::Served { link, ended } => self.note_end(&link, &ended.cause, &ended.detail),
                    LifeEnd::Http1(transport) => self.adopt_http1(destiny, *transport),
                }
            }
            Err(e) => self.note_lost_tasks(&e),
        }
    }

    fn note_failure(&mut self, id: ConnectionId, error: Arc<DialError>) {
        let now = Instant::now();
        let pause = self.backoff.failed(&self.context.config, &error, now);
        let hub = &self.context.hub;
        hub.counters.dials_failed.fetch_add(1, Ordering::Relaxed);
        let generation = hub.generation.load();
        let certificate = generation.identity().certificate().fingerprint().to_string();
        if error.is_identity_fault() {
            tracing::error!(environment = %self.context.key.environment, connection = %id, code = error.code(),
                certificate, next_dial_in = ?pause,
                "{error}; check that this certificate is endorsed in the Thales portal");
        } else {
            tracing::warn!(environment = %self.context.key.environment, connection = %id, code = error.code(),
                next_dial_in = ?pause, "dial failed: {error}");
        }
        hub.dial_failed(error, now);
    }

    fn note_end(&mut self, link: &Link, cause: &CauseOfDeath, detail: &str) {
        let hub = &self.context.hub;
        hub.unregister(link.id());
        self.context.observer.closed(link.id(), *cause, link.requests());
        self.context.bury(link, Buried { cause: *cause, detail, at: Instant::now() });
        self.context.note_gone(link, *cause);
        tracing::info!(environment = %self.context.key.environment, connection = %link.id(),
            cause = cause.as_str(), requests = link.requests(), detail, "connection ended");
        use CauseOfDeath::{ClosedByProvider, Goaway, PingTimeout, ProtocolError};
        if !matches!(cause, Goaway | ClosedByProvider | PingTimeout | ProtocolError) {
            return;
        }
        let now = Instant::now();
        if self.recent_ends.len() < RECENT_MAX {
            self.recent_ends.push(now);
        }
        if link.requests() == 0 && now.saturating_duration_since(link.birth.born) < WORTHY_AGE {
            let error = DialError::Protocol { detail: format!("ended at once: {detail}") };
            self.backoff.failed(&self.context.config, &error, now);
        }
    }

    /// A task that was cut or panicked reports nothing: find out whose link has no task any more.
    fn note_lost_tasks(&mut self, error: &tokio::task::JoinError) {
        if error.is_panic() {
            tracing::error!(environment = %self.context.key.environment, "a connection's task panicked: {error}");
        }
        let lost: Vec<_> = self.aborts.iter().filter(|(_, a)| a.is_finished()).map(|(id, _)| *id).collect();
        for id in lost {
            self.aborts.remove(&id);
            if self.dialling.remove(&id).is_some() {
                let error = DialError::Protocol { detail: "the dial's task ended without a word".to_owned() };
                self.backoff.failed(&self.context.config, &error, Instant::now());
            }
            if let Some(link) = self.context.hub.links().into_iter().find(|l| l.id() == id) {
                link.ended(CauseOfDeath::Stopped);
                let cause = link.cause().unwrap_or(CauseOfDeath::Stopped);
                self.note_end(&link, &cause, "cut");
            }
        }
    }

    fn adopt_http1(&mut self, destiny: Destiny, (dialled, progress): (Dialled, Progress)) {
        self.backoff.succeeded();
        let context = self.context.clone();
        if context.hub.is_stopping() {
            return;
        }
        let pool = context.hub.http1().unwrap_or_else(|| Http1Pool::start(context.clone()));
        let handle = self.context.workers.handle(destiny.worker).clone();
        handle.spawn(async move { pool.adopt(context, destiny.id, dialled, progress).await });
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
