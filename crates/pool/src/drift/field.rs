//! What is compared: the fields of a provider's fingerprint, their values, and which way is worse.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// One thing about a provider that may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftField {
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    MaxConcurrentStreams,
    /// SETTINGS_INITIAL_WINDOW_SIZE, bytes.
    InitialWindowSize,
    /// SETTINGS_MAX_FRAME_SIZE, bytes.
    MaxFrameSize,
    /// SETTINGS_MAX_HEADER_LIST_SIZE, bytes.
    MaxHeaderListSize,
    /// SETTINGS_HEADER_TABLE_SIZE, bytes.
    HeaderTableSize,
    /// Settings with other identifiers, `identifier=value`.
    OtherSettings,
    /// TLS version.
    TlsVersion,
    /// Cipher suite.
    CipherSuite,
    /// Key exchange group of a full handshake.
    KeyExchange,
    /// The application protocol chosen.
    Alpn,
    /// Fingerprint of the server's certificate.
    Leaf,
    /// Fingerprint of the certificate that the server sends after its own.
    Issuer,
    /// The certificates that the server sends after these two, by the beginnings of their fingerprints.
    Chain,
    /// Fingerprint of the anchor that the verified path ends in.
    Anchor,
    /// TLS 1.3 tickets after a full handshake: 0, 1, 2 or 3 (which means more).
    Tickets,
    /// Whether an offered ticket was accepted.
    Resumption,
    /// Requests after which the provider ends a connection, as learned.
    EnforcedRequests,
    /// Age at which the provider ends a connection, as learned.
    EnforcedAge,
    /// Idle time after which the provider ends a connection, as learned.
    EnforcedIdle,
    /// How the provider ends connections: `goaway`, `goaway twice`, `connection: close` (HTTP/1.1) or `close`.
    Farewell,
    /// Remote address.
    Address,
}

impl DriftField {
    /// All fields, for registering metrics.
    pub const ALL: [DriftField; 21] = [
        Self::MaxConcurrentStreams,
        Self::InitialWindowSize,
        Self::MaxFrameSize,
        Self::MaxHeaderListSize,
        Self::HeaderTableSize,
        Self::OtherSettings,
        Self::TlsVersion,
        Self::CipherSuite,
        Self::KeyExchange,
        Self::Alpn,
        Self::Leaf,
        Self::Issuer,
        Self::Chain,
        Self::Anchor,
        Self::Tickets,
        Self::Resumption,
        Self::EnforcedRequests,
        Self::EnforcedAge,
        Self::EnforcedIdle,
        Self::Farewell,
        Self::Address,
    ];

    /// The metric label and log word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxConcurrentStreams => "max_concurrent_streams",
            Self::InitialWindowSize => "initial_window_size",
            Self::MaxFrameSize => "max_frame_size",
            Self::MaxHeaderListSize => "max_header_list_size",
            Self::HeaderTableSize => "header_table_size",
            Self::OtherSettings => "other_settings",
            Self::TlsVersion => "tls_version",
            Self::CipherSuite => "cipher_suite",
            Self::KeyExchange => "key_exchange",
            Self::Alpn => "alpn",
            Self::Leaf => "leaf",
            Self::Issuer => "issuer",
            Self::Chain => "chain",
            Self::Anchor => "anchor",
            Self::Tickets => "tickets",
            Self::Resumption => "resumption",
            Self::EnforcedRequests => "enforced_requests",
            Self::EnforcedAge => "enforced_age",
            Self::EnforcedIdle => "enforced_idle",
            Self::Farewell => "farewell",
            Self::Address => "address",
        }
    }

    /// What is taken for granted before anything was seen; `None` where the first sight is the beginning.
    pub(super) fn presumed(self) -> Option<DriftValue> {
        match self {
            Self::EnforcedRequests | Self::EnforcedAge | Self::EnforcedIdle => Some(DriftValue::Absent),
            _ => None,
        }
    }

    /// Whether one provider may well have several values at once, so that going back to one is no news.
    pub(super) fn is_set(self) -> bool {
        self == Self::Address
    }

    /// Whether two values say the same. Learned limits are estimates: within a quarter they are one.
    pub(super) fn same(self, a: &DriftValue, b: &DriftValue) -> bool {
        if a == b {
            return true;
        }
        let near = |a: u128, b: u128| a.abs_diff(b) * 4 <= a.max(b);
        match (self, a, b) {
            (Self::EnforcedRequests, DriftValue::Number(a), DriftValue::Number(b)) => {
                near(u128::from(*a), u128::from(*b))
            }
            (Self::EnforcedAge | Self::EnforcedIdle, DriftValue::Time(a), DriftValue::Time(b)) => {
                near(a.as_millis(), b.as_millis())
            }
            _ => false,
        }
    }

    /// What a change from one value to the other means to us.
    pub(super) fn severity(self, from: &DriftValue, to: &DriftValue) -> DriftSeverity {
        use DriftValue::{Absent, Number, Text};
        let worse = match self {
            // No limit is the largest; for the window and the frame size the default of RFC 9113 §6.5.2 is small.
            Self::MaxConcurrentStreams | Self::MaxHeaderListSize => limit(to) < limit(from),
            Self::EnforcedRequests | Self::EnforcedAge | Self::EnforcedIdle => limit(to) < limit(from),
            Self::InitialWindowSize => limit_or(to, 65_535) < limit_or(from, 65_535),
            Self::MaxFrameSize => limit_or(to, 16_384) < limit_or(from, 16_384),
            Self::Tickets => matches!((from, to), (Number(from), Number(to)) if to < from),
            Self::Resumption => matches!(to, Text(text) if text == REFUSED),
            Self::TlsVersion => matches!((from, to), (Text(from), Text(to)) if to < from),
            Self::Alpn => matches!(from, Text(text) if text == "h2"),
            Self::KeyExchange => {
                let hybrid = |value: &DriftValue| matches!(value, Text(text) if text.contains("MLKEM"));
                hybrid(from) && !hybrid(to)
            }
            // Within what is trusted, but somebody should know why.
            Self::Issuer => *to != Absent,
            Self::Anchor => true,
            Self::HeaderTableSize
            | Self::OtherSettings
            | Self::CipherSuite
            | Self::Leaf
            // What stands beside the verified path decides nothing.
            | Self::Chain
            | Self::Farewell
            | Self::Address => false,
        };
        if worse { DriftSeverity::Warning } else { DriftSeverity::Notice }
    }
}

/// The value of [`DriftField::Resumption`] when tickets are of no use.
pub(super) const REFUSED: &str = "refused";

fn limit(value: &DriftValue) -> u128 {
    limit_or(value, u128::MAX)
}

fn limit_or(value: &DriftValue, default: u128) -> u128 {
    match value {
        DriftValue::Number(number) => u128::from(*number),
        DriftValue::Time(time) => time.as_millis(),
        DriftValue::Absent | DriftValue::Text(_) => default,
    }
}

impl fmt::Display for DriftField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a change lowers trust or capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftSeverity {
    /// It does: logged as a warning.
    Warning,
    /// It does not: logged for information.
    Notice,
}

impl DriftSeverity {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// The value of a field. Serializes as its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriftValue {
    /// The provider named none, or none is known.
    Absent,
    /// A number.
    Number(u64),
    /// A time.
    Time(Duration),
    /// A name; bounded by who makes it.
    Text(String),
}

impl fmt::Display for DriftValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("none"),
            Self::Number(number) => number.fmt(f),
            Self::Time(time) => write!(f, "{time:?}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Serialize for DriftValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<Option<u32>> for DriftValue {
    fn from(number: Option<u32>) -> Self {
        number.map_or(Self::Absent, |number| Self::Number(number.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_listed_once_in_the_order_of_the_enum() {
        assert!(DriftField::ALL.is_sorted());
        let mut names = DriftField::ALL.map(DriftField::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DriftField::ALL.len());
        for field in DriftField::ALL {
            assert_eq!(serde_name(field), field.as_str());
        }
    }

    /// What `rename_all = "snake_case"` makes of the variant.
    fn serde_name(field: DriftField) -> String {
        format!("{field:?}").chars().fold(String::new(), |mut name, c| {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
            name
        })
    }

    #[test]
    fn what_lowers_capacity_or_trust_is_a_warning() {
        use DriftSeverity::{Notice, Warning};
        use DriftValue::{Absent, Number, Text, Time};
        let text = |t: &str| Text(t.to_owned());
        let s = Duration::from_secs;
        for (field, from, to, want) in [
            (DriftField::MaxConcurrentStreams, Number(500), Number(100), Warning),
            (DriftField::MaxConcurrentStreams, Number(100), Number(500), Notice),
            (DriftField::MaxConcurrentStreams, Absent, Number(100), Warning),
            (DriftField::MaxConcurrentStreams, Number(100), Absent, Notice),
            (DriftField::InitialWindowSize, Number(1_000_000), Absent, Warning),
            (DriftField::InitialWindowSize, Absent, Number(65_535), Notice),
            (DriftField::EnforcedRequests, Absent, Number(200), Warning),
            (DriftField::EnforcedAge, Time(s(60)), Time(s(600)), Notice),
            (DriftField::EnforcedIdle, Time(s(60)), Time(s(30)), Warning),
            (DriftField::TlsVersion, text("1.3"), text("1.2"), Warning),
            (DriftField::TlsVersion, text("1.2"), text("1.3"), Notice),
            (DriftField::KeyExchange, text("X25519MLKEM768"), text("X25519"), Warning),
            (DriftField::KeyExchange, text("X25519"), text("secp256r1"), Notice),
            (DriftField::Alpn, text("h2"), text("http/1.1"), Warning),
            (DriftField::Alpn, text("http/1.1"), text("h2"), Notice),
            (DriftField::Tickets, Number(2), Number(0), Warning),
            (DriftField::Resumption, text("accepted"), text(REFUSED), Warning),
            (DriftField::Leaf, text("aa"), text("bb"), Notice),
            (DriftField::Issuer, text("aa"), text("bb"), Warning),
            (DriftField::Chain, text("aa"), text("aa bb"), Notice),
            (DriftField::Anchor, text("aa"), text("bb"), Warning),
        ] {
            assert_eq!(field.severity(&from, &to), want, "{field} {from} -> {to}");
        }
    }

    #[test]
    fn estimates_within_a_quarter_are_one() {
        let number = |n| DriftValue::Number(n);
        assert!(DriftField::EnforcedRequests.same(&number(200), &number(160)));
        assert!(!DriftField::EnforcedRequests.same(&number(200), &number(140)));
        assert!(!DriftField::MaxConcurrentStreams.same(&number(200), &number(199)));
    }
}
