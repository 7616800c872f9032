//! A bounded queue that shares turns between callers by weight: self-clocked fair queuing (Golestani 1994).
//!
//! Owns the order and the bounds. Each caller with somebody waiting is a flow with the tag of its next turn; the
//! least tag is next, and a turn moves the tag on by the inverse of the weight. A flow that joins starts one turn
//! after the clock, which is the tag of the turn last taken, and so never before a turn that it has had: nothing has
//! to be remembered of a caller that has nobody waiting. Every operation costs the logarithm of what waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Caller;

/// The distance between two turns of a caller of weight 1. Divided by the greatest weight it is still 256, so that
/// rounding moves no share by more than 0.4 %.
const STRIDE: u64 = 1 << 24;

/// Flows looked at for [`FairQueue::ahead_of`]: that bounds its cost, and leaving some out can only make the answer
/// smaller, so that nobody is refused wrongly.
const FLOWS_COUNTED: usize = 64;

/// How many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Most waiters in all.
    pub(crate) capacity: u32,
    /// Waiters that a caller may have even when the queue is full of others'.
    pub(crate) reserved: u32,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    caller: u64,
    number: u64,
}

/// Somebody joined.
#[derive(Debug)]
pub(crate) struct Joined<T> {
    /// His place.
    pub(crate) ticket: Ticket,
    /// Who had to give way for him.
    pub(crate) displaced: Option<T>,
}

/// One caller's waiters, by the order in which they came.
#[derive(Debug)]
struct Flow<T> {
    stride: u64,
    tag: u64,
    /// Who is first of equals: the one whose turn was fixed first.
    order: u64,
    waiters: BTreeMap<u64, T>,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    limits: Limits,
    flows: HashMap<u64, Flow<T>>,
    /// Tag, order and caller of each flow's next turn.
    turns: BTreeSet<(u64, u64, u64)>,
    /// Length and caller of each flow.
    lengths: BTreeSet<(usize, u64)>,
    waiting: u32,
    clock: u64,
    numbers: u64,
}

impl<T> FairQueue<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            flows: HashMap::new(),
            turns: BTreeSet::new(),
            lengths: BTreeSet::new(),
            waiting: 0,
            clock: 0,
            numbers: 0,
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> u32 {
        self.waiting
    }

    /// Joins behind the caller's other waiters. When the queue is full, a caller that has fewer waiters than its
    /// reserved places takes the place of the newest waiter of the caller that has most, if that leaves the other at
    /// least as many.
    ///
    /// # Errors
    /// Gives `waiter` back when there is no place for it.
    pub(crate) fn join(&mut self, caller: Caller, waiter: T) -> Result<Joined<T>, T> {
        let displaced = if self.waiting < self.limits.capacity {
            None
        } else {
            match self.displace_for(caller.id) {
                Some(displaced) => Some(displaced),
                None => return Err(waiter),
            }
        };
        let number = self.next_number();
        let stride = stride(caller);
        let tag = self.clock + stride;
        let mut flow = self.take_flow(caller.id).unwrap_or_else(|| Flow {
            stride,
            tag,
            order: number,
            waiters: BTreeMap::new(),
        });
        flow.stride = stride;
        flow.waiters.insert(number, waiter);
        self.waiting += 1;
        self.put_flow(caller.id, flow);
        Ok(Joined { ticket: Ticket { caller: caller.id, number }, displaced })
    }

    /// Who is next.
    pub(crate) fn first(&self) -> Option<(Ticket, &T)> {
        let (_, _, caller) = *self.turns.first()?;
        let (number, waiter) = self.flows.get(&caller)?.waiters.first_key_value()?;
        Some((Ticket { caller, number: *number }, waiter))
    }

    /// Takes out who is next: it is his caller's turn, and it is used up.
    pub(crate) fn serve(&mut self) -> Option<T> {
        let (tag, _, caller) = *self.turns.first()?;
        let mut flow = self.take_flow(caller)?;
        let (_, waiter) = flow.waiters.pop_first()?;
        self.waiting -= 1;
        self.clock = tag;
        flow.tag = tag + flow.stride;
        flow.order = self.next_number();
        self.put_flow(caller, flow);
        Some(waiter)
    }

    /// Takes out whoever has this place, if he still has it; no turn is used up.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        if !self.flows.get(&ticket.caller)?.waiters.contains_key(&ticket.number) {
            return None;
        }
        let mut flow = self.take_flow(ticket.caller)?;
        let waiter = flow.waiters.remove(&ticket.number);
        self.waiting -= u32::from(waiter.is_some());
        self.put_flow(ticket.caller, flow);
        waiter
    }

    /// Takes out everybody.
    pub(crate) fn clear(&mut self) -> Vec<T> {
        self.turns.clear();
        self.lengths.clear();
        self.waiting = 0;
        self.clock = 0;
        self.flows.drain().flat_map(|(_, flow)| flow.waiters.into_values()).collect()
    }

    /// Takes out those of whom `goes` is true; no turn is used up.
    pub(crate) fn leave_if(&mut self, goes: impl Fn(&T) -> bool) -> Vec<T> {
        let ticket = |caller: u64, number: u64| Ticket { caller, number };
        let tickets: Vec<Ticket> = self
            .flows
            .iter()
            .flat_map(|(caller, flow)| flow.waiters.iter().map(|(number, waiter)| (*caller, *number, waiter)))
            .filter(|(.., waiter)| goes(waiter))
            .map(|(caller, number, _)| ticket(caller, number))
            .collect();
        if tickets.len() == self.waiting as usize {
            return self.clear();
        }
        tickets.into_iter().filter_map(|ticket| self.leave(ticket)).collect()
    }

    /// How many turns are taken, at least, before one who joined now would have his. Turns at the same moment as his
    /// own are not counted: they may come after it.
    pub(crate) fn ahead_of(&self, caller: Caller) -> u64 {
        let own = self.flows.get(&caller.id);
        let before = own.map_or(0, |flow| flow.waiters.len() as u64);
        let first = own.map_or(self.clock + stride(caller), |flow| flow.tag);
        let last = first + before * stride(caller);
        let earlier = self.turns.iter().take(FLOWS_COUNTED).take_while(|(tag, ..)| *tag < last);
        earlier.filter(|(_, _, id)| *id != caller.id).fold(before, |ahead, (tag, _, id)| {
            let turns = self.flows.get(id).map_or(0, |flow| {
                let turns = (last - tag).div_ceil(flow.stride);
                turns.min(flow.waiters.len() as u64)
            });
            ahead + turns
        })
    }

    /// The newest waiter of the longest flow, taken out for the sake of this caller.
    fn displace_for(&mut self, caller: u64) -> Option<T> {
        let own = self.flows.get(&caller).map_or(0, |flow| flow.waiters.len());
        let (longest, victim) = *self.lengths.last()?;
        if own >= self.limits.reserved as usize || longest <= own + 1 {
            return None;
        }
        let mut flow = self.take_flow(victim)?;
        let displaced = flow.waiters.pop_last().map(|(_, waiter)| waiter);
        self.waiting -= u32::from(displaced.is_some());
        self.put_flow(victim, flow);
        displaced
    }

    /// Takes a flow out of every index, so that it can be changed.
    fn take_flow(&mut self, caller: u64) -> Option<Flow<T>> {
        let flow = self.flows.remove(&caller)?;
        self.turns.remove(&(flow.tag, flow.order, caller));
        self.lengths.remove(&(flow.waiters.len(), caller));
        Some(flow)
    }

    /// Puts it back, unless nobody waits in it any more.
    fn put_flow(&mut self, caller: u64, flow: Flow<T>) {
        if flow.waiters.is_empty() {
            if self.waiting == 0 {
                // Nobody has a tag that could be compared with it.
                self.clock = 0;
            }
            return;
        }
        self.turns.insert((flow.tag, flow.order, caller));
        self.lengths.insert((flow.waiters.len(), caller));
        self.flows.insert(caller, flow);
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

fn stride(caller: Caller) -> u64 {
    STRIDE / u64::from(caller.weight.get())
}
