//! gRPC: calls of the bank's own services pass through; the gateway's API answers beside them.

use std::time::Duration;

use bytes::Bytes;
use gateway::grpc::proto::{
    self, egress_client::EgressClient, pools_client::PoolsClient, send_request::Target,
};
use http_body_util::BodyExt;
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tsh_tests::{Feed, Lab, Plan, Provider, caller::ask, eventually, full, tls::Closed, within};

async fn channel(address: std::net::SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn egress(lab: &Lab) -> EgressClient<Channel> {
    EgressClient::new(channel(lab.egress()).await)
}

fn message(target: Option<Target>, path: &str, headers: &[(&str, &str)]) -> proto::SendRequest {
    let header = |(name, value): &(&str, &str)| proto::Header {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
        raw_value: Bytes::new(),
    };
    proto::SendRequest {
        target,
        method: "POST".to_owned(),
        path: path.to_owned(),
        headers: headers.iter().map(header).collect(),
        body: Bytes::from_static(b"hello"),
    }
}

fn sandbox() -> Option<Target> {
    Some(Target::Environment("sandbox".to_owned()))
}

/// A length-delimited protobuf field below 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).ok().filter(|n| *n < 128).expect("a short field");
    [&[number << 3 | 2, length], content].concat()
}

/// A gRPC message on the wire.
fn framed(content: impl AsRef<[u8]>) -> Bytes {
    let content = content.as_ref();
    let mut frame = vec![0];
    frame.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
    frame.extend(content);
    frame.into()
}

#[tokio::test]
async fn a_unary_call_passes_with_its_trailers() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut connection = lab.h2c().await;
    let call = ask("POST", "/bank.Cards/Get", "unary-1").header("content-type", "application/grpc");
    let reply = connection.send(call.header("te", "trailers").body(full(framed("ping"))).unwrap()).await;
    assert_eq!((reply.status, &reply.body), (200, &framed("ping")));
    assert_eq!(reply.header("content-type"), "application/grpc");
    assert_eq!(reply.trailers.unwrap()["grpc-status"], "0");
    let call = ask("POST", "/bank.Cards/Get", "unary-2").header("content-type", "application/grpc");
    let reply =
        connection.send(call.header("sim-grpc-status", "5").body(full(framed("ping"))).unwrap()).await;
    assert_eq!(reply.trailers.unwrap()["grpc-status"], "5");
}

#[tokio::test]
async fn a_bidirectional_call_moves_both_ways_in_turn() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut connection = lab.h2c().await;
    let (feed, body) = Feed::new();
    let call =
        ask("POST", "/bank.Cards/Chat", "bidi-1").header("content-type", "application/grpc").body(body);
    let response = within("headers before any message", connection.open(call.unwrap())).await.unwrap();
    let mut body = response.into_body();
    for n in 0..20 {
        let piece = framed(format!("message {n}"));
        assert!(feed.send(piece.clone()).await);
        let frame = within("the echo", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(feed);
    let trailers = loop {
        let frame = within("trailers", body.frame()).await.unwrap().unwrap();
        if let Ok(trailers) = frame.into_trailers() {
            break trailers;
        }
    };
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(lab.log_line("bidi-1").await["outcome"], "ok");
}

#[tokio::test]
async fn send_carries_a_request_to_an_environment_or_by_a_route() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).with(|e| e.endpoint = "https://tsh.test/base".into()).ready().await;
    let mut client = egress(&lab).await;
    for (n, target) in [sandbox(), Some(Target::Route("all".into())), None].into_iter().enumerate() {
        let id = format!("send-{n}");
        let headers = [
            ("x-correlation-id", id.as_str()),
            ("sim-respond", "describe"),
            ("connection", "x-a"),
            ("x-a", "1"),
        ];
        let reply = client.send(message(target, "/cards?x=1", &headers)).await.unwrap().into_inner();
        assert_eq!((reply.status, reply.correlation_id.as_str()), (200, id.as_str()));
        let seen: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            (&seen["path"], &seen["method"], &seen["received"]),
            (&"/base/cards?x=1".into(), &"POST".into(), &5.into())
        );
        assert!(!seen["headers"].to_string().contains("x-a"), "{seen}");
        let journey = reply.journey.unwrap();
        assert!(journey.connection_id > 0 && journey.attempts == 1 && journey.ttfb_micros > 0, "{journey:?}");
        let line = lab.log_line(&id).await;
        assert_eq!(
            (&line["protocol"], &line["outcome"], &line["environment"]),
            (&"grpc".into(), &"ok".into(), &"sandbox".into())
        );
    }
    let headers = [("x-correlation-id", "sum"), ("sim-trailers", "x-sum=1")];
    let reply = client.send(message(sandbox(), "/t", &headers)).await.unwrap().into_inner();
    assert_eq!((reply.trailers[0].name.as_str(), &reply.body[..]), ("x-sum", &b"hello"[..]));
    assert_eq!(lab.metrics().await.outcomes("2xx"), 4);
}

/// A call that must fail with this code: in status, details, metadata, log and metric.
async fn fails(lab: &Lab, request: Request<proto::SendRequest>, grpc: Code, code: &str, safe: &str) {
    let id = request.get_ref().headers[0].value.clone();
    let before = lab.metrics().await.outcomes(code);
    let status = egress(lab).await.send(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.metadata().get("gw-error").unwrap().to_str().unwrap()),
        (grpc, code),
        "{status:?}"
    );
    assert_eq!(status.metadata().get("gw-retry-safe").unwrap(), safe, "{status:?}");
    let details = String::from_utf8_lossy(status.details()).into_owned();
    assert!(details.contains("google.rpc.ErrorInfo") && details.contains(code), "{details}");
    lab.until_counted(code, before + 1).await;
    lab.assert_logged(&id, code, safe).await;
}

#[tokio::test]
async fn a_deadline_passes_and_says_so() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    // By hand: tonic's own client watches `grpc-timeout` too, and the answer must be the gateway's.
    let header =
        |name: &str, value: &str| field(5, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
    let message = [
        field(1, b"sandbox"),
        field(4, b"/late"),
        header("x-correlation-id", "late-1"),
        header("sim-delay-ms", "60000"),
    ];
    let call =
        ask("POST", "/tsh.gateway.v1.Egress/Send", "call-1").header("content-type", "application/grpc");
    let call =
        call.header("te", "trailers").header("grpc-timeout", "200m").body(full(framed(message.concat())));
    let reply = lab.h2c().await.send(call.unwrap()).await;
    let code = Code::DeadlineExceeded as i32;
    assert_eq!(
        (reply.status, reply.header("grpc-status"), reply.header("gw-error"), reply.header("gw-retry-safe")),
        (200, code.to_string().as_str(), "deadline_exceeded", "unknown"),
        "{reply:?}"
    );
    lab.until_counted("deadline_exceeded", 1).await;
    lab.assert_logged("late-1", "deadline_exceeded", "unknown").await;
    eventually("the provider sees the reset", async || {
        (provider.sim.ledger().client_resets == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn failures_have_the_same_names_as_over_http() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let call = |id: &str, target, path: &str, header: (&str, &str)| {
        Request::new(message(target, path, &[("x-correlation-id", id), header]))
    };
    let nowhere = Some(Target::Environment("nowhere".into()));
    fails(&lab, call("g-1", nowhere, "/", ("x-a", "1")), Code::NotFound, "unknown_environment", "no").await;
    let dots = call("g-2", sandbox(), "/a/../b", ("x-a", "1"));
    fails(&lab, dots, Code::InvalidArgument, "path_not_allowed", "no").await;
    let reset = call("g-3", sandbox(), "/", ("sim-reset", "cancel"));
    fails(&lab, reset, Code::Unavailable, "provider_reset", "unknown").await;
    let cut = Request::new(message(
        sandbox(),
        "/",
        &[("x-correlation-id", "g-4"), ("sim-body-bytes", "10000"), ("sim-reset-at", "mid_body")],
    ));
    fails(&lab, cut, Code::Unavailable, "response_cut", "unknown").await;
    let large = call("g-5", sandbox(), "/", ("sim-body-bytes", "8000000"));
    let status = egress(&lab).await.send(large).await.unwrap_err();
    assert_eq!(status.metadata().get("gw-error").unwrap(), "response_too_large");
    // A status of the provider, whatever it is, is a success of the call.
    let refused = call("g-6", sandbox(), "/", ("sim-status", "503"));
    assert_eq!(egress(&lab).await.send(refused).await.unwrap().into_inner().status, 503);
}

#[tokio::test]
async fn an_outage_is_told_with_its_cause() {
    let provider = Provider::start().await;
    let closed = Closed::make();
    let lab = Plan::at(&provider).with(|e| e.connect = closed.address().to_string()).start().await;
    let request = Request::new(message(sandbox(), "/", &[("x-correlation-id", "down-1")]));
    fails(&lab, request, Code::Unavailable, "connection_refused", "yes").await;
}

async fn health(lab_address: std::net::SocketAddr, service: &str) -> Result<i32, tonic::Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(HealthClient::new(channel(lab_address).await).check(request).await?.into_inner().status)
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

#[tokio::test]
async fn health_knows_each_environment_by_name() {
    let (provider, closed) = (Provider::start().await, Closed::make());
    let mut dead = tsh_tests::EnvironmentPlan::at("dead", &provider);
    dead.connect = closed.address().to_string();
    dead.more = "required = false".into();
    let lab = Plan::at(&provider).and(dead).ready().await;
    for address in [lab.egress(), lab.admin()] {
        eventually("serving", async || {
            (health(address, "sandbox").await.is_ok_and(|s| s == SERVING)).then_some(())
        })
        .await;
        eventually("serving as a whole", async || {
            (health(address, "").await.is_ok_and(|s| s == SERVING)).then_some(())
        })
        .await;
        assert_eq!(health(address, "dead").await.unwrap(), NOT_SERVING);
        assert_eq!(health(address, "nowhere").await.unwrap_err().code(), Code::NotFound);
    }
    provider.sim.stop().await;
    eventually("not serving", async || {
        (health(lab.egress(), "sandbox").await.is_ok_and(|s| s == NOT_SERVING)).then_some(())
    })
    .await;
}

async fn reflected(address: std::net::SocketAddr) -> Vec<String> {
    let mut client = ServerReflectionClient::new(channel(address).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let stream = futures_util::stream::iter([request]);
    let answer =
        client.server_reflection_info(stream).await.unwrap().into_inner().message().await.unwrap().unwrap();
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|s| s.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reflection_lists_what_a_listener_serves_and_pools_are_for_operators_alone() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let (egress, admin) = (reflected(lab.egress()).await, reflected(lab.admin()).await);
    let has = |list: &[String], name: &str| list.iter().any(|s| s == name);
    assert!(has(&egress, "tsh.gateway.v1.Egress") && !has(&egress, "tsh.gateway.v1.Pools"), "{egress:?}");
    assert!(has(&admin, "tsh.gateway.v1.Pools") && !has(&admin, "tsh.gateway.v1.Egress"), "{admin:?}");
    assert!(has(&egress, "grpc.health.v1.Health") && has(&admin, "grpc.health.v1.Health"));

    let list = |environment: &str| proto::ListPoolsRequest { environment: environment.to_owned() };
    let mut pools = PoolsClient::new(channel(lab.admin()).await);
    let pool = pools.list(list("")).await.unwrap().into_inner().pools.remove(0);
    assert_eq!(
        (pool.environment.as_str(), pool.customer.as_str(), pool.floor_met),
        ("sandbox", "CUSTOMER-0001", true)
    );
    assert_eq!(pool.connections.len(), 2);
    let handshake = pool.connections[0].handshake.clone().unwrap();
    assert_eq!((handshake.version.as_str(), handshake.key_exchange.as_str()), ("1.3", "X25519MLKEM768"));
    assert_eq!(pools.list(list("nowhere")).await.unwrap_err().code(), Code::NotFound);
    let denied = PoolsClient::new(channel(lab.egress()).await).list(list("")).await.unwrap_err();
    assert_eq!(denied.code(), Code::Unimplemented, "{denied:?}");
    assert_eq!(provider.sim.ledger().requests, 0, "nothing reserved was forwarded");
}

#[tokio::test]
async fn a_caller_that_gives_up_is_recorded() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut client = egress(&lab).await;
    let headers = [("x-correlation-id", "gone-1"), ("sim-delay-ms", "60000")];
    let call = client.send(message(sandbox(), "/", &headers));
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    assert_eq!(lab.log_line("gone-1").await["outcome"], "caller_gone");
    eventually("the provider sees the reset", async || {
        (provider.sim.ledger().client_resets == 1).then_some(())
    })
    .await;
}
