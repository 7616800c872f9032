//! What callers may not do: each refusal has its name, in reply, log and metric.

use http::Request;
use tsh_tests::{Feed, H2c, Lab, Plan, Provider, caller::HOST, caller::ask, empty, eventually, full};

/// The reply to a request written by hand, and its line in the log.
async fn refused(lab: &Lab, request: &str, code: &str) -> String {
    let before = lab.metrics().await.outcomes(code);
    let mut raw = lab.raw().await;
    raw.write(request).await;
    let reply = raw.read_until("\r\n\r\n").await;
    assert!(reply.contains(&format!("gw-error: {code}\r\n")), "{request:?}: {reply}");
    assert!(reply.contains("gw-retry-safe: no\r\n"), "{reply}");
    lab.until_counted(code, before + 1).await;
    eventually(&format!("a log line with {code}"), async || {
        let lines = lab.log().into_iter().filter(|line| line["outcome"] == code).count() as u64;
        (lines == before + 1).then_some(())
    })
    .await;
    reply
}

#[tokio::test]
async fn dot_segments_are_refused_however_written() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for path in ["/a/../b", "/a/%2e%2E/b", "/./a", "/a/.%2e;x=1/b"] {
        let mut raw = lab.raw().await;
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let reply = raw.read_until("\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("gw-error: path_not_allowed"), "{reply}");
    }
    lab.fails(lab.ask("GET", "/x/.."), "path_not_allowed", "no").await;
    assert_eq!(provider.sim.ledger().requests, 0);
}

#[tokio::test]
async fn connect_and_trace_and_upgrades_are_refused() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let text = format!("CONNECT tsh.test:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let reply = refused(&lab, &text, "method_not_allowed").await;
    assert!(reply.starts_with("HTTP/1.1 405"), "{reply}");
    lab.fails(lab.ask("TRACE", "/"), "method_not_allowed", "no").await;
    let text = format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let reply = refused(&lab, &text, "upgrade_not_supported").await;
    assert!(reply.starts_with("HTTP/1.1 501"), "{reply}");
    assert_eq!(provider.sim.ledger().requests, 0);
}

#[tokio::test]
async fn an_offer_of_h2c_is_answered_in_http1() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut raw = lab.raw().await;
    raw.write(format!(
        "GET /j HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    ))
    .await;
    let reply = raw.read_to_end().await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

#[tokio::test]
async fn a_request_without_a_route_or_a_host_is_named() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).route("path_prefix = \"/only\"").ready().await;
    lab.fails(lab.ask("GET", "/other"), "no_route", "no").await;
    refused(&lab, "GET /only HTTP/1.1\r\nConnection: close\r\n\r\n", "bad_request").await;
    refused(&lab, "GET /only HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "bad_request").await;
}

#[tokio::test]
async fn a_request_that_is_no_http_is_named() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut raw = lab.raw().await;
    raw.write("\x16\x03\x01 this is not HTTP\r\n\r\n").await;
    let reply = raw.read_to_end().await;
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    lab.until_counted("bad_request", 1).await;
}

#[tokio::test]
async fn headers_too_large_are_named_over_both_protocols() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).section("[limits]\nmax_header_bytes = 4096\n").ready().await;
    let request = |id: &str, bytes: usize| {
        ask("GET", "/", id).header("x-large", "y".repeat(bytes)).body(empty()).unwrap()
    };
    // A little above our limit: our own reply; far above: the parser's.
    lab.fails(request("large-1", 5000), "headers_too_large", "no").await;
    let reply = lab.h2c().await.send(request("large-2", 5000)).await;
    lab.assert_failed(&reply, "large-2", "headers_too_large", "no").await;
    let mut raw = lab.raw().await;
    raw.write(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nx-large: {}\r\n\r\n", "y".repeat(100_000))).await;
    let reply = raw.read_to_end().await;
    assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    lab.until_counted("headers_too_large", 3).await;
    assert_eq!(provider.sim.ledger().requests, 0);
}

#[tokio::test]
async fn too_many_headers_are_named() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).section("[limits]\nmax_headers = 10\n").ready().await;
    let mut request = ask("GET", "/", "many-1");
    for n in 0..12 {
        request = request.header(format!("x-{n}"), "1");
    }
    lab.fails(request.body(empty()).unwrap(), "headers_too_large", "no").await;
}

#[tokio::test]
async fn a_body_too_large_is_refused_declared_or_not() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).section("[limits]\nmax_body_bytes = 1000\n").ready().await;
    let request = ask("POST", "/", "fits-1").body(full(vec![0; 1000])).unwrap();
    assert_eq!(lab.send(request).await.status, 200);
    let request = ask("POST", "/", "declared-1").body(full(vec![0; 1001])).unwrap();
    lab.fails(request, "body_too_large", "no").await;
    assert_eq!(provider.sim.seen("declared-1"), 0);

    let (feed, body) = Feed::new();
    let request = ask("POST", "/", "chunked-1").header("sim-respond", "sink").body(body).unwrap();
    let feeding = async { while feed.send(vec![0; 400]).await {} };
    let (_, _open) = tokio::join!(lab.fails(request, "body_too_large", "no"), feeding);
    eventually("the provider sees the reset", async || {
        (provider.sim.ledger().client_resets == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_header_that_does_not_end_gets_408() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).section("[timeouts]\nheader_ms = 150\n").ready().await;
    for begin in [format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n"), "G".to_owned()] {
        let mut raw = lab.raw().await;
        raw.write(begin).await;
        let reply = raw.read_to_end().await;
        assert!(reply.starts_with("HTTP/1.1 408") && reply.contains("gw-error: request_timeout"), "{reply}");
    }
    lab.until_counted("request_timeout", 2).await;
    let line = lab.log().into_iter().find(|line| line["outcome"] == "request_timeout").unwrap();
    assert_eq!((&line["retry_safe"], &line["status"]), (&"no".into(), &408.into()));
}

#[tokio::test]
async fn a_caller_that_says_nothing_is_left_without_a_word() {
    let provider = Provider::start().await;
    let timeouts = "[timeouts]\nfirst_byte_ms = 100\ncaller_idle_ms = 150\n";
    let lab = Plan::at(&provider).section(timeouts).ready().await;
    let mut silent = lab.raw().await;
    assert_eq!(silent.read_to_end().await, "");
    let mut idle = lab.raw().await;
    idle.write(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(idle.read_to_end().await.starts_with("HTTP/1.1 200"));
    assert_eq!(lab.metrics().await.outcomes_seen(), [("2xx".to_owned(), 1)].into());
}

#[tokio::test]
async fn a_caller_that_leaves_in_the_middle_is_recorded_and_its_stream_reset() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    // While the provider thinks.
    let mut connection = lab.http1().await;
    let request = ask("GET", "/", "gone-1").header("sim-delay-ms", "60000").body(empty()).unwrap();
    let waiting = tokio::spawn(async move { connection.open(request).await.map(|_| ()) });
    seen(&provider, "gone-1").await;
    waiting.abort();
    gone(&lab, &provider, "gone-1", 1).await;
    // In the middle of its own body.
    let mut raw = lab.raw().await;
    raw.write(format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nx-correlation-id: gone-2\r\nContent-Length: 100\r\n\r\nabc"
    ))
    .await;
    seen(&provider, "gone-2").await;
    drop(raw);
    gone(&lab, &provider, "gone-2", 2).await;
    // By RST_STREAM.
    let mut h2c: H2c = lab.h2c().await;
    let request = ask("GET", "/", "gone-3").header("sim-delay-ms", "60000").body(empty()).unwrap();
    let call = tokio::spawn(async move { h2c.open(request).await.map(|_| ()) });
    seen(&provider, "gone-3").await;
    call.abort();
    gone(&lab, &provider, "gone-3", 3).await;
}

async fn seen(provider: &Provider, id: &str) {
    eventually("the provider sees the request", async || (provider.sim.seen(id) == 1).then_some(())).await;
}

async fn gone(lab: &Lab, provider: &Provider, id: &str, count: u64) {
    let line = lab.log_line(id).await;
    assert_eq!((&line["outcome"], &line["ended"]), (&"caller_gone".into(), &"caller_gone".into()), "{line}");
    // The echo of the second may have begun: then its status was out already.
    let begun = id == "gone-2" && line["status"] == 200;
    assert!(begun || line["status"] == 499, "{line}");
    eventually("the provider sees the reset", async || {
        (provider.sim.ledger().client_resets == count).then_some(())
    })
    .await;
    lab.until_counted("caller_gone", count).await;
    eventually("the stream is given back", async || {
        (lab.pool("sandbox").await["in_flight"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reserved_paths_beat_routes_and_say_so() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let request = Request::post(format!("http://{HOST}/tsh.gateway.v1.Egress/Send")).body(full("x")).unwrap();
    let reply = lab.send(request).await;
    assert_eq!((reply.status, reply.header("gw-error")), (400, "bad_request"), "{reply:?}");
    assert_eq!(provider.sim.ledger().requests, 0);
}
