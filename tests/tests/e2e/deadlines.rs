//! Deadlines that callers give: they lower the limit, reach the provider, and are never passed in silence.

use std::time::Duration;

use gateway::grpc::proto::{self, egress_client::EgressClient, send_request::Target};
use http::request;
use provider_sim::{Behaviour, HttpVersions};
use serde_json::Value;
use tonic::{Code, transport::Channel};
use tsh_tests::{Lab, Plan, Provider, Reply, caller::ask, empty, eventually, full};

const HEADER: &str = "x-request-timeout-ms";

fn plan(provider: &Provider) -> Plan {
    Plan::at(provider).egress(&format!("deadline_header = \"{HEADER}\""))
}

/// What the provider saw of a header; the request asked it to describe itself.
fn seen(description: &Value, name: &str) -> Vec<String> {
    let headers = description["headers"].as_array().expect("a description");
    headers.iter().filter(|h| h[0] == name).map(|h| h[1].as_str().unwrap_or_default().to_owned()).collect()
}

fn grpc(id: &str) -> request::Builder {
    ask("POST", "/bank.Cards/Get", id).header("content-type", "application/grpc").header("te", "trailers")
}

/// Microseconds, from a value in that unit.
fn micros(value: &str) -> u64 {
    value.strip_suffix('u').and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{value}"))
}

#[tokio::test]
async fn the_provider_is_told_what_is_left_in_the_field_that_the_caller_gave() {
    let http1 = Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() };
    for behaviour in [Behaviour::default(), http1] {
        let provider = Provider::with(behaviour).await;
        let lab = plan(&provider).ready().await;
        let request = grpc("left-1").header("grpc-timeout", "5S").header("sim-respond", "describe");
        let reply = lab.h2c().await.send(request.body(empty()).unwrap()).await;
        let told = seen(&reply.json(), "grpc-timeout");
        assert_eq!(told.len(), 1, "{reply:?}");
        assert!((1..=5_000_000).contains(&micros(&told[0])), "{told:?}");
        assert!(seen(&reply.json(), HEADER).is_empty(), "what was not given is not added");

        let request = ask("GET", "/", "left-2").header(HEADER, "5000").header("sim-respond", "describe");
        let reply = lab.send(request.header("grpc-timeout", "as it is").body(empty()).unwrap()).await;
        let told: u64 = seen(&reply.json(), HEADER)[0].parse().unwrap();
        assert!((1..=5_000).contains(&told), "{told}");
        assert_eq!(seen(&reply.json(), "grpc-timeout"), ["as it is"], "no gRPC, so no business of ours");

        // The caller's own hop: the provider is not told.
        let request = ask("GET", "/", "left-3").header(HEADER, "5000").header("sim-respond", "describe");
        let reply = lab.send(request.header("connection", HEADER).body(empty()).unwrap()).await;
        assert!(seen(&reply.json(), HEADER).is_empty(), "{reply:?}");
    }
}

#[tokio::test]
async fn time_in_the_queue_and_a_lower_limit_of_ours_are_taken_off_what_the_provider_is_told() {
    let provider = Provider::start().await;
    let pool = "min_connections = 1\nmax_connections = 1\nmax_streams = 1";
    let lab = plan(&provider).with(|e| e.pool = pool.into()).ready().await;
    let mut holder = lab.http1().await;
    let hold = ask("GET", "/", "hold").header("sim-delay-ms", "300").body(empty()).unwrap();
    let held = tokio::spawn(async move { holder.open(hold).await.map(|_| ()) });
    eventually("the stream is taken", async || (provider.sim.seen("hold") == 1).then_some(())).await;
    let request = ask("GET", "/", "queued").header(HEADER, "5000").header("sim-respond", "describe");
    let reply = lab.send(request.body(empty()).unwrap()).await;
    let told: u64 = seen(&reply.json(), HEADER)[0].parse().unwrap();
    let queued = lab.log_line("queued").await["queue_us"].as_u64().unwrap();
    assert!(queued > 0, "it waited");
    assert!(told * 1_000 + queued <= 5_000_000, "told {told} ms after {queued} us in the queue");
    held.await.unwrap().unwrap();

    let lab = plan(&provider).route("timeouts = { total_ms = 700 }").ready().await;
    let request = ask("GET", "/", "lower").header(HEADER, "60000").header("sim-respond", "describe");
    let reply = lab.send(request.body(empty()).unwrap()).await;
    assert!(seen(&reply.json(), HEADER)[0].parse::<u64>().unwrap() <= 700, "{reply:?}");
}

#[tokio::test]
async fn a_callers_deadline_ends_the_exchange_and_never_prolongs_it() {
    let provider = Provider::start().await;
    for (total, header) in [("0", "150"), ("60000", "150"), ("150", "60000")] {
        let lab = plan(&provider).route(&format!("timeouts = {{ total_ms = {total} }}")).ready().await;
        let request = ask("GET", "/", "d-1").header(HEADER, header).header("sim-delay-ms", "60000");
        lab.fails(request.body(empty()).unwrap(), "deadline_exceeded", "unknown").await;
        // The response's body too.
        let request = ask("GET", "/", "d-2").header(HEADER, header).header("sim-body-bytes", "1000");
        let reply = lab.send(request.header("sim-stall", "mid_body").body(empty()).unwrap()).await;
        assert!(reply.cut.is_some(), "{reply:?}");
        lab.assert_logged("d-2", "deadline_exceeded", "unknown").await;
    }
}

/// The reply to a gRPC call that never reached the provider, or failed there.
async fn grpc_failure(lab: &Lab, request: request::Builder, grpc: Code, code: &str, safe: &str) -> Reply {
    let request = request.body(full("\0\0\0\0\0")).unwrap();
    let id = request.headers()["x-correlation-id"].to_str().unwrap().to_owned();
    let reply = lab.h2c().await.send(request).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/grpc"), "{reply:?}");
    assert_eq!(
        (reply.header("grpc-status"), reply.header("gw-error"), reply.header("gw-retry-safe")),
        ((grpc as i32).to_string().as_str(), code, safe),
        "{reply:?}"
    );
    assert!(reply.header("server-timing").contains("queue;dur=") && reply.body.is_empty(), "{reply:?}");
    assert_eq!(reply.header("x-correlation-id"), id);
    lab.assert_logged(&id, code, safe).await;
    reply
}

#[tokio::test]
async fn a_wrong_form_is_refused_with_the_name_of_the_field_and_its_form() {
    let provider = Provider::start().await;
    let lab = plan(&provider).ready().await;
    for (n, value) in ["", "1s", "-5", "12345678901"].iter().enumerate() {
        let request = ask("GET", "/", &format!("form-{n}")).header(HEADER, *value).body(empty()).unwrap();
        let reply = lab.fails(request, "bad_request", "no").await;
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(HEADER) && detail.contains("milliseconds"), "{detail}");
    }
    let request =
        ask("GET", "/", "form-twice").header(HEADER, "1").header(HEADER, "2").body(empty()).unwrap();
    lab.fails(request, "bad_request", "no").await;
    for (n, value) in ["5", "5s", "123456789n"].iter().enumerate() {
        let request = grpc(&format!("form-g{n}")).header("grpc-timeout", *value);
        let reply = grpc_failure(&lab, request, Code::InvalidArgument, "bad_request", "no").await;
        let message = reply.header("grpc-message");
        assert!(message.contains("grpc-timeout") && message.contains("digits"), "{message}");
    }
    assert_eq!(provider.sim.ledger().requests, 0);
}

#[tokio::test]
async fn no_time_at_all_is_a_deadline_passed_with_nothing_sent() {
    let provider = Provider::start().await;
    let lab = plan(&provider).ready().await;
    let request = ask("POST", "/", "zero-1").header(HEADER, "0").body(full("x")).unwrap();
    lab.fails(request, "deadline_exceeded", "yes").await;
    let request = grpc("zero-2").header("grpc-timeout", "0S");
    grpc_failure(&lab, request, Code::DeadlineExceeded, "deadline_exceeded", "yes").await;
    assert_eq!(provider.sim.ledger().requests, 0);
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_is_told_as_one_and_safe_to_retry() {
    let provider = Provider::start().await;
    let pool = "min_connections = 1\nmax_connections = 1\nmax_streams = 1";
    let lab = plan(&provider).with(|e| e.pool = pool.into()).ready().await;
    let mut holder = lab.http1().await;
    let hold = ask("GET", "/", "hold").header("sim-delay-ms", "60000").body(empty()).unwrap();
    let held = tokio::spawn(async move { holder.open(hold).await.map(|_| ()) });
    eventually("the stream is taken", async || (provider.sim.seen("hold") == 1).then_some(())).await;
    let request = ask("GET", "/", "q-1").header(HEADER, "100").body(empty()).unwrap();
    lab.fails(request, "deadline_exceeded", "yes").await;
    let request = grpc("q-2").header("grpc-timeout", "100m");
    grpc_failure(&lab, request, Code::DeadlineExceeded, "deadline_exceeded", "yes").await;
    assert_eq!((provider.sim.seen("q-1"), provider.sim.seen("q-2")), (0, 0));
    held.abort();
}

#[tokio::test]
async fn a_message_of_the_grpc_api_has_the_shorter_of_its_deadlines() {
    let provider = Provider::start().await;
    let lab = plan(&provider).ready().await;
    let channel = Channel::from_shared(format!("http://{}", lab.egress())).unwrap().connect().await.unwrap();
    let mut client = EgressClient::new(channel);
    let mut send =
        async |id: &str, wait: &str, order: (&str, &str)| {
            let headers = [("x-correlation-id", id), (HEADER, wait), order].map(|(name, value)| {
                proto::Header { name: name.to_owned(), value: value.to_owned(), ..proto::Header::default() }
            });
            let target = Some(Target::Environment("sandbox".to_owned()));
            let message = proto::SendRequest {
                target,
                path: "/".to_owned(),
                headers: headers.into(),
                ..proto::SendRequest::default()
            };
            let mut request = tonic::Request::new(message);
            request.set_timeout(Duration::from_secs(20));
            client.send(request).await.map(tonic::Response::into_inner)
        };
    let reply = send("m-1", "60000", ("sim-respond", "describe")).await.unwrap();
    let told = seen(&serde_json::from_slice(&reply.body).unwrap(), HEADER)[0].parse::<u64>().unwrap();
    assert!((1..=20_000).contains(&told), "{told}");
    let status = send("m-2", "150", ("sim-delay-ms", "60000")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let status = send("m-3", "never", ("x-a", "1")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(status.metadata().get("gw-error").unwrap(), "bad_request");
    let status = send("m-4", "0", ("x-a", "1")).await.unwrap_err();
    assert_eq!(status.metadata().get("gw-retry-safe").unwrap(), "yes", "{status:?}");
    assert_eq!((provider.sim.seen("m-3"), provider.sim.seen("m-4")), (0, 0));
}

#[tokio::test]
async fn a_deadline_that_the_queue_cannot_meet_is_refused_at_once() {
    let provider = Provider::start().await;
    let pool = "min_connections = 1\nmax_connections = 1\nmax_streams = 1";
    let lab = plan(&provider)
        .with(|e| {
            e.pool = pool.into();
            e.timeouts = "queue_ms = 60000".into();
        })
        .ready()
        .await;
    // Enough for a while: the queue moves once in 50 ms.
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..100 {
        let mut connection = lab.http1().await;
        let request = ask("GET", "/", &format!("flood-{n}")).header("sim-delay-ms", "50");
        flood.spawn(async move { connection.open(request.body(empty()).unwrap()).await.map(|_| ()) });
    }
    let mut tries = 0;
    let (id, reply) = eventually("a refusal", async || {
        tries += 1;
        let id = format!("hopeless-{tries}");
        let reply = lab.send(ask("GET", "/", &id).header(HEADER, "300").body(empty()).unwrap()).await;
        assert_eq!(reply.header("gw-retry-safe"), "yes", "{reply:?}");
        // Until the queue's pace is known, the deadline passes in it.
        match reply.header("gw-error") {
            "deadline_unreachable" => Some((id, reply)),
            "deadline_exceeded" => None,
            _ => panic!("{reply:?}"),
        }
    })
    .await;
    lab.assert_failed(&reply, &id, "deadline_unreachable", "yes").await;
    let line = lab.log_line(&id).await;
    assert!(line["total_us"].as_u64().unwrap() < 300_000, "at once, not when the deadline passed: {line}");
    assert_eq!((&line["blame"], provider.sim.seen(&id)), (&"operator".into(), 0));
}
