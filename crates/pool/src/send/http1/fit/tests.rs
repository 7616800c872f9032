//! What becomes of a lease whose connection is not ready.

use std::sync::{Arc, atomic::Ordering};

use super::*;
use crate::{
    PoolConfig, Unobserved,
    http1::testing::{Member, member_on, unready_on},
    testing::generation,
};

const LIMIT: Duration = Duration::from_secs(60);

fn hub() -> Arc<Hub> {
    Hub::new(generation(), &PoolConfig::default(), 1)
}

fn lease(hub: &Hub, of: &Member) -> StreamLease {
    let lease = hub.try_lease(Preference::Balanced).expect("one is idle");
    assert_eq!(lease.link().id(), of.link.id(), "the last put in is the first lent");
    lease
}

async fn fitted(hub: &Hub, lease: StreamLease) -> (Result<Option<StreamLease>, Duration>, Duration) {
    let mut waited = Duration::ZERO;
    let fit = fit((hub, &Unobserved), lease, Preference::Balanced, LIMIT, &mut waited).await;
    (fit, waited)
}

fn stale(hub: &Hub) -> u64 {
    hub.counters.stale_unsent.load(Ordering::Relaxed)
}

#[tokio::test]
async fn another_is_taken_at_once_and_the_one_that_is_not_ready_kept() {
    for unread in [false, true] {
        let hub = hub();
        let ready = member_on(hub.http1(), 0).await;
        let unready = if unread {
            let member = member_on(hub.http1(), 0).await;
            member.says_unread();
            member
        } else {
            unready_on(hub.http1(), 0).await
        };
        let (fit, waited) = fitted(&hub, lease(&hub, &unready)).await;
        assert_eq!(fit.unwrap().unwrap().link().id(), ready.link.id());
        assert_eq!((waited, stale(&hub)), (Duration::ZERO, 0));
        assert!(unready.link.permits().is_open(), "nothing is wrong with it");
        assert_eq!(unready.link.requests(), 0, "it carried nothing");
    }
}

#[tokio::test]
async fn where_no_other_is_free_the_one_that_is_not_ready_is_waited_for() {
    let hub = hub();
    let mut late = unready_on(hub.http1(), 0).await;
    let held = lease(&hub, &late);
    let id = late.link.id();
    tokio::spawn(async move {
        late.drive();
        std::future::pending::<()>().await;
        drop(late);
    });
    let (fit, waited) = fitted(&hub, held).await;
    assert_eq!(fit.unwrap().unwrap().link().id(), id);
    assert!(waited > Duration::ZERO, "the wait is told");

    let hub = self::hub();
    let ticket = member_on(hub.http1(), 0).await;
    ticket.says_unread();
    let (held, id) = (lease(&hub, &ticket), ticket.link.id());
    tokio::spawn(async move {
        tokio::time::sleep(LOOK_AGAIN).await;
        ticket.says_quiet();
        std::future::pending::<()>().await;
        drop(ticket);
    });
    assert_eq!(fitted(&hub, held).await.0.unwrap().unwrap().link().id(), id);
    assert_eq!(stale(&hub), 0);
}

#[tokio::test]
async fn one_that_is_given_back_meanwhile_is_taken() {
    let hub = hub();
    let ready = member_on(hub.http1(), 0).await;
    let busy = lease(&hub, &ready);
    let unready = unready_on(hub.http1(), 0).await;
    let held = lease(&hub, &unready);
    tokio::spawn(async move { drop(busy) });
    assert_eq!(fitted(&hub, held).await.0.unwrap().unwrap().link().id(), ready.link.id());
}

#[tokio::test]
async fn only_what_is_closed_is_counted_as_stale_and_let_go() {
    let hub = hub();
    let closed = member_on(hub.http1(), 0).await;
    let held = lease(&hub, &closed);
    closed.says_ended();
    assert!(fitted(&hub, held).await.0.unwrap().is_none(), "the queue is the place to wait for another");
    assert_eq!(stale(&hub), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_never_becomes_ready_is_given_up_and_makes_nobody_wait_longer_than_the_queue() {
    let hub = hub();
    let stuck = member_on(hub.http1(), 0).await;
    stuck.says_unread();
    let (fit, waited) = fitted(&hub, lease(&hub, &stuck)).await;
    assert!(fit.unwrap_err() >= LIMIT && waited >= LIMIT);
    assert!(stuck.link.permits().is_open() && stuck.link.in_flight() == 0, "it is given back");

    let lingering = unready_on(hub.http1(), 0).await;
    stuck.says_ended();
    let (fit, waited) = fitted(&hub, lease(&hub, &lingering)).await;
    assert!(fit.unwrap().is_none() && waited < LIMIT / 10, "after {waited:?}");
    assert_eq!(lingering.link.cause(), Some(CauseOfDeath::Abandoned));
}
