//! `grpc.health.v1`, driven by readiness: one service name per environment, the empty name for the gateway.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::admin::Readiness;

/// How often readiness is looked at. A floor is met or lost at the pace of handshakes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The statuses; clones share them.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Everything is NOT_SERVING until [`run`](Self::run) has looked. An environment is SERVING while its floor
    /// was met once and a connection serves; the gateway while it is ready.
    pub async fn new(readiness: &Readiness) -> Self {
        let health = Self { reporter: HealthReporter::new() };
        let names = readiness.serving().map(|(name, _)| name).chain([""]);
        for name in names {
            health.reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
        health
    }

    /// The service.
    pub(super) fn server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Follows readiness until `stop`, then says NOT_SERVING for everything. Also closes readiness' latches.
    pub async fn run(self, readiness: Arc<Readiness>, stop: CancellationToken) {
        let mut shown = HashMap::new();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.follow(&readiness, &mut shown).await,
            }
        }
        readiness.stop();
        self.follow(&readiness, &mut shown).await;
    }

    /// Publishes what changed: watchers are told of every status that is set, changed or not.
    async fn follow(&self, readiness: &Readiness, shown: &mut HashMap<String, bool>) {
        readiness.refresh();
        let overall = readiness.overall().ready;
        for (name, serving) in readiness.serving().chain([("", overall)]) {
            if shown.get(name) == Some(&serving) {
                continue;
            }
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(name, status).await;
            shown.insert(name.to_owned(), serving);
        }
    }
}
