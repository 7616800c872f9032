//! The byte stream under h2: gathers writes ([`crate::coalesce`]), watches reads, keeps the reason when TLS ends it.
//!
//! h2 reduces I/O errors to their text; [`WireHandle::fault`] is the [`TlsFault`] behind a failed read. Two rules hold
//! here because nothing above can hold them: SETTINGS that lower the number of streams are kept back until the driver
//! lets h2 read them ([`super::opening`] says why), and nothing is written any more once the provider's side has ended,
//! so that what had not left by then never does.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tls_core::TlsFault;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    outbound::{Departed, OutboundTap},
    tap::{FrameTap, Seen},
};
use crate::{
    coalesce::{Coalesced, Drain, coalesce},
    dial::RECORD,
};

/// The half that h2 owns.
pub(crate) type Wire<S> = Coalesced<Watched<S>>;

/// The half that the driver owns.
pub(crate) struct WireHandle<S> {
    drain: Drain<Watched<S>>,
    departed: Departed,
    notes: Arc<Mutex<Notes>>,
}

/// A stream whose bytes are followed, both ways.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    outbound: OutboundTap,
    /// The provider's side has ended.
    ended: bool,
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
    /// DATA frames without a byte that end nothing.
    pub(crate) empty_data: u32,
}

#[derive(Debug, Default)]
struct Notes {
    tap: FrameTap,
    reads: u64,
    fault: Option<TlsFault>,
    backlog: Backlog,
}

/// Inbound bytes that h2 has not been given.
#[derive(Debug, Default)]
enum Backlog {
    #[default]
    None,
    /// SETTINGS that lower the number of streams are among them; nothing is read meanwhile.
    Withheld(Bytes),
    /// To be read next.
    Released(Bytes),
}

/// Wraps a stream; h2 gets the first half, the driver keeps the second.
pub(crate) fn wire<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (Wire<S>, WireHandle<S>) {
    let notes = Arc::new(Mutex::new(Notes::default()));
    let outbound = OutboundTap::default();
    let departed = outbound.departed();
    let (wire, drain) = coalesce(Watched { stream, outbound, ended: false, notes: notes.clone() });
    (wire, WireHandle { drain, departed, notes })
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

    /// The transport had no room when h2 last wrote: something that h2 was given may still be with it.
    pub(crate) fn is_blocked(&self) -> bool {
        self.drain.is_blocked()
    }

    /// Which streams have left.
    pub(crate) fn departed(&self) -> Departed {
        self.departed.clone()
    }

    /// The provider lowered its number of streams to this, and h2 has not been told: nothing is read until
    /// [`Self::release`].
    pub(crate) fn withheld_limit(&self) -> Option<u32> {
        let notes = self.notes.lock();
        match notes.backlog {
            Backlog::Withheld(_) => {
                Some(notes.tap.seen().settings.max_concurrent_streams.unwrap_or(u32::MAX))
            }
            Backlog::None | Backlog::Released(_) => None,
        }
    }

    /// Lets h2 read what was kept back. Poll it then: nobody else wakes it for that.
    pub(crate) fn release(&self) {
        let mut notes = self.notes.lock();
        if let Backlog::Withheld(bytes) = &mut notes.backlog {
            notes.backlog = Backlog::Released(std::mem::take(bytes));
        }
    }

    /// What the provider's frames said.
    pub(crate) fn seen(&self) -> Seen {
        self.notes.lock().tap.seen()
    }

    /// What the driver looks at after each poll.
    pub(crate) fn glance(&self) -> Glance {
        let notes = self.notes.lock();
        let seen = notes.tap.seen();
        Glance {
            reads: notes.reads,
            goaways: seen.goaways,
            settings_acks: seen.settings_acks,
            frames: seen.settings_frames.wrapping_add(seen.goaways).wrapping_add(seen.pings),
            empty_data: seen.empty_data,
        }
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

impl Notes {
    /// Looks at what was read into `buf` after its first `before` bytes. Takes them back when they lower the number of
    /// streams.
    fn note_read(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> Poll<()> {
        let limit = |tap: &FrameTap| tap.seen().settings.max_concurrent_streams.unwrap_or(u32::MAX);
        let was = limit(&self.tap);
        let bytes = &buf.filled()[before..];
        self.reads += u64::from(!bytes.is_empty());
        self.tap.follow(bytes);
        if limit(&self.tap) >= was {
            return Poll::Ready(());
        }
        self.backlog = Backlog::Withheld(Bytes::copy_from_slice(bytes));
        buf.set_filled(before);
        Poll::Pending
    }

    /// Hands out what was kept back, if there is any: `None` when the transport is to be read.
    fn poll_backlog(&mut self, buf: &mut ReadBuf<'_>) -> Option<Poll<()>> {
        match &mut self.backlog {
            Backlog::None => None,
            Backlog::Withheld(_) => Some(Poll::Pending),
            Backlog::Released(bytes) => {
                let take = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..take]);
                bytes.advance(take);
                if bytes.is_empty() {
                    self.backlog = Backlog::None;
                }
                Some(Poll::Ready(()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut notes = this.notes.lock();
        if let Some(backlog) = notes.poll_backlog(buf) {
            return backlog.map(Ok);
        }
        let (before, room) = (buf.filled().len(), buf.remaining());
        let result = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        match &result {
            // Nobody waits for the transport while something is kept back: the driver polls again.
            Ok(()) => {
                this.ended |= buf.filled().len() == before && room > 0;
                ready!(notes.note_read(buf, before));
            }
            Err(e) => {
                this.ended = true;
                notes.fault = notes.fault.take().or_else(|| fault_of(e));
            }
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ended {
            // Whoever waits for an answer has been told that there is none: nothing of it may leave afterwards.
            return Poll::Ready(Ok(data.len()));
        }
        let result = ready!(Pin::new(&mut this.stream).poll_write(cx, data));
        match &result {
            Ok(n) => this.outbound.follow(&data[..*n]),
            // Some of it may have left, and been acted on, before the rest failed.
            Err(_) if data.len() > RECORD => this.outbound.follow(data),
            Err(_) => {}
        }
        Poll::Ready(result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// 49 bytes: SETTINGS with this number of streams, between two PINGs.
    fn inbound(streams: u8) -> Vec<u8> {
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, streams];
        [&ping[..], &settings, &ping].concat()
    }

    async fn poll_once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        std::future::poll_fn(|cx| Poll::Ready(poll(cx))).await
    }

    #[tokio::test]
    async fn lowered_streams_are_kept_back_until_released_and_no_byte_is_lost() {
        for room in [4, 17, 19, 32, 200] {
            let (near, mut far) = duplex(1024);
            let (mut wire, handle) = wire(near);
            let bytes = [inbound(100), inbound(1), inbound(128)].concat();
            far.write_all(&bytes).await.unwrap();
            let (mut read, mut kept_back) = (Vec::new(), Vec::new());
            while read.len() < bytes.len() {
                let mut piece = vec![0; room];
                let mut buf = ReadBuf::new(&mut piece);
                if poll_once(|cx| Pin::new(&mut wire).poll_read(cx, &mut buf)).await.is_ready() {
                    read.extend_from_slice(buf.filled());
                } else {
                    kept_back.push(handle.withheld_limit().expect("nothing else holds bytes up"));
                    handle.release();
                }
            }
            assert_eq!(read, bytes, "room {room}");
            // The first number is lower than none, the third is higher. A read that holds all three shows the last.
            let expected: &[u32] = if room < 49 { &[100, 1] } else { &[128] };
            assert_eq!(kept_back, expected, "room {room}");
            assert_eq!(handle.withheld_limit(), None);
        }
    }

    #[tokio::test]
    async fn nothing_is_written_once_the_provider_has_ended() {
        let (near, far) = duplex(1024);
        let (mut wire, handle) = wire(near);
        let (mut far_read, mut far_write) = tokio::io::split(far);
        wire.write_all(&[b'p'; 24]).await.unwrap();
        let _ = poll_once(|cx| handle.poll_drain(cx)).await;
        far_write.shutdown().await.unwrap();
        assert_eq!(wire.read(&mut [0; 8]).await.unwrap(), 0);
        // HEADERS of stream 1: too late.
        wire.write_all(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82]).await.unwrap();
        let _ = poll_once(|cx| handle.poll_drain(cx)).await;
        assert!(!handle.departed().includes(1));
        wire.shutdown().await.unwrap();
        let mut written = Vec::new();
        far_read.read_to_end(&mut written).await.unwrap();
        assert_eq!(written, [b'p'; 24]);
    }

    #[tokio::test]
    async fn what_a_write_of_several_records_held_counts_as_departed_although_it_failed() {
        for (data, departed) in [(64, false), (RECORD, true)] {
            let (near, far) = duplex(64);
            let (mut wire, handle) = wire(near);
            drop(far);
            let mut written = vec![b'p'; 24];
            // HEADERS of stream 1, then DATA of any length.
            written.extend([0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82]);
            written.extend((data as u32).to_be_bytes()[1..].iter().chain(&[0, 0, 0, 0, 0, 1]));
            written.extend(vec![0; data]);
            wire.write_all(&written).await.unwrap();
            let _ = poll_once(|cx| handle.poll_drain(cx)).await;
            assert!(handle.is_deaf());
            assert_eq!(handle.departed().includes(1), departed, "{data} bytes of DATA");
        }
    }
}
