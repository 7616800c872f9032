//! Connections to a provider that speaks HTTP/1.1, lent exclusively by bb8.
//!
//! bb8 owns the lending, the floor and the waiting; this module owns how a connection is made and proven, and when
//! it may not be lent again. Used where ALPN yields `http/1.1` or nothing: Thales documents no HTTP version.

mod connection;
mod manager;
mod proof;

use std::{sync::Arc, time::Duration};

use bb8::{PooledConnection, QueueStrategy, RunError};

pub(crate) use self::{
    connection::{Http1Body, Http1Connection},
    manager::Manager,
};
use crate::{
    connection::State,
    dial::{Dialled, Progress},
    error::{DialError, SendErrorKind},
    journey::ConnectionId,
    supervisor::Context,
};

/// Idle connections are closed before load balancers (60 s and up) and common servers (nginx 75 s) do it.
const IDLE_LIMIT: Duration = Duration::from_secs(50);
/// How often bb8 looks for idle connections.
const REAPER_RATE: Duration = Duration::from_secs(10);

/// A connection on loan; returning it is dropping it.
pub(crate) type Loan = PooledConnection<'static, Manager>;

/// The exclusive pool of one environment.
pub(crate) struct Http1Pool {
    pool: bb8::Pool<Manager>,
    context: Arc<Context>,
}

impl Http1Pool {
    /// Starts the pool and announces it: from now on requests go this way.
    pub(crate) fn start(context: Arc<Context>) -> Arc<Self> {
        let config = &context.config;
        let most = config.http1_max_connections.max(config.min_connections);
        let pool = bb8::Pool::builder()
            .max_size(most)
            .min_idle(config.min_connections)
            // Cheap and local: has it been closed, aged or replaced while it was idle?
            .test_on_check_out(true)
            // Age has jitter and is looked at in `has_broken`; bb8's own has none.
            .max_lifetime(None)
            .idle_timeout(IDLE_LIMIT)
            .reaper_rate(REAPER_RATE)
            .connection_timeout(context.timeouts.queue)
            .retry_connection(false)
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(manager::Sink))
            .build_unchecked(Manager::new(context.clone()));
        let this = Arc::new(Self { pool, context: context.clone() });
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
            Err(e) => manager::note_failure(&context, Arc::new(e)),
        }
        context.hub.supervisor.notify_one();
    }

    /// Lends a connection.
    ///
    /// # Errors
    /// The cause of the last dial when nothing serves; [`SendErrorKind::QueueTimeout`] when all are on loan.
    ///
    /// # Cancel safety
    /// Dropping it leaves bb8's queue.
    pub(crate) async fn lend(&self) -> Result<Loan, SendErrorKind> {
        let hub = &self.context.hub;
        if hub.is_stopping() {
            return Err(SendErrorKind::Stopping);
        }
        if self.pool.state().connections == 0
            && let Some(outage) = hub.outage()
            && outage.at.elapsed() < self.context.config.backoff_initial
        {
            return Err(SendErrorKind::Unavailable(outage.error.clone()));
        }
        match self.pool.get_owned().await {
            Ok(loan) => Ok(loan),
            Err(RunError::User(e)) => Err(SendErrorKind::Unavailable(e)),
            Err(RunError::TimedOut) => Err(match hub.outage() {
                Some(outage) if self.pool.state().connections == 0 => {
                    SendErrorKind::Unavailable(outage.error.clone())
                }
                _ => SendErrorKind::QueueTimeout { after: self.context.timeouts.queue },
            }),
        }
    }

    /// The floor stands.
    pub(crate) fn floor_met(&self) -> bool {
        let serving = self.context.hub.links().iter().filter(|l| l.state() == State::Serving).count();
        serving >= self.context.config.min_connections as usize
    }
}

/// bb8 asks for an error that it can hand to every waiter.
pub(crate) type SharedDialError = Arc<DialError>;
