//! Sections that are plain numbers and words: limits, time-outs, pool, TLS options, log, runtime, shutdown.
//!
//! Owns reading them over their defaults, and the rules between two keys. Ranges of single keys stand in `keys`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use pool::{LastStreamId, LearnedLimitsMode, PoolConfig, Timeouts};
use tls_core::{Alpn, KeyExchange, TlsOptions};

use super::finding::Complaint;
use super::keys;
use super::model::{AccessLog, CallerTimeouts, Limits, Log, LogFormat, Runtime, Shutdown};
use super::nearest::nearest;
use super::tree::{Section, Text, pick};

/// Reads `[limits]`.
pub(crate) fn read_limits(root: &Section<'_>) -> Limits {
    let section = root.section("limits", keys::LIMITS);
    let mut limits = Limits::default();
    section.set_whole("max_connections", &mut limits.max_connections);
    section.set_whole("max_header_bytes", &mut limits.max_header_bytes);
    section.set_whole("max_headers", &mut limits.max_headers);
    limits.max_body_bytes = section.whole("max_body_bytes").filter(|bytes| *bytes != 0);
    section.set_whole("max_concurrent_streams", &mut limits.max_concurrent_streams);
    section.set_whole("replay_buffer_bytes", &mut limits.replay_buffer_bytes);
    section.set_whole("replay_buffer_total_bytes", &mut limits.replay_buffer_total_bytes);
    section.set_whole("grpc_message_bytes", &mut limits.grpc_message_bytes);
    at_most(
        &section,
        ("replay_buffer_bytes", limits.replay_buffer_bytes as u64),
        ("replay_buffer_total_bytes", limits.replay_buffer_total_bytes as u64),
    );
    limits
}

/// Reads `[timeouts]`.
pub(crate) fn read_timeouts(root: &Section<'_>) -> (Timeouts, CallerTimeouts) {
    let section = root.section("timeouts", keys::TIMEOUTS);
    let mut timeouts = Timeouts::default();
    change_dial_timeouts(&section, &mut timeouts);
    change_request_timeouts(&section, &mut timeouts);
    let mut callers = CallerTimeouts::default();
    section.set_duration("first_byte_ms", &mut callers.first_byte);
    section.set_duration("header_ms", &mut callers.header);
    section.set_duration("caller_idle_ms", &mut callers.idle);
    (timeouts, callers)
}

/// Time-outs on the way to a connection: those of an environment, not of a route.
pub(crate) fn change_dial_timeouts(section: &Section<'_>, timeouts: &mut Timeouts) {
    section.set_duration("connect_ms", &mut timeouts.connect);
    section.set_duration("tls_ms", &mut timeouts.tls);
    section.set_duration("prove_ms", &mut timeouts.prove);
}

/// Time-outs of a request: a route may change them.
pub(crate) fn change_request_timeouts(section: &Section<'_>, timeouts: &mut Timeouts) {
    section.set_duration("queue_ms", &mut timeouts.queue);
    section.set_duration("response_header_ms", &mut timeouts.response_header);
    section.set_duration("idle_ms", &mut timeouts.idle);
    if let Some(total) = section.whole("total_ms") {
        timeouts.total = (total != 0).then(|| Duration::from_millis(total));
    }
}

/// Reads `[environments.NAME.pool]`; the replay buffers come from `[limits]`.
pub(crate) fn read_pool(environment: &Section<'_>, limits: &Limits) -> PoolConfig {
    let section = environment.section("pool", keys::POOL);
    let mut pool = PoolConfig {
        replay_buffer_bytes: limits.replay_buffer_bytes,
        replay_buffer_total_bytes: limits.replay_buffer_total_bytes,
        ..PoolConfig::default()
    };
    section.set_whole("min_connections", &mut pool.min_connections);
    section.set_whole("max_connections", &mut pool.max_connections);
    section.set_whole("max_streams", &mut pool.max_streams);
    section.set_whole("queue_capacity", &mut pool.queue_capacity);
    section.set_whole("queue_reserved", &mut pool.queue_reserved);
    section.set_duration("max_age_s", &mut pool.max_age);
    section.set_duration("idle_shrink_s", &mut pool.idle_shrink);
    section.set_duration("ping_interval_s", &mut pool.ping_interval);
    section.set_duration("ping_timeout_ms", &mut pool.ping_timeout);
    section.set_duration("drain_timeout_s", &mut pool.drain_timeout);
    section.set_duration("backoff_initial_ms", &mut pool.backoff_initial);
    section.set_duration("backoff_max_ms", &mut pool.backoff_max);
    section.set_duration("identity_fault_pause_s", &mut pool.identity_fault_pause);
    section.set_whole("stream_window_bytes", &mut pool.stream_window_bytes);
    section.set_whole("connection_window_bytes", &mut pool.connection_window_bytes);
    section.set_whole("max_response_header_bytes", &mut pool.max_response_header_bytes);
    section.set_whole("http1_max_connections", &mut pool.http1_max_connections);
    if let Some(learn) = section.boolean("learned_limits") {
        pool.learned_limits = if learn { LearnedLimitsMode::On } else { LearnedLimitsMode::Off };
    }
    section.set_duration("retest_after_ms", &mut pool.retest_after);
    section.set_whole("suspect_after", &mut pool.suspect_after);
    section.set_whole("resets_per_30s", &mut pool.resets_per_30s);
    if let Some(trust) = section.boolean("trust_last_stream_id") {
        pool.last_stream_id =
            if trust { LastStreamId::Trusted } else { LastStreamId::DistrustedUnlessIdempotent };
    }
    section.set_whole("retry_budget_percent", &mut pool.retry_budget_percent);
    section.set_whole("retry_budget_min_per_second", &mut pool.retry_budget_min_per_second);
    judge_pool(&section, &pool);
    pool
}

fn judge_pool(section: &Section<'_>, pool: &PoolConfig) {
    let least = ("min_connections", u64::from(pool.min_connections));
    at_most(section, least, ("max_connections", u64::from(pool.max_connections)));
    at_most(section, least, ("http1_max_connections", u64::from(pool.http1_max_connections)));
    // Both come from whole milliseconds within an hour.
    let millis = |duration: Duration| duration.as_millis() as u64;
    at_most(
        section,
        ("backoff_initial_ms", millis(pool.backoff_initial)),
        ("backoff_max_ms", millis(pool.backoff_max)),
    );
    judge_windows(section, pool);
}

/// Responses that nobody reads fill their own windows; if those were more than the connection's, they would stall
/// every other response on it.
fn judge_windows(section: &Section<'_>, pool: &PoolConfig) {
    let (stream, connection) = (u64::from(pool.stream_window_bytes), u64::from(pool.connection_window_bytes));
    let need = stream * u64::from(pool.max_streams);
    if need <= connection {
        return;
    }
    let keys = ["stream_window_bytes", "max_streams", "connection_window_bytes"];
    let name = keys.into_iter().find(|key| section.has(key)).unwrap_or(keys[2]);
    let complaint = Complaint::new(
        "windows_overbooked",
        format!(
            "`stream_window_bytes` ({stream}) times `max_streams` ({}) is {need}, above `connection_window_bytes` \
             ({connection}): responses that nobody reads could stall all others",
            pool.max_streams
        ),
        window_remedy(need, connection / u64::from(pool.max_streams), (connection / stream).max(1)),
    );
    section.report().error(&section.at_key(name), complaint);
}

/// What mends overbooked windows, of which only what the keys' ranges allow is proposed.
fn window_remedy(connection: u64, stream: u64, max_streams: u64) -> String {
    let ways = [
        (connection <= MAX_CONNECTION_WINDOW)
            .then(|| format!("raise `connection_window_bytes` to {connection}")),
        (stream >= MIN_STREAM_WINDOW).then(|| format!("lower `stream_window_bytes` to {stream}")),
        Some(format!("lower `max_streams` to {max_streams}")),
    ];
    ways.into_iter().flatten().collect::<Vec<_>>().join(", or ")
}

/// Ends of the ranges of the keys named so, as `keys` has them.
const MAX_CONNECTION_WINDOW: u64 = 256 * 1024 * 1024;
const MIN_STREAM_WINDOW: u64 = 64 * 1024;

/// The first key may not exceed the second. Reported where the user wrote one of them.
fn at_most(section: &Section<'_>, low: (&str, u64), high: (&str, u64)) {
    if low.1 <= high.1 {
        return;
    }
    let name = if section.has(low.0) { low.0 } else { high.0 };
    let or_default = |key: &str| if section.has(key) { "" } else { " (its default)" };
    let complaint = Complaint::new(
        "min_above_max",
        format!(
            "`{}` is {}{}, above `{}`, which is {}{}",
            low.0,
            low.1,
            or_default(low.0),
            high.0,
            high.1,
            or_default(high.0)
        ),
        format!("lower `{}` or raise `{}`", low.0, high.0),
    );
    section.report().error(&section.at_key(name), complaint);
}

/// Reads `[environments.NAME.tls]`.
pub(crate) fn read_tls(environment: &Section<'_>) -> TlsOptions {
    let section = environment.section("tls", keys::TLS);
    let mut options = TlsOptions::default();
    let groups = KeyExchange::ALL.map(|kx| (kx.as_str(), kx));
    if let Some(list) = read_list(&section, "key_exchange", &groups) {
        options.key_exchange = list;
    }
    let protocols = [Alpn::H2, Alpn::Http11].map(|alpn| (alpn.as_str(), alpn));
    if let Some(list) = read_list(&section, "alpn", &protocols) {
        options.alpn = list;
    }
    section.set_whole("ticket_capacity", &mut options.ticket_capacity);
    options
}

/// A list of known words, not empty, none twice; `None` if it is not given or has faults.
fn read_list<T: Copy + PartialEq>(section: &Section<'_>, name: &str, words: &[(&str, T)]) -> Option<Vec<T>> {
    let texts = section.texts(name)?;
    let report = section.report();
    if texts.is_empty() {
        let remedy = "name at least one, or leave the key out for its default";
        let what = format!("`{name}` is an empty list");
        report.error(&section.at_key(name), Complaint::new("empty_value", what, remedy));
        return None;
    }
    let mut values = Vec::with_capacity(texts.len());
    for text in &texts {
        match pick(text, words) {
            Ok(value) if values.contains(&value) => {
                let what = format!("\"{}\" is named twice", text.value);
                report.error(&text.at, Complaint::new("duplicate_value", what, "name it once"));
            }
            Ok(value) => values.push(value),
            Err(complaint) => report.error(&text.at, complaint),
        }
    }
    (values.len() == texts.len()).then_some(values)
}

/// Reads `[dns]`: name servers; none for the system's.
pub(crate) fn read_dns(root: &Section<'_>) -> Vec<SocketAddr> {
    const MOST: usize = 8;
    let section = root.section("dns", keys::DNS);
    let texts = section.texts("servers").unwrap_or_default();
    if texts.len() > MOST {
        let what = format!("{} name servers are named; {MOST} may be", texts.len());
        let complaint = Complaint::new("too_many_servers", what, "name those that are nearest");
        section.report().error(&section.at_key("servers"), complaint);
    }
    let read = |text: &Text<'_>| {
        let address = text.value.parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT));
        address.or_else(|_| text.value.parse::<SocketAddr>()).ok().filter(|a| a.port() != 0).or_else(|| {
            let what = format!("\"{}\" is not the address of a name server", text.value);
            let remedy =
                "write its IP address, with a port unless it is 53: \"10.0.0.53\" or \"[fd00::53]:5353\"";
            section.report().error(&text.at, Complaint::new("bad_address", what, remedy));
            None
        })
    };
    texts.iter().filter_map(read).collect()
}

/// Where name servers listen, unless told otherwise (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// Reads `[log]`.
pub(crate) fn read_log(root: &Section<'_>) -> Log {
    let section = root.section("log", keys::LOG);
    let mut log = Log::default();
    if let Some(text) = section.text("access") {
        match parse_access(&section, &text) {
            Ok(access) => log.access = access,
            Err(complaint) => section.report().error(&text.at, complaint),
        }
    }
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    log.level = section.choice("level", &levels).unwrap_or(log.level);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    log.format = section.choice("format", &formats).unwrap_or(log.format);
    section.set_whole("queue_lines", &mut log.queue_lines);
    log
}

fn parse_access(section: &Section<'_>, text: &Text<'_>) -> Result<AccessLog, Complaint> {
    match text.value {
        "off" => Ok(AccessLog::Off),
        "stdout" => Ok(AccessLog::Stdout),
        "stderr" => Ok(AccessLog::Stderr),
        value => match value.strip_prefix("file:").filter(|path| !path.is_empty()) {
            Some(path) => Ok(AccessLog::File(section.report().folder().join(path))),
            None => {
                let near = nearest(value, ["off", "stdout", "stderr"]);
                let hint = near.map(|word| format!("the nearest is \"{word}\"; ")).unwrap_or_default();
                Err(Complaint::new(
                    "unknown_value",
                    format!("\"{value}\" is no place for the access log"),
                    format!("{hint}write \"off\", \"stdout\", \"stderr\" or \"file:logs/access.jsonl\""),
                ))
            }
        },
    }
}

/// Reads `[runtime]`.
pub(crate) fn read_runtime(root: &Section<'_>) -> Runtime {
    let section = root.section("runtime", keys::RUNTIME);
    let workers = section.whole("workers").and_then(|n| usize::try_from(n).ok()).and_then(NonZeroUsize::new);
    workers.map_or_else(Runtime::default, |workers| Runtime { workers })
}

/// Reads `[shutdown]`.
pub(crate) fn read_shutdown(root: &Section<'_>) -> Shutdown {
    let section = root.section("shutdown", keys::SHUTDOWN);
    let mut shutdown = Shutdown::default();
    section.set_duration("drain_s", &mut shutdown.drain);
    shutdown
}
