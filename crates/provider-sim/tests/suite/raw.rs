//! Owns an HTTP/2 client made of nothing but frames, for tests that look at the wire itself. It does not judge
//! what it reads.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::World;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// Last id, code and debug data of GOAWAY.
    pub(crate) fn goaway(&self) -> (u32, u32, &[u8]) {
        assert_eq!(self.kind, GOAWAY);
        (self.number(0), self.number(4), &self.payload[8..])
    }

    /// The code of RST_STREAM.
    pub(crate) fn code(&self) -> u32 {
        assert_eq!(self.kind, RST_STREAM);
        self.number(0)
    }

    /// The value of this setting, if the frame has it.
    pub(crate) fn setting(&self, name: u16) -> Option<u32> {
        assert_eq!(self.kind, SETTINGS);
        let found = self.payload.chunks(6).find(|pair| pair[..2] == name.to_be_bytes())?;
        Some(u32::from_be_bytes(found[2..].try_into().unwrap()))
    }
}

pub(crate) struct Raw {
    pub(crate) tls: TlsStream<TcpStream>,
}

impl Raw {
    /// Preface and empty SETTINGS sent.
    pub(crate) async fn connect(world: &World) -> Self {
        let mut raw = Self { tls: world.tls(world.config()).await.unwrap() };
        raw.tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        raw.send(SETTINGS, 0, 0, b"").await;
        raw
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_send(kind, flags, stream, payload).await.unwrap();
    }

    pub(crate) async fn try_send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.tls.write_all(&frame).await?;
        self.tls.flush().await
    }

    /// The header block of a POST whose body is still to come.
    pub(crate) async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        // POST, https and `/` of the static table, then literals.
        let mut block = vec![0x83, 0x87, 0x84, 0x01, 9];
        block.extend_from_slice(b"localhost");
        for (name, value) in headers {
            block.extend_from_slice(&[0, name.len() as u8]);
            block.extend_from_slice(name.as_bytes());
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
        }
        self.send(HEADERS, END_HEADERS, stream, &block).await;
    }

    /// The last DATA frame.
    pub(crate) async fn finish(&mut self, stream: u32, body: &[u8]) {
        self.send(DATA, END_STREAM, stream, body).await;
    }

    /// A whole request.
    pub(crate) async fn request(&mut self, stream: u32, headers: &[(&str, &str)]) {
        self.open(stream, headers).await;
        self.finish(stream, b"x").await;
    }

    /// The next frame; SETTINGS and PING are acknowledged. None at the end of the connection.
    pub(crate) async fn frame(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        let n = self.tls.read(&mut head).await?;
        if n == 0 {
            return Ok(None);
        }
        self.tls.read_exact(&mut head[n..]).await?;
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l2, l1, l0]) as usize];
        self.tls.read_exact(&mut payload).await?;
        let frame = Frame { kind, flags, stream: u32::from_be_bytes([s3, s2, s1, s0]), payload };
        if frame.flags & ACK == 0 {
            match kind {
                // At the end of a connection nobody waits for it.
                SETTINGS => drop(self.try_send(SETTINGS, ACK, 0, b"").await),
                PING => drop(self.try_send(PING, ACK, 0, &frame.payload).await),
                _ => {}
            }
        }
        Ok(Some(frame))
    }

    /// The next frame of this kind that is no acknowledgement.
    pub(crate) async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await.unwrap().expect("the connection goes on");
            let is_ack = matches!(kind, SETTINGS | PING) && frame.flags & ACK != 0;
            if frame.kind == kind && !is_ack {
                return frame;
            }
        }
    }

    /// Kinds of the frames about requests and their end, until the connection ends.
    pub(crate) async fn kinds(&mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Ok(Some(frame)) = self.frame().await {
            if matches!(frame.kind, DATA | HEADERS | RST_STREAM | GOAWAY) {
                kinds.push(frame.kind);
            }
        }
        kinds
    }

    /// The end of the connection as TLS shows it: clean, or with which error.
    pub(crate) async fn end(&mut self) -> Result<(), io::ErrorKind> {
        loop {
            match self.frame().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(error.kind()),
            }
        }
    }
}
