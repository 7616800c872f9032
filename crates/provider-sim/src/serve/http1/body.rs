//! Owns one HTTP/1.1 response body: where its bytes come from, and where it stops by plan. It does not own the
//! connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

use super::{Busy, State, ends_at_once};
use crate::behaviour::{FrameShape, GoAwayPoint, ResetPoint, Stall};
use crate::plan::{Intake, Plan};

pub(super) enum Source {
    Empty,
    Echo(Incoming),
    Filler { left: u64 },
    Text(Bytes),
}

impl Source {
    pub(super) fn text(text: String) -> (Self, Option<u64>) {
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
            (_, Stall::AfterHeaders) => Self::Stall { after: 0 },
            (_, Stall::MidBody) => Self::Stall { after: half },
            _ => Self::Never,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
    /// Nothing more comes.
    Parked,
    Done,
}

/// A response body.
pub(super) struct Reply {
    state: Arc<State>,
    busy: Option<Busy>,
    source: Source,
    plan: Plan,
    length: Option<u64>,
    sent: u64,
    halt: Halt,
    stage: Stage,
}

impl Reply {
    pub(super) fn new(source: Source, plan: Plan, length: Option<u64>, busy: Busy) -> Self {
        let halt = Halt::planned(&plan, length);
        let state = busy.0.clone();
        Self { state, busy: Some(busy), source, plan, length, sent: 0, halt, stage: Stage::Head }
    }

    /// Ends the connection here if that is the plan; the body stops then.
    fn reached(&mut self, point: GoAwayPoint) -> bool {
        let form = self.plan.ends_at(point).map(|ending| ending.form).filter(|form| ends_at_once(*form));
        if let Some(form) = form {
            // A full channel means that the connection is being hung up already.
            let _ = self.state.hang_up.try_send(form);
            self.stage = Stage::Parked;
        }
        form.is_some()
    }

    fn next_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let block = &self.state.connection.shared.filler;
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
                    self.state.connection.shared.books.body_bytes_received.add(length as u64);
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
            if self.reached(GoAwayPoint::BeforeTrailers) || self.plan.stall == Stall::BeforeTrailers {
                self.stage = Stage::Parked;
                return Poll::Pending;
            }
            if let Some((ResetPoint::BeforeTrailers, _)) = self.plan.reset {
                self.state.connection.shared.books.resets.add(1);
                return Poll::Ready(Some(Err(io::Error::other("broken off by plan"))));
            }
            if !self.plan.trailers.is_empty() {
                // The library does not ask again after them.
                self.done();
                return Poll::Ready(Some(Ok(Frame::trailers(std::mem::take(&mut self.plan.trailers)))));
            }
        }
        self.done();
        Poll::Ready(None)
    }

    fn done(&mut self) {
        if std::mem::replace(&mut self.stage, Stage::Done) == Stage::Done {
            return;
        }
        if self.plan.intake == Intake::Process {
            self.state.connection.shared.books.responses.add(1);
        }
        self.busy = None;
        self.state.answered(&self.plan);
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
        match this.stage {
            Stage::Head => {
                this.stage = Stage::Body;
                if this.reached(GoAwayPoint::ResponseHeaders) {
                    return Poll::Pending;
                }
            }
            Stage::Parked => return Poll::Pending,
            Stage::Body => {}
            Stage::Done => return this.complete(),
        }
        match &mut this.halt {
            Halt::Stall { after } if this.sent >= *after => return Poll::Pending,
            Halt::Break { after, turns: turns @ 1.. } if this.sent >= *after => {
                *turns -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Halt::Break { after, .. } if this.sent >= *after => {
                this.state.connection.shared.books.resets.add(1);
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
                this.state.connection.shared.books.body_bytes_sent.add(length);
                // The library does not ask again once it has as many bytes as were announced, or trailers.
                if this.length == Some(this.sent) || frame.is_trailers() {
                    this.done();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}
