//! What everybody may know of a connection: identity, state, counts. The shared half of a connection.
//!
//! Owns the permits (streams in flight against capacity) and the only place where the state changes. The driver
//! task owns the transport; a lease owns a permit.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
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
    state::{Event, State},
};
use crate::{
    journey::ConnectionId,
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
    pub(crate) address: String,
    pub(crate) born: Instant,
    /// When it is to be replaced by age.
    pub(crate) retire_at: Instant,
    pub(crate) facts: HandshakeFacts,
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
    phases: OnceLock<DialPhases>,
    state: AtomicU8,
    cause: OnceLock<CauseOfDeath>,
    drain_since: OnceLock<Instant>,
    in_flight: AtomicU32,
    capacity: AtomicU32,
    requests: AtomicU64,
    peak: AtomicU32,
    ping_rtt_us: AtomicU64,
    /// Microseconds from its birth to when it last fell idle.
    idle_since_us: AtomicU64,
    credited: AtomicBool,
    vitals: Vitals,
    /// Requests it may carry by what was learned; `u64::MAX` without a limit.
    budget: AtomicU64,
    /// The supervisor is told when this many requests were given to it.
    wake_mark: AtomicU64,
    /// It puts a learned limit to the test, one stream at a time.
    probing: AtomicBool,
    sender: Mutex<Option<SendRequest<Bytes>>>,
    driver: AtomicWaker,
}

impl Link {
    /// A connection whose handshake is done: it is proving, and carries nothing yet.
    pub(crate) fn new(birth: Birth, sender: Option<SendRequest<Bytes>>) -> Arc<Self> {
        Arc::new(Self {
            birth,
            phases: OnceLock::new(),
            state: AtomicU8::new(State::Proving as u8),
            cause: OnceLock::new(),
            drain_since: OnceLock::new(),
            in_flight: AtomicU32::new(0),
            capacity: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            peak: AtomicU32::new(0),
            ping_rtt_us: AtomicU64::new(u64::MAX),
            idle_since_us: AtomicU64::new(0),
            credited: AtomicBool::new(false),
            vitals: Vitals::default(),
            budget: AtomicU64::new(u64::MAX),
            wake_mark: AtomicU64::new(u64::MAX),
            probing: AtomicBool::new(false),
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
    }

    /// No new streams from now on, for this reason; the driver closes it when the last one ends.
    pub(crate) fn retire(&self, cause: CauseOfDeath, now: Instant) {
        let _ = self.cause.set(cause);
        let _ = self.drain_since.set(now);
        self.advance(Event::Retire);
        // With the last handle gone h2 says GOAWAY and closes once the streams are done.
        drop(self.sender.lock().take());
        self.driver.wake();
    }

    /// The transport is gone.
    pub(crate) fn ended(&self, cause: CauseOfDeath) {
        let _ = self.cause.set(cause);
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

    /// Sets how many requests it should carry, and at which number the supervisor wants to be told. A connection under
    /// test has no such limit, but carries one stream at a time.
    pub(crate) fn allot(&self, role: Role, budget: Option<(u64, u64)>) {
        let budget = budget.filter(|_| role == Role::Regular);
        let (requests, wake_at) = budget.unwrap_or((u64::MAX, u64::MAX));
        self.budget.store(requests, Ordering::Relaxed);
        self.wake_mark.store(wake_at, Ordering::Relaxed);
        self.probing.store(role == Role::Probe, Ordering::Relaxed);
    }

    /// Whether the supervisor wants to be told of the request with this number: the successor is due, or the budget
    /// is used up.
    pub(crate) fn is_at_wake_mark(&self, number: u64) -> bool {
        number == self.wake_mark.load(Ordering::Relaxed) || number == self.budget.load(Ordering::Relaxed)
    }

    /// Streams it may carry at once now: its capacity, or one while it is under test or on probation.
    pub(crate) fn room(&self) -> u32 {
        let single = self.probing.load(Ordering::Relaxed) || self.vitals.trust() == Trust::Probation;
        if single { self.capacity().min(1) } else { self.capacity() }
    }

    /// It is picked only when no other has room: its budget is used up, or it is under suspicion.
    pub(crate) fn is_last_resort(&self) -> bool {
        self.requests() >= self.budget.load(Ordering::Relaxed) || self.vitals.trust() == Trust::Doubted
    }

    /// Its vital signs.
    pub(crate) fn vitals(&self) -> &Vitals {
        &self.vitals
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

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Sets the streams it may carry. Returns whether that is more than before.
    pub(crate) fn set_capacity(&self, streams: u32) -> bool {
        self.capacity.swap(streams, Ordering::Relaxed) < streams
    }

    pub(crate) fn set_ping_rtt(&self, rtt: Duration) {
        self.ping_rtt_us.store(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX - 1), Ordering::Relaxed);
    }

    pub(crate) fn ping_rtt(&self) -> Option<Duration> {
        match self.ping_rtt_us.load(Ordering::Relaxed) {
            u64::MAX => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// Takes a permit if the connection serves and has room. Returns how many requests it carried before.
    pub(crate) fn try_acquire(&self) -> Option<u64> {
        let capacity = self.room();
        let taken = self
            .in_flight
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |n| (n < capacity).then_some(n + 1))
            .ok()?;
        if self.state() != State::Serving {
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        self.peak.fetch_max(taken + 1, Ordering::Relaxed);
        Some(self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// Gives a permit back.
    pub(crate) fn release(&self) {
        self.fell_idle(self.birth.born.elapsed());
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    fn fell_idle(&self, age: Duration) {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        self.idle_since_us.store(age, Ordering::Relaxed);
    }

    /// How long it has carried nothing; `None` while it carries something.
    pub(crate) fn idle_for(&self, now: Instant) -> Option<Duration> {
        let since = self.birth.born + Duration::from_micros(self.idle_since_us.load(Ordering::Relaxed));
        (self.in_flight() == 0).then(|| now.saturating_duration_since(since))
    }

    pub(crate) fn status(&self, now: Instant, active_generation: u64) -> ConnectionStatus {
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
            address: self.birth.address.clone(),
            age: now.saturating_duration_since(self.birth.born),
            in_flight: self.in_flight(),
            capacity: self.capacity(),
            requests: self.requests(),
            peak_in_flight: self.peak.load(Ordering::Relaxed),
            ping_rtt: self.ping_rtt(),
            handshake: self.birth.facts.clone(),
            phases: self.phases.get().copied().unwrap_or_default(),
        }
    }
}
