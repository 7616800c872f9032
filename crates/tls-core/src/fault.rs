//! What went wrong in TLS: one name each, and whether our own certificate is to blame.
//!
//! Owns the translation from rustls' errors. What follows from a fault (retry, back-off, quarantine) is the
//! pool's matter.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use time::OffsetDateTime;

use crate::clock::rfc3339;
use crate::pin::SpkiPin;
use crate::verifier::VerifyFault;

/// How many of a certificate's names are kept: enough to recognise whose it is; shared certificates have
/// hundreds.
const MAX_NAMES: usize = 16;

/// Why a TLS connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The server refused *our* certificate with a certificate alert. In TLS 1.3 this may come after the
    /// handshake seemed complete.
    IdentityRefused {
        /// The alert's name, such as `unknown_ca`.
        alert: &'static str,
    },
    /// The server's chain ends in none of the anchors.
    UnknownCa,
    /// The server's certificate is for other names.
    WrongServerName {
        /// The names in it, the first 16.
        presented: Vec<String>,
    },
    /// A certificate of the server's chain has expired.
    ServerCertificateExpired,
    /// A certificate of the server's chain is not valid yet.
    ServerCertificateNotYetValid,
    /// The server's chain is invalid in another way.
    ServerCertificateInvalid {
        /// What is wrong.
        detail: String,
    },
    /// The anchor that the chain ends in has expired.
    AnchorExpired {
        /// The anchor's file, as the user wrote it.
        label: String,
        /// When it expired.
        not_after: OffsetDateTime,
    },
    /// The anchor that the chain ends in is not valid yet.
    AnchorNotYetValid {
        /// The anchor's file, as the user wrote it.
        label: String,
        /// From when it is valid.
        not_before: OffsetDateTime,
    },
    /// The chain is good, but none of its keys is pinned.
    PinMismatch {
        /// The keys on the verified path, leaf first, anchor last.
        presented: Vec<SpkiPin>,
    },
    /// Server and gateway share no application protocol.
    NoCommonAlpn,
    /// Server and gateway share no protocol version.
    NoCommonVersion,
    /// The handshake failed without a named cause. In TLS 1.2, after our certificate was sent, this may be
    /// its refusal: *suspected* only.
    HandshakeFailure {
        /// What is known.
        detail: String,
    },
    /// The connection ended during the handshake.
    Closed,
    /// The peer broke the protocol, or what it speaks is not TLS.
    Protocol {
        /// What is known.
        detail: String,
    },
}

impl TlsFault {
    /// The fault behind a rustls error.
    pub fn from_rustls(error: &Error) -> Self {
        match error {
            Error::AlertReceived(alert) => from_alert(*alert),
            Error::InvalidCertificate(error) => from_certificate_error(error),
            Error::NoCertificatesPresented => {
                Self::ServerCertificateInvalid { detail: "the server presented no certificate".into() }
            }
            Error::PeerIncompatible(reason) => from_incompatible(reason),
            Error::NoApplicationProtocol => Self::NoCommonAlpn,
            other => Self::Protocol { detail: other.to_string() },
        }
    }

    /// The fault behind an error of a TLS stream: a rustls error inside it, or the stream's end. `None` for
    /// errors that are the socket's own, such as a reset.
    pub fn from_io(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(rustls) => Some(Self::from_rustls(rustls)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Some(Self::Closed),
            None => None,
        }
    }

    /// A stable name: label of metrics, part of error codes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::IdentityRefused { .. } => "identity_refused",
            Self::UnknownCa => "unknown_ca",
            Self::WrongServerName { .. } => "wrong_server_name",
            Self::ServerCertificateExpired => "server_certificate_expired",
            Self::ServerCertificateNotYetValid => "server_certificate_not_yet_valid",
            Self::ServerCertificateInvalid { .. } => "server_certificate_invalid",
            Self::AnchorExpired { .. } => "anchor_expired",
            Self::AnchorNotYetValid { .. } => "anchor_not_yet_valid",
            Self::PinMismatch { .. } => "pin_mismatch",
            Self::NoCommonAlpn => "no_common_alpn",
            Self::NoCommonVersion => "no_common_version",
            Self::HandshakeFailure { .. } => "tls_handshake_failure",
            Self::Closed => "tls_closed",
            Self::Protocol { .. } => "tls_protocol_error",
        }
    }

    /// Whether the server said that our certificate is the reason. Dialling again with it is of no use.
    pub fn is_identity_fault(&self) -> bool {
        matches!(self, Self::IdentityRefused { .. })
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdentityRefused { alert } => write!(
                f,
                "the server refused our client certificate (alert {alert}); check that this certificate is endorsed for this environment"
            ),
            Self::UnknownCa => f.write_str("the server's chain ends in none of the configured anchors"),
            Self::WrongServerName { presented } => {
                write!(f, "the server's certificate is for {}", list(presented))
            }
            Self::ServerCertificateExpired => f.write_str("a certificate of the server's chain has expired"),
            Self::ServerCertificateNotYetValid => f.write_str(
                "a certificate of the server's chain is not valid yet; check this machine's clock",
            ),
            Self::ServerCertificateInvalid { detail } => write!(f, "the server's chain is invalid: {detail}"),
            Self::AnchorExpired { label, not_after } => {
                write!(f, "the anchor in {label} expired on {}", rfc3339(*not_after))
            }
            Self::AnchorNotYetValid { label, not_before } => {
                write!(f, "the anchor in {label} is not valid before {}", rfc3339(*not_before))
            }
            Self::PinMismatch { presented } => {
                write!(f, "no key on the server's verified chain is pinned; it has {}", list(presented))
            }
            Self::NoCommonAlpn => f.write_str("the server speaks none of the application protocols offered"),
            Self::NoCommonVersion => f.write_str("the server speaks neither TLS 1.2 nor TLS 1.3"),
            Self::HandshakeFailure { detail } => write!(f, "the handshake failed: {detail}"),
            Self::Closed => f.write_str("the connection ended during the handshake"),
            Self::Protocol { detail } => write!(f, "not proper TLS: {detail}"),
        }
    }
}

impl std::error::Error for TlsFault {}

fn from_alert(alert: AlertDescription) -> TlsFault {
    use AlertDescription as A;
    if let Some(alert) = identity_alert(alert) {
        return TlsFault::IdentityRefused { alert };
    }
    match alert {
        A::CloseNotify => TlsFault::Closed,
        A::NoApplicationProtocol => TlsFault::NoCommonAlpn,
        A::ProtocolVersion => TlsFault::NoCommonVersion,
        A::HandshakeFailure
        | A::InsufficientSecurity
        | A::UnrecognisedName
        | A::DecryptError
        | A::InternalError
        | A::UserCanceled => TlsFault::HandshakeFailure { detail: alert_detail(alert) },
        _ => TlsFault::Protocol { detail: alert_detail(alert) },
    }
}

/// The alerts that speak of a peer's certificate: received by us, they speak of ours (RFC 8446 §6.2).
fn identity_alert(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as A;
    Some(match alert {
        A::BadCertificate => "bad_certificate",
        A::UnsupportedCertificate => "unsupported_certificate",
        A::CertificateRevoked => "certificate_revoked",
        A::CertificateExpired => "certificate_expired",
        A::CertificateUnknown => "certificate_unknown",
        A::UnknownCA => "unknown_ca",
        A::AccessDenied => "access_denied",
        A::CertificateRequired => "certificate_required",
        _ => return None,
    })
}

fn alert_detail(alert: AlertDescription) -> String {
    match alert.as_str() {
        Some(name) => format!("the server sent the alert {name}"),
        None => format!("the server sent the unknown alert {}", u8::from(alert)),
    }
}

fn from_incompatible(reason: &PeerIncompatible) -> TlsFault {
    use PeerIncompatible as P;
    match reason {
        P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        | P::SupportedVersionsExtensionRequired => TlsFault::NoCommonVersion,
        other => TlsFault::HandshakeFailure { detail: format!("the server is incompatible: {other:?}") },
    }
}

fn from_certificate_error(error: &CertificateError) -> TlsFault {
    use CertificateError as C;
    match error {
        C::UnknownIssuer => TlsFault::UnknownCa,
        C::Expired | C::ExpiredContext { .. } => TlsFault::ServerCertificateExpired,
        C::NotValidYet | C::NotValidYetContext { .. } => TlsFault::ServerCertificateNotYetValid,
        C::NotValidForName => TlsFault::WrongServerName { presented: Vec::new() },
        C::NotValidForNameContext { presented, .. } => {
            let shown = presented.iter().take(MAX_NAMES).map(|name| plain_name(name));
            TlsFault::WrongServerName { presented: shown.collect() }
        }
        C::Other(other) => match other.0.downcast_ref::<VerifyFault>() {
            Some(fault) => from_verify_fault(fault.clone()),
            None => TlsFault::ServerCertificateInvalid { detail: other.0.to_string() },
        },
        other => TlsFault::ServerCertificateInvalid { detail: other.to_string() },
    }
}

fn from_verify_fault(fault: VerifyFault) -> TlsFault {
    match fault {
        VerifyFault::PinMismatch { presented } => TlsFault::PinMismatch { presented },
        VerifyFault::AnchorExpired { label, not_after } => TlsFault::AnchorExpired { label, not_after },
        VerifyFault::AnchorNotYetValid { label, not_before } => {
            TlsFault::AnchorNotYetValid { label, not_before }
        }
    }
}

/// webpki writes `DnsName("host")`; people want `host`.
fn plain_name(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').to_owned()
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "no name at all".into();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
