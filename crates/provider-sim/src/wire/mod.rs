//! Owns the layer between TLS and the HTTP/2 library: it sees frames pass, slips in frames of its own where one
//! ends (GOAWAY with any last id, a changed stream limit), swallows what the library must not see, and gathers
//! small writes into one TLS record. It does not own streams or requests.
//!
//! The library cannot choose a last-stream-id, ignore a PING or change limits while it runs; this can.

mod frame;
mod state;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::behaviour::Pings;
use crate::ledger::Books;
use frame::{HEAD_LEN, Head, PREFACE_LEN};
pub(crate) use state::Opening;
use state::{State, Verdict};

/// One TLS record.
const INBOUND_BUFFER: usize = 16 * 1024;
/// Above this the library has to wait for the socket.
const OUTBOUND_LIMIT: usize = 64 * 1024;
/// How long to read on after our own end, so that unread bytes do not turn it into a TCP reset that overtakes
/// the last response. nginx: `lingering_timeout`.
const LINGER: Duration = Duration::from_secs(1);

/// Gives orders to a [`Wire`] that the HTTP/2 library owns. They take effect the next time the connection is
/// polled, which is the caller's to do.
#[derive(Clone)]
pub(crate) struct WireControl(Arc<Mutex<State>>);

impl WireControl {
    /// GOAWAY(`last`). Streams above are disowned; the connection ends when those at or below are done. Returns
    /// the correlation ids of the disowned requests that had been taken up.
    pub(crate) fn cut(&self, last: u32, code: u32, debug: &[u8]) -> Vec<Option<HeaderValue>> {
        self.0.lock().order_cut(last, code, debug)
    }

    /// GOAWAY(`last`) without consequences.
    pub(crate) fn goaway(&self, last: u32, code: u32, debug: &[u8]) {
        self.0.lock().order_goaway(last, code, debug);
    }

    /// `close_notify` and FIN as soon as the orders of before are out.
    pub(crate) fn end_now(&self) {
        self.0.lock().end_now();
    }

    /// SETTINGS with a new stream limit.
    pub(crate) fn stream_limit(&self, limit: u32) {
        self.0.lock().order_stream_limit(limit);
    }

    /// SETTINGS with a new size of the header table.
    pub(crate) fn header_table(&self, size: u32) {
        self.0.lock().order_header_table(size);
    }

    /// Told each time the client has acknowledged SETTINGS of the library.
    pub(crate) fn acknowledgements(&self) -> Arc<Notify> {
        self.0.lock().acknowledgements()
    }

    /// Was this stream opened above the limit that holds?
    pub(crate) fn is_above_limit(&self, stream: u32) -> bool {
        self.0.lock().is_above_limit(stream)
    }

    /// A stream's request is taken up.
    pub(crate) fn taken_up(&self, stream: u32, correlation_id: Option<HeaderValue>) {
        self.0.lock().taken_up(stream, correlation_id);
    }

    pub(crate) fn set_pings(&self, pings: Pings) {
        self.0.lock().set_pings(pings);
    }

    /// The last id of the GOAWAY ordered with [`cut`](Self::cut).
    pub(crate) fn last_allowed(&self) -> Option<u32> {
        self.0.lock().cut()
    }
}

/// The IO under the HTTP/2 library.
pub(crate) struct Wire<IO> {
    io: IO,
    state: Arc<Mutex<State>>,
    inbound: Inbound,
    outbound: Outbound,
    linger: Option<Pin<Box<Sleep>>>,
    peer_closed: bool,
}

impl<IO> Wire<IO> {
    pub(crate) fn new(io: IO, books: Arc<Books>, opening: Opening) -> (Self, WireControl) {
        let state = Arc::new(Mutex::new(State::new(books, opening)));
        let control = WireControl(state.clone());
        let (inbound, outbound) = (Inbound::new(), Outbound::default());
        (Self { io, state, inbound, outbound, linger: None, peer_closed: false }, control)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    /// Writes out what has been gathered. `Pending` leaves the rest for the next call.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbound.slip_in(&mut self.state.lock());
        while !self.outbound.pending().is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, self.outbound.pending()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbound.written(n);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(self.inbound.free());
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let n = buffer.filled().len();
        self.peer_closed |= n == 0;
        self.inbound.end += n;
        Poll::Ready(Ok(n))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.outbound.turn = Turn::Fresh;
        // A socket that takes no more does not stop us from reading; the write side reports errors.
        let drained = this.drain(cx)?.is_ready();
        if drained && this.state.lock().may_end() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let before = out.filled().len();
            this.inbound.forward(out, &mut this.state.lock());
            if out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if ready!(this.read_more(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outbound.pending().len() >= OUTBOUND_LIMIT {
            ready!(this.drain(cx))?;
        }
        this.outbound.gather(data, &mut this.state.lock());
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outbound.pending().len() >= OUTBOUND_LIMIT {
            ready!(this.drain(cx))?;
        }
        let mut state = this.state.lock();
        for slice in slices {
            this.outbound.gather(slice, &mut state);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library flushes after almost every frame. The first flush of a turn asks for another turn, whose
    /// read drains: the frames in between share a record and a system call.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.outbound.slip_in(&mut this.state.lock());
        if !this.outbound.pending().is_empty() && this.outbound.turn == Turn::Fresh {
            this.outbound.turn = Turn::Asked;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends everything, says goodbye, and reads on for a while.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(this.drain(cx))?;
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        let timer = this.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        while !this.peer_closed {
            this.inbound.forget();
            if ready!(this.read_more(cx)).is_err() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Bytes from the client: where the current frame ends and what becomes of it.
struct Inbound {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    current: Verdict,
    left: usize,
}

impl Inbound {
    fn new() -> Self {
        let buffer = vec![0; INBOUND_BUFFER].into_boxed_slice();
        Self { buffer, start: 0, end: 0, current: Verdict::Pass, left: PREFACE_LEN }
    }

    /// Room behind the bytes at hand. Never empty: at most a frame's head stays behind.
    fn free(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    fn forget(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Hands on what may pass of the bytes at hand, until they or the room run out.
    fn forward(&mut self, out: &mut ReadBuf<'_>, state: &mut State) {
        loop {
            let available = self.end - self.start;
            if self.left == 0 {
                let Some(head) = self.buffer[self.start..self.end].first_chunk::<HEAD_LEN>() else { return };
                let head = Head::parse(head);
                self.current = state.inbound(head);
                self.left = HEAD_LEN + head.length;
                continue;
            }
            let n = match self.current {
                Verdict::Pass => self.left.min(available).min(out.remaining()),
                Verdict::Swallow => self.left.min(available),
            };
            if n == 0 {
                return;
            }
            if self.current == Verdict::Pass {
                out.put_slice(&self.buffer[self.start..self.start + n]);
            }
            self.start += n;
            self.left -= n;
        }
    }
}

/// Has this turn of the connection asked for another one yet?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Fresh,
    Asked,
}

/// Bytes to the client: gathered, with frame boundaries known.
#[derive(Default)]
struct Outbound {
    buffer: Vec<u8>,
    sent: usize,
    head: [u8; HEAD_LEN],
    head_len: usize,
    left: usize,
    /// Between HEADERS and its last CONTINUATION no other frame may stand.
    inside_header_block: bool,
    turn: Turn,
}

impl Outbound {
    fn pending(&self) -> &[u8] {
        &self.buffer[self.sent..]
    }

    fn written(&mut self, n: usize) {
        self.sent += n;
        if self.sent == self.buffer.len() {
            self.buffer.clear();
            self.sent = 0;
        }
    }

    fn slip_in(&mut self, state: &mut State) {
        if self.head_len == 0 && self.left == 0 && !self.inside_header_block {
            while let Some(frame) = state.next_order() {
                self.buffer.extend_from_slice(&frame);
            }
        }
    }

    fn gather(&mut self, mut data: &[u8], state: &mut State) {
        while !data.is_empty() {
            if self.left > 0 {
                let (now, later) = data.split_at(self.left.min(data.len()));
                self.buffer.extend_from_slice(now);
                self.left -= now.len();
                data = later;
                continue;
            }
            self.slip_in(state);
            let (now, later) = data.split_at((HEAD_LEN - self.head_len).min(data.len()));
            self.head[self.head_len..self.head_len + now.len()].copy_from_slice(now);
            self.head_len += now.len();
            self.buffer.extend_from_slice(now);
            data = later;
            if self.head_len == HEAD_LEN {
                self.begin(Head::parse(&self.head), state);
            }
        }
    }

    fn begin(&mut self, head: Head, state: &mut State) {
        state.outbound(head);
        self.head_len = 0;
        self.left = head.length;
        if head.kind == frame::SETTINGS && !head.is_ack() {
            let settings = frame::settings_payload(&state.take_opening());
            let at = self.buffer.len() - HEAD_LEN;
            frame::lengthen(&mut self.buffer[at..], settings.len());
            self.buffer.extend_from_slice(&settings);
        }
        if matches!(head.kind, frame::HEADERS | frame::CONTINUATION) {
            self.inside_header_block = !head.ends_headers();
        }
    }
}

#[cfg(test)]
mod tests;
