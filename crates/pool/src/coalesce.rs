//! Gathers small writes into one: the stream under an HTTP/2 connection whose driver decides when to write.
//!
//! h2 flushes after every DATA frame of 256 bytes or more, so each request would cost a write (and a TLS record)
//! of its own. [`Coalesced`] turns that flush into a no-op; whoever drives the connection calls
//! [`Drain::poll_drain`] once after each poll, so the frames of all requests of that turn leave together.
//! Owns the gathered bytes and nothing else; reads pass straight through.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes are passed on at the latest when this many bytes are gathered: four full TLS records.
const GATHER_LIMIT: usize = 64 * 1024;
/// A buffer that grew beyond this is given back once it is empty, so that a burst does not pin memory.
const KEEP_CAPACITY: usize = 16 * 1024;

/// The half that the HTTP/2 connection owns.
#[derive(Debug)]
pub struct Coalesced<S>(Arc<Mutex<Inner<S>>>);

/// The half that the driver keeps. Both are polled from one task, so the lock is never contended.
#[derive(Debug)]
pub struct Drain<S>(Arc<Mutex<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    gathered: BytesMut,
    /// Something was written that may still wait inside the transport (TLS keeps records the socket had no room for).
    unflushed: bool,
    /// A write found no room, and none has been made since.
    blocked: bool,
    /// The transport takes no more; what is still written is let go, and only reading goes on: an alert or a
    /// GOAWAY that says why usually waits there.
    deaf: bool,
}

/// Splits a stream into the half for the connection and the half for its driver.
pub fn coalesce<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (Coalesced<S>, Drain<S>) {
    let inner = Arc::new(Mutex::new(Inner {
        stream,
        gathered: BytesMut::new(),
        unflushed: false,
        blocked: false,
        deaf: false,
    }));
    (Coalesced(inner.clone()), Drain(inner))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drain<S> {
    /// Writes out what was gathered and flushes. Pending registers the driver's task with the transport.
    /// A failed write makes the stream deaf; the read side tells how it ended.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().poll_drain(cx)
    }

    /// It keeps a buffer that a burst made grow.
    #[must_use]
    pub fn is_swollen(&self) -> bool {
        self.0.lock().gathered.capacity() > KEEP_CAPACITY
    }

    /// Nothing is to be written for a while: gives a buffer back that a burst made grow.
    pub fn rest(&self) {
        let inner = &mut *self.0.lock();
        if inner.gathered.is_empty() && inner.gathered.capacity() > KEEP_CAPACITY {
            inner.gathered = BytesMut::new();
        }
    }

    /// The last write found no room: whoever writes may have kept something.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.0.lock().blocked
    }

    /// The transport refused a write: whatever was not sent yet never will be.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.0.lock().deaf
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_write_out(cx));
        if self.unflushed && !self.deaf {
            if ready!(Pin::new(&mut self.stream).poll_flush(cx)).is_err() {
                self.go_deaf();
            }
            self.unflushed = false;
        }
        Poll::Ready(())
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.gathered.is_empty() {
            return Poll::Ready(());
        }
        self.unflushed = true;
        let burst = self.gathered.len() > KEEP_CAPACITY;
        while !self.gathered.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered)) {
                Ok(n) if n > 0 => self.gathered.advance(n),
                _ => self.go_deaf(),
            }
        }
        // What was written still counts as taken until it is reclaimed; nothing is moved by that, for it is empty.
        let _ = self.gathered.try_reclaim(KEEP_CAPACITY + 1);
        // Under load the room is needed again in the next turn; after it, the next small write gives it back.
        if !burst && self.gathered.capacity() > KEEP_CAPACITY {
            self.gathered = BytesMut::new();
        }
        Poll::Ready(())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let room =
            if self.gathered.len() >= GATHER_LIMIT { self.poll_write_out(cx) } else { Poll::Ready(()) };
        self.blocked = room.is_pending();
        room
    }

    fn gather(&mut self, data: &[u8]) {
        if !self.deaf {
            self.gathered.extend_from_slice(data);
        }
    }

    fn go_deaf(&mut self) {
        self.deaf = true;
        self.gathered = BytesMut::new();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.lock();
        ready!(inner.poll_room(cx));
        inner.gather(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.lock();
        ready!(inner.poll_room(cx));
        let mut taken = 0;
        for slice in slices {
            inner.gather(slice);
            taken += slice.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A no-op on purpose: the driver drains once per turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        ready!(inner.poll_drain(cx));
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn writes_stay_gathered_until_the_driver_drains() {
        let (near, mut far) = duplex(1024);
        let (mut stream, drain) = coalesce(near);
        stream.write_all(b"one ").await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"two").await.unwrap();
        let mut buf = [0u8; 16];
        let early = std::future::poll_fn(|cx| {
            let mut read = ReadBuf::new(&mut buf);
            Poll::Ready(Pin::new(&mut far).poll_read(cx, &mut read).is_pending())
        })
        .await;
        assert!(early, "nothing may be written before the drain");
        std::future::poll_fn(|cx| drain.poll_drain(cx)).await;
        let n = far.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..n], b"one two");
    }

    #[tokio::test]
    async fn a_rest_gives_back_what_a_burst_made_grow_but_loses_no_byte() {
        let (near, mut far) = duplex(256 * 1024);
        let (mut stream, drain) = coalesce(near);
        stream.write_all(&[7; 40 * 1024]).await.unwrap();
        assert!(drain.is_swollen());
        drain.rest();
        std::future::poll_fn(|cx| drain.poll_drain(cx)).await;
        assert!(drain.is_swollen(), "the room may be needed in the next turn");
        drain.rest();
        assert!(!drain.is_swollen());
        let mut all = vec![0; 40 * 1024];
        far.read_exact(&mut all).await.unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
    }

    #[tokio::test]
    async fn a_gathered_burst_is_bounded_and_its_buffer_given_back() {
        let (near, mut far) = duplex(16 * 1024);
        let (mut stream, drain) = coalesce(near);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        for _ in 0..64 {
            stream.write_all(&[7; 8 * 1024]).await.unwrap();
            assert!(drain.0.lock().gathered.len() <= GATHER_LIMIT + 8 * 1024);
        }
        std::future::poll_fn(|cx| drain.poll_drain(cx)).await;
        stream.write_all(&[7]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(drain.0.lock().gathered.capacity() <= KEEP_CAPACITY);
        assert_eq!(reader.await.unwrap(), 64 * 8 * 1024 + 1);
    }

    /// Takes every write at once but flushes only on the second call, as TLS over a full socket does.
    struct SlowFlush {
        flushes: u32,
    }

    impl AsyncRead for SlowFlush {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for SlowFlush {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(data.len()))
        }
        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes == 1 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_flush_that_had_no_room_is_taken_up_again() {
        let (mut stream, drain) = coalesce(SlowFlush { flushes: 0 });
        stream.write_all(b"the end of a body").await.unwrap();
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            if drain.poll_drain(cx).is_pending() && polls < 3 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!((polls, drain.0.lock().stream.flushes), (2, 2));
    }

    #[tokio::test]
    async fn after_a_failed_write_reading_goes_on() {
        let (near, far) = duplex(1024);
        let (mut stream, drain) = coalesce(near);
        drop(far);
        stream.write_all(b"lost").await.unwrap();
        std::future::poll_fn(|cx| drain.poll_drain(cx)).await;
        assert!(drain.is_deaf());
        stream.write_all(b"let go").await.unwrap();
        assert_eq!(stream.read(&mut [0u8; 8]).await.unwrap(), 0);
    }
}
