//! The application health request: a provider that answers badly is left alone; refusals say when to come back.

use std::time::Duration;

use provider_sim::{Behaviour, Respond};
use tsh_tests::{Plan, Provider, caller::ask, empty, eventually, full};

const SICK: Respond = Respond::Fixed { status: 503, body_bytes: 0 };

#[tokio::test]
async fn requests_to_an_unhealthy_provider_are_refused_until_it_is_healthy_again() {
    let provider = Provider::start().await;
    let plan = Plan::at(&provider)
        .section("[environments.sandbox.health]\npath = \"/health\"\nunhealthy_after = 2\n");
    // Shorter than a file may have it.
    let lab = plan
        .edit(|config| {
            let health = config.environments[0].pool.health.as_mut().expect("a health request");
            health.interval = Duration::from_millis(50);
        })
        .ready()
        .await;
    assert_eq!(lab.get("/").await.status, 200);
    provider.behave(|b: &mut Behaviour| b.respond = SICK);
    eventually("the environment is unhealthy", async || {
        (lab.get("/").await.header("gw-error") == "provider_unhealthy").then_some(())
    })
    .await;
    let reply = lab.fails(lab.ask("POST", "/"), "provider_unhealthy", "yes").await;
    assert!(reply.json()["detail"].as_str().is_some_and(|detail| detail.contains("/health")), "{reply:?}");
    assert_eq!(reply.json()["phase"], "waiting");
    let call = ask("POST", "/bank.Cards/Get", "sick-1").header("content-type", "application/grpc");
    let reply = lab.h2c().await.send(call.body(full("\0\0\0\0\0")).unwrap()).await;
    assert_eq!(
        (reply.header("grpc-status"), reply.header("gw-error")),
        ("14", "provider_unhealthy"),
        "{reply:?}"
    );

    provider.behave(|b: &mut Behaviour| b.respond = Respond::Echo);
    eventually("the environment serves again", async || (lab.get("/").await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn a_refusal_after_a_failed_dial_tells_when_the_next_one_is() {
    let provider = Provider::start().await;
    let closed = tsh_tests::tls::Closed::make();
    let pool = "backoff_initial_ms = 60000\nbackoff_max_ms = 60000";
    let lab = Plan::at(&provider)
        .with(|e| {
            e.connect = closed.address().to_string();
            e.pool = pool.into();
        })
        .start()
        .await;
    let reply = eventually("a refusal with a time", async || {
        let reply = lab.send(ask("GET", "/", &lab.id()).body(empty()).unwrap()).await;
        assert_eq!(reply.header("gw-error"), "connection_refused", "{reply:?}");
        (!reply.header("retry-after").is_empty()).then_some(reply)
    })
    .await;
    assert!((1..=120).contains(&reply.header("retry-after").parse::<u64>().unwrap()), "{reply:?}");
}
