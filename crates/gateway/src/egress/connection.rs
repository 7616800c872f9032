//! Serving one caller's connection: sniff, HTTP/1.1 or HTTP/2, an orderly end.
//!
//! Owns hyper's settings towards callers. A request's way is `service`; accepting is `accept`.

use std::{convert::Infallible, pin::pin, sync::Arc, task::Poll};

use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pool::coalesce::coalesce;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    body::ReplyBody,
    caller::{Caller, Phase},
    callers::Peer,
    core::Core,
    exchange::Exchange,
    io::{CallerIo, Sniffed, sniff},
    service::handle,
    watch::WatchedStreams,
};
use crate::{
    grpc,
    outcome::ErrorCode,
    telemetry::{CallerProtocol, Ended, RecorderHandle},
};

/// What a worker needs to serve connections.
pub(super) struct Server {
    pub(super) core: Arc<Core>,
    pub(super) recorder: RecorderHandle,
    pub(super) grpc: axum::Router,
    /// Cancelled when callers are to be told to go.
    pub(super) drain: CancellationToken,
}

/// hyper's own limits are this much wider than ours, so that our reply with its code comes first.
const HEADROOM: usize = 2;
/// The least that hyper accepts as a read buffer.
const LEAST_BUFFER: usize = 8 * 1024;
/// Receive window of one stream of an HTTP/2 caller.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Receive window of one HTTP/2 caller.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// One `recv` from an HTTP/2 caller fetches up to this much.
const H2C_READ_BUFFER: usize = 32 * 1024;
/// Largest frame taken from HTTP/2 callers.
const MAX_FRAME: u32 = 16 * 1024;

impl Server {
    /// Serves until the caller leaves, breaks a limit, or has been drained.
    pub(super) async fn serve<S>(self: Arc<Self>, mut stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.core.caller_timeouts;
        let sniffed = tokio::select! {
            biased;
            sniffed = sniff(&mut stream, limits) => sniffed,
            () = self.drain.cancelled() => return,
        };
        // A caller that sends nothing, or leaves, is nobody's error.
        let Ok((sniffed, first)) = sniffed else { return };
        let phase = Phase::new();
        let protocol = match sniffed {
            Sniffed::H2c => CallerProtocol::H2c,
            Sniffed::Http1 => CallerProtocol::Http11,
        };
        let io = CallerIo::new(stream, first, phase.clone(), limits);
        let caller = Arc::new(Caller {
            core: self.core.clone(),
            recorder: self.recorder.clone(),
            peer: peer.address(),
            share: self.core.callers.of(peer),
            protocol,
            phase,
        });
        match sniffed {
            Sniffed::Http1 => self.serve_http1(io, caller).await,
            Sniffed::H2c => self.serve_h2c(io, caller).await,
        }
    }

    async fn serve_http1<S>(self: Arc<Self>, io: CallerIo<S>, caller: Arc<Caller>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.core.limits;
        let mut builder = http1::Builder::new();
        builder
            .max_headers(limits.max_headers * HEADROOM)
            .max_buf_size((limits.max_header_bytes * HEADROOM).max(LEAST_BUFFER))
            // Time limits are the stream's: hyper's timer would be armed anew for every request.
            .header_read_timeout(None);
        let (server, serving) = (self.clone(), caller.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, caller) = (server.clone(), serving.clone());
            async move { Ok::<_, Infallible>(server.dispatch(caller, request).await) }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let result = tokio::select! {
            biased;
            result = connection.as_mut() => result,
            () = self.drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            note_refused(&error, caller);
        }
    }

    async fn serve_h2c<S>(self: Arc<Self>, io: CallerIo<S>, caller: Arc<Caller>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.core.limits;
        let mut builder = http2::Builder::new(WatchedStreams { idle: self.core.caller_timeouts.idle });
        let header_list = u32::try_from(limits.max_header_bytes * HEADROOM).unwrap_or(u32::MAX);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_header_list_size(header_list)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            // HTTP/2 watches over itself: a caller that answers no PING is gone.
            .keep_alive_interval(self.core.caller_timeouts.idle)
            .keep_alive_timeout(self.core.caller_timeouts.header);
        caller.phase.exchange_began();
        let server = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, caller) = (server.clone(), caller.clone());
            async move { Ok::<_, Infallible>(server.dispatch(caller, request).await) }
        });
        // h2 reads 8 KiB at a time; a burst of requests should cost one `recv`.
        let (io, drain) = coalesce(BufReader::with_capacity(H2C_READ_BUFFER, io));
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let mut told = false;
        let mut going = pin!(self.drain.cancelled());
        // How an HTTP/2 caller's connection ends is told by the outcomes of its requests.
        std::future::poll_fn(|cx| {
            if !told && going.as_mut().poll(cx).is_ready() {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            let ended = connection.as_mut().poll(cx).map(|_| ());
            // The replies of all streams of this turn leave in one write.
            let _ = drain.poll_drain(cx);
            if drain.is_deaf() { Poll::Ready(()) } else { ended }
        })
        .await;
    }

    /// Reserved paths belong to the gRPC API and beat routes; everything else is carried.
    async fn dispatch(&self, caller: Arc<Caller>, request: Request<Incoming>) -> http::Response<ReplyBody> {
        if !grpc::is_reserved(request.uri().path()) {
            return handle(caller, request).await;
        }
        caller.phase.exchange_began();
        let mut request = request.map(tonic::body::Body::new);
        request.extensions_mut().insert(grpc::CallerIdentity { address: caller.peer, share: caller.share });
        match self.grpc.clone().oneshot(request).await {
            Ok(reply) => reply.map(|body| ReplyBody::grpc(tonic::body::Body::new(body), &caller)),
            Err(never) => match never {},
        }
    }
}

/// A header that hyper refused by itself never became a request; it is counted and logged all the same.
fn note_refused(error: &hyper::Error, caller: Arc<Caller>) {
    let code = if error.is_parse_too_large() {
        ErrorCode::HeadersTooLarge
    } else if error.is_parse() {
        ErrorCode::BadRequest
    } else if is_timeout(error) && caller.phase.at() == super::caller::At::Head {
        ErrorCode::RequestTimeout
    } else {
        return;
    };
    // Nothing of the request is known, its method included.
    let mut exchange = Exchange::begin(caller, http::Method::OPTIONS, None);
    exchange.fail(code, code.retry_safe_before_send());
    exchange.finish(Ended::GatewayReply);
}

fn is_timeout(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::TimedOut) {
            return true;
        }
        source = cause.source();
    }
    false
}
