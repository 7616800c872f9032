//! The gateway as one value: started from a configuration, stopped within a deadline.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use pool::{Obituaries, Pool};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{environment, threads::WorkerThreads};
use crate::{
    admin::{self, AdminListener, AdminState, Readiness},
    config::{AccessLog, Config, ListenAddress, bind_fault},
    egress::{Callers, ClientHeaders, Core, Egress, Listener, Upstream},
    grpc::Health,
    telemetry::{AccessLogTarget, Catalog, CatalogRoute, Metrics, PoolView, Recorder, RecorderOptions},
};

/// Why a start failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be bound.
    #[error("{0}")]
    Listen(io::Error),
    /// The access log cannot be opened.
    #[error("the access log cannot be opened: {0}")]
    AccessLog(io::Error),
    /// Threads cannot be started.
    #[error("worker threads cannot be started: {0}")]
    Threads(io::Error),
    /// The TLS configuration of an environment cannot be built.
    #[error("environments.{environment}: {detail}")]
    Tls {
        /// The environment.
        environment: String,
        /// What is wrong.
        detail: String,
    },
}

/// What a stop had to cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Connections of callers that had not ended.
    pub callers: usize,
    /// Streams to providers that had not ended.
    pub streams: u32,
    /// Lines of the access log that were not written.
    pub log_lines: usize,
}

impl Stopped {
    /// Nothing was cut.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// A running gateway.
pub struct Gateway {
    core: Arc<Core>,
    egress: Egress,
    egress_addresses: Vec<SocketAddr>,
    admin_address: Option<SocketAddr>,
    views: Arc<[Arc<dyn PoolView>]>,
    pools: Vec<Pool>,
    recorder: Recorder,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
    tasks: TaskTracker,
    drain: Duration,
    threads: WorkerThreads,
}

impl Gateway {
    /// Binds every listener, starts pools and threads, and begins to accept. The current runtime is the control
    /// runtime: supervisors, admin listener and accept loops run on it.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        // Listeners first: a port in use is the commonest mistake, and costs nothing to find out.
        let listeners: Vec<_> = config
            .egress
            .listen
            .iter()
            .map(Listener::bind)
            .collect::<Result<_, _>>()
            .map_err(StartError::Listen)?;
        let admin = bind_admin(&config.admin.listen).await.map_err(StartError::Listen)?;
        let threads = WorkerThreads::start(config.runtime.workers).map_err(StartError::Threads)?;
        let metrics = Metrics::new(catalog(config));
        let recorder =
            Recorder::start(&recorder_options(config), metrics.clone()).map_err(StartError::AccessLog)?;

        let obituaries = Obituaries::new(Arc::new(tls_core::SystemClock));
        let upstreams = start_pools(config, &threads, &metrics, &obituaries)?;
        let views: Arc<[Arc<dyn PoolView>]> = config
            .environments
            .iter()
            .zip(&upstreams)
            .map(|(e, u)| Arc::new(environment::View::new(e, u)) as Arc<dyn PoolView>)
            .collect();
        let pools = upstreams.iter().filter_map(|u| u.pool.as_ref().ok().cloned()).collect();

        let readiness = Readiness::new(views.iter().cloned());
        let health = Health::new(&readiness).await;
        let core = Arc::new(core(config, upstreams));
        let egress = Egress::new(core.clone(), threads.workers().clone(), &recorder, &health);
        let egress_addresses = listeners.iter().filter_map(Listener::local_address).collect();
        let admin_address = admin.local_address();

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(health.clone().run(readiness.clone(), stop.clone()));
        let state = AdminState {
            telemetry: recorder.flusher(),
            pools: views.clone(),
            obituaries,
            readiness: readiness.clone(),
            health,
        };
        tasks.spawn(admin::serve(admin, state, stop.clone()));
        for listener in listeners {
            egress.listen(listener);
        }
        Ok(Self {
            core,
            egress,
            egress_addresses,
            admin_address,
            views,
            pools,
            recorder,
            readiness,
            stop,
            tasks,
            drain: config.shutdown.drain,
            threads,
        })
    }

    /// TCP addresses of the egress listeners, in the order of the configuration.
    #[must_use]
    pub fn egress_addresses(&self) -> &[SocketAddr] {
        &self.egress_addresses
    }

    /// TCP address of the admin listener.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The environments as seen from outside.
    #[must_use]
    pub fn views(&self) -> &Arc<[Arc<dyn PoolView>]> {
        &self.views
    }

    /// The pools of the environments that have one (a quarantined one has none), in the order of the configuration.
    #[must_use]
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// Readiness, as `/readyz` answers it.
    #[must_use]
    pub fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    /// Stops: not ready, no more callers, GOAWAY to those there are, drain, end of pools, last log lines. Returns
    /// what did not end in time.
    ///
    /// # Cancel safety
    /// Dropping it ends everything at once.
    pub async fn stop(self) -> Stopped {
        let deadline = Instant::now() + self.drain;
        let left = |least: Duration| deadline.saturating_duration_since(Instant::now()).max(least);
        self.readiness.stop();
        self.core.stop();
        self.egress.begin_drain();
        let callers = self.egress.drained(left(Duration::ZERO)).await;
        let mut streams = 0;
        for pool in &self.pools {
            streams += pool.stop(left(LEAST_POOL_STOP)).await.streams;
        }
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(left(LEAST_ADMIN_STOP), self.tasks.wait()).await;
        // Connections that are cut here still record their outcome: the threads end before the recorder does.
        drop(self.threads);
        let log_lines = self.recorder.stop(left(LEAST_LOG_STOP)).lines_cut;
        Stopped { callers, streams, log_lines }
    }
}

/// Even after the deadline each part gets a moment to say goodbye: GOAWAY, the last log lines.
const LEAST_POOL_STOP: Duration = Duration::from_millis(200);
const LEAST_ADMIN_STOP: Duration = Duration::from_millis(200);
const LEAST_LOG_STOP: Duration = Duration::from_secs(1);

async fn bind_admin(address: &ListenAddress) -> io::Result<AdminListener> {
    let bound = match address {
        ListenAddress::Tcp(address) => AdminListener::bind_tcp(*address).await,
        ListenAddress::Unix(path) => admin::bind_unix(path).map(AdminListener::Unix),
    };
    bound.map_err(|e| io::Error::new(e.kind(), bind_fault(address, &e)))
}

fn catalog(config: &Config) -> Catalog {
    Catalog {
        environments: config.environments.iter().map(|e| e.name.clone()).collect(),
        routes: config
            .routes
            .iter()
            .map(|r| CatalogRoute { name: r.name.clone(), environment: r.environment })
            .collect(),
        callers: config.callers.iter().map(|caller| caller.name.clone()).collect(),
    }
}

fn recorder_options(config: &Config) -> RecorderOptions {
    RecorderOptions {
        workers: config.runtime.workers.get(),
        access_log: match &config.log.access {
            AccessLog::Off => AccessLogTarget::Off,
            AccessLog::Stdout => AccessLogTarget::Stdout,
            AccessLog::Stderr => AccessLogTarget::Stderr,
            AccessLog::File(path) => AccessLogTarget::File(path.clone()),
        },
        queue_lines: config.log.queue_lines,
        ..RecorderOptions::default()
    }
}

fn start_pools(
    config: &Config,
    threads: &WorkerThreads,
    metrics: &Metrics,
    obituaries: &Arc<Obituaries>,
) -> Result<Vec<Upstream>, StartError> {
    let start = |(index, environment): (usize, &crate::config::Environment)| {
        let observer = metrics.observer(index).unwrap_or_else(|| Arc::new(pool::Unobserved));
        environment::start(environment, threads.workers().clone(), observer, obituaries.clone())
            .map_err(|e| StartError::Tls { environment: environment.name.clone(), detail: e.to_string() })
    };
    config.environments.iter().enumerate().map(start).collect()
}

fn core(config: &Config, upstreams: Vec<Upstream>) -> Core {
    let client_headers =
        if config.egress.forward_client_headers { ClientHeaders::Forward } else { ClientHeaders::Strip };
    let (routes, limits) = (config.routes.clone(), config.limits.clone());
    let mut core = Core::new(upstreams, routes, limits, config.caller_timeouts, client_headers);
    core.deadline_header = config.egress.deadline_header.clone();
    core.callers = Callers::new(&config.callers);
    core
}
