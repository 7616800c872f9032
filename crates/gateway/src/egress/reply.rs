//! Replies of our own: `application/problem+json` (RFC 9457) with the stable code, the same code in the headers.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};
use pool::{Journey, RetrySafe};

use super::{body::ReplyBody, exchange::Exchange, headers::CORRELATION_ID};
use crate::outcome::ErrorCode;

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
    /// This occurrence, for a person.
    pub(super) detail: String,
}

impl Failure {
    /// A failure that happened before the pool was asked.
    pub(super) fn early(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, retry_safe: code.retry_safe_before_send(), detail: detail.into() }
    }
}

/// Makes the reply; the outcome is recorded when it has been delivered.
pub(super) fn problem(failure: &Failure, mut exchange: Exchange) -> Response<ReplyBody> {
    exchange.fail(failure.code, failure.retry_safe);
    log(failure, &exchange);
    let row = failure.code.row();
    let correlation = exchange.correlation_id.clone();
    let document = serde_json::json!({
        "type": format!("urn:tsh-gateway:error:{}", row.code),
        "title": row.title,
        "status": row.status,
        "detail": failure.detail,
        "code": row.code,
        "retry_safe": failure.retry_safe.as_str(),
        "blame": row.blame.as_str(),
        "correlation_id": correlation.as_ref().and_then(|id| id.to_str().ok()),
    });
    let timing = server_timing(&exchange.journey);
    let mut reply = Response::new(ReplyBody::own(Bytes::from(document.to_string()), Some(exchange)));
    *reply.status_mut() = failure.code.status();
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(GW_ERROR, HeaderValue::from_static(row.code));
    headers.insert(GW_RETRY_SAFE, HeaderValue::from_static(failure.retry_safe.as_str()));
    if let Ok(timing) = HeaderValue::from_str(&timing) {
        headers.insert(SERVER_TIMING, timing);
    }
    if let Some(id) = correlation {
        headers.insert(CORRELATION_ID, id);
    }
    reply
}

/// `queue;dur=…, connect;dur=…, send;dur=…, ttfb;dur=…` in milliseconds (Server Timing, W3C).
pub(crate) fn server_timing(journey: &Journey) -> String {
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
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
