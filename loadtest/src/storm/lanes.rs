//! The callers of a storm: ten lanes with a tenth of the rate each, one kind of request per lane, all on one
//! thread of their own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, uri::PathAndQuery};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    away::Absence,
    books::{Books, Held, classify},
    weather::Steering,
};
use crate::{
    args::ProtocolArg,
    caller::Exchange,
    error::Error,
    grpc::SendTarget,
    plan::Plan,
    record::{Live, Lost, LostKind, Reply},
    schedule::{Extent, Pacing, Schedule, Share, Ticket},
    source::Source,
    units::status_set,
    worker,
};

/// How long a caller waits for a reply: longer than any time limit of the gateway that a storm can reach.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between the last connection of a caller and the first request.
const HEAD_START: Duration = Duration::from_millis(20);

const SMALL: u64 = 1 << 10;
/// Streamed, and below the replay buffer of 64 KiB.
const MIDDLE: u64 = 48 << 10;
/// Streamed, and above it.
const LARGE: u64 = 128 << 10;

/// One kind of request.
#[derive(Clone, Copy, Debug)]
struct Lane {
    protocol: ProtocolArg,
    body: Body,
    connections: u32,
    streams: u32,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    None,
    Small,
    Streamed(u64),
}

const fn http1(body: Body) -> Lane {
    Lane { protocol: ProtocolArg::Http1, body, connections: 96, streams: 1 }
}

const fn h2c(body: Body) -> Lane {
    Lane { protocol: ProtocolArg::H2c, body, connections: 2, streams: 64 }
}

/// Request `n` is of lane `n % 10`.
const LANES: [Lane; 10] = [
    h2c(Body::None),
    h2c(Body::None),
    h2c(Body::Small),
    h2c(Body::Small),
    h2c(Body::Streamed(MIDDLE)),
    h2c(Body::Streamed(LARGE)),
    http1(Body::None),
    http1(Body::Small),
    http1(Body::Streamed(MIDDLE)),
    Lane { protocol: ProtocolArg::Grpc, body: Body::Small, connections: 2, streams: 64 },
];

/// Most requests that a storm of this rate and length starts.
pub(super) fn requests(rate: f64, lasts: Duration) -> usize {
    (rate * lasts.as_secs_f64()).ceil() as usize + LANES.len()
}

/// What all lanes share.
#[derive(Clone, Debug)]
pub(super) struct Callers {
    /// Where they call.
    pub egress: std::net::SocketAddr,
    /// Requests per second, over all lanes.
    pub rate: f64,
    /// How long requests start.
    pub lasts: Duration,
    /// Prefix of the correlation ids.
    pub prefix: String,
    /// Which requests end their connection.
    pub steering: Steering,
    /// Where outcomes go.
    pub books: Arc<Books>,
    /// When the provider is away.
    pub absence: Arc<Absence>,
    /// True: start no further request.
    pub stop: watch::Receiver<bool>,
}

impl Callers {
    /// Connects, says through `started` when the first request is meant to start, runs until the last has ended.
    ///
    /// # Errors
    /// When a caller cannot connect before the start, or the system refuses a runtime or a timer.
    pub(super) fn run(self, started: oneshot::Sender<Instant>) -> Result<(), Error> {
        let failed = |action| move |source| Error::System { action, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed("start a runtime"))?;
        runtime.block_on(self.work(started))
    }

    async fn work(self, started: oneshot::Sender<Instant>) -> Result<(), Error> {
        let mut ready = Vec::new();
        for (index, lane) in (0..).zip(LANES) {
            let plan = Arc::new(self.plan(lane));
            let mut callers = Vec::new();
            for _ in 0..lane.connections {
                let connected = worker::connect(plan.clone(), Arc::new(Live::default())).await;
                let connected =
                    connected.map_err(|lost| Error::Connect { address: self.egress, cause: lost.detail })?;
                callers.extend(connected);
            }
            ready.push((index, lane, callers));
        }
        let start = Instant::now() + HEAD_START;
        // Nobody listens only if the storm was given up.
        let _given_up = started.send(start);
        let mut running = JoinSet::new();
        let mut sources = Vec::new();
        for (index, lane, callers) in ready {
            let share = Share { index, workers: LANES.len() as u64 };
            let pacing = Pacing::Open { rate: self.rate };
            let schedule = Schedule::new(pacing, start, Duration::ZERO, Extent::Time(self.lasts), share);
            let source = Arc::new(Source::new(pacing, schedule));
            for caller in callers {
                running.spawn(self.clone().call(lane, source.clone(), caller));
            }
            sources.push(source);
        }
        let mut stop = self.stop.clone();
        let pacing = futures_util::future::try_join_all(sources.iter().map(|source| source.pace()));
        tokio::select! {
            paced = pacing => { paced.map_err(|source| Error::System { action: "use a timer", source })?; }
            _ = stop.wait_for(|stop| *stop) => sources.iter().for_each(|source| source.close()),
        }
        while running.join_next().await.is_some() {}
        Ok(())
    }

    async fn call(self, lane: Lane, source: Arc<Source>, mut caller: worker::Caller) {
        let held = match lane.body {
            Body::Streamed(LARGE) => Held::InPart,
            _ => Held::Whole,
        };
        while let Some(ticket) = source.next().await {
            self.books.offer(ticket.sequence);
            let result = exchange(&mut caller, &ticket).await;
            let outcome = classify(&result, held, self.absence.reach(Instant::now()));
            let cause = result.err().map(|lost| lost.detail);
            self.books.enter(ticket.sequence, outcome, cause.as_deref(), ticket.intended);
        }
    }

    fn plan(&self, lane: Lane) -> Plan {
        let (body, upload_bytes, sent) = match lane.body {
            Body::None => (Bytes::new(), None, 0),
            Body::Small => (Bytes::from(vec![b'x'; SMALL as usize]), None, SMALL),
            Body::Streamed(size) => (Bytes::new(), Some(size), size),
        };
        Plan {
            address: self.egress,
            protocol: lane.protocol,
            authority: self.egress.to_string(),
            path: PathAndQuery::from_static("/storm"),
            method: if sent == 0 { Method::GET } else { Method::POST },
            headers: HeaderMap::new(),
            body,
            upload_bytes,
            pacing: Pacing::Open { rate: self.rate },
            extent: Extent::Time(self.lasts),
            warmup: Duration::ZERO,
            timeout: PATIENCE,
            connections: lane.connections,
            streams: lane.streams,
            threads: 1,
            expect_status: status_set("200").expect("a status"),
            // The provider echoes.
            expect_body_bytes: Some(sent),
            correlation: Some(self.prefix.clone()),
            steering: Some(self.steering),
            send_target: SendTarget::ByRoutes,
        }
    }
}

/// One exchange within a caller's patience, counted from when it took the request.
async fn exchange(caller: &mut worker::Caller, ticket: &Ticket) -> Result<Reply, Lost> {
    match tokio::time::timeout(PATIENCE, caller.exchange(ticket)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Lost::new(LostKind::Timeout, "no complete reply in time")),
    }
}
