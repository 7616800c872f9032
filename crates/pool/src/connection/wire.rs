//! The byte stream under h2: gathers writes, watches reads, and keeps the reason when TLS ends it.
//!
//! h2 flushes after every DATA frame of 256 bytes or more, so each request would cost a TLS record and a system
//! call. [`Wire`] turns that flush into a no-op; the driver calls [`WireHandle::poll_drain`] once after each poll
//! of the connection, so the frames of all requests of that turn share records and writes.
//!
//! h2 also reduces I/O errors to their text. The handle keeps the [`TlsFault`] behind a failed read. After a failed
//! write the stream goes on being read: the alert that says why, or the GOAWAY that says which requests were not
//! processed, usually waits there.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tls_core::TlsFault;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tap::{FrameTap, Seen};

/// Writes are passed on at the latest when this many bytes are gathered: four full TLS records.
const GATHER_LIMIT: usize = 64 * 1024;
/// A write buffer that grew beyond this is given back once it is empty, so that a burst does not pin memory.
const KEEP_CAPACITY: usize = 16 * 1024;

/// The half that h2 owns.
pub(crate) struct Wire<S>(Arc<Mutex<Inner<S>>>);

/// The half that the driver owns. Both are polled from the driver's task only, so the lock is never contended.
pub(crate) struct WireHandle<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    gathered: BytesMut,
    tap: FrameTap,
    fault: Option<TlsFault>,
    /// The transport takes no more; what h2 still writes is let go, and only reading goes on.
    deaf: bool,
}

/// Wraps a stream; h2 gets the first half, the driver keeps the second.
pub(crate) fn wire<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (Wire<S>, WireHandle<S>) {
    let inner = Arc::new(Mutex::new(Inner {
        stream,
        gathered: BytesMut::new(),
        tap: FrameTap::default(),
        fault: None,
        deaf: false,
    }));
    (Wire(inner.clone()), WireHandle(inner))
}

impl<S: AsyncRead + AsyncWrite + Unpin> WireHandle<S> {
    /// Writes out what was gathered and flushes. Pending registers the driver's task with the transport.
    ///
    /// # Errors
    /// None to the caller: a failed write makes the wire deaf, and the read side tells how it ended.
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().poll_drain(cx)
    }

    /// The transport refused a write: whatever was not sent yet never will be.
    pub(crate) fn is_deaf(&self) -> bool {
        self.0.lock().deaf
    }

    /// What the provider's frames said.
    pub(crate) fn seen(&self) -> Seen {
        self.0.lock().tap.seen()
    }

    /// The TLS reason for the end of the stream, if there was one.
    pub(crate) fn fault(&self) -> Option<TlsFault> {
        self.0.lock().fault.clone()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_write_out(cx));
        if !self.deaf && ready!(Pin::new(&mut self.stream).poll_flush(cx)).is_err() {
            self.go_deaf();
        }
        Poll::Ready(())
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.gathered.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered)) {
                Ok(n) if n > 0 => self.gathered.advance(n),
                _ => self.go_deaf(),
            }
        }
        if self.gathered.capacity() > KEEP_CAPACITY {
            self.gathered = BytesMut::new();
        }
        Poll::Ready(())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.gathered.len() >= GATHER_LIMIT { self.poll_write_out(cx) } else { Poll::Ready(()) }
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

/// The TLS fault inside an I/O error, if it carries one.
pub(crate) fn fault_of(error: &io::Error) -> Option<TlsFault> {
    error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).map(TlsFault::from_rustls)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut inner.stream).poll_read(cx, buf));
        match &result {
            Ok(()) => {
                let new = &buf.filled()[before..];
                inner.tap.follow(new);
            }
            Err(e) => inner.fault = inner.fault.take().or_else(|| fault_of(e)),
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
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
        let (mut wire, handle) = wire(near);
        wire.write_all(b"one ").await.unwrap();
        wire.flush().await.unwrap();
        wire.write_all(b"two").await.unwrap();
        let mut buf = [0u8; 16];
        let early = std::future::poll_fn(|cx| {
            let mut read = ReadBuf::new(&mut buf);
            Poll::Ready(Pin::new(&mut far).poll_read(cx, &mut read).is_pending())
        })
        .await;
        assert!(early, "nothing may be written before the drain");
        std::future::poll_fn(|cx| handle.poll_drain(cx)).await;
        let n = far.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..n], b"one two");
    }

    #[tokio::test]
    async fn a_gathered_burst_is_bounded_and_its_buffer_given_back() {
        let (near, mut far) = duplex(16 * 1024);
        let (mut wire, handle) = wire(near);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        for _ in 0..64 {
            wire.write_all(&[7; 8 * 1024]).await.unwrap();
            assert!(handle.0.lock().gathered.len() <= GATHER_LIMIT + 8 * 1024);
        }
        wire.shutdown().await.unwrap();
        assert!(handle.0.lock().gathered.capacity() <= KEEP_CAPACITY);
        assert_eq!(reader.await.unwrap(), 64 * 8 * 1024);
    }
}
