//! Owns the shape of HTTP/2 frames on the wire (RFC 9113 §4.1), as far as this server writes or weighs them
//! itself. It does not own HPACK.

pub(super) const HEAD_LEN: usize = 9;
/// `PRI * HTTP/2.0…`, sent by the client before its first frame.
pub(super) const PREFACE_LEN: usize = 24;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// END_STREAM on DATA and HEADERS, ACK on SETTINGS and PING.
const FLAG_FIRST_BIT: u8 = 1;
const FLAG_END_HEADERS: u8 = 4;
pub(super) const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
pub(super) const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
const STREAM_BITS: u32 = (1 << 31) - 1;

/// A frame's first nine bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn parse(bytes: &[u8; HEAD_LEN]) -> Self {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = *bytes;
        Self {
            length: u32::from_be_bytes([0, l2, l1, l0]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s3, s2, s1, s0]) & STREAM_BITS,
        }
    }

    pub(super) fn ends_stream(self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & FLAG_FIRST_BIT != 0
    }

    pub(super) fn is_ack(self) -> bool {
        matches!(self.kind, SETTINGS | PING) && self.flags & FLAG_FIRST_BIT != 0
    }

    pub(super) fn ends_headers(self) -> bool {
        self.flags & FLAG_END_HEADERS != 0
    }
}

fn encode(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = Vec::with_capacity(HEAD_LEN + payload.len());
    frame.extend_from_slice(&length[1..]);
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// GOAWAY with this last stream id, error code and debug data.
pub(super) fn goaway(last_stream: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    let payload = [&last_stream.to_be_bytes()[..], &code.to_be_bytes()[..], debug].concat();
    encode(GOAWAY, 0, &payload)
}

/// One setting: its identifier and value (RFC 9113 §6.5.1).
pub(super) type Setting = (u16, u32);

/// The payload of SETTINGS.
pub(super) fn settings_payload(settings: &[Setting]) -> Vec<u8> {
    settings
        .iter()
        .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()))
        .collect()
}

/// SETTINGS with nothing but these.
pub(super) fn settings(settings: &[Setting]) -> Vec<u8> {
    encode(SETTINGS, 0, &settings_payload(settings))
}

/// Makes the frame whose head is at hand longer.
pub(super) fn lengthen(head: &mut [u8], by: usize) {
    if let [l2, l1, l0, ..] = head {
        let length = u32::from_be_bytes([0, *l2, *l1, *l0]) + u32::try_from(by).unwrap_or(0);
        [_, *l2, *l1, *l0] = length.to_be_bytes();
    }
}

/// WINDOW_UPDATE of the whole connection.
pub(super) fn connection_window(bytes: u32) -> Vec<u8> {
    encode(WINDOW_UPDATE, 0, &bytes.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_frame_reads_back() {
        let frame = goaway(7, 0, b"why");
        let head = Head::parse(frame[..HEAD_LEN].try_into().unwrap());
        assert_eq!((head.length, head.kind, head.stream), (11, GOAWAY, 0));
        assert_eq!(frame.len(), HEAD_LEN + 11);
        assert_eq!(&frame[HEAD_LEN..HEAD_LEN + 4], &[0, 0, 0, 7]);
    }

    #[test]
    fn a_lengthened_head_carries_into_the_higher_bytes() {
        let mut frame = settings(&[(3, 1)]);
        lengthen(&mut frame, 250);
        assert_eq!(Head::parse(frame[..HEAD_LEN].try_into().unwrap()).length, 256);
    }

    #[test]
    fn the_reserved_bit_of_the_stream_id_is_ignored() {
        let head = Head::parse(&[0, 1, 0, DATA, 1, 0x80, 0, 0, 3]);
        assert_eq!((head.length, head.stream, head.ends_stream()), (256, 3, true));
    }
}
