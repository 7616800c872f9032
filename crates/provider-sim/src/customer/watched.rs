//! Owns a TLS stream that remembers the alert it died of: HTTP libraries keep only the text of such an error, or
//! see the failed write and never the alert behind it. It does not own what the alert means.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The alert, once it has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Option<AlertDescription>>>);

impl Seen {
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        *self.0.lock()
    }
}

#[derive(Debug)]
pub(super) struct Watched {
    tls: TlsStream<TcpStream>,
    seen: Seen,
}

impl Watched {
    pub(super) fn new(tls: TlsStream<TcpStream>) -> (Self, Seen) {
        let seen = Seen::default();
        (Self { tls, seen: seen.clone() }, seen)
    }

    fn note(&self, error: &io::Error) {
        if let Some(alert) = alert_of(error) {
            self.seen.0.lock().get_or_insert(alert);
        }
    }

    /// A write failed because the other side is gone: its reason may lie unread.
    fn look_for_reason(&mut self, cx: &mut Context<'_>) {
        let mut scratch = [0; 1];
        if let Poll::Ready(Err(error)) =
            Pin::new(&mut self.tls).poll_read(cx, &mut ReadBuf::new(&mut scratch))
        {
            self.note(&error);
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.note(error);
            self.look_for_reason(cx);
        }
        result
    }
}

/// The alert that this error carries, if it does.
pub(super) fn alert_of(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.tls).poll_read(cx, buf));
        Poll::Ready(result.inspect_err(|error| self.note(error)))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tls).poll_write(cx, bytes);
        self.written(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.tls).poll_flush(cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
