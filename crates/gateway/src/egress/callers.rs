//! Who a caller is, for its share of the queue and for the access log: looked up once per accepted connection.
//!
//! Owns the lookup. It grants no trust (S8, S17): whoever may connect may call, under whatever name. Fairness
//! itself is the pool's.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use crate::config::{CallerGroup, Prefix};

/// The other end of a caller's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket, with the user number if the system tells it.
    Unix(Option<u32>),
}

impl Peer {
    /// The address; `None` on a Unix socket.
    #[must_use]
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix(_) => None,
        }
    }
}

/// Whose requests these are when requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The same for all requests of one caller, with its weight (1..=1000) against others that wait.
    pub queue: pool::Caller,
    /// Index of the name in the configuration; `None` for a caller that has none there.
    pub name: Option<u16>,
}

/// The callers of the configuration. By default there are none: each address, and each user on a Unix socket, is a
/// caller of weight 1.
#[derive(Debug, Default)]
pub struct Callers {
    /// The longest first, each with the index of its caller.
    prefixes: Vec<(Prefix, u16)>,
    uids: HashMap<u32, u16>,
    weights: Vec<NonZeroU16>,
    /// Numbers are not to be guessed: who could make them alike could hide behind another's share.
    numbers: RandomState,
}

/// What makes one caller.
#[derive(Hash)]
enum Identity {
    Named(u16),
    Address(IpAddr),
    User(Option<u32>),
}

impl Callers {
    /// Of these groups; indexes are their places.
    #[must_use]
    pub fn new(groups: &[CallerGroup]) -> Self {
        let mut callers = Self::default();
        // The configuration allows far fewer than 65,536.
        for (index, group) in (0u16..).zip(groups) {
            callers.prefixes.extend(group.addresses.iter().map(|prefix| (*prefix, index)));
            callers.uids.extend(group.uids.iter().map(|uid| (*uid, index)));
            callers.weights.push(group.weight);
        }
        callers.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.length()));
        callers
    }

    /// Whose requests come from there.
    #[must_use]
    pub fn of(&self, peer: Peer) -> Share {
        let (name, identity) = match peer {
            Peer::Tcp(address) => {
                let address = address.ip().to_canonical();
                let found = self.prefixes.iter().find(|(prefix, _)| prefix.holds(address));
                (found.map(|(_, index)| *index), Identity::Address(one_host(address)))
            }
            Peer::Unix(uid) => (uid.and_then(|uid| self.uids.get(&uid).copied()), Identity::User(uid)),
        };
        let weight = name.and_then(|index| self.weights.get(usize::from(index)));
        let queue = pool::Caller {
            id: self.numbers.hash_one(name.map_or(identity, Identity::Named)),
            weight: weight.copied().unwrap_or(NonZeroU16::MIN),
        };
        Share { queue, name }
    }
}

/// A host commonly has a whole /64 of IPv6 to call from: one caller all the same.
fn one_host(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) if v6.is_loopback() => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, addresses: &[(&str, u8)], uids: &[u32], weight: u16) -> CallerGroup {
        CallerGroup {
            name: name.to_owned(),
            addresses: addresses.iter().map(|(a, n)| Prefix::new(a.parse().unwrap(), *n)).collect(),
            uids: uids.to_vec(),
            weight: NonZeroU16::new(weight).unwrap(),
        }
    }

    fn tcp(address: &str) -> Peer {
        Peer::Tcp(SocketAddr::new(address.parse().unwrap(), 4711))
    }

    #[test]
    fn by_default_an_address_or_a_user_is_a_caller_whatever_its_port() {
        let callers = Callers::default();
        let one = callers.of(tcp("10.0.0.1"));
        assert_eq!((one.queue.weight.get(), one.name), (1, None));
        assert_eq!(one, callers.of(Peer::Tcp("10.0.0.1:1".parse().unwrap())));
        assert_eq!(one, callers.of(tcp("::ffff:10.0.0.1")), "IPv4 over a socket of IPv6");
        assert_ne!(one.queue.id, callers.of(tcp("10.0.0.2")).queue.id);
        assert_eq!(
            callers.of(tcp("2001:db8::1")).queue.id,
            callers.of(tcp("2001:db8::2")).queue.id,
            "one /64, one host"
        );
        assert_ne!(callers.of(tcp("2001:db8::1")).queue.id, callers.of(tcp("2001:db8:0:1::1")).queue.id);
        assert_ne!(callers.of(Peer::Unix(Some(1))).queue.id, callers.of(Peer::Unix(Some(2))).queue.id);
        assert_eq!(callers.of(Peer::Unix(Some(1))), callers.of(Peer::Unix(Some(1))));
    }

    #[test]
    fn a_named_caller_is_one_wherever_it_calls_from_and_the_longest_match_wins() {
        let callers = Callers::new(&[
            group("wide", &[("10.0.0.0", 8), ("::", 0)], &[], 2),
            group("narrow", &[("10.1.0.0", 16)], &[1000], 7),
            group("host", &[("10.1.2.3", 32)], &[0], 9),
        ]);
        for (peer, name, weight) in [
            (tcp("10.9.9.9"), Some(0), 2),
            (tcp("2001:db8::1"), Some(0), 2),
            (tcp("10.1.9.9"), Some(1), 7),
            (tcp("::ffff:10.1.9.9"), Some(1), 7),
            (Peer::Unix(Some(1000)), Some(1), 7),
            (tcp("10.1.2.3"), Some(2), 9),
            (tcp("192.0.2.1"), None, 1),
            (Peer::Unix(Some(7)), None, 1),
            (Peer::Unix(None), None, 1),
        ] {
            let share = callers.of(peer);
            assert_eq!((share.name, share.queue.weight.get()), (name, weight), "{peer:?}");
        }
        assert_eq!(callers.of(tcp("10.1.9.9")).queue.id, callers.of(Peer::Unix(Some(1000))).queue.id);
        assert_ne!(callers.of(tcp("10.1.9.9")).queue.id, callers.of(tcp("10.9.9.9")).queue.id);
    }
}
