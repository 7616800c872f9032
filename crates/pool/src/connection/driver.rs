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

use super::{
    Farewell, Link, Proof, State, Trust, Wire, WireHandle,
    pinger::{Pinger, Probe, Step},
    tap::{GoAway, Seen},
};
use crate::{
    hub::{Hub, Pings},
    observe::Observer,
    status::CauseOfDeath,
};

/// What a connection may carry and how its health is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_streams: u32,
    pub(crate) ping_timeout: Duration,
    /// The window of a stream, as announced.
    pub(crate) stream_window: u32,
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

/// SETTINGS that h2 has not been told of.
struct Withheld {
    streams: u32,
    /// When h2 is told whatever stands in the way.
    limit: Pin<Box<Sleep>>,
}

/// How the transport came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// As TLS wants it.
    InOrder,
    /// Cut short, or reset.
    Broken,
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
    settings_acks: u32,
    /// How many there were when SETTINGS were last sent to hear from the provider.
    acks_before: u32,
    /// Frames that the passport knows of; see [`super::wire::Glance`].
    frames: u32,
    /// A lowered number of streams that h2 has not been told of.
    withheld: Option<Withheld>,
    /// Requests given to it when last looked at, and since when it has carried nothing.
    carried: u64,
    active_at: Instant,
    limits: Limits,
    link: Arc<Link>,
    hub: Arc<Hub>,
    observer: Arc<dyn Observer>,
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
        link.opening().watch(wire.departed());
        let now = Instant::now();
        Ok(Self {
            connection,
            wire,
            ping,
            pinger: Pinger::begin(now, limits.ping_timeout),
            timer: Box::pin(tokio::time::sleep_until(now + limits.ping_timeout)),
            pongs: 0,
            goaways: 0,
            settings_acks: 0,
            acks_before: 0,
            frames: 0,
            withheld: None,
            carried: 0,
            active_at: now,
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
    pub(crate) async fn until_pong(&mut self) -> Result<(), Ended> {
        self.until(|driver| driver.pongs > 0).await
    }

    /// Runs until the provider acknowledged our PING or our SETTINGS, both of which it does only after it looked at our
    /// certificate. Says which it was: the PING, where both came together.
    ///
    /// # Errors, cancel safety
    /// As [`Self::until_pong`].
    pub(crate) async fn until_acknowledged(&mut self) -> Result<Proof, Ended> {
        self.until(|driver| driver.pongs > 0 || driver.settings_acks > 0).await?;
        Ok(if self.pongs > 0 { Proof::Ping } else { Proof::SettingsAck })
    }

    async fn until(&mut self, proved: fn(&Self) -> bool) -> Result<(), Ended> {
        std::future::poll_fn(|cx| match self.poll_turn(cx) {
            Poll::Ready(ended) => Poll::Ready(Err(ended)),
            // A GOAWAY or a failed write before the proof: this one will never serve; wait for how it ends.
            Poll::Pending if proved(self) && self.link.state() == State::Proving => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Runs while `work` does, which uses the connection.
    ///
    /// # Errors
    /// The end of the connection, if that comes first.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            // The work first: its last word may have arrived together with the end.
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_turn(cx).map(Err)
        })
        .await
    }

    /// Runs until the connection ends.
    pub(crate) async fn until_ended(mut self) -> Ended {
        std::future::poll_fn(|cx| self.poll_turn(cx)).await
    }

    /// What the provider's frames said so far.
    fn seen(&self) -> Seen {
        self.wire.seen()
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.link.register_driver(cx.waker());
        let polled = self.poll_connection(cx);
        let now = Instant::now();
        self.note_inbound(now);
        if let Poll::Ready(result) = polled {
            return Poll::Ready(self.end(result));
        }
        self.note_capacity();
        if self.poll_ping(cx, now).is_ready() {
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

    /// Polls h2; where the provider lowered its number of streams, h2 writes what was opened before it reads that.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            let polled = Pin::new(&mut self.connection).poll(cx);
            // Asked after each poll: what comes behind released SETTINGS may lower the number again.
            let Some(theirs) = self.wire.withheld_limit().filter(|_| polled.is_pending()) else {
                return polled;
            };
            self.withhold(theirs);
            if !self.link.opening().is_quiet() {
                // Another worker is between its look at the limit and h2: a matter of nanoseconds.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
                return Poll::Ready(ended);
            }
            if self.wire.is_blocked() && !self.is_withheld_too_long(cx) {
                return Poll::Pending;
            }
            self.withheld = None;
            self.wire.release();
        }
    }

    fn withhold(&mut self, streams: u32) {
        match &mut self.withheld {
            Some(withheld) => withheld.streams = streams,
            none => *none = Some(Withheld { streams, limit: Box::pin(tokio::time::sleep(WITHHELD)) }),
        }
        self.set_capacity(streams);
    }

    /// Whether the limit is over; if not, the driver is woken then.
    fn is_withheld_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        self.withheld.as_mut().is_none_or(|withheld| withheld.limit.as_mut().poll(cx).is_ready())
    }

    fn note_inbound(&mut self, now: Instant) {
        let glance = self.wire.glance();
        self.settings_acks = glance.settings_acks;
        self.link.vitals().note_heard(glance.reads);
        let carried = self.link.requests();
        if carried != self.carried || self.link.in_flight() > 0 {
            self.carried = carried;
            self.active_at = now;
        }
        if glance.frames != self.frames {
            self.frames = glance.frames;
            self.note_frames();
        }
        if glance.empty_data >= EMPTY_DATA && self.link.state() == State::Serving {
            self.note_empty_data(glance.empty_data);
        }
        if glance.goaways != self.goaways {
            self.goaways = glance.goaways;
            self.note_goaway();
        }
    }

    /// Its successor is sent for in time; it goes without one only when it would end under everybody.
    fn note_empty_data(&self, frames: u32) {
        if frames >= EMPTY_DATA_LAST {
            self.retire(CauseOfDeath::EmptyFrames);
        } else if !self.link.vitals().is_worn() {
            self.link.vitals().wear_out();
            self.hub.supervisor.notify_one();
        }
    }

    fn note_frames(&self) {
        if self.link.passport.note_frames(&self.seen()) {
            // The supervisor compares the new SETTINGS with what the provider announced before.
            self.hub.supervisor.notify_one();
        }
    }

    /// h2 hides GOAWAY until the last stream is done; the successor must be on its way long before.
    fn note_goaway(&mut self) {
        self.hub.counters.goaways.fetch_add(1, Ordering::Relaxed);
        let goaway = self.wire.seen().goaway.unwrap_or_default();
        self.bid_farewell(Some(goaway), Closing::InOrder);
        self.observer.goaway(self.link.id(), goaway.error_code);
        self.retire(CauseOfDeath::Goaway);
    }

    /// Keeps how the connection stood when its end was announced.
    fn bid_farewell(&self, goaway: Option<GoAway>, how: Closing) {
        let now = Instant::now();
        let (in_flight, carried) = (self.link.in_flight(), self.link.requests());
        // Streams of a client are odd: the n-th has the number 2n − 1 (RFC 9113 §5.1.1).
        let said = goaway.map(|g| u64::from(g.last_stream_id).div_ceil(2)).filter(|taken| *taken <= carried);
        let (requests, uncertain) = match said {
            Some(taken) => (taken, 0),
            // Two-phase, or no GOAWAY at all: what was in flight crossed the end on the wire.
            None => (carried.saturating_sub(u64::from(in_flight)), u64::from(in_flight)),
        };
        self.link.vitals().bid_farewell(Farewell {
            at: now,
            requests,
            uncertain,
            idle: (in_flight == 0)
                .then(|| now.saturating_duration_since(self.active_at))
                .filter(|idle| *idle >= IDLE),
            routine: goaway.is_none_or(|g| g.error_code == NO_ERROR),
            orderly: goaway.is_some() || how == Closing::InOrder,
            calm: goaway.is_some_and(|g| g.error_code == ENHANCE_YOUR_CALM),
        });
    }

    fn retire(&self, cause: CauseOfDeath) {
        if matches!(self.link.state(), State::Proving | State::Serving) {
            self.link.retire(cause, Instant::now());
        }
        self.hub.supervisor.notify_one();
    }

    /// Our own cap or the provider's SETTINGS, whichever is smaller, read again after every frame.
    fn note_capacity(&self) {
        let theirs = u32::try_from(self.connection.max_concurrent_send_streams()).unwrap_or(u32::MAX);
        let withheld = self.withheld.as_ref().map_or(u32::MAX, |withheld| withheld.streams);
        self.set_capacity(theirs.min(withheld));
    }

    fn set_capacity(&self, theirs: u32) {
        let streams = self.limits.max_streams.min(theirs);
        self.link.opening().set_limit(streams);
        if self.link.set_capacity(streams) {
            self.hub.dispatch();
        }
    }

    /// Ready means overdue.
    fn poll_ping(&mut self, cx: &mut Context<'_>, mut now: Instant) -> Poll<()> {
        self.note_answers(cx, now);
        if self.link.vitals().trust() == Trust::Doubted {
            self.pinger.hurry(now);
        }
        loop {
            match self.pinger.step(now) {
                Step::Overdue => return Poll::Ready(()),
                Step::Send(probe) => self.send_probe(cx, probe),
                Step::Late => {
                    // Others are preferred from now on, and the supervisor dials a successor.
                    self.link.vitals().late();
                    self.hub.supervisor.notify_one();
                }
                Step::Wait(until) => {
                    if self.timer.deadline() != until {
                        self.timer.as_mut().reset(until);
                    }
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    now = Instant::now();
                }
            }
        }
    }

    /// An error means that the connection is ending; its own poll says so.
    fn send_probe(&mut self, cx: &mut Context<'_>, probe: Probe) {
        match probe {
            Probe::Ping => {
                let _ = self.ping.send_ping(Ping::opaque());
                let _ = self.ping.poll_pong(cx);
            }
            Probe::Settings => {
                self.acks_before = self.settings_acks;
                let _ = self.connection.set_initial_window_size(self.limits.stream_window);
                // h2 writes it at its next poll, and wakes nobody for that.
                cx.waker().wake_by_ref();
            }
        }
    }

    fn note_answers(&mut self, cx: &mut Context<'_>, now: Instant) {
        let interval = self.hub.ping_interval();
        if self.pinger.awaits(Probe::Ping)
            && let Poll::Ready(Ok(_)) = self.ping.poll_pong(cx)
        {
            self.pongs += 1;
            self.link.vitals().pong();
            if let Some(rtt) = self.pinger.ponged(now, interval) {
                self.link.set_ping_rtt(rtt);
            }
            self.hub.note_pings(Pings::Answered);
        }
        if self.pinger.awaits(Probe::Settings) && self.settings_acks != self.acks_before {
            self.link.vitals().pong();
            if self.pinger.acknowledged(now, interval) {
                self.hub.note_pings(Pings::Ignored);
            }
        }
    }

    fn end(&self, result: Result<(), h2::Error>) -> Ended {
        // Once more: the words of a GOAWAY may have come after its beginning.
        self.note_frames();
        let how = if result.is_ok() { Closing::InOrder } else { Closing::Broken };
        let (by_itself, detail) = match result {
            Ok(()) => (CauseOfDeath::ClosedByProvider, "closed".to_owned()),
            Err(e) if e.is_go_away() && e.is_remote() => (CauseOfDeath::Goaway, e.to_string()),
            Err(e) if e.is_io() => (CauseOfDeath::ClosedByProvider, e.to_string()),
            Err(e) => (CauseOfDeath::ProtocolError, e.to_string()),
        };
        let cause = self.link.cause().unwrap_or(by_itself);
        if cause == CauseOfDeath::ClosedByProvider {
            self.bid_farewell(None, how);
        }
        self.link.ended(cause);
        Ended { cause, fault: self.wire.fault(), detail }
    }

    fn end_overdue(&self) -> Ended {
        self.link.ended(CauseOfDeath::PingTimeout);
        let detail = format!("no PING acknowledged within {:?}", self.limits.ping_timeout);
        Ended { cause: CauseOfDeath::PingTimeout, fault: self.wire.fault(), detail }
    }
}

/// Longest time that SETTINGS are kept back while the transport takes no writes: a provider that reads only once we
/// do must not be waited for.
const WITHHELD: Duration = Duration::from_secs(1);
/// h2 bears a hundred empty DATA frames in the life of a connection and ends it with the next, under everybody: at half
/// of that its successor is sent for.
const EMPTY_DATA: u32 = 50;
/// At so many it takes no more requests, whether its successor serves or not.
const EMPTY_DATA_LAST: u32 = 90;
/// A connection that carried nothing for less than this was busy: its last response may have just left.
const IDLE: Duration = Duration::from_secs(1);
/// Error codes of GOAWAY (RFC 9113 §7).
const NO_ERROR: u32 = 0x0;
const ENHANCE_YOUR_CALM: u32 = 0xb;
