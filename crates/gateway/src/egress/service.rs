//! The path of a request: survey, route, prepare, send, reply. Plain functions in this order.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body::Body;
use pool::{BoxError, Pool, SendError, SendErrorKind, SendOptions};

use super::{
    body::ReplyBody,
    caller::Caller,
    core::{Core, Upstream},
    deadline::Deadline,
    exchange::Exchange,
    headers::{self, CORRELATION_ID, Content},
    path,
    reply::{Failure, Form, refuse},
    route::{self, Asked},
    upload::Upload,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{config::Route, outcome::ErrorCode};

/// Carries one request of a caller.
pub(super) async fn handle<B>(caller: Arc<Caller>, mut request: Request<B>) -> Response<ReplyBody>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    caller.phase.exchange_began();
    let mut exchange =
        Exchange::begin(caller.clone(), request.method().clone(), request.uri().path_and_query().cloned());
    let core = &caller.core;
    let has_body = !request.body().is_end_stream();
    let carried = match prepare(core, &mut request, &mut exchange) {
        Ok(prepared) => carry(prepared, request, &mut exchange).await,
        Err(failure) => {
            // Let go before the reply: what is left of its body decides how the connection ends.
            drop(request);
            Err(failure)
        }
    };
    let mut reply = match carried {
        Ok(response) => deliver(response, exchange),
        Err(failure) => {
            if has_body && caller.is_http1() {
                // The body has been let go. The connection takes the rest of it off, if it is there already, or
                // will be closed after this reply: only once it knows which can the reply's header say it.
                tokio::task::yield_now().await;
            }
            refuse(&failure, exchange)
        }
    };
    if caller.is_http1() && (core.is_stopping() || caller.phase.is_body_malformed()) {
        reply.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    reply
}

/// Where and how a request may be sent.
struct Prepared<'a> {
    upstream: &'a Upstream,
    options: SendOptions,
}

/// Routes a request and makes it fit for the provider.
fn prepare<'a, B>(
    core: &'a Core,
    request: &mut Request<B>,
    exchange: &mut Exchange,
) -> Result<Prepared<'a>, Failure> {
    let found = headers::survey(request.headers());
    exchange.correlation_id = request.headers().get(CORRELATION_ID).cloned();
    if found.content == Content::Grpc && !exchange.caller().is_http1() {
        exchange.form = Form::Grpc;
    }
    check_size(core, &found)?;
    check_form(request, found.upgrade)?;
    check_declared_length(core, request.headers())?;

    let Some(index) = route::find(&core.routes, Asked::of(request)) else {
        let detail = format!("no route matches {} {}", request.method(), request.uri().path());
        return Err(Failure::early(ErrorCode::NoRoute, detail));
    };
    let route = &core.routes[index];
    exchange.route = u16::try_from(index).ok();
    exchange.environment = u16::try_from(route.environment).ok();
    let upstream = &core.upstreams[route.environment];
    let configured = core.deadline_header.as_ref();
    let deadline = Deadline::of(request.headers(), &found, configured)?;

    let stripped = stripped(route, request.uri().path());
    let target = match request.uri().path_and_query() {
        Some(path) => path::target(&upstream.authority, &upstream.base_path, stripped, path),
        None => path::target(
            &upstream.authority,
            &upstream.base_path,
            0,
            &http::uri::PathAndQuery::from_static("/"),
        ),
    };
    let Some(target) = target else {
        return Err(Failure::early(ErrorCode::BadRequest, "the path makes no valid URI"));
    };
    // Taking a prefix off can bring one about that was none before.
    refuse_dot_segments(&target)?;
    *request.uri_mut() = target;
    exchange.correlation_id = Some(headers::to_provider(request.headers_mut(), found, core.client_headers));
    let mut timeouts = route.timeouts;
    deadline.apply(&mut timeouts, request, exchange.started, configured);
    let options = SendOptions {
        timeouts,
        retry: route.retry,
        max_body_bytes: core.limits.max_body_bytes.unwrap_or(u64::MAX),
        caller: exchange.caller().share.queue,
    };
    Ok(Prepared { upstream, options })
}

/// A header larger than configured.
fn check_size(core: &Core, found: &headers::Survey) -> Result<(), Failure> {
    for (size, limit, what) in [
        (found.bytes, core.limits.max_header_bytes, "bytes"),
        (found.fields, core.limits.max_headers, "fields"),
    ] {
        if size > limit {
            let detail = format!("the header has {size} {what}; {limit} are allowed");
            return Err(Failure::early(ErrorCode::HeadersTooLarge, detail));
        }
    }
    Ok(())
}

/// What HTTP itself or the contract refuses.
pub(super) fn check_form<B>(request: &Request<B>, upgrade: bool) -> Result<(), Failure> {
    let method = request.method();
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Failure::early(ErrorCode::MethodNotAllowed, format!("{method} is not forwarded")));
    }
    if upgrade {
        let detail = "upgrades (such as WebSocket) are not forwarded";
        return Err(Failure::early(ErrorCode::UpgradeNotSupported, detail));
    }
    let path = request.uri().path();
    if !path.starts_with('/') {
        return Err(Failure::early(ErrorCode::BadRequest, format!("the target {path} is not a path")));
    }
    refuse_dot_segments(request.uri())?;
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let needs_host = request.version() == Version::HTTP_11 && request.uri().authority().is_none();
    if hosts > 1 || (hosts == 0 && needs_host) {
        let detail = "an HTTP/1.1 request carries exactly one Host field (RFC 9112 §3.2)";
        return Err(Failure::early(ErrorCode::BadRequest, detail));
    }
    Ok(())
}

/// What the provider would make of such a path is not what the route was chosen by.
pub(super) fn refuse_dot_segments(uri: &http::Uri) -> Result<(), Failure> {
    if path::has_dot_segment(uri.path()) {
        let detail = "the path contains a segment `.` or `..`, plain or encoded: send the path it stands for";
        return Err(Failure::early(ErrorCode::PathNotAllowed, detail));
    }
    Ok(())
}

/// A body that says it is too large is refused before it is asked for.
fn check_declared_length(core: &Core, headers: &HeaderMap) -> Result<(), Failure> {
    let Some(limit) = core.limits.max_body_bytes else { return Ok(()) };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > limit => {
            let detail = format!("the body has {length} bytes; {limit} are allowed (limits.max_body_bytes)");
            Err(Failure::early(ErrorCode::BodyTooLarge, detail))
        }
        _ => Ok(()),
    }
}

fn stripped(route: &Route, path: &str) -> usize {
    route.strip_prefix.as_deref().filter(|prefix| path.starts_with(prefix)).map_or(0, str::len)
}

async fn carry<B>(
    prepared: Prepared<'_>,
    request: Request<B>,
    exchange: &mut Exchange,
) -> Result<Response<pool::ResponseBody>, Failure>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let Prepared { upstream, options } = prepared;
    let pool =
        upstream.pool.as_ref().map_err(|refusal| Failure::early(refusal.code, refusal.message.clone()))?;
    let phase = exchange.caller().is_http1().then(|| exchange.caller().phase.clone());
    let request = request.map(|body| Upload::new(body, phase.clone()));
    let deadline = options.timeouts.total.map(|total| Instant::now() + total);
    pool.send(request, &options, &mut exchange.journey).await.map_err(|error| {
        let mut failure = failure_of(&error, deadline, pool);
        if failure.code == ErrorCode::CallerGone && phase.is_some_and(|phase| phase.is_body_malformed()) {
            failure.code = ErrorCode::BadRequest;
            failure.detail = "the request's body breaks the chunked coding (RFC 9112 §7.1)".to_owned();
        }
        failure
    })
}

/// The reply's code, and what the caller may do. `deadline` is that of the whole exchange.
pub(super) fn failure_of(error: &SendError, deadline: Option<Instant>, pool: &Pool) -> Failure {
    let code = match error.kind {
        // The place in the queue was given up because no time was left, not because the queue is slow.
        SendErrorKind::QueueTimeout { .. } if deadline.is_some_and(|at| Instant::now() >= at) => {
            ErrorCode::DeadlineExceeded
        }
        _ => ErrorCode::of_send_error(error),
    };
    let retry_after = match error.kind {
        SendErrorKind::Unavailable(_) => pool.retry_after(),
        _ => None,
    };
    let phase = Some(error.journey.phase);
    Failure { code, retry_safe: error.retry_safe, retry_after, phase, detail: error.to_string() }
}

fn deliver(response: Response<pool::ResponseBody>, mut exchange: Box<Exchange>) -> Response<ReplyBody> {
    exchange.status = response.status().as_u16();
    let (mut parts, body) = response.into_parts();
    headers::to_caller(&mut parts.headers);
    if let Some(id) = &exchange.correlation_id
        && !parts.headers.contains_key(CORRELATION_ID)
    {
        let mut id = id.clone();
        headers::keep_out_of_tables(&mut id);
        parts.headers.insert(CORRELATION_ID, id);
    }
    // hyper writes its own version; the provider's says nothing about this hop.
    parts.version = if exchange.caller().is_http1() { Version::HTTP_11 } else { Version::HTTP_2 };
    Response::from_parts(parts, ReplyBody::provider(body, exchange))
}
