//! Owns one HTTP/2 stream: reads the request as its plan says, answers, misbehaves. It does not own the
//! connection.

use std::future::{pending, poll_fn};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http::request::Parts;
use tokio::sync::{mpsc, oneshot};

use super::http2::Notice;
use super::{Connection, reply};
use crate::behaviour::{EarlyResponse, FrameShape, GoAwayPoint, ResetPoint, Stall};
use crate::plan::{Content, Intake, Plan};

/// Why a stream ended before its response was complete.
enum Cut {
    /// The client reset it or the connection is gone.
    Gone,
    /// By plan.
    Reset(Reason),
}

impl From<h2::Error> for Cut {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

/// Serves one stream to its end.
pub(super) async fn serve(
    connection: Arc<Connection>,
    parts: Parts,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    plan: Plan,
    notices: mpsc::Sender<Notice>,
) {
    let books = &connection.shared.books;
    if let Err(Cut::Gone) = ready_to_respond(&plan, &mut respond).await {
        books.client_resets.add(1);
        return;
    }
    let mut stream = Stream {
        connection: &connection,
        parts: &parts,
        plan: &plan,
        body,
        respond,
        out: None,
        ended: false,
        body_begun: false,
        notices,
    };
    match stream.answer().await {
        Ok(()) => {
            if plan.intake == Intake::Process {
                books.responses.add(1);
            }
            stream.reach(GoAwayPoint::AfterResponse).await;
        }
        Err(Cut::Gone) => books.client_resets.add(1),
        Err(Cut::Reset(reason)) => {
            books.resets.add(1);
            stream.reset(reason);
        }
    }
}

/// Latency, and the stalls and resets that come instead of an answer. Ends early if the client gives up.
async fn ready_to_respond(plan: &Plan, respond: &mut SendResponse<Bytes>) -> Result<(), Cut> {
    let stalled = matches!(plan.stall, Stall::BeforeResponse | Stall::ReadNothing);
    if !stalled && plan.delay.is_zero() {
        return Ok(());
    }
    let wait = async {
        if stalled {
            pending().await
        } else {
            tokio::time::sleep(plan.delay).await;
        }
    };
    tokio::select! {
        biased;
        _ = poll_fn(|cx| respond.poll_reset(cx)) => Err(Cut::Gone),
        () = wait => Ok(()),
    }
}

struct Stream<'a> {
    connection: &'a Connection,
    parts: &'a Parts,
    plan: &'a Plan,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    out: Option<SendStream<Bytes>>,
    /// END_STREAM has been sent.
    ended: bool,
    /// A DATA frame of the request has been read.
    body_begun: bool,
    notices: mpsc::Sender<Notice>,
}

impl Stream<'_> {
    async fn answer(&mut self) -> Result<(), Cut> {
        if let Some((ResetPoint::BeforeHeaders, reason)) = self.plan.reset {
            return Err(Cut::Reset(reason.code()));
        }
        let early = self.plan.early == EarlyResponse::On;
        match &self.plan.content {
            Content::Echo if early => self.filler(0).await,
            Content::Echo => self.echo().await,
            Content::Filler(bytes) => {
                if !early {
                    self.read_all().await?;
                }
                self.filler(*bytes).await
            }
            Content::Text(text) => self.text(text.clone()).await,
            Content::Sink => {
                let received = if early { 0 } else { self.read_all().await?.0 };
                self.text(reply::received(received)).await
            }
            Content::Describe => {
                let (received, trailers) = if early { (0, None) } else { self.read_all().await? };
                self.text(reply::description(self.parts, trailers.as_ref(), received)).await
            }
        }
    }

    /// Sends the body back as it comes; what is not sent yet is not read either.
    async fn echo(&mut self) -> Result<(), Cut> {
        if self.body.is_end_stream() {
            self.open(Some(0)).await?;
            return self.finish(self.plan.trailers.clone()).await;
        }
        // What is to happen in the middle of the request happens before the response begins.
        let mut first = if self.plan.acts_on_request_data() { self.read().await? } else { None };
        self.open(None).await?;
        loop {
            let next = match first.take() {
                Some(chunk) => Some(chunk),
                None => self.read().await?,
            };
            let Some(chunk) = next else { break };
            let last = self.body.is_end_stream() && !self.holds_end();
            let length = chunk.len();
            self.halt_after(length as u64 / 2, &chunk).await?;
            self.write(chunk, last).await?;
            self.body.flow_control().release_capacity(length)?;
            if last {
                return Ok(());
            }
        }
        let mut trailers = poll_fn(|cx| self.body.poll_trailers(cx)).await?.unwrap_or_default();
        trailers.extend(self.plan.trailers.clone());
        self.finish(trailers).await
    }

    async fn filler(&mut self, bytes: u64) -> Result<(), Cut> {
        let holds_end = self.holds_end();
        self.open(Some(bytes)).await?;
        let block = self.connection.shared.filler.clone();
        let mut left = bytes;
        let mut halt = Some(bytes / 2);
        while left > 0 {
            let mut n = left.min(block.len() as u64);
            if let Some(at) = halt {
                n = n.min(at.max(1));
                if bytes - left >= at {
                    halt = None;
                    self.halt(ResetPoint::MidBody, Stall::MidBody).await?;
                    continue;
                }
            }
            left -= n;
            // A block is far below 4 GiB.
            self.write(block.slice(..n as usize), left == 0 && !holds_end).await?;
        }
        if bytes == 0 || holds_end { self.finish(self.plan.trailers.clone()).await } else { Ok(()) }
    }

    async fn text(&mut self, text: String) -> Result<(), Cut> {
        let text = Bytes::from(text);
        let holds_end = self.holds_end();
        self.open(Some(text.len() as u64)).await?;
        self.halt_after(text.len() as u64 / 2, &text).await?;
        self.write(text, !holds_end).await?;
        if holds_end { self.finish(self.plan.trailers.clone()).await } else { Ok(()) }
    }

    /// Does the end of the stream come apart from the last byte of the body?
    fn holds_end(&self) -> bool {
        !self.plan.trailers.is_empty() || self.plan.acts_before_end()
    }

    /// If the connection is to end here: says so, and waits until that has been ordered. What was queued before
    /// leaves first.
    async fn reach(&mut self, point: GoAwayPoint) {
        let Some(ending) = self.plan.ends_at(point) else { return };
        self.sent_out().await;
        let (ordered, done) = oneshot::channel();
        let notice = Notice { ending: ending.clone(), ordered };
        // The other end is gone only with the whole connection.
        if self.notices.send(notice).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Response head, and what comes right after it.
    async fn open(&mut self, length: Option<u64>) -> Result<(), Cut> {
        let grpc_like = !self.plan.trailers.is_empty();
        let length = length.filter(|_| !grpc_like);
        let head = reply::head(self.parts, self.plan, self.connection.number, length);
        let bare = self.plan.reset.is_none()
            && self.plan.stall == Stall::None
            && self.plan.ends_at(GoAwayPoint::ResponseHeaders).is_none()
            && !self.plan.acts_before_end();
        self.ended = length == Some(0) && bare && self.plan.frames == FrameShape::Whole;
        let mut out = self.respond.send_response(head, self.ended)?;
        if let FrameShape::EmptyFirst { frames } = self.plan.frames {
            for _ in 0..frames {
                out.send_data(Bytes::new(), false)?;
            }
        }
        self.out = Some(out);
        self.reach(GoAwayPoint::ResponseHeaders).await;
        self.halt(ResetPoint::AfterHeaders, Stall::AfterHeaders).await
    }

    /// Resets or stalls here if that is the plan.
    async fn halt(&mut self, reset: ResetPoint, stall: Stall) -> Result<(), Cut> {
        if let Some((point, reason)) = self.plan.reset
            && point == reset
        {
            self.sent_out().await;
            return Err(Cut::Reset(reason.code()));
        }
        if self.plan.stall == stall {
            self.given_up().await;
            return Err(Cut::Gone);
        }
        Ok(())
    }

    /// In a plan that halts in the middle of the body: sends the first `half` of `chunk`, and halts.
    async fn halt_after(&mut self, half: u64, chunk: &Bytes) -> Result<(), Cut> {
        if !self.halts_mid_body() {
            return Ok(());
        }
        self.write(chunk.slice(..half as usize), false).await?;
        self.halt(ResetPoint::MidBody, Stall::MidBody).await
    }

    fn halts_mid_body(&self) -> bool {
        self.plan.stall == Stall::MidBody || matches!(self.plan.reset, Some((ResetPoint::MidBody, _)))
    }

    /// A reset discards what the library has queued: let it write first. One turn of the connection is enough
    /// for what fits into the window.
    async fn sent_out(&mut self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    async fn given_up(&mut self) {
        match &mut self.out {
            // Reset or connection error: the same to us.
            Some(out) => drop(poll_fn(|cx| out.poll_reset(cx)).await),
            None => pending().await,
        }
    }

    /// The next chunk of the request, still to be released.
    async fn read(&mut self) -> Result<Option<Bytes>, Cut> {
        let Some(chunk) = poll_fn(|cx| self.body.poll_data(cx)).await else { return Ok(None) };
        let chunk = chunk?;
        self.connection.shared.books.body_bytes_received.add(chunk.len() as u64);
        if !std::mem::replace(&mut self.body_begun, true) {
            self.reach(GoAwayPoint::RequestData).await;
            if let Some((ResetPoint::MidRequest, reason)) = self.plan.reset {
                return Err(Cut::Reset(reason.code()));
            }
        }
        Ok(Some(chunk))
    }

    /// Reads to the end: how many bytes, and the trailers.
    async fn read_all(&mut self) -> Result<(u64, Option<HeaderMap>), Cut> {
        let mut total = 0;
        while let Some(chunk) = self.read().await? {
            total += chunk.len() as u64;
            self.body.flow_control().release_capacity(chunk.len())?;
        }
        Ok((total, poll_fn(|cx| self.body.poll_trailers(cx)).await?))
    }

    /// Sends within the client's windows, in frames of the planned size.
    async fn write(&mut self, mut data: Bytes, last: bool) -> Result<(), Cut> {
        let Some(out) = &mut self.out else { return Ok(()) };
        if self.ended {
            return Ok(());
        }
        self.ended = last;
        if data.is_empty() && last {
            out.send_data(Bytes::new(), true)?;
        }
        while data.has_remaining() {
            let want = match self.plan.frames {
                FrameShape::Sized { bytes } => data.len().min(bytes as usize),
                FrameShape::Whole | FrameShape::EmptyFirst { .. } => data.len(),
            };
            out.reserve_capacity(want);
            let mut room = out.capacity();
            while room == 0 {
                room = poll_fn(|cx| out.poll_capacity(cx)).await.ok_or(Cut::Gone)??;
            }
            let piece = data.split_to(want.min(room));
            self.connection.shared.books.body_bytes_sent.add(piece.len() as u64);
            out.send_data(piece, last && data.is_empty())?;
        }
        Ok(())
    }

    /// END_STREAM, with trailers if there are any.
    async fn finish(&mut self, trailers: HeaderMap) -> Result<(), Cut> {
        if self.ended {
            return Ok(());
        }
        self.reach(GoAwayPoint::BeforeTrailers).await;
        self.halt(ResetPoint::BeforeTrailers, Stall::BeforeTrailers).await?;
        let Some(out) = &mut self.out else { return Ok(()) };
        self.ended = true;
        if trailers.is_empty() {
            out.send_data(Bytes::new(), true)?
        } else {
            out.send_trailers(trailers)?
        }
        Ok(())
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.out {
            Some(out) => out.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}
