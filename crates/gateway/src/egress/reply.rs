//! Replies of our own: `application/problem+json` (RFC 9457) with the stable code, the same code in the headers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};
use pool::{Journey, Phase, RetrySafe};

use super::{body::ReplyBody, exchange::Exchange, headers::CORRELATION_ID};
use crate::{grpc, outcome::ErrorCode};

/// The stable code of a failure.
pub const GW_ERROR: HeaderName = HeaderName::from_static("gw-error");
/// Whether sending the same request again is safe: `yes`, `no` or `unknown`.
pub const GW_RETRY_SAFE: HeaderName = HeaderName::from_static("gw-retry-safe");
/// Where the time went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// A failure to be told to a caller.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    pub(super) retry_safe: RetrySafe,
    /// When a retry may be of use, if that is known.
    pub(super) retry_after: Option<Duration>,
    /// How far it came; `None` if the pool was not asked.
    pub(super) phase: Option<Phase>,
    /// This occurrence, for a person.
    pub(super) detail: String,
}

impl Failure {
    /// A failure that happened before the pool was asked.
    pub(super) fn early(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            retry_safe: code.retry_safe_before_send(),
            retry_after: None,
            phase: None,
            detail: detail.into(),
        }
    }
}

/// In which form a failure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A problem document.
    Problem,
    /// A gRPC status without a message ("Trailers-Only"): a gRPC client makes nothing of an HTTP status.
    Grpc,
}

/// Makes the reply; the outcome is recorded when it has been delivered.
pub(super) fn refuse(failure: &Failure, mut exchange: Box<Exchange>) -> Response<ReplyBody> {
    exchange.fail(failure.code, failure.retry_safe);
    log(failure, &exchange);
    match exchange.form {
        Form::Problem => problem(failure, exchange),
        Form::Grpc => trailers_only(failure, exchange),
    }
}

fn trailers_only(failure: &Failure, exchange: Box<Exchange>) -> Response<ReplyBody> {
    let told = grpc::Failure {
        code: failure.code,
        retry_safe: failure.retry_safe,
        retry_after: failure.retry_after,
        message: failure.detail.clone(),
        journey: exchange.journey,
    };
    let headers = grpc::trailers_only(&told, exchange.correlation_id.as_ref());
    let mut reply = Response::new(ReplyBody::own(Bytes::new(), Some(exchange)));
    *reply.headers_mut() = headers;
    reply
}

/// The document of RFC 9457.
pub(crate) fn document(
    code: ErrorCode,
    retry_safe: RetrySafe,
    phase: Option<Phase>,
    detail: &str,
    after: Option<Duration>,
    correlation_id: Option<&HeaderValue>,
) -> Bytes {
    let row = code.row();
    let document = serde_json::json!({
        "type": format!("urn:tsh-gateway:error:{}", row.code),
        "title": row.title,
        "status": row.status,
        "detail": detail,
        "code": row.code,
        "retry_safe": retry_safe.as_str(),
        "blame": row.blame.as_str(),
        "phase": phase.map(Phase::as_str),
        "retry_after": after.map(whole_seconds),
        "correlation_id": correlation_id.and_then(|id| id.to_str().ok()),
    });
    Bytes::from(document.to_string())
}

fn problem(failure: &Failure, exchange: Box<Exchange>) -> Response<ReplyBody> {
    let row = failure.code.row();
    let correlation = exchange.correlation_id.clone();
    let Failure { code, retry_safe, phase, retry_after: after, .. } = *failure;
    let document = document(code, retry_safe, phase, &failure.detail, after, correlation.as_ref());
    let timing = server_timing(&exchange.journey);
    let mut reply = Response::new(ReplyBody::own(document, Some(exchange)));
    *reply.status_mut() = failure.code.status();
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(GW_ERROR, HeaderValue::from_static(row.code));
    headers.insert(GW_RETRY_SAFE, HeaderValue::from_static(failure.retry_safe.as_str()));
    if let Ok(timing) = HeaderValue::from_str(&timing) {
        headers.insert(SERVER_TIMING, timing);
    }
    if let Some(wait) = failure.retry_after {
        headers.insert(header::RETRY_AFTER, retry_after(wait));
    }
    if let Some(id) = correlation {
        headers.insert(CORRELATION_ID, id);
    }
    reply
}

/// Whole seconds (RFC 9110 §10.2.3), rounded up: who comes back then does not come too early.
pub(crate) fn retry_after(wait: Duration) -> HeaderValue {
    HeaderValue::from(whole_seconds(wait))
}

fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_millis().div_ceil(1000) as u64).max(1)
}

/// `queue;dur=…, connect;dur=…, send;dur=…, ttfb;dur=…` in milliseconds (Server Timing, W3C).
pub(crate) fn server_timing(journey: &Journey) -> String {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    format!(
        "queue;dur={:.3}, connect;dur={:.3}, send;dur={:.3}, ttfb;dur={:.3}",
        ms(journey.queue),
        ms(journey.connect),
        ms(journey.send),
        ms(journey.ttfb)
    )
}

/// One diagnostic line, at the level of the table; the access log has the outcome as well.
fn log(failure: &Failure, exchange: &Exchange) {
    let code = failure.code.as_str();
    let id = exchange.correlation_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    match failure.code.row().level {
        tracing::Level::ERROR => tracing::error!(code, correlation_id = id, "{}", failure.detail),
        tracing::Level::WARN => tracing::warn!(code, correlation_id = id, "{}", failure.detail),
        _ => tracing::debug!(code, correlation_id = id, "{}", failure.detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_in_its_document_when_to_come_back() {
        let told = |after| {
            let document = document(ErrorCode::ProviderUnhealthy, RetrySafe::Yes, None, "sick", after, None);
            serde_json::from_slice::<serde_json::Value>(&document).unwrap()["retry_after"].clone()
        };
        assert_eq!(told(Some(Duration::from_millis(1_001))), 2, "as the header: rounded up");
        assert!(told(None).is_null());
    }
}
