//! Handles of one environment: counters that its pool moves, gauges that are read from its status at a scrape.

use metrics::{Counter, Gauge, Histogram};
use pool::{
    BreakerState, CauseOfDeath, ConnectionStatus, DriftField, GenerationRole, PoolStatus, Stale, State,
    Verdict,
};

use super::{Registrar, definitions as def};
use crate::{
    outcome::ErrorCode,
    telemetry::view::{CertificateRole, Condition, PoolView},
};

/// Phases of a dial, in order.
pub(super) const DIAL_PHASES: [&str; 5] = ["dns", "tcp", "tls", "prove", "total"];

/// Kinds of handshake with a duration.
pub(super) const KINDS: [&str; 2] = ["full", "resumed"];

/// The kind of a handshake that did not end.
const UNKNOWN_KIND: usize = 2;

/// States that a connection can be seen in; closed ones are counted, not shown.
const STATES: [State; 4] = [State::Dialing, State::Proving, State::Serving, State::Draining];

const ROLES: [(GenerationRole, &str); 2] =
    [(GenerationRole::Active, "active"), (GenerationRole::Draining, "draining")];

const TICKET_STATES: [&str; 6] = ["held", "stored", "taken", "missing", "expired", "evicted"];

/// Error codes of HTTP/2's GOAWAY that are told apart: an orderly end, a reproach, anything else.
const GOAWAY_ERRORS: [&str; 3] = ["no_error", "enhance_your_calm", "other"];

/// `ok`, then every code, then one for codes that the table does not know.
const RESULT_OK: &str = "ok";
const RESULT_OTHER: &str = "other";

pub(crate) struct EnvironmentMetrics {
    /// By kind, then phase.
    pub(super) handshake_seconds: [[Histogram; 5]; 2],
    /// By kind (unknown last); each `ok`, codes of the table, `other`.
    handshakes: [Vec<Counter>; 3],
    closed: Vec<Counter>,
    pub(super) connection_requests: Histogram,
    retries: Vec<Counter>,
    pub(super) retries_denied: Counter,
    pub(super) unprocessed_lost: Counter,
    stale: [Counter; 2],
    goaways: [Counter; 3],
    drift: Vec<Counter>,
    gauges: Gauges,
}

struct Gauges {
    /// By state, then role.
    connections: [[Gauge; 2]; 4],
    streams: Gauge,
    queue: Gauge,
    reuse: Gauge,
    replay_bytes: Gauge,
    floor_met: Gauge,
    quarantined: Gauge,
    breaker: [Gauge; 3],
    tickets: [Gauge; 6],
    expiry: [Gauge; 3],
}

impl EnvironmentMetrics {
    pub(super) fn register(registrar: &Registrar, environment: &str) -> Self {
        let env = ("environment", environment);
        let results = |kind| {
            let codes = dial_codes().map(ErrorCode::as_str);
            std::iter::once(RESULT_OK)
                .chain(codes)
                .chain([RESULT_OTHER])
                .map(|result| registrar.counter(&def::HANDSHAKES, &[env, ("kind", kind), ("result", result)]))
                .collect()
        };
        let counter = |definition, label, value| registrar.counter(definition, &[env, (label, value)]);
        Self {
            handshake_seconds: KINDS.map(|kind| {
                DIAL_PHASES.map(|phase| {
                    registrar.histogram(&def::HANDSHAKE_SECONDS, &[env, ("phase", phase), ("kind", kind)])
                })
            }),
            handshakes: [results(KINDS[0]), results(KINDS[1]), results("unknown")],
            closed: CauseOfDeath::ALL
                .map(|cause| counter(&def::CONNECTIONS_CLOSED, "cause", cause.as_str()))
                .into(),
            connection_requests: registrar.histogram(&def::CONNECTION_REQUESTS, &[env]),
            retries: Verdict::ALL.map(|verdict| counter(&def::RETRIES, "verdict", verdict.as_str())).into(),
            retries_denied: registrar.counter(&def::RETRIES_DENIED, &[env]),
            unprocessed_lost: registrar.counter(&def::UNPROCESSED_LOST, &[env]),
            stale: Stale::ALL.map(|stale| counter(&def::STALE, "request", stale.as_str())),
            goaways: GOAWAY_ERRORS.map(|error| counter(&def::GOAWAYS, "error", error)),
            drift: DriftField::ALL.map(|field| counter(&def::PROVIDER_DRIFT, "field", field.as_str())).into(),
            gauges: Gauges::register(registrar, environment),
        }
    }

    /// The counter of dials that ended so.
    pub(super) fn handshakes(&self, resumed: Option<bool>, failure: Option<&str>) -> &Counter {
        let results = &self.handshakes[resumed.map_or(UNKNOWN_KIND, usize::from)];
        let index = match failure {
            None => 0,
            Some(code) => {
                dial_codes().position(|known| known.as_str() == code).map_or(results.len() - 1, |at| at + 1)
            }
        };
        &results[index]
    }

    pub(super) fn closed(&self, cause: CauseOfDeath) -> Option<&Counter> {
        CauseOfDeath::ALL.iter().position(|&known| known == cause).map(|at| &self.closed[at])
    }

    pub(super) fn retries(&self, verdict: Verdict) -> Option<&Counter> {
        Verdict::ALL.iter().position(|&known| known == verdict).map(|at| &self.retries[at])
    }

    pub(super) fn stale(&self, stale: Stale) -> &Counter {
        &self.stale[match stale {
            Stale::Unsent => 0,
            Stale::InDoubt => 1,
        }]
    }

    pub(super) fn goaways(&self, error_code: u32) -> &Counter {
        &self.goaways[match h2_reason(error_code) {
            "no_error" => 0,
            "enhance_your_calm" => 1,
            _ => 2,
        }]
    }

    pub(super) fn drift(&self, field: DriftField) -> Option<&Counter> {
        DriftField::ALL.iter().position(|&known| known == field).map(|at| &self.drift[at])
    }

    /// Sets the gauges from how the environment stands now.
    pub(super) fn observe(&self, view: &dyn PoolView) {
        let gauges = &self.gauges;
        let mut expiries = view.certificates();
        match view.condition() {
            Condition::Pooled(status) => {
                gauges.observe_status(&status);
                gauges.quarantined.set(0.0);
                expiries.extend(server_expiry(&status.connections));
            }
            Condition::Quarantined(_) => {
                gauges.floor_met.set(0.0);
                gauges.quarantined.set(1.0);
            }
        }
        for (role, gauge) in CertificateRole::ALL.iter().zip(&gauges.expiry) {
            let earliest = expiries.iter().filter(|e| e.role == *role).map(|e| e.not_after).min();
            gauge.set(earliest.map_or(f64::NAN, |at| at.unix_timestamp() as f64));
        }
    }
}

impl Gauges {
    fn register(registrar: &Registrar, environment: &str) -> Self {
        let env = ("environment", environment);
        let gauge = |definition| registrar.gauge(definition, &[env]);
        Self {
            connections: STATES.map(|state| {
                ROLES.map(|(_, role)| {
                    registrar
                        .gauge(&def::CONNECTIONS, &[env, ("state", state.as_str()), ("generation", role)])
                })
            }),
            streams: gauge(&def::STREAMS_IN_FLIGHT),
            queue: gauge(&def::QUEUE_DEPTH),
            reuse: gauge(&def::REUSE_RATIO),
            replay_bytes: gauge(&def::REPLAY_BYTES),
            floor_met: gauge(&def::FLOOR_MET),
            quarantined: gauge(&def::QUARANTINED),
            breaker: BreakerState::ALL
                .map(|state| registrar.gauge(&def::BREAKER, &[env, ("state", state.as_str())])),
            tickets: TICKET_STATES.map(|state| registrar.gauge(&def::TICKETS, &[env, ("state", state)])),
            expiry: CertificateRole::ALL.map(|role| {
                let gauge = registrar.gauge(&def::CERTIFICATE_EXPIRY, &[env, ("role", role.as_str())]);
                // 0 would read as "expired in 1970".
                gauge.set(f64::NAN);
                gauge
            }),
        }
    }

    fn observe_status(&self, status: &PoolStatus) {
        for (state, by_role) in STATES.iter().zip(&self.connections) {
            for ((role, _), gauge) in ROLES.iter().zip(by_role) {
                let matching = |c: &&ConnectionStatus| c.state == *state && c.role == *role;
                let mut count = status.connections.iter().filter(matching).count();
                if (*state, *role) == (State::Dialing, GenerationRole::Active) {
                    count += unlisted_dials(status);
                }
                gauge.set(count as f64);
            }
        }
        self.streams.set(f64::from(status.in_flight));
        self.queue.set(f64::from(status.queue_depth));
        self.reuse.set(status.reuse_ratio);
        self.replay_bytes.set(status.replay_bytes as f64);
        self.floor_met.set(if status.floor_met { 1.0 } else { 0.0 });
        for (state, gauge) in BreakerState::ALL.iter().zip(&self.breaker) {
            gauge.set(if *state == status.breaker.state { 1.0 } else { 0.0 });
        }
        let t = &status.tickets;
        let counts = [t.held, t.stored, t.taken, t.missing, t.expired, t.evicted];
        for (gauge, count) in self.tickets.iter().zip(counts) {
            gauge.set(count as f64);
        }
    }
}

/// Dials under way that are not in the list of connections yet: a connection is listed from its handshake on.
fn unlisted_dials(status: &PoolStatus) -> usize {
    let listed = |c: &&ConnectionStatus| matches!(c.state, State::Dialing | State::Proving);
    (status.dialling as usize).saturating_sub(status.connections.iter().filter(listed).count())
}

/// The earliest end of validity among the certificates that the provider presented on live connections.
fn server_expiry(connections: &[ConnectionStatus]) -> Option<crate::telemetry::CertificateExpiry> {
    let not_after = connections.iter().map(|c| c.handshake.peer_not_after).min()?;
    Some(crate::telemetry::CertificateExpiry { role: CertificateRole::Server, not_after })
}

/// The codes that a dial can fail with: those of the table from name resolution to the protocol.
fn dial_codes() -> impl Iterator<Item = ErrorCode> + Clone {
    ErrorCode::ALL
        .iter()
        .copied()
        .filter(|code| (ErrorCode::DnsFailure..=ErrorCode::ProviderProtocolError).contains(code))
}

/// RFC 9113 §7.
fn h2_reason(error_code: u32) -> &'static str {
    match error_code {
        0x0 => "no_error",
        0xb => "enhance_your_calm",
        _ => "other",
    }
}
