//! Where a request finds a stream: the snapshot of serving connections, and the queue when none has room.
//!
//! The hot path is [`Hub::try_lease`]: one snapshot load, one pass over at most a few connections, one
//! compare-and-swap. Everything else happens only when no stream is free. The supervisor alone publishes snapshots.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tls_core::Generation;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use crate::{
    connection::{Link, State},
    error::{DialError, SendErrorKind},
    health::Health,
    http1::{Http1Pool, Loan},
    journey::ConnectionId,
    status::{BreakerStatus, CauseOfDeath, LearnedStatus, PoolTotals},
    workers,
};

/// What a pool shares between requests, connections and its supervisor.
pub(crate) struct Hub {
    set: ArcSwap<Vec<Arc<Link>>>,
    /// Every connection that serves or drains; the supervisor publishes from it.
    links: Mutex<Vec<Arc<Link>>>,
    floor: watch::Sender<bool>,
    dialling: AtomicU32,
    waiting: AtomicU32,
    queue: Mutex<VecDeque<Waiter>>,
    queue_capacity: u32,
    /// Why nothing serves; empty while something does or while nothing has failed since.
    outage: ArcSwapOption<Outage>,
    /// The last failure of a dial, whether it mattered or not; for status.
    last_failure: ArcSwapOption<Outage>,
    /// Connections that speak HTTP/1.1, if there are any.
    http1: Http1Pool,
    /// New connections use this one; the only one that may carry new streams.
    pub(crate) generation: ArcSwap<Generation>,
    /// Connections of generations below this one may carry nothing: something they believed was withdrawn.
    least_generation: AtomicU64,
    growth_wanted: AtomicBool,
    stopping: AtomicBool,
    /// The breaker withholds requests: the provider's application is unhealthy.
    withheld: AtomicBool,
    ping_interval_ms: AtomicU64,
    ignores_pings: AtomicBool,
    /// What the supervisor knows, for status.
    pub(crate) known: ArcSwap<Known>,
    pub(crate) supervisor: Notify,
    pub(crate) replay_bytes: AtomicUsize,
    pub(crate) counters: Counters,
}

/// What the supervisor knows about the provider, published for status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) breaker: BreakerStatus,
    pub(crate) learned: LearnedStatus,
    pub(crate) health: Option<Health>,
}

/// The failure of the last dial, and when.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) error: Arc<DialError>,
    pub(crate) at: Instant,
}

/// Totals since start, incremented where things happen.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) waited: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) goaways: AtomicU64,
    pub(crate) stale_unsent: AtomicU64,
    pub(crate) stale_in_doubt: AtomicU64,
}

impl Counters {
    pub(crate) fn totals(&self) -> PoolTotals {
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        PoolTotals {
            requests: read(&self.requests),
            connections: read(&self.connections),
            handshakes_full: read(&self.full),
            handshakes_resumed: read(&self.resumed),
            dials_failed: read(&self.dials_failed),
            waited_for_dial: read(&self.waited),
            replays: read(&self.replays),
            goaways: read(&self.goaways),
            stale_unsent: read(&self.stale_unsent),
            stale_in_doubt: read(&self.stale_in_doubt),
        }
    }
}

/// Which connection a request would rather have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preference {
    /// The least loaded, the eldest counting as half as loaded: connections that are used evenly also end
    /// together where a provider ends them after N requests.
    Balanced,
    /// For a replay: another one than that which failed, and the one that carried least, so that it does not meet a
    /// second GOAWAY.
    Replay {
        /// The one that failed; taken only if it is the last.
        avoid: ConnectionId,
    },
}

/// Why a waiter was woken without a lease.
#[derive(Clone, Debug)]
pub(crate) enum Turned {
    /// Nothing serves.
    Failed(SendErrorKind),
}

struct Waiter {
    reply: oneshot::Sender<Result<StreamLease, Turned>>,
    preference: Preference,
}

impl Hub {
    pub(crate) fn new(generation: Arc<Generation>, queue_capacity: u32) -> Arc<Self> {
        Arc::new(Self {
            set: ArcSwap::default(),
            links: Mutex::new(Vec::new()),
            floor: watch::Sender::new(false),
            dialling: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            queue: Mutex::new(VecDeque::new()),
            queue_capacity,
            outage: ArcSwapOption::empty(),
            last_failure: ArcSwapOption::empty(),
            http1: Http1Pool::new(),
            generation: ArcSwap::new(generation),
            least_generation: AtomicU64::new(0),
            growth_wanted: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            withheld: AtomicBool::new(false),
            ping_interval_ms: AtomicU64::new(u64::MAX),
            ignores_pings: AtomicBool::new(false),
            known: ArcSwap::default(),
            supervisor: Notify::new(),
            replay_bytes: AtomicUsize::new(0),
            counters: Counters::default(),
        })
    }

    /// Every connection that serves or drains.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().clone()
    }

    /// A connection came to serve.
    pub(crate) fn register(&self, link: Arc<Link>) {
        self.links.lock().push(link.clone());
        // Registered first, then looked at: trust that is withdrawn in between is seen here or by `withdraw`.
        if link.birth.generation < self.least_generation.load(Ordering::SeqCst) {
            link.retire(CauseOfDeath::Replaced, Instant::now());
        }
    }

    /// From now on only generations from `least` on may carry new streams, whatever the floor.
    pub(crate) fn withdraw_below(&self, least: u64) {
        self.least_generation.store(least, Ordering::SeqCst);
        let now = Instant::now();
        for link in self.links().iter().filter(|link| link.birth.generation < least) {
            link.retire(CauseOfDeath::Replaced, now);
        }
    }

    /// A connection is gone.
    pub(crate) fn unregister(&self, id: ConnectionId) {
        self.links.lock().retain(|link| link.id() != id);
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

    /// Whether `links` is another set than the published one.
    pub(crate) fn set_differs(&self, links: &[Arc<Link>]) -> bool {
        let set = self.set.load();
        set.len() != links.len() || set.iter().zip(links).any(|(a, b)| !Arc::ptr_eq(a, b))
    }

    /// Publishes the serving connections, eldest first, and hands free streams to waiters.
    pub(crate) fn publish(self: &Arc<Self>, links: Vec<Arc<Link>>) {
        if !links.is_empty() {
            self.outage.store(None);
        }
        self.set.store(Arc::new(links));
        self.dispatch();
    }

    /// The connections that speak HTTP/1.1.
    pub(crate) fn http1(&self) -> &Http1Pool {
        &self.http1
    }

    pub(crate) fn outage(&self) -> Option<Arc<Outage>> {
        self.outage.load_full()
    }

    /// A dial failed: if nothing serves, waiters learn the cause at once.
    pub(crate) fn dial_failed(&self, error: Arc<DialError>, now: Instant) {
        let outage = Arc::new(Outage { error: error.clone(), at: now });
        self.last_failure.store(Some(outage.clone()));
        if !self.links().iter().any(|link| link.state() == State::Serving) {
            self.outage.store(Some(outage));
            self.turn_away(&Turned::Failed(SendErrorKind::Unavailable(error)));
        }
    }

    /// Nothing serves and no dial is made for a while: waiters learn why.
    pub(crate) fn report_outage(&self) {
        let Some(failure) = self.last_failure() else { return };
        self.outage.store(Some(failure.clone()));
        if self.waiting() > 0 {
            self.turn_away(&Turned::Failed(SendErrorKind::Unavailable(failure.error.clone())));
        }
    }

    /// A connection serves, or is about to be dialled in another way: what failed before says nothing any more.
    pub(crate) fn forget_failures(&self) {
        self.outage.store(None);
        self.last_failure.store(None);
    }

    /// The last failure of a dial, if nothing succeeded since.
    pub(crate) fn last_failure(&self) -> Option<Arc<Outage>> {
        self.last_failure.load_full()
    }

    /// How often connections send a PING now.
    pub(crate) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_ping_interval(&self, interval: Duration) {
        self.ping_interval_ms
            .store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the provider answers no PINGs.
    pub(crate) fn ignores_pings(&self) -> bool {
        self.ignores_pings.load(Ordering::Relaxed)
    }

    /// Notes whether the provider ignored a PING; returns what was known before.
    pub(crate) fn set_ignores_pings(&self, ignores: bool) -> bool {
        self.ignores_pings.swap(ignores, Ordering::Relaxed)
    }

    /// Why requests are refused although connections serve, if they are.
    pub(crate) fn withheld(&self) -> Option<SendErrorKind> {
        // The common case costs one load.
        if !self.withheld.load(Ordering::Relaxed) {
            return None;
        }
        let why = self.known.load().breaker.why.clone()?;
        Some(SendErrorKind::Unavailable(why))
    }

    pub(crate) fn set_withheld(&self, withheld: bool) {
        self.withheld.store(withheld, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Refuses new requests from now on and turns waiters away.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.set.store(Arc::default());
        self.turn_away(&Turned::Failed(SendErrorKind::Stopping));
        self.supervisor.notify_one();
    }

    /// Requests waiting now.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Whether some request found its connection nearly full since this was last asked.
    pub(crate) fn take_growth_wanted(&self) -> bool {
        self.growth_wanted.swap(false, Ordering::Relaxed)
    }

    /// A stream on a proven connection, if one is free and nobody waits for it.
    pub(crate) fn try_lease(self: &Arc<Self>, preference: Preference) -> Option<StreamLease> {
        if self.waiting() > 0 {
            return None;
        }
        self.pick(preference)
    }

    fn pick(self: &Arc<Self>, preference: Preference) -> Option<StreamLease> {
        let set = self.set.load();
        // A lost race for the last permit is retried once per connection; then the queue is the right place.
        for _ in 0..=set.len() {
            let Some(link) = choose(&set, preference) else { break };
            if let Some(carried) = link.try_acquire() {
                if link.is_at_wake_mark(carried + 1) {
                    // Its successor is wanted before the provider ends it.
                    self.supervisor.notify_one();
                }
                self.note_load(link);
                return Some(StreamLease { link: link.clone(), hub: self.clone(), carried, loan: None });
            }
        }
        self.pick_exclusive()
    }

    /// A connection that speaks HTTP/1.1.
    fn pick_exclusive(self: &Arc<Self>) -> Option<StreamLease> {
        if self.is_stopping() {
            return None;
        }
        let (link, loan, carried) = self.http1.try_lend(self.generation.load().serial())?;
        // The last idle one went out: the next request should find one too.
        if link.is_at_wake_mark(carried + 1) || self.http1.idle() == 0 {
            self.supervisor.notify_one();
        }
        Some(StreamLease { link, hub: self.clone(), carried, loan: Some(loan) })
    }

    /// Asks for one more connection when three quarters of this one's streams are taken.
    fn note_load(&self, link: &Link) {
        if link.in_flight() * 4 > link.capacity() * 3 && !self.growth_wanted.swap(true, Ordering::Relaxed) {
            self.supervisor.notify_one();
        }
    }

    /// Joins the queue.
    ///
    /// # Errors
    /// [`SendErrorKind::QueueFull`], [`SendErrorKind::Stopping`], or the cause why nothing serves.
    ///
    /// Waiting is [`Place::turn`].
    pub(crate) fn enqueue(self: &Arc<Self>, preference: Preference) -> Result<Place, SendErrorKind> {
        let mut queue = self.queue.lock();
        if self.is_stopping() {
            return Err(SendErrorKind::Stopping);
        }
        let depth = u32::try_from(queue.len()).unwrap_or(u32::MAX);
        if depth >= self.queue_capacity {
            return Err(SendErrorKind::QueueFull { depth });
        }
        let (reply, receiver) = oneshot::channel();
        // Looked at under the lock that `turn_away` takes: whoever joins after it would wait for nothing.
        if let Some(turned) = self.turned_before() {
            let _ = reply.send(Err(turned));
            return Ok(Place { receiver, hub: self.clone(), called: false });
        }
        queue.push_back(Waiter { reply, preference });
        // Announced before looking again: a stream released from now on sees it and dispatches.
        self.waiting.store(depth + 1, Ordering::SeqCst);
        drop(queue);
        self.dispatch();
        if self.waiting() > 0 {
            self.supervisor.notify_one();
        }
        Ok(Place { receiver, hub: self.clone(), called: false })
    }

    /// Why a waiter would be turned away if it were in the queue already.
    fn turned_before(&self) -> Option<Turned> {
        let outage = self.outage()?;
        let serves = self.links().iter().any(|link| link.state() == State::Serving);
        (!serves).then(|| Turned::Failed(SendErrorKind::Unavailable(outage.error.clone())))
    }

    /// Somebody left the queue without a lease.
    fn recount(&self) {
        let mut queue = self.queue.lock();
        queue.retain(|waiter| !waiter.reply.is_closed());
        self.waiting.store(u32::try_from(queue.len()).unwrap_or(u32::MAX), Ordering::SeqCst);
    }

    /// Hands free streams to waiters, first come first served.
    pub(crate) fn dispatch(self: &Arc<Self>) {
        if self.waiting() == 0 {
            return;
        }
        // A lease that nobody took is dropped after the lock is released: its drop dispatches again.
        let mut unclaimed = None;
        {
            let mut queue = self.queue.lock();
            while let Some(waiter) = queue.pop_front() {
                if waiter.reply.is_closed() {
                    continue;
                }
                let lease = unclaimed.take().or_else(|| self.pick(waiter.preference));
                let Some(lease) = lease else {
                    queue.push_front(waiter);
                    break;
                };
                if let Err(Ok(lease)) = waiter.reply.send(Ok(lease)) {
                    unclaimed = Some(lease);
                }
            }
            self.waiting.store(u32::try_from(queue.len()).unwrap_or(u32::MAX), Ordering::SeqCst);
        }
        drop(unclaimed);
    }

    fn turn_away(&self, why: &Turned) {
        let waiters = {
            let mut queue = self.queue.lock();
            self.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut *queue)
        };
        for waiter in waiters {
            let _ = waiter.reply.send(Err(why.clone()));
        }
    }
}

/// A place in the queue. Dropping it leaves the queue; a lease that was already handed over goes back.
pub(crate) struct Place {
    receiver: oneshot::Receiver<Result<StreamLease, Turned>>,
    hub: Arc<Hub>,
    /// It has had its turn: the queue knows it no more.
    called: bool,
}

impl Place {
    /// Waits for a stream, or for the reason why there is none.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(crate) async fn turn(&mut self) -> Result<StreamLease, Turned> {
        // The sender is dropped unsent only with the hub.
        let turn = (&mut self.receiver).await;
        self.called = true;
        turn.unwrap_or(Err(Turned::Failed(SendErrorKind::Stopping)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.called {
            return;
        }
        self.receiver.close();
        // Handed over between the last look and now: its own drop gives the stream to the next.
        drop(self.receiver.try_recv());
        if self.hub.waiting() > 0 {
            self.hub.recount();
            self.hub.dispatch();
        }
    }
}

/// The best connection with room, by this preference.
fn choose(set: &[Arc<Link>], preference: Preference) -> Option<&Arc<Link>> {
    let mut best: Option<(&Arc<Link>, u64)> = None;
    let mut elder_seen = false;
    for link in set {
        if link.state() != State::Serving {
            continue;
        }
        let weight = if elder_seen { 2 } else { 1 };
        elder_seen = true;
        let in_flight = link.in_flight();
        if in_flight >= link.room() {
            continue;
        }
        let score = match preference {
            // Better a connection that the provider may end than a request that waits for a handshake.
            _ if link.is_last_resort() => u64::MAX - 2 + u64::from(in_flight > 0),
            Preference::Balanced => {
                let elsewhere = if link.birth.worker == workers::index() { 0 } else { FOREIGN_WORKER_COST };
                u64::from(in_flight) * weight + elsewhere
            }
            Preference::Replay { avoid } if link.id() == avoid => u64::MAX - 1,
            Preference::Replay { .. } => link.requests(),
        };
        if best.is_none_or(|(_, lowest)| score < lowest) {
            best = Some((link, score));
        }
    }
    best.map(|(link, _)| link)
}

/// How many streams more a connection of the caller's own worker may carry before another worker's is preferred:
/// a hop between workers costs two wake-ups, about what a handful of streams adds in waiting.
const FOREIGN_WORKER_COST: u64 = 8;

/// The right to one stream on one proven connection. Dropping it gives the stream back.
#[must_use = "a lease that is dropped at once gives the stream back"]
pub(crate) struct StreamLease {
    link: Arc<Link>,
    hub: Arc<Hub>,
    /// Requests the connection had carried before this one.
    carried: u64,
    /// The connection itself, where it is lent exclusively.
    loan: Option<Loan>,
}

impl StreamLease {
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn is_reuse(&self) -> bool {
        self.carried > 0
    }

    /// The connection itself, where it is lent exclusively: it speaks HTTP/1.1.
    pub(crate) fn loan(&self) -> Option<&Loan> {
        self.loan.as_ref()
    }
}

impl std::fmt::Debug for StreamLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamLease").field("connection", &self.link.id()).finish_non_exhaustive()
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.link.release();
        // Back in bb8 before somebody who waits is looked for.
        drop(self.loan.take());
        self.hub.dispatch();
    }
}
