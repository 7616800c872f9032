//! Gathers small writes into one: the stream under an HTTP/2 connection whose driver decides when to write.
//!
//! h2 flushes after every DATA frame of 256 bytes or more, so each request would cost a write (and a TLS record)
//! of its own. [`Coalesced`] turns that flush into a no-op; whoever drives the connection calls
//! [`Drain::poll_drain`] once after each poll, so the frames of all requests of that turn leave together.
//! Owns the gathered bytes and nothing else; reads pass straight through.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes are passed on at the latest when this many bytes are gathered: four full TLS records.
const GATHER_LIMIT: usize = 64 * 1024;
/// Largest buffer that a thread keeps for its next connection: a full turn, and the write that went beyond it.
const KEEP_CAPACITY: usize = 2 * GATHER_LIMIT;

thread_local! {
    /// The buffer that the last connection of this thread emptied. Connections gather and write within one turn, so one
    /// serves them all: none keeps any memory while it rests, none lets a buffer grow anew in each turn.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The half that the HTTP/2 connection owns.
#[derive(Debug)]
pub struct Coalesced<S>(Arc<Mutex<Inner<S>>>);

/// The half that the driver keeps. Both are polled from one task, so the lock is never contended.
#[derive(Debug)]
pub struct Drain<S>(Arc<Mutex<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    gathered: Gathered,
    /// Something was written that may still wait inside the transport (TLS keeps records the socket had no room for).
    unflushed: bool,
    /// A write found no room, and none has been made since.
    blocked: bool,
    /// The transport takes no more; what is still written is let go, and only reading goes on: an alert or a
    /// GOAWAY that says why usually waits there.
    deaf: bool,
}

/// Bytes on their way out, in a buffer that goes back to the thread when it is empty.
#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// So many of them were written.
    written: usize,
}

impl Gathered {
    fn left(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    fn is_empty(&self) -> bool {
        self.left().is_empty()
    }

    fn add(&mut self, data: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
        }
        self.bytes.extend_from_slice(data);
    }

    fn note_written(&mut self, bytes: usize) {
        self.written += bytes;
        if self.is_empty() {
            self.rest();
        }
    }

    /// Lets go of everything; the buffer is the thread's.
    fn rest(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.written = 0;
        bytes.clear();
        if bytes.capacity() <= KEEP_CAPACITY {
            SPARE.replace(bytes);
        }
    }
}

/// Splits a stream into the half for the connection and the half for its driver.
pub fn coalesce<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (Coalesced<S>, Drain<S>) {
    let inner = Arc::new(Mutex::new(Inner {
        stream,
        gathered: Gathered::default(),
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
        while !self.gathered.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, self.gathered.left())) {
                Ok(n) if n > 0 => self.gathered.note_written(n),
                _ => self.go_deaf(),
            }
        }
        Poll::Ready(())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let room = if self.gathered.left().len() >= GATHER_LIMIT {
            self.poll_write_out(cx)
        } else {
            Poll::Ready(())
        };
        self.blocked = room.is_pending();
        room
    }

    fn gather(&mut self, data: &[u8]) {
        if !self.deaf {
            self.gathered.add(data);
        }
    }

    fn go_deaf(&mut self) {
        self.deaf = true;
        self.gathered.rest();
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
    async fn connections_of_a_thread_share_one_buffer_and_keep_none_at_rest() {
        let (first, mut far_first) = duplex(256 * 1024);
        let (second, mut far_second) = duplex(256 * 1024);
        let ((mut first, drain_first), (mut second, drain_second)) = (coalesce(first), coalesce(second));
        let buffer = |drain: &Drain<_>| drain.0.lock().gathered.bytes.as_ptr();
        first.write_all(&[7; 40 * 1024]).await.unwrap();
        let grown = buffer(&drain_first);
        // Both have something to write at once: the second has to make its own.
        second.write_all(&[8; 1024]).await.unwrap();
        std::future::poll_fn(|cx| drain_second.poll_drain(cx)).await;
        std::future::poll_fn(|cx| drain_first.poll_drain(cx)).await;
        for drain in [&drain_first, &drain_second] {
            assert_eq!(drain.0.lock().gathered.bytes.capacity(), 0);
        }
        second.write_all(&[8; 1024]).await.unwrap();
        assert_eq!(buffer(&drain_second), grown, "the buffer that was emptied last is used again");
        std::future::poll_fn(|cx| drain_second.poll_drain(cx)).await;
        let mut all = vec![0; 40 * 1024];
        far_first.read_exact(&mut all).await.unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
        far_second.read_exact(&mut all[..2048]).await.unwrap();
        assert!(all[..2048].iter().all(|byte| *byte == 8));
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
            assert!(drain.0.lock().gathered.left().len() <= GATHER_LIMIT + 8 * 1024);
        }
        std::future::poll_fn(|cx| drain.poll_drain(cx)).await;
        stream.write_all(&[7]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(drain.0.lock().gathered.bytes.capacity(), 0);
        assert!(SPARE.with_borrow(|spare| spare.is_empty() && spare.capacity() <= KEEP_CAPACITY));
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
