//! The byte stream under h2: gathers writes ([`crate::coalesce`]), watches reads, keeps the reason when TLS ends it.
//!
//! h2 reduces I/O errors to their text; [`WireHandle::fault`] is the [`TlsFault`] behind a failed read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tls_core::TlsFault;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tap::{FrameTap, Seen};
use crate::coalesce::{Coalesced, Drain, coalesce};

/// The half that h2 owns.
pub(crate) type Wire<S> = Coalesced<Watched<S>>;

/// The half that the driver owns.
pub(crate) struct WireHandle<S> {
    drain: Drain<Watched<S>>,
    notes: Arc<Mutex<Notes>>,
}

/// A stream whose inbound bytes are followed.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    notes: Arc<Mutex<Notes>>,
}

/// The part of what was seen that changes often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    /// Reads that brought bytes.
    pub(crate) reads: u64,
    /// GOAWAY frames received.
    pub(crate) goaways: u32,
    /// Acknowledgements of our SETTINGS.
    pub(crate) settings_acks: u32,
    /// Changes with every frame that a passport tells of: SETTINGS, GOAWAY, the provider's PINGs.
    pub(crate) frames: u32,
}

#[derive(Debug, Default)]
struct Notes {
    tap: FrameTap,
    reads: u64,
    fault: Option<TlsFault>,
}

/// Wraps a stream; h2 gets the first half, the driver keeps the second.
pub(crate) fn wire<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (Wire<S>, WireHandle<S>) {
    let notes = Arc::new(Mutex::new(Notes::default()));
    let (wire, drain) = coalesce(Watched { stream, notes: notes.clone() });
    (wire, WireHandle { drain, notes })
}

impl<S: AsyncRead + AsyncWrite + Unpin> WireHandle<S> {
    /// Writes out what was gathered; see [`Drain::poll_drain`].
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.drain.poll_drain(cx)
    }

    /// The transport refused a write.
    pub(crate) fn is_deaf(&self) -> bool {
        self.drain.is_deaf()
    }

    /// What the provider's frames said.
    pub(crate) fn seen(&self) -> Seen {
        self.notes.lock().tap.seen()
    }

    /// What the driver looks at after each poll.
    pub(crate) fn glance(&self) -> Glance {
        let notes = self.notes.lock();
        let seen = notes.tap.seen();
        let frames = seen.settings_frames.wrapping_add(seen.goaways).wrapping_add(seen.pings);
        Glance { reads: notes.reads, goaways: seen.goaways, settings_acks: seen.settings_acks, frames }
    }

    /// The TLS reason for the end of the stream, if there was one.
    pub(crate) fn fault(&self) -> Option<TlsFault> {
        self.notes.lock().fault.clone()
    }
}

/// The TLS fault inside an I/O error, if it carries one.
pub(crate) fn fault_of(error: &io::Error) -> Option<TlsFault> {
    TlsFault::from_io(error)
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        let mut notes = this.notes.lock();
        match &result {
            Ok(()) => {
                let bytes = &buf.filled()[before..];
                notes.reads += u64::from(!bytes.is_empty());
                notes.tap.follow(bytes);
            }
            Err(e) => notes.fault = notes.fault.take().or_else(|| fault_of(e)),
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
