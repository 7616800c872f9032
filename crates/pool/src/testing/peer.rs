//! The provider's end of a connection in memory, frame by frame, without a task of its own: the test says when it reads,
//! and what it answers.
//!
//! Owns framing (RFC 9113 §4.1) and the count of streams as a provider makes it, each frame in its order. Header blocks
//! are neither read nor checked.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
/// Length of the client's preface.
const PREFACE: usize = 24;
/// The last stream of a GOAWAY that announces a second one (RFC 9113 §6.8).
pub(crate) const GOAWAY_SOON: u32 = (1 << 31) - 1;

/// What a provider says about one stream, or the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// `:status: 200`.
    Header(u32),
    /// So many bytes of the body.
    Data(u32, usize),
    /// The end of the response.
    End(u32),
    /// RST_STREAM with this code.
    Reset(u32, u32),
    /// SETTINGS with this number of streams.
    Streams(u32),
    /// GOAWAY with this last stream.
    GoAway(u32),
}

/// A stream that the provider counts as open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Open {
    /// The request is whole.
    pub(crate) asked: bool,
    /// The response has begun.
    pub(crate) begun: bool,
    /// The response is whole.
    answered: bool,
}

/// The provider's end of one connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// `None` once it hung up.
    io: Option<DuplexStream>,
    /// Bytes read and not yet looked at, from the preface on.
    inbox: Vec<u8>,
    outbox: VecDeque<u8>,
    preface: usize,
    open: BTreeMap<u32, Open>,
    highest: u32,
    /// The number of streams that the client acknowledged.
    limit: u32,
    /// The numbers announced since.
    announced: VecDeque<u32>,
    most_told: u32,
    last_stream: u32,
    opened: u64,
    broken: Vec<String>,
    /// It reads nothing for now.
    pub(crate) deaf: bool,
}

impl Peer {
    /// Greets with SETTINGS that allow so many streams.
    pub(crate) fn greet(io: DuplexStream, streams: u32) -> Self {
        let mut peer = Self {
            io: Some(io),
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            preface: PREFACE,
            open: BTreeMap::new(),
            highest: 0,
            limit: u32::MAX,
            announced: VecDeque::new(),
            most_told: 0,
            last_stream: GOAWAY_SOON,
            opened: 0,
            broken: Vec::new(),
            deaf: false,
        };
        peer.say(Frame::Streams(streams));
        peer
    }

    /// The streams that it counts as open.
    pub(crate) fn open(&self) -> &BTreeMap<u32, Open> {
        &self.open
    }

    /// An open stream by place, modulo how many there are.
    pub(crate) fn at(&self, place: usize) -> Option<(u32, Open)> {
        let place = place.checked_rem(self.open.len())?;
        self.open.iter().nth(place).map(|(id, open)| (*id, *open))
    }

    /// Streams opened so far.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// The highest stream so far.
    pub(crate) fn highest(&self) -> u32 {
        self.highest
    }

    /// The number of streams it last announced, acknowledged or not.
    pub(crate) fn told(&self) -> u32 {
        self.announced.back().copied().unwrap_or(self.limit)
    }

    /// The highest number of streams that stood since this was last asked.
    pub(crate) fn take_most_told(&mut self) -> u32 {
        let now = self.told();
        std::mem::replace(&mut self.most_told, now).max(now)
    }

    /// The rules of the protocol that the client broke.
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Whether the connection is there.
    pub(crate) fn is_up(&self) -> bool {
        self.io.is_some()
    }

    /// Ends the transport under everybody.
    pub(crate) fn hang_up(&mut self) {
        self.io = None;
        self.open.clear();
    }

    /// Says this, at the next [`Self::pump`] as far as there is room. What concerns a stream that is not open is left
    /// out.
    pub(crate) fn say(&mut self, frame: Frame) {
        let known = match frame {
            Frame::Header(id) | Frame::Data(id, _) | Frame::End(id) | Frame::Reset(id, _) => {
                self.open.contains_key(&id)
            }
            Frame::Streams(_) | Frame::GoAway(_) => true,
        };
        if !known {
            return;
        }
        match frame {
            Frame::Header(id) => self.begin(id),
            Frame::Data(id, size) => {
                self.begin(id);
                self.put(DATA, 0, id, &vec![7; size]);
            }
            Frame::End(id) => {
                if self.open[&id].begun {
                    self.put(DATA, END_STREAM, id, &[]);
                } else {
                    self.put(HEADERS, END_HEADERS | END_STREAM, id, &[0x88]);
                }
                self.note(id, |open| open.answered = true);
            }
            Frame::Reset(id, code) => {
                self.open.remove(&id);
                self.put(RST_STREAM, 0, id, &code.to_be_bytes());
            }
            Frame::Streams(streams) => {
                self.announced.push_back(streams);
                self.most_told = self.most_told.max(streams);
                let [a, b] = MAX_CONCURRENT_STREAMS.to_be_bytes();
                let [c, d, e, f] = streams.to_be_bytes();
                self.put(SETTINGS, 0, 0, &[a, b, c, d, e, f]);
            }
            Frame::GoAway(last) => {
                self.last_stream = self.last_stream.min(last);
                self.open.retain(|id, _| *id <= last);
                let mut payload = self.last_stream.to_be_bytes().to_vec();
                payload.extend([0; 4]);
                self.put(GOAWAY, 0, 0, &payload);
            }
        }
    }

    /// The header of the response, unless it was said.
    fn begin(&mut self, id: u32) {
        if self.open.get(&id).is_some_and(|open| !open.begun) {
            self.put(HEADERS, END_HEADERS, id, &[0x88]);
            self.note(id, |open| open.begun = true);
        }
    }

    /// Changes a stream, which goes when both sides are done.
    fn note(&mut self, id: u32, change: impl FnOnce(&mut Open)) {
        let Some(open) = self.open.get_mut(&id) else { return };
        change(open);
        if open.asked && open.answered {
            self.open.remove(&id);
        }
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.outbox.extend(&(payload.len() as u32).to_be_bytes()[1..]);
        self.outbox.extend([kind, flags]);
        self.outbox.extend(stream.to_be_bytes());
        self.outbox.extend(payload);
    }

    /// Writes what it has to say and reads what has come, as far as both go now. Returns whether anything moved.
    pub(crate) fn pump(&mut self) -> bool {
        let wrote = self.write();
        let read = !self.deaf && self.read();
        while let Some((header, payload)) = self.next_frame() {
            self.take(header, &payload);
        }
        if !self.is_up() {
            // With the transport everything on it ends.
            self.open.clear();
        }
        wrote || read
    }

    fn write(&mut self) -> bool {
        let mut moved = false;
        while let (Some(io), false) = (&mut self.io, self.outbox.is_empty()) {
            let bytes = self.outbox.make_contiguous();
            match Pin::new(io).poll_write(&mut Context::from_waker(Waker::noop()), bytes) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    moved = true;
                    self.outbox.drain(..n);
                }
                Poll::Pending => break,
                Poll::Ready(_) => self.hang_up(),
            }
        }
        moved
    }

    fn read(&mut self) -> bool {
        let mut moved = false;
        let mut piece = [0; 4096];
        while let Some(io) = &mut self.io {
            let mut buf = ReadBuf::new(&mut piece);
            match Pin::new(io).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    moved = true;
                    self.inbox.extend_from_slice(buf.filled());
                }
                Poll::Pending => break,
                Poll::Ready(_) => {
                    // The client has gone; what it still had to say is in the inbox.
                    self.io = None;
                    moved = true;
                }
            }
        }
        let skip = self.preface.min(self.inbox.len());
        self.inbox.drain(..skip);
        self.preface -= skip;
        moved
    }

    fn next_frame(&mut self) -> Option<([u8; 9], Vec<u8>)> {
        let (header, rest) = self.inbox.split_first_chunk::<9>()?;
        let [a, b, c, ..] = *header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let payload = rest.get(..length)?.to_vec();
        let header = *header;
        self.inbox.drain(..9 + length);
        Some((header, payload))
    }

    fn take(&mut self, [_, _, _, kind, flags, id @ ..]: [u8; 9], payload: &[u8]) {
        let id = u32::from_be_bytes(id);
        match kind {
            SETTINGS if flags & ACK != 0 => {
                // The acknowledgements come in the order of what they acknowledge (RFC 9113 §6.5.3).
                self.limit = self.announced.pop_front().unwrap_or(self.limit);
            }
            SETTINGS => self.put(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.put(PING, ACK, 0, payload),
            HEADERS if id > self.highest => self.take_request(id),
            RST_STREAM => {
                self.open.remove(&id);
            }
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.note(id, |open| open.asked = true);
        }
    }

    fn take_request(&mut self, id: u32) {
        self.highest = id;
        if id > self.last_stream {
            // Crossed by the GOAWAY: not processed, and not counted.
            return;
        }
        self.opened += 1;
        self.open.insert(id, Open::default());
        if self.open.len() > self.limit as usize {
            let (open, limit) = (self.open.len(), self.limit);
            self.broken.push(format!("stream {id} is number {open} of {limit} that may be open"));
        }
    }
}
