//! Keys of an environment.

use super::{HOUR_MS, KIB, Key, MIB, switch, table, text, whole};

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
    table("health", "Application health request: `[environments.NAME.health]`. None without it."),
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
        "queue_reserved",
        0,
        1000,
        "",
        "8",
        "Places in the queue that each caller may fill even when it is full of others': the newest waiter of the caller that has most gives way.",
    ),
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
        "262144",
        "HTTP/2 receive window of one stream. Times `max_streams` at most `connection_window_bytes`.",
    ),
    whole(
        "connection_window_bytes",
        MIB,
        256 * MIB,
        "bytes",
        "33554432",
        "HTTP/2 receive window of one connection: bounds what unread responses hold in memory.",
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
    switch(
        "learned_limits",
        "true",
        "Learn limits that the provider enforces without a word (requests, age or idle time per connection), and have a successor serve before they are reached.",
    ),
    whole(
        "retest_after_ms",
        1000,
        24 * HOUR_MS,
        "ms",
        "600000",
        "How long a learned limit stands before one connection tries to outlive it.",
    ),
    whole(
        "suspect_after",
        1,
        100,
        "",
        "2",
        "Response time-outs in a row without a byte from the provider after which a connection is suspected.",
    ),
    whole(
        "resets_per_30s",
        2,
        100_000,
        "",
        "180",
        "Streams that may be reset on one connection within 30 seconds; beyond it, those that nobody wants run out. Some servers end a connection at 200.",
    ),
    switch(
        "trust_last_stream_id",
        "true",
        "Believe the last-stream-id of the provider's GOAWAY. If false, a call above it that is not idempotent counts as one that may have been processed, and is not sent again.",
    ),
    whole(
        "retry_budget_percent",
        0,
        100,
        "",
        "20",
        "Replays of what may have been processed, in percent of the requests of the last 10 seconds on routes with `retry = \"idempotent\"`; other requests earn no replays. What provably was not processed is never charged.",
    ),
    whole(
        "retry_budget_min_per_second",
        0,
        1000,
        "",
        "10",
        "Such replays allowed per second besides, so that quiet environments have some too.",
    ),
];

/// `[environments.NAME.health]`.
pub(crate) const HEALTH: &[Key] = &[
    text(
        "path",
        "path, with a query if need be",
        "(required)",
        "What is asked, as callers would write it: the endpoint's base path goes in front. It must change nothing at the provider.",
    ),
    text("method", "`GET`, `HEAD` or `OPTIONS`", "\"GET\"", "Method."),
    text("expect", "`2xx` or list of statuses", "\"2xx\"", "Answers that count as healthy."),
    whole("interval_ms", 1000, HOUR_MS, "ms", "10000", "From one health request to the next."),
    whole(
        "timeout_ms",
        100,
        60_000,
        "ms",
        "2000",
        "How long one may take, from the moment at which it has a stream. A new connection does not wait for it longer than `prove_ms`, nor fail by it.",
    ),
    whole(
        "unhealthy_after",
        1,
        100,
        "",
        "3",
        "Failures in a row after which the environment is unhealthy: requests are refused with `provider_unhealthy`.",
    ),
    whole("healthy_after", 1, 100, "", "2", "Successes in a row after which it is healthy again."),
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
