//! Which connection a request takes, and the lease on one of its streams.
//!
//! Owns the hot path, [`Hub::try_lease`]: one snapshot load, one pass over at most a few connections, one
//! compare-and-swap on the chosen one. Nothing that requests share is written but the chosen connection.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::Hub;
use crate::{
    connection::{Grant, Link, Notice, Trust},
    http1::Loan,
    journey::ConnectionId,
    status::CauseOfDeath,
    workers,
};

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
    /// For the last attempt: one that came to serve after this moment. Where a provider ends all its connections, those
    /// that served before are ending too, whether they know it or not.
    BornAfter(Instant),
}

impl Hub {
    /// Whether some request found its connection nearly full since this was last asked.
    pub(crate) fn take_growth_wanted(&self) -> bool {
        self.growth_wanted.swap(false, Ordering::Relaxed)
    }

    /// A stream on a proven connection, if one is free and nobody waits for it.
    pub(crate) fn try_lease(&self, preference: Preference) -> Option<StreamLease> {
        if self.waiting() > 0 {
            return None;
        }
        self.pick(preference)
    }

    /// A stream on a connection that came to serve after `moment`; waits until `until` for one to come or to have
    /// room. `None` when none did, or when as many wait for one already as the queue holds.
    ///
    /// Passes by the queue: a request comes here for its last attempt, after it had its turn.
    ///
    /// # Cancel safety
    /// Waits only.
    pub(crate) async fn lease_born_after(&self, moment: Instant, until: Instant) -> Option<StreamLease> {
        let _place = self.young_places.try_acquire().ok()?;
        loop {
            // Registered before looking: a set that is published in between is not missed.
            let published = self.published.notified();
            if let Some(lease) = self.pick(Preference::BornAfter(moment)) {
                return Some(lease);
            }
            let now = Instant::now();
            if now >= until || self.is_stopping() {
                return None;
            }
            // A young connection that is full gives streams back without telling anybody here.
            let look_again = until.min(now + LOOK_FOR_YOUNG);
            let _ = tokio::time::timeout_at(look_again, published).await;
        }
    }

    pub(super) fn pick(&self, preference: Preference) -> Option<StreamLease> {
        let set = self.set.load();
        // A lost race for the last permit is retried once per connection; then the queue is the right place.
        for _ in 0..=set.len() {
            let Some(link) = choose(&set, preference) else { break };
            if let Some(grant) = link.try_acquire() {
                self.heed(link, grant.notice);
                return Some(StreamLease { link: link.clone(), grant, loan: None });
            }
        }
        self.pick_exclusive()
    }

    /// A connection that speaks HTTP/1.1, all of it.
    fn pick_exclusive(&self) -> Option<StreamLease> {
        if self.is_stopping() {
            return None;
        }
        let (link, loan, grant) = self.http1.try_lend(|| self.supervisor.notify_one())?;
        // The last idle one went out: the next request should find one too.
        if grant.notice != Notice::Nothing || !self.http1.has_idle() {
            self.supervisor.notify_one();
        }
        Some(StreamLease { link, grant, loan: Some(loan) })
    }

    /// A stream for somebody who waits and has announced it: one that is not found here is given back later, by
    /// somebody who sees the announcement.
    pub(super) fn pick_as_waiter(&self, preference: Preference) -> Option<StreamLease> {
        let set = self.set.load();
        // Each is looked at, whether an earlier one has room or not.
        let roomy = set.iter().filter(|link| link.permits_as_waiter().has_room(link.share())).count();
        if roomy == 0 { self.pick_exclusive() } else { self.pick(preference) }
    }

    /// Asks for one more connection when three quarters of this one's streams are taken, and passes on what the
    /// permit told.
    fn heed(&self, link: &Link, notice: Notice) {
        let view = link.permits();
        let nearly_full = view.in_flight() * 4 > view.capacity() * 3;
        // Looked at before it is written: under load it stands already.
        let grows = nearly_full
            && !self.growth_wanted.load(Ordering::Relaxed)
            && !self.growth_wanted.swap(true, Ordering::Relaxed);
        if notice == Notice::Exhausted {
            link.retire(CauseOfDeath::Exhausted, Instant::now());
        }
        if grows || notice != Notice::Nothing {
            self.supervisor.notify_one();
        }
    }

    /// Takes back a lease that nobody used.
    pub(crate) fn take_back(&self, lease: StreamLease) {
        lease.link.note_unused();
        self.counters.further_leases.fetch_add(1, Ordering::Relaxed);
    }
}

/// How gladly a connection is taken; load is compared only between equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Sound,
    /// Beyond its budget: a GOAWAY is likely, but that costs a replay only.
    Spent,
    /// Of a generation that is no longer in use.
    Superseded,
    /// It may have lost touch with the provider: a request on it may be lost in doubt.
    Doubted,
    /// The one that failed this request before.
    Failed,
}

impl Rank {
    fn of(link: &Link, preference: Preference) -> Self {
        match preference {
            Preference::Replay { avoid } if link.id() == avoid => Self::Failed,
            Preference::BornAfter(moment) if link.dialled().1 <= moment => Self::Failed,
            _ if link.vitals().trust() == Trust::Doubted => Self::Doubted,
            _ if link.is_superseded() => Self::Superseded,
            _ if link.is_spent() => Self::Spent,
            _ => Self::Sound,
        }
    }
}

/// The best connection with room, by this preference.
fn choose(set: &[Arc<Link>], preference: Preference) -> Option<&Arc<Link>> {
    let mut best: Option<(&Arc<Link>, (Rank, u64))> = None;
    let mut elder_seen = false;
    for link in set {
        let view = link.permits();
        if !view.is_open() {
            continue;
        }
        let rank = Rank::of(link, preference);
        let weight = if elder_seen { 2 } else { 1 };
        elder_seen |= rank == Rank::Sound;
        if !view.has_room(link.share()) {
            continue;
        }
        let score = match preference {
            Preference::Balanced => {
                let elsewhere = if link.birth.worker == workers::index() { 0 } else { FOREIGN_WORKER_COST };
                u64::from(view.in_flight()) * weight + elsewhere
            }
            Preference::Replay { .. } | Preference::BornAfter(_) => link.requests(),
        };
        if rank == Rank::Failed && matches!(preference, Preference::BornAfter(_)) {
            continue;
        }
        if best.is_none_or(|(_, lowest)| (rank, score) < lowest) {
            best = Some((link, (rank, score)));
        }
    }
    best.map(|(link, _)| link)
}

/// How often is looked whether a young connection has room.
const LOOK_FOR_YOUNG: Duration = Duration::from_millis(5);

/// How many streams more a connection of the caller's own worker may carry before another worker's is preferred:
/// a hop between workers costs two wake-ups, about what a handful of streams adds in waiting.
pub(super) const FOREIGN_WORKER_COST: u64 = 8;

/// The right to one stream on one proven connection. Dropping it gives the stream back.
#[must_use = "a lease that is dropped at once gives the stream back"]
pub(crate) struct StreamLease {
    link: Arc<Link>,
    grant: Grant,
    /// The connection itself, where it is lent exclusively.
    loan: Option<Loan>,
}

impl StreamLease {
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn is_reuse(&self) -> bool {
        self.grant.carried > 0
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
        // Held by the connection, so that a request that nobody waits behind touches nothing else.
        if let Some(hub) = self.link.hub_with_waiters() {
            hub.dispatch();
        }
    }
}
