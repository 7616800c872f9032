//! Owns the knowledge whether everything written to a connection has left it. It does not own what is written.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::Tls;

/// TLS whose flushes can be waited for.
pub(super) struct Watched {
    tls: Tls,
    unflushed: Arc<watch::Sender<bool>>,
}

/// Waits for a [`Watched`].
pub(super) struct Flushed(Arc<watch::Sender<bool>>);

impl Watched {
    pub(super) fn new(tls: Tls) -> (Self, Flushed) {
        let unflushed = Arc::new(watch::Sender::new(false));
        (Self { tls, unflushed: unflushed.clone() }, Flushed(unflushed))
    }

    fn mark(&self, now: bool) {
        self.unflushed.send_if_modified(|unflushed| std::mem::replace(unflushed, now) != now);
    }
}

impl Flushed {
    /// Ready when nothing waits to leave.
    pub(super) async fn wait(&self) {
        // The sender is at hand, so that this cannot fail.
        let _ = self.0.subscribe().wait_for(|unflushed| !unflushed).await;
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.mark(true);
        Pin::new(&mut self.tls).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.mark(true);
        Pin::new(&mut self.tls).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
        self.mark(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
