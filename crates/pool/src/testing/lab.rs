//! A pool over connections in memory, whose other ends the test plays ([`Peer`]): h2's client and our driver as they
//! run in the product, without sockets, TLS and dials, and with the clock of the test.
//!
//! Owns the supervisor's small part in it: connections are born when the test says so, and published as they stand.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame as BodyFrame};
use parking_lot::Mutex;
use tls_core::SystemClock;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, duplex},
    sync::mpsc,
    task::yield_now,
};

use super::{Peer, facts, generation};
use crate::{
    Obituaries, Pool, PoolConfig, PoolKey, PoolSpec, Target, Timeouts, Verdict, Workers,
    bench::{connect, context_of},
    connection::{Driver, Link, State},
    journey::ConnectionId,
    observe::{DialReport, Observer},
    send::Sweeper,
    status::CauseOfDeath,
};

/// Bytes that a connection in memory takes each way before somebody reads them.
const ROOM: usize = 16 * 1024;

/// A request body that the test feeds piece by piece; it ends with its sender. `None` is no body at all.
pub(crate) struct Feed(pub(crate) Option<mpsc::UnboundedReceiver<Bytes>>);

impl Body for Feed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, io::Error>>> {
        let Some(pieces) = &mut self.0 else { return Poll::Ready(None) };
        pieces.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(BodyFrame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// Remembers the verdicts of attempts that failed by the provider.
#[derive(Default)]
struct Verdicts(Mutex<Vec<Verdict>>);

impl Observer for Verdicts {
    fn dialled(&self, _: &DialReport) {}
    fn closed(&self, _: ConnectionId, _: CauseOfDeath, _: u64) {}
    fn goaway(&self, _: ConnectionId, _: u32) {}
    fn retried(&self, verdict: Verdict) {
        self.0.lock().push(verdict);
    }
    fn drifted(&self, _: crate::DriftField) {}
}

/// A pool and the other ends of its connections, in the order of their birth; the dead ones stay.
pub(crate) struct Lab {
    pub(crate) pool: Pool,
    pub(crate) wires: Vec<(Arc<Link>, Peer)>,
    verdicts: Arc<Verdicts>,
}

impl Lab {
    /// A pool without connections, on the current runtime.
    pub(crate) fn new(config: PoolConfig, timeouts: Timeouts) -> Self {
        let verdicts = Arc::new(Verdicts::default());
        let spec = PoolSpec {
            key: PoolKey {
                customer: "C".into(),
                environment: "sandbox".into(),
                authority: "tsh.test".into(),
            },
            target: Target { host: "tsh.test".into(), port: 443, connect: None, via: None },
            generation: generation(),
            config,
            timeouts,
            seed: 0,
            workers: Workers::current(),
            observer: verdicts.clone(),
            obituaries: Obituaries::new(Arc::new(SystemClock)),
        };
        let context = context_of(spec);
        Sweeper::start(&context, context.workers.handle(0));
        Self { pool: Pool { context, supervisor: Arc::default() }, wires: Vec::new(), verdicts }
    }

    /// A connection in memory comes to serve; its provider allows so many streams.
    pub(crate) async fn birth(&mut self, streams: u32) {
        let (near, far) = duplex(ROOM);
        self.birth_over(near, far, streams).await;
    }

    /// As [`Self::birth`], over this stream, whose other end is `far`.
    pub(crate) async fn birth_over<S>(&mut self, near: S, far: DuplexStream, streams: u32)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let context = self.pool.context.clone();
        let mut peer = Peer::greet(far, streams);
        let born = async { connect(&context, near, 0, facts()).await.expect("it proves itself") };
        let (link, driver) = tokio::select! {
            born = born => born,
            () = async { loop { peer.pump(); yield_now().await; } } => unreachable!(),
        };
        tokio::spawn(Self::drive(self.pool.clone(), link.clone(), driver));
        self.wires.push((link, peer));
        self.publish();
    }

    async fn drive<S: AsyncRead + AsyncWrite + Unpin>(pool: Pool, link: Arc<Link>, driver: Driver<S>) {
        driver.until_ended().await;
        pool.context.hub.unregister(link.id());
    }

    /// As the supervisor does at each turn.
    fn publish(&self) {
        let hub = &self.pool.context.hub;
        let serving: Vec<_> = hub.links().into_iter().filter(|link| link.state() == State::Serving).collect();
        if hub.set_differs(&serving) {
            hub.publish(serving);
        } else {
            hub.dispatch();
        }
    }

    /// Until nothing moves any more, at this moment of the clock.
    pub(crate) async fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            for _ in 0..8 {
                yield_now().await;
            }
            self.publish();
            let moved = self.wires.iter_mut().fold(false, |moved, (_, peer)| peer.pump() || moved);
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    /// A request with this body.
    pub(crate) fn request(body: Feed) -> Request<Feed> {
        let method = if body.0.is_some() { "POST" } else { "GET" };
        Request::builder().method(method).uri("https://tsh.test/pay").body(body).unwrap()
    }

    /// The verdicts so far.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        self.verdicts.0.lock().clone()
    }
}
