//! Keys of a route.

use super::{HOUR_MS, Key, Kind, table, text, whole};

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
