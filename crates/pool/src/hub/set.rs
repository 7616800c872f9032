//! The connections of a pool: every one that lives, and the snapshot of those that requests may pick from.
//!
//! Owns both lists and the count of what the dead ones carried. Which connections there should be is the
//! supervisor's decision; it alone publishes.

use std::sync::{Arc, atomic::Ordering};

use tls_core::Generation;
use tokio::time::Instant;

use super::Hub;
use crate::{
    connection::Link,
    journey::ConnectionId,
    status::{CauseOfDeath, PoolTotals},
};

/// Every connection that serves or drains, and what those before them carried.
#[derive(Debug, Default)]
pub(super) struct Register {
    links: Vec<Arc<Link>>,
    /// Leases on connections that are gone.
    buried: u64,
}

impl Hub {
    /// The connections that new streams may start on, as last published.
    pub(crate) fn set(&self) -> arc_swap::Guard<Arc<Vec<Arc<Link>>>> {
        self.set.load()
    }

    /// Every connection that serves or drains.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.register.lock().links.clone()
    }

    /// A connection came to serve.
    pub(crate) fn register(self: &Arc<Self>, link: Arc<Link>) {
        link.attach(&self.waiters, self);
        self.register.lock().links.push(link.clone());
        if let Some(active) = self.switched_to() {
            link.note_active(active);
        }
        // Registered first, then looked at: trust that is withdrawn in between is seen here or by `withdraw`.
        if link.birth.generation < self.least_generation.load(Ordering::SeqCst) {
            link.retire_at_once(CauseOfDeath::Replaced, Instant::now());
        }
    }

    /// Another generation is in use from now on: new streams start on its connections as soon as one has a stream free,
    /// and on others only as long as none has.
    pub(crate) fn switch(&self, generation: Arc<Generation>) {
        let serial = generation.serial();
        self.generation.store(generation);
        self.switched_to.store(serial, Ordering::SeqCst);
        self.links().iter().for_each(|link| link.note_active(serial));
    }

    /// The generation in use, if it is not the first.
    fn switched_to(&self) -> Option<u64> {
        Some(self.switched_to.load(Ordering::SeqCst)).filter(|serial| *serial != FIRST)
    }

    /// From now on only generations from `least` on may carry new streams, whatever the floor.
    pub(crate) fn withdraw_below(&self, least: u64) {
        self.least_generation.store(least, Ordering::SeqCst);
        let now = Instant::now();
        for link in self.links().iter().filter(|link| link.birth.generation < least) {
            link.retire_at_once(CauseOfDeath::Replaced, now);
        }
    }

    /// A connection is gone.
    pub(crate) fn unregister(&self, id: ConnectionId) {
        let mut register = self.register.lock();
        let Some(at) = register.links.iter().position(|link| link.id() == id) else { return };
        let link = register.links.remove(at);
        // It has ended: no permit is granted any more, so this number is final.
        register.buried += leases(&link);
    }

    /// Totals since start. Nothing is counted on the way of a request but by the connection it takes.
    pub(crate) fn totals(&self) -> PoolTotals {
        let register = self.register.lock();
        self.counters.totals(register.buried + register.links.iter().map(|link| leases(link)).sum::<u64>())
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
        links.iter().for_each(|link| link.attach(&self.waiters, self));
        self.set.store(Arc::new(links));
        self.published.notify_waiters();
        // Under the queue's lock whether anybody waits or not: whoever joins after it sees this set.
        self.serve_waiters();
    }
}

/// No generation but the first was in use so far.
pub(super) const FIRST: u64 = u64::MAX;

/// Leases granted on a connection.
fn leases(link: &Link) -> u64 {
    link.permits().carried()
}
