//! A request over HTTP/1.1: one connection on loan for the whole exchange.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::{
    BoxError, Carrier, Head, ResponseBody,
    exchange::Limits,
    upload::{Progress, Upload},
};
use crate::{
    error::{SendError, SendErrorKind},
    http1::{Http1Body, Http1Pool, Loan},
    status::CauseOfDeath,
    verdict::{RetrySafe, Verdict},
};

/// Carries the request. What hyper gives back unsent is sent again on another connection.
pub(super) async fn carry<B>(
    mut carrier: Carrier<'_>,
    pool: &Arc<Http1Pool>,
    head: Head,
    upload: Upload<B>,
) -> Result<http::Response<ResponseBody>, SendError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (body, progress) = upload.into_body();
    let time_left = head.time_left.clone();
    let mut request = to_http1(head, body);
    loop {
        let queued = Instant::now();
        let limit = carrier.queue_limit();
        let lent = match tokio::time::timeout(limit, live_loan(pool)).await {
            Ok(lent) => lent,
            Err(_) => Err(pool.why_none(limit)),
        };
        carrier.journey.queue += queued.elapsed();
        let mut loan = lent.map_err(|kind| carrier.before_send(kind))?;
        let began = carrier.note_loan(&loan);
        let limits = carrier.limits();
        if let Some(time_left) = &time_left {
            time_left.write(request.headers_mut(), began);
        }
        let answer = tokio::select! {
            biased;
            answer = loan.sender().try_send_request(request) => Ok(answer),
            kind = overdue(&progress, began, limits) => Err(kind),
        };
        carrier.note_times(began, None);
        carrier.journey.body_bytes = progress.bytes();
        match answer {
            Ok(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let body = ResponseBody::http11(body, loan, progress, carrier.body_limits());
                return Ok(http::Response::from_parts(parts, body));
            }
            Ok(Err(mut e)) => match e.take_message() {
                Some(unsent) if carrier.journey.attempts < crate::verdict::MAX_ATTEMPTS => {
                    carrier.context.observer.retried(Verdict::NotSent);
                    carrier.context.hub.counters.replays.fetch_add(1, Ordering::Relaxed);
                    request = unsent;
                }
                unsent => {
                    let verdict = if unsent.is_some() { Verdict::NotSent } else { Verdict::MaybeProcessed };
                    return Err(failed(&carrier, verdict, &e.into_error()));
                }
            },
            Err(kind) => {
                loan.link().ended(CauseOfDeath::ClosedByProvider);
                return Err(SendError {
                    kind,
                    verdict: Some(Verdict::MaybeProcessed),
                    retry_safe: RetrySafe::Unknown,
                    journey: *carrier.journey,
                });
            }
        }
    }
}

/// Lends until a connection is found that is still open: one that ended while it was idle costs no attempt.
async fn live_loan(pool: &Http1Pool) -> Result<Loan, SendErrorKind> {
    loop {
        let mut loan = pool.lend().await?;
        if loan.sender().ready().await.is_ok() {
            return Ok(loan);
        }
        loan.link().ended(CauseOfDeath::ClosedByProvider);
    }
}

/// Waits until a limit has passed; each time the limit that holds now is computed anew.
async fn overdue(progress: &Progress, began: Instant, limits: Limits) -> SendErrorKind {
    loop {
        let moved = progress.moved();
        let since = moved.at.max(began);
        let (due, kind) = if moved.ended {
            let after = limits.response_header;
            (since + after, SendErrorKind::ResponseTimeout { after })
        } else {
            (since + limits.idle, SendErrorKind::IdleTimeout { after: limits.idle })
        };
        let (due, kind) = match limits.deadline {
            Some(deadline) if deadline < due => {
                let after = deadline.saturating_duration_since(began);
                (deadline, SendErrorKind::TotalTimeout { after })
            }
            _ => (due, kind),
        };
        if Instant::now() >= due {
            return kind;
        }
        tokio::time::sleep_until(due).await;
    }
}

fn failed(carrier: &Carrier<'_>, verdict: Verdict, error: &hyper::Error) -> SendError {
    let detail = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let (kind, retry_safe) = if detail.contains(super::upload::CALLER_GONE) {
        (SendErrorKind::CallerGone { detail }, RetrySafe::No)
    } else if detail.contains(super::upload::TOO_LARGE) {
        (SendErrorKind::BodyTooLarge { limit: carrier.options.max_body_bytes }, RetrySafe::No)
    } else {
        (SendErrorKind::ProviderReset { detail }, verdict.retry_safe())
    };
    SendError { kind, verdict: Some(verdict), retry_safe, journey: *carrier.journey }
}

/// Origin form with a `host` field, as RFC 9112 §3.2 wants it.
fn to_http1<B>(head: Head, body: B) -> Request<Http1Body>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let Head { method, uri, mut headers, .. } = head;
    if let Some(host) = uri.authority().and_then(|a| http::HeaderValue::from_str(a.as_str()).ok()) {
        headers.insert(header::HOST, host);
    }
    let target = uri.path_and_query().cloned().map_or(Uri::default(), Uri::from);
    let mut request = Request::new(body.map_err(Into::into).boxed_unsync());
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    request
}
