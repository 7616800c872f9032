//! A provider that writes its own HTTP/2 frames: what no well-behaved library lets a test do.
//!
//! Owns framing and nothing else; header blocks are neither read nor checked.

use crate::support::*;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
pub(crate) const END: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;

pub(crate) type Tls = tokio_rustls::server::TlsStream<TcpStream>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl RawFrame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self { kind, flags, stream, payload: payload.to_vec() }
    }

    pub(crate) fn settings(entries: &[(u16, u32)]) -> Self {
        let mut payload = Vec::new();
        for (id, value) in entries {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        Self::new(SETTINGS, 0, 0, &payload)
    }

    /// A whole response: `:status: 200`, no body.
    pub(crate) fn ok(stream: u32) -> Self {
        Self::new(HEADERS, END | END_HEADERS, stream, &[0x88])
    }

    /// The header of a response whose body follows.
    pub(crate) fn header(stream: u32) -> Self {
        Self::new(HEADERS, END_HEADERS, stream, &[0x88])
    }

    pub(crate) fn window(stream: u32, increment: u32) -> Self {
        Self::new(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
    }

    pub(crate) fn is_ack(&self) -> bool {
        matches!(self.kind, SETTINGS | PING) && self.flags & END != 0
    }

    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, HEADERS | DATA) && self.flags & END != 0
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([self.kind, self.flags]);
        out.extend(self.stream.to_be_bytes());
        out.extend(&self.payload);
        out
    }
}

/// The provider's end of one connection.
pub(crate) struct Peer<S = Tls> {
    stream: S,
    /// The beginning of the next frame.
    begun: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Reads the preface and announces these settings.
    pub(crate) async fn greet(mut stream: S, entries: &[(u16, u32)]) -> io::Result<Self> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await?;
        let mut peer = Self { stream, begun: Vec::new() };
        peer.write(&[RawFrame::settings(entries)]).await?;
        Ok(peer)
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    /// Writes these frames at once.
    pub(crate) async fn write(&mut self, frames: &[RawFrame]) -> io::Result<()> {
        let bytes: Vec<u8> = frames.iter().flat_map(RawFrame::encode).collect();
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await
    }

    /// The next frame. May be dropped and called again.
    pub(crate) async fn read(&mut self) -> io::Result<RawFrame> {
        loop {
            if let Some((&[a, b, c, kind, flags, i, j, k, l], payload)) = self.begun.split_first_chunk::<9>()
            {
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if payload.len() >= length {
                    let stream = u32::from_be_bytes([i, j, k, l]);
                    let frame = RawFrame::new(kind, flags, stream, &payload[..length]);
                    self.begun.drain(..9 + length);
                    return Ok(frame);
                }
            }
            if self.stream.read_buf(&mut self.begun).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next frame that is about a stream, or an acknowledgement of settings: acknowledges settings and PINGs.
    pub(crate) async fn next(&mut self) -> io::Result<RawFrame> {
        loop {
            let frame = self.read().await?;
            match frame.kind {
                SETTINGS if !frame.is_ack() => self.write(&[RawFrame::new(SETTINGS, END, 0, &[])]).await?,
                PING if !frame.is_ack() => {
                    self.write(&[RawFrame::new(PING, END, 0, &frame.payload)]).await?;
                }
                _ => return Ok(frame),
            }
        }
    }
}
