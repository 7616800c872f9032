//! A request through the pool: lease, attempt, verdict, replay, response.
//!
//! Owns the way in. The order of things is `carrier`'s; leases come from `hub`, one attempt is `exchange`, the request
//! body is `upload`, the response body is `body` and `reading`; what follows from a failure is `ledger`'s, by the rule in
//! `verdict` and within `budget`; streams that nobody wants any more are `abandon`'s.

mod abandon;
mod body;
mod budget;
mod carrier;
mod exchange;
mod http1;
mod ledger;
mod memory;
mod reading;
mod time_left;
mod upload;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, request};
use http_body::Body;
use tokio::time::Instant;

pub(crate) use self::{
    abandon::ResetBudget,
    memory::ReplayMemory,
    reading::{Readings, Sweeper},
};
pub use self::{
    body::ResponseBody,
    time_left::{TimeForm, TimeLeft},
};
use self::{budget::RetryBudget, carrier::Carrier, upload::Upload};
use crate::{
    config::{PoolConfig, RetryPolicy, Timeouts},
    error::SendError,
    journey::Journey,
    queue::Caller,
    supervisor::Context,
};

/// What request bodies may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How one request is to be treated.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// Time limits; `connect`, `tls` and `prove` are the pool's own.
    pub timeouts: Timeouts,
    /// What may be sent again.
    pub retry: RetryPolicy,
    /// Largest request body in bytes; `u64::MAX` for no limit.
    pub max_body_bytes: u64,
    /// On whose behalf it is sent, for a fair share of streams when they are scarce.
    pub caller: Caller,
}

/// What the requests of one pool share on their way.
pub(crate) struct Sending {
    pub(crate) memory: ReplayMemory,
    retries: RetryBudget,
    /// The moment that the budget counts from.
    began: Instant,
    sweeper: Sweeper,
}

impl Sending {
    pub(crate) fn new(config: &PoolConfig, workers: usize) -> Self {
        Self {
            memory: ReplayMemory::new(config.replay_buffer_total_bytes, config.replay_buffer_bytes, workers),
            retries: RetryBudget::new(config.retry_budget_percent, config.retry_budget_min_per_second),
            began: Instant::now(),
            sweeper: Sweeper::default(),
        }
    }

    fn since_begin(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Carries one request; see [`crate::Pool::send`].
pub(crate) async fn send<B>(
    context: &Arc<Context>,
    request: Request<B>,
    options: &SendOptions,
    journey: &mut Journey,
) -> Result<Response<ResponseBody>, SendError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let head = Head::new(parts);
    let config = &context.config;
    let upload =
        Upload::new(body, options.max_body_bytes, config.replay_buffer_bytes, context.sending.memory.share());
    Carrier::new(context, options, journey).carry(head, upload).await
}

/// The header of a request, kept so that it can be sent again.
struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Told anew with each attempt.
    time_left: Option<TimeLeft>,
}

impl Head {
    fn new(mut parts: request::Parts) -> Self {
        let time_left = parts.extensions.remove();
        Self { method: parts.method, uri: parts.uri, headers: parts.headers, time_left }
    }

    fn to_request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        *request.version_mut() = http::Version::HTTP_2;
        if let Some(time_left) = &self.time_left {
            time_left.write(request.headers_mut(), Instant::now());
        }
        request
    }
}
