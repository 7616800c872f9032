//! Connections are kept, replaced and grown, and no request is lost or sent twice on the way.

use std::time::Duration;

use provider_sim::{Behaviour, GoAwayForm, Pings};
use tsh_tests::{EnvironmentPlan, Load, Plan, Provider, caller::ask, empty, eventually, full};

#[tokio::test]
async fn the_floor_is_kept_while_nothing_is_asked() {
    let provider = Provider::start().await;
    let plan = Plan::at(&provider).with(|e| e.pool = "min_connections = 3".into());
    let lab = plan.ready().await;
    assert_eq!(provider.sim.ledger().connections_open, 3);
    assert_eq!(provider.sim.ledger().requests, 0);
    provider.sim.kill_connections();
    eventually("the floor stands again", async || {
        let accepted = provider.sim.ledger().connections_accepted;
        (accepted >= 6 && lab.connections("sandbox", "serving").await >= 3).then_some(())
    })
    .await;
    let reply = lab.get("/").await;
    assert_eq!(reply.status, 200);
    assert!(!lab.log_line(reply.header("x-correlation-id")).await["waited_for_dial"].as_bool().unwrap());
}

#[tokio::test]
async fn a_provider_that_ends_connections_loses_no_request() {
    for form in [GoAwayForm::Immediate, GoAwayForm::TwoPhase, GoAwayForm::Behind { streams: 2 }] {
        let behaviour =
            Behaviour { goaway_after_requests: Some(40), goaway_form: form, ..Behaviour::default() };
        let provider = Provider::with(behaviour).await;
        // What is learned would keep the provider from ending anything.
        let plan = Plan::at(&provider)
            .edit(|c| c.environments[0].pool.learned_limits = pool::LearnedLimitsMode::Off);
        let lab = plan.ready().await;
        let tally = Load::new("ga", 16, 60).header("sim-delay-ms", "5").run(&lab).await;
        tally.assert_all_answered_once(&provider);
        let ledger = provider.sim.ledger();
        assert!(ledger.goaways_sent >= 12, "{form:?}: {ledger:?}");
        let unprocessed = ledger.requests_ignored + ledger.requests_disowned;
        let metrics = lab.metrics().await;
        let above = metrics.count("tsh_retries_total", &[("verdict", "above_goaway")]);
        let not_sent = metrics.count("tsh_retries_total", &[("verdict", "not_sent")]);
        // What arrives after the provider has hung up is in nobody's books but ours.
        assert!(above >= unprocessed, "{form:?}: {above} {ledger:?}");
        assert_eq!(lab.total("sandbox", "replays").await, above + not_sent, "{form:?}");
        assert_eq!(metrics.outcomes_seen(), [("2xx".to_owned(), 960)].into());
        assert_eq!(ledger.stream_limit_breaches, 0);
    }
}

#[tokio::test]
async fn everything_in_flight_is_disowned_and_sent_again() {
    let provider = Provider::start().await;
    provider.behave(|b| b.goaway_form = GoAwayForm::Zero);
    let lab = Plan::at(&provider).ready().await;
    let load = Load::new("zero", 20, 1).header("sim-delay-ms", "300");
    let ends = async {
        eventually("all are in flight", async || (provider.sim.ledger().requests == 20).then_some(())).await;
        provider.sim.goaway_all();
    };
    let (tally, ()) = tokio::join!(load.run(&lab), ends);
    tally.assert_all_answered_once(&provider);
    assert_eq!(provider.sim.ledger().requests_disowned, 20);
    // One that was sent again over the second connection just before that ended too is sent a third time.
    assert!(lab.total("sandbox", "replays").await >= 20);
    assert_eq!(lab.metrics().await.count("tsh_goaways_total", &[("error", "no_error")]), 2);
}

#[tokio::test]
async fn a_body_too_large_to_hold_is_not_replayed_and_the_caller_is_told() {
    let provider = Provider::start().await;
    provider.behave(|b| b.goaway_form = GoAwayForm::Zero);
    let lab = Plan::at(&provider).section("[limits]\nreplay_buffer_bytes = 1000\n").ready().await;
    let request =
        ask("POST", "/", "big-1").header("sim-delay-ms", "60000").body(full(vec![1; 5000])).unwrap();
    let ends = async {
        eventually("it is in flight", async || (provider.sim.ledger().requests == 1).then_some(())).await;
        provider.sim.goaway_all();
    };
    tokio::join!(lab.fails(request, "provider_reset", "yes"), ends);
    assert_eq!(provider.sim.seen("big-1"), 0, "disowned");
}

#[tokio::test]
async fn refused_streams_are_sent_again() {
    // Far more than the callers have under way at once: a request that is sent again does not meet the next refusal.
    let provider = Provider::with(Behaviour { refuse_every: Some(50), ..Behaviour::default() }).await;
    let lab = Plan::at(&provider).ready().await;
    let tally = Load::new("refused", 4, 200).run(&lab).await;
    tally.assert_all_answered_once(&provider);
    let refused = provider.sim.ledger().refused_streams;
    assert!(refused >= 10, "{refused}");
    assert_eq!(lab.total("sandbox", "replays").await, refused);
    assert_eq!(lab.metrics().await.count("tsh_retries_total", &[("verdict", "refused")]), refused);
}

#[tokio::test]
async fn a_request_refused_again_and_again_is_reported_as_safe_to_retry() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let request = ask("POST", "/", "never-1").header("sim-refuse", "1").body(full("x")).unwrap();
    lab.fails(request, "provider_reset", "yes").await;
    assert_eq!(lab.log_line("never-1").await["attempts"], 3);
    assert_eq!(provider.sim.ledger().refused_streams, 3);
}

#[tokio::test]
async fn retry_never_and_idempotent_do_what_they_say() {
    let provider = Provider::start().await;
    let routes = "[[routes]]\npath_prefix = \"/never\"\nretry = \"never\"\nenvironment = \"sandbox\"\n\
                  [[routes]]\npath_prefix = \"/again\"\nretry = \"idempotent\"\nenvironment = \"sandbox\"\n";
    let lab = Plan::at(&provider).routes(routes).ready().await;
    let refused = ask("GET", "/never", "never-1").header("sim-refuse", "1").body(empty()).unwrap();
    lab.fails(refused, "provider_reset", "yes").await;
    assert_eq!(provider.sim.ledger().refused_streams, 1);
    for (method, times) in [("PUT", 3), ("POST", 1)] {
        let id = format!("again-{method}");
        let reset = ask(method, "/again", &id).header("sim-reset", "internal_error").body(full("x")).unwrap();
        lab.fails(reset, "provider_reset", "unknown").await;
        assert_eq!(provider.sim.seen(&id), times, "{method}");
    }
}

#[tokio::test]
async fn aged_connections_are_replaced_under_load() {
    let provider = Provider::start().await;
    let plan = Plan::at(&provider).edit(|c| c.environments[0].pool.max_age = Duration::from_millis(250));
    let lab = plan.ready().await;
    let load = Load::new("age", 8, 100).header("sim-delay-ms", "10").pause(Duration::from_millis(5));
    load.run(&lab).await.assert_all_answered_once(&provider);
    let metrics = lab.metrics().await;
    let aged = metrics.count("tsh_connections_closed_total", &[("cause", "age")]);
    assert!(aged >= 4, "{aged}");
    assert_eq!(metrics.outcomes_seen(), [("2xx".to_owned(), 800)].into());
    assert_eq!(metrics.count("tsh_waited_for_dial_total", &[]), 0, "make before break");
    assert_eq!(lab.total("sandbox", "replays").await, 0);
}

#[tokio::test]
async fn the_pool_grows_to_its_maximum_and_no_further() {
    let provider = Provider::start().await;
    let pool = "min_connections = 1\nmax_connections = 3\nmax_streams = 2";
    let lab = Plan::at(&provider).with(|e| e.pool = pool.into()).ready().await;
    Load::new("grow", 12, 4).header("sim-delay-ms", "60").run(&lab).await.assert_all_answered_once(&provider);
    let ledger = provider.sim.ledger();
    assert_eq!((ledger.connections_accepted, ledger.peak_streams), (3, 2), "{ledger:?}");
    assert!(lab.total("sandbox", "waited_for_dial").await > 0);
}

#[tokio::test]
async fn surplus_is_closed_after_a_while() {
    let provider = Provider::start().await;
    let pool = "min_connections = 1\nmax_connections = 4\nmax_streams = 1";
    let plan = Plan::at(&provider)
        .with(|e| e.pool = pool.into())
        .edit(|c| c.environments[0].pool.idle_shrink = Duration::from_millis(200));
    let lab = plan.ready().await;
    Load::new("shrink", 8, 3)
        .header("sim-delay-ms", "50")
        .run(&lab)
        .await
        .assert_all_answered_once(&provider);
    eventually("only the floor is left", async || {
        (provider.sim.ledger().connections_open == 1).then_some(())
    })
    .await;
    let idle = lab.metrics().await.count("tsh_connections_closed_total", &[("cause", "idle")]);
    assert_eq!(idle, 3);
}

#[tokio::test]
async fn a_provider_that_allows_one_stream_gets_one() {
    let provider =
        Provider::with(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }).await;
    let lab = Plan::at(&provider).with(|e| e.pool = "max_connections = 2".into()).ready().await;
    Load::new("one", 8, 15).header("sim-delay-ms", "3").run(&lab).await.assert_all_answered_once(&provider);
    let ledger = provider.sim.ledger();
    assert_eq!((ledger.peak_streams, ledger.stream_limit_breaches, ledger.connections_accepted), (1, 0, 2));
}

#[tokio::test]
async fn a_limit_lowered_live_is_kept_to() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).with(|e| e.pool = "max_connections = 2".into()).ready().await;
    Load::new("before", 16, 5)
        .header("sim-delay-ms", "5")
        .run(&lab)
        .await
        .assert_all_answered_once(&provider);
    provider.behave(|b| b.max_concurrent_streams = Some(2));
    eventually("the limit is known", async || {
        let pool = lab.pool("sandbox").await;
        pool["connections"].as_array().unwrap().iter().all(|c| c["capacity"] == 2).then_some(())
    })
    .await;
    Load::new("after", 16, 5).header("sim-delay-ms", "5").run(&lab).await.assert_all_answered_once(&provider);
    assert_eq!(provider.sim.ledger().stream_limit_breaches, 0);
}

#[tokio::test]
async fn connections_killed_under_load_fail_only_what_may_have_been_processed() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let load = Load::new("kill", 16, 40).header("sim-delay-ms", "10");
    let kills = async {
        for n in 1..=3 {
            eventually("load", async || (provider.sim.ledger().requests > n * 120).then_some(())).await;
            provider.sim.kill_connections();
        }
    };
    let (tally, ()) = tokio::join!(load.run(&lab), kills);
    for (id, reply) in tally.failed() {
        assert_eq!(
            (reply.header("gw-error"), reply.header("gw-retry-safe")),
            ("provider_reset", "unknown"),
            "{id}"
        );
        assert!(provider.sim.seen(id) <= 1);
        lab.assert_logged(id, "provider_reset", "unknown").await;
    }
    let failed = tally.failed().count() as u64;
    assert!((1..=48).contains(&failed), "{failed}");
    assert_eq!(provider.sim.duplicated(), Vec::<String>::new());
    let seen = lab.metrics().await.outcomes_seen();
    assert_eq!((seen["2xx"], seen["provider_reset"]), (640 - failed, failed));
}

#[tokio::test]
async fn a_black_hole_is_found_by_ping_and_evicted() {
    let provider = Provider::start().await;
    let plan = Plan::at(&provider).edit(|c| {
        let environment = &mut c.environments[0];
        environment.pool.ping_interval = Duration::from_millis(100);
        environment.pool.ping_timeout = Duration::from_millis(150);
        environment.timeouts.prove = Duration::from_millis(150);
    });
    let lab = plan.ready().await;
    eventually("keep-alive PINGs", async || (provider.sim.ledger().pings >= 6).then_some(())).await;
    assert_eq!(lab.total("sandbox", "connections").await, 2, "answered PINGs keep connections");
    provider.behave(|b| b.pings = Pings::Ignore);
    let dead = [("cause", "ping_timeout")];
    eventually("the silent ones are evicted", async || {
        (lab.metrics().await.count("tsh_connections_closed_total", &dead) == 2).then_some(())
    })
    .await;
    provider.behave(|b| b.pings = Pings::Answer);
    eventually("it serves again", async || (lab.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn handshakes_are_resumed_and_counted() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for round in 1..=3 {
        provider.sim.goaway_all();
        eventually("all were replaced", async || {
            let ledger = provider.sim.ledger();
            let old_ones_are_gone = ledger.connections_accepted - ledger.connections_open >= round * 2;
            (old_ones_are_gone && lab.connections("sandbox", "serving").await >= 2).then_some(())
        })
        .await;
    }
    // A handshake that met the next GOAWAY before its proof is a failed dial here and a good handshake there.
    let (ledger, totals) = eventually("both sides count the same", async || {
        let (ledger, totals) = (provider.sim.ledger(), lab.pool("sandbox").await["totals"].clone());
        let ours: u64 = ["handshakes_full", "handshakes_resumed", "dials_failed"]
            .iter()
            .map(|name| totals[name].as_u64().unwrap())
            .sum();
        (ours == ledger.handshakes_full + ledger.handshakes_resumed).then_some((ledger, totals))
    })
    .await;
    assert!(totals["handshakes_resumed"].as_u64().unwrap() >= 4, "{totals} {ledger:?}");
    // The last connections in use are resumed ones, and the log says so.
    let reply = lab.get("/").await;
    assert_eq!(lab.log_line(reply.header("x-correlation-id")).await["resumed"], true);
}

#[tokio::test]
async fn a_dead_sandbox_leaves_production_serving_and_ready() {
    let provider = Provider::start().await;
    let closed = tsh_tests::tls::Closed::make();
    let other = provider.pki.issue_client(provider_sim::ClientSpec::named("CUSTOMER-0001-DEAD")).unwrap();
    let mut sandbox = EnvironmentPlan::at("sandbox", &provider);
    (sandbox.certificate, sandbox.key) = (other.certificate_pem.clone(), other.key_pem.clone());
    sandbox.common_name = "CUSTOMER-0001-DEAD".into();
    sandbox.connect = closed.address().to_string();
    sandbox.more = "required = false".into();
    let mut production = EnvironmentPlan::at("production", &provider);
    production.stage = "production";
    let routes = "[[routes]]\npath_prefix = \"/sbx\"\nenvironment = \"sandbox\"\n\
                  [[routes]]\nenvironment = \"production\"\n";
    let lab = Plan::of(sandbox).and(production).routes(routes).ready().await;
    lab.fails(lab.ask("GET", "/sbx"), "connection_refused", "yes").await;
    Load::new("prod", 4, 20).run(&lab).await.assert_all_answered_once(&provider);
    assert_eq!(lab.admin_get("/readyz?environment=production").await.status, 200);
    assert_eq!(lab.admin_get("/readyz?environment=sandbox").await.status, 503);
    assert_eq!(lab.admin_get("/healthz").await.status, 200);
}
