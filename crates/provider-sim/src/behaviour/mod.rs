//! Owns what the server is told to do: plain data, all off by default, readable from TOML or JSON, replaced
//! as a whole while the server runs. It does not own how any of it is done.

mod choices;
mod ends;
mod millis;

pub use choices::{
    ClientAuth, FrameShape, HttpVersions, KeyExchange, Pings, RefusalAlert, Respond, Resumption, Stall,
    TlsVersions,
};
pub use ends::{GoAwayForm, GoAwayPoint, Http1Close, ResetPoint, ResetReason};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::SimError;

/// How the provider behaves. Everything is off by default: an honest, quick provider that pins the client's
/// leaf and echoes what it gets.
///
/// Changed live with [`Simulator::set_behaviour`](crate::Simulator::set_behaviour): TLS, ALPN and the window of
/// the connection apply to new connections; `max_concurrent_streams`, `stream_window` and `header_table_size`
/// to open ones too (a SETTINGS frame); `pings`, idle times and the way of ending at once; the rest to the next
/// request.
///
/// # Defaults
/// As on each field; `Behaviour::default()`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// HTTP versions offered by ALPN. Default: HTTP/2, then HTTP/1.1.
    pub http: HttpVersions,
    /// TLS versions offered. Default: 1.2 and 1.3.
    pub tls: TlsVersions,
    /// Key exchange groups taken. Default: all that the library has.
    pub key_exchange: KeyExchange,
    /// What is asked of the client's certificate. Default: exactly an endorsed leaf.
    pub client_auth: ClientAuth,
    /// The alert that ends a handshake when `client_auth` says to refuse. Default: `access_denied`.
    pub refusal_alert: RefusalAlert,
    /// TLS 1.3 tickets sent after a full handshake. Default 2; 0 to 20.
    pub tickets: u32,
    /// Are tickets honoured. Default: yes.
    pub resumption: Resumption,

    /// End an HTTP/2 connection after this many requests (HTTP/1.1: `Connection: close`). Default: never.
    pub goaway_after_requests: Option<u32>,
    /// End a connection at this age. In files: milliseconds, `goaway_after_ms`. Default: never.
    #[serde(rename = "goaway_after_ms", with = "millis::optional")]
    pub goaway_after: Option<Duration>,
    /// End a connection that carried nothing for this long, in `goaway_form`. In files: milliseconds,
    /// `goaway_after_idle_ms`. Default: never.
    #[serde(rename = "goaway_after_idle_ms", with = "millis::optional")]
    pub goaway_after_idle: Option<Duration>,
    /// How the three above and [`goaway_all`](crate::Simulator::goaway_all) end it. Default: the way of nginx.
    pub goaway_form: GoAwayForm,
    /// When, within the last request, `goaway_after_requests` ends the connection. Default: as soon as its
    /// header block has arrived.
    pub goaway_at: GoAwayPoint,
    /// The error code of every GOAWAY but those of `abrupt`, which has its own, and of `two_phase` in a round
    /// trip, which has none. Default: NO_ERROR.
    pub goaway_code: ResetReason,
    /// The debug data of the same GOAWAYs and of `abrupt`, such as `too_many_pings`; at most 1,024 bytes.
    /// Default: none.
    pub goaway_debug: String,
    /// Time between the two GOAWAYs of `two_phase`. In files: milliseconds, `goaway_wait_ms`. Default 0: a
    /// round trip, measured by PING.
    #[serde(rename = "goaway_wait_ms", with = "millis")]
    pub goaway_wait: Duration,
    /// Does an HTTP/1.1 server announce the close. Default: yes.
    pub http1_close: Http1Close,
    /// Close a connection that carried nothing for this long, without a word. In files: milliseconds,
    /// `idle_close_ms`. Default: never.
    #[serde(rename = "idle_close_ms", with = "millis::optional")]
    pub idle_close: Option<Duration>,

    /// SETTINGS_MAX_CONCURRENT_STREAMS, from 0. Default: 128, as nginx. `None` sends no limit. Streams above
    /// the limit that holds are refused: that which a connection began with, then each from its ACK.
    pub max_concurrent_streams: Option<u32>,
    /// SETTINGS_HEADER_TABLE_SIZE, 0 to 4,096 bytes. Default: not sent, which means 4,096.
    pub header_table_size: Option<u32>,
    /// SETTINGS_INITIAL_WINDOW_SIZE, the receive window per stream in bytes, 0 to 2^31-1. Default 256 KiB.
    pub stream_window: u32,
    /// Receive window per connection in bytes, 65,535 to 2^31-1. Default 1 MiB.
    pub connection_window: u32,
    /// Answer PING, or let it vanish. Default: answer.
    pub pings: Pings,

    /// Wait before each response. In files: milliseconds, `latency_ms`. Default 0.
    #[serde(rename = "latency_ms", with = "millis")]
    pub latency: Duration,
    /// Further wait, drawn evenly from zero to this, repeatable by the seed. In files: milliseconds,
    /// `latency_jitter_ms`. Default 0.
    #[serde(rename = "latency_jitter_ms", with = "millis")]
    pub latency_jitter: Duration,
    /// Now and then a much longer wait, repeatable by the seed. Default: never.
    pub latency_spike: Option<LatencySpike>,
    /// Where to stop dead. Default: nowhere.
    pub stall: Stall,

    /// Reset some streams. Default: none.
    pub reset: Option<ResetRule>,
    /// Refuse every n-th stream of a connection with REFUSED_STREAM, unprocessed; at least 1. Default: none.
    pub refuse_every: Option<u32>,
    /// Answer without reading the body. Default: read it.
    pub early_response: EarlyResponse,
    /// What to answer. Default: echo.
    pub respond: Respond,
    /// How response bodies are cut into DATA frames. Default: as they come.
    pub frames: FrameShape,
}

/// Which streams to reset, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetRule {
    /// Every n-th request of a connection, at least 1.
    pub every_nth: u32,
    /// The code of the RST_STREAM frame. Default: `INTERNAL_ERROR`.
    #[serde(default)]
    pub reason: ResetReason,
    /// When. Default: instead of a response.
    #[serde(default)]
    pub at: ResetPoint,
}

/// Responses that come late, at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencySpike {
    /// One request in so many, at least 1, drawn by the seed.
    pub one_in: u32,
    /// What it waits beyond the others. In files: milliseconds, `wait_ms`.
    #[serde(rename = "wait_ms", with = "millis")]
    pub wait: Duration,
}

/// Answer before the request body has been read?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyResponse {
    /// No: the body is read as the answer needs it. The default.
    #[default]
    Off,
    /// Yes, as `return 200` in nginx: a whole response, then RST_STREAM(NO_ERROR).
    On,
}

/// As nginx: its `http2_max_concurrent_streams`.
const DEFAULT_MAX_CONCURRENT_STREAMS: u32 = 128;
/// Enough for a full-speed upload on loopback without letting one stream hold much memory.
const DEFAULT_STREAM_WINDOW: u32 = 256 * 1024;
/// Four busy streams' worth.
const DEFAULT_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// RFC 9113 §6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// RFC 9113 §6.9.2: a connection starts with this and SETTINGS cannot lower it.
const MIN_CONNECTION_WINDOW: u32 = 65_535;
/// RFC 7541 §4.2: what both sides begin with, and all that the library decodes with.
const MAX_TABLE: u32 = 4096;
/// Debug data is for people; far above what any server sends.
const MAX_DEBUG: usize = 1024;
/// Twenty is what the busiest known server sends; more only costs memory on both sides.
const MAX_TICKETS: u32 = 20;

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            http: HttpVersions::default(),
            tls: TlsVersions::default(),
            key_exchange: KeyExchange::default(),
            client_auth: ClientAuth::default(),
            refusal_alert: RefusalAlert::default(),
            tickets: 2,
            resumption: Resumption::default(),
            goaway_after_requests: None,
            goaway_after: None,
            goaway_after_idle: None,
            goaway_form: GoAwayForm::default(),
            goaway_at: GoAwayPoint::default(),
            goaway_code: ResetReason::NoError,
            goaway_debug: String::new(),
            goaway_wait: Duration::ZERO,
            http1_close: Http1Close::default(),
            idle_close: None,
            max_concurrent_streams: Some(DEFAULT_MAX_CONCURRENT_STREAMS),
            header_table_size: None,
            stream_window: DEFAULT_STREAM_WINDOW,
            connection_window: DEFAULT_CONNECTION_WINDOW,
            pings: Pings::default(),
            latency: Duration::ZERO,
            latency_jitter: Duration::ZERO,
            latency_spike: None,
            stall: Stall::default(),
            reset: None,
            refuse_every: None,
            early_response: EarlyResponse::default(),
            respond: Respond::default(),
            frames: FrameShape::default(),
        }
    }
}

impl Behaviour {
    /// Checks the ranges that types cannot.
    ///
    /// # Errors
    /// [`SimError::Behaviour`] with the first field out of range.
    pub fn validate(&self) -> Result<(), SimError> {
        let fault = |key, problem| Err(SimError::Behaviour { key, problem });
        if self.tickets > MAX_TICKETS {
            return fault("tickets", "must be 0 to 20");
        }
        if self.goaway_after_requests == Some(0) {
            return fault("goaway_after_requests", "must be at least 1; leave it out for never");
        }
        if self.goaway_debug.len() > MAX_DEBUG {
            return fault("goaway_debug", "must be at most 1024 bytes");
        }
        if let GoAwayForm::Exact { last } = self.goaway_form
            && last > MAX_WINDOW
        {
            return fault("goaway_form.exact.last", "must be at most 2147483647, the largest stream id");
        }
        if self.header_table_size.is_some_and(|size| size > MAX_TABLE) {
            return fault("header_table_size", "must be at most 4096 bytes");
        }
        if self.latency_spike.is_some_and(|spike| spike.one_in == 0) {
            return fault("latency_spike.one_in", "must be at least 1; leave `latency_spike` out for none");
        }
        if self.refuse_every == Some(0) {
            return fault("refuse_every", "must be at least 1; leave it out for none");
        }
        if self.reset.is_some_and(|rule| rule.every_nth == 0) {
            return fault("reset.every_nth", "must be at least 1; leave `reset` out for none");
        }
        if self.stream_window > MAX_WINDOW {
            return fault("stream_window", "must be at most 2147483647 bytes");
        }
        if !(MIN_CONNECTION_WINDOW..=MAX_WINDOW).contains(&self.connection_window) {
            return fault("connection_window", "must be 65535 to 2147483647 bytes");
        }
        if let Respond::Fixed { status, .. } = self.respond
            && !(200..=999).contains(&status)
        {
            return fault("respond.fixed.status", "must be 200 to 999");
        }
        if self.frames == (FrameShape::Sized { bytes: 0 }) {
            return fault("frames.sized.bytes", "must be at least 1; use `empty_first` for empty frames");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
