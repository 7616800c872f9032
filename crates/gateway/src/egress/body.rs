//! What hyper sends to a caller: the provider's body with its exchange, a reply of our own, or a gRPC reply.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pool::{BodyError, BoxError, ResponseBody, RetrySafe};

use super::{
    caller::{Caller, Phase},
    exchange::Exchange,
    headers, watch,
};
use crate::{outcome::ErrorCode, telemetry::Ended};

/// The body of a reply. Records the outcome of its request when it ends or is dropped.
pub struct ReplyBody {
    source: Source,
    exchange: Option<Box<Exchange>>,
    /// Of a caller for which a gRPC reply ends the exchange.
    phase: Option<Arc<Phase>>,
}

enum Source {
    Provider(ResponseBody),
    Own(Option<Bytes>),
    Grpc(tonic::body::Body),
}

impl ReplyBody {
    /// The provider's response on its way.
    pub(super) fn provider(body: ResponseBody, exchange: Box<Exchange>) -> Self {
        watch::callers_turn();
        let mut this = Self { source: Source::Provider(body), exchange: Some(exchange), phase: None };
        if this.is_end_stream() {
            this.finish(Ended::Complete);
        }
        this
    }

    /// A reply of our own.
    pub(super) fn own(content: Bytes, exchange: Option<Box<Exchange>>) -> Self {
        watch::callers_turn();
        let content = (!content.is_empty()).then_some(content);
        let mut this = Self { source: Source::Own(content), exchange, phase: None };
        if this.is_end_stream() {
            this.finish(Ended::GatewayReply);
        }
        this
    }

    /// A gRPC reply; its service records its own outcome.
    pub(super) fn grpc(body: tonic::body::Body, caller: &Caller) -> Self {
        watch::callers_turn();
        let phase = caller.is_http1().then(|| caller.phase.clone());
        Self { source: Source::Grpc(body), exchange: None, phase }
    }

    fn finish(&mut self, ended: Ended) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(ended);
        }
    }

    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        match frame {
            Some(Ok(frame)) => {
                if let (Some(exchange), Some(data)) = (&mut self.exchange, frame.data_ref()) {
                    exchange.bytes_out += data.len() as u64;
                }
            }
            Some(Err(e)) => {
                let (code, ended) = match e {
                    BodyError::Cut(_) => (ErrorCode::ResponseCut, Ended::ProviderCut),
                    BodyError::Idle(_) => (ErrorCode::IdleTimeout, Ended::Timeout),
                    BodyError::Deadline => (ErrorCode::DeadlineExceeded, Ended::Timeout),
                    BodyError::CallerGone | BodyError::CallerStalled(_) | BodyError::Unread(_) => {
                        (ErrorCode::CallerGone, Ended::CallerGone)
                    }
                    BodyError::BodyTooLarge { .. } => (ErrorCode::BodyTooLarge, Ended::CallerGone),
                };
                if let Some(exchange) = &mut self.exchange {
                    let malformed = exchange.caller().phase.is_body_malformed();
                    let code =
                        if code == ErrorCode::CallerGone && malformed { ErrorCode::BadRequest } else { code };
                    // The status has been sent already; the log keeps it beside the code.
                    exchange.code = Some(code);
                    exchange.retry_safe = Some(RetrySafe::Unknown);
                }
                self.finish(ended);
            }
            None => self.finish(Ended::Complete),
        }
        if self.is_end_stream() {
            self.finish(Ended::Complete);
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        // Asked for: whatever comes next is not the caller's to give.
        watch::our_turn();
        let frame = ready!(this.poll_source(cx));
        if matches!(&frame, Some(Ok(_))) {
            watch::callers_turn();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Provider(body) => body.is_end_stream(),
            Source::Own(content) => content.is_none(),
            Source::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Provider(body) => body.size_hint(),
            Source::Own(content) => SizeHint::with_exact(content.as_ref().map_or(0, |c| c.len() as u64)),
            Source::Grpc(body) => body.size_hint(),
        }
    }
}

impl ReplyBody {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.source {
            Source::Provider(body) => {
                let mut frame = ready!(Pin::new(body).poll_frame(cx));
                // gRPC callers look for our word in trailers too: the provider may not speak it there either.
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    headers::to_caller(trailers);
                }
                self.note(frame.as_ref());
                Poll::Ready(frame.map(|f| f.map_err(Into::into)))
            }
            Source::Own(content) => {
                let content = content.take();
                if let (Some(exchange), Some(data)) = (&mut self.exchange, &content) {
                    exchange.bytes_out = data.len() as u64;
                }
                self.finish(Ended::GatewayReply);
                Poll::Ready(content.map(|data| Ok(Frame::data(data))))
            }
            Source::Grpc(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|f| f.map_err(Into::into)))
            }
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if let Some(phase) = &self.phase {
            phase.exchange_ended();
        }
        // Everything that `content-length` promised was handed over, or the request had none to read (HEAD).
        let delivered = match &self.source {
            Source::Provider(body) => body.is_delivered(),
            Source::Own(_) | Source::Grpc(_) => true,
        };
        // HEAD, 204 and 304 have no body to deliver (RFC 9110 §6.4.1), whatever the provider's frames say.
        let bodiless = self
            .exchange
            .as_ref()
            .is_some_and(|e| e.method == http::Method::HEAD || matches!(e.status, 204 | 304));
        if delivered || bodiless {
            let ended =
                if matches!(self.source, Source::Own(_)) { Ended::GatewayReply } else { Ended::Complete };
            self.finish(ended);
        }
    }
}
