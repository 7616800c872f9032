//! Owns response heads and small bodies, the same for HTTP/2 and HTTP/1.1. It does not send anything.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header};
use serde_json::json;

use crate::plan::{Content, Plan};

pub(super) const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const SIM_CONNECTION: HeaderName = HeaderName::from_static("sim-connection");
const SIM_FILLER: HeaderName = HeaderName::from_static("sim-filler");

/// The correlation id, if it is text.
pub(super) fn correlation_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(CORRELATION_ID).and_then(|value| value.to_str().ok())
}

/// Status and headers. `length` is the length of the body where it is known.
pub(super) fn head(parts: &Parts, plan: &Plan, connection: u64, length: Option<u64>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = plan.status;
    let headers = response.headers_mut();
    if let Some(kind) = content_type(parts, plan) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(id) = parts.headers.get(CORRELATION_ID) {
        headers.insert(CORRELATION_ID, id.clone());
    }
    headers.insert(SIM_CONNECTION, HeaderValue::from(connection));
    if plan.filler_bytes > 0 {
        let filler = vec![b'x'; plan.filler_bytes];
        // Lower-case letters are a valid header value.
        headers.insert(SIM_FILLER, HeaderValue::from_bytes(&filler).unwrap_or(HeaderValue::from_static("")));
    }
    response
}

fn content_type(parts: &Parts, plan: &Plan) -> Option<HeaderValue> {
    let asked = parts.headers.get(header::CONTENT_TYPE);
    match plan.content {
        Content::Echo => asked.cloned(),
        Content::Filler(_) | Content::Text(_) if crate::plan::is_grpc(&parts.headers) => asked.cloned(),
        Content::Filler(_) => Some(HeaderValue::from_static("application/octet-stream")),
        Content::Text(_) => Some(HeaderValue::from_static("text/plain")),
        Content::Sink | Content::Describe => Some(HeaderValue::from_static("application/json")),
    }
}

/// The body of [`Content::Sink`].
pub(super) fn received(bytes: u64) -> String {
    format!("{{\"received\":{bytes}}}")
}

/// The body of [`Content::Describe`]: the request as it arrived.
pub(super) fn description(parts: &Parts, trailers: Option<&HeaderMap>, bytes: u64) -> String {
    let version = if parts.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" };
    json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map(|path| path.as_str()),
        "scheme": parts.uri.scheme_str(),
        "authority": parts.uri.authority().map(|authority| authority.as_str()),
        "version": version,
        "headers": pairs(&parts.headers),
        "trailers": trailers.map(pairs),
        "received": bytes,
    })
    .to_string()
}

fn pairs(headers: &HeaderMap) -> Vec<[String; 2]> {
    headers
        .iter()
        .map(|(name, value)| [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect()
}
