//! What happened to one request on its way: which connection, how reused, how long each phase took.
//!
//! Plain numbers, cheap to copy; logs, metrics and replies are made from it elsewhere.

use std::time::Duration;

use serde::Serialize;

/// Number of a connection, unique within the process; named in status, access log and metrics' exemplars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ConnectionId(pub u64);

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// How far an exchange came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for a stream, or its stream was taken back unopened.
    #[default]
    Waiting,
    /// Its header was handed over, and nothing of its body.
    Headers,
    /// Its body is on the way, trailers included.
    RequestBody,
    /// All of it was handed over; the response's header has not come.
    ResponseHeader,
    /// The response's body is on the way.
    ResponseBody,
    /// The response's body is complete; its trailers, or its end, have not come.
    Trailers,
}

impl Phase {
    /// All phases, for registering metrics.
    pub const ALL: [Phase; 6] = [
        Self::Waiting,
        Self::Headers,
        Self::RequestBody,
        Self::ResponseHeader,
        Self::ResponseBody,
        Self::Trailers,
    ];

    /// The metric label and log word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Headers => "headers",
            Self::RequestBody => "request_body",
            Self::ResponseHeader => "response_header",
            Self::ResponseBody => "response_body",
            Self::Trailers => "trailers",
        }
    }
}

/// The way of one request through the pool. Times are zero for phases that did not occur.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Journey {
    /// The connection of the last attempt; `None` if none was ever leased.
    pub connection: Option<ConnectionId>,
    /// Serial of the generation of that connection; 0 if none was leased.
    pub generation: u64,
    /// The connection had carried a request before this one.
    pub reused: bool,
    /// The connection's handshake was resumed.
    pub resumed: bool,
    /// Attempts made, 1 for a request that went through at once; 0 if it never got a stream.
    pub attempts: u8,
    /// The request waited while no proven connection had a free stream.
    pub waited_for_dial: bool,
    /// Time in the queue, over all attempts.
    pub queue: Duration,
    /// Time the connection it waited for took to dial; zero when it did not wait for one.
    pub connect: Duration,
    /// From the lease to the request's last byte handed to the connection (last attempt).
    pub send: Duration,
    /// From the lease to the response's header (last attempt).
    pub ttfb: Duration,
    /// How far it came: the phase it is in, or failed in (last attempt).
    pub phase: Phase,
    /// Bytes of the request's body taken from the caller until the response's header arrived.
    pub body_bytes: u64,
}
