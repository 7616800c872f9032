//! Internal services as callers: HTTP/1.1 and HTTP/2 cleartext, with nothing retried behind the test's back.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header, request};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::wait::within;

/// What callers send.
pub type Body = BoxBody<Bytes, io::Error>;

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body of known length.
pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed()
}

/// The host that callers ask for, unless a test says otherwise.
pub const HOST: &str = "gateway.bank.internal";

/// The beginning of a request with a correlation identifier.
pub fn ask(method: &str, path: &str, id: &str) -> request::Builder {
    Request::builder().method(method).uri(format!("http://{HOST}{path}")).header("x-correlation-id", id)
}

/// A body that a test feeds piece by piece. Dropping the feed ends it; [`abort`](Feed::abort) breaks it.
pub struct Feed(mpsc::Sender<Result<Frame<Bytes>, io::Error>>);

struct Fed(mpsc::Receiver<Result<Frame<Bytes>, io::Error>>);

impl Feed {
    /// A feed and the body it feeds.
    pub fn new() -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), Fed(receiver).boxed())
    }

    /// Sends a piece; `false` when nobody takes it any more.
    pub async fn send(&self, piece: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(piece.into()))).await.is_ok()
    }

    /// Ends the body with trailers.
    pub async fn trailers(self, trailers: HeaderMap) {
        let _ = self.0.send(Ok(Frame::trailers(trailers))).await;
    }

    /// Breaks the body off.
    pub async fn abort(self) {
        let _ = self.0.send(Err(io::Error::other("broken off by the test"))).await;
    }
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx)
    }
}

/// A whole reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Header.
    pub headers: HeaderMap,
    /// Body, as far as it came.
    pub body: Bytes,
    /// Trailers.
    pub trailers: Option<HeaderMap>,
    /// Why the body ended before its end.
    pub cut: Option<String>,
}

impl Reply {
    /// Reads a response to its end.
    pub async fn read(response: Response<Incoming>) -> Self {
        let (parts, mut body) = response.into_parts();
        let mut reply = Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: Bytes::new(),
            trailers: None,
            cut: None,
        };
        let mut content = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => content.extend_from_slice(&data),
                Ok(Err(frame)) => reply.trailers = frame.into_trailers().ok(),
                Err(error) => {
                    reply.cut = Some(error.to_string());
                    break;
                }
            }
        }
        reply.body = content.freeze();
        reply
    }

    /// A header as text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// An HTTP/1.1 connection of a caller.
pub struct Http1(http1::SendRequest<Body>);

impl Http1 {
    /// Connects over TCP.
    pub async fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.expect("the gateway accepts");
        tcp.set_nodelay(true).expect("a socket option");
        Self::over(tcp).await
    }

    /// Over any stream.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(async move {
            // How it ended is told to the request under way.
            let _ = connection.await;
        });
        Self(sender)
    }

    /// Sends a request and returns the response with its body still to come.
    ///
    /// # Errors
    /// What hyper says.
    pub async fn open(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        self.0.ready().await?;
        self.0.send_request(origin_form(request)).await
    }

    /// Sends a request and reads the whole reply.
    ///
    /// # Panics
    /// When there is none.
    pub async fn send(&mut self, request: Request<Body>) -> Reply {
        let response = within("a reply over HTTP/1.1", self.open(request)).await.expect("a response");
        within("the reply's body", Reply::read(response)).await
    }

    /// Whether it takes one more request.
    pub async fn is_open(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }
}

/// Path as target, host as a field: as services call a host, not a proxy.
fn origin_form(mut request: Request<Body>) -> Request<Body> {
    let uri = std::mem::take(request.uri_mut());
    if let Some(authority) = uri.authority()
        && !request.headers().contains_key(header::HOST)
    {
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is a header value");
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    request
}

/// An HTTP/2 cleartext connection of a caller; clones share it.
#[derive(Clone)]
pub struct H2c(http2::SendRequest<Body>);

impl H2c {
    /// Connects with prior knowledge.
    pub async fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.expect("the gateway accepts");
        tcp.set_nodelay(true).expect("a socket option");
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.expect("HTTP/2");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self(sender)
    }

    /// Sends a request and returns the response with its body still to come.
    ///
    /// # Errors
    /// What hyper says.
    pub async fn open(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    /// Sends a request and reads the whole reply.
    ///
    /// # Panics
    /// When there is none.
    pub async fn send(&mut self, request: Request<Body>) -> Reply {
        let response = within("a reply over h2c", self.open(request)).await.expect("a response");
        within("the reply's body", Reply::read(response)).await
    }

    /// Whether the gateway has said that it wants no more requests here.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// A caller that writes bytes as they are.
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("the gateway accepts"))
    }

    /// Writes; errors are the reader's to see.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Reads until `pattern` has come; returns everything read.
    ///
    /// # Panics
    /// When the gateway closes before.
    pub async fn read_until(&mut self, pattern: &str) -> String {
        let mut seen = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&seen).contains(pattern) {
                if self.0.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                    panic!("closed before {pattern:?}: {}", String::from_utf8_lossy(&seen));
                }
            }
        };
        within(pattern, reading).await;
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads until the gateway closes.
    pub async fn read_to_end(&mut self) -> String {
        let mut seen = Vec::new();
        // A reset after the reply ends it as well.
        let _ = within("the gateway closes", self.0.read_to_end(&mut seen)).await;
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// The socket.
    pub fn into_inner(self) -> TcpStream {
        self.0
    }
}
