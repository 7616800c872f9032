//! One attempt of one request on one HTTP/2 stream.
//!
//! Sends the header, pumps the body and waits for the response header, all in the caller's task: no task is spawned
//! unless the response begins before the body has ended, or the stream is given up and may not be reset (`abandon`).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture};
use http::{Request, Response};
use http_body::Body;
use tokio::time::{Instant, Sleep};

use super::{
    BoxError,
    abandon::{Half, abandon},
    upload::{Upload, UploadError},
};
use crate::{connection::Link, error::SendErrorKind, hub::StreamLease, journey::Phase, verdict::Verdict};

/// Limits of one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From the request's last byte to the response header.
    pub(super) response_header: Duration,
    /// Longest silence while the body is being sent.
    pub(super) idle: Duration,
    /// End of the whole exchange.
    pub(super) deadline: Option<Instant>,
    /// Largest response header.
    pub(super) header_bytes: u32,
    /// Streams that may be reset on one connection within 30 seconds.
    pub(super) resets: u32,
}

/// A response header, and what is left to send.
pub(super) struct Answered {
    pub(super) response: Response<RecvStream>,
    /// The send half, if the body has not ended yet.
    pub(super) unfinished: Option<SendStream<Bytes>>,
    pub(super) sent_at: Option<Instant>,
    pub(super) lease: StreamLease,
}

/// An attempt that got no response. Its lease has been given back.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) kind: SendErrorKind,
    pub(super) verdict: Verdict,
    pub(super) phase: Phase,
    pub(super) connection: Connection,
    pub(super) link: Arc<Link>,
}

/// How a failed attempt leaves its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// It may carry others.
    Goes,
    /// It opens no more streams, or has ended.
    Ends,
}

/// Makes one attempt.
///
/// # Cancel safety
/// Dropping it gives the stream up; the provider may have processed the request.
pub(super) async fn attempt<B>(
    lease: StreamLease,
    head: Request<()>,
    upload: &mut Upload<B>,
    limits: Limits,
) -> Result<Answered, Unanswered>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (response, stream) = match open(&lease, head, upload.is_empty()) {
        Ok(opened) => opened,
        Err((kind, connection)) => {
            let link = lease.link().clone();
            return Err(Unanswered {
                kind,
                verdict: Verdict::NotSent,
                phase: Phase::Waiting,
                connection,
                link,
            });
        }
    };
    upload.begin_attempt();
    let mut exchange = Exchange {
        number: response.stream_id().as_u32(),
        open: Some(Open { response, stream, lease }),
        upload,
        limits,
        moved_at: Instant::now(),
        sent_at: None,
        stream_refuses: false,
        timer: None,
    };
    let result = std::future::poll_fn(|cx| exchange.poll(cx)).await;
    exchange.conclude(result)
}

/// Opens a stream, if the connection takes one that leaves at once.
fn open(
    lease: &StreamLease,
    head: Request<()>,
    end_of_stream: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>), (SendErrorKind, Connection)> {
    let link = lease.link();
    let refused = |detail: &str| SendErrorKind::ProviderReset { detail: detail.to_owned() };
    let Some(_entered) = link.opening().enter(|| link.in_flight()) else {
        return Err((refused("it lowered its number of streams"), Connection::Goes));
    };
    let Some(mut sender) = link.sender() else {
        return Err((refused("the connection is being retired"), Connection::Goes));
    };
    sender.send_request(head, end_of_stream).map_err(|e| {
        // GOAWAY, a dead transport, a library error: the connection refused to open a stream.
        if e.is_go_away() || e.is_io() || e.is_library() {
            (refused(&e.to_string()), Connection::Ends)
        } else {
            (SendErrorKind::InvalidRequest { detail: e.to_string() }, Connection::Goes)
        }
    })
}

/// A stream that is open, with the right to it.
struct Open {
    response: ResponseFuture,
    stream: SendStream<Bytes>,
    lease: StreamLease,
}

struct Exchange<'a, B> {
    /// `None` once it is concluded.
    open: Option<Open>,
    /// The stream's number.
    number: u32,
    upload: &'a mut Upload<B>,
    limits: Limits,
    /// Last time a byte of the body moved, or the beginning.
    moved_at: Instant,
    /// When the body's end was handed over.
    sent_at: Option<Instant>,
    /// The send half is closed by the provider: it wants no more of the body.
    stream_refuses: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why there is no response, and what is known.
type Failed = (SendErrorKind, Verdict);

impl<B> Drop for Exchange<'_, B> {
    fn drop(&mut self) {
        // The caller left: it is the stream that is given up, not the connection.
        if let Some(open) = self.open.take() {
            self.give_up(open);
        }
    }
}

impl<B> Exchange<'_, B> {
    fn give_up(&self, open: Open) {
        let Open { response, stream, lease } = open;
        let half = if self.sent_at.is_some() {
            Half::Response(response)
        } else {
            Half::Unfinished(response, stream)
        };
        abandon(half, lease, self.limits.resets);
    }
}

impl<B> Exchange<'_, B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn conclude(mut self, result: Result<Response<RecvStream>, Failed>) -> Result<Answered, Unanswered> {
        let phase = self.phase();
        // Taken here and nowhere else before the drop.
        let open = self.open.take().expect("an exchange is concluded once");
        match result {
            Ok(response) => {
                let unfinished = (!self.upload.is_done() && !self.stream_refuses).then_some(open.stream);
                Ok(Answered { response, unfinished, sent_at: self.sent_at, lease: open.lease })
            }
            Err((kind, verdict)) => {
                let link = open.lease.link().clone();
                let provider = matches!(kind, SendErrorKind::ProviderReset { .. });
                let connection = match verdict {
                    Verdict::AboveGoaway | Verdict::NotSent => Connection::Ends,
                    Verdict::Refused | Verdict::MaybeProcessed => Connection::Goes,
                };
                let phase = if verdict == Verdict::NotSent { Phase::Headers } else { phase };
                // A stream that the provider ended is closed; one that we leave is to be given up properly.
                if !provider {
                    self.give_up(open);
                }
                Err(Unanswered { kind, verdict, phase, connection, link })
            }
        }
    }

    fn phase(&self) -> Phase {
        match (self.sent_at, self.upload.is_untouched()) {
            (Some(_), _) => Phase::ResponseHeader,
            (None, true) => Phase::Headers,
            (None, false) => Phase::RequestBody,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, Failed>> {
        if let Err(e) = self.poll_upload(cx) {
            return Poll::Ready(Err(e));
        }
        let Some(open) = &mut self.open else { return Poll::Pending };
        match Pin::new(&mut open.response).poll(cx) {
            Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
            Poll::Ready(Err(e)) => {
                let verdict = match Verdict::of_stream_error(&e) {
                    // The connection died before the header left: nothing is written after such an end.
                    Verdict::MaybeProcessed
                        if e.is_io() && !open.lease.link().opening().has_departed(self.number) =>
                    {
                        Verdict::NotSent
                    }
                    verdict => verdict,
                };
                let kind = SendErrorKind::ProviderReset { detail: e.to_string() };
                return Poll::Ready(Err((kind, verdict)));
            }
            Poll::Pending => {}
        }
        match self.poll_overdue(cx) {
            Poll::Ready(kind) => Poll::Ready(Err((kind, Verdict::MaybeProcessed))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failed> {
        if self.sent_at.is_some() || self.stream_refuses {
            return Ok(());
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut moved = false;
        let pumped = self.upload.poll_pump(cx, &mut open.stream, &mut moved);
        let now = Instant::now();
        if moved {
            self.moved_at = now;
        }
        let kind = match pumped {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {
                self.sent_at = Some(now);
                return Ok(());
            }
            Poll::Ready(Err(UploadError::Stream)) => {
                // The provider closed our send half: the response says why, and may be a good one (RFC 9113 §8.1).
                self.stream_refuses = true;
                return Ok(());
            }
            Poll::Ready(Err(UploadError::Caller(detail))) => SendErrorKind::CallerGone { detail },
            Poll::Ready(Err(UploadError::TooLarge { limit })) => SendErrorKind::BodyTooLarge { limit },
        };
        Err((kind, Verdict::MaybeProcessed))
    }

    /// One timer for all limits; when it fires, the limit that is due now is computed anew.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<SendErrorKind> {
        loop {
            let (due, kind) = self.next_limit();
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= due {
                return Poll::Ready(kind);
            }
            timer.as_mut().reset(due);
        }
    }

    fn next_limit(&self) -> (Instant, SendErrorKind) {
        let header = |from| {
            let after = self.limits.response_header;
            (from + after, SendErrorKind::ResponseTimeout { after })
        };
        let phase = match self.sent_at {
            Some(sent_at) => header(sent_at),
            None if self.stream_refuses => header(self.moved_at),
            None => {
                (self.moved_at + self.limits.idle, SendErrorKind::IdleTimeout { after: self.limits.idle })
            }
        };
        match self.limits.deadline {
            Some(deadline) if deadline < phase.0 => {
                let after = deadline.saturating_duration_since(self.moved_at);
                (deadline, SendErrorKind::TotalTimeout { after })
            }
            _ => phase,
        }
    }
}
