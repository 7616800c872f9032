//! Reads in large gulps below TLS, and holds no memory while nothing is read.
//!
//! rustls asks for 4 KiB at a time; the kernel often has more. One `recv` fetches what is there into a buffer that all
//! connections of a thread share; what rustls did not ask for yet is kept aside until it does. An idle connection keeps
//! nothing, and a burst leaves nothing behind (a buffer per connection would stay for as long as the connection).

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that one `recv` fetches.
const GULP: usize = 64 * 1024;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; GULP]);
}

/// A stream that is read in large gulps; writes pass straight through.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    stream: S,
    /// Read, but not asked for yet: from `taken` on.
    kept: Vec<u8>,
    taken: usize,
}

impl<S> ReadAhead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, kept: Vec::new(), taken: 0 }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Bytes that were read and not asked for yet.
    pub(crate) fn buffer(&self) -> &[u8] {
        &self.kept[self.taken..]
    }

    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let some = self.buffer().len().min(buf.remaining());
        buf.put_slice(&self.kept[self.taken..self.taken + some]);
        self.taken += some;
        if self.taken == self.kept.len() {
            (self.kept, self.taken) = (Vec::new(), 0);
        }
    }
}

impl<S: AsyncRead + Unpin> ReadAhead<S> {
    fn poll_gulp(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut [u8],
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut gulp = ReadBuf::new(shared);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut gulp))?;
        let (now, later) = gulp.filled().split_at(gulp.filled().len().min(buf.remaining()));
        buf.put_slice(now);
        self.kept.extend_from_slice(later);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.buffer().is_empty() {
            this.hand_out(buf);
            return Poll::Ready(Ok(()));
        }
        SHARED.with(|shared| match shared.try_borrow_mut() {
            Ok(mut shared) => this.poll_gulp(cx, &mut shared, buf),
            // A stream that reads from another one of its kind: as it would be without this layer.
            Err(_) => Pin::new(&mut this.stream).poll_read(cx, buf),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
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
    async fn every_byte_comes_once_and_in_order_whatever_is_asked_for() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let (near, mut far) = duplex(128 * 1024);
        let sent: Vec<u8> = (0..400_000u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            far.write_all(&copy).await.unwrap();
        });
        let mut stream = ReadAhead::new(near);
        let mut got = Vec::new();
        loop {
            let mut piece = vec![0; random.usize(1..10_000)];
            match stream.read(&mut piece).await.unwrap() {
                0 => break,
                n => got.extend_from_slice(&piece[..n]),
            }
        }
        writer.await.unwrap();
        assert!(got == sent, "seed {seed}");
        assert_eq!(stream.kept.capacity(), 0, "nothing stays behind");
    }

    #[tokio::test]
    async fn what_was_read_ahead_survives_and_is_seen() {
        let (near, mut far) = duplex(1024);
        far.write_all(b"0123456789").await.unwrap();
        let mut stream = ReadAhead::new(near);
        let mut three = [0; 3];
        stream.read_exact(&mut three).await.unwrap();
        assert_eq!((&three, stream.buffer()), (b"012", &b"3456789"[..]));
    }
}
