//! Owns what can go wrong with a call to a customer, in words. It does not own the call.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

/// How far a call to a customer had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressPhase {
    /// TCP.
    Connect,
    /// TLS.
    Handshake,
    /// The request is on its way, or the response.
    Exchange,
}

impl fmt::Display for IngressPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "TCP connect",
            Self::Handshake => "TLS handshake",
            Self::Exchange => "exchange",
        })
    }
}

/// Why a call to a customer brought no response. Every message says where, what, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngressError {
    /// The call itself cannot be made: an anchor, the server name or the request is not valid. Nothing was dialled.
    #[error("the call to {address} cannot be made: {problem}")]
    Invalid {
        /// Whom it was for.
        address: SocketAddr,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}; the customer's listener must run there")]
    Connect {
        /// Whom it was for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The customer refused with a TLS alert, within the handshake or (TLS 1.3) at the first read after it.
    #[error(
        "{address} refused at TLS with alert {alert:?} ({}); it must trust the provider's client CA and offer a TLS and HTTP version of the call",
        u8::from(*alert)
    )]
    Refused {
        /// Who refused.
        address: SocketAddr,
        /// The alert.
        alert: AlertDescription,
    },
    /// The customer's server chain does not lead to the anchors, or is not for that name or time.
    #[error(
        "the server chain of {address} is not trusted: {reason}; give the anchors of the chain that it serves, and its name"
    )]
    Distrusted {
        /// Who served it.
        address: SocketAddr,
        /// What the verifier said.
        reason: CertificateError,
    },
    /// The handshake failed otherwise.
    #[error("TLS with {address} failed: {source}; the customer's listener must speak TLS 1.2 or 1.3")]
    Handshake {
        /// With whom.
        address: SocketAddr,
        /// What the TLS library or the system said.
        source: std::io::Error,
    },
    /// HTTP/2 alone was offered and the customer agreed to none.
    #[error("{address} did not agree to h2; let the call offer http/1.1 too")]
    NotHttp2 {
        /// Who did not.
        address: SocketAddr,
    },
    /// The connection broke or HTTP was not as it must be, before the response was whole.
    #[error("no whole response from {address}: {problem}; the log of the customer's listener says more")]
    Http {
        /// From whom.
        address: SocketAddr,
        /// What the HTTP library said.
        problem: String,
    },
    /// The response's body is longer than the call allows.
    #[error("the response of {address} has a body above {limit} bytes; raise `max_body_bytes` of the call")]
    TooLarge {
        /// Whose.
        address: SocketAddr,
        /// The limit, in bytes.
        limit: usize,
    },
    /// It took too long.
    #[error(
        "the call to {address} was not done after {after:?}, in its {phase}; raise `timeout` of the call if the customer is slow"
    )]
    Timeout {
        /// Whom it was for.
        address: SocketAddr,
        /// How far it had come.
        phase: IngressPhase,
        /// The time given to the whole call.
        after: Duration,
    },
}
