//! The rows: what the provider does, when, and what each kind of request must see.

use std::{fmt, pin::Pin, time::Duration};

use provider_sim::{
    Behaviour, ClientAuth, GoAwayForm, HttpVersions, Pings, ResetReason, Resumption, Stall, TlsVersions,
};
use tsh_tests::{Provider, eventually};

use super::cell::Column;

/// What the caller sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// The provider's whole response, processed once.
    Answer,
    /// The same, after more than one attempt.
    Replayed,
    /// A failure with one of these codes and this word about a retry.
    Fails(&'static [&'static str], &'static str),
    /// A response that ends early; the log names one of these codes.
    Cut(&'static [&'static str]),
    /// Whether the body was still held when the fault struck is a matter of timing: either, and nothing else.
    AnswerOrFails(&'static [&'static str], &'static str),
}

impl fmt::Display for Sees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes =
            |codes: &[&str]| codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(" or ");
        match self {
            Self::Answer => f.write_str("answer"),
            Self::Replayed => f.write_str("answer by replay"),
            Self::Fails(c, safe) => write!(f, "{}, {safe}", codes(c)),
            Self::Cut(c) => write!(f, "cut, {}", codes(c)),
            Self::AnswerOrFails(c, safe) => write!(f, "answer by replay, or {}, {safe}", codes(c)),
        }
    }
}

/// When the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// It is how the provider is.
    Always(Start),
    /// Just before the request.
    Before,
    /// While the provider has the request, and of a large body more than is held.
    During,
}

/// Whether a gateway in front of it becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Ready,
    NeverReady,
}

type Act = fn(&Provider) -> Pin<Box<dyn Future<Output = ()> + '_>>;

/// One row.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// How the provider is from the start.
    pub(super) behaviour: fn() -> Behaviour,
    /// Orders of the request itself.
    pub(super) orders: &'static [(&'static str, &'static str)],
    /// Requests that go before.
    pub(super) warm_up: u32,
    pub(super) when: When,
    pub(super) act: Act,
    /// GET, small POST, large POST, gRPC.
    pub(super) sees: [Sees; 4],
    /// The next request is answered.
    pub(super) heals: bool,
}

impl Fault {
    pub(super) fn expected(&self, column: Column) -> Sees {
        self.sees[column as usize]
    }
}

const NOTHING: Act = |_| Box::pin(async {});
const GOAWAY: Act = |p| {
    p.sim.goaway_all();
    Box::pin(async {})
};
const KILL: Act = |p| {
    p.sim.kill_connections();
    Box::pin(async {})
};

/// Codes of a connection that ended under a request.
const RESET: &[&str] = &["provider_reset"];
const LOST: Sees = Sees::Fails(RESET, "unknown");
const UNPROCESSED: Sees = Sees::Fails(RESET, "yes");

const PLAIN: Fault = Fault {
    name: "",
    behaviour: Behaviour::default,
    orders: &[],
    warm_up: 0,
    when: When::Always(Start::Ready),
    act: NOTHING,
    sees: [Sees::Answer; 4],
    heals: true,
};

/// A provider that takes a while, so that a fault can strike meanwhile.
fn slow() -> Behaviour {
    Behaviour { latency: Duration::from_millis(300), ..Behaviour::default() }
}

macro_rules! slow_with {
    ($($field:ident: $value:expr),* $(,)?) => { || Behaviour { $($field: $value,)* ..slow() } };
}

macro_rules! with {
    ($($field:ident: $value:expr),* $(,)?) => { || Behaviour { $($field: $value,)* ..Behaviour::default() } };
}

/// All rows.
pub(super) fn all() -> Vec<Fault> {
    [goaways(), disowned_at_each_phase(), streams(), transport(), stalls(), frames(), dials()].concat()
}

fn goaways() -> Vec<Fault> {
    let during = Fault { when: When::During, act: GOAWAY, ..PLAIN };
    let disowned = [Sees::Replayed, Sees::Replayed, UNPROCESSED, Sees::Replayed];
    vec![
        Fault {
            name: "GOAWAY, last-stream-id 0, while the request runs",
            behaviour: slow_with! { goaway_form: GoAwayForm::Zero },
            sees: disowned,
            ..during
        },
        Fault {
            name: "GOAWAY, last-stream-id just below the request",
            behaviour: slow_with! { goaway_form: GoAwayForm::Behind { streams: 1 } },
            sees: disowned,
            ..during
        },
        Fault {
            name: "GOAWAY, last-stream-id the request's own",
            behaviour: slow_with! { goaway_form: GoAwayForm::Immediate },
            ..during
        },
        Fault {
            name: "GOAWAY, last-stream-id 2^31-1, alone",
            behaviour: slow_with! { goaway_form: GoAwayForm::MaxOnly },
            ..during
        },
        Fault {
            name: "GOAWAY in two phases",
            behaviour: slow_with! { goaway_form: GoAwayForm::TwoPhase },
            ..during
        },
        Fault {
            name: "GOAWAY with an error, then the end",
            behaviour: slow_with! { goaway_form: GoAwayForm::Abrupt { reason: ResetReason::InternalError } },
            sees: [LOST; 4],
            ..during
        },
        Fault {
            name: "GOAWAY on every connection just before the request",
            behaviour: with! { goaway_form: GoAwayForm::Immediate },
            when: When::Before,
            act: GOAWAY,
            sees: [Sees::Answer, Sees::Answer, Sees::AnswerOrFails(RESET, "yes"), Sees::Answer],
            ..PLAIN
        },
        Fault {
            name: "GOAWAY, last-stream-id 0, between response and end",
            behaviour: with! { goaway_form: GoAwayForm::Zero },
            orders: &[("sim-stall", "mid_body"), ("sim-body-bytes", "8192")],
            when: When::During,
            act: |p| {
                Box::pin(async {
                    eventually("half of the response is out", async || {
                        (p.sim.ledger().body_bytes_sent >= 4096).then_some(())
                    })
                    .await;
                    p.sim.goaway_all();
                })
            },
            sees: [Sees::Cut(&["response_cut"]); 4],
            ..PLAIN
        },
    ]
}

/// GOAWAY with last-stream-id 0 at other phases of the request, and again at each replay.
fn disowned_at_each_phase() -> Vec<Fault> {
    vec![
        Fault {
            name: "GOAWAY, last-stream-id 0, at the request's HEADERS, at every attempt",
            orders: &[("sim-goaway", "zero"), ("sim-goaway-at", "headers")],
            sees: [UNPROCESSED; 4],
            ..PLAIN
        },
        Fault {
            name: "GOAWAY, last-stream-id 0, after the response's HEADERS",
            orders: &[
                ("sim-goaway", "zero"),
                ("sim-goaway-at", "response_headers"),
                ("sim-stall", "after_headers"),
                ("sim-body-bytes", "64"),
            ],
            sees: [Sees::Cut(&["response_cut"]); 4],
            ..PLAIN
        },
        Fault {
            name: "GOAWAY, last-stream-id 0, between response body and trailers",
            orders: &[
                ("sim-goaway", "zero"),
                ("sim-goaway-at", "before_trailers"),
                ("sim-stall", "before_trailers"),
                ("sim-trailers", "x-checksum=1"),
                ("sim-body-bytes", "64"),
            ],
            sees: [Sees::Cut(&["response_cut"]); 4],
            ..PLAIN
        },
    ]
}

fn streams() -> Vec<Fault> {
    let idle = Sees::Cut(&["idle_timeout"]);
    vec![
        Fault {
            name: "REFUSED_STREAM on every second stream of a connection",
            behaviour: with! { refuse_every: Some(2) },
            warm_up: 1,
            sees: [Sees::Replayed, Sees::Replayed, Sees::AnswerOrFails(RESET, "yes"), Sees::Replayed],
            heals: false,
            ..PLAIN
        },
        Fault {
            name: "REFUSED_STREAM on every stream",
            behaviour: with! { refuse_every: Some(1) },
            sees: [UNPROCESSED; 4],
            heals: false,
            ..PLAIN
        },
        Fault {
            name: "RST_STREAM(INTERNAL_ERROR) before the response",
            orders: &[("sim-reset", "internal_error"), ("sim-reset-at", "before_headers")],
            sees: [LOST; 4],
            ..PLAIN
        },
        Fault {
            name: "RST_STREAM(CANCEL) before the response",
            orders: &[("sim-reset", "cancel"), ("sim-reset-at", "before_headers")],
            sees: [LOST; 4],
            ..PLAIN
        },
        Fault {
            name: "RST_STREAM between response body and trailers",
            orders: &[
                ("sim-reset", "internal_error"),
                ("sim-reset-at", "before_trailers"),
                ("sim-trailers", "x-checksum=1"),
            ],
            sees: [Sees::Cut(&["response_cut"]); 4],
            ..PLAIN
        },
        Fault {
            name: "RST_STREAM in the response body",
            orders: &[
                ("sim-reset", "internal_error"),
                ("sim-reset-at", "mid_body"),
                ("sim-body-bytes", "8192"),
            ],
            sees: [Sees::Cut(&["response_cut"]); 4],
            ..PLAIN
        },
        Fault { name: "early response, then RST_STREAM(NO_ERROR)", orders: &[("sim-early", "1")], ..PLAIN },
        Fault {
            name: "SETTINGS: one stream at a time",
            behaviour: with! { max_concurrent_streams: Some(1) },
            ..PLAIN
        },
        Fault {
            name: "SETTINGS: stream limit 0",
            when: When::Before,
            act: |p| {
                p.behave(|b| b.max_concurrent_streams = Some(0));
                Box::pin(async {
                    eventually("clients know", async || {
                        (p.sim.ledger().settings_acknowledged >= 2).then_some(())
                    })
                    .await;
                })
            },
            sees: [Sees::Fails(&["queue_timeout"], "yes"); 4],
            heals: false,
            ..PLAIN
        },
        Fault {
            name: "SETTINGS: stream limit 128, then 1",
            when: When::Before,
            act: |p| {
                p.behave(|b| b.max_concurrent_streams = Some(1));
                Box::pin(async {})
            },
            ..PLAIN
        },
        Fault {
            name: "SETTINGS: initial window 0",
            behaviour: with! { stream_window: 0 },
            // The simulator answers the header of an echo before it has the body.
            sees: [Sees::Answer, idle, idle, idle],
            ..PLAIN
        },
    ]
}

fn transport() -> Vec<Fault> {
    let during = Fault { when: When::During, behaviour: slow, ..PLAIN };
    vec![
        Fault { name: "TCP reset while the request runs", act: KILL, sees: [LOST; 4], ..during },
        Fault {
            name: "TCP FIN without a word while the request runs",
            behaviour: slow_with! { goaway_form: GoAwayForm::Fin },
            act: GOAWAY,
            sees: [LOST; 4],
            ..during
        },
        Fault {
            name: "TCP half-close while the request runs: nothing more comes, everything is read",
            behaviour: slow_with! { goaway_form: GoAwayForm::HalfClose },
            act: GOAWAY,
            sees: [LOST; 4],
            ..during
        },
        Fault {
            name: "close_notify while the request runs",
            behaviour: slow_with! { goaway_form: GoAwayForm::CloseNotify },
            act: GOAWAY,
            sees: [LOST; 4],
            ..during
        },
        Fault {
            name: "the network swallows every byte while the request runs",
            behaviour: slow_with! { goaway_form: GoAwayForm::BlackHole },
            act: GOAWAY,
            sees: [Sees::Fails(&["provider_reset", "response_timeout", "idle_timeout"], "unknown"); 4],
            heals: true,
            ..during
        },
        Fault {
            name: "the provider restarts: away for 200 ms, every connection reset",
            when: When::Before,
            act: |p| {
                Box::pin(async {
                    p.sim.restart(Duration::from_millis(200)).await.expect("the simulator comes back");
                })
            },
            sees: [Sees::AnswerOrFails(&["connection_refused"], "yes"); 4],
            ..PLAIN
        },
        Fault {
            name: "TCP reset of every connection just before the request",
            when: When::Before,
            act: KILL,
            sees: [Sees::AnswerOrFails(RESET, "unknown"); 4],
            ..PLAIN
        },
        Fault {
            name: "black hole: no byte comes back, PINGs neither",
            when: When::During,
            behaviour: with! { stall: Stall::BeforeResponse },
            act: |p| {
                p.behave(|b| b.pings = Pings::Ignore);
                Box::pin(async {})
            },
            sees: [
                Sees::Fails(&["provider_reset", "response_timeout"], "unknown"),
                Sees::Fails(&["provider_reset", "response_timeout"], "unknown"),
                Sees::Fails(&["provider_reset", "response_timeout", "idle_timeout"], "unknown"),
                Sees::Fails(&["provider_reset", "response_timeout"], "unknown"),
            ],
            heals: false,
            ..PLAIN
        },
        Fault { name: "PINGs ignored from the start", behaviour: with! { pings: Pings::Ignore }, ..PLAIN },
        Fault {
            name: "no resumption: every handshake is full",
            behaviour: with! { resumption: Resumption::Refuse, tickets: 0 },
            when: When::Before,
            act: |p| {
                p.behave(|b| b.goaway_form = GoAwayForm::Immediate);
                p.sim.goaway_all();
                Box::pin(async {})
            },
            sees: [Sees::Answer, Sees::Answer, Sees::AnswerOrFails(RESET, "yes"), Sees::Answer],
            ..PLAIN
        },
    ]
}

fn stalls() -> Vec<Fault> {
    let timeout = Sees::Fails(&["response_timeout"], "unknown");
    let idle = Sees::Cut(&["idle_timeout"]);
    vec![
        Fault {
            name: "stall after the response header",
            orders: &[("sim-stall", "after_headers"), ("sim-body-bytes", "64")],
            sees: [idle; 4],
            ..PLAIN
        },
        Fault {
            name: "stall before the trailers",
            orders: &[
                ("sim-stall", "before_trailers"),
                ("sim-trailers", "x-checksum=1"),
                ("sim-body-bytes", "64"),
            ],
            sees: [idle; 4],
            ..PLAIN
        },
        Fault {
            name: "stall before the response",
            orders: &[("sim-stall", "before_response")],
            sees: [timeout, timeout, Sees::Fails(&["idle_timeout"], "unknown"), timeout],
            ..PLAIN
        },
        Fault {
            name: "stall in the response body",
            orders: &[("sim-stall", "mid_body"), ("sim-body-bytes", "8192")],
            sees: [idle; 4],
            ..PLAIN
        },
        Fault {
            name: "stall: the request is never read",
            orders: &[("sim-stall", "read_nothing")],
            sees: [timeout, timeout, Sees::Fails(&["idle_timeout"], "unknown"), timeout],
            ..PLAIN
        },
    ]
}

fn frames() -> Vec<Fault> {
    vec![
        Fault { name: "90 empty DATA frames first", orders: &[("sim-empty-frames", "90")], ..PLAIN },
        Fault {
            name: "101 empty DATA frames first",
            orders: &[("sim-empty-frames", "101"), ("sim-body-bytes", "64")],
            sees: [Sees::Cut(&["response_cut"]); 4],
            ..PLAIN
        },
        Fault {
            name: "DATA frames of one byte",
            orders: &[("sim-frame-bytes", "1"), ("sim-body-bytes", "300")],
            ..PLAIN
        },
        Fault {
            name: "a response header of 200 KiB",
            orders: &[("sim-header-bytes", "200000")],
            sees: [Sees::Fails(&["provider_reset"], "unknown"); 4],
            ..PLAIN
        },
    ]
}

fn dials() -> Vec<Fault> {
    let refused = |code: &'static [&'static str]| [Sees::Fails(code, "yes"); 4];
    let before = Fault { when: When::Before, ..PLAIN };
    vec![
        Fault {
            name: "our certificate refused late (TLS 1.3)",
            behaviour: with! { tls: TlsVersions::Tls13Only, client_auth: ClientAuth::RefuseLate },
            when: When::Always(Start::NeverReady),
            sees: refused(&["identity_refused"]),
            heals: false,
            ..PLAIN
        },
        Fault {
            name: "our certificate refused early (TLS 1.2)",
            behaviour: with! { tls: TlsVersions::Tls12Only, client_auth: ClientAuth::RefuseLate },
            when: When::Always(Start::NeverReady),
            sees: refused(&["identity_refused"]),
            heals: false,
            ..PLAIN
        },
        Fault {
            name: "stall in the TLS handshake",
            behaviour: with! { stall: Stall::AtHandshake },
            when: When::Always(Start::NeverReady),
            sees: refused(&["tls_timeout"]),
            heals: false,
            ..PLAIN
        },
        Fault {
            name: "stall after the TLS handshake",
            behaviour: with! { stall: Stall::BeforeSettings },
            when: When::Always(Start::NeverReady),
            sees: refused(&["prove_timeout"]),
            heals: false,
            ..PLAIN
        },
        Fault {
            name: "ALPN changes to HTTP/1.1 and every connection ends",
            act: |p| {
                p.behave(|b| {
                    b.http = HttpVersions::Http11Only;
                    b.goaway_form = GoAwayForm::Immediate;
                });
                p.sim.goaway_all();
                Box::pin(async {})
            },
            sees: [Sees::Answer, Sees::Answer, Sees::AnswerOrFails(RESET, "yes"), Sees::Answer],
            ..before
        },
        Fault { name: "TLS 1.2 only", behaviour: with! { tls: TlsVersions::Tls12Only }, ..PLAIN },
        Fault { name: "HTTP/1.1 only", behaviour: with! { http: HttpVersions::Http11Only }, ..PLAIN },
        Fault {
            name: "HTTP/1.1 only, TCP reset while the request runs",
            behaviour: slow_with! { http: HttpVersions::Http11Only },
            when: When::During,
            act: KILL,
            sees: [LOST; 4],
            ..PLAIN
        },
    ]
}
