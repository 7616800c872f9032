//! The seam between the gRPC API and the egress path.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use pool::{Journey, RetrySafe};

use crate::{egress::Share, outcome::ErrorCode};

/// Who calls, put into a request's extensions by the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The address; `None` on a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whose share of the queue its requests take.
    pub share: Share,
}

/// Where a call asks to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this environment, past the routes.
    Environment(String),
    /// By this route.
    Route(String),
    /// By whichever route matches path, method and headers.
    Matched,
}

/// Where it goes: indexes in the configuration, as in [`Outcome`](crate::telemetry::Outcome).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The route; `None` when an environment was named.
    pub route: Option<u16>,
    /// The environment.
    pub environment: u16,
}

/// One request to carry out.
#[derive(Debug)]
pub struct Call {
    /// Where to.
    pub placed: Placed,
    /// The request as the caller gave it: origin-form target, headers not cleaned yet; it carries an
    /// `x-correlation-id`.
    pub request: Request<Bytes>,
    /// Whose share of the queue it takes; `None` without a listener.
    pub share: Option<Share>,
    /// Time left for the whole exchange by the caller's deadline; `None` without one.
    pub timeout: Option<Duration>,
    /// Largest response body to take, in bytes; beyond it the call fails with `response_too_large`.
    pub max_response_bytes: usize,
}

/// A response, whole.
#[derive(Debug)]
pub struct Executed {
    /// Status, headers (hop-by-hop fields and `gw-*` removed) and body.
    pub response: Response<Bytes>,
    /// Trailer fields, if any came.
    pub trailers: Option<HeaderMap>,
    /// The way.
    pub journey: Journey,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code of the table.
    pub code: ErrorCode,
    /// What the caller is told about a retry.
    pub retry_safe: RetrySafe,
    /// When a retry may be of use, if that is known.
    pub retry_after: Option<Duration>,
    /// What happened, for a person; shown to the caller.
    pub message: String,
    /// The way so far.
    pub journey: Journey,
}

impl Failure {
    /// A failure before the pool was asked.
    #[must_use]
    pub fn before_send(code: ErrorCode, message: impl Into<String>) -> Box<Self> {
        let (message, journey) = (message.into(), Journey::default());
        Box::new(Self {
            code,
            retry_safe: code.retry_safe_before_send(),
            retry_after: None,
            message,
            journey,
        })
    }
}

/// The egress path as the gRPC API needs it. It neither logs nor counts the request: the API records it.
#[tonic::async_trait]
pub trait EgressCore: Send + Sync + 'static {
    /// Finds where a request goes, as routes would for HTTP. Refuses what would be refused there.
    ///
    /// # Errors
    /// `unknown_environment`, `no_route`, `path_not_allowed`, `method_not_allowed`, …
    fn place(&self, target: &Target, request: &Request<Bytes>) -> Result<Placed, Box<Failure>>;

    /// Sends the request and takes the whole response.
    ///
    /// # Errors
    /// Whatever the pool reports.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request; the caller went away.
    async fn execute(&self, call: Call) -> Result<Executed, Box<Failure>>;

    /// A correlation identifier for a request that came without one: 128 random bits in hex. It names a request
    /// in logs and is no secret.
    fn new_correlation_id(&self) -> HeaderValue {
        let id = format!("{:032x}", fastrand::u128(..));
        // Hex digits are valid in a header.
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}
