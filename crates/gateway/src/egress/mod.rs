//! The egress facade: internal services call here in plain HTTP/1.1, HTTP/2 cleartext or gRPC.
//!
//! ```text
//! accept ─▶ sniff ─▶ survey ─▶ route ─▶ prepare ─▶ pool.send ─▶ reply ─▶ outcome
//! accept.rs  io.rs   headers   route.rs  service.rs            body.rs  exchange.rs
//! ```
//! Owns the way of a request from a caller's socket to the pool and back. Connections to the provider are the
//! pool's; what is written about a request is telemetry's.

mod accept;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod body;
mod caller;
mod callers;
mod connection;
mod core;
mod deadline;
mod exchange;
mod headers;
mod io;
mod last_words;
mod path;
mod reply;
mod route;
mod send;
mod service;
mod upload;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pool::Workers;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::reply::{document, retry_after, server_timing};
use self::{accept::Acceptor, connection::Server, send::WholeRequests};
pub use self::{
    accept::Listener,
    body::ReplyBody,
    callers::{Callers, Peer, Share},
    core::{Core, Refusal, Upstream},
    headers::{CORRELATION_ID, ClientHeaders},
    reply::{GW_ERROR, GW_RETRY_SAFE, SERVER_TIMING},
};
use crate::{
    grpc::{self, GrpcLimits, Health},
    runtime::room_for_callers,
    telemetry::Recorder,
};

/// The running facade.
pub struct Egress {
    acceptor: Arc<Acceptor>,
    drain: CancellationToken,
}

impl Egress {
    /// Prepares to serve on these workers; nothing is accepted yet.
    #[must_use]
    pub fn new(core: Arc<Core>, workers: Workers, recorder: &Recorder, health: &Health) -> Self {
        let drain = CancellationToken::new();
        let limits = GrpcLimits {
            message_bytes: core.limits.grpc_message_bytes,
            max_headers: core.limits.max_headers,
            max_header_bytes: core.limits.max_header_bytes,
        };
        let whole = Arc::new(WholeRequests(core.clone()));
        let servers = (0..workers.len())
            .map(|worker| {
                Arc::new(Server {
                    core: core.clone(),
                    recorder: recorder.handle(worker),
                    grpc: grpc::egress_routes(whole.clone(), recorder.handle(worker), health, limits),
                    drain: drain.clone(),
                })
            })
            .collect();
        let callers = room_for_callers(core.limits.max_connections);
        if callers < core.limits.max_connections {
            tracing::warn!(
                callers,
                wanted = core.limits.max_connections,
                "the limit on open files leaves room for fewer callers than limits.max_connections; raise it"
            );
        }
        let load = (0..workers.len()).map(|_| AtomicUsize::new(0)).collect();
        let acceptor = Arc::new(Acceptor {
            servers,
            load,
            permits: Arc::new(Semaphore::new(callers.min(Semaphore::MAX_PERMITS))),
            metrics: recorder.handle(0).metrics().callers().clone(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            workers,
        });
        Self { acceptor, drain }
    }

    /// Starts accepting on `listener`, on the current runtime.
    pub fn listen(&self, listener: Listener) {
        tokio::spawn(self.acceptor.clone().run(listener));
    }

    /// Stops accepting and tells callers to go: `connection: close` on HTTP/1.1, GOAWAY on HTTP/2.
    pub fn begin_drain(&self) {
        self.acceptor.stop.cancel();
        self.drain.cancel();
    }

    /// Waits until every caller has gone, for at most `limit`. Returns how many had not.
    ///
    /// # Cancel safety
    /// Waits only.
    pub async fn drained(&self, limit: Duration) -> usize {
        self.acceptor.tasks.close();
        let _ = tokio::time::timeout(limit, self.acceptor.tasks.wait()).await;
        self.acceptor.load.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }
}
