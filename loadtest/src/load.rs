//! Steady callers on the runtime at hand, for figures that are taken while something happens to the connections:
//! 1 KiB POSTs over four h2c connections, in an open loop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, uri::PathAndQuery};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    args::ProtocolArg,
    caller::Exchange,
    error::Error,
    grpc::SendTarget,
    plan::Plan,
    record::Live,
    schedule::{Extent, Pacing, Schedule, Share},
    source::Source,
    units::status_set,
    worker,
};

/// What a caller waits for a reply.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request's end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// When it was meant to start.
    pub intended: Instant,
    /// When it ended.
    pub at: Instant,
    /// A complete, expected reply.
    pub answered: bool,
}

/// Callers at a fixed rate until they are stopped. Dropping it cuts them.
#[derive(Debug)]
pub(crate) struct Load {
    source: Arc<Source>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Connects and starts; how each request ended goes to `ends`.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub(crate) async fn start(
        egress: SocketAddr,
        rate: f64,
        ends: Arc<Mutex<Vec<Ended>>>,
    ) -> Result<Self, Error> {
        let plan = Arc::new(plan(egress, rate));
        let share = Share { index: 0, workers: 1 };
        let Plan { pacing, extent, connections, .. } = *plan;
        let schedule = Schedule::new(pacing, Instant::now(), Duration::ZERO, extent, share);
        let source = Arc::new(Source::new(pacing, schedule));
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let callers = worker::connect(plan.clone(), Arc::new(Live::default())).await;
            let callers = callers.map_err(|lost| Error::Connect { address: egress, cause: lost.detail })?;
            for caller in callers {
                tasks.spawn(call(caller, source.clone(), ends.clone()));
            }
        }
        let pacing = source.clone();
        tasks.spawn(async move {
            // Without a timer no request starts, and no recovery shows a reply.
            let _no_timer = pacing.pace().await;
        });
        Ok(Self { source, tasks })
    }

    /// Starts no further request, and waits for the ends of those under way.
    pub(crate) async fn stop(mut self) {
        self.source.close();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn call(mut caller: worker::Caller, source: Arc<Source>, ends: Arc<Mutex<Vec<Ended>>>) {
    while let Some(ticket) = source.next().await {
        let result = tokio::time::timeout(PATIENCE, caller.exchange(&ticket)).await;
        let answered = matches!(result, Ok(Ok(_)));
        ends.lock().push(Ended { intended: ticket.intended, at: Instant::now(), answered });
    }
}

fn plan(egress: SocketAddr, rate: f64) -> Plan {
    Plan {
        address: egress,
        protocol: ProtocolArg::H2c,
        authority: egress.to_string(),
        path: PathAndQuery::from_static("/load"),
        method: Method::POST,
        headers: HeaderMap::new(),
        body: Bytes::from_static(&[b'x'; 1024]),
        upload_bytes: None,
        pacing: Pacing::Open { rate },
        extent: Extent::Requests(u64::MAX),
        warmup: Duration::ZERO,
        timeout: PATIENCE,
        connections: 4,
        streams: 128,
        threads: 1,
        expect_status: status_set("200").expect("a status"),
        expect_body_bytes: Some(1024),
        correlation: None,
        steering: None,
        send_target: SendTarget::ByRoutes,
    }
}
