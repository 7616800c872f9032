//! The queue for a stream: who waits, who is served, who is turned away.
//!
//! Owns the handshake between those who wait and those who give streams back. The order is `queue`'s. The lock is
//! taken only when somebody waits.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use super::{Hub, Preference, StreamLease};
use crate::{
    error::SendErrorKind,
    queue::{Caller, FairQueue, Joined, Limits, ServiceRate, Ticket},
};

/// Why a waiter was woken without a lease.
#[derive(Clone, Debug)]
pub(crate) enum Turned {
    /// Nothing serves.
    Failed(SendErrorKind),
}

/// Whether somebody goes on waiting when nothing serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// No: he is told why at once, and may go elsewhere.
    WhileServed,
    /// Yes, as long as his time allows: the provider took his request and handed it back, and a connection may come.
    ThroughOutage,
}

/// What somebody waits for, on whose behalf, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Which connection he would rather have.
    pub(crate) preference: Preference,
    /// On whose behalf.
    pub(crate) caller: Caller,
    /// When he gives up waiting.
    pub(crate) until: Instant,
    /// What an outage means to him.
    pub(crate) patience: Patience,
    /// When the whole exchange must have ended.
    pub(crate) deadline: Option<Instant>,
}

/// The queue, and how fast it moves.
#[derive(Debug)]
pub(super) struct Desk {
    queue: FairQueue<Waiter>,
    rate: ServiceRate,
}

impl Desk {
    pub(super) fn new(limits: Limits) -> Self {
        Self { queue: FairQueue::new(limits), rate: ServiceRate::default() }
    }
}

#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<Result<StreamLease, Turned>>,
    preference: Preference,
    since: Instant,
    until: Instant,
    patience: Patience,
}

impl Waiter {
    fn turn_away(self, why: Turned) {
        // An error means that he has left: nobody is to be told.
        let _ = self.reply.send(Err(why));
    }
}

impl Hub {
    /// Requests waiting now.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiters.count()
    }

    /// Joins the queue.
    ///
    /// # Errors
    /// [`SendErrorKind::QueueFull`], [`SendErrorKind::DeadlineUnreachable`], [`SendErrorKind::Stopping`], or the
    /// cause why nothing serves.
    ///
    /// Waiting is [`Place::turn`].
    pub(crate) fn enqueue(self: &Arc<Self>, wanted: Wanted) -> Result<Place, SendErrorKind> {
        let (reply, receiver) = oneshot::channel();
        let mut place = Place { receiver, hub: self.clone(), ticket: None };
        let mut desk = self.desk.lock();
        if self.is_stopping() {
            return Err(SendErrorKind::Stopping);
        }
        // Looked at under the lock that `turn_away` takes: whoever joins after it would wait for nothing.
        if wanted.patience == Patience::WhileServed
            && let Some(turned) = self.turned_before()
        {
            let _ = reply.send(Err(turned));
            return Ok(place);
        }
        let now = Instant::now();
        self.check_deadline(&desk, wanted, now)?;
        let Wanted { preference, until, patience, .. } = wanted;
        let waiter = Waiter { reply, preference, since: now, until, patience };
        let depth = desk.queue.len();
        let Ok(Joined { ticket, displaced }) = desk.queue.join(wanted.caller, waiter) else {
            return Err(SendErrorKind::QueueFull { depth });
        };
        place.ticket = Some(ticket);
        // Announced before looking again: a stream given back from now on sees it and is handed over.
        self.waiters.announce(desk.queue.len());
        drop(desk);
        if let Some(displaced) = displaced {
            displaced.turn_away(Turned::Failed(SendErrorKind::QueueFull { depth }));
        }
        self.dispatch();
        if self.waiting() > 0 {
            self.supervisor.notify_one();
        }
        Ok(place)
    }

    /// Refuses work whose deadline passes before its turn comes. Only where that is known: enough turns were
    /// measured, no stream is free and no dial is under way.
    fn check_deadline(&self, desk: &Desk, wanted: Wanted, now: Instant) -> Result<(), SendErrorKind> {
        let Some(deadline) = wanted.deadline else { return Ok(()) };
        if desk.queue.len() == 0 || self.dialling() > 0 {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(now);
        match desk.rate.wait_behind(desk.queue.ahead_of(wanted.caller)) {
            Some(estimate) if estimate > left && !self.has_room() => {
                Err(SendErrorKind::DeadlineUnreachable { estimate, left })
            }
            _ => Ok(()),
        }
    }

    fn has_room(&self) -> bool {
        self.set().iter().any(|link| link.permits().has_room(link.share()))
    }

    /// Hands free streams to waiters, if there are any.
    pub(crate) fn dispatch(&self) {
        if self.waiting() > 0 {
            self.serve_waiters();
        }
    }

    /// Hands free streams to waiters in the order of the queue.
    pub(super) fn serve_waiters(&self) {
        let mut expired = Vec::new();
        // A lease that nobody took is dropped after the lock is released: its drop dispatches again.
        let mut unclaimed = None;
        let now = Instant::now();
        {
            let mut desk = self.desk.lock();
            while let Some((ticket, waiter)) = desk.queue.first() {
                if waiter.reply.is_closed() {
                    desk.queue.leave(ticket);
                    continue;
                }
                if waiter.until <= now {
                    expired.extend(desk.queue.leave(ticket));
                    continue;
                }
                let preference = waiter.preference;
                let lease = unclaimed
                    .take()
                    .or_else(|| self.pick(preference))
                    .or_else(|| self.pick_as_waiter(preference));
                let Some(lease) = lease else { break };
                let Some(waiter) = desk.queue.serve() else {
                    unclaimed = Some(lease);
                    break;
                };
                desk.rate.served(now);
                if let Err(Ok(lease)) = waiter.reply.send(Ok(lease)) {
                    unclaimed = Some(lease);
                }
            }
            self.note_length(&mut desk);
        }
        for waiter in expired {
            let after = now.saturating_duration_since(waiter.since);
            waiter.turn_away(Turned::Failed(SendErrorKind::QueueTimeout { after }));
        }
        if let Some(lease) = unclaimed {
            self.take_back(lease);
        }
    }

    /// Nothing serves: wakes with this everybody who does not wait through an outage.
    pub(super) fn turn_away(&self, why: &Turned) {
        self.turn_away_if(why, |waiter| waiter.patience == Patience::WhileServed);
    }

    /// The pool stops: wakes everybody who waits with this.
    pub(super) fn turn_everybody_away(&self, why: &Turned) {
        self.turn_away_if(why, |_| true);
    }

    fn turn_away_if(&self, why: &Turned, goes: impl Fn(&Waiter) -> bool) {
        let waiters = {
            let mut desk = self.desk.lock();
            let waiters = desk.queue.leave_if(goes);
            self.note_length(&mut desk);
            waiters
        };
        waiters.into_iter().for_each(|waiter| waiter.turn_away(why.clone()));
    }

    /// Somebody gave up waiting.
    fn leave(&self, ticket: Ticket) {
        let mut desk = self.desk.lock();
        desk.queue.leave(ticket);
        self.note_length(&mut desk);
    }

    fn note_length(&self, desk: &mut Desk) {
        let waiting = desk.queue.len();
        if waiting == 0 {
            desk.rate.rested();
        }
        self.waiters.announce(waiting);
    }
}

/// A place in the queue. Dropping it leaves the queue; a lease that was already handed over goes back.
#[derive(Debug)]
pub(crate) struct Place {
    receiver: oneshot::Receiver<Result<StreamLease, Turned>>,
    hub: Arc<Hub>,
    /// None once it has had its turn: the queue knows it no more.
    ticket: Option<Ticket>,
}

impl Place {
    /// Waits for a stream, or for the reason why there is none.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(crate) async fn turn(&mut self) -> Result<StreamLease, Turned> {
        // The sender is dropped unsent only with the hub.
        let turn = (&mut self.receiver).await;
        self.ticket = None;
        turn.unwrap_or(Err(Turned::Failed(SendErrorKind::Stopping)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        self.receiver.close();
        // Handed over between the last look and now: the stream goes to the next.
        if let Ok(Ok(lease)) = self.receiver.try_recv() {
            self.hub.take_back(lease);
        }
        if self.hub.waiting() > 0 {
            self.hub.leave(ticket);
            self.hub.dispatch();
        }
    }
}
