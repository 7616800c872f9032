//! A tiny cleartext server: HTTP/1.1, HTTP/2 and the one gRPC method, told apart by the first bytes.
//!
//! Echoes bodies, counts requests, and loses them in the ways a test asks for.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::poll_fn;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// What the server does wrong; nothing by default.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    /// 503 with `gw-error` for every n-th request.
    pub fail_every: Option<u64>,
    /// 503 for the first request.
    pub fail_first: bool,
    /// Reset the stream, or close the HTTP/1.1 connection, at every n-th request.
    pub cut_every: Option<u64>,
    /// Never answer every n-th request.
    pub hang_every: Option<u64>,
    /// End an HTTP/1.1 connection after the n-th response on it.
    pub close_after: Option<u64>,
    /// Wait this long before the first answer.
    pub stall_once_ms: u64,
    /// `grpc-status` of every call.
    pub grpc_status: &'static str,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            fail_every: None,
            fail_first: false,
            cut_every: None,
            hang_every: None,
            close_after: None,
            stall_once_ms: 0,
            grpc_status: "0",
        }
    }
}

/// A running server; ends with the test's runtime.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    behaviour: Behaviour,
    requests: AtomicU64,
    correlation_ids: Mutex<BTreeSet<String>>,
}

enum Verdict {
    Answer(StatusCode),
    Cut,
}

impl Server {
    /// Starts on a free port of loopback.
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behaviour,
            requests: AtomicU64::new(0),
            correlation_ids: Mutex::new(BTreeSet::new()),
        });
        let accepting = state.clone();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                connections.spawn(serve(accepting.clone(), stream));
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests seen.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Correlation ids seen.
    pub(crate) fn correlation_ids(&self) -> BTreeSet<String> {
        self.state.correlation_ids.lock().clone()
    }
}

impl State {
    async fn enter(&self) -> Verdict {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let hit = |every: Option<u64>| every.is_some_and(|every| number.is_multiple_of(every));
        if number == 1 && self.behaviour.stall_once_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.behaviour.stall_once_ms)).await;
        }
        if hit(self.behaviour.hang_every) {
            std::future::pending::<()>().await;
        }
        if hit(self.behaviour.cut_every) {
            return Verdict::Cut;
        }
        let failed = hit(self.behaviour.fail_every) || (self.behaviour.fail_first && number == 1);
        Verdict::Answer(if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
    }

    fn note(&self, correlation_id: &str) {
        self.correlation_ids.lock().insert(correlation_id.to_owned());
    }

    fn note_header(&self, headers: &HeaderMap) {
        if let Some(id) = headers.get("x-correlation-id") {
            self.note(id.to_str().unwrap());
        }
    }
}

async fn serve(state: Arc<State>, stream: TcpStream) {
    let mut start = [0; PREFACE.len()];
    while let Ok(read @ 1..) = stream.peek(&mut start).await {
        if start[..read] != PREFACE[..read] {
            return serve_http1(state, stream).await;
        }
        if read == PREFACE.len() {
            return serve_h2(state, stream).await;
        }
    }
}

async fn serve_http1(state: Arc<State>, stream: TcpStream) {
    let answered = AtomicU64::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let state = state.clone();
        let last = state.behaviour.close_after == Some(answered.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            state.note_header(request.headers());
            let Verdict::Answer(status) = state.enter().await else {
                return Err(std::io::Error::other("cut as asked"));
            };
            let body = if status == StatusCode::OK {
                Either::Left(request.into_body())
            } else {
                Either::Right(Full::<Bytes>::default().map_err(|never: Infallible| match never {}))
            };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            response.headers_mut().insert("gw-error", HeaderValue::from_static("queue_full"));
            if last {
                response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    });
    let _cut_by_either_side = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn serve_h2(state: Arc<State>, stream: TcpStream) {
    let builder = h2::server::Builder::new().initial_window_size(1 << 20).handshake(stream);
    let mut connection = builder.await.unwrap();
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let state = state.clone();
        streams.spawn(async move {
            if request.uri().path() == "/tsh.gateway.v1.Egress/Send" {
                answer_grpc(&state, request, respond).await;
            } else {
                answer_h2(&state, request, respond).await;
            }
        });
    }
}

async fn answer_h2(state: &State, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    state.note_header(request.headers());
    let Verdict::Answer(status) = state.enter().await else { return respond.send_reset(h2::Reason::CANCEL) };
    let failed = status != StatusCode::OK;
    let response = Response::builder().status(status).header("gw-error", "queue_full").body(()).unwrap();
    let Ok(mut out) = respond.send_response(response, failed) else { return };
    let mut body = request.into_body();
    if failed {
        return;
    }
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        send(&mut out, data).await;
    }
    let _reset_by_peer = out.send_data(Bytes::new(), true);
}

async fn send(out: &mut SendStream<Bytes>, mut data: Bytes) {
    while data.has_remaining() {
        out.reserve_capacity(data.len());
        let Some(Ok(granted)) = poll_fn(|cx| out.poll_capacity(cx)).await else { return };
        let _reset_by_peer = out.send_data(data.split_to(granted.min(data.len())), false);
    }
}

#[derive(Clone, PartialEq, Message)]
struct SendCall {
    #[prost(string, tag = "4")]
    path: String,
    #[prost(message, repeated, tag = "5")]
    headers: Vec<Field>,
    #[prost(bytes = "bytes", tag = "6")]
    body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct SendReply {
    #[prost(uint32, tag = "1")]
    status: u32,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Field>,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

async fn answer_grpc(state: &State, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        message.extend_from_slice(&data);
    }
    let call = SendCall::decode(message.split_off(5).freeze()).unwrap();
    assert_eq!(call.path, "/echo?x=1");
    call.headers.iter().filter(|h| h.name == "x-correlation-id").for_each(|h| state.note(&h.value));
    let Verdict::Answer(status) = state.enter().await else { return respond.send_reset(h2::Reason::CANCEL) };
    let reply = SendReply { status: status.as_u16().into(), headers: Vec::new(), body: call.body };
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(reply.encoded_len() as u32);
    reply.encode(&mut framed).unwrap();
    let response = Response::builder().header("content-type", "application/grpc");
    let response = response.header("gw-error", "queue_full").body(()).unwrap();
    let Ok(mut out) = respond.send_response(response, false) else { return };
    send(&mut out, framed.freeze()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(state.behaviour.grpc_status));
    let _reset_by_peer = out.send_trailers(trailers);
}
