//! Workers and connections: a request rather takes one of its own worker, while loads are close.

use super::*;
use crate::{ConnectionId, hub::pick::FOREIGN_WORKER_COST, testing::link_on, workers};

fn serving_on(worker: usize, capacity: u32) -> Arc<Link> {
    let link = link_on(worker, 1, capacity);
    link.proved(crate::DialPhases::default());
    link
}

/// Runs as worker `index`; the thread is nobody's afterwards, as it was.
fn as_worker<T>(index: usize, work: impl FnOnce() -> T) -> T {
    workers::enter(index);
    let done = work();
    workers::enter(0);
    done
}

/// Leases until this one is of another connection than the first; returns how many were of that.
fn own_first(hub: &Arc<Hub>, held: &mut Vec<StreamLease>) -> (ConnectionId, u32) {
    let first = hub.try_lease(Preference::Balanced).expect("there is room");
    let own = first.link().id();
    held.push(first);
    for count in 1.. {
        let next = hub.try_lease(Preference::Balanced).expect("there is room");
        if next.link().id() != own {
            return (own, count);
        }
        held.push(next);
    }
    unreachable!("the other one comes first some time")
}

#[test]
fn a_request_takes_a_connection_of_its_own_worker_while_loads_are_close() {
    for worker in [1, 2] {
        // The eldest counts as half as loaded; it is full, so that the others are compared as equals.
        let (eldest, one, two) = (serving_on(3, 0), serving_on(1, 100), serving_on(2, 100));
        let hub = hub_with(&[&eldest, &one, &two]);
        let own = if worker == 1 { &one } else { &two };
        as_worker(worker, || {
            let mut held = Vec::new();
            let (first, before_the_other) = own_first(&hub, &mut held);
            assert_eq!(first, own.id(), "worker {worker}");
            // Each stream of theirs counts twice.
            let head_start = (FOREIGN_WORKER_COST / 2) as u32;
            assert!((head_start..=head_start + 1).contains(&before_the_other), "{before_the_other}");
            // From there on they share, with the same distance.
            held.extend(std::iter::from_fn(|| hub.try_lease(Preference::Balanced)).take(40));
            let (own, other) = if worker == 1 { (&one, &two) } else { (&two, &one) };
            let ahead = own.in_flight().saturating_sub(other.in_flight());
            assert!((head_start - 1..=head_start + 1).contains(&ahead), "{ahead} ahead");
        });
        assert_eq!((one.in_flight(), two.in_flight()), (0, 0));
    }
}

#[test]
fn a_worker_without_a_connection_of_its_own_takes_the_least_loaded() {
    let (eldest, one, two) = (serving_on(0, 0), serving_on(1, 100), serving_on(2, 100));
    let hub = hub_with(&[&eldest, &one, &two]);
    as_worker(7, || {
        let held: Vec<_> =
            (0..20).map(|_| hub.try_lease(Preference::Balanced).expect("there is room")).collect();
        assert_eq!((one.in_flight(), two.in_flight()), (10, 10));
        drop(held);
    });
}

#[test]
fn a_request_takes_anothers_connection_rather_than_wait_for_its_own() {
    let (own, other) = (serving_on(1, 1), serving_on(2, 1));
    let hub = hub_with(&[&other, &own]);
    as_worker(1, || {
        let first = hub.try_lease(Preference::Balanced).unwrap();
        let second = hub.try_lease(Preference::Balanced).unwrap();
        assert_eq!((first.link().id(), second.link().id()), (own.id(), other.id()));
    });
}
