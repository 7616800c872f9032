//! Owns what is known about one HTTP/2 connection from its frames alone, and the frames waiting to be slipped
//! in. Pure: it sees heads of frames and never touches a socket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use http::HeaderValue;
use tokio::sync::Notify;

use super::frame::{self, Head, Setting};
use crate::behaviour::Pings;
use crate::ledger::Books;

/// What to do with an inbound frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Swallow,
}

/// What a connection begins with, beyond what the library announces itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) pings: Pings,
    pub(crate) stream_limit: Option<u32>,
    pub(crate) header_table: Option<u32>,
}

impl Opening {
    fn settings(self) -> Vec<Setting> {
        let limit = self.stream_limit.map(|limit| (frame::SETTINGS_MAX_CONCURRENT_STREAMS, limit));
        let table = self.header_table.map(|size| (frame::SETTINGS_HEADER_TABLE_SIZE, size));
        limit.into_iter().chain(table).collect()
    }
}

/// Whose SETTINGS the next ACK answers.
#[derive(Clone, Copy, Debug)]
enum Settings {
    OfLibrary,
    /// Ours, and the stream limit in it. The library must not see this ACK: it would call it a violation.
    Injected(Option<u32>),
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

/// One stream, until both halves are closed.
#[derive(Clone, Debug, Default)]
struct Halves {
    client_done: bool,
    server_done: bool,
    standing: Standing,
}

/// What became of a stream's request.
#[derive(Clone, Debug, Default)]
enum Standing {
    #[default]
    Waiting,
    /// Opened above the limit.
    AboveLimit,
    /// Taken up, with its correlation id.
    TakenUp(Option<HeaderValue>),
}

/// When the connection ends by our own will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Never,
    WhenIdle,
    Now,
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
    pings_seen: u32,
    /// The stream limit that holds: the one of the beginning, then each from its ACK.
    limit: Option<u32>,
    /// Goes into the first SETTINGS frame of the library.
    opening: Option<Vec<Setting>>,
    /// Of SETTINGS of the library.
    acknowledged: Arc<Notify>,
}

impl State {
    pub(super) fn new(books: Arc<Books>, opening: Opening) -> Self {
        Self {
            books,
            orders: VecDeque::new(),
            awaited_acks: VecDeque::new(),
            streams: HashMap::new(),
            newest: 0,
            cut: None,
            ending: Ending::Never,
            pings: opening.pings,
            pings_seen: 0,
            limit: opening.stream_limit,
            opening: Some(opening.settings()),
            acknowledged: Arc::default(),
        }
    }

    pub(super) fn acknowledgements(&self) -> Arc<Notify> {
        self.acknowledged.clone()
    }

    /// What to add to the library's own SETTINGS frame; only to the first one.
    pub(super) fn take_opening(&mut self) -> Vec<Setting> {
        self.opening.take().unwrap_or_default()
    }

    /// Is this stream above the limit that holds?
    pub(super) fn is_above_limit(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|halves| matches!(halves.standing, Standing::AboveLimit))
    }

    /// A stream's request is taken up for processing.
    pub(super) fn taken_up(&mut self, stream: u32, correlation_id: Option<HeaderValue>) {
        if let Some(halves) = self.streams.get_mut(&stream) {
            halves.standing = Standing::TakenUp(correlation_id);
        }
    }

    pub(super) fn cut(&self) -> Option<u32> {
        self.cut
    }

    /// True once everything promised has been sent and the connection may close.
    pub(super) fn may_end(&self) -> bool {
        match self.ending {
            Ending::Never => false,
            Ending::WhenIdle => self.streams.is_empty() && self.orders.is_empty(),
            Ending::Now => self.orders.is_empty(),
        }
    }

    /// Ends the connection once the orders are out, whatever else is under way.
    pub(super) fn end_now(&mut self) {
        self.ending = Ending::Now;
    }

    /// Orders a GOAWAY with this last id. Streams above it are forgotten, their bodies swallowed from now on.
    /// Returns the correlation ids of those that were taken up and whose response had not left completely:
    /// the client counts them as not processed.
    pub(super) fn order_cut(&mut self, last: u32, code: u32, debug: &[u8]) -> Vec<Option<HeaderValue>> {
        self.orders.push_back(frame::goaway(last, code, debug).into());
        self.cut = Some(last);
        self.ending = self.ending.max(Ending::WhenIdle);
        let mut disowned = Vec::new();
        let before = self.streams.len();
        self.streams.retain(|&id, halves| {
            if id <= last {
                return true;
            }
            if let (Standing::TakenUp(correlation_id), false) = (&mut halves.standing, halves.server_done) {
                disowned.push(correlation_id.take());
            }
            false
        });
        self.books.streams_open.sub((before - self.streams.len()) as u64);
        disowned
    }

    /// Orders a GOAWAY that disowns nothing.
    pub(super) fn order_goaway(&mut self, last: u32, code: u32, debug: &[u8]) {
        self.orders.push_back(frame::goaway(last, code, debug).into());
    }

    pub(super) fn order_stream_limit(&mut self, limit: u32) {
        self.order_settings(&[(frame::SETTINGS_MAX_CONCURRENT_STREAMS, limit)], Some(limit));
    }

    pub(super) fn order_header_table(&mut self, size: u32) {
        self.order_settings(&[(frame::SETTINGS_HEADER_TABLE_SIZE, size)], None);
    }

    fn order_settings(&mut self, settings: &[Setting], limit: Option<u32>) {
        let awaits = Some(Settings::Injected(limit));
        self.orders.push_back(Order { frame: frame::settings(settings), awaits });
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
                self.pings_seen = self.pings_seen.saturating_add(1);
                return match self.pings {
                    Pings::Answer => Verdict::Pass,
                    Pings::IgnoreAfter { answered } if self.pings_seen <= answered => Verdict::Pass,
                    Pings::IgnoreAfter { .. } | Pings::Ignore => Verdict::Swallow,
                };
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
            if let Some(halves) = self.streams.get_mut(&head.stream) {
                halves.standing = Standing::AboveLimit;
            }
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
                self.books.settings_acknowledged.add(1);
                self.limit = limit.or(self.limit);
                Verdict::Swallow
            }
            Some(Settings::OfLibrary) => {
                self.books.settings_acknowledged.add(1);
                self.acknowledged.notify_one();
                Verdict::Pass
            }
            None => Verdict::Pass,
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.books.streams_open.sub(self.streams.len() as u64);
    }
}
