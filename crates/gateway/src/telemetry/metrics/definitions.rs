//! The metrics by name: kind, labels, help and buckets, in one table. `docs/metrics.md` is compared with it.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A state.
    Gauge,
    /// Observations in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Labels, in order.
    pub labels: &'static [&'static str],
    /// Help text.
    pub help: &'static str,
}

/// Times of requests: 0.5 ms resolves loopback tests, 40 to 250 ms a provider far away, 30 s is the default
/// response timeout.
const REQUEST_SECONDS_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Times of handshakes: 1 ms is a handshake on loopback, 5 s the default limit of each phase.
const HANDSHAKE_SECONDS_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Waits for a stream: 2 s is the default limit.
const QUEUE_SECONDS_BUCKETS: &[f64] =
    &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];

/// Requests over the life of a connection: nginx ends one after 1,000 by default, others after 100 to 10,000.
const CONNECTION_REQUESTS_BUCKETS: &[f64] =
    &[1.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6];

macro_rules! definitions {
    ($($ident:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(pub(crate) const $ident: Definition =
            Definition { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*

        /// Every metric there is.
        pub const DEFINITIONS: &[Definition] = &[$($ident,)*];
    };
}

definitions! {
    REQUESTS = "tsh_requests_total", Kind::Counter, ["environment", "route", "outcome"],
        "Requests by outcome: the class of the provider's status (2xx to 5xx) when its response was delivered, else the error code";
    REQUEST_SECONDS = "tsh_request_seconds", Kind::Histogram(REQUEST_SECONDS_BUCKETS), ["environment", "phase"],
        "Time of requests by phase; queue and connect only where they occurred";
    WAITED_FOR_DIAL = "tsh_waited_for_dial_total", Kind::Counter, ["environment"],
        "Requests that waited while no proven connection had a free stream";
    BODY_BYTES = "tsh_body_bytes_total", Kind::Counter, ["environment", "direction"],
        "Bytes of bodies: in from callers, out to callers";
    HANDSHAKE_SECONDS = "tsh_handshake_seconds", Kind::Histogram(HANDSHAKE_SECONDS_BUCKETS), ["environment", "phase", "kind"],
        "Time of dials that came to serve, by phase and kind of handshake";
    HANDSHAKES = "tsh_handshakes_total", Kind::Counter, ["environment", "kind", "result"],
        "Dials by kind of handshake (unknown if it did not end) and result (ok or the error code)";
    CONNECTIONS = "tsh_connections", Kind::Gauge, ["environment", "state", "generation"],
        "Connections by state and by whether their generation takes new streams";
    CONNECTIONS_CLOSED = "tsh_connections_closed_total", Kind::Counter, ["environment", "cause"],
        "Connections that had served and ended, by cause";
    STREAMS_IN_FLIGHT = "tsh_streams_in_flight", Kind::Gauge, ["environment"],
        "Streams leased now";
    QUEUE_DEPTH = "tsh_queue_depth", Kind::Gauge, ["environment"],
        "Requests waiting for a stream now";
    QUEUE_WAIT_SECONDS = "tsh_queue_wait_seconds", Kind::Histogram(QUEUE_SECONDS_BUCKETS), ["environment"],
        "Time in the queue of the requests that waited";
    CONNECTION_REQUESTS = "tsh_connection_requests", Kind::Histogram(CONNECTION_REQUESTS_BUCKETS), ["environment"],
        "Requests carried by a connection, at its end";
    REUSE_RATIO = "tsh_reuse_ratio", Kind::Gauge, ["environment"],
        "1 - connections / requests, since start";
    TICKETS = "tsh_tickets", Kind::Gauge, ["environment", "state"],
        "TLS tickets of the active generation: held now; stored, taken, missing, expired and evicted since it began";
    RETRIES = "tsh_retries_total", Kind::Counter, ["environment", "verdict"],
        "Failed attempts by what is known about processing";
    RETRIES_DENIED = "tsh_retries_denied_total", Kind::Counter, ["environment"],
        "Replays of what may have been processed that the retry budget denied";
    UNPROCESSED_LOST = "tsh_unprocessed_lost_total", Kind::Counter, ["environment"],
        "Requests that failed although provably not processed and still held; stays 0";
    STALE = "tsh_stale_connections_total", Kind::Counter, ["environment", "request"],
        "HTTP/1.1 connections that turned out to be closed by the provider, by what became of the request: unsent or in_doubt";
    BREAKER = "tsh_breaker_state", Kind::Gauge, ["environment", "state"],
        "1 for the state that the breaker is in";
    GOAWAYS = "tsh_goaways_total", Kind::Counter, ["environment", "error"],
        "GOAWAY frames of the provider";
    PROVIDER_DRIFT = "tsh_provider_drift_total", Kind::Counter, ["environment", "field"],
        "Changes of the provider that were news: SETTINGS, TLS, certificates, tickets, limits, addresses";
    REPLAY_BYTES = "tsh_replay_bytes", Kind::Gauge, ["environment"],
        "Bytes of request bodies held for replays now";
    FLOOR_MET = "tsh_floor_met", Kind::Gauge, ["environment"],
        "1 while the floor of serving connections is met";
    QUARANTINED = "tsh_quarantined", Kind::Gauge, ["environment"],
        "1 while the environment is quarantined";
    CERTIFICATE_EXPIRY = "tsh_certificate_expiry_timestamp_seconds", Kind::Gauge, ["environment", "role"],
        "End of validity of the certificate in Unix time; NaN while none is known";
    CALLER_CONNECTIONS = "tsh_caller_connections", Kind::Gauge, [],
        "Connections of callers open now";
    CALLERS_ACCEPTED = "tsh_caller_connections_accepted_total", Kind::Counter, [],
        "Connections of callers accepted";
    CALLERS_REFUSED = "tsh_caller_connections_refused_total", Kind::Counter, [],
        "Connections of callers turned away at the limit";
    ACCEPT_ERRORS = "tsh_accept_errors_total", Kind::Counter, [],
        "Failures to accept a caller's connection";
    RECORDS_DROPPED = "tsh_records_dropped_total", Kind::Counter, [],
        "Requests that are counted but are in no histogram and no log line: the recorder's buffer was full";
    LOG_LINES_DROPPED = "tsh_log_lines_dropped_total", Kind::Counter, ["reason"],
        "Access log lines lost: queue_full or write_error";
    UNKNOWN_ENVIRONMENTS = "tsh_scrape_unknown_environments_total", Kind::Counter, [],
        "Pools seen at a scrape that belong to no configured environment; anything but 0 is a fault of the gateway";
    BUILD_INFO = "tsh_build_info", Kind::Gauge, ["version"],
        "Always 1; the version is in the label";
}
