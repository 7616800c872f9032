//! The task that makes application health requests over the pool's own connections.
//!
//! Owns when they are made. What an answer means is `health`; what follows is the supervisor's. A request that found
//! no connection says nothing about the application and is not reported.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::Context;
use crate::{
    config::{RetryPolicy, Timeouts},
    error::{SendError, SendErrorKind},
    health::{HealthCheck, HealthFault, LOOKED_AT},
    journey::Journey,
    queue::Caller,
    send::{ResponseBody, SendOptions, send},
};

/// The running task; dropping it ends the requests.
pub(super) struct Checks {
    answers: mpsc::Receiver<Result<(), HealthFault>>,
    task: Option<AbortHandle>,
    /// From one request to the next.
    interval: Duration,
    /// When a failure at a connection's proof last counted.
    beside: Option<Instant>,
}

impl Checks {
    /// Starts the requests, if the pool has any to make. They begin after the first interval.
    pub(super) fn start(context: &Arc<Context>) -> Self {
        let (sender, answers) = mpsc::channel(1);
        let task = context.config.health.clone().map(|check| {
            // Weak: a pool that nobody holds any more should end.
            tokio::spawn(run(Arc::downgrade(context), check, sender)).abort_handle()
        });
        let interval = context.config.health.as_ref().map_or(Duration::ZERO, |check| check.interval);
        Self { answers, task, interval, beside: None }
    }

    /// Whether a failure at a connection's proof counts among the answers: one in each interval does, so that several
    /// dials at once are not several failures in a row.
    pub(super) fn counts_beside(&mut self, now: Instant) -> bool {
        let counts = self.beside.is_none_or(|last| now.saturating_duration_since(last) >= self.interval);
        if counts {
            self.beside = Some(now);
        }
        counts
    }

    /// The next answer; never, if no requests are made.
    ///
    /// # Cancel safety
    /// No answer is lost.
    pub(super) async fn answer(&mut self) -> Result<(), HealthFault> {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run(context: Weak<Context>, check: HealthCheck, answers: mpsc::Sender<Result<(), HealthFault>>) {
    loop {
        // Jittered, so that many gateways started together do not ask together.
        tokio::time::sleep(check.interval.mul_f64(0.9 + fastrand::f64() * 0.2)).await;
        let Some(context) = context.upgrade() else { return };
        if let Some(answer) = ask(&context, &check).await
            && answers.send(answer).await.is_err()
        {
            return;
        }
    }
}

/// One health request; `None` if it never reached the provider. Its time runs from the moment at which it has a stream:
/// how long our own queue is says nothing about the provider.
async fn ask(context: &Arc<Context>, check: &HealthCheck) -> Option<Result<(), HealthFault>> {
    let request = match check.request(&context.key.authority) {
        Ok(request) => request.map(|()| Empty::<Bytes>::new()),
        Err(e) => return Some(Err(HealthFault::Unanswered(e.to_string()))),
    };
    let timeouts = Timeouts { total: None, response_header: check.timeout, ..context.timeouts };
    let caller = Caller::default();
    let options = SendOptions { timeouts, retry: RetryPolicy::Unprocessed, max_body_bytes: 0, caller };
    let mut journey = Journey::default();
    match send(context, request, &options, &mut journey).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let seen = beginning_of(body, check.timeout.saturating_sub(journey.ttfb)).await;
            Some(check.judge(head.status, &seen))
        }
        Err(e) => reached(&e).then(|| Err(fault_of(&e, check))),
    }
}

/// Whether the failure says anything about the application.
fn reached(error: &SendError) -> bool {
    use SendErrorKind::{IdleTimeout, ProviderReset, ResponseTimeout};
    let told = matches!(error.kind, ResponseTimeout { .. } | IdleTimeout { .. } | ProviderReset { .. });
    error.journey.attempts > 0 && told
}

fn fault_of(error: &SendError, check: &HealthCheck) -> HealthFault {
    match error.kind {
        SendErrorKind::ProviderReset { .. } => HealthFault::Unanswered(error.to_string()),
        _ => HealthFault::Timeout(check.timeout),
    }
}

/// What has come of the content when enough has, or when the time is over.
async fn beginning_of(mut body: ResponseBody, left: Duration) -> Vec<u8> {
    let until = Instant::now() + left;
    let mut seen = Vec::new();
    while seen.len() < LOOKED_AT
        && let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await
    {
        if let Ok(data) = frame.into_data() {
            seen.extend_from_slice(&data[..data.len().min(LOOKED_AT - seen.len())]);
        }
    }
    seen
}
