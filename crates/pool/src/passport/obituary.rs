//! The record of a dead connection, or of a dial that made none: fixed in size, so that ten thousand cost little.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tls_core::{HandshakeKind, TlsVersion};

use super::{GoAwaySeen, Micros, Name, PinStart, PingSeries, PingTimes, Prefix, RemoteAddress, ShortText};
use crate::{
    connection::Proof,
    journey::ConnectionId,
    status::{CauseOfDeath, DialPhases, Protocol},
};

/// A dead connection: at most 256 bytes, nothing on the heap but the environment's name, which all of them share.
#[derive(Clone, Debug)]
pub struct Obituary {
    /// Its number; that of the access log.
    pub id: ConnectionId,
    /// Its environment.
    pub environment: Arc<str>,
    /// Serial of the generation it was dialled with.
    pub generation: u64,
    /// When it ended.
    pub ended: UnixMicros,
    /// From the beginning of its dial to its end, microseconds.
    pub age_us: u64,
    /// How long it had carried nothing when it ended, microseconds; `u64::MAX` when it carried something.
    pub idle_us: u64,
    /// Requests it carried.
    pub requests: u64,
    /// The remote address; `None` when none was reached.
    pub address: Option<RemoteAddress>,
    /// How long each phase of its dial took.
    pub phases: DialTimes,
    /// Round trips of its PINGs.
    pub ping: PingMicros,
    /// Cipher suite by its IANA name; `None` if no handshake ended.
    pub cipher_suite: Option<Name>,
    /// Key exchange group; `None` if no handshake ended or it had none.
    pub key_exchange: Option<Name>,
    /// The code of the failure, of a dial that failed.
    pub code: Option<Name>,
    /// The last GOAWAY received.
    pub goaway: Option<GoAwaySeen>,
    /// Most streams at once.
    pub peak_in_flight: u32,
    /// TLS 1.3 session tickets received.
    pub tickets_received: u16,
    /// The server's certificate.
    pub leaf: Option<Prefix>,
    /// The anchor that its verified path ended in.
    pub anchor: Option<Prefix>,
    /// The pin that it satisfied; `None` where none was configured, or no handshake ended.
    pub pin: Option<PinStart>,
    /// Its HTTP version; `None` if no handshake ended.
    pub protocol: Option<Protocol>,
    /// Full or resumed; `None` if no handshake ended.
    pub handshake: Option<HandshakeKind>,
    /// TLS version; `None` if no handshake ended.
    pub tls: Option<TlsVersion>,
    /// What showed that it served; `None` if it never did.
    pub proof: Option<Proof>,
    /// Why it ended.
    pub cause: CauseOfDeath,
    /// More words: the provider's own with its GOAWAY, else those of the failure.
    pub detail: ShortText,
}

impl Obituary {
    /// When its dial began.
    #[must_use]
    pub fn born(&self) -> OffsetDateTime {
        let age = i64::try_from(self.age_us).unwrap_or(i64::MAX);
        self.ended.get().saturating_sub(time::Duration::microseconds(age))
    }

    /// From the beginning of its dial to its end.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_micros(self.age_us)
    }

    /// How long it had carried nothing when it ended; `None` when it carried something.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        (self.idle_us != u64::MAX).then(|| Duration::from_micros(self.idle_us))
    }
}

/// A moment in Unix time, microseconds, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMicros(i64);

impl UnixMicros {
    /// This moment.
    #[must_use]
    pub fn of(at: OffsetDateTime) -> Self {
        Self(i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX))
    }

    /// The moment.
    #[must_use]
    pub fn get(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// How long each phase of a dial took; see [`DialPhases`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialTimes {
    /// Name resolution.
    pub dns: Micros,
    /// TCP connect, a proxy's CONNECT included.
    pub tcp: Micros,
    /// TLS handshake.
    pub tls: Micros,
    /// From the end of the handshake to the proof.
    pub prove: Micros,
}

impl From<&DialPhases> for DialTimes {
    fn from(phases: &DialPhases) -> Self {
        Self {
            dns: phases.dns.into(),
            tcp: phases.tcp.into(),
            tls: phases.tls.into(),
            prove: phases.prove.into(),
        }
    }
}

/// Round trips of PINGs; see [`PingTimes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingMicros {
    /// The first.
    pub first: Micros,
    /// The shortest.
    pub min: Micros,
    /// The longest.
    pub max: Micros,
    /// The last of them, in their order.
    pub recent: PingSeries,
}

impl From<Option<PingTimes>> for PingMicros {
    fn from(times: Option<PingTimes>) -> Self {
        let of = |pick: fn(PingTimes) -> Duration| Micros::from(times.map(pick));
        Self {
            first: of(|t| t.first),
            min: of(|t| t.min),
            max: of(|t| t.max),
            recent: times.map(|t| t.recent).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_obituary_has_at_most_256_bytes() {
        assert!(size_of::<Obituary>() <= 256, "{} bytes", size_of::<Obituary>());
        // Everything in it is plain but the name that all share: nothing else can point to the heap.
        fn plain<T: Copy>() {}
        plain::<(DialTimes, PingMicros, ShortText, Option<RemoteAddress>, Option<Prefix>, Option<PinStart>)>(
        );
        plain::<(Option<GoAwaySeen>, UnixMicros, CauseOfDeath, Option<Name>, Option<Proof>)>();
    }

    #[test]
    fn a_moment_reads_back_to_the_microsecond() {
        let at = datetime!(2026-03-01 12:00:00.123456 UTC);
        assert_eq!(UnixMicros::of(at).get(), at);
        assert_eq!(UnixMicros::of(datetime!(1969-12-31 23:59:59.5 UTC)).get().year(), 1969);
    }
}
