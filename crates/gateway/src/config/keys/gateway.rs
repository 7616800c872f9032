//! Keys of the gateway itself: listeners, limits, time-outs, log, threads, the way out.

use super::{GIB, HOUR_MS, KIB, Key, MIB, switch, table, text, whole};

/// The top of the file.
pub(crate) const ROOT: &[Key] = &[
    table("egress", "Where internal services call."),
    table("admin", "Where operators look."),
    table("callers", "Callers by name, for their share of the queue: `[callers.NAME]`."),
    table("environments", "One table per provider environment: `[environments.NAME]`."),
    table("routes", "Which requests go where: `[[routes]]`, first match wins."),
    table("limits", "Bounds on callers."),
    table("timeouts", "How long each phase may take."),
    table("dns", "Name servers."),
    table("log", "Access log and diagnostics."),
    table("runtime", "Threads."),
    table("shutdown", "The way out."),
];

/// `[egress]`.
pub(crate) const EGRESS: &[Key] = &[
    text(
        "listen",
        "list of `IP:port` or `unix:/path`",
        "[\"127.0.0.1:8080\"]",
        "Listeners for HTTP/1.1, HTTP/2 cleartext and gRPC. Port 0 takes a free port.",
    ),
    switch(
        "allow_unauthenticated",
        "false",
        "Accept listeners beyond loopback although callers are not authenticated. Without it such a listener is refused.",
    ),
    switch(
        "forward_client_headers",
        "false",
        "Pass callers' `Forwarded`, `X-Forwarded-*`, `X-Real-IP` and `Via` on to the provider.",
    ),
    text(
        "deadline_header",
        "header name",
        "(none)",
        "Header in which callers give their deadline, in milliseconds; the provider gets what is left.",
    ),
];

/// `[callers.NAME]`.
pub(crate) const CALLER: &[Key] = &[
    text(
        "addresses",
        "list of `IP` or `IP/length`",
        "(none)",
        "Callers over TCP. The longest match among all callers wins.",
    ),
    text("uids", "list of user numbers", "(none)", "Callers over Unix sockets, by the user they run as."),
    whole("weight", 1, 1000, "", "(1: as any other)", "Share of the queue against others that wait."),
];

/// `[admin]`.
pub(crate) const ADMIN: &[Key] = &[text(
    "listen",
    "`IP:port` or `unix:/path`",
    "\"127.0.0.1:9901\"",
    "The admin listener. Never beyond loopback.",
)];

/// `[limits]`.
pub(crate) const LIMITS: &[Key] = &[
    whole(
        "max_connections",
        1,
        1_000_000,
        "",
        "10000",
        "Most connections of callers at once, over all egress listeners.",
    ),
    whole("max_header_bytes", KIB, MIB, "bytes", "65536", "Most bytes of one request's header."),
    whole("max_headers", 1, 1000, "", "100", "Most header fields of one request."),
    whole(
        "max_body_bytes",
        0,
        1024 * GIB,
        "bytes",
        "0",
        "Most bytes of one request's body. 0: no limit; bodies are streamed.",
    ),
    whole(
        "max_concurrent_streams",
        1,
        10_000,
        "",
        "256",
        "Most concurrent streams of one HTTP/2 caller connection.",
    ),
    whole(
        "replay_buffer_bytes",
        0,
        16 * MIB,
        "bytes",
        "65536",
        "Most bytes of one request body held for a possible replay.",
    ),
    whole(
        "replay_buffer_total_bytes",
        0,
        4 * GIB,
        "bytes",
        "67108864",
        "Most bytes held for replays per environment, divided evenly between the workers. At least `replay_buffer_bytes`.",
    ),
    whole("grpc_message_bytes", KIB, 64 * MIB, "bytes", "4194304", "Largest gRPC message, both ways."),
];

/// `[dns]`.
pub(crate) const DNS: &[Key] = &[text(
    "servers",
    "list of `IP` or `IP:port`",
    "(the system's: `/etc/resolv.conf`)",
    "Name servers to ask, at most 8. The hosts file goes first either way.",
)];

/// `[log]`.
pub(crate) const LOG: &[Key] = &[
    text(
        "access",
        "`off`, `stdout`, `stderr` or `file:path`",
        "\"stdout\"",
        "Where the access log goes: one JSON object per line and request.",
    ),
    text(
        "level",
        "`error`, `warn`, `info`, `debug` or `trace`",
        "\"info\"",
        "Least level of diagnostics on standard error. Release builds leave out `debug` and `trace`.",
    ),
    text("format", "`text` or `json`", "\"text\"", "Form of diagnostics."),
    whole(
        "queue_lines",
        16,
        1_000_000,
        "",
        "8192",
        "Most access log lines waiting to be written; beyond it lines are dropped and counted.",
    ),
];

/// `[runtime]`.
pub(crate) const RUNTIME: &[Key] =
    &[whole("workers", 1, 256, "", "(half of the cores, 1 to 8)", "Threads that carry traffic.")];

/// `[shutdown]`.
pub(crate) const SHUTDOWN: &[Key] =
    &[whole("drain_s", 0, 3600, "s", "25", "How long requests in flight may go on after the signal.")];

/// `[timeouts]`: towards providers, then towards callers.
pub(crate) const TIMEOUTS: &[Key] = &[
    whole("connect_ms", 1, HOUR_MS, "ms", "5000", "Resolving and TCP connect, a proxy's CONNECT included."),
    whole("tls_ms", 1, HOUR_MS, "ms", "5000", "TLS handshake."),
    whole(
        "prove_ms",
        1,
        HOUR_MS,
        "ms",
        "5000",
        "From the end of the handshake to the proof that the connection serves.",
    ),
    whole("queue_ms", 1, HOUR_MS, "ms", "2000", "Waiting for a free stream."),
    whole(
        "response_header_ms",
        1,
        HOUR_MS,
        "ms",
        "30000",
        "From the request being sent to the response's header.",
    ),
    whole("idle_ms", 1, HOUR_MS, "ms", "60000", "Longest silence between two pieces of a body, either way."),
    whole("total_ms", 0, 24 * HOUR_MS, "ms", "0", "Whole exchange. 0: off."),
    whole("first_byte_ms", 1, HOUR_MS, "ms", "10000", "Callers: from accept to the first byte."),
    whole(
        "header_ms",
        1,
        HOUR_MS,
        "ms",
        "10000",
        "Callers: from the first byte of a request to the end of its header.",
    ),
    whole(
        "caller_idle_ms",
        1,
        HOUR_MS,
        "ms",
        "75000",
        "Callers: longest silence between requests, and longest time in which a caller takes nothing of its response.",
    ),
];
