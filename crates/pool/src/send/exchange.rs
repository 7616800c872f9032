//! One attempt of one request on one HTTP/2 stream.
//!
//! Sends the header, pumps the body and waits for the response header, all in the caller's task: no task is spawned
//! unless the response begins before the body has ended. Dropping the future resets the stream with CANCEL.

use std::{
    pin::Pin,
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
    upload::{Upload, UploadError},
};
use crate::{error::SendErrorKind, hub::StreamLease, verdict::Verdict};

/// Time limits of one attempt.
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
}

/// A response header, and what is left to send.
pub(super) struct Answered {
    pub(super) response: Response<RecvStream>,
    /// The send half, if the body has not ended yet.
    pub(super) unfinished: Option<SendStream<Bytes>>,
    pub(super) sent_at: Option<Instant>,
}

/// An attempt that got no response.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) kind: SendErrorKind,
    pub(super) verdict: Verdict,
}

/// Makes one attempt.
///
/// # Cancel safety
/// Dropping it resets the stream; the provider may have processed the request.
pub(super) async fn attempt<B>(
    lease: &StreamLease,
    head: Request<()>,
    upload: &mut Upload<B>,
    limits: Limits,
) -> Result<Answered, Unanswered>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let Some(mut sender) = lease.link().sender() else {
        return Err(not_sent("the connection is being retired"));
    };
    let (response, stream) = match sender.send_request(head, upload.is_empty()) {
        Ok(opened) => opened,
        // GOAWAY, a dead transport, a library error: the connection refused to open a stream.
        Err(e) if e.is_go_away() || e.is_io() || e.is_library() => return Err(not_sent(&e.to_string())),
        Err(e) => {
            let kind = SendErrorKind::InvalidRequest { detail: e.to_string() };
            return Err(Unanswered { kind, verdict: Verdict::NotSent });
        }
    };
    upload.begin_attempt();
    let now = Instant::now();
    let mut exchange = Exchange {
        response,
        stream,
        upload,
        limits,
        moved_at: now,
        sent_at: None,
        stream_refuses: false,
        timer: None,
    };
    std::future::poll_fn(|cx| exchange.poll(cx)).await.map(|response| {
        let Exchange { stream, upload, sent_at, stream_refuses, .. } = exchange;
        let unfinished = (!upload.is_done() && !stream_refuses).then_some(stream);
        Answered { response, unfinished, sent_at }
    })
}

fn not_sent(detail: &str) -> Unanswered {
    let kind = SendErrorKind::ProviderReset { detail: detail.to_owned() };
    Unanswered { kind, verdict: Verdict::NotSent }
}

struct Exchange<'a, B> {
    response: ResponseFuture,
    stream: SendStream<Bytes>,
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

impl<B> Exchange<'_, B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, Unanswered>> {
        if let Err(e) = self.poll_upload(cx) {
            return Poll::Ready(Err(e));
        }
        match Pin::new(&mut self.response).poll(cx) {
            Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
            Poll::Ready(Err(e)) => {
                let kind = SendErrorKind::ProviderReset { detail: e.to_string() };
                return Poll::Ready(Err(Unanswered { kind, verdict: Verdict::of_stream_error(&e) }));
            }
            Poll::Pending => {}
        }
        match self.poll_overdue(cx) {
            Poll::Ready(kind) => Poll::Ready(Err(Unanswered { kind, verdict: Verdict::MaybeProcessed })),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Unanswered> {
        if self.sent_at.is_some() || self.stream_refuses {
            return Ok(());
        }
        let mut moved = false;
        let pumped = self.upload.poll_pump(cx, &mut self.stream, &mut moved);
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
        self.stream.send_reset(h2::Reason::CANCEL);
        Err(Unanswered { kind, verdict: Verdict::MaybeProcessed })
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
