//! Connections to a provider that speaks HTTP/1.1, lent exclusively by bb8.
//!
//! bb8 owns the lending, the floor and the waiting; this module owns how a connection is made and proven, and when
//! it may not be lent again. Used where ALPN yields `http/1.1` or nothing: Thales documents no HTTP version.

mod connection;
mod manager;
mod proof;
mod stream;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bb8::{PooledConnection, QueueStrategy, RunError};
use hyper::client::conn::http1::SendRequest;

pub(crate) use self::{
    connection::{Http1Body, Http1Connection},
    manager::{Gate, Manager},
};
use crate::{
    connection::{Link, State},
    dial::{Dialled, Progress},
    error::{DialError, SendErrorKind},
    journey::ConnectionId,
    status::Protocol,
    supervisor::Context,
};

/// Idle connections are closed before load balancers (60 s and up) and common servers (nginx 75 s) do it.
const IDLE_LIMIT: Duration = Duration::from_secs(50);
/// bb8's own limit on waiting; the requests' own limits are shorter.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How long one round of mending the floor may take.
const MEND_LIMIT: Duration = Duration::from_secs(10);
/// Least time between two rounds.
const MEND_PAUSE: Duration = Duration::from_millis(250);
/// How often bb8 looks for idle connections.
const REAPER_RATE: Duration = Duration::from_secs(10);

/// A connection on loan; dropping it returns it.
pub(crate) struct Loan {
    connection: PooledConnection<'static, Manager>,
    context: Arc<Context>,
}

impl Loan {
    fn new(connection: PooledConnection<'static, Manager>, context: Arc<Context>) -> Self {
        connection.link().lend();
        Self { connection, context }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        self.connection.link()
    }

    pub(crate) fn sender(&mut self) -> &mut SendRequest<Http1Body> {
        self.connection.sender()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.link().release();
        if self.context.hub.is_stopping() {
            self.context.hub.supervisor.notify_one();
        }
    }
}

/// The exclusive pool of one environment.
pub(crate) struct Http1Pool {
    pool: bb8::Pool<Manager>,
    gate: Arc<Gate>,
    waiting: AtomicU32,
    mending: AtomicBool,
    context: Arc<Context>,
}

impl Http1Pool {
    /// Starts the pool and announces it: from now on requests go this way.
    pub(crate) fn start(context: Arc<Context>) -> Arc<Self> {
        let config = &context.config;
        let most = config.http1_max_connections.max(config.min_connections);
        let gate = Arc::new(Gate::new());
        let pool = bb8::Pool::builder()
            .max_size(most)
            .min_idle(config.min_connections)
            // Cheap and local: has it been closed, aged or replaced while it was idle?
            .test_on_check_out(true)
            // Age has jitter and is looked at in `has_broken`; bb8's own has none.
            .max_lifetime(None)
            .idle_timeout(IDLE_LIMIT)
            .reaper_rate(REAPER_RATE)
            // Each request brings its own limit.
            .connection_timeout(LONGEST_WAIT)
            .retry_connection(false)
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(manager::Sink))
            .build_unchecked(Manager::new(context.clone(), gate.clone()));
        let this = Arc::new(Self {
            pool,
            gate,
            waiting: AtomicU32::new(0),
            mending: AtomicBool::new(false),
            context: context.clone(),
        });
        context.hub.set_http1(Some(this.clone()));
        this
    }

    /// Takes over a transport that the supervisor dialled before the version was known.
    pub(crate) async fn adopt(
        &self,
        context: Arc<Context>,
        id: ConnectionId,
        dialled: Dialled,
        progress: Progress,
    ) {
        match Manager::prove_and_start(&context, id, dialled, progress).await {
            // A full pool has no use for one more: dropping it closes it.
            Ok(connection) => drop(self.pool.add(connection)),
            Err(e) => manager::note_failure(&context, &self.gate, Arc::new(e)),
        }
        context.hub.supervisor.notify_one();
    }

    /// Lends a connection. Waits as long as the caller does; see [`Self::why_none`].
    ///
    /// # Errors
    /// The cause of the last dial when nothing serves; [`SendErrorKind::QueueFull`] when too many wait.
    ///
    /// # Cancel safety
    /// Dropping it leaves bb8's queue.
    pub(crate) async fn lend(&self) -> Result<Loan, SendErrorKind> {
        let hub = &self.context.hub;
        if hub.is_stopping() {
            return Err(SendErrorKind::Stopping);
        }
        let _place = self.take_place()?;
        if self.serving() == 0 && self.gate.is_backing_off() {
            return Err(self.why_none(Duration::ZERO));
        }
        let mut lent = pin!(self.pool.get_owned());
        loop {
            let told = hub.outage_told.notified();
            tokio::select! {
                biased;
                lent = lent.as_mut() => return match lent {
                    Ok(connection) => Ok(Loan::new(connection, self.context.clone())),
                    Err(RunError::User(e)) => Err(SendErrorKind::Unavailable(e)),
                    Err(RunError::TimedOut) => Err(self.why_none(LONGEST_WAIT)),
                },
                // A dial that failed is no matter while others serve: one of them will come back.
                () = told => if hub.is_stopping() || self.serving() == 0 {
                    return Err(self.why_none(Duration::ZERO));
                },
            }
        }
    }

    /// Why no connection was lent within `after`.
    pub(crate) fn why_none(&self, after: Duration) -> SendErrorKind {
        if self.context.hub.is_stopping() {
            return SendErrorKind::Stopping;
        }
        match self.context.hub.last_failure().filter(|_| self.serving() == 0) {
            Some(failure) => SendErrorKind::Unavailable(failure.error.clone()),
            None => SendErrorKind::QueueTimeout { after },
        }
    }

    /// Requests waiting for a connection.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn take_place(&self) -> Result<Place<'_>, SendErrorKind> {
        let most = self.context.config.queue_capacity;
        // Somebody who finds an idle connection waits for no time at all; capacity 0 must not refuse it.
        let room = |depth: u32| (depth < most.max(1)).then_some(depth + 1);
        match self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => Ok(Place(&self.waiting)),
            Err(depth) => Err(SendErrorKind::QueueFull { depth }),
        }
    }

    /// Takes out what ended while it was idle and dials what the floor lacks, one round at a time.
    pub(crate) fn mend(self: &Arc<Self>, worker: &tokio::runtime::Handle) {
        if self.mending.swap(true, Ordering::Relaxed) {
            return;
        }
        let this = self.clone();
        worker.spawn(async move {
            if let Some(moment) = this.gate.not_before() {
                tokio::time::sleep_until(moment).await;
            }
            // A checkout discards every idle connection that is spent, and bb8 refills to its floor.
            let lent = tokio::time::timeout(MEND_LIMIT, this.pool.get_owned()).await;
            drop(lent);
            // What is still being dialled gets its time before the next round.
            tokio::time::sleep(MEND_PAUSE).await;
            this.mending.store(false, Ordering::Relaxed);
            this.context.hub.supervisor.notify_one();
        });
    }

    fn serving(&self) -> usize {
        let serves =
            |link: &&Arc<Link>| link.birth.protocol == Protocol::Http11 && link.state() == State::Serving;
        self.context.hub.links().iter().filter(serves).count()
    }

    /// The floor stands.
    pub(crate) fn floor_met(&self) -> bool {
        self.serving() >= self.context.config.min_connections as usize
    }
}

/// A request waiting for a connection.
struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// bb8 asks for an error that it can hand to every waiter.
pub(crate) type SharedDialError = Arc<DialError>;
