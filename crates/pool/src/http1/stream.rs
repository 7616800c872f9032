//! The byte stream under HTTP/1.1: a write that fails does not end the reading.
//!
//! A provider may answer early and close while the request's body is still being sent (RFC 9112 §9.6). The write then
//! fails although the response waits to be read; hyper would report the write. Here the rest of what is written is
//! let go, and the read side tells how the exchange ended.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that goes on being read after its write side broke.
#[derive(Debug)]
pub(super) struct Listening<S> {
    stream: S,
    deaf: bool,
}

impl<S> Listening<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, deaf: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.deaf {
            match ready!(Pin::new(&mut this.stream).poll_write(cx, data)) {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(_) => this.deaf = true,
            }
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.deaf && ready!(Pin::new(&mut this.stream).poll_flush(cx)).is_err() {
            this.deaf = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn an_answer_is_read_although_the_write_side_broke() {
        let (near, mut far) = duplex(64);
        far.write_all(b"HTTP/1.1 413 Content Too Large\r\n").await.unwrap();
        drop(far);
        let mut stream = Listening::new(near);
        stream.write_all(&[0; 4096]).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"));
    }
}
