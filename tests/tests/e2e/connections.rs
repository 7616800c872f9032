//! From a line of the access log to the connection that carried the request, while it lives and when it is dead.

use provider_sim::Behaviour;
use serde_json::Value;
use tsh_tests::{Lab, Plan, Provider, eventually};

/// The connection with the number that this log line names, in this state.
async fn find(lab: &Lab, line: &Value, state: &str) -> Value {
    let id = line["connection"].as_u64().expect("a log line names its connection");
    eventually(&format!("connection {id} is {state}"), async || {
        let reply = lab.admin_get(&format!("/api/v1/connections?id={id}&state={state}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let list = reply.json();
        let found = list["connections"].as_array().unwrap();
        assert!(found.len() <= 1, "a number names one connection: {list}");
        found.first().cloned()
    })
    .await
}

async fn request(lab: &Lab) -> Value {
    let ask = lab.ask("GET", "/cards");
    let id = ask.headers()["x-correlation-id"].to_str().unwrap().to_owned();
    assert_eq!(lab.send(ask).await.status, 200);
    lab.log_line(&id).await
}

#[tokio::test]
async fn the_connection_named_in_the_log_is_found_alive_and_dead() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let line = request(&lab).await;
    let living = find(&lab, &line, "serving").await;
    assert_eq!((&living["environment"], &living["proof"]), (&line["environment"], &"ping".into()));
    assert_eq!(living["requests"], 1);
    assert_eq!(living["settings"]["max_concurrent_streams"], 128);
    provider.sim.goaway_all();
    let dead = find(&lab, &line, "dead").await;
    assert_eq!((&dead["cause"], &dead["requests"]), (&"goaway".into(), &1.into()));
    for same in ["id", "environment", "address", "generation", "protocol", "handshake", "phases"] {
        assert_eq!(dead[same], living[same], "{same}");
    }
    assert!(dead["idle_millis"].is_u64(), "it carried nothing at the end: {dead}");
}

#[tokio::test]
async fn an_http1_connection_is_found_too() {
    let http = provider_sim::HttpVersions::Http11Only;
    let provider = Provider::with(Behaviour { http, ..Behaviour::default() }).await;
    let lab = Plan::at(&provider).ready().await;
    let line = request(&lab).await;
    let living = find(&lab, &line, "serving").await;
    assert_eq!((&living["protocol"], &living["requests"]), (&"http/1.1".into(), &1.into()));
    provider.sim.kill_connections();
    let dead = find(&lab, &line, "dead").await;
    assert_eq!((&dead["cause"], &dead["requests"]), (&"closed_by_provider".into(), &1.into()));
}

#[tokio::test]
async fn a_limit_that_shrinks_is_listed_and_counted() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    request(&lab).await;
    let smaller = Behaviour { max_concurrent_streams: Some(7), ..provider.sim.behaviour() };
    provider.sim.set_behaviour(smaller).unwrap();
    let change = eventually("the change is listed", async || {
        let list = lab.admin_get("/api/v1/drift?field=max_concurrent_streams").await.json();
        list["changes"].get(0).cloned()
    })
    .await;
    assert_eq!(change["sentence"], "max_concurrent_streams 128 -> 7");
    assert_eq!((&change["severity"], &change["environment"]), (&"warning".into(), &"sandbox".into()));
    let labels = [("environment", "sandbox"), ("field", "max_concurrent_streams")];
    assert_eq!(lab.metrics().await.count("tsh_provider_drift_total", &labels), 1);
}
