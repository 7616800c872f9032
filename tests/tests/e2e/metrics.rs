//! What `/metrics` says is what happened: compared with the provider's own books.

use provider_sim::{Behaviour, HttpVersions};
use tsh_tests::{Load, Plan, Provider, caller::ask, empty, eventually};

const SANDBOX: (&str, &str) = ("environment", "sandbox");

/// Runs a load over connections that end, and compares every number there is.
async fn compare(http: HttpVersions) {
    let provider =
        Provider::with(Behaviour { http, goaway_after_requests: Some(50), ..Behaviour::default() }).await;
    let mut lab = Plan::at(&provider).ready().await;
    Load::new("m", 4, 100).run(&lab).await.assert_all_answered_once(&provider);
    let teapot = ask("GET", "/", "teapot").header("sim-status", "418").body(empty()).unwrap();
    assert_eq!(lab.send(teapot).await.status, 418);
    lab.until_counted("2xx", 400).await;
    lab.until_counted("4xx", 1).await;
    eventually("ends are noted", async || {
        let (ledger, metrics) = (provider.sim.ledger(), lab.metrics().await);
        let closed = metrics.count("tsh_connections_closed_total", &[SANDBOX]);
        let dialled = metrics.count("tsh_handshakes_total", &[SANDBOX, ("result", "ok")]);
        let serving = metrics.count("tsh_connections", &[SANDBOX, ("state", "serving")]);
        let settled = closed + serving == dialled && serving >= 2 && ledger.connections_open == serving;
        settled.then_some(())
    })
    .await;

    let (ledger, metrics) = (provider.sim.ledger(), lab.metrics().await);
    let handshakes =
        |kind| metrics.count("tsh_handshakes_total", &[SANDBOX, ("kind", kind), ("result", "ok")]);
    assert_eq!(handshakes("full"), ledger.handshakes_full, "{ledger:?}");
    assert_eq!(handshakes("resumed"), ledger.handshakes_resumed, "{ledger:?}");
    assert!(ledger.handshakes_full > 0 && ledger.handshakes_resumed > 0, "{ledger:?}");
    for kind in ["full", "resumed"] {
        for phase in ["dns", "tcp", "tls", "prove", "total"] {
            let labels = [SANDBOX, ("kind", kind), ("phase", phase)];
            let count = metrics.count("tsh_handshake_seconds_count", &labels);
            assert_eq!(count, handshakes(kind), "{kind} {phase}");
            let mean = metrics.sum("tsh_handshake_seconds_sum", &labels) / count as f64;
            assert!((0.0..5.0).contains(&mean), "{kind} {phase}: {mean} s");
            let below = metrics.count(
                "tsh_handshake_seconds_bucket",
                &[SANDBOX, ("kind", kind), ("phase", phase), ("le", "+Inf")],
            );
            assert_eq!(below, count);
        }
    }
    let tls = |kind| metrics.sum("tsh_handshake_seconds_sum", &[SANDBOX, ("kind", kind), ("phase", "tls")]);
    assert!(tls("full") > 0.0 && tls("resumed") > 0.0);

    let connections = handshakes("full") + handshakes("resumed");
    let ratio = metrics.sum("tsh_reuse_ratio", &[SANDBOX]);
    assert!(
        (ratio - (1.0 - connections as f64 / 401.0)).abs() < 1e-9,
        "{ratio} with {connections} connections"
    );
    let closed = metrics.count("tsh_connection_requests_count", &[SANDBOX]);
    assert_eq!(closed, metrics.count("tsh_connections_closed_total", &[SANDBOX]));
    let attempts = 401 + metrics.count("tsh_retries_total", &[SANDBOX]);
    let on_open: u64 = lab.pool("sandbox").await["connections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["requests"].as_u64().unwrap())
        .sum();
    assert_eq!(metrics.count("tsh_connection_requests_sum", &[SANDBOX]) + on_open, attempts);
    assert_eq!(ledger.requests - ledger.requests_disowned, 401);

    for phase in ["send", "ttfb", "total"] {
        assert_eq!(metrics.count("tsh_request_seconds_count", &[SANDBOX, ("phase", phase)]), 401, "{phase}");
    }
    assert_eq!(metrics.count("tsh_body_bytes_total", &[SANDBOX, ("direction", "in")]), 40_000);
    assert_eq!(
        metrics.count("tsh_body_bytes_total", &[SANDBOX, ("direction", "out")]),
        ledger.body_bytes_sent
    );
    for (name, value) in [
        ("tsh_streams_in_flight", 0.0),
        ("tsh_queue_depth", 0.0),
        ("tsh_replay_bytes", 0.0),
        ("tsh_floor_met", 1.0),
    ] {
        assert_eq!(metrics.sum(name, &[SANDBOX]), value, "{name}");
    }
    if http != HttpVersions::Http11Only {
        assert_eq!(metrics.count("tsh_goaways_total", &[SANDBOX]), ledger.goaways_sent);
    }
    assert!(metrics.sum("tsh_certificate_expiry_timestamp_seconds", &[SANDBOX, ("role", "client")]) > 1.7e9);
    assert!(metrics.has("tsh_build_info", &[]));
    assert_eq!(lab.log().len() as u64, 401, "one line for each");
    assert!(lab.stop().await.is_clean());
}

#[tokio::test]
async fn metrics_agree_with_the_provider_over_http2() {
    compare(HttpVersions::H2Only).await;
}

#[tokio::test]
async fn metrics_agree_with_the_provider_over_http1() {
    compare(HttpVersions::Http11Only).await;
}

#[tokio::test]
async fn a_reply_says_where_the_time_went() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).route("timeout_ms = 100").ready().await;
    let slow = ask("GET", "/", "slow").header("sim-delay-ms", "5000").body(empty()).unwrap();
    let reply = lab.fails(slow, "response_timeout", "unknown").await;
    let timing = reply.header("server-timing");
    for phase in ["queue", "connect", "send", "ttfb"] {
        assert!(timing.contains(&format!("{phase};dur=")), "{timing}");
    }
    let ttfb: f64 = timing.rsplit_once("ttfb;dur=").unwrap().1.parse().unwrap();
    assert!((100.0..5000.0).contains(&ttfb), "{timing}");
}
