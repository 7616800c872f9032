//! Support for the tests of telemetry, admin and gRPC: a catalog, and environments that stand as a test says.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use pool::{
    BreakerStatus, ConnectionId, ConnectionStatus, DialFailureStatus, DialPhases, GenerationRole,
    LearnedStatus, PassportStatus, PoolStatus, PoolTotals, Proof, Protocol, State,
};
use time::OffsetDateTime;
use tls_core::{Alpn, Fingerprint, HandshakeFacts, HandshakeKind, TicketStats, TlsVersion};

use super::{
    Catalog, CatalogRoute, CertificateExpiry, CertificateRole, Condition, PoolView, Quarantined, Requirement,
};

/// End of validity of every test's server certificate.
pub(crate) const SERVER_NOT_AFTER: i64 = 2_000_000_000;

/// End of validity of every test's client certificate.
pub(crate) const CLIENT_NOT_AFTER: i64 = 1_900_000_000;

/// Two environments; the route `cards` leads to the first, `payments` to the second.
pub(crate) fn catalog() -> Catalog {
    Catalog {
        environments: vec!["sandbox".to_owned(), "production".to_owned()],
        routes: vec![
            CatalogRoute { name: "cards".to_owned(), environment: 0 },
            CatalogRoute { name: "payments".to_owned(), environment: 1 },
        ],
        callers: vec!["batch".to_owned()],
    }
}

/// An environment that stands as told.
pub(crate) struct FakeView {
    name: &'static str,
    requirement: Requirement,
    condition: Mutex<Condition>,
}

impl FakeView {
    /// One that has not dialled yet.
    pub(crate) fn new(name: &'static str, requirement: Requirement) -> Arc<Self> {
        Arc::new(Self { name, requirement, condition: Mutex::new(Condition::Pooled(Box::new(status(name)))) })
    }

    pub(crate) fn edit(&self, edit: impl FnOnce(&mut PoolStatus)) {
        match &mut *self.condition.lock() {
            Condition::Pooled(status) => edit(status),
            Condition::Quarantined(_) => panic!("a quarantined environment has no status"),
        }
    }

    /// Two connections serve.
    pub(crate) fn serve(&self) {
        self.edit(|status| {
            status.floor_met = true;
            status.connections = vec![connection(1, State::Serving), connection(2, State::Serving)];
        });
    }

    /// The provider went away, for this reason.
    pub(crate) fn fail(&self, code: &'static str) {
        self.edit(|status| {
            status.floor_met = false;
            status.connections.clear();
            let message = "nobody there".to_owned();
            status.last_failure = Some(DialFailureStatus { code, message, ago: Duration::from_secs(1) });
        });
    }

    pub(crate) fn quarantine(&self, quarantined: Quarantined) {
        *self.condition.lock() = Condition::Quarantined(quarantined);
    }
}

impl PoolView for FakeView {
    fn environment(&self) -> &str {
        self.name
    }

    fn requirement(&self) -> Requirement {
        self.requirement
    }

    fn condition(&self) -> Condition {
        self.condition.lock().clone()
    }

    fn certificates(&self) -> Vec<CertificateExpiry> {
        vec![CertificateExpiry { role: CertificateRole::Client, not_after: at(CLIENT_NOT_AFTER) }]
    }
}

/// A pool before its first dial.
pub(crate) fn status(environment: &str) -> PoolStatus {
    PoolStatus {
        environment: environment.to_owned(),
        customer: "CUSTOMER-0001".to_owned(),
        authority: "tsh.example".to_owned(),
        floor_met: false,
        min_connections: 2,
        max_connections: 8,
        generation: 1,
        queue_depth: 0,
        in_flight: 0,
        replay_bytes: 0,
        dialling: 0,
        last_failure: None,
        breaker: BreakerStatus::default(),
        learned: LearnedStatus::default(),
        health: None,
        resolution: None,
        tickets: TicketStats::default(),
        totals: PoolTotals::default(),
        reuse_ratio: 0.0,
        connections: Vec::new(),
        drift: Vec::new(),
    }
}

/// A connection of the active generation.
pub(crate) fn connection(id: u64, state: State) -> ConnectionStatus {
    ConnectionStatus {
        id: ConnectionId(id),
        state,
        protocol: Protocol::H2,
        generation: 1,
        role: GenerationRole::Active,
        address: "127.0.0.1:9443".to_owned(),
        age: Duration::from_millis(1500),
        in_flight: 1,
        capacity: 100,
        requests: 7,
        peak_in_flight: 3,
        ping_rtt: Some(Duration::from_micros(250)),
        handshake: HandshakeFacts {
            version: TlsVersion::Tls13,
            cipher_suite: "TLS13_AES_256_GCM_SHA384",
            key_exchange: Some("X25519MLKEM768"),
            kind: HandshakeKind::Full,
            alpn: Some(Alpn::H2),
            peer_chain: vec![Fingerprint::of(b"leaf")],
            peer_not_after: at(SERVER_NOT_AFTER),
            anchor: Fingerprint::of(b"anchor"),
            anchor_label: "chain.pem".to_owned(),
            pin: None,
        },
        phases: DialPhases { total: Duration::from_millis(5), ..DialPhases::default() },
        proof: Some(Proof::Ping),
        passport: PassportStatus { idle: Some(Duration::from_millis(20)), ..PassportStatus::default() },
    }
}

fn at(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).expect("a time in range")
}

/// The value of one series in the text of `/metrics`.
pub(crate) fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// A sink that a test can read.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<u8>>>);

impl Seen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("log lines are UTF-8")
    }

    /// Each line as JSON.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line is one JSON object"))
            .collect()
    }
}

impl io::Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
