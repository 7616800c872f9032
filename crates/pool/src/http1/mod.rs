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
    life::{Asking, Unserved, serve},
    stream::Passed,
};
use crate::{
    connection::{Grant, Link},
    error::DialError,
    workers,
};

/// Idle connections are replaced before load balancers (60 s and up) and common servers (nginx 75 s) close them.
pub(crate) const IDLE_LIMIT: std::time::Duration = std::time::Duration::from_secs(50);

/// bb8's own bound; how many connections there are is the supervisor's policy. Room for those that ended and have not
/// been swept out.
const MOST: u32 = 16 * 1024;
/// So many ended connections may lie in bb8 before they are swept out.
const SWEEP_AT: u32 = 16;

/// The exclusive pool of one environment: one shelf per worker, so that a request takes a connection of its own worker
/// where one is idle, and no two workers contend for a lock while each has its own.
pub(crate) struct Http1Pool {
    /// By worker.
    shelves: Vec<Shelf>,
    /// What is lent when no other is idle: beyond its budget, or under suspicion.
    last_resort: Shelf,
    /// Connections that ended while bb8 had them.
    husks: AtomicU32,
    /// There has been a connection: a pool that speaks HTTP/2 alone asks bb8 for nothing.
    used: AtomicBool,
}

type Shelf = bb8::Pool<Manager>;

/// How gladly a connection is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Sound,
    LastResort,
}

impl std::fmt::Debug for Http1Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1Pool").finish_non_exhaustive()
    }
}

fn shelf() -> Shelf {
    bb8::Pool::builder()
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
        .build_unchecked(Manager)
}

/// A connection that was lent, with its permit.
pub(crate) type Lent = (Arc<Link>, Loan, Grant);

impl Http1Pool {
    /// An empty pool for so many workers, at least one. It starts no task.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            shelves: (0..workers.max(1)).map(|_| shelf()).collect(),
            last_resort: shelf(),
            husks: AtomicU32::new(0),
            used: AtomicBool::new(false),
        }
    }

    /// Takes in a connection that was dialled and proven.
    pub(crate) fn add(&self, connection: Http1Connection) {
        self.used.store(true, Ordering::SeqCst);
        // Refused only when it ended already: then nothing is lost.
        drop(self.shelf_of(connection.link().birth.worker).add(connection));
    }

    fn shelf_of(&self, worker: usize) -> &Shelf {
        &self.shelves[worker % self.shelves.len()]
    }

    /// An idle connection and its permit, if there is one: the caller's own worker's first, one of the last resort
    /// last. After a renewal those of the older generation are lent until the supervisor retires them, which is when
    /// their successors serve; what lost its trust is retired at once.
    ///
    /// `moved` is called when a connection was out of reach of others for a moment, although nobody took it: somebody
    /// who found none meanwhile has to be served.
    pub(crate) fn try_lend(&self, moved: impl Fn()) -> Option<Lent> {
        // bb8 measures its waits with a timer, which needs a runtime.
        if !self.used.load(Ordering::SeqCst) || tokio::runtime::Handle::try_current().is_err() {
            return None;
        }
        let own = workers::index() % self.shelves.len();
        let (others, first) = self.shelves.split_at(own);
        first
            .iter()
            .chain(others)
            .map(|shelf| (shelf, Tier::Sound))
            .chain([(&self.last_resort, Tier::LastResort)])
            .find_map(|(shelf, tier)| self.lend_from(shelf, tier, &moved))
    }

    /// The connection that was last put on this shelf. One that belongs to the other tier by now is put there.
    fn lend_from(&self, shelf: &Shelf, tier: Tier, moved: &impl Fn()) -> Option<Lent> {
        while idle_in(shelf) > 0 {
            // Asked once, never waited for: those who wait do so in the hub's queue.
            let mut connection = shelf.get_owned().now_or_never()?.ok()?;
            let now = if connection.is_last_resort() { Tier::LastResort } else { Tier::Sound };
            if now != tier {
                let link = connection.link();
                let belongs = match now {
                    Tier::LastResort => &self.last_resort,
                    // What it was suspected of, or the limit that it had passed, holds no longer.
                    Tier::Sound => self.shelf_of(link.birth.worker),
                };
                drop(belongs.add(connection.take_along()));
                drop(connection);
                moved();
                if now == Tier::Sound
                    && let Some(lent) = self.lend_from(belongs, now, moved)
                {
                    return Some(lent);
                }
                continue;
            }
            let link = connection.link().clone();
            // Dropping the permit's loser gives it back to bb8, which lets go of what serves no more.
            let Some(grant) = link.try_acquire() else { continue };
            return Some((link, Loan::new(connection), grant));
        }
        None
    }

    /// Whether a connection lies idle in bb8, an ended one included.
    pub(crate) fn has_idle(&self) -> bool {
        self.used.load(Ordering::SeqCst) && self.all_shelves().any(|shelf| idle_in(shelf) > 0)
    }

    /// The caller's own worker's first.
    fn all_shelves(&self) -> impl Iterator<Item = &Shelf> {
        let (others, first) = self.shelves.split_at(workers::index() % self.shelves.len());
        first.iter().chain(others).chain([&self.last_resort])
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
        for shelf in self.all_shelves() {
            let mut serving = Vec::new();
            while idle_in(shelf) > 0
                && let Some(Ok(connection)) = shelf.get_owned().now_or_never()
            {
                serving.push(connection);
            }
            while let Some(connection) = serving.pop() {
                drop(connection);
            }
        }
    }
}

fn idle_in(shelf: &Shelf) -> u32 {
    shelf.state().idle_connections
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
pub(crate) mod testing;
#[cfg(test)]
mod tests;
