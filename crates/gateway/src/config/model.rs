//! The configuration once it is known to be right: plain values, nothing left to check.
//!
//! Owns the types that the rest of the gateway reads. Reading them from a file is the work of the other modules;
//! names, units, ranges and defaults of the keys stand in `keys` and in `docs/configuration.md`.

use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use pool::{PoolConfig, RetryPolicy, Timeouts};
use tls_core::{Identity, Regime, Stage, TlsOptions, Trust};

pub use super::endpoint::{ConnectTo, Endpoint, Via};
pub use super::listen::ListenAddress;
pub use super::prefix::Prefix;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, as given.
    pub path: PathBuf,
    /// Where internal services call.
    pub egress: Egress,
    /// Where operators look.
    pub admin: Admin,
    /// Callers by name, in the order of the file.
    pub callers: Vec<CallerGroup>,
    /// The environments, in the order of the file. At least one.
    pub environments: Vec<Environment>,
    /// The routes, in the order of the file; the first match wins.
    pub routes: Vec<Route>,
    /// Bounds on callers.
    pub limits: Limits,
    /// Time-outs towards providers, before environments and routes change them.
    pub timeouts: Timeouts,
    /// Time-outs towards callers.
    pub caller_timeouts: CallerTimeouts,
    /// Access log and diagnostics.
    pub log: Log,
    /// Threads.
    pub runtime: Runtime,
    /// The way out.
    pub shutdown: Shutdown,
}

impl Config {
    /// The environment with this name, and its index.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<(usize, &Environment)> {
        self.environments.iter().enumerate().find(|(_, e)| e.name == name)
    }
}

/// `[egress]`: where internal services call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Listeners, at least one. Default `127.0.0.1:8080`.
    pub listen: Vec<ListenAddress>,
    /// The operator's word that listeners beyond loopback may serve callers nobody has authenticated.
    /// Default `false`: such a listener is then a configuration error.
    pub allow_unauthenticated: bool,
    /// Whether callers' `Forwarded`, `X-Forwarded-*`, `X-Real-IP` and `Via` reach the provider. Default `false`.
    pub forward_client_headers: bool,
    /// Header field in which callers give their deadline, in milliseconds. Default none.
    pub deadline_header: Option<HeaderName>,
}

/// `[callers.NAME]`: callers that share one place in the fair queue. Grants no trust (S8, S17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerGroup {
    /// The name in the access log.
    pub name: String,
    /// Networks of callers over TCP; the longest match among all callers wins.
    pub addresses: Vec<Prefix>,
    /// Users of callers over Unix sockets.
    pub uids: Vec<u32>,
    /// Share of the queue against others that wait. Range 1..=1000. Default 1.
    pub weight: NonZeroU16,
}

/// `[admin]`: where operators look. Never beyond loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// A loopback address or a Unix socket. Default `127.0.0.1:9901`.
    pub listen: ListenAddress,
}

/// `[environments.NAME]`: one provider environment with its own identity, trust and pool (S3, S5, S6).
#[derive(Clone, Debug)]
pub struct Environment {
    /// The name in the file: in routes, metrics, logs and the health service.
    pub name: String,
    /// Sandbox or production; identities and keys never cross stages.
    pub stage: Stage,
    /// Customer identifier (S2).
    pub customer: String,
    /// Host and base path of the provider (S22).
    pub endpoint: Endpoint,
    /// Dial this instead of resolving the endpoint's host. Name checks stay on the endpoint's host.
    pub connect: Option<ConnectTo>,
    /// HTTP CONNECT proxy to dial through.
    pub via: Option<Via>,
    /// Whether `/readyz` waits for this environment. Default `true`.
    pub required: bool,
    /// The rule set its certificate must satisfy. Default `tsh`.
    pub regime: Regime,
    /// Key exchange groups, ALPN and tickets.
    pub tls: TlsOptions,
    /// Identity and trust, or why the environment is quarantined.
    pub credentials: Result<Credentials, Quarantine>,
    /// Sizes and lifetimes of its connections.
    pub pool: PoolConfig,
    /// `[timeouts]` with this environment's changes.
    pub timeouts: Timeouts,
}

/// Who we are to an environment and whom we believe there.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Client certificate and key (S24).
    pub identity: Identity,
    /// Server name, anchors (S20) and pins.
    pub trust: Trust,
}

/// Why an environment may not serve although the configuration is sound.
#[derive(Clone, Debug)]
pub struct Quarantine {
    /// Stable code: `certificate_expired`, `certificate_not_yet_valid`, `anchor_expired`, `anchor_not_yet_valid`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub remedy: String,
    /// The identity, where it could be read: for expiry metrics.
    pub identity: Option<Identity>,
}

/// `[[routes]]`: which requests go to which environment. Every condition given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name in metrics and logs. Default `route-N`, N from 1.
    pub name: String,
    /// The path begins with this.
    pub path_prefix: Option<String>,
    /// Host of the request (authority or `Host`), lower case. Without a port it holds for every port.
    pub host: Option<String>,
    /// One of these methods.
    pub method: Option<Vec<http::Method>>,
    /// Each header is present with this value; `None` asks for presence alone.
    pub header: Vec<(HeaderName, Option<HeaderValue>)>,
    /// Index into [`Config::environments`].
    pub environment: usize,
    /// Taken off the front of the path before the base path is put there. `path_prefix` begins with it.
    pub strip_prefix: Option<String>,
    /// The environment's time-outs with this route's changes.
    pub timeouts: Timeouts,
    /// What may be sent again. Default [`RetryPolicy::Unprocessed`].
    pub retry: RetryPolicy,
}

/// `[limits]`: bounds on callers and on what is held for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections of callers at once, over all egress listeners. Default 10 000.
    pub max_connections: usize,
    /// Most bytes of one request's header. Default 64 KiB.
    pub max_header_bytes: usize,
    /// Most header fields of one request. Default 100.
    pub max_headers: usize,
    /// Most bytes of one request's body; `None` (key value 0, the default): no limit, bodies are streamed.
    pub max_body_bytes: Option<u64>,
    /// Most concurrent streams of one HTTP/2 caller connection. Default 256.
    pub max_concurrent_streams: u32,
    /// Most bytes of one request body held for a possible replay. Default 64 KiB. Also in [`PoolConfig`].
    pub replay_buffer_bytes: usize,
    /// Most bytes held for replays per environment. Default 64 MiB. Also in [`PoolConfig`].
    pub replay_buffer_total_bytes: usize,
    /// Largest gRPC message, both ways. Default 4 MiB.
    pub grpc_message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            max_body_bytes: None,
            max_concurrent_streams: 256,
            replay_buffer_bytes: 64 * 1024,
            replay_buffer_total_bytes: 64 * 1024 * 1024,
            grpc_message_bytes: 4 * 1024 * 1024,
        }
    }
}

/// Time-outs towards callers, in `[timeouts]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerTimeouts {
    /// From accept to the first byte. Default 10 s.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its header. Default 10 s.
    pub header: Duration,
    /// Longest silence between requests, and longest time in which a caller takes nothing of its response.
    /// Default 75 s.
    pub idle: Duration,
}

impl Default for CallerTimeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where the access log goes. Default standard output.
    pub access: AccessLog,
    /// Least level of diagnostics on standard error. Default `info`.
    pub level: tracing::Level,
    /// Form of diagnostics. Default text.
    pub format: LogFormat,
    /// Most access log lines waiting to be written; beyond it lines are dropped and counted. Default 8192.
    pub queue_lines: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            access: AccessLog::Stdout,
            level: tracing::Level::INFO,
            format: LogFormat::Text,
            queue_lines: 8192,
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file.
    File(PathBuf),
}

/// Form of diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[runtime]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Threads that carry traffic. Default: half of the cores, at least 1, at most 8.
    pub workers: NonZeroUsize,
}

impl Default for Runtime {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { workers: NonZeroUsize::new((cores / 2).clamp(1, 8)).unwrap_or(NonZeroUsize::MIN) }
    }
}

/// `[shutdown]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests in flight may go on after the signal. Default 25 s: within the 30 s that
    /// Kubernetes and systemd set-ups commonly grant.
    pub drain: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain: Duration::from_secs(25) }
    }
}
