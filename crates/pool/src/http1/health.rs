//! The application health request over HTTP/1.1, before a connection serves.
//!
//! What is asked and what an answer means is `crate::health`.

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;

use super::connection::Sender;
use crate::health::{HealthCheck, HealthFault, LOOKED_AT};

/// Asks on one connection; it must be driven meanwhile.
///
/// # Cancel safety
/// Dropping it leaves the connection in the middle of an exchange: it must not be used.
pub(super) async fn ask(sender: Sender, authority: &str, check: &HealthCheck) -> Result<(), HealthFault> {
    let unanswered = |e: &dyn std::fmt::Display| HealthFault::Unanswered(e.to_string());
    let request = in_origin_form(check.request(authority).map_err(|e| unanswered(&e))?)
        .map(|()| Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync());
    let exchange = async {
        let asked = sender.lock().as_mut().map(|sender| sender.send_request(request));
        let Some(asked) = asked else { return Err(unanswered(&"closed")) };
        let (head, body) = asked.await.map_err(|e| unanswered(&e))?.into_parts();
        check.judge(head.status, &beginning_of(body).await?)
    };
    tokio::time::timeout(check.timeout, exchange).await.unwrap_or(Err(HealthFault::Timeout(check.timeout)))
}

/// Origin form with a `host` field, as RFC 9112 §3.2 wants it.
pub(crate) fn in_origin_form<B>(mut request: Request<B>) -> Request<B> {
    let uri = request.uri();
    let host = uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    let target = uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    *request.uri_mut() = target;
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}

/// How the content of an answer begins. All of it must come: the connection is to be used again.
async fn beginning_of(mut body: Incoming) -> Result<Vec<u8>, HealthFault> {
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| HealthFault::Unanswered(e.to_string()))?;
        if let Ok(data) = frame.into_data() {
            seen.extend_from_slice(&data[..data.len().min(LOOKED_AT - seen.len())]);
        }
    }
    Ok(seen)
}
