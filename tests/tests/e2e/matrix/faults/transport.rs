//! Ends of TCP and TLS without a word of HTTP/2, silence, restarts, moves.

use std::time::Duration;

use provider_sim::{GoAwayForm, Listening, Pings, Resumption, Stall, Target};
use tsh_tests::eventually;

use super::{
    super::stage::{AWAY, HOME, Short},
    END, Fault, KILL, LOST, PLAIN, RESET, Sees, Site, When, ends_with, holding, made,
};

const DOWN: Duration = Duration::from_millis(200);

pub(super) fn all() -> Vec<Fault> {
    let mut all = ends();
    all.extend(restarts());
    all.extend(silence());
    all
}

fn ends() -> Vec<Fault> {
    vec![
        Fault {
            name: "TCP reset while the request runs",
            behaviour: holding,
            when: When::During,
            act: KILL,
            sees: [LOST; 4],
            ..PLAIN
        },
        ends_with(
            "TCP FIN without a word while the request runs",
            made! { holding(); goaway_form: GoAwayForm::Fin },
            LOST,
        ),
        ends_with(
            "TCP half-close while the request runs: nothing more comes, everything is read",
            made! { holding(); goaway_form: GoAwayForm::HalfClose },
            LOST,
        ),
        ends_with(
            "close_notify while the request runs",
            made! { holding(); goaway_form: GoAwayForm::CloseNotify },
            LOST,
        ),
        Fault {
            name: "TCP reset of every connection just before the request",
            when: When::Before,
            act: KILL,
            sees: [Sees::AnswerOrFails(RESET, "unknown"); 4],
            ..PLAIN
        },
        Fault {
            name: "no resumption: every handshake is full",
            behaviour: made! { Default::default(); resumption: Resumption::Refuse, tickets: 0 },
            when: When::Before,
            act: END,
            sees: [Sees::Answer, Sees::Answer, Sees::AnswerOrFails(RESET, "yes"), Sees::Answer],
            ..PLAIN
        },
    ]
}

fn restarts() -> Vec<Fault> {
    vec![
        Fault {
            name: "the provider restarts just before the request: away for 200 ms, every connection reset",
            when: When::Before,
            act: |s| Box::pin(async { s.provider.sim.restart(DOWN).await.expect("it comes back") }),
            sees: [Sees::AnswerOrFails(&["connection_refused"], "yes"); 4],
            ..PLAIN
        },
        Fault {
            name: "the provider restarts while the request runs: away for 200 ms, every connection reset",
            behaviour: holding,
            when: When::During,
            act: |s| {
                s.behave(|b| b.stall = Stall::None);
                Box::pin(async { s.provider.sim.restart(DOWN).await.expect("it comes back") })
            },
            sees: [LOST; 4],
            ..PLAIN
        },
    ]
}

fn silence() -> Vec<Fault> {
    let ping = Fault { behaviour: holding, short: &[Short::Ping], when: When::During, ..PLAIN };
    vec![
        Fault {
            name: "black hole while the request runs: the network swallows every byte",
            behaviour: made! { holding(); goaway_form: GoAwayForm::BlackHole },
            act: END,
            sees: [LOST; 4],
            keeps: 1,
            ..ping
        },
        Fault {
            name: "PINGs are ignored from now on, while the request runs",
            act: |s| {
                s.behave(|b| (b.stall, b.pings) = (Stall::None, Pings::Ignore));
                Box::pin(async {})
            },
            sees: [LOST; 4],
            ..ping
        },
        Fault {
            name: "PINGs are ignored from the second one on, and every connection was replaced for it",
            behaviour: made! { Default::default(); pings: Pings::IgnoreAfter { answered: 1 } },
            when: When::Before,
            act: |s| {
                Box::pin(async {
                    let cause = [("cause", "ping_timeout")];
                    eventually("both were replaced", async || {
                        let dead = s.lab.metrics().await.count("tsh_connections_closed_total", &cause);
                        (dead >= 2 && s.lab.connections("sandbox", "serving").await >= 2).then_some(())
                    })
                    .await;
                    // From now on the new ones are left alone.
                    s.behave(|b| b.pings = Pings::Answer);
                })
            },
            ..ping
        },
        Fault {
            name: "PINGs ignored from the start",
            behaviour: made! { Default::default(); pings: Pings::Ignore },
            ..PLAIN
        },
    ]
}

/// The provider's name comes to stand for another address.
pub(super) fn moves() -> Vec<Fault> {
    let moving = Fault { site: Site::Name, ..PLAIN };
    vec![
        Fault {
            name: "DNS: the name moves while the request runs, and the old address serves on",
            orders: &[("sim-delay-ms", "5000")],
            when: When::During,
            act: |s| {
                Box::pin(async {
                    s.move_away();
                    s.until_serving_at(AWAY).await;
                    assert_eq!(s.lab.get("/moved").await.status, 200);
                    assert_eq!(s.provider.sim.address_ledger(AWAY).requests, 1);
                })
            },
            ..moving
        },
        Fault {
            name: "DNS: the name moves, and the old address is gone",
            when: When::Before,
            act: |s| {
                Box::pin(async {
                    s.move_away();
                    let sim = &s.provider.sim;
                    sim.set_listening_at(HOME, Listening::Refusing).expect("a listener that is closed");
                    sim.end(Target::Address(HOME), GoAwayForm::Reset);
                    eventually("the end is known", async || {
                        (!s.serving_at().await.contains(&HOME)).then_some(())
                    })
                    .await;
                })
            },
            sees: [Sees::AnswerOrFails(&["connection_refused"], "yes"); 4],
            ..moving
        },
    ]
}
