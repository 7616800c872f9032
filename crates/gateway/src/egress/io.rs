//! The byte stream of a caller: replays the sniffed bytes, and ends a caller that sends nothing or too slowly.
//!
//! hyper's own header time-out also ends idle keep-alive connections and arms a timer per request; here one timer
//! per connection is armed again only when it fires.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    caller::{At, Phase},
    last_words::{in_our_words, too_slow},
};
use crate::config::CallerTimeouts;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// The HTTP/2 preface: prior knowledge.
    H2c,
    /// Anything else: HTTP/1.1's parser judges it.
    Http1,
}

/// The client preface (RFC 9113 §3.4), all of it: h2 itself would wait for the rest without a limit.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear which protocol the caller speaks.
///
/// # Errors
/// When the caller sends nothing in time, or leaves.
pub(super) async fn sniff<S: AsyncRead + Unpin>(
    stream: &mut S,
    limits: CallerTimeouts,
) -> io::Result<(Sniffed, Bytes)> {
    let mut first = Vec::with_capacity(2 * 1024);
    let begun = tokio::time::timeout(limits.first_byte, stream.read_buf(&mut first)).await??;
    if begun == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rest = async {
        while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
            if stream.read_buf(&mut first).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        Ok(())
    };
    tokio::time::timeout(limits.header, rest).await??;
    let sniffed = if first.starts_with(PREFACE) { Sniffed::H2c } else { Sniffed::Http1 };
    Ok((sniffed, first.into()))
}

/// A caller's stream with its sniffed bytes and its time limits.
pub(super) struct CallerIo<S> {
    stream: S,
    sniffed: Bytes,
    phase: Arc<Phase>,
    limits: CallerTimeouts,
    /// The phase that was being waited in, and since when.
    waiting: Option<(At, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Runs while the caller takes none of our bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Until when a stream whose write side is closed is still read.
    linger_until: Option<Instant>,
}

/// After our last byte a caller may still be sending (a body we refused): closing at once would reset the
/// connection and take our reply with it. So what still comes is read and let go, for this long at most.
const LINGER: Duration = Duration::from_secs(1);

impl<S> CallerIo<S> {
    pub(super) fn new(stream: S, sniffed: Bytes, phase: Arc<Phase>, limits: CallerTimeouts) -> Self {
        Self { stream, sniffed, phase, limits, waiting: None, timer: None, stalled: None, linger_until: None }
    }

    fn limit(&self, at: At) -> Option<Duration> {
        match at {
            At::Fresh => Some(self.limits.first_byte),
            At::Idle => Some(self.limits.idle),
            At::Head => Some(self.limits.header),
            At::Busy => None,
        }
    }

    /// Ready when the phase has lasted too long.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<At> {
        let at = self.phase.at();
        let now = Instant::now();
        let Some(limit) = self.limit(at) else {
            // No limit now, but the timer goes on: once the exchange is over nobody polls until it fires.
            let idle = self.limits.idle;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(now + idle)));
            while timer.as_mut().poll(cx).is_ready() {
                timer.as_mut().reset(now + idle);
            }
            return Poll::Pending;
        };
        let since = match self.waiting {
            Some((same, since)) if same == at => since,
            _ => now,
        };
        self.waiting = Some((at, since));
        let due = since + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // Later is mended when it fires; earlier must be set now.
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(at);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for CallerIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.sniffed.is_empty() {
            let take = this.sniffed.len().min(buf.remaining());
            buf.put_slice(&this.sniffed[..take]);
            this.sniffed.advance(take);
            this.phase.bytes_arrived();
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            // A header's time counts from its first byte: further ones do not prolong it.
            if this.phase.bytes_arrived() {
                this.waiting = None;
            }
            return Poll::Ready(read);
        }
        let at = ready!(this.poll_overdue(cx));
        if at == At::Head {
            // As much as fits at once: the caller is being left anyway.
            let _ = Pin::new(&mut this.stream).poll_write(cx, &too_slow());
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S> CallerIo<S> {
    /// Ends a caller that takes none of our bytes: its response would hold a stream of the provider for ever.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limits.idle;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> CallerIo<S> {
    /// Whether hyper's own refusal was replaced by ours.
    fn refused_in_our_words(&mut self, cx: &mut Context<'_>, data: &[u8]) -> bool {
        // hyper answers by itself only while it reads a header.
        if self.phase.at() != At::Head {
            return false;
        }
        let Some(words) = in_our_words(data) else { return false };
        // As much as fits at once: the caller is being left anyway.
        let _ = Pin::new(&mut self.stream).poll_write(cx, &words);
        true
    }
}

impl<S: AsyncRead + Unpin> CallerIo<S> {
    /// Lets go of what still comes, until the caller closes or the time is up.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0u8; 4096];
        loop {
            if self.timer.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for CallerIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refused_in_our_words(cx, data) {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, data);
        this.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [only] = slices
            && this.refused_in_our_words(cx, only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger_until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            let until = Instant::now() + LINGER;
            this.linger_until = Some(until);
            this.timer = Some(Box::pin(tokio::time::sleep_until(until)));
        }
        this.poll_linger(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_preface_is_told_from_a_post_even_in_single_bytes() {
        for (text, want) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Sniffed::H2c),
            (b"POST / HTTP/1.1\r\n", Sniffed::Http1),
        ] {
            let (mut near, mut far) = duplex(64);
            let writer = tokio::spawn(async move {
                for byte in text {
                    far.write_all(&[*byte]).await.unwrap();
                }
                far
            });
            let (sniffed, first) = sniff(&mut near, CallerTimeouts::default()).await.unwrap();
            assert_eq!(sniffed, want);
            assert!(text.starts_with(&first));
            drop(writer.await.unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_caller_is_left_after_the_first_byte_limit() {
        let (mut near, _far) = duplex(64);
        let began = Instant::now();
        let error = sniff(&mut near, CallerTimeouts::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), CallerTimeouts::default().first_byte.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_still_sends_is_read_for_a_moment_and_one_that_left_is_not_waited_for() {
        for (leaves, waited) in [(true, Duration::ZERO), (false, LINGER)] {
            let (near, mut far) = duplex(1024);
            let mut io = CallerIo::new(near, Bytes::new(), Phase::new(), CallerTimeouts::default());
            far.write_all(b"the rest of a body that nobody wants").await.unwrap();
            let far = (!leaves).then_some(far);
            let began = Instant::now();
            io.shutdown().await.unwrap();
            assert_eq!(began.elapsed().as_millis(), waited.as_millis());
            drop(far);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_and_a_header_byte_by_byte_have_their_limit() {
        let limits = CallerTimeouts::default();
        let (mut near, mut far) = duplex(64);
        far.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        let began = Instant::now();
        assert_eq!(sniff(&mut near, limits).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), limits.header);

        let (near, mut far) = duplex(1024);
        let mut io = CallerIo::new(near, Bytes::new(), Phase::new(), limits);
        let drip = tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let began = Instant::now();
        let error = io.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= limits.header + Duration::from_secs(2), "{:?}", began.elapsed());
        drop(io);
        drip.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_limit_holds_after_a_long_exchange() {
        let limits = CallerTimeouts::default();
        let (near, _far) = duplex(64);
        let phase = Phase::new();
        phase.exchange_began();
        let mut io = CallerIo::new(near, Bytes::new(), phase.clone(), limits);
        // One read is polled while the exchange runs; after its end only a timer can wake the reader.
        let reader = tokio::spawn(async move { io.read(&mut [0]).await });
        tokio::time::sleep(limits.idle * 3).await;
        phase.exchange_ended();
        let began = Instant::now();
        assert_eq!(reader.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= limits.idle * 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_takes_nothing_is_left() {
        let limits = CallerTimeouts::default();
        let (near, _far) = duplex(16);
        let mut io = CallerIo::new(near, Bytes::new(), Phase::new(), limits);
        let began = Instant::now();
        let error = io.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, limits.idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_end_gets_a_408_and_an_idle_caller_nothing() {
        let limits = CallerTimeouts::default();
        for (at_head, reply) in [(true, too_slow()), (false, Vec::new())] {
            let (near, mut far) = duplex(1024);
            let phase = Phase::new();
            phase.exchange_ended();
            let mut io = CallerIo::new(near, Bytes::new(), phase.clone(), limits);
            if at_head {
                far.write_all(b"GET /").await.unwrap();
            }
            let began = Instant::now();
            let mut all = Vec::new();
            let error = io.read_to_end(&mut all).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let limit = if at_head { limits.header } else { limits.idle };
            assert_eq!(began.elapsed().as_secs(), limit.as_secs());
            drop(io);
            let mut said = Vec::new();
            far.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, reply);
        }
    }
}
