//! Connections to a provider that speaks HTTP/1.1, lent exclusively by bb8.
//!
//! bb8 owns the lending: who has which connection, last in first out. Connections are dialled, proven, retired and
//! replaced by the supervisor like those of HTTP/2, and waited for in the hub's queue. This module owns how an
//! HTTP/1.1 connection is proven and driven, and when it may not be lent again. Used where ALPN yields `http/1.1` or
//! nothing: Thales documents no HTTP version.

mod connection;
mod health;
mod life;
mod proof;
mod stream;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use bb8::QueueStrategy;
use futures_util::FutureExt;

pub(crate) use self::{
    connection::{Fitness, Http1Body, Http1Connection, Loan},
    health::in_origin_form,
    life::serve,
    stream::Passed,
};
use crate::{
    connection::{Grant, Link},
    error::DialError,
};

/// Idle connections are replaced before load balancers (60 s and up) and common servers (nginx 75 s) close them.
pub(crate) const IDLE_LIMIT: std::time::Duration = std::time::Duration::from_secs(50);

/// bb8's own bound; how many connections there are is the supervisor's policy. Room for those that ended and have not
/// been swept out.
const MOST: u32 = 16 * 1024;
/// So many ended connections may lie in bb8 before they are swept out.
const SWEEP_AT: u32 = 16;

/// The exclusive pool of one environment.
pub(crate) struct Http1Pool {
    pool: bb8::Pool<Manager>,
    /// Connections that ended while bb8 had them.
    husks: AtomicU32,
    /// There has been a connection: a pool that speaks HTTP/2 alone asks bb8 for nothing.
    used: AtomicBool,
}

impl std::fmt::Debug for Http1Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1Pool").finish_non_exhaustive()
    }
}

impl Http1Pool {
    /// An empty pool. It starts no task.
    pub(crate) fn new() -> Self {
        let pool = bb8::Pool::builder()
            .max_size(MOST)
            // The floor, age and idleness are the supervisor's.
            .min_idle(None)
            .max_lifetime(None)
            .idle_timeout(None)
            .retry_connection(false)
            // Cheap and local: has it been closed or retired while it was idle?
            .test_on_check_out(true)
            // The others stay idle long enough to be let go.
            .queue_strategy(QueueStrategy::Lifo)
            .build_unchecked(Manager);
        Self { pool, husks: AtomicU32::new(0), used: AtomicBool::new(false) }
    }

    /// Takes in a connection that was dialled and proven.
    pub(crate) fn add(&self, connection: Http1Connection) {
        self.used.store(true, Ordering::SeqCst);
        // Refused only when it ended already: then nothing is lost.
        drop(self.pool.add(connection));
    }

    /// An idle connection and its permit, if there is one. After a renewal those of the older generation are lent until
    /// the supervisor retires them, which is when their successors serve; what lost its trust is retired at once.
    pub(crate) fn try_lend(&self) -> Option<(Arc<Link>, Loan, Grant)> {
        // bb8 measures its waits with a timer, which needs a runtime.
        if self.idle() == 0 || tokio::runtime::Handle::try_current().is_err() {
            return None;
        }
        loop {
            // Asked once, never waited for: those who wait do so in the hub's queue.
            let connection = self.pool.get_owned().now_or_never()?.ok()?;
            let link = connection.link().clone();
            // Dropping the permit's loser gives it back to bb8, which lets go of what serves no more.
            if let Some(grant) = link.try_acquire() {
                return Some((link, Loan::new(connection), grant));
            }
            if self.idle() == 0 {
                return None;
            }
        }
    }

    /// Connections that lie idle in bb8, ended ones included.
    pub(crate) fn idle(&self) -> u32 {
        if self.used.load(Ordering::SeqCst) { self.pool.state().idle_connections } else { 0 }
    }

    /// A connection ended.
    fn note_end(&self) {
        if self.husks.fetch_add(1, Ordering::Relaxed) + 1 >= SWEEP_AT {
            self.sweep();
        }
    }

    /// Takes out what ended while it was idle; what serves goes back in the same order.
    fn sweep(&self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.husks.store(0, Ordering::Relaxed);
        let mut serving = Vec::new();
        while self.idle() > 0
            && let Some(Ok(connection)) = self.pool.get_owned().now_or_never()
        {
            serving.push(connection);
        }
        while let Some(connection) = serving.pop() {
            drop(connection);
        }
    }
}

/// What bb8 asks about connections. It makes none: they are dialled outside and put in.
pub(crate) struct Manager;

/// bb8 asked for a connection; it is to wait for one that is put in.
#[derive(Debug)]
pub(crate) struct DialledOutside;

impl bb8::ManageConnection for Manager {
    type Connection = Http1Connection;
    type Error = DialledOutside;

    async fn connect(&self) -> Result<Self::Connection, Self::Error> {
        Err(DialledOutside)
    }

    async fn is_valid(&self, connection: &mut Self::Connection) -> Result<(), Self::Error> {
        if connection.is_spent() || connection.has_ended() { Err(DialledOutside) } else { Ok(()) }
    }

    fn has_broken(&self, connection: &mut Self::Connection) -> bool {
        connection.is_spent()
    }
}

fn protocol_error(e: &hyper::Error) -> DialError {
    DialError::Protocol { detail: e.to_string() }
}

#[cfg(test)]
mod tests;
