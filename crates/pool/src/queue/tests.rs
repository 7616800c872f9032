//! The order of the queue: fair by weight, first come first served within a caller, bounded in all.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU16,
};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::testing::for_all;

const WIDE: Limits = Limits { capacity: 100_000, reserved: 8 };

fn weighing(id: u64, weight: u16) -> Caller {
    Caller { id, weight: NonZeroU16::new(weight).unwrap() }
}

/// A queue whose waiters are their callers' numbers.
fn queue(limits: Limits) -> FairQueue<u64> {
    FairQueue::new(limits)
}

#[test]
fn one_caller_is_served_first_come_first_served() {
    let mut queue = queue(WIDE);
    for n in 0..100 {
        queue.join(Caller::default(), n).unwrap();
    }
    assert_eq!(std::iter::from_fn(|| queue.serve()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_flood_delays_another_caller_by_one_turn_only() {
    let mut queue = queue(WIDE);
    for _ in 0..1000 {
        queue.join(Caller::new(1), 1).unwrap();
    }
    queue.join(Caller::new(2), 2).unwrap();
    assert_eq!(queue.ahead_of(Caller::new(2)), 2, "behind its own waiter, and one turn of the flood");
    let order: Vec<_> = std::iter::from_fn(|| queue.serve()).take(2).collect();
    assert!(order.contains(&2), "{order:?}");
}

#[test]
fn callers_that_always_wait_share_by_weight() {
    for_all(200, vec(1u16..=50, 1..8), |weights| {
        let mut queue = queue(WIDE);
        let callers: Vec<_> = weights.iter().zip(0..).map(|(w, id)| weighing(id, *w)).collect();
        for caller in &callers {
            for _ in 0..3 {
                queue.join(*caller, caller.id).unwrap();
            }
        }
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let turns = total * 20;
        let mut served = vec![0u64; callers.len()];
        for _ in 0..turns {
            let id = queue.serve().unwrap();
            served[id as usize] += 1;
            queue.join(callers[id as usize], id).unwrap();
        }
        for (weight, served) in weights.iter().zip(&served) {
            let due = turns * u64::from(*weight) / total;
            // A turn more or less each, and what rounding the stride of a great weight moves.
            prop_assert!(served.abs_diff(due) <= 2, "weights {weights:?}: {served} turns, {due} due");
        }
        Ok(())
    });
}

/// A caller of whom nothing is remembered between two requests gets no more for it.
#[test]
fn a_caller_that_comes_back_each_time_gets_its_share_and_no_more() {
    let mut queue = queue(WIDE);
    for id in 1..=4 {
        for _ in 0..1000 {
            queue.join(Caller::new(id), id).unwrap();
        }
    }
    let mut served = HashMap::new();
    let back = Caller::new(9);
    queue.join(back, 9).unwrap();
    for _ in 0..500 {
        let id = queue.serve().unwrap();
        *served.entry(id).or_insert(0u32) += 1;
        if id == 9 {
            queue.join(back, 9).unwrap();
        }
    }
    assert!(served.values().all(|n| (99..=101).contains(n)), "{served:?}");
}

#[test]
fn nobody_starves_while_others_keep_coming() {
    let others = vec((0u64..6, 1u16..=20), 1..30);
    for_all(300, (others, 1u16..=20, 0usize..5), |(others, weight, before)| {
        let mut queue = queue(WIDE);
        let others: Vec<_> = others.iter().map(|(id, weight)| weighing(*id, *weight)).collect();
        for caller in &others {
            queue.join(*caller, caller.id).unwrap();
        }
        let me = weighing(99, weight);
        for _ in 0..=before {
            queue.join(me, 99).unwrap();
        }
        // Each turn of another is followed by two new requests of that caller, of its greatest weight.
        let greatest = |id| others.iter().filter(|c| c.id == id).map(|c| c.weight).max().unwrap();
        let mut mine = 0;
        let mut turns = 0u64;
        while mine <= before {
            let id = queue.serve().unwrap();
            turns += 1;
            if id == 99 {
                mine += 1;
            } else {
                for _ in 0..2 {
                    queue.join(Caller { id, weight: greatest(id) }, id).unwrap();
                }
            }
        }
        let places = before as u64 + 1;
        let mut ids: Vec<_> = others.iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let rounds = |id: u64| places * u64::from(greatest(id).get()) / u64::from(weight) + 2;
        let most = places + ids.into_iter().map(rounds).sum::<u64>();
        prop_assert!(turns <= most, "{turns} turns, at most {most}");
        Ok(())
    });
}

#[test]
fn a_full_queue_keeps_places_for_callers_that_have_few_waiters() {
    let mut queue = queue(Limits { capacity: 10, reserved: 3 });
    for n in 0..10 {
        queue.join(Caller::new(1), n).unwrap();
    }
    assert_eq!(queue.join(Caller::new(1), 10).unwrap_err(), 10, "the flood itself has no more places");
    let displaced: Vec<_> =
        (100..103).map(|n| queue.join(Caller::new(2), n).unwrap().displaced.unwrap()).collect();
    assert_eq!(displaced, [9, 8, 7], "the newest of the longest give way");
    assert_eq!(queue.join(Caller::new(2), 103).unwrap_err(), 103, "beyond its minimum it is refused too");
    assert_eq!(queue.len(), 10);
}

#[test]
fn places_that_were_promised_to_too_many_are_shared_evenly() {
    let mut queue = queue(Limits { capacity: 6, reserved: 8 });
    for id in [1, 2, 3] {
        while queue.join(Caller::new(id), id).is_ok() {}
    }
    let mut each = HashMap::new();
    std::iter::from_fn(|| queue.serve()).for_each(|id| *each.entry(id).or_insert(0u32) += 1);
    assert_eq!(each, HashMap::from([(1, 2), (2, 2), (3, 2)]));
}

#[test]
fn a_queue_of_no_places_takes_nobody() {
    let mut queue = queue(Limits { capacity: 0, reserved: 8 });
    assert_eq!(queue.join(Caller::default(), 1).unwrap_err(), 1);
}

#[derive(Clone, Debug)]
enum Op {
    Join {
        caller: u64,
        weight: u16,
    },
    Serve,
    /// Of those that wait, as seen by the test, the one at this place (modulo).
    Leave(usize),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u64..5, 1u16..=4).prop_map(|(caller, weight)| Op::Join { caller, weight }),
        4 => Just(Op::Serve),
        3 => any::<usize>().prop_map(Op::Leave),
        1 => Just(Op::Clear),
    ]
}

/// What the queue must hold: each caller's waiters in order.
#[derive(Default)]
struct Model(HashMap<u64, VecDeque<(u64, Ticket)>>);

impl Model {
    fn len(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }

    fn take(&mut self, waiter: u64) -> Option<(u64, usize)> {
        let found = self.0.iter().find_map(|(caller, waiters)| {
            waiters.iter().position(|(n, _)| *n == waiter).map(|at| (*caller, at))
        })?;
        self.0.get_mut(&found.0)?.remove(found.1);
        Some(found)
    }
}

#[test]
fn counts_balance_bounds_hold_and_each_caller_is_served_in_order() {
    let limits = (0u32..12, 0u32..5);
    for_all(500, (limits, vec(op(), 1..200)), |((capacity, reserved), ops)| {
        let mut queue = queue(Limits { capacity, reserved });
        let mut model = Model::default();
        for (n, op) in (0u64..).zip(ops) {
            match op {
                Op::Join { caller, weight } => {
                    join(&mut queue, &mut model, weighing(caller, weight), n, reserved)?
                }
                Op::Serve => {
                    let first = queue.first().map(|(ticket, waiter)| (ticket, *waiter));
                    let served = queue.serve();
                    prop_assert_eq!(first.map(|(_, waiter)| waiter), served, "whom it names, it serves");
                    prop_assert_eq!(served.is_none(), model.len() == 0);
                    if let Some(served) = served {
                        let (_, at) = model.take(served).expect("it waited");
                        prop_assert_eq!(at, 0, "first come, first served");
                    }
                }
                Op::Leave(at) => {
                    let all: Vec<_> = model.0.values().flatten().copied().collect();
                    if let Some((waiter, ticket)) = at.checked_rem(all.len()).map(|at| all[at]) {
                        prop_assert_eq!(queue.leave(ticket), Some(waiter));
                        prop_assert_eq!(queue.leave(ticket), None, "it leaves once");
                        model.take(waiter);
                    }
                }
                Op::Clear => {
                    let mut all = queue.clear();
                    all.sort_unstable();
                    let mut held: Vec<_> = model.0.drain().flat_map(|(_, w)| w).map(|(n, _)| n).collect();
                    held.sort_unstable();
                    prop_assert_eq!(all, held);
                }
            }
            prop_assert_eq!(queue.len() as usize, model.len());
            prop_assert!(queue.len() <= capacity, "{} wait, {capacity} may", queue.len());
        }
        let rest = std::iter::from_fn(|| queue.serve()).count();
        prop_assert_eq!(rest, model.len(), "all that waited are served at last");
        Ok(())
    });
}

fn join(
    queue: &mut FairQueue<u64>,
    model: &mut Model,
    caller: Caller,
    waiter: u64,
    reserved: u32,
) -> Result<(), TestCaseError> {
    let own = model.0.get(&caller.id).map_or(0, VecDeque::len);
    let longest = model.0.values().map(VecDeque::len).max().unwrap_or(0);
    let was_full = queue.len();
    match queue.join(caller, waiter) {
        Ok(Joined { ticket, displaced }) => {
            if let Some(displaced) = displaced {
                let (of, at) = model.take(displaced).expect("who gives way has waited");
                prop_assert!(of != caller.id && own < reserved as usize);
                prop_assert_eq!(at + 1, longest, "the newest of the longest");
            }
            model.0.entry(caller.id).or_default().push_back((waiter, ticket));
        }
        Err(refused) => {
            prop_assert_eq!(refused, waiter);
            prop_assert_eq!(queue.len(), was_full);
            prop_assert!(own >= reserved as usize || longest <= own + 1, "a reserved place was refused");
        }
    }
    Ok(())
}

#[test]
fn the_place_told_is_the_place_taken() {
    let waiting = vec((0u64..6, 1u16..=9), 0..60);
    for_all(300, (waiting, 0u64..8, 1u16..=9, 0usize..40), |(waiting, me, weight, turns)| {
        let mut queue = queue(WIDE);
        // A caller keeps one weight.
        let weight_of = |id: u64| waiting.iter().find(|(other, _)| *other == id).map_or(weight, |(_, w)| *w);
        for (id, _) in &waiting {
            queue.join(weighing(*id, weight_of(*id)), *id).unwrap();
        }
        for _ in 0..turns {
            queue.serve();
        }
        let caller = weighing(me, weight_of(me));
        let told = queue.ahead_of(caller);
        let ticket = queue.join(caller, me).unwrap().ticket;
        let mut taken = 0;
        while queue.first().is_some_and(|(first, _)| first != ticket) {
            queue.serve();
            taken += 1;
        }
        // Equal tags are served by age: one turn of each of the others may or may not come first.
        prop_assert!(told <= taken && taken <= told + 6, "told {told}, taken {taken}");
        Ok(())
    });
}
