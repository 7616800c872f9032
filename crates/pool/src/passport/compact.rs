//! Small forms of what an obituary holds: a time, an address, a name, a few words.
//!
//! Owns their bounds. None of them uses the heap.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
    str::FromStr,
    time::Duration,
};

use parking_lot::Mutex;
use tls_core::{Fingerprint, SpkiPin};

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

/// How many round trips a [`PingSeries`] keeps.
pub const PING_SERIES: usize = 8;

/// The round trips of the last eight PINGs, in 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingSeries([Micros; PING_SERIES]);

impl Default for PingSeries {
    fn default() -> Self {
        Self([Micros::UNKNOWN; PING_SERIES])
    }
}

impl PingSeries {
    /// The next one; the eldest goes when there is no room.
    pub fn push(&mut self, rtt: Duration) {
        self.0.rotate_left(1);
        self.0[PING_SERIES - 1] = Micros::of(rtt);
    }

    /// All of them, the eldest first.
    pub fn iter(&self) -> impl Iterator<Item = Duration> {
        self.0.into_iter().filter_map(Micros::get)
    }
}

impl serde::Serialize for PingSeries {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.iter())
    }
}

/// The first eight bytes of a certificate's fingerprint: enough to tell certificates apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Prefix([u8; 8]);

impl Prefix {
    /// Of this fingerprint.
    #[must_use]
    pub fn of(fingerprint: &Fingerprint) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *fingerprint.as_bytes();
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of a pin's text that are kept: `sha256/` and eight of its digits, 48 bits of the key's digest.
const PIN: usize = 15;

/// The beginning of a pin's text: enough to find it in the configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PinStart([u8; PIN]);

impl PinStart {
    /// Of this pin.
    #[must_use]
    pub fn of(pin: &SpkiPin) -> Self {
        let mut start = [b'.'; PIN];
        start.iter_mut().zip(pin.to_string().bytes()).for_each(|(kept, byte)| *kept = byte);
        Self(start)
    }
}

impl fmt::Display for PinStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ASCII by construction.
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for PinStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name out of a small set that the program itself holds (codes, cipher suites, groups), in one byte: its place in a
/// list of the names met so far.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name(NonZeroU8);

/// The names met so far. There are about fifty in all; should there ever be more than fit, the rest share one.
static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
const MOST_NAMES: usize = u8::MAX as usize - 1;
/// What stands for a name that found no room.
const NAMELESS: &str = "other";

impl Name {
    /// Of this name.
    #[must_use]
    pub fn of(name: &'static str) -> Self {
        let mut names = NAMES.lock();
        let place = names.iter().position(|known| *known == name).unwrap_or(names.len());
        if place == names.len() && place < MOST_NAMES {
            names.push(name);
        }
        // Without room it is the place after the last, where no name stands.
        let number = u8::try_from(place + 1).ok().and_then(NonZeroU8::new);
        Self(number.unwrap_or(NonZeroU8::MAX))
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        NAMES.lock().get(usize::from(self.0.get()) - 1).copied().unwrap_or(NAMELESS)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
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
    fn a_series_keeps_the_last_eight_in_their_order() {
        let mut series = PingSeries::default();
        assert_eq!(series.iter().count(), 0);
        for ms in 1..=11 {
            series.push(Duration::from_millis(ms));
        }
        let kept: Vec<_> = series.iter().map(|rtt| rtt.as_millis()).collect();
        assert_eq!(kept, [4, 5, 6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn a_name_reads_back_and_takes_one_byte() {
        let (one, two) = (Name::of("TLS13_AES_256_GCM_SHA384"), Name::of("connect_timeout"));
        assert_eq!((one.as_str(), two.as_str()), ("TLS13_AES_256_GCM_SHA384", "connect_timeout"));
        assert!(one == Name::of("TLS13_AES_256_GCM_SHA384") && one != two);
        assert_eq!(size_of::<Option<Name>>(), 1);
    }

    #[test]
    fn a_pin_is_told_by_its_beginning() {
        let pin = SpkiPin::of_spki(b"key");
        let start = PinStart::of(&pin).to_string();
        assert!(start.len() == PIN && pin.to_string().starts_with(&start), "{start}");
    }

    #[test]
    fn a_prefix_is_the_beginning_of_the_fingerprint() {
        let fingerprint = Fingerprint::of(b"certificate");
        let prefix = Prefix::of(&fingerprint).to_string();
        assert!(prefix.len() == 16 && fingerprint.to_string().starts_with(&prefix));
    }

    #[test]
    fn an_address_reads_back_as_it_is_written() {
        for text in ["127.0.0.1:443", "[::1]:9443"] {
            assert_eq!(text.parse::<RemoteAddress>().unwrap().to_string(), text);
        }
        assert!("tsh.test:443".parse::<RemoteAddress>().is_err());
    }
}
