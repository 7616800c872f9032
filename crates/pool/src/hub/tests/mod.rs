//! The hub without a network and with the clock paused: what picks, waiting and turning away are to do.
//!
//! Owns what these tests share; random orders of events are `interleavings`.

mod affinity;
mod interleavings;

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::{waiting::Place, *};
use crate::{
    connection::Role,
    queue::Caller,
    status::CauseOfDeath,
    supervisor::Passage,
    testing::{generation, serving},
};

fn hub(queue_capacity: u32) -> Arc<Hub> {
    Hub::new(generation(), &PoolConfig { queue_capacity, queue_reserved: 2, ..PoolConfig::default() }, 1)
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
    Wanted {
        preference: Preference::Balanced,
        caller: Caller::new(caller),
        until,
        patience: Patience::WhileServed,
        deadline: None,
    }
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
fn a_stream_starts_on_an_old_generation_only_while_the_new_one_has_none_free() {
    let (old, doubted, new) = (serving(1, 9), serving(2, 1), serving(2, 1));
    let hub = hub_with(&[&old, &doubted, &new]);
    let unswitched = hub.try_lease(Preference::Balanced).unwrap();
    assert_eq!(unswitched.link().id(), old.id(), "the eldest");
    drop(unswitched);
    [&old, &doubted, &new].iter().for_each(|link| link.note_active(2));
    doubted.vitals().timed_out(doubted.vitals().heard(), 1);
    new.allot(Role::Regular, Some((0, 0)));
    let taken = [(); 2].map(|()| hub.try_lease(Preference::Balanced).unwrap());
    let order = taken.each_ref().map(|lease| lease.link().id());
    assert_eq!(
        order,
        [new.id(), old.id()],
        "its last stream first; then what serves rather than what is doubted"
    );
}

#[test]
fn a_connection_that_was_dialled_before_the_switch_and_serves_after_it_is_old() {
    let late = serving(0, 9);
    let hub = hub(0);
    hub.switch(generation());
    hub.register(late.clone());
    assert!(late.is_superseded(), "serial {}", hub.generation.load().serial());
}

#[test]
fn a_trial_keeps_others_out_until_it_is_over() {
    let hub = hub(0);
    assert!(hub.admit().is_ok_and(|trial| trial.is_none()));
    let why = Arc::new(crate::error::DialError::Unanswering { times: 3 });
    let breaker = crate::status::BreakerStatus { why: Some(why), ..Default::default() };
    hub.known.store(Arc::new(Known { breaker, ..Known::default() }));
    hub.set_passage(Passage::None);
    assert!(hub.admit().is_err());
    hub.set_passage(Passage::Trial);
    let trial = hub.admit().unwrap();
    assert!(trial.is_some() && hub.admit().is_err());
    drop(trial);
    assert!(hub.admit().is_ok_and(|trial| trial.is_some()));
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

/// Sixty wait, a stream comes free every 10 ms, and twenty were served.
async fn jam() -> (Arc<Hub>, Vec<StreamLease>, Vec<Place>) {
    let link = serving(1, 1);
    let hub = hub_with(&[&link]);
    let mut held = vec![hub.try_lease(Preference::Balanced).unwrap()];
    let mut places: Vec<_> = (0..60).map(|_| hub.enqueue(wanted(1, LONG)).unwrap()).collect();
    for mut place in places.drain(..20) {
        tokio::time::advance(Duration::from_millis(10)).await;
        held.clear();
        held.push(place.turn().await.unwrap());
    }
    assert_eq!(hub.waiting(), 40);
    (hub, held, places)
}

fn hurried(left: u64) -> Wanted {
    let deadline = Some(Instant::now() + Duration::from_millis(left));
    Wanted { deadline, ..wanted(1, LONG) }
}

#[tokio::test(start_paused = true)]
async fn work_whose_deadline_cannot_be_met_is_refused_at_once() {
    let (hub, _held, _places) = jam().await;
    let refused = hub.enqueue(hurried(100)).unwrap_err();
    assert!(
        matches!(refused, SendErrorKind::DeadlineUnreachable { estimate, left }
            if estimate == Duration::from_millis(400) && left == Duration::from_millis(100)),
        "{refused:?}"
    );
    assert!(hub.enqueue(hurried(400)).is_ok(), "there is time enough");
}

#[tokio::test(start_paused = true)]
async fn no_deadline_is_refused_while_a_dial_is_under_way() {
    let (hub, _held, _places) = jam().await;
    hub.set_dialling(1);
    assert!(hub.enqueue(hurried(5)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn no_deadline_is_refused_while_a_stream_is_free() {
    let (hub, _held, _places) = jam().await;
    // SETTINGS grew the connection and nobody has been served by it yet.
    hub.set()[0].set_capacity(2);
    assert!(hub.enqueue(hurried(5)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn no_deadline_is_refused_before_enough_turns_were_measured() {
    let link = serving(1, 1);
    let hub = hub_with(&[&link]);
    let _held = hub.try_lease(Preference::Balanced).unwrap();
    let _places: Vec<_> = (0..60).map(|_| hub.enqueue(wanted(1, LONG)).unwrap()).collect();
    assert!(hub.enqueue(hurried(5)).is_ok());
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

#[tokio::test(start_paused = true)]
async fn who_is_owed_an_attempt_waits_through_an_outage_and_the_others_are_told_at_once() {
    let hub = hub(10);
    let refused = || Arc::new(crate::error::DialError::EndedBeforeProof { detail: "test".into() });
    let owed = Wanted { patience: Patience::ThroughOutage, ..wanted(1, LONG) };
    let (mut patient, mut other) = (hub.enqueue(owed).unwrap(), hub.enqueue(wanted(1, LONG)).unwrap());
    hub.dial_failed(refused(), Instant::now());
    assert!(matches!(other.turn().await, Err(Turned::Failed(SendErrorKind::Unavailable(_)))));
    assert_eq!(hub.waiting(), 1);
    let mut late = hub.enqueue(wanted(2, LONG)).unwrap();
    assert!(matches!(late.turn().await, Err(Turned::Failed(SendErrorKind::Unavailable(_)))));
    let _also_patient = hub.enqueue(Wanted { caller: Caller::new(2), ..owed }).unwrap();
    assert_eq!(hub.waiting(), 2);

    let link = serving(1, 1);
    hub.register(link.clone());
    hub.publish(vec![link]);
    assert!(patient.turn().await.is_ok(), "the connection that came in the end is his");
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_takes_a_young_connection_as_soon_as_it_has_room() {
    let link = serving(1, 1);
    let hub = hub_with(&[&link]);
    let before = link.dialled().1 - Duration::from_secs(1);
    let held = hub.try_lease(Preference::Balanced).unwrap();
    let (waiting, began) = (hub.clone(), Instant::now());
    let young = tokio::spawn(async move { waiting.lease_born_after(before, began + LONG).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Nobody publishes a set and nobody is told: a stream is given back, that is all.
    drop(held);
    let lease = young.await.unwrap().expect("a lease");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    drop(lease);
    // No connection came after this moment: given up when the time is over, however many others are free.
    let until = Instant::now() + Duration::from_secs(1);
    assert!(hub.lease_born_after(Instant::now(), until).await.is_none());
    assert_eq!(Instant::now(), until);
}

#[test]
fn a_lease_that_reaches_nobody_goes_to_the_next_and_is_not_counted() {
    let link = serving(1, 1);
    let hub = hub_with(&[&link]);
    let held = hub.try_lease(Preference::Balanced).unwrap();
    let (gone, mut next) = (hub.enqueue(wanted(1, LONG)).unwrap(), hub.enqueue(wanted(1, LONG)).unwrap());
    drop(held);
    drop(gone);
    let mut turn = std::pin::pin!(next.turn());
    let turned = turn.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(turned, Poll::Ready(Ok(_))), "{turned:?}");
    assert_eq!((hub.totals().requests, link.requests()), (2, 2));
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
