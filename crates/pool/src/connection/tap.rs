//! Reads frame headers off the decrypted inbound bytes: what h2 sees but does not show.
//!
//! h2's client hides that a GOAWAY arrived (its connection future ends only when the last stream does), which SETTINGS
//! the provider sent, and whether it acknowledged ours. The tap follows the stream of frames by their nine-byte headers
//! (RFC 9113 §4.1) and remembers just that, in a fixed amount of memory. It changes nothing and checks nothing: judging the protocol is h2's work.

use serde::Serialize;

/// What the tap has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The last GOAWAY received.
    pub(crate) goaway: Option<GoAway>,
    /// GOAWAY frames received.
    pub(crate) goaways: u32,
    /// The values last announced by SETTINGS.
    pub(crate) settings: Announced,
    /// SETTINGS frames received, acknowledgements aside.
    pub(crate) settings_frames: u32,
    /// Acknowledgements of our own SETTINGS. The provider sends one only after it read our preface, which follows
    /// our certificate (RFC 9113 §6.5.3).
    pub(crate) settings_acks: u32,
    /// PING frames of the provider, its answers to ours aside.
    pub(crate) pings: u32,
    /// Answers to our PINGs.
    pub(crate) pongs: u32,
    /// DATA frames without a byte that end nothing.
    pub(crate) empty_data: u32,
}

/// The SETTINGS that a provider announced (RFC 9113 §6.5.2); `None` where it named none and the default holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Announced {
    /// SETTINGS_HEADER_TABLE_SIZE, bytes. Default 4096.
    pub header_table_size: Option<u32>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS. Default: no limit.
    pub max_concurrent_streams: Option<u32>,
    /// SETTINGS_INITIAL_WINDOW_SIZE, bytes. Default 65 535.
    pub initial_window_size: Option<u32>,
    /// SETTINGS_MAX_FRAME_SIZE, bytes. Default 16 384.
    pub max_frame_size: Option<u32>,
    /// SETTINGS_MAX_HEADER_LIST_SIZE, bytes. Default: no limit.
    pub max_header_list_size: Option<u32>,
    /// The first few settings with other identifiers, in the order of their arrival.
    pub others: [Option<Setting>; OTHERS],
}

/// One setting: its identifier and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its identifier, of IANA's registry "HTTP/2 Settings".
    pub id: u16,
    /// Its value.
    pub value: u32,
}

/// A GOAWAY frame (RFC 9113 §6.8).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GoAway {
    /// The highest stream of ours that may have been processed.
    pub(crate) last_stream_id: u32,
    /// The error code.
    pub(crate) error_code: u32,
    debug: [u8; DEBUG_DATA],
    debug_len: u8,
}

impl GoAway {
    /// The first bytes of its debug data, as they came: they may hold anything, printable or not.
    pub(crate) fn debug_data(&self) -> &[u8] {
        &self.debug[..usize::from(self.debug_len)]
    }
}

impl std::fmt::Debug for GoAway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GoAway")
            .field("last_stream_id", &self.last_stream_id)
            .field("error_code", &self.error_code)
            .field("debug_data", &format_args!("{}", self.debug_data().escape_ascii()))
            .finish()
    }
}

/// Incremental reader of frame headers.
#[derive(Debug, Default)]
pub(crate) struct FrameTap {
    header: [u8; HEADER],
    filled: usize,
    kind: Kind,
    remaining: usize,
    payload: [u8; KEPT],
    kept: usize,
    seen: Seen,
}

/// The frame whose payload is passing by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Settings,
    /// Its fixed part.
    GoAway,
    /// What follows that.
    DebugData,
    /// The length of the padding of a DATA frame that ends nothing.
    Padding,
    #[default]
    Other,
}

/// Length of a frame header.
const HEADER: usize = 9;
/// Bytes kept of an interesting frame: all of GOAWAY's fixed part, or one SETTINGS entry.
const KEPT: usize = 8;
const DATA: u8 = 0x0;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
/// Flag of SETTINGS and PING.
const ACK: u8 = 0x1;
/// Flag of DATA: the first byte of the payload is the length of the padding at its end (RFC 9113 §6.1).
const PADDED: u8 = 0x8;
const SETTINGS_ENTRY: usize = 6;
/// Bytes of debug data kept.
const DEBUG_DATA: usize = 32;
/// Settings kept that have no field of their own.
const OTHERS: usize = 4;

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
                if self.kind != Kind::Other {
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
        let [a, b, c, kind, flags, ..] = self.header;
        self.remaining = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.kept = 0;
        let is_ack = flags & ACK != 0;
        self.kind = match kind {
            SETTINGS if !is_ack => Kind::Settings,
            GOAWAY => Kind::GoAway,
            // The flag has the same place as END_STREAM.
            DATA if flags & PADDED != 0 && !is_ack => Kind::Padding,
            _ => Kind::Other,
        };
        let counter = match (kind, is_ack) {
            (SETTINGS, true) => Some(&mut self.seen.settings_acks),
            (SETTINGS, false) => Some(&mut self.seen.settings_frames),
            (PING, true) => Some(&mut self.seen.pongs),
            (PING, false) => Some(&mut self.seen.pings),
            // The flag has the same place as END_STREAM.
            (DATA, false) if self.remaining == 0 && flags & PADDED == 0 => Some(&mut self.seen.empty_data),
            _ => None,
        };
        if let Some(counter) = counter {
            *counter = counter.saturating_add(1);
        }
        if self.remaining == 0 {
            self.filled = 0;
        }
    }

    fn keep(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let unit = match self.kind {
                Kind::Padding => return self.note_padding(bytes[0]),
                Kind::Settings => SETTINGS_ENTRY,
                Kind::GoAway => KEPT,
                Kind::DebugData => return self.keep_debug_data(bytes),
                Kind::Other => return,
            };
            let take = bytes.len().min(unit - self.kept);
            self.payload[self.kept..self.kept + take].copy_from_slice(&bytes[..take]);
            self.kept += take;
            bytes = &bytes[take..];
            if self.kept == unit {
                self.kept = 0;
                self.note();
            }
        }
    }

    /// All of the frame's payload but this byte is padding: nothing of it is left, and h2 counts that as empty.
    fn note_padding(&mut self, padding: u8) {
        if self.remaining == 1 + usize::from(padding) {
            self.seen.empty_data = self.seen.empty_data.saturating_add(1);
        }
        self.kind = Kind::Other;
    }

    fn note(&mut self) {
        let [a, b, c, d, e, f, g, h] = self.payload;
        if self.kind == Kind::GoAway {
            // The first bit is reserved.
            let last_stream_id = u32::from_be_bytes([a & 0x7f, b, c, d]);
            let error_code = u32::from_be_bytes([e, f, g, h]);
            self.seen.goaway = Some(GoAway { last_stream_id, error_code, ..GoAway::default() });
            self.seen.goaways = self.seen.goaways.saturating_add(1);
            self.kind = Kind::DebugData;
        } else {
            let setting = Setting { id: u16::from_be_bytes([a, b]), value: u32::from_be_bytes([c, d, e, f]) };
            self.seen.settings.set(setting);
        }
    }

    fn keep_debug_data(&mut self, bytes: &[u8]) {
        let Some(goaway) = &mut self.seen.goaway else { return };
        let at = usize::from(goaway.debug_len);
        let take = bytes.len().min(DEBUG_DATA - at);
        goaway.debug[at..at + take].copy_from_slice(&bytes[..take]);
        goaway.debug_len += take as u8;
    }
}

impl Announced {
    fn set(&mut self, setting: Setting) {
        let Setting { id, value } = setting;
        match id {
            0x1 => self.header_table_size = Some(value),
            0x3 => self.max_concurrent_streams = Some(value),
            0x4 => self.initial_window_size = Some(value),
            0x5 => self.max_frame_size = Some(value),
            0x6 => self.max_header_list_size = Some(value),
            _ => {
                let place = self.others.iter_mut().find(|o| o.is_none_or(|known| known.id == id));
                if let Some(place) = place {
                    *place = Some(setting);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u32;
        let mut out = len.to_be_bytes()[1..].to_vec();
        out.extend([kind, flags, 0, 0, 0, 0]);
        out.extend(payload);
        out
    }

    fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
        let bytes = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        frame(SETTINGS, 0, &entries.iter().flat_map(bytes).collect::<Vec<_>>())
    }

    fn goaway(last_stream_id: u32, error_code: u32, debug: &[u8]) -> Vec<u8> {
        let fixed = [last_stream_id.to_be_bytes(), error_code.to_be_bytes()].concat();
        frame(GOAWAY, 0, &[&fixed, debug].concat())
    }

    fn follow(bytes: &[u8]) -> Seen {
        let mut tap = FrameTap::default();
        tap.follow(bytes);
        tap.seen()
    }

    fn stream() -> Vec<u8> {
        let mut bytes = settings(&[(1, 8192), (4, 1 << 20), (3, 128), (5, 32_768), (6, 16_384), (8, 1)]);
        bytes.extend(frame(SETTINGS, ACK, &[]));
        bytes.extend(frame(PING, ACK, &[7; 8]));
        bytes.extend(frame(PING, 0, &[8; 8]));
        bytes.extend(frame(0, ACK, &[GOAWAY; 300]));
        bytes.extend(goaway(0x8000_0005, 11, b"too many things"));
        bytes.extend(frame(1, 4, &[7; 20]));
        bytes
    }

    #[test]
    fn sees_settings_pings_and_goaway_wherever_the_bytes_are_cut() {
        let bytes = stream();
        for step in 1..bytes.len() {
            let mut tap = FrameTap::default();
            for piece in bytes.chunks(step) {
                tap.follow(piece);
            }
            let seen = tap.seen();
            let goaway = seen.goaway.unwrap();
            assert_eq!((goaway.last_stream_id, goaway.error_code), (5, 11), "pieces of {step}");
            assert_eq!(goaway.debug_data(), b"too many things", "pieces of {step}");
            assert_eq!(
                (seen.goaways, seen.settings_frames, seen.settings_acks),
                (1, 1, 1),
                "pieces of {step}"
            );
            assert_eq!((seen.pings, seen.pongs), (1, 1), "pieces of {step}");
            let want = Announced {
                header_table_size: Some(8192),
                max_concurrent_streams: Some(128),
                initial_window_size: Some(1 << 20),
                max_frame_size: Some(32_768),
                max_header_list_size: Some(16_384),
                others: [Some(Setting { id: 8, value: 1 }), None, None, None],
            };
            assert_eq!(seen.settings, want, "pieces of {step}");
        }
    }

    #[test]
    fn a_later_settings_frame_changes_only_what_it_names() {
        let seen = follow(&[settings(&[(3, 500), (4, 1000)]), settings(&[(3, 100)])].concat());
        assert_eq!(seen.settings.max_concurrent_streams, Some(100));
        assert_eq!(seen.settings.initial_window_size, Some(1000));
        assert_eq!((seen.settings_frames, seen.settings_acks), (2, 0));
    }

    #[test]
    fn the_second_goaway_of_two_replaces_the_first_and_its_debug_data() {
        let seen = follow(&[goaway(0x7fff_ffff, 0, b"soon"), goaway(41, 0, b"")].concat());
        let last = seen.goaway.unwrap();
        assert_eq!((seen.goaways, last.last_stream_id, last.debug_data()), (2, 41, &b""[..]));
    }

    #[test]
    fn data_frames_of_nothing_but_padding_are_empty_unless_they_end_the_stream() {
        const END_STREAM: u8 = 0x1;
        let padded = |padding: u8, content: &[u8]| {
            let zeros = vec![0; usize::from(padding)];
            [&[padding][..], content, &zeros].concat()
        };
        let frames = [
            frame(DATA, 0, b""),
            frame(DATA, PADDED, &padded(0, b"")),
            frame(DATA, PADDED, &padded(9, b"")),
            frame(DATA, END_STREAM, b""),
            frame(DATA, PADDED | END_STREAM, &padded(9, b"")),
            frame(DATA, PADDED, &padded(9, b"x")),
            frame(DATA, 0, b"x"),
        ];
        let bytes = frames.concat();
        for step in [1, 2, 7, bytes.len()] {
            let mut tap = FrameTap::default();
            bytes.chunks(step).for_each(|piece| tap.follow(piece));
            assert_eq!(tap.seen().empty_data, 3, "pieces of {step}");
        }
    }

    #[test]
    fn of_long_debug_data_and_of_many_unknown_settings_a_bounded_part_is_kept() {
        let many: Vec<_> = (100..200).map(|id| (id, u32::from(id))).collect();
        let seen = follow(&[settings(&many), goaway(1, 2, &[b'x'; 4000]), frame(PING, 0, &[0; 8])].concat());
        assert_eq!(seen.goaway.unwrap().debug_data(), [b'x'; DEBUG_DATA]);
        assert_eq!(seen.settings.others.map(|other| other.unwrap().id), [100, 101, 102, 103]);
        assert_eq!(seen.pings, 1, "the frame after it is read as one");
    }
}
