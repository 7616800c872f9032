//! What bb8 lends, and what it does not.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    testing::{Member, member_on, unready_on},
    *,
};
use crate::{connection::Role, status::CauseOfDeath, testing::link};

async fn member(pool: &Http1Pool) -> Member {
    member_on(pool, 0).await
}

fn lend(pool: &Http1Pool) -> Option<(Arc<Link>, Loan)> {
    pool.try_lend(|| ()).map(|(link, loan, _)| (link, loan))
}

fn idle(pool: &Http1Pool) -> u32 {
    pool.all_shelves().map(idle_in).sum()
}

/// As a lease gives it back.
fn give_back((link, loan): (Arc<Link>, Loan)) {
    link.release();
    drop(loan);
}

#[tokio::test]
async fn a_connection_is_lent_to_one_at_a_time_and_the_last_used_first() {
    let pool = Http1Pool::new(1);
    let (one, other) = (member(&pool).await, member(&pool).await);
    let (first, second) = (lend(&pool).unwrap(), lend(&pool).unwrap());
    assert_ne!(first.0.id(), second.0.id());
    assert!(lend(&pool).is_none(), "both are out");
    assert_eq!((one.link.in_flight(), other.link.in_flight()), (1, 1));
    give_back(second);
    let last = first.0.id();
    give_back(first);
    for _ in 0..3 {
        let again = lend(&pool).unwrap();
        assert_eq!(again.0.id(), last);
        give_back(again);
    }
}

#[tokio::test]
async fn what_was_retired_or_ended_or_is_of_another_generation_is_not_lent() {
    let pool = Http1Pool::new(1);
    let retired = member(&pool).await;
    retired.link.retire(CauseOfDeath::Age, Instant::now());
    assert!(lend(&pool).is_none());

    let ended = member(&pool).await;
    ended.says_ended();
    assert!(lend(&pool).is_none(), "its task has not noticed, the socket has");

    let closing = member(&pool).await;
    closing.close();
    assert!(lend(&pool).is_none());

    let distrusted = member(&pool).await;
    distrusted.link.retire_at_once(CauseOfDeath::Replaced, Instant::now());
    assert!(lend(&pool).is_none(), "what it believed was withdrawn");

    let proving = link(1, 1);
    assert!(proving.try_acquire().is_none(), "not before it is proven");
    assert_eq!(idle(&pool), 0, "none of them is kept");
}

#[tokio::test]
async fn a_connection_that_was_retired_while_it_was_out_does_not_come_back() {
    let pool = Http1Pool::new(1);
    let member = member(&pool).await;
    let loan = lend(&pool).unwrap();
    member.link.retire(CauseOfDeath::Age, Instant::now());
    give_back(loan);
    assert_eq!(idle(&pool), 0);
}

#[tokio::test]
async fn what_ended_below_those_that_serve_is_swept_out_and_their_order_kept() {
    let pool = Http1Pool::new(1);
    let mut members = Vec::new();
    for _ in 0..3 * SWEEP_AT {
        members.push(member(&pool).await);
    }
    let serving: Vec<_> = members.iter().rev().step_by(3).map(|m| m.link.id()).collect();
    for member in members.iter().rev().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, m)| m) {
        member.link.ended(CauseOfDeath::ClosedByProvider);
        pool.note_end();
    }
    assert_eq!(idle(&pool) as usize, serving.len());
    let mut lent = Vec::new();
    while let Some(loan) = lend(&pool) {
        lent.push(loan);
    }
    let order: Vec<_> = lent.iter().map(|(link, _)| link.id()).collect();
    assert_eq!(order, serving, "the last put in is still the first lent");
    lent.into_iter().for_each(give_back);
}

#[tokio::test]
async fn a_connection_beyond_its_budget_is_lent_only_when_no_other_is_idle() {
    let pool = Http1Pool::new(1);
    let (fresh, spent) = (member(&pool).await, member(&pool).await);
    give_back(lend(&pool).unwrap());
    assert_eq!((fresh.link.requests(), spent.link.requests()), (0, 1));
    spent.link.allot(Role::Regular, Some((1, 1)));
    for round in 0..3 {
        let first = lend(&pool).unwrap();
        assert_eq!(first.0.id(), fresh.link.id(), "round {round}: although the other was used last");
        let second = lend(&pool).expect("better a replay than a wait for a handshake");
        assert_eq!(second.0.id(), spent.link.id(), "round {round}");
        assert!(lend(&pool).is_none());
        give_back(first);
        give_back(second);
    }
    spent.link.allot(Role::Probe, None);
    let both = (lend(&pool).unwrap(), lend(&pool).unwrap());
    give_back(both.0);
    give_back(both.1);
    assert_eq!(lend(&pool).unwrap().0.id(), spent.link.id(), "the limit is gone: the last used first");
}

#[tokio::test]
async fn a_doubted_connection_is_lent_only_when_no_other_is_idle() {
    let pool = Http1Pool::new(1);
    let (sound, doubted) = (member(&pool).await, member(&pool).await);
    assert!(doubted.link.vitals().timed_out(doubted.link.vitals().heard(), 1));
    let (first, second) = (lend(&pool).unwrap(), lend(&pool).unwrap());
    assert_eq!((first.0.id(), second.0.id()), (sound.link.id(), doubted.link.id()));
    doubted.link.retire(CauseOfDeath::Age, Instant::now());
    give_back(first);
    give_back(second);
    assert_eq!(idle(&pool), 1, "what was retired on its way is not kept");
}

/// Who looked while it was being moved is not forgotten.
#[tokio::test]
async fn a_connection_that_is_moved_is_reported() {
    let pool = Http1Pool::new(1);
    let spent = member(&pool).await;
    spent.link.allot(Role::Regular, Some((0, 0)));
    let moves = AtomicU32::new(0);
    let lent = pool.try_lend(|| {
        moves.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(lent.unwrap().0.id(), spent.link.id());
    assert_eq!(moves.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_idle_connection_of_the_callers_own_worker_is_preferred() {
    let pool = Http1Pool::new(3);
    let mut members = Vec::new();
    for worker in 0..3 {
        members.push(member_on(&pool, worker).await);
    }
    let spent = member_on(&pool, 1).await;
    spent.link.allot(Role::Regular, Some((0, 0)));
    for own in 0..3 {
        workers::enter(own);
        let mut lent = Vec::new();
        while let Some(loan) = lend(&pool) {
            lent.push(loan);
        }
        let by: Vec<_> = lent.iter().map(|(link, _)| link.birth.worker).collect();
        assert_eq!(
            by,
            [own, (own + 1) % 3, (own + 2) % 3, 1],
            "worker {own}: the others' next, the spent last"
        );
        lent.into_iter().for_each(give_back);
    }
    assert_eq!(members.iter().map(|m| m.link.requests()).sum::<u64>(), 9);
}

#[tokio::test]
async fn what_its_own_task_has_not_read_yet_makes_a_connection_unready_and_not_unfit() {
    let pool = Http1Pool::new(1);
    let member = member(&pool).await;
    let (link, loan) = lend(&pool).unwrap();
    assert_eq!(loan.fitness(), Fitness::Fit);
    member.says_unread();
    assert_eq!(loan.fitness(), Fitness::Unready);
    member.says_quiet();
    assert_eq!(loan.fitness(), Fitness::Fit, "it was a late ticket");
    member.says_ended();
    assert_eq!(loan.fitness(), Fitness::Ended);
    member.says_quiet();
    link.retire(CauseOfDeath::Age, Instant::now());
    assert_eq!(loan.fitness(), Fitness::Retired, "by us, and not by the provider");
    give_back((link, loan));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_has_ended_and_never_lets_go_costs_its_connection_in_the_end() {
    let pool = Http1Pool::new(1);
    let mut member = unready_on(&pool, 0).await;
    let (link, loan) = lend(&pool).unwrap();
    assert_eq!(loan.fitness(), Fitness::Unready);
    tokio::time::advance(Duration::from_millis(900)).await;
    assert_eq!(loan.fitness(), Fitness::Unready);
    member.drive();
    loan.let_go().await;
    assert_eq!(loan.fitness(), Fitness::Fit);
    give_back((link, loan));

    let lingering = unready_on(&pool, 0).await;
    for _ in 0..2 {
        let (link, loan) = lend(&pool).unwrap();
        assert_eq!((link.id(), loan.fitness()), (lingering.link.id(), Fitness::Unready));
        give_back((link, loan));
        tokio::time::advance(Duration::from_millis(900)).await;
    }
    let (_, loan) = lend(&pool).unwrap();
    assert_eq!(loan.fitness(), Fitness::Lingering, "looks in between change nothing");
}
