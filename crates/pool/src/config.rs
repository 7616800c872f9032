//! The settings of a pool: sizes, lifetimes, time-outs, retry policy. Plain data with reasons.
//!
//! Owns the values and their defaults; parsing them from a file is the gateway's work.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use crate::health::HealthCheck;

/// Sizes and lifetimes of one environment's pool.
///
/// # Defaults
/// See [`PoolConfig::default`]: each default carries its reason beside the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections kept serving while idle. Range 1..=`max_connections`. Default 2: one can end while the
    /// other carries the traffic, and one HTTP/2 connection does not scale over cores.
    pub min_connections: u32,
    /// Most connections serving at once (a successor of one that is being replaced may exist beside them).
    /// Range `min_connections`..=256. Default 8.
    pub max_connections: u32,
    /// Our own cap on concurrent streams of one connection; the provider's SETTINGS may lower it.
    /// Range 1..=1000. Default 100, what RFC 9113 §6.5.2 recommends servers to allow at least.
    pub max_streams: u32,
    /// Most requests waiting for a stream at once. Range 0..=100 000. Default 1024: at 1 ms per request and
    /// 200 streams that is five milliseconds of work, so a longer queue only hides an outage.
    pub queue_capacity: u32,
    /// Places in the queue that each caller may fill even when the queue is full of others': the newest waiter of
    /// the caller that has most gives way. Range 0..=1000. Default 8, so that one caller's flood cannot keep another
    /// from waiting for a stream at all.
    pub queue_reserved: u32,
    /// Age at which a connection is replaced, make-before-break. Each connection draws its own age from
    /// `max_age` ± 20 %. Range 10 s..=24 h. Default 30 min, so that addresses and certificates are looked at
    /// again regularly.
    pub max_age: Duration,
    /// How long a surplus connection (above the floor) may carry nothing before it is closed.
    /// Range 1 s..=1 h. Default 60 s.
    pub idle_shrink: Duration,
    /// Interval of keep-alive PINGs, also on idle connections: load balancers forget flows after 60–350 s.
    /// Range 1 s..=1 h. Default 30 s.
    pub ping_interval: Duration,
    /// How long a PING may stay unanswered, counted from when it was queued. Range 100 ms..=60 s. Default 10 s.
    pub ping_timeout: Duration,
    /// How long streams of a connection that is being replaced may go on. Range 1 s..=1 h. Default 60 s.
    pub drain_timeout: Duration,
    /// First back-off after a failed dial; doubles with jitter up to `backoff_max`. Default 100 ms. A host that refuses
    /// connections is dialled every 25 ms or round trip for the first two seconds: it restarts.
    pub backoff_initial: Duration,
    /// Longest back-off between failed dials. Default 10 s.
    pub backoff_max: Duration,
    /// Pause between dials after the provider refused our certificate: redialling cannot mend it, and the
    /// provider may count it as an attack. Default 30 s.
    pub identity_fault_pause: Duration,
    /// Most bytes of a request body held for a possible replay; each piece counts 96 bytes more, the first one aside.
    /// Range 0..=16 MiB. Default 64 KiB.
    pub replay_buffer_bytes: usize,
    /// Most bytes held for replays by all requests of this pool together, divided evenly between the workers; no
    /// worker's share is less than one request may hold. Default 64 MiB.
    pub replay_buffer_total_bytes: usize,
    /// Receive window of one stream. Range 64 KiB..=16 MiB. Default 256 KiB: over a 40 ms round trip a body
    /// arrives at up to 6.5 MB/s.
    pub stream_window_bytes: u32,
    /// Receive window of one connection; bounds what unread responses can hold in memory.
    /// Range 1 MiB..=256 MiB. Default 32 MiB: more than
    /// `max_streams` windows, so that callers who do not read never stall the others.
    pub connection_window_bytes: u32,
    /// Streams that may be reset on one connection within 30 seconds; half of them at once. Above that, streams that
    /// nobody wants any more run out, for at most 10 s. Range 2..=100 000. Default 180: servers built on netty end a
    /// connection at 200.
    pub resets_per_30s: u32,
    /// Whether the last-stream-id of the provider's GOAWAY is believed. Default: believed.
    pub last_stream_id: LastStreamId,
    /// Replays of what may have been processed, in percent of the requests of the last 10 seconds that were sent with
    /// [`RetryPolicy::Idempotent`]: others are never replayed so, and earn no replays. What provably was not processed
    /// is never charged. Range 0..=100. Default 20, as Finagle has it: enough for one connection of a few, too little to double the load of a provider in trouble.
    pub retry_budget_percent: u32,
    /// Such replays allowed per second besides, so that quiet environments have some too. Range 0..=1000. Default 10.
    pub retry_budget_min_per_second: u32,
    /// Largest response header list accepted. Range 4 KiB..=1 MiB. Default 64 KiB.
    pub max_response_header_bytes: u32,
    /// Whether limits that the provider enforces without saying so (requests, age or idle time per connection) are
    /// learned from how connections end, so that a successor serves before they are reached. Default on.
    pub learned_limits: LearnedLimitsMode,
    /// How long a learned limit stands before one connection tries to outlive it, one stream at a time.
    /// Range 1 s..=24 h. Default 10 min.
    pub retest_after: Duration,
    /// Response time-outs in a row on one connection, without a byte from the provider in between, after which it is
    /// suspected: it is not picked while another has room, and a PING decides. Range 1..=100. Default 2.
    pub suspect_after: u8,
    /// The application health request; none by default, for the provider documents no harmless one.
    pub health: Option<HealthCheck>,
    /// Most connections when the provider speaks HTTP/1.1, where one connection carries one request.
    /// Range `min_connections`..=1024. Default 64.
    pub http1_max_connections: u32,
    /// Name servers to ask, over UDP and TCP; at most 8. Default none: those of `/etc/resolv.conf`, read anew for each
    /// question. The hosts file goes first either way.
    pub name_servers: Vec<SocketAddr>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            min_connections: 2,
            max_connections: 8,
            max_streams: 100,
            queue_capacity: 1024,
            queue_reserved: 8,
            max_age: Duration::from_secs(30 * 60),
            idle_shrink: Duration::from_secs(60),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(60),
            backoff_initial: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            identity_fault_pause: Duration::from_secs(30),
            replay_buffer_bytes: 64 * 1024,
            replay_buffer_total_bytes: 64 * 1024 * 1024,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 32 * 1024 * 1024,
            resets_per_30s: 180,
            last_stream_id: LastStreamId::Trusted,
            retry_budget_percent: 20,
            retry_budget_min_per_second: 10,
            max_response_header_bytes: 64 * 1024,
            learned_limits: LearnedLimitsMode::On,
            retest_after: Duration::from_secs(600),
            suspect_after: 2,
            health: None,
            http1_max_connections: 64,
            name_servers: Vec::new(),
        }
    }
}

/// Whether limits are learned from how connections end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LearnedLimitsMode {
    /// Learn, meet, and put to the test again from time to time.
    #[default]
    On,
    /// Replace connections when they end.
    Off,
}

/// Whether a provider's last-stream-id is believed (RFC 9113 §6.8): everything above it was not processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LastStreamId {
    /// It is: such requests are sent again, whatever their method.
    #[default]
    Trusted,
    /// Only where being wrong does no harm. Some servers' last-stream-id lags behind what they delivered
    /// (nghttp2#2870): a call that is not idempotent then counts as one that may have been processed.
    DistrustedUnlessIdempotent,
}

/// How long each phase may take. The names are those of the configuration and of the error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// Resolving and TCP connect, a proxy's CONNECT included. Default 5 s.
    pub connect: Duration,
    /// TLS handshake. Default 5 s.
    pub tls: Duration,
    /// From the end of the handshake to the proof that the connection serves (PING acknowledged). Default 5 s.
    pub prove: Duration,
    /// Waiting for a free stream. Default 2 s.
    pub queue: Duration,
    /// From the request being sent to the response's header. A route's `timeout_ms` changes this. Default 30 s.
    pub response_header: Duration,
    /// Longest silence between two pieces of a body, either way. Default 60 s.
    pub idle: Duration,
    /// Whole exchange, off by default (`None`): payments are bounded by `response_header`.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            prove: Duration::from_secs(5),
            queue: Duration::from_secs(2),
            response_header: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            total: None,
        }
    }
}

/// What may be sent again when a connection fails under a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryPolicy {
    /// Only what the provider provably did not process: any method, at most three attempts. The default.
    #[default]
    Unprocessed,
    /// As `Unprocessed`, and what it may have processed where the method is idempotent
    /// (GET, HEAD, OPTIONS, PUT, DELETE; RFC 9110 §9.2.2).
    Idempotent,
    /// Nothing is ever sent twice.
    Never,
}
