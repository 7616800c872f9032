//! The two ends around the gateway: callers and a provider, both hyper, both in memory.
//!
//! Owns the request and the reply that all benchmarks exchange: a POST of 1 KiB and a reply of 1 KiB.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

/// Size of every body, both ways.
pub const BODY_BYTES: usize = 1024;

static BODY: [u8; BODY_BYTES] = [b'x'; BODY_BYTES];

/// The request of a caller. `target` is a path for HTTP/1.1 and a whole URI for HTTP/2.
///
/// # Panics
/// If `target` is no URI.
#[must_use]
pub fn request(target: &str) -> Request<Full<Bytes>> {
    Request::post(target)
        .header(header::HOST, "gateway.bank.test")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, "Bearer 0123456789abcdef0123456789abcdef")
        .header(header::USER_AGENT, "bench")
        .header("x-correlation-id", "6f1d2c3b4a5968778695a4b3c2d1e0f1")
        .body(Full::new(Bytes::from_static(&BODY)))
        .expect("a request")
}

/// Answers every request on this stream, once its body is there. To be spawned.
pub async fn serve_provider<S>(stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| async {
        let taken = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
        let reply = Response::builder()
            .status(if taken == BODY_BYTES { 200 } else { 400 })
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from_static(&BODY)));
        Ok::<_, Infallible>(reply.expect("a reply"))
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // The benchmark's end cuts the stream; there is nobody to tell.
    let _ = serving.serve_connection(TokioIo::new(stream), service).await;
}

/// One connection of a caller.
pub enum Caller {
    /// HTTP/1.1, keep-alive.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2 by prior knowledge.
    H2(http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    /// Speaks HTTP/1.1 over this stream.
    ///
    /// # Panics
    /// If the other end does not.
    pub async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self::Http1(sender)
    }

    /// Speaks HTTP/2 over this stream.
    ///
    /// # Panics
    /// If the other end does not.
    pub async fn h2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        Self::H2(sender)
    }

    /// One request to the last byte of its reply.
    ///
    /// # Panics
    /// If the reply is not the provider's.
    pub async fn send(&mut self) {
        let reply = match self {
            Self::Http1(sender) => {
                sender.ready().await.expect("a connection");
                sender.send_request(request("/tokens/v1/provision?trace=1")).await
            }
            Self::H2(sender) => {
                sender.ready().await.expect("a connection");
                sender.send_request(request("http://gateway.bank.test/tokens/v1/provision?trace=1")).await
            }
        };
        let reply = reply.expect("a reply");
        assert_eq!(reply.status(), 200);
        let body = reply.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(body.len(), BODY_BYTES);
    }
}
