//! Reads frame headers off the decrypted inbound bytes: what h2 sees but does not show.
//!
//! h2's client hides that a GOAWAY arrived (its connection future ends only when the last stream does) and which
//! SETTINGS the provider sent. The tap follows the stream of frames by their nine-byte headers (RFC 9113 §4.1) and
//! remembers just that. It changes nothing and checks nothing: judging the protocol is h2's work.

/// What the tap has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The last GOAWAY received.
    pub(crate) goaway: Option<GoAway>,
    /// GOAWAY frames received.
    pub(crate) goaways: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS as last announced.
    pub(crate) max_concurrent_streams: Option<u32>,
}

/// A GOAWAY frame (RFC 9113 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    /// The error code.
    pub(crate) error_code: u32,
}

/// Incremental reader of frame headers.
#[derive(Debug, Default)]
pub(crate) struct FrameTap {
    header: [u8; HEADER],
    filled: usize,
    kind: u8,
    remaining: usize,
    payload: [u8; KEPT],
    kept: usize,
    seen: Seen,
}

/// Length of a frame header.
const HEADER: usize = 9;
/// Bytes kept of an interesting frame: all of GOAWAY's fixed part, or one SETTINGS entry.
const KEPT: usize = 8;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const SETTINGS_ENTRY: usize = 6;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;

impl FrameTap {
    /// What was seen up to now.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    /// Follows the next inbound bytes.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.remaining == 0 && self.filled < HEADER {
                let take = bytes.len().min(HEADER - self.filled);
                self.header[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
                self.filled += take;
                bytes = &bytes[take..];
                if self.filled == HEADER {
                    self.begin_frame();
                }
            } else {
                let take = bytes.len().min(self.remaining);
                if self.kind == GOAWAY || self.kind == SETTINGS {
                    self.keep(&bytes[..take]);
                }
                self.remaining -= take;
                bytes = &bytes[take..];
                if self.remaining == 0 {
                    self.filled = 0;
                }
            }
        }
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, ..] = self.header;
        self.remaining = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.kind = kind;
        self.kept = 0;
        if self.remaining == 0 {
            self.filled = 0;
        }
    }

    fn keep(&mut self, mut bytes: &[u8]) {
        let unit = if self.kind == GOAWAY { KEPT } else { SETTINGS_ENTRY };
        while !bytes.is_empty() {
            if self.kept == KEPT && self.kind == GOAWAY {
                return; // debug data
            }
            let take = bytes.len().min(unit - self.kept);
            self.payload[self.kept..self.kept + take].copy_from_slice(&bytes[..take]);
            self.kept += take;
            bytes = &bytes[take..];
            if self.kept == unit {
                self.note();
            }
        }
    }

    fn note(&mut self) {
        let p = &self.payload;
        if self.kind == GOAWAY {
            let error_code = u32::from_be_bytes([p[4], p[5], p[6], p[7]]);
            self.seen.goaway = Some(GoAway { error_code });
            self.seen.goaways += 1;
        } else {
            if u16::from_be_bytes([p[0], p[1]]) == MAX_CONCURRENT_STREAMS {
                self.seen.max_concurrent_streams = Some(u32::from_be_bytes([p[2], p[3], p[4], p[5]]));
            }
            self.kept = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u32;
        let mut out = len.to_be_bytes()[1..].to_vec();
        out.extend([kind, 0, 0, 0, 0, 0]);
        out.extend(payload);
        out
    }

    fn stream() -> Vec<u8> {
        let mut bytes = frame(SETTINGS, &[0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 128]);
        bytes.extend(frame(SETTINGS, &[]));
        bytes.extend(frame(0, &[GOAWAY; 300]));
        bytes.extend(frame(GOAWAY, b"\0\0\0\x05\0\0\0\x0btoo many things"));
        bytes.extend(frame(1, &[7; 20]));
        bytes
    }

    #[test]
    fn sees_settings_and_goaway_wherever_the_bytes_are_cut() {
        let bytes = stream();
        for step in 1..bytes.len() {
            let mut tap = FrameTap::default();
            for piece in bytes.chunks(step) {
                tap.follow(piece);
            }
            let want = Seen {
                goaway: Some(GoAway { error_code: 11 }),
                goaways: 1,
                max_concurrent_streams: Some(128),
            };
            assert_eq!(tap.seen(), want, "pieces of {step}");
        }
    }
}
