//! gRPC callers of `tsh.gateway.v1.Egress/Send`, by hand over h2: a unary call needs little of gRPC.
//!
//! The messages mirror `crates/gateway/proto/tsh/gateway/v1/egress.proto`, as far as they are used here.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::PathAndQuery};
use prost::Message;

use crate::{
    caller::{Exchange, judge},
    h2c::{self, Link, next_data},
    plan::Plan,
    record::{Lost, LostKind, Reply, Told},
    schedule::Ticket,
};

/// Path of the method on the wire.
const SEND_PATH: &str = "/tsh.gateway.v1.Egress/Send";

/// Length prefix of a gRPC message: one flag byte and four of length.
const PREFIX_BYTES: usize = 5;

/// What `SendRequest.target` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendTarget {
    /// Left out: the gateway's routes decide.
    ByRoutes,
    /// An environment.
    Environment(String),
    /// A route.
    Route(String),
}

/// `tsh.gateway.v1.SendRequest`. Members of the `oneof` are optional fields on the wire.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SendRequest {
    /// Name of an environment.
    #[prost(string, optional, tag = "1")]
    pub environment: Option<String>,
    /// Name of a route.
    #[prost(string, optional, tag = "2")]
    pub route: Option<String>,
    /// HTTP method.
    #[prost(string, tag = "3")]
    pub method: String,
    /// Path with query.
    #[prost(string, tag = "4")]
    pub path: String,
    /// Header fields.
    #[prost(message, repeated, tag = "5")]
    pub headers: Vec<Header>,
    /// The body.
    #[prost(bytes = "bytes", tag = "6")]
    pub body: Bytes,
}

/// `tsh.gateway.v1.Header`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `tsh.gateway.v1.SendResponse`; fields not named here are skipped by the decoder.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SendResponse {
    /// HTTP status of the provider.
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// The body.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

/// One gRPC caller: one unary call at a time on a shared connection.
#[derive(Debug)]
pub(crate) struct Caller {
    plan: Arc<Plan>,
    inner: h2c::Caller,
    /// The framed message, when it is the same for every request.
    fixed: Option<Bytes>,
}

impl Caller {
    /// A caller on `link`.
    pub(crate) fn new(plan: Arc<Plan>, link: Arc<Link>) -> Self {
        let inner = h2c::Caller::new(plan.clone(), link, PathAndQuery::from_static(SEND_PATH));
        let same = plan.correlation.is_none() && plan.steering.is_none();
        let fixed = same.then(|| frame(&message(&plan, &plan.headers)));
        Self { plan, inner, fixed }
    }
}

impl Exchange for Caller {
    async fn exchange(&mut self, ticket: &Ticket) -> Result<Reply, Lost> {
        let message = match &self.fixed {
            Some(fixed) => fixed.clone(),
            None => frame(&message(&self.plan, &self.plan.headers_of(ticket.sequence))),
        };
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let request = self.inner.request(Method::POST, headers);
        let (head, mut stream) = self.inner.send(request, message).await?.into_parts();
        if head.status != StatusCode::OK {
            let detail = format!("HTTP status {} of a gRPC call", head.status.as_u16());
            let told = Told::read(&head.headers);
            return Err(Lost { kind: LostKind::Status, detail, status: Some(head.status), told });
        }
        let mut data = BytesMut::new();
        while let Some(piece) = next_data(&mut stream).await? {
            data.extend_from_slice(&piece);
        }
        let trailers = stream.trailers().await.map_err(|error| h2c::lost(&error))?;
        // A call that failed at once has its status in the header block ("trailers only").
        check_status(trailers.as_ref().unwrap_or(&head.headers))?;
        let response = unframe(data.freeze())?;
        let status = u16::try_from(response.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or_else(|| {
            Lost::new(LostKind::Protocol, format_args!("SendResponse.status {}", response.status))
        })?;
        judge(&self.plan, status, &head.headers, response.body.len() as u64)
    }
}

fn message(plan: &Plan, headers: &HeaderMap) -> SendRequest {
    let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned() };
    let headers = headers
        .iter()
        .filter_map(|(name, value)| Some(header(name.as_str(), value.to_str().ok()?)))
        .collect();
    let (environment, route) = match &plan.send_target {
        SendTarget::ByRoutes => (None, None),
        SendTarget::Environment(name) => (Some(name.clone()), None),
        SendTarget::Route(name) => (None, Some(name.clone())),
    };
    SendRequest {
        environment,
        route,
        method: plan.method.to_string(),
        path: plan.path.to_string(),
        headers,
        body: plan.body.clone(),
    }
}

fn frame(message: &SendRequest) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    // Bodies are limited to 64 MiB by the plan.
    framed.put_u32(u32::try_from(length).expect("message below 4 GiB"));
    message.encode(&mut framed).expect("capacity reserved");
    framed.freeze()
}

fn unframe(mut data: Bytes) -> Result<SendResponse, Lost> {
    let broken = |cause: &str| Lost::new(LostKind::Protocol, format_args!("SendResponse: {cause}"));
    if data.len() < PREFIX_BYTES {
        return Err(broken("no message before the trailers"));
    }
    let (compressed, length) = (data.get_u8(), data.get_u32());
    if compressed != 0 || length as usize != data.len() {
        return Err(broken("message is compressed, cut off or not alone"));
    }
    SendResponse::decode(data).map_err(|error| broken(&error.to_string()))
}

fn check_status(trailers: &HeaderMap) -> Result<(), Lost> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none");
    match text("grpc-status") {
        "0" => Ok(()),
        status => {
            let (code, words) = (text("gw-error"), text("grpc-message"));
            let detail = format_args!("grpc-status {status}, gw-error {code}, grpc-message {words}");
            Err(Lost { told: Told::read(trailers), ..Lost::new(LostKind::GrpcStatus, detail) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(response: &SendResponse) -> Bytes {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(response.encoded_len() as u32);
        response.encode(&mut framed).unwrap();
        framed.freeze()
    }

    #[test]
    fn messages_survive_their_framing() {
        let response = SendResponse { status: 200, body: Bytes::from_static(b"ok") };
        assert_eq!(unframe(framed(&response)).unwrap(), response);
        let request = SendRequest { path: "/a".into(), ..SendRequest::default() };
        let wire = frame(&request);
        assert_eq!(wire[0], 0);
        assert_eq!(SendRequest::decode(&wire[PREFIX_BYTES..]).unwrap(), request);
    }

    #[test]
    fn broken_frames_are_protocol_losses() {
        let good = framed(&SendResponse { status: 200, body: Bytes::new() });
        let mut compressed = good.to_vec();
        compressed[0] = 1;
        for bad in [Bytes::new(), good.slice(..good.len() - 1), Bytes::from(compressed)] {
            assert_eq!(unframe(bad).unwrap_err().kind, LostKind::Protocol);
        }
    }

    #[test]
    fn only_grpc_status_zero_is_good() {
        let mut trailers = HeaderMap::new();
        assert_eq!(check_status(&trailers).unwrap_err().kind, LostKind::GrpcStatus);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert!(check_status(&trailers).is_ok());
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        trailers.insert("gw-error", HeaderValue::from_static("queue_full"));
        let lost = check_status(&trailers).unwrap_err();
        assert!(lost.detail.contains("14") && lost.detail.contains("queue_full"), "{}", lost.detail);
    }
}
