//! Owns what is known about one HTTP/2 connection from its frames alone, and the frames waiting to be slipped
//! in. Pure: it sees heads of frames and never touches a socket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::frame::{self, Head};
use crate::behaviour::Pings;
use crate::ledger::Books;

/// What to do with an inbound frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Swallow,
}

/// Whose SETTINGS the next ACK answers.
#[derive(Clone, Copy, Debug)]
enum Settings {
    OfLibrary,
    /// Ours, with the stream limit in it. The library must not see this ACK: it would call it a violation.
    Injected(u32),
}

/// A frame to slip in.
struct Order {
    frame: Vec<u8>,
    awaits: Option<Settings>,
}

impl From<Vec<u8>> for Order {
    fn from(frame: Vec<u8>) -> Self {
        Self { frame, awaits: None }
    }
}

/// Which halves of a stream are closed.
#[derive(Clone, Copy, Debug, Default)]
struct Halves {
    client_done: bool,
    server_done: bool,
}

/// When the connection ends by our own will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Never,
    WhenIdle,
}

pub(super) struct State {
    books: Arc<Books>,
    orders: VecDeque<Order>,
    awaited_acks: VecDeque<Settings>,
    streams: HashMap<u32, Halves>,
    newest: u32,
    cut: Option<u32>,
    ending: Ending,
    pings: Pings,
    limit: Option<u32>,
}

impl State {
    pub(super) fn new(books: Arc<Books>, pings: Pings, limit: Option<u32>) -> Self {
        Self {
            books,
            orders: VecDeque::new(),
            awaited_acks: VecDeque::new(),
            streams: HashMap::new(),
            newest: 0,
            cut: None,
            ending: Ending::Never,
            pings,
            limit,
        }
    }

    pub(super) fn cut(&self) -> Option<u32> {
        self.cut
    }

    /// True once everything promised has been sent and the connection may close.
    pub(super) fn may_end(&self) -> bool {
        self.ending == Ending::WhenIdle && self.streams.is_empty() && self.orders.is_empty()
    }

    /// Orders a GOAWAY with this last id. Streams above it are forgotten, their bodies swallowed from now on.
    pub(super) fn order_cut(&mut self, last: u32, code: u32) {
        self.orders.push_back(frame::goaway(last, code).into());
        self.cut = Some(last);
        self.ending = Ending::WhenIdle;
        let before = self.streams.len();
        self.streams.retain(|&id, _| id <= last);
        self.books.streams_open.sub((before - self.streams.len()) as u64);
    }

    /// Orders a GOAWAY that disowns nothing.
    pub(super) fn order_goaway(&mut self, last: u32, code: u32) {
        self.orders.push_back(frame::goaway(last, code).into());
    }

    pub(super) fn order_stream_limit(&mut self, limit: u32) {
        let awaits = Some(Settings::Injected(limit));
        self.orders.push_back(Order { frame: frame::stream_limit(limit), awaits });
    }

    pub(super) fn set_pings(&mut self, pings: Pings) {
        self.pings = pings;
    }

    /// The next frame to slip in, which the caller writes at once: ACKs come in the order of writing.
    pub(super) fn next_order(&mut self) -> Option<Vec<u8>> {
        let Order { frame, awaits } = self.orders.pop_front()?;
        self.awaited_acks.extend(awaits);
        Some(frame)
    }

    pub(super) fn inbound(&mut self, head: Head) -> Verdict {
        match head.kind {
            frame::HEADERS => self.opened(head),
            frame::DATA if self.cut.is_some_and(|cut| head.stream > cut) => return self.swallow_data(head),
            frame::SETTINGS if head.is_ack() => return self.acknowledged(),
            frame::PING if !head.is_ack() => {
                self.books.pings.add(1);
                if self.pings == Pings::Ignore {
                    return Verdict::Swallow;
                }
            }
            frame::RST_STREAM => self.closed(head.stream),
            _ => {}
        }
        if head.ends_stream() {
            self.half_closed(head.stream, |halves| halves.client_done = true);
        }
        Verdict::Pass
    }

    pub(super) fn outbound(&mut self, head: Head) {
        match head.kind {
            frame::SETTINGS if !head.is_ack() => self.awaited_acks.push_back(Settings::OfLibrary),
            frame::RST_STREAM => self.closed(head.stream),
            frame::DATA | frame::HEADERS if head.ends_stream() => {
                self.half_closed(head.stream, |halves| halves.server_done = true);
            }
            _ => {}
        }
    }

    /// A HEADERS frame with a new id opens a stream; with a known one it carries trailers.
    fn opened(&mut self, head: Head) {
        if head.stream <= self.newest {
            return;
        }
        self.newest = head.stream;
        if self.cut.is_some_and(|cut| head.stream > cut) {
            return;
        }
        self.streams.insert(head.stream, Halves::default());
        self.books.streams_open.add(1);
        self.books.peak_streams.at_least(self.streams.len() as u64);
        if self.limit.is_some_and(|limit| self.streams.len() > limit as usize) {
            self.books.stream_limit_breaches.add(1);
        }
    }

    fn half_closed(&mut self, stream: u32, close: impl FnOnce(&mut Halves)) {
        if let Some(halves) = self.streams.get_mut(&stream) {
            close(halves);
            if halves.client_done && halves.server_done {
                self.closed(stream);
            }
        }
    }

    fn closed(&mut self, stream: u32) {
        if self.streams.remove(&stream).is_some() {
            self.books.streams_open.sub(1);
        }
    }

    /// The connection's window is given back, or the streams that still finish would starve.
    fn swallow_data(&mut self, head: Head) -> Verdict {
        if head.length > 0 {
            // A frame's length has 24 bits.
            self.orders.push_back(frame::connection_window(head.length as u32).into());
        }
        Verdict::Swallow
    }

    fn acknowledged(&mut self) -> Verdict {
        match self.awaited_acks.pop_front() {
            Some(Settings::Injected(limit)) => {
                self.limit = Some(limit);
                Verdict::Swallow
            }
            Some(Settings::OfLibrary) | None => Verdict::Pass,
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.books.streams_open.sub(self.streams.len() as u64);
    }
}
