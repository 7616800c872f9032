//! Random interleavings of everything that happens to leases.
//!
//! Owns a model that holds what requests hold: places in the queue and leases. After every step what the hub counts
//! is compared with it.

use std::{num::NonZeroU16, pin::Pin};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    connection::State,
    status::DialPhases,
    testing::{for_all, link},
};

#[derive(Clone, Debug)]
enum Op {
    Ask {
        caller: u64,
        weight: u16,
        patience: u64,
        deadline: Option<u64>,
        replay: bool,
    },
    /// The caller goes away while it waits.
    Cancel(usize),
    GiveBack(usize),
    /// A stream is given back, and somebody goes away before he looks, who may have got it.
    Cross(usize, usize),
    /// A connection shook hands, was proved and is registered; it is picked from once published.
    Birth {
        capacity: u32,
        generation: u64,
    },
    Publish,
    /// SETTINGS.
    Capacity(usize, u32),
    Retire(usize),
    /// The transport is gone, and with it the connection.
    End(usize),
    Withdraw(u64),
    /// The supervisor sets a budget or puts it to the test.
    Allot(usize, Option<u64>, bool),
    /// A response time-out without a byte, and then a PING's answer, or a response.
    Suspect(usize, bool),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = any::<usize>;
    let ask = (0u64..4, 1u16..4, 1u64..200, proptest::option::of(1u64..100), any::<bool>());
    prop_oneof![
        12 => ask.prop_map(|(caller, weight, patience, deadline, replay)| {
            Op::Ask { caller, weight, patience, deadline, replay }
        }),
        4 => at().prop_map(Op::Cancel),
        8 => at().prop_map(Op::GiveBack),
        3 => (at(), at()).prop_map(|(lease, waiting)| Op::Cross(lease, waiting)),
        3 => (0u32..4, 1u64..3).prop_map(|(capacity, generation)| Op::Birth { capacity, generation }),
        4 => Just(Op::Publish),
        3 => (at(), 0u32..5).prop_map(|(link, streams)| Op::Capacity(link, streams)),
        2 => at().prop_map(Op::Retire),
        2 => at().prop_map(Op::End),
        1 => (1u64..3).prop_map(Op::Withdraw),
        2 => (at(), proptest::option::of(1u64..10), any::<bool>())
            .prop_map(|(link, budget, probe)| Op::Allot(link, budget, probe)),
        2 => (at(), any::<bool>()).prop_map(|(link, answered)| Op::Suspect(link, answered)),
        4 => (0u64..60).prop_map(Op::Pass),
    ]
}

/// Drops the one at this place, modulo how many there are.
fn take<T>(all: &mut Vec<T>, at: usize) {
    if let Some(at) = at.checked_rem(all.len()) {
        drop(all.swap_remove(at));
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<StreamLease, SendErrorKind>>>>;

/// Requests and connections as the test knows them.
struct World {
    hub: Arc<Hub>,
    links: Vec<Arc<Link>>,
    /// Connections that have ended, whose leases may still be held.
    dead: Vec<Arc<Link>>,
    waiting: Vec<Waiting>,
    held: Vec<StreamLease>,
    /// Leases that requests got.
    leased: u64,
    queue_capacity: u32,
}

impl World {
    fn new(queue_capacity: u32) -> Self {
        Self {
            hub: hub(queue_capacity),
            links: Vec::new(),
            dead: Vec::new(),
            waiting: Vec::new(),
            held: Vec::new(),
            leased: 0,
            queue_capacity,
        }
    }

    fn link(&self, at: usize) -> Option<Arc<Link>> {
        at.checked_rem(self.links.len()).map(|at| self.links[at].clone())
    }

    async fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        let now = Instant::now();
        match op {
            Op::Ask { caller, weight, patience, deadline, replay } => {
                let after = |ms| now + Duration::from_millis(ms);
                let preference = match self.links.first() {
                    Some(link) if replay => Preference::Replay { avoid: link.id() },
                    _ => Preference::Balanced,
                };
                let caller = Caller { id: caller, weight: NonZeroU16::new(weight).unwrap() };
                let wanted = Wanted {
                    preference,
                    caller,
                    until: after(patience),
                    patience: Patience::WhileServed,
                    deadline: deadline.map(after),
                };
                self.waiting.push(Box::pin(lease(self.hub.clone(), wanted)));
            }
            Op::Cancel(at) => take(&mut self.waiting, at),
            Op::GiveBack(at) => take(&mut self.held, at),
            Op::Cross(lease, waiting) => {
                take(&mut self.held, lease);
                take(&mut self.waiting, waiting);
            }
            Op::Birth { capacity, generation } => {
                let link = link(generation, capacity);
                link.proved(DialPhases::default());
                self.hub.register(link.clone());
                self.links.push(link);
            }
            Op::Publish => self.publish(),
            Op::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
            Op::Withdraw(least) => self.hub.withdraw_below(least),
            Op::Capacity(at, _) | Op::Retire(at) | Op::End(at) | Op::Allot(at, ..) | Op::Suspect(at, _) => {
                if let Some(link) = self.link(at) {
                    self.happen_to(&link, op);
                }
            }
        }
        Ok(())
    }

    /// As the driver and the supervisor do it.
    fn happen_to(&mut self, link: &Arc<Link>, op: Op) {
        match op {
            Op::Capacity(_, streams) if link.set_capacity(streams) => self.hub.dispatch(),
            Op::Retire(_) => link.retire(CauseOfDeath::Goaway, Instant::now()),
            Op::End(_) => {
                link.ended(CauseOfDeath::ClosedByProvider);
                self.hub.unregister(link.id());
                self.links.retain(|other| !Arc::ptr_eq(other, link));
                self.dead.push(link.clone());
            }
            Op::Allot(_, budget, probe) => {
                link.allot(if probe { Role::Probe } else { Role::Regular }, budget.map(|b| (b, b / 2)));
                self.hub.dispatch();
            }
            Op::Suspect(_, answered) => {
                let vitals = link.vitals();
                vitals.timed_out(vitals.heard(), 1);
                if answered {
                    vitals.pong();
                } else {
                    vitals.responded();
                }
                self.hub.dispatch();
            }
            _ => {}
        }
    }

    fn publish(&self) {
        let serving = self.links.iter().filter(|link| link.state() == State::Serving).cloned().collect();
        self.hub.publish(serving);
    }

    /// Lets every waiter look, as their tasks would at once, until there is nothing new to see.
    fn poll_all(&mut self) -> Result<(), TestCaseError> {
        let mut cx = Context::from_waker(Waker::noop());
        // One who joins displaces another who has looked already: twice nothing new is nothing new.
        let mut quiet = 0;
        while quiet < 2 {
            let mut done = Vec::new();
            self.waiting.retain_mut(|waiting| match waiting.as_mut().poll(&mut cx) {
                Poll::Pending => true,
                Poll::Ready(outcome) => {
                    done.push(outcome);
                    false
                }
            });
            quiet = if done.is_empty() { quiet + 1 } else { 0 };
            done.into_iter().try_for_each(|outcome| self.note(outcome))?;
        }
        Ok(())
    }

    fn note(&mut self, outcome: Result<StreamLease, SendErrorKind>) -> Result<(), TestCaseError> {
        match outcome {
            Ok(lease) => {
                prop_assert_eq!(lease.link().state(), State::Serving, "leased in this step");
                self.leased += 1;
                self.held.push(lease);
            }
            Err(SendErrorKind::QueueFull { depth }) => prop_assert!(depth >= self.queue_capacity),
            Err(SendErrorKind::QueueTimeout { .. }) => {}
            Err(SendErrorKind::DeadlineUnreachable { estimate, left }) => {
                prop_assert!(estimate > left && !self.has_room());
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.hub.set().iter().any(|link| link.permits().has_room(link.share()))
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let waiting = self.hub.waiting() as usize;
        prop_assert_eq!(waiting, self.waiting.len(), "who waits is counted");
        prop_assert!(waiting <= self.queue_capacity as usize);
        prop_assert!(waiting == 0 || !self.has_room(), "somebody waits while a stream is free");
        for link in self.links.iter().chain(&self.dead) {
            let held = self.held.iter().filter(|lease| Arc::ptr_eq(lease.link(), link)).count();
            prop_assert_eq!(link.in_flight() as usize, held, "streams in flight are leases held");
        }
        prop_assert_eq!(self.hub.totals().requests, self.leased, "each lease is counted once");
        Ok(())
    }

    /// Everybody goes; nothing is left.
    fn empty(mut self) -> Result<(), TestCaseError> {
        self.held.clear();
        self.poll_all()?;
        self.waiting.clear();
        self.held.clear();
        self.check()?;
        prop_assert_eq!(self.hub.waiting(), 0);
        let in_flight: u32 = self.links.iter().chain(&self.dead).map(|link| link.in_flight()).sum();
        prop_assert_eq!(in_flight, 0);
        Ok(())
    }
}

#[test]
fn counts_hold_and_nobody_waits_beside_a_free_stream_in_any_order_of_events() {
    for_all(400, (0u32..8, vec(op(), 1..120)), |(queue_capacity, ops)| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(queue_capacity);
            for capacity in [2, 1] {
                world.apply(Op::Birth { capacity, generation: 1 }).await?;
            }
            world.publish();
            for op in ops {
                world.apply(op).await?;
                world.poll_all()?;
                world.check()?;
            }
            world.empty()
        })
    });
}
