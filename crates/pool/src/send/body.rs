//! The response body on its way to the caller: credit is given back as it is read, so a slow caller slows its own
//! stream and nothing else. The stream and its lease are held until the body has ended; see `reading`.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{Instant, Sleep},
};

use super::{
    http1::Progress,
    reading::{Reading, Slot, Sweeper, Unread},
    upload::{UploadError, WaitsFor},
};
use crate::{
    connection::{Link, State},
    error::{BodyError, ResponseCut},
    hub::StreamLease,
    journey::Phase,
    status::CauseOfDeath,
};

/// A response body. Dropping it before its end gives the stream up: it is reset with CANCEL, or left to run out where
/// the connection has seen too many resets.
pub struct ResponseBody {
    source: Source,
    /// Content still to come, where `content-length` said so.
    remaining: Option<u64>,
    limits: BodyLimits,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

enum Source {
    H2(Registered),
    /// Boxed: a response over HTTP/2 should not be moved about with the room for one of these.
    Http11(Box<Lent>),
    Ended,
}

/// A body on a connection that is lent exclusively.
struct Lent {
    body: Incoming,
    lease: StreamLease,
    upload: Arc<Progress>,
    /// The end of the response was seen.
    finished: bool,
}

/// A body on an HTTP/2 stream, known to the sweep.
struct Registered {
    slot: Arc<Slot>,
    link: Arc<Link>,
    key: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.link.readings().remove(self.key);
    }
}

/// Limits of a response body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Between two pieces.
    pub(super) idle: Duration,
    /// Of the whole exchange.
    pub(super) deadline: Option<Instant>,
    /// Streams that may be reset on one connection within 30 seconds.
    pub(super) resets: u32,
}

/// The task that sends the rest of a request body; it does not outlive the response.
pub(super) struct Rest {
    task: AbortHandle,
    beside: Arc<Beside>,
}

/// What is known of the rest of a request body that goes on beside its response.
#[derive(Debug)]
pub(super) struct Beside {
    /// When it last moved, and who has to move next.
    moved: Mutex<(Instant, WaitsFor)>,
    /// Why it ended the exchange, if it did.
    end: OnceLock<BodyError>,
}

impl Beside {
    pub(super) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self { moved: Mutex::new((now, WaitsFor::Provider)), end: OnceLock::new() })
    }

    /// It moved.
    pub(super) fn moved(&self, now: Instant) {
        self.moved.lock().0 = now;
    }

    /// It stands, for want of this; the provider's move where it is complete.
    pub(super) fn waits_for(&self, next: WaitsFor) {
        self.moved.lock().1 = next;
    }

    /// It ends the exchange, for this reason.
    pub(super) fn ends(&self, why: BodyError) {
        let _ = self.end.set(why);
    }
}

impl Rest {
    pub(super) fn new(task: AbortHandle, beside: Arc<Beside>) -> Self {
        Self { task, beside }
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
        rest: Option<Rest>,
        lease: StreamLease,
        length: Option<u64>,
        limits: BodyLimits,
        sweeper: &Sweeper,
    ) -> Self {
        let source = if stream.is_end_stream() && rest.is_none() {
            Source::Ended
        } else {
            let link = lease.link().clone();
            let slot = Slot::new(Reading { stream, rest, lease, resets: limits.resets });
            let key = link.readings().insert(slot.clone(), limits.idle);
            sweeper.arm();
            Source::H2(Registered { slot, link, key })
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
        let source = Source::Http11(Box::new(Lent { body, lease, upload, finished }));
        let mut this = Self { source, remaining, limits, waiting_since: None, timer: None };
        if finished {
            this.end(Leaving::Ended);
        }
        this
    }

    /// Everything was handed over: the end was seen, or every byte that `content-length` promised.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        matches!(self.source, Source::Ended) || self.remaining == Some(0)
    }

    fn end(&mut self, how: Leaving) {
        // With the source goes the rest of the request body: the response is complete, nobody wants it.
        self.source.leave(how);
        self.source = Source::Ended;
        self.timer = None;
    }

    fn given_up(&self) -> Leaving {
        if self.remaining == Some(0) { Leaving::Complete } else { Leaving::Unread }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let complete = self.remaining == Some(0);
        match &mut self.source {
            Source::Ended => Poll::Ready(None),
            Source::H2(Registered { slot, .. }) => {
                let mut reading = slot.reading.lock();
                let Some(reading) = reading.as_mut() else {
                    // The sweep ended it.
                    return Poll::Ready(Some(Err(BodyError::Unread(self.limits.idle))));
                };
                let Poll::Ready(frame) = poll_h2(&mut reading.stream, complete, cx) else {
                    slot.waits();
                    return Poll::Pending;
                };
                slot.served();
                let ended_by_us = || reading.rest.as_ref().and_then(|rest| rest.beside.end.get()).cloned();
                Poll::Ready(match frame {
                    Some(Err(cut)) => Some(Err(ended_by_us().unwrap_or(cut))),
                    frame => frame,
                })
            }
            Source::Http11(lent) => {
                let Lent { body, upload, finished, .. } = &mut **lent;
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                *finished = matches!(&frame, Some(Ok(_)) if body.is_end_stream()) || frame.is_none();
                Poll::Ready(frame.map(|f| f.map_err(|e| ended_by(upload, &e, complete))))
            }
        }
    }

    /// The limit between two pieces. The timer is made only when a body really makes us wait.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        // One timer for all limits; when it fires, the limit that is due now is computed anew.
        loop {
            let (due, error) = self.next_limit(since);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(error);
            }
            timer.as_mut().reset(due);
        }
    }

    fn next_limit(&self, since: Instant) -> (Instant, BodyError) {
        let idle = self.limits.idle;
        let (moved, next) = self.beside().unwrap_or((since, WaitsFor::Provider));
        // Silence is silence both ways: a request body that goes on keeps the exchange alive.
        let overdue = (
            since.max(moved) + idle,
            match next {
                WaitsFor::Provider => BodyError::Idle(idle),
                WaitsFor::Caller => BodyError::CallerStalled(idle),
            },
        );
        match self.limits.deadline {
            Some(deadline) if deadline < overdue.0 => (deadline, BodyError::Deadline),
            _ => overdue,
        }
    }

    /// How the rest of the request body stands, if it goes on.
    fn beside(&self) -> Option<(Instant, WaitsFor)> {
        let Source::H2(Registered { slot, .. }) = &self.source else { return None };
        let reading = slot.reading.lock();
        let rest = reading.as_ref()?.rest.as_ref()?;
        Some(*rest.beside.moved.lock())
    }
}

/// Why a response over HTTP/1.1 broke off: where it began before the request's body had ended, that may be why.
fn ended_by(upload: &Progress, error: &hyper::Error, complete: bool) -> BodyError {
    match upload.take_fault() {
        Some(UploadError::Caller(_)) => BodyError::CallerGone,
        Some(UploadError::TooLarge { limit }) => BodyError::BodyTooLarge { limit },
        Some(UploadError::Stream) | None => cut(error.to_string(), complete),
    }
}

fn cut(detail: String, complete: bool) -> BodyError {
    let phase = if complete { Phase::Trailers } else { Phase::ResponseBody };
    BodyError::Cut(ResponseCut { phase, detail })
}

fn poll_h2(
    stream: &mut RecvStream,
    complete: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match ready!(stream.poll_data(cx)) {
        Some(Ok(data)) => {
            // Credit goes back as the caller takes the bytes: forgotten credit would stall the whole connection.
            let _ = stream.flow_control().release_capacity(data.len());
            Poll::Ready(Some(Ok(Frame::data(data))))
        }
        Some(Err(e)) => Poll::Ready(Some(Err(cut(e.to_string(), complete)))),
        None => {
            let trailers = ready!(stream.poll_trailers(cx)).map_err(|e| cut(e.to_string(), true)).transpose();
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
            this.end(this.given_up());
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
                    Source::H2(registered) => frame.is_trailers() || registered.is_over(),
                    Source::Http11(lent) => lent.body.is_end_stream(),
                    Source::Ended => true,
                };
                if over {
                    this.end(Leaving::Ended);
                }
            }
            Some(Err(_)) | None => this.end(Leaving::Ended),
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

impl Registered {
    /// The stream has ended and nothing of it is left to read.
    fn is_over(&self) -> bool {
        self.slot.reading.lock().as_ref().is_none_or(|reading| reading.stream.is_end_stream())
    }
}

/// How a reader leaves a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// It has ended, well or badly.
    Ended,
    /// Every promised byte was read; the end has not come.
    Complete,
    /// Before its end.
    Unread,
}

impl Source {
    fn leave(&mut self, how: Leaving) {
        match self {
            Self::H2(registered) => {
                // Taken out first: what follows must not run under the lock.
                let reading = registered.slot.reading.lock().take();
                match (reading, how) {
                    (None, _) => {}
                    (Some(reading), Leaving::Ended) => drop(reading),
                    (Some(reading), Leaving::Complete) => reading.give_up(Unread::Nothing),
                    (Some(reading), Leaving::Unread) => reading.give_up(Unread::Something),
                }
            }
            // An HTTP/1.1 connection left in the middle of an exchange, either way, cannot be lent again.
            Self::Http11(lent) => {
                let Lent { lease, upload, finished, .. } = &**lent;
                if !(*finished && upload.moved().ended) && lease.link().state() == State::Serving {
                    lease.link().retire(CauseOfDeath::Abandoned, Instant::now());
                }
            }
            Self::Ended => {}
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.source.leave(self.given_up());
    }
}
