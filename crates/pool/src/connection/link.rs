//! What everybody may know of a connection: identity, state, counts. The shared half of a connection.
//!
//! Owns the only place where the state changes. The counts are `permits`; the driver task owns the transport; a lease
//! owns a permit.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::client::SendRequest;
use parking_lot::Mutex;
use tls_core::HandshakeFacts;
use tokio::time::Instant;

use super::{
    Trust, Vitals,
    opening::Opening,
    permits::{Grant, Permits, Share, View, Waiters},
    state::{Event, State},
};
use crate::{
    hub::Hub,
    journey::ConnectionId,
    passport::Passport,
    send::{Readings, ResetBudget},
    status::DialPhases,
    status::{CauseOfDeath, ConnectionStatus, GenerationRole, Protocol},
};

/// What is known about a connection once its handshake is done.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) id: ConnectionId,
    pub(crate) protocol: Protocol,
    pub(crate) generation: u64,
    pub(crate) worker: usize,
    pub(crate) address: SocketAddr,
    pub(crate) born: Instant,
    /// When it is to be replaced by age.
    pub(crate) retire_at: Instant,
    pub(crate) facts: HandshakeFacts,
}

/// The hub that streams are given back to. Whether anybody waits there can be seen without touching the hub.
#[derive(Debug)]
struct Home {
    waiters: Arc<Waiters>,
    hub: Weak<Hub>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It carries requests.
    Regular,
    /// It also tries to outlive what was learned about the provider.
    Probe,
}

/// The shared half of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) birth: Birth,
    pub(crate) passport: Passport,
    phases: OnceLock<DialPhases>,
    state: AtomicU8,
    cause: OnceLock<CauseOfDeath>,
    drain_since: OnceLock<Instant>,
    permits: Permits,
    home: OnceLock<Home>,
    ping_rtt_us: AtomicU64,
    /// Microseconds from its birth to when it last fell idle.
    credited: AtomicBool,
    vitals: Vitals,
    opening: Opening,
    readings: Readings,
    resets: Mutex<ResetBudget>,
    /// It puts a learned limit to the test, one stream at a time.
    probing: AtomicBool,
    /// Another generation is in use: it carries new streams only while that one has none free.
    superseded: AtomicBool,
    sender: Mutex<Option<SendRequest<Bytes>>>,
    driver: AtomicWaker,
}

impl Link {
    /// A connection whose handshake is done: it is proving, and carries nothing yet.
    pub(crate) fn new(birth: Birth, sender: Option<SendRequest<Bytes>>) -> Arc<Self> {
        Arc::new(Self {
            birth,
            passport: Passport::default(),
            phases: OnceLock::new(),
            state: AtomicU8::new(State::Proving as u8),
            cause: OnceLock::new(),
            drain_since: OnceLock::new(),
            permits: Permits::new(),
            home: OnceLock::new(),
            ping_rtt_us: AtomicU64::new(u64::MAX),
            credited: AtomicBool::new(false),
            vitals: Vitals::default(),
            opening: Opening::default(),
            readings: Readings::default(),
            resets: Mutex::default(),
            probing: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            sender: Mutex::new(sender),
            driver: AtomicWaker::new(),
        })
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.birth.id
    }

    pub(crate) fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Moves the state; the only place that does. Returns the new state, or the old one where the move is illegal.
    fn advance(&self, event: Event) -> State {
        let moved = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |raw| {
            State::ALL[usize::from(raw)].next(event).ok().map(|next| next as u8)
        });
        match moved {
            Ok(from) => State::ALL[usize::from(from)].next(event).unwrap_or(State::Closed),
            Err(raw) => {
                debug_assert!(false, "illegal move {:?} + {event:?}", State::ALL[usize::from(raw)]);
                State::ALL[usize::from(raw)]
            }
        }
    }

    /// The proof arrived: streams may start.
    pub(crate) fn proved(&self, phases: DialPhases) {
        let _ = self.phases.set(phases);
        self.fell_idle(phases.total);
        self.advance(Event::Proved);
        self.permits.open();
    }

    /// No new leases from now on, for this reason; the driver closes it when the last stream ends. Streams that are
    /// leased already may still be opened, unless the provider would not take them any more.
    pub(crate) fn retire(&self, cause: CauseOfDeath, now: Instant) {
        self.begin_drain(cause, now);
        use CauseOfDeath::{ClosedByProvider, Goaway, PingTimeout, ProtocolError};
        let refused = matches!(cause, Goaway | ClosedByProvider | PingTimeout | ProtocolError);
        // Whichever comes second, this or the release of the last permit, sees the other.
        if refused || self.in_flight() == 0 {
            self.forbid();
        }
        self.driver.wake();
    }

    /// As [`Self::retire`], and not even a stream that is leased already may be opened: what the connection believed
    /// was withdrawn.
    pub(crate) fn retire_at_once(&self, cause: CauseOfDeath, now: Instant) {
        self.begin_drain(cause, now);
        self.forbid();
        self.driver.wake();
    }

    fn begin_drain(&self, cause: CauseOfDeath, now: Instant) {
        let _ = self.cause.set(cause);
        let _ = self.drain_since.set(now);
        // Before the state says so: whoever sees the new state sees the last permit too.
        self.permits.close();
        self.advance(Event::Retire);
    }

    /// No stream can be opened any more. With the last handle gone h2 says GOAWAY and closes once the streams are done.
    fn forbid(&self) {
        drop(self.sender.lock().take());
    }

    /// The transport is gone.
    pub(crate) fn ended(&self, cause: CauseOfDeath) {
        let _ = self.cause.set(cause);
        self.permits.close();
        self.advance(Event::End);
        drop(self.sender.lock().take());
    }

    /// How long its dial took, and when it came to serve.
    pub(crate) fn dialled(&self) -> (Duration, Instant) {
        let took = self.phases.get().map_or(Duration::ZERO, |phases| phases.total);
        (took, self.birth.born + took)
    }

    /// Whether this is the first time that it is credited with having been worth its dial.
    pub(crate) fn credit_once(&self) -> bool {
        !self.credited.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn cause(&self) -> Option<CauseOfDeath> {
        self.cause.get().copied()
    }

    /// Since when it takes no new streams.
    pub(crate) fn drain_since(&self) -> Option<Instant> {
        self.drain_since.get().copied()
    }

    /// HTTP/1.1: the provider said, with a response that is still being read, that the connection ends with it.
    pub(crate) fn is_parting(&self) -> bool {
        self.birth.protocol == Protocol::Http11
            && self.cause() == Some(CauseOfDeath::ClosedByProvider)
            && self.in_flight() > 0
    }

    /// Sets how many requests it should carry, and at which number the supervisor wants to be told. A connection under
    /// test has no such limit, but carries one stream at a time. Returns whether that number was passed just now, so
    /// that nobody will tell.
    pub(crate) fn allot(&self, role: Role, budget: Option<(u64, u64)>) -> bool {
        self.probing.store(role == Role::Probe, Ordering::Relaxed);
        self.permits.allot(budget.filter(|_| role == Role::Regular))
    }

    /// Streams it may carry at once now, of those that its capacity allows: one while it is under test or on
    /// probation.
    pub(crate) fn share(&self) -> Share {
        let single = self.probing.load(Ordering::Relaxed) || self.vitals.trust() == Trust::Probation;
        if single { Share::OneAtATime } else { Share::Full }
    }

    /// Whether its budget is used up.
    pub(crate) fn is_spent(&self) -> bool {
        self.permits.is_spent()
    }

    /// Says whether its generation is the active one.
    pub(crate) fn note_active(&self, generation: u64) {
        self.superseded.store(self.birth.generation != generation, Ordering::Relaxed);
    }

    /// Whether another generation than its own is in use.
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    /// Its vital signs.
    pub(crate) fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// The gate through which its streams are opened.
    pub(crate) fn opening(&self) -> &Opening {
        &self.opening
    }

    /// The response bodies that are being read on it.
    pub(crate) fn readings(&self) -> &Readings {
        &self.readings
    }

    /// How many of its streams may still be reset.
    pub(crate) fn resets(&self) -> &Mutex<ResetBudget> {
        &self.resets
    }

    /// Something changed that the driver should look at.
    pub(crate) fn wake_driver(&self) {
        self.driver.wake();
    }

    /// Registers the driver, so that a retirement reaches it at once.
    pub(crate) fn register_driver(&self, waker: &std::task::Waker) {
        self.driver.register(waker);
    }

    /// A handle to open one stream with; `None` once the connection is being retired.
    pub(crate) fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.sender.lock().clone()
    }

    /// From now on streams are given back to this hub.
    pub(crate) fn attach(&self, waiters: &Arc<Waiters>, hub: &Arc<Hub>) {
        let _ = self.home.set(Home { waiters: waiters.clone(), hub: Arc::downgrade(hub) });
    }

    /// The hub, if anybody waits there for a stream.
    pub(crate) fn hub_with_waiters(&self) -> Option<Arc<Hub>> {
        let home = self.home.get().filter(|home| home.waiters.count() > 0)?;
        home.hub.upgrade()
    }

    /// Its permits at one moment.
    pub(crate) fn permits(&self) -> View {
        self.permits.view()
    }

    /// See [`Permits::view_as_waiter`].
    pub(crate) fn permits_as_waiter(&self) -> View {
        self.permits.view_as_waiter()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.permits.view().in_flight()
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.permits.view().capacity()
    }

    /// Requests carried so far.
    pub(crate) fn requests(&self) -> u64 {
        self.permits.requests()
    }

    /// Sets the streams it may carry. Returns whether that is more than before: then call [`Hub::dispatch`].
    pub(crate) fn set_capacity(&self, streams: u32) -> bool {
        self.permits.set_capacity(streams)
    }

    pub(crate) fn set_ping_rtt(&self, rtt: Duration) {
        self.passport.note_ping(rtt);
        self.ping_rtt_us.store(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX - 1), Ordering::Relaxed);
    }

    pub(crate) fn ping_rtt(&self) -> Option<Duration> {
        match self.ping_rtt_us.load(Ordering::Relaxed) {
            u64::MAX => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// Takes a permit if the connection serves and has room.
    pub(crate) fn try_acquire(&self) -> Option<Grant> {
        self.permits.try_acquire(self.share())
    }

    /// Gives a permit back. Leases do; see [`Self::hub_with_waiters`] for what comes next.
    pub(crate) fn release(&self) {
        if self.permits.release() > 0 {
            return;
        }
        self.fell_idle(self.birth.born.elapsed());
        if !self.permits.view().is_open() {
            self.forbid();
            self.driver.wake();
        }
    }

    /// How long each phase of its dial took.
    pub(crate) fn phases(&self) -> DialPhases {
        self.phases.get().copied().unwrap_or_default()
    }

    /// Most streams at once so far.
    pub(crate) fn peak_in_flight(&self) -> u32 {
        self.permits.peak()
    }

    /// A permit goes back whose request was given up before a stream was opened.
    pub(crate) fn note_unused(&self) {
        self.permits.note_unused();
    }

    fn fell_idle(&self, age: Duration) {
        self.passport.fell_idle(age);
    }

    /// How long it has carried nothing; `None` while it carries something.
    pub(crate) fn idle_for(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.birth.born);
        (self.in_flight() == 0).then(|| self.passport.idle_for(age))
    }

    pub(crate) fn status(&self, now: Instant, active_generation: u64) -> ConnectionStatus {
        let age = now.saturating_duration_since(self.birth.born);
        ConnectionStatus {
            id: self.birth.id,
            state: self.state(),
            protocol: self.birth.protocol,
            generation: self.birth.generation,
            role: if self.birth.generation == active_generation {
                GenerationRole::Active
            } else {
                GenerationRole::Draining
            },
            address: self.birth.address.to_string(),
            age,
            in_flight: self.in_flight(),
            capacity: self.capacity(),
            requests: self.requests(),
            peak_in_flight: self.peak_in_flight(),
            ping_rtt: self.ping_rtt(),
            handshake: self.birth.facts.clone(),
            phases: self.phases(),
            proof: self.passport.proof(),
            passport: self.passport.status(age, self.in_flight()),
        }
    }
}
