//! Owns the list of open connections and the way to give one of them an order. It does not own what an order
//! does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::ending::Ending;

/// More than one is never needed by a connection that still runs: the first ends it.
const ORDERS: usize = 8;

/// Which open connections an order is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Every one.
    #[default]
    All,
    /// The one that was accepted first.
    Oldest,
    /// The one that was accepted last.
    Newest,
    /// One drawn by the seed.
    Random,
    /// The one with this number, which the response header `sim-connection` tells.
    Connection(u64),
    /// Those that were accepted at this address.
    Address(IpAddr),
}

struct Entry {
    address: IpAddr,
    orders: mpsc::Sender<Ending>,
}

pub(crate) struct Registry {
    open: Mutex<Open>,
}

struct Open {
    entries: BTreeMap<u64, Entry>,
    rng: fastrand::Rng,
}

impl Registry {
    pub(crate) fn new(seed: u64) -> Self {
        let open = Open { entries: BTreeMap::new(), rng: fastrand::Rng::with_seed(seed) };
        Self { open: Mutex::new(open) }
    }

    /// A connection begins; its orders.
    pub(crate) fn enter(&self, number: u64, address: IpAddr) -> mpsc::Receiver<Ending> {
        let (orders, receiver) = mpsc::channel(ORDERS);
        self.open.lock().entries.insert(number, Entry { address, orders });
        receiver
    }

    pub(crate) fn leave(&self, number: u64) {
        self.open.lock().entries.remove(&number);
    }

    /// Gives the order, and says to how many.
    pub(crate) fn order(&self, target: Target, ending: &Ending) -> usize {
        let mut open = self.open.lock();
        let drawn = match target {
            Target::Random if !open.entries.is_empty() => {
                let len = open.entries.len();
                Some(open.rng.usize(..len))
            }
            _ => None,
        };
        let entries = &open.entries;
        let send = |entry: &Entry| {
            // A connection with eight orders waiting is not read any more; one more changes nothing.
            entry.orders.try_send(ending.clone()).is_ok()
        };
        let one = |entry: Option<&Entry>| entry.is_some_and(send).into();
        match target {
            Target::All => entries.values().filter(|entry| send(entry)).count(),
            Target::Oldest => one(entries.values().next()),
            Target::Newest => one(entries.values().next_back()),
            Target::Random => one(drawn.and_then(|n| entries.values().nth(n))),
            Target::Connection(number) => one(entries.get(&number)),
            Target::Address(address) => {
                entries.values().filter(|entry| entry.address == address && send(entry)).count()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::behaviour::{Behaviour, GoAwayForm};

    #[test]
    fn an_order_reaches_exactly_those_it_is_for() {
        let registry = Arc::new(Registry::new(1));
        let address = |n| IpAddr::V4(Ipv4Addr::new(127, 0, 0, n));
        let mut receivers: Vec<_> =
            (1..=4).map(|n| registry.enter(n, address(if n < 4 { 1 } else { 2 }))).collect();
        let ending = Ending::in_form(&Behaviour::default(), GoAwayForm::Fin);
        let cases: [(Target, &[usize]); 6] = [
            (Target::All, &[0, 1, 2, 3]),
            (Target::Oldest, &[0]),
            (Target::Newest, &[3]),
            (Target::Connection(2), &[1]),
            (Target::Connection(9), &[]),
            (Target::Address(address(1)), &[0, 1, 2]),
        ];
        for (target, expected) in cases {
            assert_eq!(registry.order(target, &ending), expected.len(), "{target:?}");
            let told: Vec<_> = (0..4).filter(|&n| receivers[n].try_recv().is_ok()).collect();
            assert_eq!(told, expected, "{target:?}");
        }
        let mut hit = [0; 4];
        for _ in 0..200 {
            assert_eq!(registry.order(Target::Random, &ending), 1);
            (0..4).filter(|&n| receivers[n].try_recv().is_ok()).for_each(|n| hit[n] += 1);
        }
        assert!(hit.iter().all(|&n| n > 20), "seed 1: {hit:?}");
        registry.leave(1);
        assert_eq!(registry.order(Target::All, &ending), 3);
    }
}
