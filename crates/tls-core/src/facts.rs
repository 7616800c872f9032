//! What a finished handshake established, as plain data for logs, metrics and passports.
//!
//! Owns names and labels. The durations of the phases belong to whoever holds the socket.

use std::fmt;

use rustls::ProtocolVersion;
use serde::Serialize;
use time::OffsetDateTime;

use crate::certificate::Fingerprint;
use crate::clock::serialize_rfc3339;
use crate::generation::Alpn;
use crate::pin::SpkiPin;

/// What one handshake established. Made by [`Generation::assert_established`](crate::Generation).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandshakeFacts {
    /// Protocol version.
    pub version: TlsVersion,
    /// Cipher suite by its IANA name, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: &'static str,
    /// Key exchange group, such as `X25519MLKEM768`; `None` on a resumed TLS 1.2 handshake, which has none.
    pub key_exchange: Option<&'static str>,
    /// Full or resumed.
    pub kind: HandshakeKind,
    /// The application protocol; `None` if the server negotiated none (it then speaks HTTP/1.1).
    pub alpn: Option<Alpn>,
    /// Fingerprints of the chain the server presented, leaf first. On a resumed handshake: the chain kept
    /// with the session.
    pub peer_chain: Vec<Fingerprint>,
    /// End of the server leaf's validity.
    #[serde(serialize_with = "serialize_rfc3339")]
    pub peer_not_after: OffsetDateTime,
    /// The anchor that the verified path ends in.
    pub anchor: Fingerprint,
    /// The file that this anchor came from, as the user wrote it.
    pub anchor_label: String,
    /// The pinned key on the verified path, nearest to the leaf; `None` where no pin is configured.
    pub pin: Option<SpkiPin>,
}

/// Whether a handshake was full or resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HandshakeKind {
    /// Full: certificates were exchanged and verified.
    Full,
    /// Full, and the server asked for another key exchange group first: one more round trip.
    FullWithHelloRetryRequest,
    /// Resumed from a ticket or session.
    Resumed,
}

impl HandshakeKind {
    /// Whether certificates were *not* exchanged on this connection.
    pub fn is_resumed(self) -> bool {
        self == Self::Resumed
    }

    /// The label `kind` of the handshake metrics: `full` or `resumed`.
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Full | Self::FullWithHelloRetryRequest => "full",
            Self::Resumed => "resumed",
        }
    }
}

impl From<rustls::HandshakeKind> for HandshakeKind {
    fn from(kind: rustls::HandshakeKind) -> Self {
        match kind {
            rustls::HandshakeKind::Full => Self::Full,
            rustls::HandshakeKind::FullWithHelloRetryRequest => Self::FullWithHelloRetryRequest,
            rustls::HandshakeKind::Resumed => Self::Resumed,
        }
    }
}

impl fmt::Display for HandshakeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::FullWithHelloRetryRequest => "full with hello retry request",
            Self::Resumed => "resumed",
        })
    }
}

/// The protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsVersion {
    /// `None` for versions that this crate never offers.
    pub(crate) fn from_rustls(version: ProtocolVersion) -> Option<Self> {
        match version {
            ProtocolVersion::TLSv1_2 => Some(Self::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Self::Tls13),
            _ => None,
        }
    }

    /// `1.2` or `1.3`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS {}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_labels_are_full_or_resumed() {
        assert_eq!(HandshakeKind::Full.as_label(), "full");
        assert_eq!(HandshakeKind::FullWithHelloRetryRequest.as_label(), "full");
        assert_eq!(HandshakeKind::Resumed.as_label(), "resumed");
        assert!(HandshakeKind::Resumed.is_resumed());
        assert!(!HandshakeKind::FullWithHelloRetryRequest.is_resumed());
    }

    #[test]
    fn versions_below_1_2_have_no_name() {
        assert_eq!(TlsVersion::from_rustls(ProtocolVersion::TLSv1_1), None);
        assert_eq!(TlsVersion::from_rustls(ProtocolVersion::TLSv1_3), Some(TlsVersion::Tls13));
        assert_eq!(TlsVersion::Tls12.to_string(), "TLS 1.2");
        assert_eq!(serde_json::to_string(&TlsVersion::Tls13).unwrap(), "\"1.3\"");
    }
}
