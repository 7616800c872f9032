//! The request body on its way to the provider: pumped with back-pressure, held for a replay while it is small.
//!
//! Owns the caller's body and the bytes already taken from it. A body is never held beyond the pool's replay
//! limits: once it outgrows them it can be sent only once, and the caller is told so.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use http_body::Body;

use super::{BoxError, memory::Share};
use crate::verdict::BodyHeld;

/// A first chunk of at most this size is handed to h2 without asking for credit first.
const DIRECT: usize = 16 * 1024;

/// Why the pump stopped before the end.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The caller's body failed: it went away.
    #[error("the caller's body ended early: {0}")]
    Caller(String),
    /// The body is larger than allowed.
    #[error("the request body is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The stream takes no more; its response future says why, and may hold a response all the same.
    #[error("the stream takes no more")]
    Stream,
}

/// Who has to move next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The caller owes a piece of the body.
    Caller,
    /// The provider has closed its window.
    Provider,
}

/// A request body and what was taken from it.
pub(super) struct Upload<B> {
    body: B,
    limit: u64,
    /// Taken from the caller so far.
    taken: u64,
    /// The caller's body has ended.
    ended: bool,
    trailers: Option<HeaderMap>,
    /// Everything taken so far, while it may be replayed.
    held: Option<Held>,
    /// Next held chunk to send in this attempt.
    cursor: usize,
    /// Being sent now.
    current: Bytes,
    /// No byte of the body has been handed over in this attempt.
    untouched: bool,
    /// For whom it waited when it last moved nothing.
    waits_for: WaitsFor,
    /// END_STREAM has been handed to the connection in this attempt.
    done: bool,
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(body: B, limit: u64, replay_limit: usize, replay_memory: Arc<Share>) -> Self {
        let ended = body.is_end_stream();
        Self {
            body,
            limit,
            taken: 0,
            ended,
            trailers: None,
            held: Some(Held {
                chunks: VecDeque::new(),
                bytes: 0,
                limit: replay_limit,
                memory: replay_memory,
            }),
            cursor: 0,
            current: Bytes::new(),
            untouched: true,
            waits_for: WaitsFor::Caller,
            done: false,
        }
    }

    /// Nothing follows the header: END_STREAM can go with it.
    pub(super) fn is_empty(&self) -> bool {
        self.ended && self.taken == 0 && self.trailers.is_none()
    }

    /// Bytes taken from the caller so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// No byte of the body has been handed to the connection in this attempt.
    pub(super) fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// The next chunk for a connection that sends it by itself.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UploadError>> {
        self.waits_for = WaitsFor::Caller;
        let chunk = ready!(self.poll_next(cx))?;
        self.untouched &= chunk.is_none();
        self.waits_for = WaitsFor::Provider;
        Poll::Ready(Ok(chunk))
    }

    /// Who stood still, if the body does.
    pub(super) fn waits_for(&self) -> WaitsFor {
        self.waits_for
    }

    /// Everything has been handed to the connection in this attempt.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The header of a new attempt was sent, with END_STREAM if the body is empty.
    pub(super) fn begin_attempt(&mut self) {
        self.cursor = 0;
        self.current = Bytes::new();
        self.untouched = true;
        self.done = self.is_empty();
    }

    /// The caller's trailers, once its body has ended with some.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// Bytes that this attempt has still to hand out; `None` while the caller's body does not say.
    pub(super) fn left(&self) -> Option<u64> {
        let held: u64 = self
            .held
            .iter()
            .flat_map(|held| held.chunks.iter().skip(self.cursor))
            .map(|c| c.len() as u64)
            .sum();
        if self.ended { Some(held) } else { self.body.size_hint().exact().map(|rest| held + rest) }
    }

    /// Whether it can be sent again from its first byte.
    pub(super) fn body_held(&self) -> BodyHeld {
        if self.held.is_some() { BodyHeld::Whole } else { BodyHeld::Gone }
    }

    /// No further attempt will be made: let go of what was held.
    pub(super) fn let_go(&mut self) {
        if let Some(held) = &self.held
            && self.cursor >= held.chunks.len()
        {
            self.held = None;
        }
    }

    /// Pumps until END_STREAM is handed over, the stream has no room, or the caller has no more for now.
    /// Counts every chunk handed over in `moved`.
    pub(super) fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
        moved: &mut bool,
    ) -> Poll<Result<(), UploadError>> {
        while !self.done {
            if self.current.is_empty() {
                self.waits_for = WaitsFor::Caller;
                match ready!(self.poll_next(cx))? {
                    Some(chunk) => self.current = chunk,
                    None => {
                        self.finish(stream)?;
                        return Poll::Ready(Ok(()));
                    }
                }
                continue;
            }
            self.waits_for = WaitsFor::Provider;
            ready!(self.poll_send_current(cx, stream))?;
            self.untouched = false;
            *moved = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the current chunk, or as much of it as flow control lets through.
    fn poll_send_current(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), UploadError>> {
        let len = self.current.len();
        if self.untouched && len <= DIRECT {
            // h2 buffers it until the windows let it through: bounded by the leases, and one lock instead of three.
            let chunk = std::mem::take(&mut self.current);
            let last = self.is_drained();
            stream.send_data(chunk, last).map_err(|_| UploadError::Stream)?;
            self.done = last;
            return Poll::Ready(Ok(()));
        }
        if stream.capacity() < len {
            stream.reserve_capacity(len);
        }
        let mut room = stream.capacity();
        while room == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(n)) => room = n,
                Some(Err(_)) | None => return Poll::Ready(Err(UploadError::Stream)),
            }
        }
        let piece = self.current.split_to(room.min(len));
        let last = self.current.is_empty() && self.is_drained();
        stream.send_data(piece, last).map_err(|_| UploadError::Stream)?;
        self.done = last;
        Poll::Ready(Ok(()))
    }

    /// Nothing follows what was handed out in this attempt.
    pub(super) fn is_drained(&self) -> bool {
        let replayed = self.held.as_ref().is_none_or(|held| self.cursor >= held.chunks.len());
        replayed && self.trailers.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn finish(&mut self, stream: &mut SendStream<Bytes>) -> Result<(), UploadError> {
        self.done = true;
        match &self.trailers {
            Some(trailers) => stream.send_trailers(trailers.clone()),
            None => stream.send_data(Bytes::new(), true),
        }
        .map_err(|_| UploadError::Stream)
    }

    /// The next chunk: first what is held from an earlier attempt, then from the caller.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UploadError>> {
        if let Some(chunk) = self.held.as_ref().and_then(|held| held.chunks.get(self.cursor)) {
            self.cursor += 1;
            return Poll::Ready(Ok(Some(chunk.clone())));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.ended = true;
                return Poll::Ready(Ok(None));
            };
            let frame = frame.map_err(|e| UploadError::Caller(e.into().to_string()))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(self.take(data).map(Some)),
                Err(frame) => {
                    // Not data, so trailers: the last frame of a body.
                    self.trailers = frame.into_trailers().ok();
                    self.ended = true;
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    fn take(&mut self, data: Bytes) -> Result<Bytes, UploadError> {
        self.taken += data.len() as u64;
        if self.taken > self.limit {
            return Err(UploadError::TooLarge { limit: self.limit });
        }
        if let Some(held) = &mut self.held {
            if held.hold(&data) {
                self.cursor += 1;
            } else {
                self.held = None;
            }
        }
        Ok(data)
    }
}

/// Chunks kept for a replay, counted against the request's and the pool's limits.
struct Held {
    chunks: VecDeque<Bytes>,
    /// What they cost, see [`Held::cost`].
    bytes: usize,
    limit: usize,
    memory: Arc<Share>,
}

impl Held {
    /// What holding a chunk costs: its bytes, and the piece itself. A body of a million single bytes is not small.
    fn cost(data: &Bytes) -> usize {
        data.len() + PIECE
    }

    /// Keeps a chunk; `false` if that would exceed a limit.
    fn hold(&mut self, data: &Bytes) -> bool {
        let cost = Self::cost(data);
        if self.bytes + cost > self.limit.saturating_add(PIECE) {
            return false;
        }
        if !self.memory.try_take(cost) {
            return false;
        }
        self.bytes += cost;
        // A small piece keeps the whole read buffer that it was cut from: it is copied out.
        let small = data.len() < COPIED_BELOW;
        self.chunks.push_back(if small { Bytes::copy_from_slice(data) } else { data.clone() });
        true
    }
}

/// What a held piece costs beside its bytes: its handle, its place in the list, its allocation.
const PIECE: usize = 96;
/// Pieces below this are copied when they are held. Larger ones may pin a buffer of some times their size.
const COPIED_BELOW: usize = 4 * 1024;

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}
