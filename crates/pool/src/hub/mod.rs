//! Where a request finds a stream: the snapshot of serving connections, and the queue when none has room.
//!
//! Owns what a pool's parts share. `pick` is the hot path, `waiting` what happens when no stream is free, `set` the
//! connections, `outage` why there are none.

mod known;
mod outage;
mod pick;
mod set;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tls_core::Generation;
use tokio::sync::{Notify, Semaphore, watch};

use self::{known::Gate, set::Register, waiting::Desk};
pub(crate) use self::{
    known::{Known, Pings},
    outage::Outage,
    pick::{Preference, StreamLease},
    waiting::{Patience, Turned, Wanted},
};
use crate::{
    config::PoolConfig,
    connection::{Link, Waiters},
    error::SendErrorKind,
    http1::Http1Pool,
    queue::Limits,
    status::PoolTotals,
};

/// What a pool shares between requests, connections and its supervisor.
pub(crate) struct Hub {
    set: ArcSwap<Vec<Arc<Link>>>,
    register: Mutex<Register>,
    floor: watch::Sender<bool>,
    dialling: AtomicU32,
    waiters: Arc<Waiters>,
    desk: Mutex<Desk>,
    /// Why nothing serves; empty while something does or while nothing has failed since.
    outage: ArcSwapOption<Outage>,
    /// The last failure of a dial, whether it mattered or not; for status.
    last_failure: ArcSwapOption<Outage>,
    /// Connections that speak HTTP/1.1, if there are any.
    http1: Http1Pool,
    /// New connections use this one, and new streams prefer them. Connections of another one carry new streams only
    /// while none of this has a stream free, until these can carry the load, or not at all; see `least_generation`.
    pub(crate) generation: ArcSwap<Generation>,
    /// Its serial number once it was switched; [`set::FIRST`] before.
    switched_to: AtomicU64,
    /// Connections of generations below this one may carry nothing: something they believed was withdrawn.
    least_generation: AtomicU64,
    growth_wanted: AtomicBool,
    stopping: AtomicBool,
    /// Told when another set of connections was published.
    published: Notify,
    /// Places for requests that wait for a young connection.
    young_places: Semaphore,
    /// Which requests the breaker lets through.
    gate: Gate,
    ping_interval_ms: AtomicU64,
    ignores_pings: AtomicBool,
    /// Asking for the application's health costs an HTTP/1.1 connection: it is not answered there, or closes it.
    questions_cost: AtomicBool,
    /// What the supervisor knows, for status.
    pub(crate) known: ArcSwap<Known>,
    pub(crate) supervisor: Notify,
    pub(crate) counters: Counters,
}

/// Totals since start, incremented where things happen.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Leases that were no request's first: replays, and those given back before a stream was opened.
    pub(crate) further_leases: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) waited: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) goaways: AtomicU64,
    pub(crate) stale_unsent: AtomicU64,
    pub(crate) stale_in_doubt: AtomicU64,
    pub(crate) retries_denied: AtomicU64,
    pub(crate) unprocessed_lost: AtomicU64,
}

impl Counters {
    /// The totals, with what the connections count themselves: `leases` of them all.
    fn totals(&self, leases: u64) -> PoolTotals {
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        PoolTotals {
            requests: leases.saturating_sub(read(&self.further_leases)),
            connections: read(&self.connections),
            handshakes_full: read(&self.full),
            handshakes_resumed: read(&self.resumed),
            dials_failed: read(&self.dials_failed),
            waited_for_dial: read(&self.waited),
            replays: read(&self.replays),
            goaways: read(&self.goaways),
            stale_unsent: read(&self.stale_unsent),
            stale_in_doubt: read(&self.stale_in_doubt),
            retries_denied: read(&self.retries_denied),
            unprocessed_lost: read(&self.unprocessed_lost),
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("set", &self.set.load().len())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// An empty hub for requests from so many workers.
    pub(crate) fn new(generation: Arc<Generation>, config: &PoolConfig, workers: usize) -> Arc<Self> {
        let limits = Limits { capacity: config.queue_capacity, reserved: config.queue_reserved };
        Arc::new(Self {
            set: ArcSwap::default(),
            register: Mutex::default(),
            floor: watch::Sender::new(false),
            dialling: AtomicU32::new(0),
            waiters: Arc::new(Waiters::new()),
            desk: Mutex::new(Desk::new(limits)),
            outage: ArcSwapOption::empty(),
            last_failure: ArcSwapOption::empty(),
            http1: Http1Pool::new(workers),
            generation: ArcSwap::new(generation),
            switched_to: AtomicU64::new(set::FIRST),
            least_generation: AtomicU64::new(0),
            growth_wanted: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            published: Notify::new(),
            young_places: Semaphore::new(config.queue_capacity as usize),
            gate: Gate::default(),
            ping_interval_ms: AtomicU64::new(u64::MAX),
            ignores_pings: AtomicBool::new(false),
            questions_cost: AtomicBool::new(false),
            known: ArcSwap::default(),
            supervisor: Notify::new(),
            counters: Counters::default(),
        })
    }

    /// Dials under way, as last counted by the supervisor.
    pub(crate) fn dialling(&self) -> u32 {
        self.dialling.load(Ordering::Relaxed)
    }

    pub(crate) fn set_dialling(&self, dials: usize) {
        self.dialling.store(u32::try_from(dials).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Says whether the floor is met; watchers are told of changes only.
    pub(crate) fn set_floor_met(&self, met: bool) {
        self.floor.send_if_modified(|was| std::mem::replace(was, met) != met);
    }

    /// Whether the floor is met, and when that changes.
    pub(crate) fn floor(&self) -> watch::Receiver<bool> {
        self.floor.subscribe()
    }

    /// The connections that speak HTTP/1.1.
    pub(crate) fn http1(&self) -> &Http1Pool {
        &self.http1
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Refuses new requests from now on and turns waiters away.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.set.store(Arc::default());
        self.turn_everybody_away(&Turned::Failed(SendErrorKind::Stopping));
        self.supervisor.notify_one();
    }
}
