//! Owns one accepted TCP connection and how it ends: with FIN, with RST, by closing one direction, or by falling
//! silent. It does not own what is spoken on it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::behaviour::GoAwayForm;

/// As long as the peer needs to read the last bytes and hang up.
const LINGER: Duration = Duration::from_secs(1);
/// Less than any ServerHello.
const SCRAP: usize = 40;

/// The state of a [`Socket`], ordered by how little is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Mode {
    Open,
    /// The next write is cut short, and then nothing.
    MidWrite,
    /// FIN is due; what comes in is dropped from now on, what goes out too.
    HalfClosing,
    HalfClosed,
    /// Neither reads nor writes.
    Silent,
    /// The drop resets.
    Reset,
}

/// Says how a [`Socket`] goes on or ends, from wherever it went. Takes effect the next time it is polled.
#[derive(Clone, Default)]
pub(crate) struct Switch(Arc<AtomicU8>);

/// What an order to the socket leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thrown {
    /// The connection is to be dropped now.
    HangUp,
    /// The socket stays, and is no good any more.
    Lamed,
    /// Not an order to the socket.
    NotOurs,
}

impl Switch {
    /// The forms of ending that need no protocol.
    pub(crate) fn throw(&self, form: GoAwayForm) -> Thrown {
        match form {
            GoAwayForm::Fin => Thrown::HangUp,
            GoAwayForm::Reset => {
                self.set(Mode::Reset);
                Thrown::HangUp
            }
            GoAwayForm::HalfClose => {
                if self.mode() == Mode::Open {
                    self.set(Mode::HalfClosing);
                }
                Thrown::Lamed
            }
            GoAwayForm::BlackHole => {
                self.set(Mode::Silent);
                Thrown::Lamed
            }
            _ => Thrown::NotOurs,
        }
    }

    /// Lets a few bytes of the next write out, and then neither reads nor writes.
    pub(crate) fn cut_next_write(&self) {
        self.set(Mode::MidWrite);
    }

    /// True once the socket is no good any more.
    pub(crate) fn is_lame(&self) -> bool {
        !matches!(self.mode(), Mode::Open | Mode::MidWrite)
    }

    fn set(&self, mode: Mode) {
        self.0.store(mode as u8, Ordering::Relaxed);
    }

    fn mode(&self) -> Mode {
        const ALL: [Mode; 6] =
            [Mode::Open, Mode::MidWrite, Mode::HalfClosing, Mode::HalfClosed, Mode::Silent, Mode::Reset];
        ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }
}

/// A TCP stream that can be told how to die.
pub(crate) struct Socket {
    tcp: TcpStream,
    switch: Switch,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream, switch: Switch) -> Self {
        Self { tcp, switch }
    }

    /// FIN if it is due, then everything that comes in is dropped until the peer closes.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.switch.mode() == Mode::HalfClosing {
            ready!(Pin::new(&mut self.tcp).poll_shutdown(cx))?;
            self.switch.set(Mode::HalfClosed);
        }
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.switch.mode() == Mode::Reset {
            // A socket that is gone already cannot be reset, and need not be.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

/// Sends FIN and reads on until the peer hangs up or a second has passed. Closing with unread bytes would send
/// RST, which may overtake what we sent last.
pub(crate) async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    if io.shutdown().await.is_err() {
        return;
    }
    let mut scratch = [0; 1024];
    let drained = async { while matches!(io.read(&mut scratch).await, Ok(n) if n > 0) {} };
    // Either way the connection is over.
    let _ = timeout(LINGER, drained).await;
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.switch.mode() {
            Mode::Open | Mode::MidWrite | Mode::Reset => Pin::new(&mut self.tcp).poll_read(cx, buffer),
            Mode::HalfClosing | Mode::HalfClosed => self.poll_discard(cx),
            Mode::Silent => Poll::Pending,
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.switch.mode() {
            Mode::Open | Mode::Reset => Pin::new(&mut self.tcp).poll_write(cx, data),
            Mode::MidWrite => {
                let scrap = &data[..data.len().min(SCRAP)];
                let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, scrap))?;
                self.switch.set(Mode::Silent);
                Poll::Ready(Ok(n))
            }
            Mode::HalfClosing | Mode::HalfClosed => Poll::Ready(Ok(data.len())),
            Mode::Silent => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.switch.mode() == Mode::Open {
            return Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.switch.mode() {
            Mode::Silent => Poll::Pending,
            _ => Pin::new(&mut self.tcp).poll_shutdown(cx),
        }
    }
}
