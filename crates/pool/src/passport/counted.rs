//! Counts the session tickets that a connection receives: rustls knows, but it lies under layers that do not.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::dial::Transport;

/// A transport whose tickets are counted as they arrive.
pub(crate) struct Counted {
    transport: Transport,
    tickets: Arc<AtomicU32>,
}

/// Wraps a transport; the second half tells how many TLS 1.3 tickets it received so far.
pub(crate) fn counted(transport: Transport) -> (Counted, Arc<AtomicU32>) {
    let tickets = Arc::new(AtomicU32::new(received(&transport)));
    (Counted { transport, tickets: tickets.clone() }, tickets)
}

impl Counted {
    /// The transport.
    pub(crate) fn get_ref(&self) -> &Transport {
        &self.transport
    }
}

fn received(transport: &Transport) -> u32 {
    transport.get_ref().1.tls13_tickets_received()
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.transport).poll_read(cx, buf);
        // Tickets come with or without bytes for the application: looked at after every read.
        this.tickets.store(received(&this.transport), Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}
