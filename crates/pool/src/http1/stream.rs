//! The byte stream under HTTP/1.1: a write that fails does not end the reading, and what passed is counted.
//!
//! A provider may answer early and close while the request's body is still being sent (RFC 9112 §9.6). The write then
//! fails although the response waits to be read; hyper would report the write. Here the rest of what is written is
//! let go, and the read side tells how the exchange ended. The counts tell whether a request can have reached the
//! provider, and [`Probe`] looks at the socket itself before a connection is used again.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tls_core::TlsFault;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{connection::fault_of, dial::RECORD, passport::Counted};

/// The half that hyper owns: a stream that goes on being read after its write side broke.
#[derive(Debug)]
pub(super) struct Listening<S>(Arc<Mutex<Inner<S>>>);

/// The half that stays with the connection. Both are used from few places at a time; the lock is held for one call.
#[derive(Debug)]
pub(super) struct Probe<S>(Arc<Mutex<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    /// Gone when hyper lets go of it, whoever still holds the other half.
    stream: Option<S>,
    /// The write side broke.
    deaf: bool,
    passed: Passed,
    fault: Option<TlsFault>,
}

/// How much passed in each direction so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Bytes that the transport took, or may have taken.
    pub(crate) written: u64,
    /// Bytes that arrived.
    pub(crate) read: u64,
}

/// What the socket of an idle connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signs {
    /// Nothing has arrived: it is as it was left.
    Quiet,
    /// Something has arrived that nobody has read yet: the end of TLS, a ticket, or what nobody asked for.
    Unread,
    /// The provider closed it, or it broke.
    Ended,
}

/// Splits a stream into the half for hyper and the half for whoever lends the connection.
pub(super) fn listening<S>(stream: S) -> (Listening<S>, Probe<S>) {
    let inner = Inner { stream: Some(stream), deaf: false, passed: Passed::default(), fault: None };
    let inner = Arc::new(Mutex::new(inner));
    (Listening(inner.clone()), Probe(inner))
}

/// What whoever lends a connection may know of its stream.
pub(super) trait Watch: Send + Sync {
    /// What the socket says, asked now.
    fn signs(&self) -> Signs;
    /// What passed so far.
    fn passed(&self) -> Passed;
}

impl<S> Probe<S> {
    /// The TLS reason for the end of the stream, if there was one.
    pub(super) fn fault(&self) -> Option<TlsFault> {
        self.0.lock().fault.clone()
    }
}

impl Watch for Probe<Counted> {
    /// Asks the kernel, not the reactor: what arrived a moment ago may not have been polled for yet.
    fn signs(&self) -> Signs {
        let inner = self.0.lock();
        let Some(stream) = &inner.stream else { return Signs::Ended };
        match stream.get_ref().get_ref().0.get_ref().peek() {
            Ok(0) => Signs::Ended,
            Ok(_) => Signs::Unread,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Signs::Quiet,
            Err(_) => Signs::Ended,
        }
    }

    fn passed(&self) -> Passed {
        self.0.lock().passed
    }
}

impl<S> Drop for Listening<S> {
    fn drop(&mut self) {
        self.0.lock().stream = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        let before = buf.filled().len();
        let Some(stream) = &mut inner.stream else { return Poll::Ready(Ok(())) };
        let result = ready!(Pin::new(stream).poll_read(cx, buf));
        inner.passed.read += (buf.filled().len() - before) as u64;
        if let Err(e) = &result {
            inner.fault = inner.fault.take().or_else(|| fault_of(e));
        }
        Poll::Ready(result)
    }
}

impl<S> Inner<S> {
    /// A write of `len` bytes failed.
    fn go_deaf(&mut self, len: usize) {
        self.deaf = true;
        if len > RECORD {
            self.passed.written += len as u64;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.lock();
        if let (false, Some(stream)) = (inner.deaf, &mut inner.stream) {
            match ready!(Pin::new(stream).poll_write(cx, data)) {
                Ok(n) => {
                    inner.passed.written += n as u64;
                    return Poll::Ready(Ok(n));
                }
                Err(_) => inner.go_deaf(data.len()),
            }
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        if let (false, Some(stream)) = (inner.deaf, &mut inner.stream)
            && ready!(Pin::new(stream).poll_flush(cx)).is_err()
        {
            inner.deaf = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0.lock().stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
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
        let (mut stream, _) = listening(near);
        stream.write_all(&[0; 4096]).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"));
    }

    #[tokio::test]
    async fn a_refused_write_of_less_than_a_record_counts_as_nothing_written() {
        for (len, written) in [(RECORD, 0), (RECORD + 1, RECORD as u64 + 1)] {
            let (near, far) = duplex(64);
            drop(far);
            let (mut stream, probe) = listening(near);
            stream.write_all(&vec![0; len]).await.unwrap();
            assert_eq!(probe.0.lock().passed.written, written, "{len} bytes");
        }
    }

    #[tokio::test]
    async fn what_passes_is_counted() {
        let (near, mut far) = duplex(64);
        let (mut stream, probe) = listening(near);
        stream.write_all(b"request").await.unwrap();
        far.write_all(b"response").await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        assert_eq!(probe.0.lock().passed, Passed { written: 7, read: 8 });
    }
}
