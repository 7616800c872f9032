//! What happens to one stream: refused, reset, cancelled by thousands beside it.

use std::time::Duration;

use provider_sim::Behaviour;
use tokio::task::JoinSet;
use tsh_tests::{H2c, caller::ask, empty, eventually};

use super::{super::stage::Stage, Fault, LOST, PLAIN, RESET, RESPONSE_CUT, Sees, USED_UP, When, made};

pub(super) fn all() -> Vec<Fault> {
    let mut all = refused();
    all.extend(reset());
    all.push(Fault {
        name: "early response, then RST_STREAM(NO_ERROR)",
        orders: &[("sim-early", "1")],
        ..PLAIN
    });
    all.push(Fault {
        name: "two thousand requests beside it are cancelled at once",
        behaviour: made! {
            Default::default();
            max_concurrent_streams: Some(1000),
            // Cancelled ones that must not be reset, because there are too many of them, run out.
            latency: Duration::from_secs(2),
        },
        pool: "max_streams = 500\nstream_window_bytes = 65536\nqueue_capacity = 10000",
        when: When::During,
        act: |s| Box::pin(cancel_thousands(s)),
        ..PLAIN
    });
    all
}

fn refused() -> Vec<Fault> {
    vec![
        Fault {
            name: "REFUSED_STREAM on every second stream of a connection",
            behaviour: made! { Default::default(); refuse_every: Some(2) },
            warm_up: 1,
            sees: [Sees::Replayed, Sees::Replayed, Sees::AnswerOrFails(RESET, "yes"), Sees::Replayed],
            heals: false,
            ..PLAIN
        },
        Fault {
            name: "REFUSED_STREAM on every stream",
            behaviour: made! { Default::default(); refuse_every: Some(1) },
            sees: USED_UP,
            heals: false,
            ..PLAIN
        },
    ]
}

fn reset() -> Vec<Fault> {
    vec![
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
            name: "RST_STREAM during the request body",
            orders: &[("sim-reset", "internal_error"), ("sim-reset-at", "mid_request")],
            // Without a body there is no such moment.
            sees: [Sees::Answer, LOST, LOST, LOST],
            ..PLAIN
        },
        Fault {
            name: "RST_STREAM(NO_ERROR) without a response, during the request body",
            orders: &[("sim-reset", "no_error"), ("sim-reset-at", "mid_request")],
            sees: [Sees::Answer, LOST, LOST, LOST],
            ..PLAIN
        },
        Fault {
            name: "RST_STREAM in the response body",
            orders: &[
                ("sim-reset", "internal_error"),
                ("sim-reset-at", "mid_body"),
                ("sim-body-bytes", "8192"),
            ],
            sees: [RESPONSE_CUT; 4],
            ..PLAIN
        },
        Fault {
            name: "RST_STREAM between response body and trailers",
            orders: &[
                ("sim-reset", "internal_error"),
                ("sim-reset-at", "before_trailers"),
                ("sim-trailers", "x-checksum=1"),
            ],
            sees: [RESPONSE_CUT; 4],
            ..PLAIN
        },
    ]
}

/// Callers' connections, and requests on each: less than a connection may have at once.
const CALLERS: usize = 10;
const EACH: usize = 200;

/// Opens thousands of requests and drops all of them when the provider has nearly all.
async fn cancel_thousands(stage: &Stage) {
    let sim = &stage.provider.sim;
    let before = sim.ledger().requests;
    let mut running = JoinSet::new();
    for caller in 0..CALLERS {
        let connection = H2c::connect(stage.lab.egress()).await;
        for n in 0..EACH {
            let mut connection = connection.clone();
            let request = ask("GET", "/cancelled", &format!("cancelled-{caller}-{n}"));
            running.spawn(async move {
                let request = request.body(empty()).expect("a request");
                // Dropped before it has an answer.
                connection.open(request).await.is_ok()
            });
        }
    }
    let most = (CALLERS * EACH * 9 / 10) as u64;
    eventually("the provider has nearly all", async || {
        (sim.ledger().requests - before >= most).then_some(())
    })
    .await;
    running.shutdown().await;
    sim.set_behaviour(Behaviour { latency: Duration::ZERO, ..sim.behaviour() }).expect("a valid behaviour");
}
