//! Connections that do not come to be, or come to be otherwise.

use provider_sim::{ClientAuth, HttpVersions, Stall, TlsVersions};

use super::{super::stage::Short, END, Fault, PLAIN, RESET, Sees, Start, When, made};

/// A provider that cannot be dialled.
pub(super) fn unreachable(code: &'static [&'static str]) -> Fault {
    Fault {
        when: When::Always(Start::NeverReady),
        sees: [Sees::Fails(code, "yes"); 4],
        heals: false,
        ..PLAIN
    }
}

pub(super) fn all() -> Vec<Fault> {
    let mut all = refusals();
    all.extend(stalls());
    all.push(Fault {
        name: "ALPN changes to HTTP/1.1 and every connection ends",
        when: When::Before,
        act: |s| {
            s.behave(|b| b.http = HttpVersions::Http11Only);
            END(s)
        },
        sees: [Sees::Answer, Sees::Answer, Sees::AnswerOrFails(RESET, "yes"), Sees::Answer],
        ..PLAIN
    });
    all.push(Fault {
        name: "TLS 1.2 only",
        behaviour: made! { Default::default(); tls: TlsVersions::Tls12Only },
        ..PLAIN
    });
    all
}

fn refusals() -> Vec<Fault> {
    let refused = unreachable(&["identity_refused"]);
    vec![
        Fault {
            name: "our certificate refused late (TLS 1.3)",
            behaviour: made! {
                Default::default(); tls: TlsVersions::Tls13Only, client_auth: ClientAuth::RefuseLate
            },
            ..refused
        },
        Fault {
            name: "every handshake refused at its first message",
            behaviour: made! { Default::default(); client_auth: ClientAuth::RefuseEarly },
            ..refused
        },
        Fault {
            name: "our certificate refused early (TLS 1.2)",
            behaviour: made! {
                Default::default(); tls: TlsVersions::Tls12Only, client_auth: ClientAuth::RefuseLate
            },
            ..refused
        },
    ]
}

fn stalls() -> Vec<Fault> {
    let tls = Fault { short: &[Short::Tls], ..unreachable(&["tls_timeout"]) };
    vec![
        Fault {
            name: "stall before the TLS handshake is answered",
            behaviour: made! { Default::default(); stall: Stall::AtHandshake },
            ..tls
        },
        Fault {
            name: "stall in the middle of the TLS handshake",
            behaviour: made! { Default::default(); stall: Stall::MidHandshake },
            ..tls
        },
        Fault {
            name: "stall after the TLS handshake",
            behaviour: made! { Default::default(); stall: Stall::BeforeSettings },
            short: &[Short::Prove],
            ..unreachable(&["prove_timeout"])
        },
    ]
}
