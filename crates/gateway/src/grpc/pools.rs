//! `Pools.List`, and the same data for `/api/v1/pools`.

use std::{sync::Arc, time::Duration};

use pool::{
    AddressStatus, ConnectionStatus, DialPhases, GenerationRole, LearnedStatus, PoolStatus, Protocol,
    ResolutionStatus,
};
use time::format_description::well_known::Rfc3339;
use tonic::{Request, Response, Status};

use super::proto::{self, pools_server::Pools};
use crate::telemetry::{Condition, PoolView, Requirement, access_log::micros};

/// The service.
pub(super) struct PoolsService {
    pools: Arc<[Arc<dyn PoolView>]>,
}

impl PoolsService {
    pub(super) fn new(pools: Arc<[Arc<dyn PoolView>]>) -> Self {
        Self { pools }
    }
}

#[tonic::async_trait]
impl Pools for PoolsService {
    async fn list(
        &self,
        request: Request<proto::ListPoolsRequest>,
    ) -> Result<Response<proto::ListPoolsResponse>, Status> {
        let name = &request.get_ref().environment;
        list(&self.pools, name)
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("there is no environment `{name}`")))
    }
}

/// The pools as they are now: all of them for an empty name; `None` for a name that is not there.
#[must_use]
pub fn list(pools: &[Arc<dyn PoolView>], environment: &str) -> Option<proto::ListPoolsResponse> {
    let chosen = |view: &&Arc<dyn PoolView>| environment.is_empty() || view.environment() == environment;
    let pools: Vec<_> = pools.iter().filter(chosen).map(|view| pool_message(view.as_ref())).collect();
    (environment.is_empty() || !pools.is_empty()).then_some(proto::ListPoolsResponse { pools })
}

fn pool_message(view: &dyn PoolView) -> proto::Pool {
    let mut message = match view.condition() {
        Condition::Pooled(status) => status_message(*status),
        Condition::Quarantined(quarantined) => proto::Pool {
            quarantine: Some(proto::Quarantine {
                code: quarantined.code.as_str().to_owned(),
                message: quarantined.message,
            }),
            ..proto::Pool::default()
        },
    };
    message.environment = view.environment().to_owned();
    message.required = view.requirement() == Requirement::Required;
    message
}

fn status_message(status: PoolStatus) -> proto::Pool {
    proto::Pool {
        environment: status.environment,
        required: false,
        quarantine: None,
        customer: status.customer,
        authority: status.authority,
        floor_met: status.floor_met,
        min_connections: status.min_connections,
        max_connections: status.max_connections,
        generation: status.generation,
        queue_depth: status.queue_depth,
        in_flight: status.in_flight,
        replay_bytes: status.replay_bytes as u64,
        dialing: status.dialling,
        last_failure: status.last_failure.map(|failure| proto::DialFailure {
            code: failure.code.to_owned(),
            message: failure.message,
            ago_millis: millis(failure.ago),
        }),
        tickets: Some(proto::Tickets {
            held: status.tickets.held,
            stored: status.tickets.stored,
            taken: status.tickets.taken,
            missing: status.tickets.missing,
            expired: status.tickets.expired,
            evicted: status.tickets.evicted,
        }),
        totals: Some(totals_message(&status.totals)),
        reuse_ratio: status.reuse_ratio,
        connections: status.connections.into_iter().map(connection_message).collect(),
        breaker: Some(proto::Breaker {
            state: status.breaker.state.as_str().to_owned(),
            refuses_requests: status.breaker.refuses_requests,
            code: status.breaker.code.map(str::to_owned),
            message: status.breaker.message,
            next_trial_millis: status.breaker.next_trial_in.map(millis),
        }),
        learned: Some(learned_message(&status.learned)),
        health: status.health.map(|health| health.as_str().to_owned()),
        resolution: status.resolution.map(resolution_message),
    }
}

fn learned_message(learned: &LearnedStatus) -> proto::Learned {
    proto::Learned {
        limits: Some(proto::Limits {
            requests: learned.limits.requests,
            age_millis: learned.limits.age.map(millis),
            idle_millis: learned.limits.idle.map(millis),
        }),
        under_test: learned.under_test.map(|id| id.0),
        ping_interval_millis: millis(learned.ping_interval),
        ignores_pings: learned.ignores_pings,
    }
}

fn resolution_message(resolution: ResolutionStatus) -> proto::Resolution {
    let address = |a: AddressStatus| proto::Address {
        address: a.address.to_string(),
        connections: a.connections,
        absent_answers: a.absent_answers,
        failed_lately: a.failed_lately,
    };
    proto::Resolution {
        host: resolution.host,
        valid_millis: resolution.valid_for.map(millis),
        failing_millis: resolution.failing_for.map(millis),
        failure: resolution.failure,
        addresses: resolution.addresses.into_iter().map(address).collect(),
    }
}

fn totals_message(totals: &pool::PoolTotals) -> proto::PoolTotals {
    proto::PoolTotals {
        requests: totals.requests,
        connections: totals.connections,
        handshakes_full: totals.handshakes_full,
        handshakes_resumed: totals.handshakes_resumed,
        dials_failed: totals.dials_failed,
        waited_for_dial: totals.waited_for_dial,
        replays: totals.replays,
        goaways: totals.goaways,
        retries_denied: totals.retries_denied,
        unprocessed_lost: totals.unprocessed_lost,
    }
}

fn connection_message(connection: ConnectionStatus) -> proto::Connection {
    let handshake = connection.handshake;
    proto::Connection {
        id: connection.id.0,
        state: connection.state.as_str().to_owned(),
        protocol: match connection.protocol {
            Protocol::H2 => "h2".to_owned(),
            Protocol::Http11 => "http/1.1".to_owned(),
        },
        generation: connection.generation,
        role: match connection.role {
            GenerationRole::Active => "active".to_owned(),
            GenerationRole::Draining => "draining".to_owned(),
        },
        address: connection.address,
        age_millis: millis(connection.age),
        in_flight: connection.in_flight,
        capacity: connection.capacity,
        requests: connection.requests,
        peak_in_flight: connection.peak_in_flight,
        ping_rtt_micros: connection.ping_rtt.map(micros),
        handshake: Some(proto::Handshake {
            version: handshake.version.as_str().to_owned(),
            cipher_suite: handshake.cipher_suite.to_owned(),
            key_exchange: handshake.key_exchange.unwrap_or_default().to_owned(),
            kind: handshake.kind.as_label().to_owned(),
            peer_chain: handshake.peer_chain.iter().map(ToString::to_string).collect(),
            peer_not_after: handshake.peer_not_after.format(&Rfc3339).unwrap_or_default(),
            anchor: handshake.anchor.to_string(),
            anchor_label: handshake.anchor_label,
        }),
        phases: Some(phases_message(&connection.phases)),
        proof: connection.proof.map(|proof| proof.as_str().to_owned()),
    }
}

fn phases_message(phases: &DialPhases) -> proto::DialPhases {
    proto::DialPhases {
        dns_micros: phases.dns.map(micros),
        tcp_micros: phases.tcp.map(micros),
        tls_micros: phases.tls.map(micros),
        prove_micros: phases.prove.map(micros),
        total_micros: micros(phases.total),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
