//! An IP network: an address and how many of its bits count.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP network. Bits of the address beyond the length are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The network of this length that holds `address`. A length beyond the address's own counts as that.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Self { address: Ipv4Addr::from_bits(v4.to_bits() & mask).into(), length }
            }
            IpAddr::V6(v6) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Self { address: Ipv6Addr::from_bits(v6.to_bits() & mask).into(), length }
            }
        }
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits count: 0..=32 or 0..=128.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` is in it. IPv4 and IPv6 never hold one another.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.length) == *self
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix::new(address.parse().unwrap(), length)
    }

    #[test]
    fn a_network_holds_what_shares_its_first_bits() {
        for (network, length, inside, outside) in [
            ("10.1.0.0", 16, "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.4"),
            ("128.0.0.0", 1, "255.0.0.1", "127.255.255.255"),
            ("0.0.0.0", 0, "203.0.113.9", "::1"),
            ("fd00::", 8, "fdff::1", "fe00::1"),
            ("::1", 128, "::1", "::2"),
            ("::", 0, "2001:db8::1", "10.0.0.1"),
        ] {
            let prefix = prefix(network, length);
            assert!(prefix.holds(inside.parse().unwrap()), "{prefix} {inside}");
            assert!(!prefix.holds(outside.parse().unwrap()), "{prefix} {outside}");
        }
    }

    #[test]
    fn bits_beyond_the_length_are_let_go() {
        assert_eq!(prefix("10.1.2.3", 16).to_string(), "10.1.0.0/16");
        assert_eq!(prefix("2001:db8::1", 32).to_string(), "2001:db8::/32");
        assert_eq!(prefix("10.1.2.3", 200).to_string(), "10.1.2.3/32");
    }
}
