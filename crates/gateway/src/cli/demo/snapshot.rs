//! One look at everything: what the pools say, what the callers say, and the handshakes seen so far.

use std::{collections::BTreeSet, time::Duration};

use hdrhistogram::Histogram;
use pool::{PoolStatus, State};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    lab::{Lab, PLANS},
    tally::{self, Counts, Quantiles},
    traffic::Traffic,
};
use crate::telemetry::Condition;

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Since the traffic began.
    pub(super) elapsed: Duration,
    /// How long it is to go on, where that is known.
    pub(super) planned: Option<Duration>,
    /// Latency of answered requests of all environments.
    pub(super) latency: Quantiles,
    /// One per environment.
    pub(super) environments: Vec<Environment>,
}

/// One environment at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Environment {
    pub(super) name: &'static str,
    pub(super) connections: Connections,
    pub(super) in_flight: u32,
    pub(super) queue: u32,
    /// Requests that the pool has carried, also those of others than our callers.
    pub(super) requests: u64,
    /// 1 - connections / requests.
    pub(super) reuse_ratio: f64,
    pub(super) handshakes_full: Handshakes,
    pub(super) handshakes_resumed: Handshakes,
    pub(super) dials_failed: u64,
    pub(super) goaways: u64,
    /// Requests sent again because the provider provably had not processed them.
    pub(super) replays: u64,
    /// Requests that found no free stream at once.
    pub(super) waited_for_dial: u64,
    /// What our callers saw.
    pub(super) calls: Counts,
    /// Answers per second, of late.
    #[serde(skip)]
    pub(super) per_second: f64,
    /// Why the last dial failed, if none succeeded since.
    pub(super) failure: Option<String>,
}

/// Connections by state.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Connections {
    pub(super) dialing: u32,
    pub(super) serving: u32,
    pub(super) draining: u32,
}

/// Handshakes of one kind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Handshakes {
    /// Of connections that came to serve.
    pub(super) count: u64,
    /// How long TLS took, as far as connections were seen alive; those that live shorter than a look may be
    /// missing.
    pub(super) tls: Quantiles,
}

impl Snapshot {
    /// Answered and lost, over all environments.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.environments
            .iter()
            .fold((0, 0), |(answered, lost), e| (answered + e.calls.answered, lost + e.calls.lost))
    }
}

/// What has to be remembered from look to look.
pub(super) struct Observed {
    began: Instant,
    planned: Option<Duration>,
    memories: Vec<Memory>,
}

struct Memory {
    /// Connections of the last look: a new one is one that was not there.
    known: BTreeSet<u64>,
    full: Histogram<u64>,
    resumed: Histogram<u64>,
    answered: u64,
    at: Instant,
    per_second: f64,
}

/// Weight of the newest look in the rate: it settles within a second.
const NEWEST: f64 = 0.3;

impl Observed {
    /// Time counts from now.
    pub(super) fn new(planned: Option<Duration>) -> Self {
        let began = Instant::now();
        let memory = |_| Memory {
            known: BTreeSet::new(),
            full: tally::histogram(),
            resumed: tally::histogram(),
            answered: 0,
            at: began,
            per_second: 0.0,
        };
        Self { began, planned, memories: PLANS.iter().map(memory).collect() }
    }

    /// When the planned time is over.
    pub(super) fn end(&self) -> Option<Instant> {
        self.planned.map(|planned| self.began + planned)
    }

    /// Looks.
    pub(super) fn look(&mut self, lab: &Lab, traffic: &Traffic) -> Snapshot {
        let mut all = tally::histogram();
        let mut environments = Vec::new();
        for (index, plan) in PLANS.iter().enumerate() {
            traffic.tallies()[index].add_to(&mut all);
            let calls = traffic.tallies()[index].counts();
            let condition = lab.views()[index].condition();
            environments.push(self.memories[index].look(plan.name, condition, calls));
        }
        let elapsed = self.began.elapsed();
        Snapshot { elapsed, planned: self.planned, latency: tally::quantiles(&all), environments }
    }
}

impl Memory {
    fn look(&mut self, name: &'static str, condition: Condition, calls: Counts) -> Environment {
        self.settle_rate(calls.answered);
        let environment = Environment { name, calls, per_second: self.per_second, ..Environment::default() };
        match condition {
            Condition::Pooled(status) => {
                self.meet(&status);
                self.describe(&status, environment)
            }
            Condition::Quarantined(quarantined) => {
                Environment { failure: Some(quarantined.message), ..environment }
            }
        }
    }

    fn settle_rate(&mut self, answered: u64) {
        let now = Instant::now();
        let seconds = (now - self.at).as_secs_f64();
        // The first look comes at once; a rate over nothing says nothing.
        if seconds > 0.05 {
            let newest = (answered - self.answered) as f64 / seconds;
            let weight = if self.per_second == 0.0 { 1.0 } else { NEWEST };
            self.per_second += weight * (newest - self.per_second);
            (self.answered, self.at) = (answered, now);
        }
    }

    /// Enters the handshakes of connections that were not there before.
    fn meet(&mut self, status: &PoolStatus) {
        for connection in status.connections.iter().filter(|c| !self.known.contains(&c.id.0)) {
            let histogram =
                if connection.handshake.kind.is_resumed() { &mut self.resumed } else { &mut self.full };
            if let Some(took) = connection.phases.tls {
                tally::record(histogram, took);
            }
        }
        self.known = status.connections.iter().map(|c| c.id.0).collect();
    }

    fn describe(&self, status: &PoolStatus, environment: Environment) -> Environment {
        let count = |state| status.connections.iter().filter(|c| c.state == state).count() as u32;
        let totals = &status.totals;
        Environment {
            connections: Connections {
                dialing: status.dialling,
                serving: count(State::Serving),
                draining: count(State::Draining),
            },
            in_flight: status.in_flight,
            queue: status.queue_depth,
            requests: totals.requests,
            reuse_ratio: status.reuse_ratio,
            handshakes_full: Handshakes { count: totals.handshakes_full, tls: tally::quantiles(&self.full) },
            handshakes_resumed: Handshakes {
                count: totals.handshakes_resumed,
                tls: tally::quantiles(&self.resumed),
            },
            dials_failed: totals.dials_failed,
            goaways: totals.goaways,
            replays: totals.replays,
            waited_for_dial: totals.waited_for_dial,
            failure: status.last_failure.as_ref().map(|f| format!("{}: {}", f.code, f.message)),
            ..environment
        }
    }
}
