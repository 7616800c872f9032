//! `Egress.Send`: a message becomes an HTTP request, the response a message.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request as HttpRequest, Uri, uri::PathAndQuery};
use pool::{Journey, RetrySafe};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    GrpcLimits,
    core::{Call, EgressCore, Executed, Failure, Target},
    error,
    headers::{self, CORRELATION_ID},
    proto::{self, egress_server::Egress, send_request},
    recorded::OpenRecord,
    timeout::{self, GRPC_TIMEOUT},
};
use crate::{outcome::ErrorCode, telemetry::access_log::micros};

/// The service.
pub(super) struct EgressService {
    core: Arc<dyn EgressCore>,
    limits: GrpcLimits,
}

impl EgressService {
    pub(super) fn new(core: Arc<dyn EgressCore>, limits: GrpcLimits) -> Self {
        Self { core, limits }
    }

    async fn carry(
        &self,
        timeout: Option<Duration>,
        message: proto::SendRequest,
        metadata: &HeaderMap,
        record: &OpenRecord,
        correlation_id: &mut Option<HeaderValue>,
    ) -> Result<proto::SendResponse, Box<Failure>> {
        let (target, mut request) = into_http(message, &self.limits)?;
        let id = match request.headers().get(CORRELATION_ID) {
            Some(id) => id.clone(),
            None => {
                let given = metadata.get(CORRELATION_ID).cloned();
                let id = given.unwrap_or_else(|| self.core.new_correlation_id());
                request.headers_mut().insert(CORRELATION_ID, id.clone());
                id
            }
        };
        record.edit(|draft| {
            draft.method = request.method().clone();
            draft.path = request.uri().path().to_owned();
            draft.bytes_in = request.body().len() as u64;
            draft.correlation_id = Some(id.clone());
        });
        *correlation_id = Some(id.clone());
        let placed = self.core.place(&target, &request)?;
        record.edit(|draft| draft.placed = Some(placed));
        let call = Call {
            placed,
            request,
            share: record.share(),
            timeout,
            max_response_bytes: self.limits.message_bytes,
        };
        let executed = self.core.execute(call).await?;
        let journey = executed.journey;
        let response = into_message(executed, &id);
        if response.encoded_len() > self.limits.message_bytes {
            return Err(Box::new(Failure {
                code: ErrorCode::ResponseTooLarge,
                retry_safe: RetrySafe::No,
                retry_after: None,
                message: format!(
                    "the response message has {} bytes, the limit is {}",
                    response.encoded_len(),
                    self.limits.message_bytes
                ),
                journey,
            }));
        }
        // The status came from an http::StatusCode and fits.
        record.responded(response.status as u16, response.body.len() as u64, journey);
        Ok(response)
    }
}

#[tonic::async_trait]
impl Egress for EgressService {
    async fn send(
        &self,
        request: Request<proto::SendRequest>,
    ) -> Result<Response<proto::SendResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        // The wrapper puts it there; a service without one answers all the same.
        let Some(record) = extensions.get::<OpenRecord>() else {
            return Err(Status::internal("the call has no record"));
        };
        let metadata = metadata.into_headers();
        let timeout = metadata.get(GRPC_TIMEOUT).map(|value| timeout::parse(value.as_bytes()));
        let mut id = None;
        let result = match timeout {
            Some(None) => {
                let what =
                    format!("`{GRPC_TIMEOUT}` is not a time to wait: give it once, as {}", timeout::FORM);
                Err(Failure::before_send(ErrorCode::BadRequest, what))
            }
            Some(Some(Duration::ZERO)) => {
                let what = format!("`{GRPC_TIMEOUT}` leaves no time: nothing was sent to the provider");
                Err(Failure::before_send(ErrorCode::DeadlineExceeded, what))
            }
            None | Some(Some(_)) => self.carry(timeout.flatten(), message, &metadata, record, &mut id).await,
        };
        match result {
            Ok(response) => {
                let mut response = Response::new(response);
                if let Some(id) = id {
                    response.metadata_mut().as_mut().insert(CORRELATION_ID, id);
                }
                Ok(response)
            }
            Err(failure) => {
                record.failed(&failure);
                Err(error::status(&failure, id.as_ref()))
            }
        }
    }
}

/// Reads a message; everything that is wrong with it by itself is found here.
fn into_http(
    message: proto::SendRequest,
    limits: &GrpcLimits,
) -> Result<(Target, HttpRequest<Bytes>), Box<Failure>> {
    let bad = |message: String| Failure::before_send(ErrorCode::BadRequest, message);
    let target = match message.target {
        Some(send_request::Target::Environment(name)) => Target::Environment(name),
        Some(send_request::Target::Route(name)) => Target::Route(name),
        None => Target::Matched,
    };
    let method = match message.method.as_str() {
        "" => Method::GET,
        method => {
            Method::from_bytes(method.as_bytes()).map_err(|_| bad(format!("{method:?} is no HTTP method")))?
        }
    };
    // A fragment never goes over the wire, and the parser would drop it silently.
    if !message.path.starts_with('/') || message.path.contains('#') {
        return Err(bad("the path must begin with `/` and contain no `#`".to_owned()));
    }
    let path = PathAndQuery::try_from(message.path.as_str())
        .map_err(|error| bad(format!("the path is not valid in HTTP: {error}")))?;
    let mut request = HttpRequest::new(message.body);
    // It has no `host` field: as in HTTP/2, the authority is not the caller's to give.
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path);
    *request.headers_mut() = headers::into_http(message.headers, limits)?;
    Ok((target, request))
}

fn into_message(executed: Executed, correlation_id: &HeaderValue) -> proto::SendResponse {
    let (head, body) = executed.response.into_parts();
    proto::SendResponse {
        status: u32::from(head.status.as_u16()),
        headers: headers::from_http(&head.headers),
        body,
        trailers: executed.trailers.as_ref().map(headers::from_http).unwrap_or_default(),
        correlation_id: String::from_utf8_lossy(correlation_id.as_bytes()).into_owned(),
        journey: Some(journey_message(&executed.journey)),
    }
}

fn journey_message(journey: &Journey) -> proto::Journey {
    proto::Journey {
        connection_id: journey.connection.map_or(0, |id| id.0),
        generation: journey.generation,
        reused: journey.reused,
        resumed: journey.resumed,
        attempts: u32::from(journey.attempts),
        waited_for_dial: journey.waited_for_dial,
        queue_micros: micros(journey.queue),
        connect_micros: micros(journey.connect),
        send_micros: micros(journey.send),
        ttfb_micros: micros(journey.ttfb),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_messages_are_refused_with_what_is_wrong() {
        let message = |method: &str, path: &str| proto::SendRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            ..proto::SendRequest::default()
        };
        for (method, path, named) in [
            ("GET", "cards", "begin with"),
            ("GET", "/a#b", "`#`"),
            ("GET", "", "begin with"),
            ("G T", "/", "G T"),
            ("GET", "/a b", "path"),
        ] {
            let failure = into_http(message(method, path), &GrpcLimits::default()).unwrap_err();
            assert_eq!(failure.code, ErrorCode::BadRequest);
            assert_eq!(failure.retry_safe, RetrySafe::No);
            assert!(failure.message.contains(named), "{}", failure.message);
        }
        let (target, request) = into_http(message("", "/cards?x=1"), &GrpcLimits::default()).unwrap();
        assert_eq!(
            (target, request.method(), request.uri().to_string()),
            (Target::Matched, &Method::GET, "/cards?x=1".to_owned())
        );
    }
}
