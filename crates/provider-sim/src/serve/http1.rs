//! Owns one HTTP/1.1 connection. What a request gets is planned as for HTTP/2; what HTTP/1.1 cannot express (a
//! reset of one stream) breaks the connection. It does not own pipelining: the library answers in order.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, watch};

use super::{Connection, Tls, reply};
use crate::behaviour::{Behaviour, EarlyResponse, FrameShape, GoAwayForm, ResetPoint, Stall};
use crate::plan::{Content, Intake, Plan};
use crate::simulator::Signals;

/// Serves until the connection ends.
pub(super) async fn serve(
    tls: Tls,
    connection: Arc<Connection>,
    mut signals: watch::Receiver<Signals>,
    behaviour: &Behaviour,
) {
    let goaways = signals.borrow_and_update().goaways;
    // Room for one: the first order to hang up ends the connection.
    let (hang_up, mut hung_up) = mpsc::channel(1);
    let state = Arc::new(State { connection, ordinal: AtomicU64::new(0), hang_up });
    let service = {
        let state = state.clone();
        service_fn(move |request| state.clone().respond(request))
    };
    let library = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(true)
        .serve_connection(TokioIo::new(tls), service);
    let mut library = Box::pin(library);
    let old_age = behaviour.goaway_after;
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            Some(form) = hung_up.recv() => {
                if form == GoAwayForm::Reset {
                    state.connection.reset.arm();
                }
                return;
            }
            _ = signals.wait_for(|now| now.goaways != goaways), if !closing => {
                closing = true;
                library.as_mut().graceful_shutdown();
            }
            () = after(old_age), if !closing => {
                closing = true;
                library.as_mut().graceful_shutdown();
            }
            // However it ended, it is over, and the books have what happened.
            _ = &mut library => return,
        }
    }
}

async fn after(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age).await,
        None => std::future::pending().await,
    }
}

struct State {
    connection: Arc<Connection>,
    ordinal: AtomicU64,
    hang_up: mpsc::Sender<GoAwayForm>,
}

impl State {
    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Reply>> {
        let ordinal = self.ordinal.fetch_add(1, Ordering::Relaxed) + 1;
        let live = self.connection.live();
        let (parts, body) = request.into_parts();
        let plan =
            Plan::new(&parts, &live.behaviour, ordinal, self.connection.jitter(&live.behaviour, ordinal));
        let books = &self.connection.shared.books;
        match plan.intake {
            Intake::Refuse => {
                books.refused_streams.add(1);
                return Err(io::Error::other("refused by plan"));
            }
            Intake::Reject => books.requests_refused.add(1),
            Intake::Process => books.processed(reply::correlation_id(&parts.headers)),
        }
        if matches!(plan.stall, Stall::BeforeResponse | Stall::ReadNothing) {
            return std::future::pending().await;
        }
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        if let Some((ResetPoint::BeforeHeaders, _)) = plan.reset {
            books.resets.add(1);
            return Err(io::Error::other("reset by plan"));
        }
        let ending = plan.goaway.or_else(|| {
            let due = live.behaviour.goaway_after_requests.is_some_and(|limit| ordinal >= u64::from(limit));
            due.then_some(live.behaviour.goaway_form)
        });
        if let Some(form @ (GoAwayForm::Fin | GoAwayForm::Reset)) = ending {
            // A full channel means that the connection is being hung up already.
            let _ = self.hang_up.try_send(form);
        }
        let mut response = self.answer(&parts, body, plan).await?;
        if ending.is_some() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn answer(&self, parts: &Parts, mut body: Incoming, plan: Plan) -> io::Result<Response<Reply>> {
        let early = plan.early == EarlyResponse::On;
        let (source, length) = match &plan.content {
            Content::Echo if early => (Source::Empty, Some(0)),
            Content::Echo => {
                let length = body.size_hint().exact();
                (Source::Echo(body), length)
            }
            Content::Filler(bytes) => {
                if !early {
                    self.read_all(&mut body).await?;
                }
                (Source::Filler { left: *bytes }, Some(*bytes))
            }
            Content::Text(text) => Source::text(text.clone()),
            Content::Sink => {
                let (received, _) = if early { (0, None) } else { self.read_all(&mut body).await? };
                Source::text(reply::received(received))
            }
            Content::Describe => {
                let (received, trailers) = if early { (0, None) } else { self.read_all(&mut body).await? };
                Source::text(reply::description(parts, trailers.as_ref(), received))
            }
        };
        let length = length.filter(|_| plan.trailers.is_empty());
        let head = reply::head(parts, &plan, self.connection.number, length);
        let halt = Halt::planned(&plan, length);
        let connection = self.connection.clone();
        Ok(head.map(|()| Reply { connection, source, plan, length, sent: 0, halt, stage: Stage::Body }))
    }

    async fn read_all(&self, body: &mut Incoming) -> io::Result<(u64, Option<HeaderMap>)> {
        let (mut total, mut trailers) = (0, None);
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => total += data.len() as u64,
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        self.connection.shared.books.body_bytes_received.add(total);
        Ok((total, trailers))
    }
}

enum Source {
    Empty,
    Echo(Incoming),
    Filler { left: u64 },
    Text(Bytes),
}

impl Source {
    fn text(text: String) -> (Self, Option<u64>) {
        let length = text.len() as u64;
        (Self::Text(Bytes::from(text)), Some(length))
    }
}

/// Where a body stops, by plan.
#[derive(Clone, Copy)]
enum Halt {
    Never,
    Stall {
        after: u64,
    },
    /// `turns` lets the library write out what it has first: an error discards it.
    Break {
        after: u64,
        turns: u8,
    },
}

const TURNS_BEFORE_BREAK: u8 = 3;

impl Halt {
    fn planned(plan: &Plan, length: Option<u64>) -> Self {
        // Of a body of unknown length a few bytes are "half".
        let half = length.map_or(1, |length| length / 2);
        match (plan.reset, plan.stall) {
            (Some((ResetPoint::AfterHeaders, _)), _) => Self::Break { after: 0, turns: TURNS_BEFORE_BREAK },
            (Some((ResetPoint::MidBody, _)), _) => Self::Break { after: half, turns: TURNS_BEFORE_BREAK },
            (_, Stall::MidBody) => Self::Stall { after: half },
            _ => Self::Never,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Body,
    Trailers,
    Done,
}

/// A response body.
struct Reply {
    connection: Arc<Connection>,
    source: Source,
    plan: Plan,
    length: Option<u64>,
    sent: u64,
    halt: Halt,
    stage: Stage,
}

impl Reply {
    fn next_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let block = &self.connection.shared.filler;
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Text(text) if text.has_remaining() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(text)))))
            }
            Source::Text(_) | Source::Filler { left: 0 } => Poll::Ready(None),
            Source::Filler { left } => {
                let size = match self.plan.frames {
                    FrameShape::Sized { bytes } => u64::from(bytes).min(block.len() as u64),
                    FrameShape::Whole | FrameShape::EmptyFirst { .. } => block.len() as u64,
                };
                let n = (*left).min(size);
                *left -= n;
                Poll::Ready(Some(Ok(Frame::data(block.slice(..n as usize)))))
            }
            Source::Echo(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(Some(Ok(frame))) = &polled {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    self.connection.shared.books.body_bytes_received.add(length as u64);
                }
                polled.map(|frame| frame.map(|frame| frame.map_err(io::Error::other)))
            }
        }
    }

    /// Cuts the frame where the plan halts.
    fn halted(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let (Halt::Stall { after } | Halt::Break { after, .. }) = self.halt else { return frame };
        let room = after.saturating_sub(self.sent);
        frame.map_data(|data| data.slice(..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))))
    }

    fn complete(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.stage == Stage::Body {
            self.stage = Stage::Trailers;
            if !self.plan.trailers.is_empty() {
                return Poll::Ready(Some(Ok(Frame::trailers(std::mem::take(&mut self.plan.trailers)))));
            }
        }
        self.done();
        Poll::Ready(None)
    }

    fn done(&mut self) {
        if std::mem::replace(&mut self.stage, Stage::Done) != Stage::Done
            && self.plan.intake == Intake::Process
        {
            self.connection.shared.books.responses.add(1);
        }
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.stage != Stage::Body {
            return this.complete();
        }
        match &mut this.halt {
            Halt::Stall { after } if this.sent >= *after => return Poll::Pending,
            Halt::Break { after, turns: turns @ 1.. } if this.sent >= *after => {
                *turns -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Halt::Break { after, .. } if this.sent >= *after => {
                this.connection.shared.books.resets.add(1);
                return Poll::Ready(Some(Err(io::Error::other("broken off by plan"))));
            }
            _ => {}
        }
        match std::task::ready!(this.next_data(cx)) {
            None => this.complete(),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => {
                let frame = this.halted(frame);
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                this.sent += length;
                this.connection.shared.books.body_bytes_sent.add(length);
                // The library does not ask again once it has as many bytes as were announced.
                if this.length == Some(this.sent) {
                    this.done();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}
