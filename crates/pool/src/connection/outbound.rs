//! Follows the frames that we send: which streams the provider can have heard of.
//!
//! h2 says neither when a stream's HEADERS leave nor whether they did. The tap follows the bytes that the transport
//! accepted by their frame headers (RFC 9113 §4.1) and publishes the highest stream whose HEADERS began to leave: a
//! client opens its streams in the order of their numbers (§5.1.1), so whatever is above it never left. It changes
//! nothing and owns no byte.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// The highest stream whose HEADERS began to leave; 0 before the first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Departed(Arc<AtomicU32>);

impl Departed {
    /// Whether the HEADERS of this stream began to leave.
    pub(crate) fn includes(&self, stream: u32) -> bool {
        self.0.load(Ordering::Acquire) >= stream
    }
}

/// Incremental reader of the headers of outbound frames.
#[derive(Debug)]
pub(crate) struct OutboundTap {
    header: [u8; HEADER],
    filled: usize,
    /// Bytes of the preface or of the current frame's payload still to come.
    remaining: usize,
    highest: u32,
    departed: Departed,
}

/// Length of a frame header.
const HEADER: usize = 9;
/// Length of the client's connection preface, which precedes the first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
const HEADERS: u8 = 0x1;

impl Default for OutboundTap {
    fn default() -> Self {
        Self { header: [0; HEADER], filled: 0, remaining: PREFACE, highest: 0, departed: Departed::default() }
    }
}

impl OutboundTap {
    /// What it publishes.
    pub(crate) fn departed(&self) -> Departed {
        self.departed.clone()
    }

    /// Follows the next bytes that the transport accepted.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.remaining > 0 {
                let skip = self.remaining.min(bytes.len());
                self.remaining -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            if let (0, Some((header, rest))) = (self.filled, bytes.split_first_chunk::<HEADER>()) {
                self.begin_frame(*header);
                bytes = rest;
                continue;
            }
            let take = bytes.len().min(HEADER - self.filled);
            self.header[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if self.filled == HEADER {
                self.filled = 0;
                self.begin_frame(self.header);
            }
        }
    }

    fn begin_frame(&mut self, [a, b, c, kind, _, id @ ..]: [u8; HEADER]) {
        self.remaining = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let id = u32::from_be_bytes(id);
        if kind == HEADERS && id > self.highest {
            self.highest = id;
            self.departed.0.store(id, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, 0]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    #[test]
    fn the_highest_opened_stream_is_known_wherever_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, &[0; 12]));
        bytes.extend(frame(HEADERS, 1, &[HEADERS; 40]));
        bytes.extend(frame(0, 1, &[HEADERS; 300]));
        bytes.extend(frame(HEADERS, 3, &[9; 9]));
        // Trailers of an older stream, and a reset of one that was never opened here: neither opens a stream.
        bytes.extend(frame(HEADERS, 1, &[1]));
        bytes.extend(frame(3, 5, &[0, 0, 0, 8]));
        for step in 1..bytes.len() {
            let mut tap = OutboundTap::default();
            for piece in bytes.chunks(step) {
                tap.follow(piece);
            }
            assert!(tap.departed().includes(3) && !tap.departed().includes(5), "pieces of {step}");
        }
    }

    #[test]
    fn a_stream_counts_as_departed_from_the_end_of_its_frame_header() {
        let mut tap = OutboundTap::default();
        tap.follow(&[0; PREFACE]);
        let headers = frame(HEADERS, 7, &[1, 2, 3]);
        tap.follow(&headers[..8]);
        assert!(!tap.departed().includes(7));
        tap.follow(&headers[8..9]);
        assert!(tap.departed().includes(7));
    }
}
