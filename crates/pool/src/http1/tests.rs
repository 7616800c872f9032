//! What bb8 lends, and what it does not.

use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{io::DuplexStream, time::Instant};

use super::{
    connection::Sender,
    stream::{Signs, Watch},
    *,
};
use crate::{
    status::CauseOfDeath,
    testing::{link, serving},
};

/// A socket that says what it is told to.
struct Says(Mutex<Signs>);

impl Watch for Says {
    fn signs(&self) -> Signs {
        *self.0.lock()
    }
    fn passed(&self) -> Passed {
        Passed::default()
    }
}

/// A connection in the pool, and what holds it open.
struct Member {
    link: Arc<Link>,
    says: Arc<Says>,
    sender: Sender,
    _far: DuplexStream,
    _driver: tokio::task::JoinHandle<()>,
}

async fn member(pool: &Http1Pool) -> Member {
    let (near, far) = tokio::io::duplex(64);
    let (sender, connection) = hyper::client::conn::http1::handshake::<
        _,
        UnsyncBoxBody<bytes::Bytes, crate::send::BoxError>,
    >(TokioIo::new(near))
    .await
    .unwrap();
    let driver = tokio::spawn(async move { drop(connection.await) });
    let (link, says) = (serving(1, 1), Arc::new(Says(Mutex::new(Signs::Quiet))));
    let sender: Sender = Arc::new(Mutex::new(Some(sender)));
    pool.add(Http1Connection::new(sender.clone(), says.clone(), link.clone()));
    Member { link, says, sender, _far: far, _driver: driver }
}

fn lend(pool: &Http1Pool) -> Option<(Arc<Link>, Loan)> {
    pool.try_lend().map(|(link, loan, _)| (link, loan))
}

/// As a lease gives it back.
fn give_back((link, loan): (Arc<Link>, Loan)) {
    link.release();
    drop(loan);
}

#[tokio::test]
async fn a_connection_is_lent_to_one_at_a_time_and_the_last_used_first() {
    let pool = Http1Pool::new();
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
    let pool = Http1Pool::new();
    let retired = member(&pool).await;
    retired.link.retire(CauseOfDeath::Age, Instant::now());
    assert!(lend(&pool).is_none());

    let ended = member(&pool).await;
    *ended.says.0.lock() = Signs::Ended;
    assert!(lend(&pool).is_none(), "its task has not noticed, the socket has");

    let closing = member(&pool).await;
    drop(closing.sender.lock().take());
    assert!(lend(&pool).is_none());

    let distrusted = member(&pool).await;
    distrusted.link.retire_at_once(CauseOfDeath::Replaced, Instant::now());
    assert!(lend(&pool).is_none(), "what it believed was withdrawn");

    let proving = link(1, 1);
    assert!(proving.try_acquire().is_none(), "not before it is proven");
    assert_eq!(pool.idle(), 0, "none of them is kept");
}

#[tokio::test]
async fn a_connection_that_was_retired_while_it_was_out_does_not_come_back() {
    let pool = Http1Pool::new();
    let member = member(&pool).await;
    let loan = lend(&pool).unwrap();
    member.link.retire(CauseOfDeath::Age, Instant::now());
    give_back(loan);
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn what_ended_below_those_that_serve_is_swept_out_and_their_order_kept() {
    let pool = Http1Pool::new();
    let mut members = Vec::new();
    for _ in 0..3 * SWEEP_AT {
        members.push(member(&pool).await);
    }
    let serving: Vec<_> = members.iter().rev().step_by(3).map(|m| m.link.id()).collect();
    for member in members.iter().rev().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, m)| m) {
        member.link.ended(CauseOfDeath::ClosedByProvider);
        pool.note_end();
    }
    assert_eq!(pool.idle() as usize, serving.len());
    let mut lent = Vec::new();
    while let Some(loan) = lend(&pool) {
        lent.push(loan);
    }
    let order: Vec<_> = lent.iter().map(|(link, _)| link.id()).collect();
    assert_eq!(order, serving, "the last put in is still the first lent");
    lent.into_iter().for_each(give_back);
}

#[tokio::test]
async fn what_arrived_unasked_makes_a_connection_unfit_and_a_late_ticket_does_not() {
    let pool = Http1Pool::new();
    let member = member(&pool).await;
    let (link, loan) = lend(&pool).unwrap();
    assert_eq!(loan.fitness().await, Fitness::Fit);
    *member.says.0.lock() = Signs::Unread;
    assert_eq!(loan.fitness().await, Fitness::Spoilt);
    let says = member.says.clone();
    tokio::spawn(async move { *says.0.lock() = Signs::Quiet });
    assert_eq!(loan.fitness().await, Fitness::Fit);
    *member.says.0.lock() = Signs::Ended;
    assert_eq!(loan.fitness().await, Fitness::Ended);
    give_back((link, loan));
}
