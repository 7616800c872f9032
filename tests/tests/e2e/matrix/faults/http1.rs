//! The same faults where the provider speaks HTTP/1.1 only.

use provider_sim::{Behaviour, ClientAuth, GoAwayForm, Http1Close, HttpVersions, Stall, TlsVersions};

use super::{
    super::stage::Short, END, Fault, IDLE_CUT, KILL, LOST, PLAIN, RESET, RESPONSE_CUT, Sees, TIMEOUT, When,
    dials::unreachable, ends_with, made,
};

fn http1() -> Behaviour {
    Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() }
}

fn holding() -> Behaviour {
    Behaviour { stall: Stall::BeforeResponse, ..http1() }
}

/// What a large body sees when nobody reads it depends on how much of it the sockets hold.
const UNREAD: Sees = Sees::Fails(&["response_timeout", "idle_timeout"], "unknown");

pub(super) fn while_it_runs() -> Vec<Fault> {
    vec![
        Fault {
            name: "HTTP/1.1: TCP reset while the request runs",
            behaviour: holding,
            when: When::During,
            act: KILL,
            sees: [LOST; 4],
            ..PLAIN
        },
        ends_with(
            "HTTP/1.1: TCP FIN without a word while the request runs",
            made! { holding(); goaway_form: GoAwayForm::Fin },
            LOST,
        ),
        ends_with(
            "HTTP/1.1: close_notify while the request runs",
            made! { holding(); goaway_form: GoAwayForm::CloseNotify },
            LOST,
        ),
        ends_with(
            "HTTP/1.1: TCP half-close while the request runs: nothing more comes, everything is read",
            made! { holding(); goaway_form: GoAwayForm::HalfClose },
            LOST,
        ),
        Fault {
            short: &[Short::Header, Short::Idle],
            sees: [TIMEOUT, TIMEOUT, UNREAD, TIMEOUT],
            ..ends_with(
                "HTTP/1.1: black hole while the request runs: the network swallows every byte",
                made! { holding(); goaway_form: GoAwayForm::BlackHole },
                LOST,
            )
        },
        ends_with(
            "HTTP/1.1: the last response is announced while the request runs",
            made! { http1(); latency: super::slow().latency },
            Sees::Answer,
        ),
    ]
}

pub(super) fn others() -> Vec<Fault> {
    let mut all = vec![
        Fault { name: "HTTP/1.1 only", behaviour: http1, ..PLAIN },
        Fault {
            name: "no ALPN, HTTP/1.1 spoken",
            behaviour: made! { Default::default(); http: HttpVersions::NoAlpn },
            ..PLAIN
        },
    ];
    all.extend(closes());
    all.extend(stalls());
    all.extend(responses());
    all.extend(refusals());
    all
}

fn closes() -> Vec<Fault> {
    let racing = [Sees::AnswerOrFails(RESET, "unknown"); 4];
    let before = Fault { when: When::Before, act: END, sees: racing, ..PLAIN };
    vec![
        Fault {
            name: "HTTP/1.1: the idle connections are closed without a word just before the request",
            behaviour: made! { http1(); goaway_form: GoAwayForm::Fin },
            ..before
        },
        Fault {
            name: "HTTP/1.1: close_notify on the idle connections just before the request",
            behaviour: made! { http1(); goaway_form: GoAwayForm::CloseNotify },
            ..before
        },
        Fault {
            name: "HTTP/1.1: TCP reset of every connection just before the request",
            behaviour: http1,
            act: KILL,
            ..before
        },
        Fault {
            name: "HTTP/1.1: `Connection: close` on every response",
            behaviour: made! { http1(); goaway_after_requests: Some(1) },
            warm_up: 5,
            ..PLAIN
        },
        Fault {
            name: "HTTP/1.1: every connection ends after its first response, unannounced",
            behaviour: made! {
                http1(); goaway_after_requests: Some(1), http1_close: Http1Close::Silent
            },
            // The first one: what comes after it may meet the close.
            heals: false,
            ..PLAIN
        },
    ]
}

fn stalls() -> Vec<Fault> {
    let idle = Fault { behaviour: http1, short: &[Short::Idle], sees: [IDLE_CUT; 4], ..PLAIN };
    vec![
        Fault {
            name: "HTTP/1.1: stall before the response",
            behaviour: http1,
            short: &[Short::Header, Short::Idle],
            orders: &[("sim-stall", "before_response")],
            sees: [TIMEOUT, TIMEOUT, UNREAD, TIMEOUT],
            ..PLAIN
        },
        Fault {
            name: "HTTP/1.1: stall after the response header",
            orders: &[("sim-stall", "after_headers"), ("sim-body-bytes", "64")],
            ..idle
        },
        Fault {
            name: "HTTP/1.1: stall in the response body",
            orders: &[("sim-stall", "mid_body"), ("sim-body-bytes", "8192")],
            ..idle
        },
    ]
}

fn responses() -> Vec<Fault> {
    let cut = Fault { behaviour: http1, sees: [RESPONSE_CUT; 4], ..PLAIN };
    vec![
        Fault {
            name: "HTTP/1.1: the connection ends in the response body",
            orders: &[("sim-reset-at", "mid_body"), ("sim-body-bytes", "8192")],
            ..cut
        },
        Fault {
            name: "HTTP/1.1: the connection ends before the last chunk of the response",
            orders: &[
                ("sim-goaway", "fin"),
                ("sim-goaway-at", "before_trailers"),
                ("sim-trailers", "x-checksum=1"),
            ],
            ..cut
        },
        Fault {
            name: "HTTP/1.1: early response, the request body unread",
            behaviour: http1,
            orders: &[("sim-early", "1")],
            ..PLAIN
        },
    ]
}

fn refusals() -> Vec<Fault> {
    let refused = unreachable(&["identity_refused"]);
    vec![
        Fault {
            name: "HTTP/1.1: our certificate refused late (TLS 1.3)",
            behaviour: made! {
                http1(); tls: TlsVersions::Tls13Only, client_auth: ClientAuth::RefuseLate
            },
            ..refused
        },
        Fault {
            name: "HTTP/1.1: our certificate refused early (TLS 1.2)",
            behaviour: made! {
                http1(); tls: TlsVersions::Tls12Only, client_auth: ClientAuth::RefuseLate
            },
            ..refused
        },
    ]
}
