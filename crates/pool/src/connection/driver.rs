//! The task that moves one HTTP/2 connection: frames, PINGs, GOAWAY, the end.
//!
//! Owns h2's `Connection`, the one PING handle and the wire. It tells others by the connection's [`Link`] and by
//! waking the supervisor; it never decides what replaces a connection.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong};
use tls_core::TlsFault;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

use super::{Link, State, Wire, WireHandle};
use crate::{hub::Hub, observe::Observer, status::CauseOfDeath};

/// What a connection may carry and how its health is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_streams: u32,
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) cause: CauseOfDeath,
    /// The TLS reason, if there was one.
    pub(crate) fault: Option<TlsFault>,
    /// h2's words.
    pub(crate) detail: String,
}

/// Drives one connection until it ends. Dropping it closes the transport at once.
pub(crate) struct Driver<S> {
    connection: h2::client::Connection<Wire<S>, Bytes>,
    wire: WireHandle<S>,
    ping: PingPong,
    pinger: Pinger,
    timer: Pin<Box<Sleep>>,
    pongs: u64,
    goaways: u32,
    limits: Limits,
    link: Arc<Link>,
    hub: Arc<Hub>,
    observer: Arc<dyn Observer>,
}

/// Where the keep-alive stands. The timer means: the next PING is due, or this one is overdue.
#[derive(Clone, Copy, Debug)]
enum Pinger {
    Resting,
    Waiting { since: Instant },
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Takes over a connection whose preface is under way and queues the first PING: the proof.
    pub(crate) fn new(
        mut connection: h2::client::Connection<Wire<S>, Bytes>,
        wire: WireHandle<S>,
        link: Arc<Link>,
        limits: Limits,
        hub: Arc<Hub>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, h2::Error> {
        // h2 gives the handle out once; nobody has taken it, because the connection was made by our caller just now.
        let mut ping = connection.ping_pong().expect("the PING handle of a fresh connection");
        ping.send_ping(Ping::opaque())?;
        let now = Instant::now();
        Ok(Self {
            connection,
            wire,
            ping,
            pinger: Pinger::Waiting { since: now },
            timer: Box::pin(tokio::time::sleep_until(now + limits.ping_timeout)),
            pongs: 0,
            goaways: 0,
            limits,
            link,
            hub,
            observer,
        })
    }

    /// Runs until the first PING is acknowledged.
    ///
    /// # Errors
    /// The end of the connection, if that comes first.
    ///
    /// # Cancel safety
    /// May be dropped and called again; nothing is lost.
    pub(crate) async fn until_proved(&mut self) -> Result<(), Ended> {
        std::future::poll_fn(|cx| match self.poll_turn(cx) {
            Poll::Ready(ended) => Poll::Ready(Err(ended)),
            // A GOAWAY or a failed write before the proof: this one will never serve; wait for how it ends.
            Poll::Pending if self.pongs > 0 && self.link.state() == State::Proving => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Runs until the connection ends.
    pub(crate) async fn until_ended(mut self) -> Ended {
        std::future::poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.link.register_driver(cx.waker());
        if let Poll::Ready(result) = Pin::new(&mut self.connection).poll(cx) {
            self.note_goaway();
            return Poll::Ready(self.end(result));
        }
        self.note_goaway();
        self.note_capacity();
        if self.poll_ping(cx).is_ready() {
            return Poll::Ready(self.end_overdue());
        }
        let was_deaf = self.wire.is_deaf();
        let _ = self.wire.poll_drain(cx);
        if self.wire.is_deaf() && !was_deaf {
            // No new streams on it; the read side says how it ended.
            self.retire(CauseOfDeath::ClosedByProvider);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// h2 hides GOAWAY until the last stream is done; the successor must be on its way long before.
    fn note_goaway(&mut self) {
        let seen = self.wire.seen();
        if self.link.passport.note_frames(&seen) {
            // The supervisor compares them with what the provider announced before.
            self.hub.supervisor.notify_one();
        }
        if seen.goaways == self.goaways {
            return;
        }
        self.goaways = seen.goaways;
        self.hub.counters.goaways.fetch_add(1, Ordering::Relaxed);
        let error_code = seen.goaway.map_or(0, |goaway| goaway.error_code);
        self.observer.goaway(self.link.id(), error_code);
        self.retire(CauseOfDeath::Goaway);
    }

    fn retire(&self, cause: CauseOfDeath) {
        if matches!(self.link.state(), State::Proving | State::Serving) {
            self.link.retire(cause, Instant::now());
            self.hub.supervisor.notify_one();
        }
    }

    /// Our own cap or the provider's SETTINGS, whichever is smaller, read again after every frame.
    fn note_capacity(&self) {
        let theirs = u32::try_from(self.connection.max_concurrent_send_streams()).unwrap_or(u32::MAX);
        if self.link.set_capacity(self.limits.max_streams.min(theirs)) {
            self.hub.dispatch();
        }
    }

    /// Ready means overdue. One PING at a time, and it is never dropped unanswered: h2 would refuse the next.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Pinger::Waiting { since } = self.pinger
            && let Poll::Ready(Ok(_)) = self.ping.poll_pong(cx)
        {
            let now = Instant::now();
            self.link.set_ping_rtt(now.saturating_duration_since(since));
            self.pongs += 1;
            self.pinger = Pinger::Resting;
            self.timer.as_mut().reset(now + self.limits.ping_interval);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            match self.pinger {
                Pinger::Waiting { .. } => return Poll::Ready(()),
                Pinger::Resting => {
                    let now = Instant::now();
                    // An error means the connection is ending; its own poll says so.
                    let _ = self.ping.send_ping(Ping::opaque());
                    self.pinger = Pinger::Waiting { since: now };
                    self.timer.as_mut().reset(now + self.limits.ping_timeout);
                    let _ = self.ping.poll_pong(cx);
                }
            }
        }
        Poll::Pending
    }

    fn end(&self, result: Result<(), h2::Error>) -> Ended {
        let (by_itself, detail) = match result {
            Ok(()) => (CauseOfDeath::ClosedByProvider, "closed".to_owned()),
            Err(e) if e.is_go_away() && e.is_remote() => (CauseOfDeath::Goaway, e.to_string()),
            Err(e) if e.is_io() => (CauseOfDeath::ClosedByProvider, e.to_string()),
            Err(e) => (CauseOfDeath::ProtocolError, e.to_string()),
        };
        let cause = self.link.cause().unwrap_or(by_itself);
        self.link.ended(cause);
        Ended { cause, fault: self.wire.fault(), detail }
    }

    fn end_overdue(&self) -> Ended {
        self.link.ended(CauseOfDeath::PingTimeout);
        let detail = format!("no PING acknowledged within {:?}", self.limits.ping_timeout);
        Ended { cause: CauseOfDeath::PingTimeout, fault: self.wire.fault(), detail }
    }
}
