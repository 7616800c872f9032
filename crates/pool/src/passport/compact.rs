//! Small forms of what an obituary holds: a time, an address, a few words.
//!
//! Owns their bounds. None of them uses the heap.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

/// A duration in whole microseconds that may be unknown, in four bytes. Longer ones than 71 minutes are told as that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Micros(u32);

impl Micros {
    /// Not known, or did not occur.
    pub const UNKNOWN: Self = Self(u32::MAX);

    /// Whole microseconds of this duration.
    #[must_use]
    pub fn of(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }

    /// The duration; `None` if it is not known.
    #[must_use]
    pub fn get(self) -> Option<Duration> {
        (self != Self::UNKNOWN).then(|| Duration::from_micros(u64::from(self.0)))
    }
}

impl From<Option<Duration>> for Micros {
    fn from(duration: Option<Duration>) -> Self {
        duration.map_or(Self::UNKNOWN, Self::of)
    }
}

impl fmt::Debug for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(duration) => duration.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// A remote address, smaller than [`SocketAddr`] by what TCP does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddress {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

impl From<SocketAddr> for RemoteAddress {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: address.port() }
    }
}

impl FromStr for RemoteAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<SocketAddr>().map(Self::from)
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// Most bytes of a [`ShortText`].
const TEXT: usize = 47;

/// The first 47 bytes of a text, printable ASCII only: others become `.`, for they may come from the provider.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortText {
    len: u8,
    bytes: [u8; TEXT],
}

impl ShortText {
    /// The beginning of `text`.
    #[must_use]
    pub fn of(text: impl AsRef<[u8]>) -> Self {
        let mut short = Self { len: 0, bytes: [0; TEXT] };
        for (at, byte) in text.as_ref().iter().take(TEXT).enumerate() {
            short.bytes[at] = if byte.is_ascii_graphic() || *byte == b' ' { *byte } else { b'.' };
            short.len += 1;
        }
        short
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // ASCII by construction.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_unknown_is_not_zero_and_a_long_one_is_cut() {
        assert_eq!(Micros::from(None).get(), None);
        assert_eq!(Micros::of(Duration::ZERO).get(), Some(Duration::ZERO));
        assert_eq!(Micros::of(Duration::from_micros(250)).get(), Some(Duration::from_micros(250)));
        let longest = Micros::of(Duration::from_secs(100_000)).get().unwrap();
        assert_eq!(longest.as_secs(), 4294);
    }

    #[test]
    fn a_text_is_cut_and_made_printable() {
        assert_eq!(ShortText::of("closed").as_str(), "closed");
        assert_eq!(ShortText::of(b"a\x1b[31m\n\xffb").as_str(), "a.[31m..b");
        assert_eq!(ShortText::of("x".repeat(300)).as_str().len(), TEXT);
        assert_eq!(ShortText::of("é".repeat(100)).as_str(), ".".repeat(TEXT));
    }

    #[test]
    fn an_address_reads_back_as_it_is_written() {
        for text in ["127.0.0.1:443", "[::1]:9443"] {
            assert_eq!(text.parse::<RemoteAddress>().unwrap().to_string(), text);
        }
        assert!("tsh.test:443".parse::<RemoteAddress>().is_err());
    }
}
