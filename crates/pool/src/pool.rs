//! The pool's front door: start it, send through it, look at it, stop it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use parking_lot::Mutex;
use tls_core::Generation;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time::Instant};

use crate::{
    config::{PoolConfig, Timeouts},
    dial::Target,
    dns::{Directory, SystemResolver},
    drift::DriftChange,
    error::SendError,
    hub::Hub,
    journey::Journey,
    key::PoolKey,
    observe::Observer,
    passport::{Obituaries, Records},
    send::{BoxError, ResponseBody, SendOptions, Sending, Sweeper, send},
    status::{BreakerStatus, DRIFT_SHOWN, DialFailureStatus, LearnedStatus, PoolStatus},
    supervisor::{Context, Supervisor},
    verdict::{RetrySafe, Verdict},
    workers::Workers,
};

/// Everything a pool is made from.
pub struct PoolSpec {
    /// Whose pool it is.
    pub key: PoolKey,
    /// Where it dials.
    pub target: Target,
    /// Identity, trust and pins.
    pub generation: Arc<Generation>,
    /// Sizes and lifetimes.
    pub config: PoolConfig,
    /// Time limits of dials.
    pub timeouts: Timeouts,
    /// Seed of every random choice (jitter), so that a run can be repeated.
    pub seed: u64,
    /// Where connections run.
    pub workers: Workers,
    /// Who hears of events.
    pub observer: Arc<dyn Observer>,
    /// Where dead connections are remembered; one for all pools of the process.
    pub obituaries: Arc<Obituaries>,
}

/// Warm, proven connections to one environment. Cheap to clone; all clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    pub(crate) context: Arc<Context>,
    pub(crate) supervisor: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("key", &self.context.key).finish_non_exhaustive()
    }
}

/// What a stop had to cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Streams that had not ended by the deadline.
    pub streams: u32,
}

impl Pool {
    /// Starts a pool: its supervisor runs on `control`, its connections on the spec's workers. Dialling the floor
    /// begins at once.
    #[must_use]
    pub fn start(spec: PoolSpec, control: &Handle) -> Self {
        let hub = Hub::new(spec.generation, &spec.config, spec.workers.len());
        let records = Records::new(&spec.key.environment, spec.obituaries);
        let waking = hub.clone();
        let directory = Directory::start(
            spec.target.place(),
            spec.timeouts.connect,
            SystemResolver::new(spec.config.name_servers.clone()),
            control,
            move || waking.supervisor.notify_one(),
        );
        let context = Arc::new(Context {
            key: spec.key,
            directory,
            sending: Sending::new(&spec.config, spec.workers.len()),
            target: spec.target,
            config: spec.config,
            timeouts: spec.timeouts,
            hub,
            workers: spec.workers,
            observer: spec.observer,
            records,
        });
        Sweeper::start(&context, control);
        let supervisor = Supervisor::new(context.clone(), spec.seed);
        let task = control.spawn(supervisor.run());
        Self { context, supervisor: Arc::new(Mutex::new(Some(task))) }
    }

    /// Whose pool it is.
    #[must_use]
    pub fn key(&self) -> &PoolKey {
        &self.context.key
    }

    /// Carries one request to the provider. Its URI must be absolute; its headers must hold no hop-by-hop fields.
    ///
    /// What happens on the way is written to `journey` as it happens, so that it is known even of a request that
    /// is given up half way.
    ///
    /// # Errors
    /// [`SendError`] says why there is no response, whether a retry is safe, and what happened on the way.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue, or the stream: it is reset with CANCEL, or, above
    /// [`PoolConfig::resets_per_30s`], read to its end on its own lease for at most 10 s. The provider may have processed
    /// the request.
    pub async fn send<B>(
        &self,
        request: Request<B>,
        options: &SendOptions,
        journey: &mut Journey,
    ) -> Result<Response<ResponseBody>, SendError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        // Held until the response has begun.
        let _trial = self.context.hub.admit().map_err(|kind| {
            let (verdict, retry_safe) = (Some(Verdict::NotSent), RetrySafe::Yes);
            SendError { kind, verdict, retry_safe, journey: *journey }
        })?;
        send(&self.context, request, options, journey).await
    }

    /// Uses another generation from now on, make-before-break: new connections use it, new streams start on them as soon
    /// as one has a stream free, and the old connections retire when the load can be carried without them. But where the new generation believes less (an anchor or a
    /// pin was removed, pins were introduced, another server name), no new stream starts on the old connections from
    /// now on, whatever the floor. Passing the active generation again changes nothing.
    pub fn activate(&self, generation: Arc<Generation>) {
        let hub = &self.context.hub;
        let active = hub.generation.load_full();
        if Arc::ptr_eq(&active, &generation) {
            return;
        }
        let withdrawn = withdraws_trust(&active, &generation);
        let serial = generation.serial();
        hub.switch(generation);
        if withdrawn {
            hub.withdraw_below(serial);
        }
        hub.supervisor.notify_one();
    }

    /// How long a caller that was refused because nothing serves should wait: until the breaker's next trial. `None`
    /// while the breaker is closed, or its trial is due.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let until = self.context.hub.known.load().breaker.until?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Whether the floor is met, and when that changes.
    #[must_use]
    pub fn floor(&self) -> watch::Receiver<bool> {
        self.context.hub.floor()
    }

    /// Waits until the floor is met.
    ///
    /// # Cancel safety
    /// Waits only.
    pub async fn warm(&self) {
        // The sender lives in the hub that we hold: the wait cannot fail.
        let _ = self.floor().wait_for(|met| *met).await;
    }

    /// What the pool looks like now.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let now = Instant::now();
        let context = &self.context;
        let hub = &context.hub;
        let generation = hub.generation.load();
        let totals = hub.totals();
        let known = hub.known.load();
        let connections: Vec<_> =
            hub.links().iter().map(|link| link.status(now, generation.serial())).collect();
        PoolStatus {
            environment: context.key.environment.clone(),
            customer: context.key.customer.clone(),
            authority: context.key.authority.clone(),
            floor_met: *hub.floor().borrow(),
            min_connections: context.config.min_connections,
            max_connections: context.config.max_connections,
            generation: generation.serial(),
            queue_depth: hub.waiting(),
            in_flight: connections.iter().map(|c| c.in_flight).sum(),
            replay_bytes: self.context.sending.memory.held(),
            dialling: hub.dialling(),
            last_failure: hub.last_failure().map(|outage| DialFailureStatus {
                code: outage.error.code(),
                message: outage.error.to_string(),
                ago: now.saturating_duration_since(outage.at),
            }),
            breaker: BreakerStatus {
                next_trial_in: known.breaker.until.map(|at| at.saturating_duration_since(now)),
                ..known.breaker.clone()
            },
            learned: LearnedStatus { ping_interval: hub.ping_interval(), ..known.learned },
            health: known.health,
            resolution: context.directory.status(now),
            tickets: generation.tickets().stats(),
            reuse_ratio: reuse_ratio(totals.requests, totals.connections),
            totals,
            connections,
            drift: context.records.drift.lock().changes().take(DRIFT_SHOWN).cloned().collect(),
        }
    }

    /// What changed about the provider since the pool started, newest first, at most 256 changes.
    #[must_use]
    pub fn drift(&self) -> Vec<DriftChange> {
        self.context.records.drift.lock().changes().cloned().collect()
    }

    /// Stops the pool: refuses new requests, lets streams end until `limit` has passed, then cuts the rest.
    ///
    /// # Cancel safety
    /// Dropping it leaves the pool stopping, without a deadline.
    pub async fn stop(&self, limit: Duration) -> Cut {
        self.context.hub.stop();
        self.context.directory.stop();
        let task = self.supervisor.lock().take();
        let Some(mut task) = task else { return Cut::default() };
        if tokio::time::timeout(limit, &mut task).await.is_ok() {
            return Cut::default();
        }
        let streams = self.context.hub.links().iter().map(|l| l.in_flight()).sum();
        task.abort();
        Cut { streams }
    }
}

/// Something that `old` believed, `new` does not.
fn withdraws_trust(old: &Generation, new: &Generation) -> bool {
    let (old, new) = (old.trust(), new.trust());
    let anchor_gone =
        old.anchors().iter().any(|a| new.anchors().iter().all(|b| b.fingerprint() != a.fingerprint()));
    let pin_gone = old.pins().iter().any(|pin| !new.pins().contains(pin)) && !new.pins().is_empty();
    let pins_introduced = old.pins().is_empty() && !new.pins().is_empty();
    anchor_gone || pin_gone || pins_introduced || old.server_name() != new.server_name()
}

/// 1 − connections ÷ requests, never below 0; 0 before the first request.
fn reuse_ratio(requests: u64, connections: u64) -> f64 {
    if requests == 0 {
        return 0.0;
    }
    // Counts stay far below 2^53, where f64 is exact.
    (1.0 - connections as f64 / requests as f64).max(0.0)
}
