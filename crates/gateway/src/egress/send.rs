//! The gRPC API's way into the egress path: one request, the whole response, the same rules as for HTTP.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use pool::{BodyError, Journey, ResponseBody, RetrySafe, SendOptions};
use tokio::time::Instant;

use super::{
    core::{Core, Upstream},
    deadline::Deadline,
    headers, path,
    reply::Failure as Refused,
    route::{self, Asked},
    service::{check_form, failure_of, refuse_dot_segments},
};
use crate::{
    grpc::{Call, EgressCore, Executed, Failure, Placed, Target},
    outcome::ErrorCode,
};

/// Requests given to the gateway whole.
#[derive(Clone)]
pub(super) struct WholeRequests(pub(super) Arc<Core>);

#[tonic::async_trait]
impl EgressCore for WholeRequests {
    fn place(&self, target: &Target, request: &Request<Bytes>) -> Result<Placed, Box<Failure>> {
        let core = &self.0;
        check_form(request, headers::survey(request.headers()).upgrade).map_err(before_send)?;
        let route = match target {
            Target::Environment(name) => {
                let environment = core.upstreams.iter().position(|u| u.name == *name);
                let environment = environment.ok_or_else(|| unknown("environment", name))?;
                return Ok(Placed { route: None, environment: index(environment) });
            }
            Target::Route(name) => {
                let index = core.routes.iter().position(|r| r.name == *name);
                let index = index.ok_or_else(|| unknown("route", name))?;
                if !route::takes(&core.routes[index], Asked::of(request)) {
                    let (method, path) = (request.method(), request.uri().path());
                    let detail =
                        format!("the conditions of the route `{name}` do not hold for {method} {path}");
                    return Err(Failure::before_send(ErrorCode::NoRoute, detail));
                }
                index
            }
            Target::Matched => route::find(&core.routes, Asked::of(request)).ok_or_else(|| {
                let detail = format!("no route matches {} {}", request.method(), request.uri().path());
                Failure::before_send(ErrorCode::NoRoute, detail)
            })?,
        };
        Ok(Placed { route: Some(index(route)), environment: index(core.routes[route].environment) })
    }

    async fn execute(&self, call: Call) -> Result<Executed, Box<Failure>> {
        let core = &self.0;
        let upstream = &core.upstreams[usize::from(call.placed.environment)];
        let pool = upstream.pool.as_ref().map_err(|r| Failure::before_send(r.code, r.message.clone()))?;
        let began = Instant::now();
        let mut options = self.options(&call, upstream);
        let (limit, timeout) = (call.max_response_bytes, call.timeout);
        let configured = core.deadline_header.as_ref();
        let headers = call.request.headers();
        let asked = Deadline::of(headers, &headers::survey(headers), configured).map_err(before_send)?;
        let mut request = self.fit(call, upstream)?;
        asked.and(timeout).apply(&mut options.timeouts, &mut request, began, configured);
        let deadline = options.timeouts.total.map(|total| began + total);
        let mut journey = Journey::default();
        match pool.send(request, &options, &mut journey).await {
            Ok(response) => collect(response, journey, limit).await,
            Err(error) => {
                let Refused { code, retry_safe, retry_after, detail, .. } =
                    failure_of(&error, deadline, pool);
                let (message, journey) = (detail, error.journey);
                Err(Box::new(Failure { code, retry_safe, retry_after, message, journey }))
            }
        }
    }
}

impl WholeRequests {
    fn options(&self, call: &Call, upstream: &Upstream) -> SendOptions {
        let core = &self.0;
        let route = call.placed.route.map(|r| &core.routes[usize::from(r)]);
        SendOptions {
            timeouts: route.map_or(upstream.timeouts, |r| r.timeouts),
            retry: route.map(|r| r.retry).unwrap_or_default(),
            max_body_bytes: core.limits.max_body_bytes.unwrap_or(u64::MAX),
            caller: call.share.map(|share| share.queue).unwrap_or_default(),
        }
    }

    /// Makes the request fit for the provider.
    fn fit(&self, call: Call, upstream: &Upstream) -> Result<Request<Full<Bytes>>, Box<Failure>> {
        let core = &self.0;
        let (mut parts, body) = call.request.into_parts();
        let stripped = call
            .placed
            .route
            .and_then(|r| core.routes[usize::from(r)].strip_prefix.as_deref())
            .filter(|prefix| parts.uri.path().starts_with(prefix))
            .map_or(0, str::len);
        let target = parts
            .uri
            .path_and_query()
            .and_then(|path| path::target(&upstream.authority, &upstream.base_path, stripped, path));
        parts.uri = target
            .ok_or_else(|| Failure::before_send(ErrorCode::BadRequest, "the path makes no valid URI"))?;
        refuse_dot_segments(&parts.uri).map_err(before_send)?;
        let found = headers::survey(&parts.headers);
        headers::to_provider(&mut parts.headers, found, core.client_headers);
        // The length is what the body has, whatever the message says: a wrong one would shift the next request.
        parts.headers.remove(header::CONTENT_LENGTH);
        if !body.is_empty() {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        Ok(Request::from_parts(parts, Full::new(body)))
    }
}

/// Takes the whole response, up to the limit.
async fn collect(
    response: Response<ResponseBody>,
    journey: Journey,
    limit: usize,
) -> Result<Executed, Box<Failure>> {
    let (mut parts, mut body) = response.into_parts();
    headers::to_caller(&mut parts.headers);
    let mut content = BytesMut::new();
    let mut trailers: Option<HeaderMap> = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|e| cut(&e, journey))?.into_data() {
            Ok(data) if content.len() + data.len() > limit => {
                let message =
                    format!("the response is larger than {limit} bytes (limits.grpc_message_bytes)");
                let code = ErrorCode::ResponseTooLarge;
                return Err(Box::new(Failure {
                    code,
                    retry_safe: RetrySafe::Unknown,
                    retry_after: None,
                    message,
                    journey,
                }));
            }
            Ok(data) => content.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Executed { response: Response::from_parts(parts, content.freeze()), trailers, journey })
}

fn cut(error: &BodyError, journey: Journey) -> Box<Failure> {
    let code = match error {
        BodyError::Cut(_) => ErrorCode::ResponseCut,
        BodyError::Idle(_) => ErrorCode::IdleTimeout,
        BodyError::Deadline => ErrorCode::DeadlineExceeded,
        BodyError::CallerGone | BodyError::CallerStalled(_) | BodyError::Unread(_) => ErrorCode::CallerGone,
        BodyError::BodyTooLarge { .. } => ErrorCode::BodyTooLarge,
    };
    Box::new(Failure {
        code,
        retry_safe: RetrySafe::Unknown,
        retry_after: None,
        message: error.to_string(),
        journey,
    })
}

fn before_send(refused: Refused) -> Box<Failure> {
    let Refused { code, retry_safe, retry_after, detail, .. } = refused;
    Box::new(Failure { code, retry_safe, retry_after, message: detail, journey: Journey::default() })
}

fn unknown(what: &str, name: &str) -> Box<Failure> {
    Failure::before_send(ErrorCode::UnknownEnvironment, format!("no {what} is named `{name}`"))
}

/// The configuration allows far fewer than 65,536 of each.
fn index(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}
