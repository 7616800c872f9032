//! Every rustls error that matters, and its name.

use std::sync::Arc;

use rustls::{OtherError, PeerMisbehaved};
use time::macros::datetime;

use super::*;

#[test]
fn the_certificate_alerts_are_identity_faults() {
    use AlertDescription as A;
    let cases = [
        (A::BadCertificate, "bad_certificate"),
        (A::UnsupportedCertificate, "unsupported_certificate"),
        (A::CertificateRevoked, "certificate_revoked"),
        (A::CertificateExpired, "certificate_expired"),
        (A::CertificateUnknown, "certificate_unknown"),
        (A::UnknownCA, "unknown_ca"),
        (A::AccessDenied, "access_denied"),
        (A::CertificateRequired, "certificate_required"),
    ];
    for (alert, name) in cases {
        let fault = TlsFault::from_rustls(&Error::AlertReceived(alert));
        assert_eq!(fault, TlsFault::IdentityRefused { alert: name });
        assert!(fault.is_identity_fault());
        assert!(fault.to_string().contains(name));
    }
}

#[test]
fn other_alerts_are_not_identity_faults() {
    use AlertDescription as A;
    let cases = [
        (A::HandshakeFailure, "tls_handshake_failure"),
        (A::InsufficientSecurity, "tls_handshake_failure"),
        (A::UnrecognisedName, "tls_handshake_failure"),
        (A::InternalError, "tls_handshake_failure"),
        (A::DecryptError, "tls_handshake_failure"),
        (A::NoApplicationProtocol, "no_common_alpn"),
        (A::ProtocolVersion, "no_common_version"),
        (A::CloseNotify, "tls_closed"),
        (A::UnexpectedMessage, "tls_protocol_error"),
        (A::Unknown(200), "tls_protocol_error"),
    ];
    for (alert, code) in cases {
        let fault = TlsFault::from_rustls(&Error::AlertReceived(alert));
        assert_eq!(fault.code(), code, "{alert:?}");
        assert!(!fault.is_identity_fault());
    }
}

#[test]
fn our_own_refusals_are_told_apart() {
    let of = |error: CertificateError| TlsFault::from_rustls(&Error::InvalidCertificate(error));
    assert_eq!(of(CertificateError::UnknownIssuer), TlsFault::UnknownCa);
    assert_eq!(of(CertificateError::Expired), TlsFault::ServerCertificateExpired);
    assert_eq!(of(CertificateError::NotValidYet), TlsFault::ServerCertificateNotYetValid);
    assert_eq!(of(CertificateError::BadSignature).code(), "server_certificate_invalid");
    let at = datetime!(2028-10-22 12:00 UTC);
    let fault = VerifyFault::AnchorExpired { label: "chain.pem".into(), not_after: at };
    let carried = of(CertificateError::Other(OtherError(Arc::new(fault))));
    assert_eq!(carried, TlsFault::AnchorExpired { label: "chain.pem".into(), not_after: at });
    assert_eq!(carried.to_string(), "the anchor in chain.pem expired on 2028-10-22T12:00:00Z");
}

#[test]
fn versions_and_misbehaviour() {
    let incompatible = Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13);
    assert_eq!(TlsFault::from_rustls(&incompatible), TlsFault::NoCommonVersion);
    let suites = Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon);
    assert_eq!(TlsFault::from_rustls(&suites).code(), "tls_handshake_failure");
    let misbehaved = Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol);
    assert_eq!(TlsFault::from_rustls(&misbehaved).code(), "tls_protocol_error");
    assert_eq!(TlsFault::from_rustls(&Error::NoCertificatesPresented).code(), "server_certificate_invalid");
}

#[test]
fn errors_of_a_stream_are_looked_into() {
    let alert = Error::AlertReceived(AlertDescription::AccessDenied);
    let wrapped = io::Error::new(io::ErrorKind::InvalidData, alert);
    assert!(TlsFault::from_io(&wrapped).unwrap().is_identity_fault());
    let eof = io::Error::from(io::ErrorKind::UnexpectedEof);
    assert_eq!(TlsFault::from_io(&eof), Some(TlsFault::Closed));
    assert_eq!(TlsFault::from_io(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
}

#[test]
fn names_are_shown_without_the_librarys_wrapping() {
    assert_eq!(plain_name("DnsName(\"host.test\")"), "host.test");
    assert_eq!(plain_name("IpAddress(127.0.0.1)"), "127.0.0.1");
    assert_eq!(plain_name("host.test"), "host.test");
    let fault = TlsFault::WrongServerName { presented: vec!["a.test".into(), "b.test".into()] };
    assert_eq!(fault.to_string(), "the server's certificate is for a.test, b.test");
    let many = CertificateError::NotValidForNameContext {
        expected: "host.test".try_into().unwrap(),
        presented: (0..100).map(|number| format!("DnsName(\"{number}.test\")")).collect(),
    };
    let fault = TlsFault::from_rustls(&Error::InvalidCertificate(many));
    assert!(matches!(fault, TlsFault::WrongServerName { presented } if presented.len() == MAX_NAMES));
    let none = TlsFault::WrongServerName { presented: vec![] };
    assert_eq!(none.to_string(), "the server's certificate is for no name at all");
}

#[test]
fn every_fault_has_a_code_of_its_own_and_a_text() {
    let detail = || "x".to_owned();
    let at = datetime!(2028-10-22 12:00 UTC);
    let all = [
        TlsFault::IdentityRefused { alert: "unknown_ca" },
        TlsFault::UnknownCa,
        TlsFault::WrongServerName { presented: vec![] },
        TlsFault::ServerCertificateExpired,
        TlsFault::ServerCertificateNotYetValid,
        TlsFault::ServerCertificateInvalid { detail: detail() },
        TlsFault::AnchorExpired { label: detail(), not_after: at },
        TlsFault::AnchorNotYetValid { label: detail(), not_before: at },
        TlsFault::PinMismatch { presented: vec![] },
        TlsFault::NoCommonAlpn,
        TlsFault::NoCommonVersion,
        TlsFault::HandshakeFailure { detail: detail() },
        TlsFault::Closed,
        TlsFault::Protocol { detail: detail() },
    ];
    let codes: std::collections::HashSet<_> = all.iter().map(TlsFault::code).collect();
    assert_eq!(codes.len(), all.len());
    assert!(codes.iter().all(|code| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    assert!(all.iter().all(|fault| !fault.to_string().is_empty()));
}
