//! What a pool looks like at one moment: the data behind `/api/v1/pools`, `Pools.List`, gauges and the demo table.
//!
//! Snapshots only: reading one changes nothing.

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde::Serialize;
use tls_core::{HandshakeFacts, TicketStats};
use tokio::time::Instant;

use crate::{
    connection::{Proof, State},
    drift::DriftChange,
    error::DialError,
    health::Health,
    journey::ConnectionId,
    learned::LearnedLimits,
    passport::PassportStatus,
    supervisor::BreakerState,
};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseOfDeath {
    /// The provider sent GOAWAY.
    Goaway,
    /// It reached its maximum age and was replaced.
    Age,
    /// It was above the floor and carried nothing.
    Idle,
    /// A PING stayed unanswered.
    PingTimeout,
    /// The provider closed or reset the transport.
    ClosedByProvider,
    /// The provider broke HTTP/2.
    ProtocolError,
    /// It was replaced before the provider would have ended it by a limit that was learned.
    LearnedLimit,
    /// Its address left the provider's name.
    AddressGone,
    /// The provider sent so many empty DATA frames on it that h2 would soon have ended it.
    EmptyFrames,
    /// An exchange on it was given up half way, and it can carry no other (HTTP/1.1).
    Abandoned,
    /// Its generation (identity, trust or pins) was replaced.
    Replaced,
    /// The pool was stopped.
    Stopped,
    /// Its stream numbers, of which HTTP/2 has 2^30, came to an end.
    Exhausted,
    /// It never served: the dial or the proof failed.
    NeverServed,
}

impl CauseOfDeath {
    /// All causes, for registering metrics.
    pub const ALL: [CauseOfDeath; 14] = [
        Self::Goaway,
        Self::Age,
        Self::Idle,
        Self::PingTimeout,
        Self::ClosedByProvider,
        Self::ProtocolError,
        Self::LearnedLimit,
        Self::AddressGone,
        Self::EmptyFrames,
        Self::Abandoned,
        Self::Replaced,
        Self::Stopped,
        Self::Exhausted,
        Self::NeverServed,
    ];

    /// The metric label and log word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Goaway => "goaway",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::PingTimeout => "ping_timeout",
            Self::ClosedByProvider => "closed_by_provider",
            Self::ProtocolError => "protocol_error",
            Self::LearnedLimit => "learned_limit",
            Self::AddressGone => "address_gone",
            Self::EmptyFrames => "empty_frames",
            Self::Abandoned => "abandoned",
            Self::Replaced => "replaced",
            Self::Stopped => "stopped",
            Self::Exhausted => "exhausted",
            Self::NeverServed => "never_served",
        }
    }
}

/// The version of HTTP that a connection speaks, by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Protocol {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1, lent exclusively.
    #[serde(rename = "http/1.1")]
    Http11,
}

/// Whether new streams may start on a connection's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerationRole {
    /// New streams start here.
    Active,
    /// An older generation on its way out.
    Draining,
}

/// How long each phase of a dial took; `None` for a phase that was not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DialPhases {
    /// Name resolution; zero where an address was configured.
    pub dns: Option<Duration>,
    /// TCP connect, a proxy's CONNECT included.
    pub tcp: Option<Duration>,
    /// TLS handshake.
    pub tls: Option<Duration>,
    /// From the end of the handshake to the proof.
    pub prove: Option<Duration>,
    /// The whole dial, to the proof or to the failure.
    pub total: Duration,
}

/// One connection at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionStatus {
    /// Its number.
    pub id: ConnectionId,
    /// Where it stands.
    pub state: State,
    /// HTTP version.
    pub protocol: Protocol,
    /// Serial of its generation.
    pub generation: u64,
    /// Whether that generation is the active one.
    pub role: GenerationRole,
    /// The remote address.
    pub address: String,
    /// Time since the dial began.
    pub age: Duration,
    /// Streams leased now.
    pub in_flight: u32,
    /// Streams it may carry at once: the smaller of our cap and the provider's SETTINGS.
    pub capacity: u32,
    /// Requests carried so far.
    pub requests: u64,
    /// Most streams at once so far.
    pub peak_in_flight: u32,
    /// Last PING round trip.
    pub ping_rtt: Option<Duration>,
    /// What the handshake negotiated.
    pub handshake: HandshakeFacts,
    /// How long each phase of its dial took.
    pub phases: DialPhases,
    /// What showed that it serves; `None` until it does.
    pub proof: Option<Proof>,
    /// Further particulars.
    pub passport: PassportStatus,
}

/// Totals since the pool started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolTotals {
    /// Requests that were given a stream (attempts are not counted twice).
    pub requests: u64,
    /// Connections that came to serve.
    pub connections: u64,
    /// Full handshakes of connections that came to serve.
    pub handshakes_full: u64,
    /// Resumed handshakes of connections that came to serve.
    pub handshakes_resumed: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Requests that waited in the queue because no proven connection had a free stream.
    pub waited_for_dial: u64,
    /// Replays made.
    pub replays: u64,
    /// GOAWAY frames received.
    pub goaways: u64,
    /// HTTP/1.1: connections found closed by the provider before a byte of the request was written. The request went
    /// out on another one.
    pub stale_unsent: u64,
    /// HTTP/1.1: requests written on a connection used before that ended without a byte of a response: the provider
    /// may have been closing it as idle, or may have processed the request. Replayed by policy only.
    pub stale_in_doubt: u64,
    /// Replays that the rules allowed and the retry budget did not.
    pub retries_denied: u64,
    /// Requests that failed although the provider provably did not process them and their body was still held: three
    /// attempts were used up, or the queue had no stream for the next one in time. Stays 0. Not counted: the caller's
    /// own deadline, a stop, and outages in which nothing serves.
    pub unprocessed_lost: u64,
}

/// Changes of the provider that a [`PoolStatus`] shows.
pub const DRIFT_SHOWN: usize = 8;

/// One pool at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct PoolStatus {
    /// The environment's name.
    pub environment: String,
    /// The customer identifier.
    pub customer: String,
    /// Authority of the provider, `host[:port]`.
    pub authority: String,
    /// Whether the floor is met now.
    pub floor_met: bool,
    /// Connections kept while idle.
    pub min_connections: u32,
    /// Most connections.
    pub max_connections: u32,
    /// Serial of the active generation.
    pub generation: u64,
    /// Requests waiting for a stream.
    pub queue_depth: u32,
    /// Streams leased now, over all connections.
    pub in_flight: u32,
    /// Bytes held for replays now.
    pub replay_bytes: usize,
    /// Dials under way.
    pub dialling: u32,
    /// The last failure of a dial, if none succeeded since: code and text.
    pub last_failure: Option<DialFailureStatus>,
    /// The breaker: whether dials, or requests, are held back, why, and until when.
    pub breaker: BreakerStatus,
    /// What the provider does to connections of its own accord, as learned.
    pub learned: LearnedStatus,
    /// The application's health; `None` without a health request.
    pub health: Option<Health>,
    /// The addresses of the place that is dialled (the proxy, if there is one); `None` where it is an address already.
    pub resolution: Option<ResolutionStatus>,
    /// Tickets of the active generation.
    pub tickets: TicketStats,
    /// Totals since start.
    pub totals: PoolTotals,
    /// 1 − connections ÷ requests since start; 0 before the first request.
    pub reuse_ratio: f64,
    /// The connections.
    pub connections: Vec<ConnectionStatus>,
    /// What changed about the provider lately, newest first, at most [`DRIFT_SHOWN`]; all of it is
    /// [`Pool::drift`](crate::Pool::drift).
    pub drift: Vec<DriftChange>,
}

/// Where the breaker of a pool stands.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BreakerStatus {
    /// Its state.
    pub state: BreakerState,
    /// Whether requests are refused while it is not closed, although connections may serve.
    pub refuses_requests: bool,
    /// Stable code of what opened it.
    pub code: Option<&'static str>,
    /// What opened it, for a person; a refused certificate is named by its fingerprint.
    pub message: Option<String>,
    /// How long until the next trial; zero when it is due. As of when the breaker last changed.
    pub next_trial_in: Option<Duration>,
    /// What opened it.
    #[serde(skip)]
    pub(crate) why: Option<Arc<DialError>>,
    /// When the next trial is due.
    #[serde(skip)]
    pub(crate) until: Option<Instant>,
}

/// What was learned about a provider's habits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LearnedStatus {
    /// The limits that fit how connections ended.
    pub limits: LearnedLimits,
    /// The connection that puts them to the test, if one does.
    pub under_test: Option<ConnectionId>,
    /// Interval of keep-alive PINGs; longer than configured when the provider found them too many.
    pub ping_interval: Duration,
    /// The provider answers no PINGs.
    pub ignores_pings: bool,
}

/// Why the last dial failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DialFailureStatus {
    /// Stable code.
    pub code: &'static str,
    /// What happened, for a person.
    pub message: String,
    /// How long ago.
    pub ago: Duration,
}

/// What is known of the addresses behind a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResolutionStatus {
    /// The name that is asked for.
    pub host: String,
    /// How long the last good answer may still be believed; `None` when there is none, or its time is over.
    pub valid_for: Option<Duration>,
    /// How long questions have failed. The last good answer stays in use meanwhile.
    pub failing_for: Option<Duration>,
    /// Why they fail.
    pub failure: Option<String>,
    /// The addresses that are not gone, at most 256; those of the last good answer first.
    pub addresses: Vec<AddressStatus>,
}

/// One address behind a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressStatus {
    /// The address.
    pub address: IpAddr,
    /// Sockets to it: being connected, serving, draining.
    pub connections: u32,
    /// Answers in a row that did not hold it. Nothing new is dialled there meanwhile; after three over two TTLs it is
    /// gone and its connections are replaced.
    pub absent_answers: u32,
    /// A dial there failed lately: others go first.
    pub failed_lately: bool,
}
