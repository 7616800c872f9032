//! Every failure has one name: the table from error code to HTTP status, gRPC status, log level and blame.
//!
//! Owns [`ErrorCode`] and its table. The text of a particular failure and whether a retry is safe come with the
//! failure itself; replies are written in `egress::reply` and `grpc`.

use http::StatusCode;
use pool::{RetrySafe, SendError, SendErrorKind};
use serde::Serialize;

/// Who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The internal service that called us.
    Caller,
    /// Whoever runs this gateway.
    Operator,
    /// The provider.
    Provider,
    /// What lies between us and the provider.
    Network,
}

impl Blame {
    /// The word in logs and replies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Operator => "operator",
            Self::Provider => "provider",
            Self::Network => "network",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The stable code, the same in reply, metric and log.
    pub code: &'static str,
    /// HTTP status of the reply.
    pub status: u16,
    /// gRPC status of the reply.
    pub grpc: tonic::Code,
    /// Level of the log line.
    pub level: tracing::Level,
    /// Who can mend it.
    pub blame: Blame,
    /// The title of the problem document: short, the same for every occurrence.
    pub title: &'static str,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $grpc:ident, $level:ident, $blame:ident, $title:literal;)*) => {
        /// What went wrong with a request; the code is stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// All codes, in the order of the table.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The row of the table.
            #[must_use]
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row { code: $code, status: $status, grpc: tonic::Code::$grpc,
                        level: tracing::Level::$level, blame: Blame::$blame, title: $title },)*
                }
            }
        }
    };
}

error_codes! {
    /// The request is not valid HTTP or misses what is needed.
    BadRequest = "bad_request", 400, InvalidArgument, INFO, Caller, "The request is not valid";
    /// A path with dot segments, plain or encoded.
    PathNotAllowed = "path_not_allowed", 400, InvalidArgument, INFO, Caller, "The path contains dot segments";
    /// CONNECT or TRACE.
    MethodNotAllowed = "method_not_allowed", 405, Unimplemented, INFO, Caller, "The method is not forwarded";
    /// An `Upgrade` was asked for.
    UpgradeNotSupported = "upgrade_not_supported", 501, Unimplemented, INFO, Caller, "Upgrades are not forwarded";
    /// No route matches.
    NoRoute = "no_route", 404, NotFound, INFO, Caller, "No route matches the request";
    /// The request's headers are too large.
    HeadersTooLarge = "headers_too_large", 431, InvalidArgument, INFO, Caller, "The request headers are too large";
    /// The request's body is larger than the configured limit.
    BodyTooLarge = "body_too_large", 413, InvalidArgument, INFO, Caller, "The request body is too large";
    /// The caller did not send its request header in time.
    RequestTimeout = "request_timeout", 408, DeadlineExceeded, INFO, Caller, "The request did not arrive in time";
    /// The caller went away before the response was complete.
    CallerGone = "caller_gone", 499, Cancelled, INFO, Caller, "The caller went away";
    /// The queue for a stream is full.
    QueueFull = "queue_full", 503, ResourceExhausted, WARN, Operator, "Too many requests wait for the provider";
    /// No stream became free in time.
    QueueTimeout = "queue_timeout", 503, Unavailable, WARN, Operator, "No stream became free in time";
    /// The deadline of the whole exchange passed.
    DeadlineExceeded = "deadline_exceeded", 504, DeadlineExceeded, WARN, Provider, "The deadline passed";
    /// The queue moves too slowly for the deadline; the request was not queued.
    DeadlineUnreachable = "deadline_unreachable", 504, DeadlineExceeded, WARN, Operator, "The queue is too long for the deadline";
    /// The provider sent no response header in time.
    ResponseTimeout = "response_timeout", 504, DeadlineExceeded, WARN, Provider, "The provider did not answer in time";
    /// A body stood still for too long.
    IdleTimeout = "idle_timeout", 504, DeadlineExceeded, WARN, Provider, "The body stood still for too long";
    /// The provider reset the stream or the connection ended under the request.
    ProviderReset = "provider_reset", 502, Unavailable, WARN, Provider, "The provider ended the exchange";
    /// The provider cut its response after the header.
    ResponseCut = "response_cut", 502, Unavailable, WARN, Provider, "The provider cut its response";
    /// The response is larger than a unary reply may be.
    ResponseTooLarge = "response_too_large", 502, ResourceExhausted, WARN, Operator, "The response is too large for a unary reply";
    /// The host's name cannot be resolved.
    DnsFailure = "dns_failure", 503, Unavailable, WARN, Network, "The provider's name cannot be resolved";
    /// TCP was refused.
    ConnectionRefused = "connection_refused", 503, Unavailable, WARN, Network, "The provider refused the connection";
    /// TCP failed otherwise.
    ConnectFailure = "connect_failure", 503, Unavailable, WARN, Network, "The provider cannot be reached";
    /// TCP did not connect in time.
    ConnectTimeout = "connect_timeout", 503, Unavailable, WARN, Network, "The provider did not accept a connection in time";
    /// The outbound proxy did not open a tunnel.
    ViaFailure = "via_failure", 503, Unavailable, WARN, Operator, "The outbound proxy did not open a tunnel";
    /// The handshake did not end in time.
    TlsTimeout = "tls_timeout", 503, Unavailable, WARN, Network, "The TLS handshake did not end in time";
    /// The handshake failed.
    TlsFailure = "tls_handshake_failure", 503, Unavailable, WARN, Provider, "The TLS handshake failed";
    /// The provider closed during the handshake.
    TlsClosed = "tls_closed", 503, Unavailable, WARN, Network, "The provider closed during the TLS handshake";
    /// The provider broke TLS.
    TlsProtocolError = "tls_protocol_error", 503, Unavailable, WARN, Provider, "The provider broke the TLS protocol";
    /// No version of TLS in common.
    NoCommonVersion = "no_common_version", 503, Unavailable, WARN, Provider, "No TLS version in common";
    /// The server's chain ends at no configured anchor.
    UnknownCa = "unknown_ca", 503, Unavailable, ERROR, Operator, "The server's certificate chains to no configured anchor";
    /// The server's certificate is for another name.
    WrongServerName = "wrong_server_name", 503, Unavailable, ERROR, Provider, "The server's certificate is for another name";
    /// The server's certificate has expired.
    ServerCertificateExpired = "server_certificate_expired", 503, Unavailable, ERROR, Provider, "The server's certificate has expired";
    /// The server's certificate is not valid yet.
    ServerCertificateNotYetValid = "server_certificate_not_yet_valid", 503, Unavailable, ERROR, Provider, "The server's certificate is not valid yet";
    /// The server's certificate is invalid otherwise.
    ServerCertificateInvalid = "server_certificate_invalid", 503, Unavailable, ERROR, Provider, "The server's certificate is invalid";
    /// The anchor that the chain leads to has expired.
    AnchorExpired = "anchor_expired", 503, Unavailable, ERROR, Operator, "The trust anchor has expired";
    /// The anchor that the chain leads to is not valid yet.
    AnchorNotYetValid = "anchor_not_yet_valid", 503, Unavailable, ERROR, Operator, "The trust anchor is not valid yet";
    /// No pinned key is on the verified path.
    PinMismatch = "pin_mismatch", 503, Unavailable, ERROR, Operator, "No pinned key is on the server's verified chain";
    /// The provider refused our client certificate.
    IdentityRefused = "identity_refused", 503, Unavailable, ERROR, Operator, "The provider refused our client certificate";
    /// The provider closed right after the handshake; a refusal of our certificate is suspected.
    EndedBeforeProof = "ended_before_proof", 503, Unavailable, ERROR, Operator, "The provider closed right after the handshake";
    /// The provider did not prove that it serves in time.
    ProveTimeout = "prove_timeout", 503, Unavailable, WARN, Provider, "The provider did not acknowledge a PING in time";
    /// The application health request fails; the breaker refuses requests until it succeeds again.
    ProviderUnhealthy = "provider_unhealthy", 503, Unavailable, WARN, Provider, "The provider is unhealthy";
    /// The provider agreed on no version of HTTP.
    NoCommonAlpn = "no_common_alpn", 503, Unavailable, ERROR, Provider, "The provider speaks neither HTTP/2 nor HTTP/1.1";
    /// The provider broke HTTP.
    ProviderProtocolError = "provider_protocol_error", 502, Unavailable, WARN, Provider, "The provider broke the HTTP protocol";
    /// Our own certificate has expired; the environment is quarantined.
    CertificateExpired = "certificate_expired", 503, FailedPrecondition, ERROR, Operator, "Our client certificate has expired";
    /// Our own certificate is not valid yet; the environment is quarantined.
    CertificateNotYetValid = "certificate_not_yet_valid", 503, FailedPrecondition, ERROR, Operator, "Our client certificate is not valid yet";
    /// The environment is quarantined for another reason.
    Quarantined = "quarantined", 503, FailedPrecondition, ERROR, Operator, "The environment is quarantined";
    /// The gateway is stopping.
    Stopping = "stopping", 503, Unavailable, INFO, Operator, "The gateway is stopping";
    /// The environment named does not exist.
    UnknownEnvironment = "unknown_environment", 404, NotFound, INFO, Caller, "No such environment or route";
}

impl ErrorCode {
    /// The stable code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    /// HTTP status of the reply. 499 (caller gone) is never sent; it stands in the log.
    #[must_use]
    pub fn status(self) -> StatusCode {
        // The table holds only numbers from 400 to 599; a test walks it.
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::BAD_GATEWAY)
    }

    /// The code with this name, if there is one.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str() == code)
    }

    /// The code of a request that the pool could not carry.
    #[must_use]
    pub fn of_send_error(error: &SendError) -> Self {
        match &error.kind {
            SendErrorKind::Unavailable(dial) => Self::from_code(dial.code()).unwrap_or(Self::ConnectFailure),
            SendErrorKind::QueueFull { .. } => Self::QueueFull,
            SendErrorKind::QueueTimeout { .. } => Self::QueueTimeout,
            SendErrorKind::ResponseTimeout { .. } => Self::ResponseTimeout,
            SendErrorKind::IdleTimeout { .. } => Self::IdleTimeout,
            SendErrorKind::TotalTimeout { .. } => Self::DeadlineExceeded,
            SendErrorKind::DeadlineUnreachable { .. } => Self::DeadlineUnreachable,
            SendErrorKind::ProviderReset { .. } => Self::ProviderReset,
            SendErrorKind::CallerGone { .. } => Self::CallerGone,
            SendErrorKind::BodyTooLarge { .. } => Self::BodyTooLarge,
            SendErrorKind::InvalidRequest { .. } => Self::BadRequest,
            SendErrorKind::Stopping => Self::Stopping,
        }
    }

    /// Whether sending the same request again is safe, for failures that happen before the pool is asked.
    #[must_use]
    pub fn retry_safe_before_send(self) -> RetrySafe {
        match self.row().blame {
            Blame::Caller => RetrySafe::No,
            Blame::Operator | Blame::Provider | Blame::Network => RetrySafe::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_an_error_status_with_a_unique_code() {
        let mut seen = std::collections::HashSet::new();
        for code in ErrorCode::ALL {
            let row = code.row();
            assert!((400..600).contains(&row.status), "{}", row.code);
            assert!(seen.insert(row.code), "{} stands twice", row.code);
            assert!(row.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.code);
            assert_eq!(ErrorCode::from_code(row.code), Some(*code));
        }
    }

    #[test]
    fn the_documentation_has_every_row_and_no_other() {
        let text = include_str!("../../../docs/errors.md");
        let documented: Vec<_> =
            text.lines().filter(|l| l.starts_with("| `") && l.matches('|').count() == 7).collect();
        let expected: Vec<_> = ErrorCode::ALL
            .iter()
            .map(|code| {
                let row = code.row();
                let level = row.level.to_string().to_lowercase();
                format!(
                    "| `{}` | {} | {:?} | {level} | {} |",
                    row.code,
                    row.status,
                    row.grpc,
                    row.blame.as_str()
                )
            })
            .collect();
        for row in &expected {
            assert!(documented.iter().any(|d| d.starts_with(row.as_str())), "docs/errors.md lacks: {row}");
        }
        assert_eq!(documented.len(), expected.len(), "docs/errors.md has rows for codes that do not exist");
    }

    #[test]
    fn every_way_a_dial_can_fail_is_in_the_table_under_its_own_name() {
        use pool::DialError as D;
        use tls_core::TlsFault as F;
        let text = || "x".to_owned();
        let after = std::time::Duration::from_secs(1);
        let now = time::OffsetDateTime::UNIX_EPOCH;
        let faults = [
            F::IdentityRefused { alert: "bad_certificate" },
            F::UnknownCa,
            F::WrongServerName { presented: Vec::new() },
            F::ServerCertificateExpired,
            F::ServerCertificateNotYetValid,
            F::ServerCertificateInvalid { detail: text() },
            F::AnchorExpired { label: text(), not_after: now },
            F::AnchorNotYetValid { label: text(), not_before: now },
            F::PinMismatch { presented: Vec::new() },
            F::NoCommonAlpn,
            F::NoCommonVersion,
            F::HandshakeFailure { detail: text() },
            F::Closed,
            F::Protocol { detail: text() },
        ];
        let dials = [
            D::Dns { host: text(), detail: text() },
            D::Refused { address: text(), detail: text() },
            D::Connect { address: text(), detail: text() },
            D::Via { proxy: text(), detail: text() },
            D::ConnectTimeout { address: text(), after },
            D::TlsTimeout { after },
            D::EndedBeforeProof { detail: text() },
            D::ProveTimeout { after },
            D::RefusedInHttp { path: text(), status: 495 },
            D::Unhealthy { path: text(), detail: text() },
            D::Unanswering { times: 3 },
            D::Protocol { detail: text() },
        ];
        for code in faults.iter().map(F::code).chain(dials.iter().map(D::code)) {
            assert!(ErrorCode::from_code(code).is_some(), "{code} is not in the table");
        }
    }
}
