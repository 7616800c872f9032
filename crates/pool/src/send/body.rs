//! The response body on its way to the caller: credit is given back as it is read, so a slow caller slows its own
//! stream and nothing else. Holds the lease until the body has ended.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    task::AbortHandle,
    time::{Instant, Sleep},
};

use crate::{
    connection::State, error::BodyError, hub::StreamLease, send::http1::Progress, status::CauseOfDeath,
};

/// A response body. Dropping it before its end resets the stream with CANCEL.
pub struct ResponseBody {
    source: Source,
    /// Content still to come, where `content-length` said so.
    remaining: Option<u64>,
    limits: BodyLimits,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

enum Source {
    H2 {
        // Order matters: the stream goes before the permit.
        stream: RecvStream,
        /// The rest of the request body, where the response began before its end.
        upload: Option<Rest>,
        _lease: StreamLease,
    },
    Http11 {
        body: Incoming,
        lease: StreamLease,
        upload: Arc<Progress>,
        /// The end of the response was seen.
        finished: bool,
    },
    Ended,
}

/// Time limits of a response body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Between two pieces.
    pub(super) idle: Duration,
    /// Of the whole exchange.
    pub(super) deadline: Option<Instant>,
}

/// The task that sends the rest of a request body; it does not outlive the response.
pub(super) struct Rest {
    task: AbortHandle,
    /// It ended because the caller's body did, too early.
    caller_left: Arc<AtomicBool>,
}

impl Rest {
    pub(super) fn new(task: AbortHandle, caller_left: Arc<AtomicBool>) -> Self {
        Self { task, caller_left }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody")
            .field("ended", &matches!(self.source, Source::Ended))
            .finish_non_exhaustive()
    }
}

impl ResponseBody {
    pub(super) fn h2(
        stream: RecvStream,
        upload: Option<Rest>,
        lease: StreamLease,
        length: Option<u64>,
        limits: BodyLimits,
    ) -> Self {
        let source = if stream.is_end_stream() && upload.is_none() {
            Source::Ended
        } else {
            Source::H2 { stream, upload, _lease: lease }
        };
        Self { source, remaining: length, limits, waiting_since: None, timer: None }
    }

    pub(super) fn http11(
        body: Incoming,
        lease: StreamLease,
        upload: Arc<Progress>,
        limits: BodyLimits,
    ) -> Self {
        let remaining = body.size_hint().exact();
        let finished = body.is_end_stream();
        let source = Source::Http11 { body, lease, upload, finished };
        let source = if finished { Source::Ended } else { source };
        Self { source, remaining, limits, waiting_since: None, timer: None }
    }

    /// Everything was handed over: the end was seen, or every byte that `content-length` promised.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        matches!(self.source, Source::Ended) || self.remaining == Some(0)
    }

    fn end(&mut self) {
        // With the source goes the rest of the request body: the response is complete, nobody wants it.
        self.source = Source::Ended;
        self.timer = None;
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Ended => Poll::Ready(None),
            Source::H2 { stream, upload, .. } => {
                let frame = ready!(poll_h2(stream, cx));
                let left = upload.as_ref().is_some_and(|rest| rest.caller_left.load(Ordering::Acquire));
                Poll::Ready(match frame {
                    Some(Err(BodyError::Cut(_))) if left => Some(Err(BodyError::CallerGone)),
                    frame => frame,
                })
            }
            Source::Http11 { body, finished, .. } => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                *finished = matches!(&frame, Some(Ok(_)) if body.is_end_stream()) || frame.is_none();
                Poll::Ready(frame.map(|f| f.map_err(|e| BodyError::Cut(e.to_string()))))
            }
        }
    }

    /// The limit between two pieces. The timer is made only when a body really makes us wait.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let idle = since + self.limits.idle;
        let due = self.limits.deadline.map_or(idle, |deadline| deadline.min(idle));
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                let error = if due < idle { BodyError::Deadline } else { BodyError::Idle(self.limits.idle) };
                return Poll::Ready(error);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

fn poll_h2(stream: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let cut = |e: h2::Error| BodyError::Cut(e.to_string());
    match ready!(stream.poll_data(cx)) {
        Some(Ok(data)) => {
            // Credit goes back as the caller takes the bytes: forgotten credit would stall the whole connection.
            let _ = stream.flow_control().release_capacity(data.len());
            Poll::Ready(Some(Ok(Frame::data(data))))
        }
        Some(Err(e)) => Poll::Ready(Some(Err(cut(e)))),
        None => {
            let trailers = ready!(stream.poll_trailers(cx)).map_err(cut).transpose();
            Poll::Ready(trailers.map(|t| t.map(Frame::trailers)))
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = this.poll_source(cx) else {
            let error = ready!(this.poll_overdue(cx));
            this.end();
            return Poll::Ready(Some(Err(error)));
        };
        this.waiting_since = None;
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(remaining), Some(data)) = (&mut this.remaining, frame.data_ref()) {
                    *remaining = remaining.saturating_sub(data.len() as u64);
                }
                // The last DATA frame usually carries END_STREAM: give the stream back now, not at the next poll.
                let over = match &this.source {
                    Source::H2 { stream, .. } => frame.is_trailers() || stream.is_end_stream(),
                    Source::Http11 { body, .. } => body.is_end_stream(),
                    Source::Ended => true,
                };
                if over {
                    this.end();
                }
            }
            Some(Err(_)) | None => this.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, self.remaining) {
            (Source::Ended, _) => SizeHint::with_exact(0),
            (_, Some(n)) => SizeHint::with_exact(n),
            (_, None) => SizeHint::default(),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // An HTTP/1.1 connection left in the middle of an exchange, either way, cannot be lent again.
        if let Source::Http11 { lease, upload, finished, .. } = self
            && !(*finished && upload.moved().ended)
            && lease.link().state() == State::Serving
        {
            lease.link().retire(CauseOfDeath::Abandoned, Instant::now());
        }
    }
}
