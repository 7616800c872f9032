//! The hub without a network: random interleavings of everything that happens to leases, with the clock paused.
//!
//! Owns a model that holds what requests hold: places in the queue and leases. After every step what the hub counts
//! is compared with it.

use std::{
    future::Future,
    num::NonZeroU16,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use tokio::time::Instant;

use super::*;
use crate::{
    connection::{Role, State},
    queue::Caller,
    status::{CauseOfDeath, DialPhases},
    testing::{for_all, generation, link, serving},
};

fn hub(queue_capacity: u32) -> Arc<Hub> {
    Hub::new(generation(), &PoolConfig { queue_capacity, queue_reserved: 2, ..PoolConfig::default() })
}

/// A hub with these connections serving.
fn hub_with(links: &[&Arc<Link>]) -> Arc<Hub> {
    let hub = hub(1000);
    links.iter().for_each(|link| hub.register((*link).clone()));
    hub.publish(links.iter().map(|link| (*link).clone()).collect());
    hub
}

fn wanted(caller: u64, patience: Duration) -> Wanted {
    let until = Instant::now() + patience;
    Wanted { preference: Preference::Balanced, caller: Caller::new(caller), until, deadline: None }
}

const LONG: Duration = Duration::from_secs(60);

/// What a request does: a stream at once, or a place in the queue until its time is up.
async fn lease(hub: Arc<Hub>, wanted: Wanted) -> Result<StreamLease, SendErrorKind> {
    if let Some(lease) = hub.try_lease(wanted.preference) {
        return Ok(lease);
    }
    let mut place = hub.enqueue(wanted)?;
    match tokio::time::timeout_at(wanted.until, place.turn()).await {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(Turned::Failed(kind))) => Err(kind),
        Err(_) => Err(SendErrorKind::QueueTimeout { after: Duration::ZERO }),
    }
}

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
                let wanted =
                    Wanted { preference, caller, until: after(patience), deadline: deadline.map(after) };
                self.waiting.push(Box::pin(lease(self.hub.clone(), wanted)));
            }
            Op::Cancel(at) => {
                if let Some(at) = at.checked_rem(self.waiting.len()) {
                    drop(self.waiting.swap_remove(at));
                }
            }
            Op::GiveBack(at) => {
                if let Some(at) = at.checked_rem(self.held.len()) {
                    drop(self.held.swap_remove(at));
                }
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
            Op::Capacity(_, streams) => {
                if link.set_capacity(streams) {
                    self.hub.dispatch();
                }
            }
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

/// Real threads, so that leases are handed over while those who wait for them go away.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leases_balance_when_many_threads_ask_wait_and_give_up() {
    let links = [serving(1, 2), serving(1, 3)];
    let hub = hub_with(&[&links[0], &links[1]]);
    let worker = |seed: u64| {
        let hub = hub.clone();
        tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut got = 0u64;
            for _ in 0..500 {
                let asked = lease(hub.clone(), wanted(rng.u64(0..3), LONG));
                let yields = rng.u32(0..4);
                tokio::select! {
                    biased;
                    lease = asked => {
                        let lease = lease.expect("the queue is long");
                        got += 1;
                        tokio::task::yield_now().await;
                        drop(lease);
                    }
                    // Gives up after looking a few times.
                    () = async { for _ in 0..yields { tokio::task::yield_now().await; } }, if yields > 0 => {}
                }
            }
            got
        })
    };
    let seed = fastrand::u64(..);
    let workers: Vec<_> = (0..16).map(|n| worker(seed.wrapping_add(n))).collect();
    let mut got = 0;
    for worker in workers {
        got += worker.await.unwrap();
    }
    assert!(got > 0, "seed {seed}");
    assert_eq!((links[0].in_flight(), links[1].in_flight(), hub.waiting()), (0, 0, 0), "seed {seed}");
    assert_eq!(hub.totals().requests, got, "seed {seed}: each request is counted once");
}

#[test]
fn a_connection_beyond_its_budget_is_taken_only_when_no_other_has_room() {
    let (spent, other) = (serving(1, 10), serving(1, 1));
    let hub = hub_with(&[&spent, &other]);
    spent.allot(Role::Regular, Some((1, 1)));
    let first = hub.try_lease(Preference::Balanced).unwrap();
    assert_eq!(first.link().id(), spent.id(), "within its budget, the eldest");
    drop(first);
    let second = hub.try_lease(Preference::Balanced).unwrap();
    assert_eq!(second.link().id(), other.id(), "though it carries more");
    let third = hub.try_lease(Preference::Balanced).unwrap();
    assert_eq!(third.link().id(), spent.id(), "better than waiting");
}

#[test]
fn a_doubted_connection_comes_after_one_that_is_spent_and_before_one_that_failed() {
    let (doubted, spent, failed) = (serving(1, 1), serving(1, 1), serving(1, 1));
    let hub = hub_with(&[&failed, &doubted, &spent]);
    doubted.vitals().timed_out(doubted.vitals().heard(), 1);
    spent.allot(Role::Regular, Some((0, 0)));
    let replay = Preference::Replay { avoid: failed.id() };
    let leases: Vec<_> = std::iter::from_fn(|| hub.try_lease(replay)).collect();
    let order: Vec<_> = leases.iter().map(|lease| lease.link().id()).collect();
    assert_eq!(order, [spent.id(), doubted.id(), failed.id()]);
}

#[test]
fn a_connection_under_test_carries_one_stream_at_a_time() {
    let probe = serving(1, 10);
    let hub = hub_with(&[&probe]);
    probe.allot(Role::Probe, None);
    let lease = hub.try_lease(Preference::Balanced).unwrap();
    assert!(hub.try_lease(Preference::Balanced).is_none());
    drop(lease);
    assert!(hub.try_lease(Preference::Balanced).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_supervisor_is_told_once_when_the_wake_mark_is_reached() {
    let link = serving(1, 100);
    let hub = hub_with(&[&link]);
    link.allot(Role::Regular, Some((10, 3)));
    let told = async || tokio::time::timeout(Duration::from_secs(1), hub.supervisor.notified()).await.is_ok();
    let mut told_at = Vec::new();
    for nth in 1..=12 {
        drop(hub.try_lease(Preference::Balanced));
        if told().await {
            told_at.push(nth);
        }
    }
    assert_eq!(told_at, [3, 10], "the mark, and the end of the budget");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_time_is_up_gets_no_stream() {
    let link = serving(1, 1);
    let hub = hub_with(&[&link]);
    let held = hub.try_lease(Preference::Balanced).unwrap();
    let mut late = hub.enqueue(wanted(1, Duration::from_millis(10))).unwrap();
    let mut next = hub.enqueue(wanted(1, LONG)).unwrap();
    tokio::time::advance(Duration::from_millis(10)).await;
    drop(held);
    let after = Duration::from_millis(10);
    let turned = late.turn().await.unwrap_err();
    assert!(
        matches!(turned, Turned::Failed(SendErrorKind::QueueTimeout { after: a }) if a == after),
        "{turned:?}"
    );
    assert!(next.turn().await.is_ok());
}

/// Streams come free every 10 ms; 40 waiters stand before the one who has a deadline.
async fn jam(
    deadline: Duration,
) -> (Arc<Hub>, Vec<StreamLease>, Result<super::waiting::Place, SendErrorKind>) {
    let link = serving(1, 1);
    let hub = hub_with(&[&link]);
    let mut held = vec![hub.try_lease(Preference::Balanced).unwrap()];
    let mut places: Vec<_> = (0..60).map(|_| hub.enqueue(wanted(1, LONG)).unwrap()).collect();
    for place in places.iter_mut().take(20) {
        tokio::time::advance(Duration::from_millis(10)).await;
        held.clear();
        held.push(place.turn().await.unwrap());
    }
    let deadline = Some(Instant::now() + deadline);
    let hurried = hub.enqueue(Wanted { deadline, ..wanted(1, LONG) });
    (hub, held, hurried)
}

#[tokio::test(start_paused = true)]
async fn work_whose_deadline_cannot_be_met_is_refused_at_once() {
    let (.., hurried) = jam(Duration::from_millis(100)).await;
    let refused = hurried.unwrap_err();
    assert!(
        matches!(refused, SendErrorKind::DeadlineUnreachable { estimate, left }
            if estimate == Duration::from_millis(400) && left == Duration::from_millis(100)),
        "{refused:?}"
    );
    assert!(jam(Duration::from_millis(450)).await.2.is_ok(), "there is time enough");
}

#[tokio::test(start_paused = true)]
async fn no_deadline_is_refused_while_a_dial_is_under_way() {
    let (hub, _held, hurried) = jam(Duration::from_millis(450)).await;
    drop(hurried);
    hub.set_dialling(1);
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    assert!(hub.enqueue(Wanted { deadline, ..wanted(1, LONG) }).is_ok());
}

#[test]
fn a_callers_flood_is_refused_before_anothers_first_request() {
    let link = serving(1, 1);
    let hub = hub(4);
    hub.publish(vec![link]);
    let _held = hub.try_lease(Preference::Balanced).unwrap();
    let mut flood: Vec<_> = (0..4).map(|_| hub.enqueue(wanted(1, LONG)).unwrap()).collect();
    let full = hub.enqueue(wanted(1, LONG)).unwrap_err();
    assert!(matches!(full, SendErrorKind::QueueFull { depth: 4 }), "{full:?}");
    let _other = hub.enqueue(wanted(2, LONG)).unwrap();
    assert_eq!(hub.waiting(), 4);
    let mut turn = std::pin::pin!(flood[3].turn());
    let turned = turn.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(
        matches!(turned, Poll::Ready(Err(Turned::Failed(SendErrorKind::QueueFull { .. })))),
        "the newest of the flood gives way: {turned:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_turns_everybody_away() {
    let hub = hub(10);
    let mut place = hub.enqueue(wanted(1, LONG)).unwrap();
    hub.stop();
    assert!(matches!(place.turn().await, Err(Turned::Failed(SendErrorKind::Stopping))));
    assert!(matches!(hub.enqueue(wanted(1, LONG)), Err(SendErrorKind::Stopping)));
    assert_eq!(hub.waiting(), 0);
}

/// What a connection carried outlives it in the totals.
#[test]
fn the_dead_are_counted() {
    let link = serving(1, 1);
    let hub = hub_with(&[&link]);
    for _ in 0..5 {
        drop(hub.try_lease(Preference::Balanced).unwrap());
    }
    link.ended(CauseOfDeath::Goaway);
    hub.unregister(link.id());
    hub.unregister(link.id());
    assert_eq!(hub.totals().requests, 5);
}
