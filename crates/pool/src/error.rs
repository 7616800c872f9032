//! Why a request got no response, or a dial no connection: one kind each, the same in reply, log and metric.
//!
//! Owns the kinds and their stable codes. Which HTTP status and log level belongs to a code is the gateway's table.

use std::{sync::Arc, time::Duration};

use tls_core::{HandshakeKind, TlsFault};

use crate::{
    journey::{Journey, Phase},
    verdict::{RetrySafe, Verdict},
};

/// Why a dial failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// The host's name has no address.
    #[error("the name {host} cannot be resolved: {detail}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        detail: String,
    },
    /// TCP was refused or reset.
    #[error("{address} refused the connection: {detail}")]
    Refused {
        /// The address dialled.
        address: String,
        /// The system's words.
        detail: String,
    },
    /// TCP failed otherwise.
    #[error("cannot connect to {address}: {detail}")]
    Connect {
        /// The address dialled.
        address: String,
        /// The system's words.
        detail: String,
    },
    /// The outbound proxy did not open the tunnel.
    #[error("the proxy {proxy} did not open a tunnel: {detail}")]
    Via {
        /// The proxy.
        proxy: String,
        /// Its answer.
        detail: String,
    },
    /// TCP did not connect in time.
    #[error("{address} did not accept a connection within {after:?}")]
    ConnectTimeout {
        /// The address dialled.
        address: String,
        /// The limit.
        after: Duration,
    },
    /// The handshake did not end in time.
    #[error("the TLS handshake did not end within {after:?}")]
    TlsTimeout {
        /// The limit.
        after: Duration,
    },
    /// The handshake failed, or the provider refused our certificate afterwards.
    #[error("{0}")]
    Tls(TlsFault),
    /// The connection ended before the proof although nothing said why, on a full handshake: a late refusal of
    /// our certificate is suspected.
    #[error("the provider closed the connection right after the handshake: {detail}")]
    EndedBeforeProof {
        /// How it ended.
        detail: String,
    },
    /// The proof did not come in time.
    #[error("the provider acknowledged no PING within {after:?} of the handshake")]
    ProveTimeout {
        /// The limit.
        after: Duration,
    },
    /// TLS and HTTP work, but the server refuses our certificate in its answer to the health request.
    #[error(
        "the provider answered {status} to the health request {path}: it refuses our certificate in HTTP"
    )]
    RefusedInHttp {
        /// Path of the health request.
        path: String,
        /// Its status.
        status: u16,
    },
    /// The application health request fails.
    #[error("the provider is unhealthy: the health request {path} failed: {detail}")]
    Unhealthy {
        /// Path of the health request.
        path: String,
        /// How it failed.
        detail: String,
    },
    /// PINGs and requests are left unanswered, and nothing is heard.
    #[error(
        "the provider is unhealthy: {times} times in a row PINGs or requests went unanswered and nothing was heard"
    )]
    Unanswering {
        /// How often.
        times: u8,
    },
    /// The provider agreed on neither HTTP/2 nor HTTP/1.1, or broke the protocol it agreed on.
    #[error("HTTP could not be started: {detail}")]
    Protocol {
        /// What went wrong.
        detail: String,
    },
}

impl DialError {
    /// Why a connection never came to serve that ended between the handshake and the proof: the TLS reason, if there
    /// was one. An end without a word, be it a reset or a plain end of the stream, is a suspected refusal of our
    /// certificate, unless the handshake was resumed: then the certificate was not looked at.
    pub(crate) fn before_proof(fault: Option<TlsFault>, detail: String, kind: HandshakeKind) -> Self {
        match fault.filter(|fault| *fault != TlsFault::Closed) {
            Some(fault) => Self::Tls(fault),
            None if kind.is_resumed() => Self::Protocol { detail },
            None => Self::EndedBeforeProof { detail },
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns_failure",
            Self::Refused { .. } => "connection_refused",
            Self::Connect { .. } => "connect_failure",
            Self::Via { .. } => "via_failure",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::TlsTimeout { .. } => "tls_timeout",
            Self::Tls(fault) => fault.code(),
            Self::EndedBeforeProof { .. } => "ended_before_proof",
            Self::ProveTimeout { .. } => "prove_timeout",
            Self::RefusedInHttp { .. } => "identity_refused",
            Self::Unhealthy { .. } | Self::Unanswering { .. } => "provider_unhealthy",
            Self::Protocol { .. } => "provider_protocol_error",
        }
    }

    /// The provider refused our certificate: dialling again with it cannot help.
    #[must_use]
    pub fn is_identity_fault(&self) -> bool {
        match self {
            Self::Tls(fault) => fault.is_identity_fault(),
            Self::RefusedInHttp { .. } => true,
            _ => false,
        }
    }
}

/// Why a request got no response.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendErrorKind {
    /// No connection serves, and the last dial failed for this reason.
    #[error("no connection to the provider: {0}")]
    Unavailable(Arc<DialError>),
    /// The queue is full.
    #[error("{depth} requests already wait for a stream")]
    QueueFull {
        /// Requests waiting.
        depth: u32,
    },
    /// No stream became free in time.
    #[error("no stream became free within {after:?}")]
    QueueTimeout {
        /// How long it waited.
        after: Duration,
    },
    /// The deadline would pass before a stream becomes free.
    #[error(
        "a stream would become free in about {estimate:?}, but only {left:?} are left until the deadline"
    )]
    DeadlineUnreachable {
        /// How long it would have to wait, by how fast the queue moves now.
        estimate: Duration,
        /// What the deadline leaves.
        left: Duration,
    },
    /// The provider sent no response header in time.
    #[error("the provider sent no response within {after:?}")]
    ResponseTimeout {
        /// The limit.
        after: Duration,
    },
    /// A body stood still for too long.
    #[error("no byte of the body moved for {after:?}")]
    IdleTimeout {
        /// The limit.
        after: Duration,
    },
    /// The whole exchange took too long.
    #[error("the exchange did not end within {after:?}")]
    TotalTimeout {
        /// The limit.
        after: Duration,
    },
    /// The connection ended, or the provider reset the stream.
    #[error("the provider ended the exchange: {detail}")]
    ProviderReset {
        /// What h2 reported.
        detail: String,
    },
    /// The caller went away or its body failed while being read.
    #[error("the caller's request body ended early: {detail}")]
    CallerGone {
        /// What was reported.
        detail: String,
    },
    /// The caller's body is larger than allowed.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The request cannot be expressed in HTTP/2.
    #[error("the request cannot be sent: {detail}")]
    InvalidRequest {
        /// What h2 reported.
        detail: String,
    },
    /// The pool is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

/// A request that got no response: why, whether a retry is safe, and what happened on the way.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}")]
pub struct SendError {
    /// Why.
    pub kind: SendErrorKind,
    /// What is known about processing; `None` when the request never reached a connection for reasons of ours.
    pub verdict: Option<Verdict>,
    /// What the caller is told.
    pub retry_safe: RetrySafe,
    /// The way so far.
    pub journey: Journey,
}

/// Why a response's body ended early.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BodyError {
    /// The provider reset the stream or the connection ended.
    #[error("the provider cut the response: {0}")]
    Cut(ResponseCut),
    /// The caller's own body ended early, so the exchange cannot go on.
    #[error("the caller's request body ended early")]
    CallerGone,
    /// The caller sent no byte of its own body for too long, after the response had begun.
    #[error("the caller sent no byte of its request body for {0:?}")]
    CallerStalled(Duration),
    /// The caller's own body is larger than allowed, which showed after the response had begun.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The caller did not read the response for too long.
    #[error("the caller read no byte of the response for {0:?}")]
    Unread(Duration),
    /// The deadline of the whole exchange passed.
    #[error("the exchange did not end before its deadline")]
    Deadline,
    /// No byte moved for too long because of the provider: none of the response arrived, or it took none of the request.
    #[error("the provider moved no byte for {0:?}")]
    Idle(Duration),
}

/// How a response was cut.
#[derive(Clone, Debug)]
pub struct ResponseCut {
    /// [`Phase::ResponseBody`], or [`Phase::Trailers`] where the body was complete.
    pub phase: Phase,
    /// What h2 or hyper reported.
    pub detail: String,
}

impl std::fmt::Display for ResponseCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if self.phase == Phase::Trailers { "before its trailers" } else { "in its body" };
        write!(f, "{place}: {}", self.detail)
    }
}
