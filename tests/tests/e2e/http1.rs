//! A provider that speaks HTTP/1.1 alone is served as well: nothing documents which version Thales speaks.

use std::{collections::BTreeSet, time::Duration};

use provider_sim::{Behaviour, ClientAuth, HttpVersions, TlsVersions};
use tsh_tests::{Feed, H2c, Lab, Load, Plan, Provider, caller::ask, empty, eventually, full};

async fn speaking(http: HttpVersions) -> (Provider, Lab) {
    let provider = Provider::with(Behaviour { http, ..Behaviour::default() }).await;
    let lab = Plan::at(&provider).ready().await;
    (provider, lab)
}

const BOTH: [HttpVersions; 2] = [HttpVersions::Http11Only, HttpVersions::NoAlpn];

#[tokio::test]
async fn requests_are_answered_and_connections_reused() {
    for http in BOTH {
        let (provider, lab) = speaking(http).await;
        let request =
            ask("POST", "/x?y=1", "one").header("sim-respond", "describe").body(full("abc")).unwrap();
        let seen = lab.send(request).await.json();
        assert_eq!((&seen["version"], &seen["path"]), (&"HTTP/1.1".into(), &"/x?y=1".into()));
        let host = seen["headers"].as_array().unwrap().iter().find(|h| h[0] == "host").unwrap()[1].clone();
        assert_eq!(host, "tsh.test");
        Load::new("h1", 1, 50).run(&lab).await.assert_all_answered_once(&provider);
        let ledger = provider.sim.ledger();
        assert!(ledger.connections_accepted <= 4, "{http:?}: reused, not dialled anew: {ledger:?}");
        assert_eq!(ledger.connections_http2, 0);
        assert!(lab.log_line("h1-0-49").await["reused"].as_bool().unwrap());
        let pool = lab.pool("sandbox").await;
        assert_eq!(pool["connections"][0]["protocol"], "http/1.1", "{pool}");
        assert_eq!(pool["totals"]["requests"], 51);
    }
}

#[tokio::test]
async fn concurrent_requests_get_a_connection_each() {
    let (provider, lab) = speaking(HttpVersions::Http11Only).await;
    // Long enough for those that wait to be seen together, however slowly handshakes go.
    Load::new("many", 10, 3)
        .header("sim-delay-ms", "400")
        .run(&lab)
        .await
        .assert_all_answered_once(&provider);
    let ledger = provider.sim.ledger();
    assert!((10..=14).contains(&ledger.connections_accepted), "{ledger:?}");
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    let (_provider, lab) = speaking(HttpVersions::Http11Only).await;
    let (feed, body) = Feed::new();
    let request = ask("POST", "/up", "up-1").header("sim-respond", "sink").body(body).unwrap();
    let feeding = async move {
        for _ in 0..64 {
            feed.send(vec![1; 64 * 1024]).await;
        }
    };
    let mut connection: H2c = lab.h2c().await;
    let (reply, ()) = tokio::join!(connection.send(request), feeding);
    assert_eq!(reply.json()["received"], 4 * 1024 * 1024);
    let request = ask("GET", "/down", "down-1").header("sim-body-bytes", "4194304").body(empty()).unwrap();
    assert_eq!(connection.send(request).await.body.len(), 4 * 1024 * 1024);
    for id in ["up-1", "down-1"] {
        assert_eq!(lab.log_line(id).await["outcome"], "ok");
    }
    assert_eq!(lab.log_line("up-1").await["bytes_in"], 4 * 1024 * 1024);
}

#[tokio::test]
async fn head_204_and_trailers_pass() {
    let (_provider, lab) = speaking(HttpVersions::Http11Only).await;
    let head = ask("HEAD", "/", "head").header("sim-body-bytes", "9").body(empty()).unwrap();
    assert_eq!(lab.send(head).await.header("content-length"), "9");
    let none = ask("GET", "/", "none").header("sim-status", "204").body(empty()).unwrap();
    assert_eq!(lab.send(none).await.status, 204);
    let early = ask("POST", "/", "early").header("sim-early", "1").body(full(vec![0; 100_000])).unwrap();
    assert_eq!(lab.send(early).await.status, 200);
}

#[tokio::test]
async fn the_floor_is_kept() {
    for http in BOTH {
        let provider = Provider::with(Behaviour { http, ..Behaviour::default() }).await;
        let lab = Plan::at(&provider).with(|e| e.pool = "min_connections = 3".into()).ready().await;
        eventually("three connections", async || (provider.sim.ledger().connections_open >= 3).then_some(()))
            .await;
        provider.sim.kill_connections();
        eventually("three again", async || {
            let ledger = provider.sim.ledger();
            (ledger.connections_open >= 3 && ledger.connections_accepted >= 6).then_some(())
        })
        .await;
        assert_eq!(lab.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn our_certificate_refused_late() {
    for http in BOTH {
        let client_auth = ClientAuth::RefuseLate;
        let tls = TlsVersions::Tls13Only;
        let provider = Provider::with(Behaviour { http, client_auth, tls, ..Behaviour::default() }).await;
        let lab = Plan::at(&provider).start().await;
        lab.fails(lab.ask("POST", "/"), "identity_refused", "yes").await;
        lab.fails(lab.ask("GET", "/"), "identity_refused", "yes").await;
        let ledger = provider.sim.ledger();
        assert_eq!(ledger.requests, 0);
        assert!(ledger.handshakes_refused <= 6, "{http:?}: not dialled for every request: {ledger:?}");
    }
}

#[tokio::test]
async fn connections_that_the_provider_ends_lose_no_request() {
    for http in BOTH {
        let behaviour = Behaviour { http, goaway_after_requests: Some(5), ..Behaviour::default() };
        let provider = Provider::with(behaviour).await;
        let lab = Plan::at(&provider).ready().await;
        Load::new("close", 4, 40).run(&lab).await.assert_all_answered_once(&provider);
        assert!(provider.sim.ledger().connections_accepted >= 32);
    }
}

/// The numbers of the connections that can be lent.
async fn serving(lab: &Lab) -> BTreeSet<u64> {
    let pool = lab.pool("sandbox").await;
    let all = pool["connections"].as_array().unwrap().iter();
    all.filter(|c| c["state"] == "serving").map(|c| c["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_request() {
    let (provider, lab) = speaking(HttpVersions::Http11Only).await;
    for n in 0..10 {
        let reply = lab.get("/").await;
        assert_eq!(reply.status, 200, "{n} {reply:?}");
        let before = serving(&lab).await;
        provider.sim.goaway_all();
        // A request that crosses the close on the wire may have been processed: nobody could save that one.
        eventually("the end is noticed", async || serving(&lab).await.is_disjoint(&before).then_some(()))
            .await;
    }
    provider.sim.kill_connections();
    eventually("it serves again", async || (lab.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn faults_have_the_same_names_as_over_http2() {
    let provider = Provider::with(Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() }).await;
    let lab = Plan::at(&provider).route("timeout_ms = 200").ready().await;
    let slow = ask("GET", "/", "slow").header("sim-delay-ms", "60000").body(empty()).unwrap();
    lab.fails(slow, "response_timeout", "unknown").await;
    let reset = ask("POST", "/", "reset").header("sim-reset", "cancel").body(full("x")).unwrap();
    lab.fails(reset, "provider_reset", "unknown").await;
    assert_eq!(provider.sim.seen("reset"), 1);
    let cut = ask("GET", "/", "cut").header("sim-body-bytes", "10000").header("sim-reset-at", "mid_body");
    assert!(lab.send(cut.body(empty()).unwrap()).await.cut.is_some());
    lab.assert_logged("cut", "response_cut", "unknown").await;
    assert_eq!(lab.get("/").await.status, 200);
}

#[tokio::test]
async fn limits_and_deadlines_hold_over_http1_too() {
    let provider = Provider::with(Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() }).await;
    let plan = Plan::at(&provider).section("[limits]\nmax_body_bytes = 1000\n");
    let lab = plan.route("timeouts = { total_ms = 300, idle_ms = 250 }").ready().await;
    let total = ask("GET", "/", "total").header("sim-delay-ms", "60000").body(empty()).unwrap();
    lab.fails(total, "deadline_exceeded", "unknown").await;
    let (feed, body) = Feed::new();
    let request = ask("POST", "/", "large").header("sim-respond", "sink").body(body).unwrap();
    let feeding = async {
        for _ in 0..3 {
            feed.send(vec![0; 400]).await;
        }
        &feed
    };
    let (_, _open) = tokio::join!(lab.fails(request, "body_too_large", "no"), feeding);
    let idle = ask("GET", "/", "idle").header("sim-body-bytes", "900").header("sim-stall", "mid_body");
    assert!(lab.send(idle.body(empty()).unwrap()).await.cut.is_some());
    lab.assert_logged("idle", "idle_timeout", "unknown").await;
}

#[tokio::test]
async fn a_full_pool_makes_callers_wait_and_then_says_so() {
    let provider = Provider::with(Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() }).await;
    let pool = "min_connections = 1\nmax_connections = 1\nhttp1_max_connections = 1";
    let plan = Plan::at(&provider).with(|e| {
        e.pool = pool.into();
        e.timeouts = "queue_ms = 200".into();
    });
    let lab = plan.ready().await;
    let mut holder = lab.http1().await;
    let hold = ask("GET", "/", "hold").header("sim-delay-ms", "60000").body(empty()).unwrap();
    let held = tokio::spawn(async move { holder.open(hold).await.map(|_| ()) });
    eventually("the connection is on loan", async || (provider.sim.seen("hold") == 1).then_some(())).await;
    lab.fails(lab.ask("GET", "/"), "queue_timeout", "yes").await;
    held.abort();
    eventually("it serves again", async || (lab.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn aged_connections_are_replaced() {
    let provider = Provider::with(Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() }).await;
    let plan = Plan::at(&provider).edit(|c| c.environments[0].pool.max_age = Duration::from_millis(150));
    let lab = plan.ready().await;
    let load = Load::new("age", 3, 40).pause(Duration::from_millis(10));
    load.run(&lab).await.assert_all_answered_once(&provider);
    assert!(lab.metrics().await.count("tsh_connections_closed_total", &[("cause", "age")]) >= 2);
}

#[tokio::test]
async fn an_outage_is_met_with_back_off_and_not_with_a_storm_of_dials() {
    for http in [HttpVersions::Http11Only, HttpVersions::H2Only] {
        let provider = Provider::with(Behaviour { http, ..Behaviour::default() }).await;
        let lab = Plan::at(&provider).ready().await;
        assert_eq!(lab.get("/").await.status, 200);
        provider.sim.stop().await;
        let tally = Load::new("down", 4, 50).run(&lab).await;
        // A dial that met the closing door ended in its handshake; its cause is told until the next dial.
        let no_connection = ["connection_refused", "tls_closed", "connect_failure"];
        let (down, other): (Vec<_>, Vec<_>) =
            tally.0.iter().partition(|(_, reply)| no_connection.contains(&reply.header("gw-error")));
        // A few may have met the connections as they closed.
        assert!(down.len() >= 190, "{http:?}: {}, others: {:?}", down.len(), other.first());
        assert!(down.iter().all(|(_, reply)| reply.header("gw-retry-safe") == "yes"));
        let dials = lab.total("sandbox", "dials_failed").await;
        assert!((1..=60).contains(&dials), "{http:?}: {dials} dials");
    }
}
