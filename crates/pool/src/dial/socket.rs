//! A TCP socket that may change its reactor, and that counts as a use of its address while it lives.
//!
//! A tokio socket belongs to the reactor of the runtime that made it. Dials run elsewhere than the requests do, so the
//! socket is registered anew on the worker. Nothing is lost by that: bytes wait in the kernel, in the buffer above, or
//! in rustls, and a new registration reports whatever is ready at that moment.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::dns::Claim;

/// The socket under a transport.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Empty only after a registration failed: the socket is closed then.
    tcp: Option<TcpStream>,
    _claim: Claim,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, claim: Claim) -> Self {
        Self { tcp: Some(tcp), _claim: claim }
    }

    /// Registers it with the reactor of the current runtime.
    ///
    /// # Errors
    /// The system's words; the socket is closed then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if let Some(tcp) = self.tcp.take() {
            self.tcp = Some(TcpStream::from_std(tcp.into_std()?)?);
        }
        Ok(())
    }

    /// Bytes that wait in the kernel, none of them taken: 0 at the end of the stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while nothing has arrived; the system's words where the connection broke.
    pub(crate) fn peek(&self) -> io::Result<usize> {
        let tcp = self.tcp.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()])
    }

    fn tcp(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        self.get_mut().tcp.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
        runtime::{Builder, Runtime},
    };

    use super::*;
    use crate::{dial::HostPort, dns::Directory};

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn pair(on: &Runtime) -> (BufReader<Socket>, std::net::TcpStream) {
        on.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let place = HostPort { host: address.ip().to_string(), port: address.port() };
            let claim = Directory::silent(place).candidates().await.unwrap().claim;
            let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
            let far = far.unwrap().0.into_std().unwrap();
            far.set_nonblocking(false).unwrap();
            (BufReader::with_capacity(64, Socket::new(near.unwrap(), claim)), far)
        })
    }

    #[test]
    fn no_byte_and_no_wake_up_is_lost_on_the_way_to_another_reactor() {
        use std::io::Write;
        let (first, second) = (runtime(), runtime());
        let (mut near, mut far) = pair(&first);
        // Some bytes are in the buffer, some in the kernel, and the readiness is known to the first reactor already.
        far.write_all(&[b'a'; 200]).unwrap();
        first.block_on(async { assert_eq!(near.fill_buf().await.unwrap().len(), 64) });
        second.block_on(async {
            near.get_mut().settle().unwrap();
            let mut bytes = [0; 200];
            near.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, [b'a'; 200]);
            // What comes later wakes the second reactor; the first is not turning.
            let late = std::thread::spawn(move || {
                far.write_all(b"late").unwrap();
                far
            });
            let mut bytes = [0; 4];
            tokio::time::timeout(Duration::from_secs(5), near.read_exact(&mut bytes)).await.unwrap().unwrap();
            assert_eq!(&bytes, b"late");
            near.write_all(b"answer").await.unwrap();
            let mut far = late.join().unwrap();
            let mut bytes = [0; 6];
            std::io::Read::read_exact(&mut far, &mut bytes).unwrap();
            assert_eq!(&bytes, b"answer");
        });
    }

    #[test]
    fn an_end_that_came_on_the_way_is_seen() {
        let (first, second) = (runtime(), runtime());
        let (mut near, far) = pair(&first);
        drop(far);
        drop(first);
        second.block_on(async {
            near.get_mut().settle().unwrap();
            let read = tokio::time::timeout(Duration::from_secs(5), near.read_u8()).await.unwrap();
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        });
    }
}
