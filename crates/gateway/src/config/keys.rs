//! Every key of the configuration, once: name, form or unit with range, default, meaning.
//!
//! Owns the lists that the walker checks against and that `docs/configuration.md` must agree with (a test compares
//! them both ways). Defaults live in `model` and `pool`; a test compares them with the words here.

/// A known key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The default as it would be written in the file, or words in parentheses.
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
}

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A whole number in a range. Units: `s`, `ms`, `bytes`, or none for counts.
    Whole { min: u64, max: u64, unit: &'static str },
    /// `true` or `false`.
    Switch,
    /// A string of this form, or a list of such strings.
    Text(&'static str),
    /// A table below.
    Table,
}

const fn whole(
    name: &'static str,
    min: u64,
    max: u64,
    unit: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { name, kind: Kind::Whole { min, max, unit }, default, about }
}

const fn text(name: &'static str, form: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Text(form), default, about }
}

const fn switch(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Switch, default, about }
}

const fn table(name: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Table, default: "(table)", about }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
/// One hour in milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// The top of the file.
pub(crate) const ROOT: &[Key] = &[
    table("egress", "Where internal services call."),
    table("admin", "Where operators look."),
    table("environments", "One table per provider environment: `[environments.NAME]`."),
    table("routes", "Which requests go where: `[[routes]]`, first match wins."),
    table("limits", "Bounds on callers."),
    table("timeouts", "How long each phase may take."),
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
];

/// `[admin]`.
pub(crate) const ADMIN: &[Key] = &[text(
    "listen",
    "`IP:port` or `unix:/path`",
    "\"127.0.0.1:9901\"",
    "The admin listener. Never beyond loopback.",
)];

/// `[environments.NAME]`.
pub(crate) const ENVIRONMENT: &[Key] = &[
    text(
        "stage",
        "`sandbox` or `production`",
        "(required)",
        "Isolation: common names and keys never cross stages (S5, S6).",
    ),
    text("customer", "text", "(required)", "Customer identifier received from Thales (S2)."),
    text(
        "assets",
        "folder",
        "(none)",
        "Short form: files of `identity` and `trust` that are not named are looked up here under their seed names.",
    ),
    text(
        "endpoint",
        "`https://host[:port]/base/path/`",
        "(required)",
        "`TSH_INBOUND_HOST` joined with the API's base path (S22). The host is what the server's certificate must be for.",
    ),
    text(
        "connect",
        "`host:port` or `IP:port`",
        "(the endpoint's host)",
        "Dial this instead of resolving the host. Name checks stay on the endpoint's host.",
    ),
    text("via", "`http://host:port`", "(none)", "HTTP CONNECT proxy to dial through."),
    switch("required", "true", "Whether `/readyz` waits for this environment."),
    text("regime", "`tsh` or `d1`", "\"tsh\"", "Rule set that the client certificate must satisfy."),
    table("identity", "Our client certificate: `[environments.NAME.identity]`."),
    table("trust", "Whom we believe: `[environments.NAME.trust]`."),
    table("tls", "Key exchange, ALPN, tickets: `[environments.NAME.tls]`."),
    table("pool", "Connections: `[environments.NAME.pool]`."),
    table("timeouts", "Changes to `[timeouts]` for this environment."),
];

/// `[environments.NAME.identity]`.
pub(crate) const IDENTITY: &[Key] = &[
    text(
        "certificate",
        "path",
        "(`CUSTOMER_TLS_CLIENT_CERTIFICATE.pem` in `assets`)",
        "Client certificate, PEM, leaf first (S24).",
    ),
    text(
        "key",
        "path",
        "(`CUSTOMER_TLS_CLIENT_CERTIFICATE.key` in `assets`)",
        "Its private key, PEM (PKCS#8, SEC1 or PKCS#1), not encrypted. Readable by this user alone.",
    ),
    text(
        "common_name",
        "text",
        "(required)",
        "The common name exactly as the Thales portal gives it for this environment (S14).",
    ),
];

/// `[environments.NAME.trust]`.
pub(crate) const TRUST: &[Key] = &[
    text(
        "anchors",
        "list of paths",
        "(`TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem` in `assets`)",
        "Server CA files, PEM (S9, S20). Of each file the lowest CA certificate is trusted, never a leaf; a root only if it stands alone.",
    ),
    text(
        "pins",
        "list of `sha256/` and 44 base64 characters",
        "(none: pins off)",
        "SPKI pins; one must be on the verified path. Enforced on full and resumed handshakes.",
    ),
];

/// `[environments.NAME.tls]`.
pub(crate) const TLS: &[Key] = &[
    text(
        "key_exchange",
        "list of `x25519mlkem768`, `x25519`, `secp256r1`, `secp384r1`",
        "[\"x25519mlkem768\", \"x25519\", \"secp256r1\", \"secp384r1\"]",
        "Groups offered, the preferred first.",
    ),
    text(
        "alpn",
        "list of `h2`, `http/1.1`",
        "[\"h2\", \"http/1.1\"]",
        "HTTP versions offered, the preferred first.",
    ),
    whole(
        "ticket_capacity",
        0,
        1024,
        "",
        "64",
        "Most TLS 1.3 session tickets held. 0 makes every handshake a full one.",
    ),
];

/// `[environments.NAME.pool]`.
pub(crate) const POOL: &[Key] = &[
    whole(
        "min_connections",
        1,
        256,
        "",
        "2",
        "Connections kept serving while idle. At most `max_connections`.",
    ),
    whole("max_connections", 1, 256, "", "8", "Most connections serving at once."),
    whole(
        "max_streams",
        1,
        1000,
        "",
        "100",
        "Our own cap on concurrent streams of one connection; the provider may lower it.",
    ),
    whole("queue_capacity", 0, 100_000, "", "1024", "Most requests waiting for a stream."),
    whole(
        "max_age_s",
        10,
        86_400,
        "s",
        "1800",
        "Age at which a connection is replaced, make-before-break; each draws ± 20 %.",
    ),
    whole("idle_shrink_s", 1, 3600, "s", "60", "How long a connection above the floor may carry nothing."),
    whole("ping_interval_s", 1, 3600, "s", "30", "Interval of keep-alive PINGs, on idle connections too."),
    whole("ping_timeout_ms", 100, 60_000, "ms", "10000", "How long a PING may stay unanswered."),
    whole(
        "drain_timeout_s",
        1,
        3600,
        "s",
        "60",
        "How long streams of a connection that is being replaced may go on.",
    ),
    whole(
        "backoff_initial_ms",
        1,
        60_000,
        "ms",
        "100",
        "First pause after a failed dial; doubles with jitter. At most `backoff_max_ms`.",
    ),
    whole("backoff_max_ms", 1, HOUR_MS, "ms", "10000", "Longest pause between failed dials."),
    whole(
        "identity_fault_pause_s",
        1,
        3600,
        "s",
        "30",
        "Pause between dials after the provider refused our certificate.",
    ),
    whole(
        "stream_window_bytes",
        64 * KIB,
        16 * MIB,
        "bytes",
        "1048576",
        "HTTP/2 receive window of one stream. At most `connection_window_bytes`.",
    ),
    whole(
        "connection_window_bytes",
        MIB,
        256 * MIB,
        "bytes",
        "8388608",
        "HTTP/2 receive window of one connection.",
    ),
    whole("max_response_header_bytes", 4 * KIB, MIB, "bytes", "65536", "Largest response header accepted."),
    whole(
        "http1_max_connections",
        1,
        1024,
        "",
        "64",
        "Most connections where the provider speaks HTTP/1.1. At least `min_connections`.",
    ),
];

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
        "Callers: longest silence of a connection between requests.",
    ),
];

/// `[environments.NAME.timeouts]`.
pub(crate) const ENVIRONMENT_TIMEOUTS: &[Key] = &[
    whole(
        "connect_ms",
        1,
        HOUR_MS,
        "ms",
        "(as in `[timeouts]`)",
        "Resolving and TCP connect, a proxy's CONNECT included.",
    ),
    whole("tls_ms", 1, HOUR_MS, "ms", "(as in `[timeouts]`)", "TLS handshake."),
    whole(
        "prove_ms",
        1,
        HOUR_MS,
        "ms",
        "(as in `[timeouts]`)",
        "From the end of the handshake to the proof that the connection serves.",
    ),
    whole("queue_ms", 1, HOUR_MS, "ms", "(as in `[timeouts]`)", "Waiting for a free stream."),
    whole(
        "response_header_ms",
        1,
        HOUR_MS,
        "ms",
        "(as in `[timeouts]`)",
        "From the request being sent to the response's header.",
    ),
    whole(
        "idle_ms",
        1,
        HOUR_MS,
        "ms",
        "(as in `[timeouts]`)",
        "Longest silence between two pieces of a body, either way.",
    ),
    whole("total_ms", 0, 24 * HOUR_MS, "ms", "(as in `[timeouts]`)", "Whole exchange. 0: off."),
];

/// `[[routes]]`.
pub(crate) const ROUTE: &[Key] = &[
    text("name", "text", "(`route-N`, N from 1)", "Name in metrics and logs."),
    text("path_prefix", "path", "(every path)", "The path begins with this."),
    text(
        "host",
        "`host` or `host:port`",
        "(every host)",
        "Host of the request; without a port it holds for every port.",
    ),
    text("method", "method or list of methods", "(every method)", "Methods of the request."),
    Key {
        name: "header",
        kind: Kind::Table,
        default: "(none)",
        about: "Headers that must be present with this value, `{ \"x-pod\" = \"a\" }`; `\"*\"` stands for any value.",
    },
    text("environment", "name of an environment", "(required)", "Where the request goes."),
    text(
        "strip_prefix",
        "path, or `true` for `path_prefix`",
        "(nothing is stripped)",
        "Taken off the front of the path before the base path is put there. `path_prefix` must begin with it.",
    ),
    whole(
        "timeout_ms",
        1,
        HOUR_MS,
        "ms",
        "(as in the environment)",
        "Time-out for the response's header: short for `response_header_ms` in `timeouts`.",
    ),
    table("timeouts", "Changes to the environment's time-outs: `timeouts = { … }`."),
    text(
        "retry",
        "`unprocessed`, `idempotent` or `never`",
        "\"unprocessed\"",
        "What may be sent again: what the provider provably did not process; also what it may have, for idempotent methods; nothing.",
    ),
];

/// `routes.timeouts`.
pub(crate) const ROUTE_TIMEOUTS: &[Key] = &[
    whole("queue_ms", 1, HOUR_MS, "ms", "(as in the environment)", "Waiting for a free stream."),
    whole(
        "response_header_ms",
        1,
        HOUR_MS,
        "ms",
        "(as in the environment)",
        "From the request being sent to the response's header.",
    ),
    whole(
        "idle_ms",
        1,
        HOUR_MS,
        "ms",
        "(as in the environment)",
        "Longest silence between two pieces of a body, either way.",
    ),
    whole("total_ms", 0, 24 * HOUR_MS, "ms", "(as in the environment)", "Whole exchange. 0: off."),
];

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
        "Most bytes held for replays per environment. At least `replay_buffer_bytes`.",
    ),
    whole("grpc_message_bytes", KIB, 64 * MIB, "bytes", "4194304", "Largest gRPC message, both ways."),
];

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

/// All sections with their headings, in the order of the documentation.
pub(crate) const SECTIONS: &[(&str, &[Key])] = &[
    ("the top of the file", ROOT),
    ("`[egress]`", EGRESS),
    ("`[admin]`", ADMIN),
    ("`[environments.NAME]`", ENVIRONMENT),
    ("`[environments.NAME.identity]`", IDENTITY),
    ("`[environments.NAME.trust]`", TRUST),
    ("`[environments.NAME.tls]`", TLS),
    ("`[environments.NAME.pool]`", POOL),
    ("`[environments.NAME.timeouts]`", ENVIRONMENT_TIMEOUTS),
    ("`[[routes]]`", ROUTE),
    ("`[routes.timeouts]`", ROUTE_TIMEOUTS),
    ("`[limits]`", LIMITS),
    ("`[timeouts]`", TIMEOUTS),
    ("`[log]`", LOG),
    ("`[runtime]`", RUNTIME),
    ("`[shutdown]`", SHUTDOWN),
];

/// Keys that have a meaning, but none yet in this version, and why.
pub(crate) const NOT_YET: &[(&str, &str)] = &[
    ("caller", "callers are not authenticated yet, so no route can ask who calls"),
    ("ingress", "calls from Thales to the bank are not carried yet"),
    ("passphrase", "encrypted private keys are not supported yet"),
];
