//! One connection as JSON, the same shape for the living and the dead. What is not known is not there.

use std::time::Duration;

use pool::{
    Announced, ConnectionId, ConnectionStatus, DialPhases, GenerationRole, GoAwaySeen, Name, Obituary,
    PassportStatus, PinStart, Prefix, Proof, Protocol, State,
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tls_core::{HandshakeKind, TlsVersion};

use crate::telemetry::access_log::micros;

/// A connection. The order of fields is the order in the answer.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) struct Entry {
    id: ConnectionId,
    environment: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<GenerationRole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    born: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    age_millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_millis: Option<u64>,
    requests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u32>,
    peak_in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake: Option<Handshake>,
    phases: Phases,
    #[serde(skip_serializing_if = "Option::is_none")]
    ping: Option<Ping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Settings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goaway: Option<GoAwaySeen>,
}

#[derive(Serialize)]
struct Handshake {
    kind: &'static str,
    version: TlsVersion,
    cipher_suite: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_exchange: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor: Option<String>,
    /// The pin that it satisfied; not there where none was configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tickets_received: Option<u32>,
}

#[derive(Default, Serialize)]
struct Phases {
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prove_micros: Option<u64>,
}

#[derive(Serialize)]
struct Ping {
    first_micros: u64,
    min_micros: u64,
    max_micros: u64,
    last_micros: u64,
    /// The last eight, the eldest first.
    recent_micros: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
}

/// What the provider announced; what it did not is at its default.
#[derive(Serialize)]
struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrent_streams: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_window_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_frame_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_header_list_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header_table_size: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<pool::Setting>,
}

impl Entry {
    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    pub(super) fn living(environment: &str, connection: ConnectionStatus, now: OffsetDateTime) -> Self {
        let passport = &connection.passport;
        Self {
            id: connection.id,
            environment: environment.to_owned(),
            state: connection.state,
            cause: None,
            code: None,
            detail: String::new(),
            protocol: Some(connection.protocol),
            generation: connection.generation,
            role: Some(connection.role),
            born: rfc3339(now - connection.age),
            ended: None,
            age_millis: millis(connection.age),
            idle_millis: passport.idle.map(millis),
            requests: connection.requests,
            in_flight: Some(connection.in_flight),
            capacity: Some(connection.capacity),
            peak_in_flight: connection.peak_in_flight,
            proof: connection.proof,
            handshake: Some(Handshake::living(&connection)),
            phases: Phases::living(&connection.phases),
            ping: Ping::living(passport),
            settings: passport.settings.as_ref().map(Settings::of),
            goaway: passport.goaway,
            address: Some(connection.address),
        }
    }

    pub(super) fn dead(obituary: &Obituary) -> Self {
        let phases = &obituary.phases;
        let whole = |time: pool::Micros| time.get().map(micros);
        Self {
            id: obituary.id,
            environment: obituary.environment.to_string(),
            state: State::Closed,
            cause: Some(obituary.cause.as_str()),
            code: obituary.code.map(Name::as_str),
            detail: obituary.detail.as_str().to_owned(),
            protocol: obituary.protocol,
            generation: obituary.generation,
            role: None,
            address: obituary.address.map(|address| address.to_string()),
            born: rfc3339(obituary.born()),
            ended: Some(rfc3339(obituary.ended.get())),
            age_millis: millis(obituary.age()),
            idle_millis: obituary.idle().map(millis),
            requests: obituary.requests,
            in_flight: None,
            capacity: None,
            peak_in_flight: obituary.peak_in_flight,
            proof: obituary.proof,
            handshake: Handshake::dead(obituary),
            phases: Phases {
                dns_micros: whole(phases.dns),
                tcp_micros: whole(phases.tcp),
                tls_micros: whole(phases.tls),
                prove_micros: whole(phases.prove),
            },
            ping: Ping::dead(obituary),
            settings: None,
            goaway: obituary.goaway,
        }
    }
}

impl Handshake {
    fn living(connection: &ConnectionStatus) -> Self {
        let facts = &connection.handshake;
        Self {
            kind: facts.kind.as_label(),
            version: facts.version,
            cipher_suite: facts.cipher_suite,
            key_exchange: facts.key_exchange,
            leaf: facts.peer_chain.first().map(|leaf| Prefix::of(leaf).to_string()),
            anchor: Some(Prefix::of(&facts.anchor).to_string()),
            pin: facts.pin.as_ref().map(|pin| PinStart::of(pin).to_string()),
            tickets_received: connection.passport.tickets_received,
        }
    }

    fn dead(obituary: &Obituary) -> Option<Self> {
        Some(Self {
            kind: obituary.handshake.map(HandshakeKind::as_label)?,
            version: obituary.tls?,
            cipher_suite: obituary.cipher_suite?.as_str(),
            key_exchange: obituary.key_exchange.map(Name::as_str),
            leaf: obituary.leaf.map(|leaf| leaf.to_string()),
            anchor: obituary.anchor.map(|anchor| anchor.to_string()),
            pin: obituary.pin.map(|pin| pin.to_string()),
            tickets_received: Some(obituary.tickets_received.into()),
        })
    }
}

impl Phases {
    fn living(phases: &DialPhases) -> Self {
        Self {
            dns_micros: phases.dns.map(micros),
            tcp_micros: phases.tcp.map(micros),
            tls_micros: phases.tls.map(micros),
            prove_micros: phases.prove.map(micros),
        }
    }
}

impl Ping {
    fn living(passport: &PassportStatus) -> Option<Self> {
        passport.ping.map(|times| Self {
            first_micros: micros(times.first),
            min_micros: micros(times.min),
            max_micros: micros(times.max),
            last_micros: micros(times.last),
            recent_micros: times.recent.iter().map(micros).collect(),
            count: Some(times.count),
        })
    }

    fn dead(obituary: &Obituary) -> Option<Self> {
        let times = &obituary.ping;
        Some(Self {
            first_micros: micros(times.first.get()?),
            min_micros: micros(times.min.get()?),
            max_micros: micros(times.max.get()?),
            last_micros: micros(times.recent.iter().last()?),
            recent_micros: times.recent.iter().map(micros).collect(),
            count: None,
        })
    }
}

impl Settings {
    fn of(settings: &Announced) -> Self {
        Self {
            max_concurrent_streams: settings.max_concurrent_streams,
            initial_window_size: settings.initial_window_size,
            max_frame_size: settings.max_frame_size,
            max_header_list_size: settings.max_header_list_size,
            header_table_size: settings.header_table_size,
            others: settings.others.iter().flatten().copied().collect(),
        }
    }
}

/// UTC, to the microsecond.
fn rfc3339(at: OffsetDateTime) -> String {
    let whole = at.replace_nanosecond(at.nanosecond() / 1_000 * 1_000).unwrap_or(at);
    // A year above 9999 is the only date that RFC 3339 cannot write.
    whole.format(&Rfc3339).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
