//! SETTINGS: stream limits of all kinds, windows.

use provider_sim::Behaviour;
use tokio::task::JoinSet;
use tsh_tests::{Http1, eventually, within};

use super::{
    super::stage::{Short, Stage},
    Fault, IDLE_CUT, PLAIN, Sees, When, made, slow,
};

pub(super) fn all() -> Vec<Fault> {
    let mut all = limits();
    all.push(Fault {
        name: "SETTINGS: initial window 0",
        behaviour: made! { Default::default(); stream_window: 0 },
        short: &[Short::Idle],
        // The simulator answers the header of an echo before it has the body.
        sees: [Sees::Answer, IDLE_CUT, IDLE_CUT, IDLE_CUT],
        ..PLAIN
    });
    all
}

fn limits() -> Vec<Fault> {
    vec![
        Fault {
            name: "SETTINGS: one stream at a time",
            behaviour: made! { Default::default(); max_concurrent_streams: Some(1) },
            ..PLAIN
        },
        Fault {
            name: "SETTINGS: stream limit 0",
            short: &[Short::Queue],
            when: When::Before,
            act: |s| {
                Box::pin(async {
                    let known = s.provider.sim.ledger().settings_acknowledged;
                    s.behave(|b| b.max_concurrent_streams = Some(0));
                    eventually("both connections know", async || {
                        (s.provider.sim.ledger().settings_acknowledged >= known + 2).then_some(())
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
            act: |s| {
                s.behave(|b| b.max_concurrent_streams = Some(1));
                Box::pin(async {})
            },
            ..PLAIN
        },
        Fault {
            name: "SETTINGS: stream limit 128, then 1 while twenty streams are open",
            behaviour: slow,
            when: When::During,
            act: |s| Box::pin(shrink(s)),
            ..PLAIN
        },
    ]
}

/// Lowers the limit below what is open. All of it is answered, and so are those that come after, one at a time.
async fn shrink(stage: &Stage) {
    const BESIDE: u64 = 20;
    let sim = &stage.provider.sim;
    let before = sim.ledger().requests;
    let mut beside = JoinSet::new();
    let mut send = |count| {
        for _ in 0..count {
            let (address, request) = (stage.lab.egress(), stage.lab.ask("GET", "/beside"));
            beside.spawn(async move { Http1::connect(address).await.send(request).await });
        }
    };
    send(BESIDE);
    eventually("all are open", async || (sim.ledger().requests - before >= BESIDE).then_some(())).await;
    sim.set_behaviour(Behaviour { max_concurrent_streams: Some(1), ..sim.behaviour() }).expect("valid");
    send(5);
    for reply in within("all beside it are answered", beside.join_all()).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}
