//! Callers: who they are in the log, and what becomes of those that break the rules or take nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use gateway::grpc::proto::{self, egress_client::EgressClient, send_request::Target};
use http::Request;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tonic::{Code, transport::Channel};
use tsh_tests::{
    Http1, Plan, Provider, caller::HOST, caller::ask, empty, eventually, full, tls::Closed, within,
};

#[tokio::test]
async fn a_caller_has_its_name_in_the_log_by_address_or_by_user() {
    let provider = Provider::start().await;
    let uid = rustix::process::getuid().as_raw();
    let callers = format!(
        "[callers.wide]\naddresses = [\"0.0.0.0/0\"]\n[callers.local]\naddresses = [\"127.0.0.0/8\"]\nweight = 7\n\
         [callers.service]\nuids = [{uid}]\n"
    );
    let lab = Plan::at(&provider).section(&callers).unix().ready().await;
    lab.send(ask("GET", "/", "tcp-1").body(empty()).unwrap()).await;
    lab.h2c().await.send(ask("GET", "/", "tcp-2").body(empty()).unwrap()).await;
    let socket = UnixStream::connect(lab.socket()).await.unwrap();
    Http1::over(socket).await.send(ask("GET", "/", "unix-1").body(empty()).unwrap()).await;
    send(&lab, "grpc-1", "all", "GET", "/").await.unwrap();
    for (id, name) in [("tcp-1", "local"), ("tcp-2", "local"), ("unix-1", "service"), ("grpc-1", "local")] {
        assert_eq!(lab.log_line(id).await["caller"], name, "{id}");
    }
    let lab = Plan::at(&provider).ready().await;
    lab.send(ask("GET", "/", "nobody-1").body(empty()).unwrap()).await;
    assert_eq!(lab.log_line("nobody-1").await["caller"], "-");
}

/// One call of the gRPC API by a route's name.
async fn send(
    lab: &tsh_tests::Lab,
    id: &str,
    route: &str,
    method: &str,
    path: &str,
) -> Result<u32, tonic::Status> {
    let channel = Channel::from_shared(format!("http://{}", lab.egress())).unwrap().connect().await.unwrap();
    let id = proto::Header {
        name: "x-correlation-id".to_owned(),
        value: id.to_owned(),
        ..proto::Header::default()
    };
    let message = proto::SendRequest {
        target: Some(Target::Route(route.to_owned())),
        method: method.to_owned(),
        path: path.to_owned(),
        headers: vec![id],
        ..proto::SendRequest::default()
    };
    EgressClient::new(channel).send(message).await.map(|reply| reply.into_inner().status)
}

#[tokio::test]
async fn a_route_that_is_named_keeps_its_conditions() {
    let provider = Provider::start().await;
    let conditions = "path_prefix = \"/cards\"\nmethod = [\"GET\"]\nhost = \"cards.bank\"";
    let lab = Plan::at(&provider).route(conditions).ready().await;
    assert_eq!(send(&lab, "named-1", "all", "GET", "/cards/1").await.unwrap(), 200);
    for (id, method, path) in [("named-2", "DELETE", "/cards/1"), ("named-3", "GET", "/tokens")] {
        let status = send(&lab, id, "all", method, path).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        assert_eq!(status.metadata().get("gw-error").unwrap(), "no_route");
        assert!(status.message().contains("`all`"), "{status:?}");
        assert_eq!(provider.sim.seen(id), 0);
    }
}

#[tokio::test]
async fn a_malformed_chunked_body_is_a_bad_request() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for (n, wrong) in
        ["5\r\nhello\r\nnonsense\r\n", "5\r\nhelloXX", "ffffffffffffffffff\r\nx"].iter().enumerate()
    {
        let id = format!("chunk-{n}");
        let mut raw = lab.raw().await;
        raw.write(format!(
            "POST /c HTTP/1.1\r\nHost: {HOST}\r\nx-correlation-id: {id}\r\nsim-respond: sink\r\n\
             Transfer-Encoding: chunked\r\n\r\n{wrong}"
        ))
        .await;
        let reply = raw.read_to_end().await;
        assert!(reply.starts_with("HTTP/1.1 400 ") && reply.contains("gw-error: bad_request\r\n"), "{reply}");
        assert!(reply.contains("connection: close\r\n") && reply.contains("chunked coding"), "{reply}");
        lab.assert_logged(&id, "bad_request", "no").await;
    }
    lab.until_counted("bad_request", 3).await;
}

#[tokio::test]
async fn an_early_refusal_says_that_the_connection_ends_unless_the_body_was_there() {
    let provider = Provider::start().await;
    let closed = Closed::make();
    // Refused before the pool is asked, and by the pool.
    for (plan, code) in [
        (Plan::at(&provider).route("path_prefix = \"/only\""), "no_route"),
        (Plan::at(&provider).with(|e| e.connect = closed.address().to_string()), "connection_refused"),
    ] {
        let lab = plan.start().await;
        let head =
            |length: usize| format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n");
        let mut raw = lab.raw().await;
        raw.write(format!("{}the beginning", head(1_000_000))).await;
        let reply = raw.read_to_end().await;
        assert!(reply.contains(&format!("gw-error: {code}\r\n")), "{reply}");
        assert!(reply.contains("connection: close\r\n"), "{code}: {reply}");

        let mut raw = lab.raw().await;
        for _ in 0..2 {
            raw.write(format!("{}hello", head(5))).await;
            let reply = raw.read_until("\r\n\r\n").await;
            assert!(reply.contains(&format!("gw-error: {code}\r\n")), "{reply}");
            assert!(
                !reply.contains("connection: close"),
                "{code}: a small body costs no connection: {reply}"
            );
            raw.read_until("}").await;
        }
    }
}

#[tokio::test]
async fn what_never_became_a_request_is_refused_with_the_same_words() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).section("[timeouts]\nheader_ms = 150\n").ready().await;
    let long = "y".repeat(300_000);
    for (request, status, code) in [
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nx: {long}\r\n\r\n"), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n"), 408, "request_timeout"),
    ] {
        let mut raw = lab.raw().await;
        raw.write(request).await;
        let reply = raw.read_to_end().await;
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{reply}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        for field in [
            format!("gw-error: {code}"),
            "gw-retry-safe: no".to_owned(),
            "server-timing: queue;dur=".to_owned(),
            "connection: close".to_owned(),
            "content-type: application/problem+json".to_owned(),
        ] {
            assert!(head.contains(&format!("\r\n{field}")), "{field}: {head}");
        }
        let document: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&document["code"], &document["status"]), (&code.into(), &status.into()));
        lab.until_counted(code, 1).await;
    }
}

#[tokio::test]
async fn a_grpc_call_that_fails_on_the_way_gets_a_grpc_status() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let call = |id: &str, kind: &str| {
        ask("POST", "/bank.Cards/Get", id)
            .header("content-type", kind)
            .header("sim-reset", "cancel")
            .body(full("\0\0\0\0\0"))
            .unwrap()
    };
    let reply = lab.h2c().await.send(call("native-1", "application/grpc+proto")).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, "14"), "{reply:?}");
    assert_eq!((reply.header("gw-error"), reply.header("gw-retry-safe")), ("provider_reset", "unknown"));
    assert!(!reply.header("grpc-status-details-bin").is_empty(), "{reply:?}");
    let line = lab.log_line("native-1").await;
    assert_eq!((&line["outcome"], &line["status"]), (&"provider_reset".into(), &502.into()));
    let reply = lab.h2c().await.send(call("web-1", "application/grpc-web")).await;
    lab.assert_failed(&reply, "web-1", "provider_reset", "unknown").await;
}

#[tokio::test]
async fn an_h2c_caller_that_opens_no_window_is_ended_and_blamed_and_its_others_go_on() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).section("[timeouts]\ncaller_idle_ms = 400\n").ready().await;
    let tcp = TcpStream::connect(lab.egress()).await.unwrap();
    let (mut sender, mut connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, bytes::Bytes>(tcp).await.unwrap();
    let ping = connection.ping_pong().unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = |id: &str, bytes: &str| {
        let request = Request::get(format!("http://{HOST}/w")).header("x-correlation-id", id);
        request.header("sim-body-bytes", bytes).body(()).unwrap()
    };
    let (response, _) = sender.send_request(request("shut-1", "100000"), true).unwrap();
    let response = within("the header needs no window", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let ended = within("the gateway ends the stream", body.data()).await.unwrap().unwrap_err();
    assert_eq!(ended.reason(), Some(h2::Reason::CANCEL), "{ended:?}");
    let line = lab.log_line("shut-1").await;
    assert_eq!((&line["outcome"], &line["blame"]), (&"caller_gone".into(), &"caller".into()), "{line}");
    eventually("the provider's stream is free", async || {
        (lab.pool("sandbox").await["in_flight"] == 0).then_some(())
    })
    .await;
    // The connection itself is fine.
    let (response, _) = sender.send_request(request("shut-2", "0"), true).unwrap();
    assert_eq!(within("a reply without a body", response).await.unwrap().status(), 200);
    drop(ping);
}

/// One request from another address of this host.
async fn from_address(
    lab: &tsh_tests::Lab,
    address: [u8; 4],
    request: Request<tsh_tests::Body>,
) -> tsh_tests::Reply {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    let tcp = socket.connect(lab.egress()).await.unwrap();
    Http1::over(tcp).await.send(request).await
}

#[tokio::test]
async fn a_flood_of_one_caller_does_not_keep_another_waiting() {
    const FLOOD: usize = 20;
    let provider = Provider::start().await;
    let pool = "min_connections = 1\nmax_connections = 1\nmax_streams = 1";
    let plan = Plan::at(&provider).with(|e| {
        e.pool = pool.into();
        e.timeouts = "queue_ms = 20000".into();
    });
    let lab = Arc::new(plan.section("[callers.flood]\naddresses = [\"127.0.0.2\"]\n").ready().await);
    let served = Arc::new(AtomicUsize::new(0));
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..FLOOD {
        let (lab, served) = (lab.clone(), served.clone());
        flood.spawn(async move {
            let request = ask("GET", "/", &format!("flood-{n}")).header("sim-delay-ms", "100");
            let reply = from_address(&lab, [127, 0, 0, 2], request.body(empty()).unwrap()).await;
            served.fetch_add(1, Ordering::SeqCst);
            reply.status
        });
    }
    eventually("the flood waits", async || {
        (lab.pool("sandbox").await["queue_depth"].as_u64() >= Some(FLOOD as u64 / 2)).then_some(())
    })
    .await;
    let before = served.load(Ordering::SeqCst);
    let reply = from_address(&lab, [127, 0, 0, 3], ask("GET", "/", "quiet-1").body(empty()).unwrap()).await;
    let passed = served.load(Ordering::SeqCst) - before;
    assert_eq!(reply.status, 200);
    assert!(passed <= 3, "{passed} of the flood went before it, {before} had gone by then");
    assert_eq!(lab.log_line("quiet-1").await["caller"], "-");
    assert_eq!(lab.log_line("flood-0").await["caller"], "flood");
    while let Some(status) = flood.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
}
