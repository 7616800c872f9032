//! What single requests get.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use provider_sim::{Behaviour, ResetReason, ResetRule, Respond, Stall};
use tokio::time::{Instant, timeout};

use crate::support::{World, get, post, reset_reason};

#[tokio::test]
async fn a_body_comes_back_with_its_type_and_correlation_id() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let request =
        post("/a").header("content-type", "text/plain").header("x-correlation-id", "c-1").body(()).unwrap();
    let reply = client.call(request, b"hello").await.unwrap();
    assert_eq!(reply.head.status, 200);
    assert_eq!(reply.head.headers["content-type"], "text/plain");
    assert_eq!(reply.head.headers["x-correlation-id"], "c-1");
    assert_eq!(reply.body, b"hello");
    assert_eq!(world.simulator.seen("c-1"), 1);
}

#[tokio::test]
async fn a_megabyte_passes_both_ways_through_small_windows() {
    let world = World::new(Behaviour { stream_window: 20_000, ..Behaviour::default() }).await;
    let client = world.http2().await;
    let body: Vec<u8> = (0..1u32 << 20).map(|n| (n % 251) as u8).collect();
    let reply = client.call(post("/").body(()).unwrap(), &body).await.unwrap();
    assert!(reply.body == body);
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.body_bytes_received, ledger.body_bytes_sent), (1 << 20, 1 << 20));
}

#[tokio::test]
async fn trailers_come_back() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let mut send = client.send.clone().ready().await.unwrap();
    let (response, mut stream) = send.send_request(post("/").body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(b"x"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("checksum", "42".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let reply = crate::support::read(response.await.unwrap()).await.unwrap();
    assert_eq!(reply.trailers.unwrap()["checksum"], "42");
}

#[tokio::test]
async fn grpc_is_echoed_and_ends_with_its_status() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let request = || post("/p.S/M").header("content-type", "application/grpc").header("te", "trailers");
    let message = b"\0\0\0\0\x02hi";
    let reply = client.call(request().body(()).unwrap(), message).await.unwrap();
    assert_eq!(reply.body, message);
    assert_eq!(reply.trailers.unwrap()["grpc-status"], "0");
    let unavailable = request().header("sim-grpc-status", "14").body(()).unwrap();
    let reply = client.call(unavailable, message).await.unwrap();
    assert_eq!(reply.trailers.unwrap()["grpc-status"], "14");
}

#[tokio::test]
async fn fixed_sink_and_describe_answer_what_they_say() {
    let world = World::new(Behaviour { respond: Respond::Sink, ..Behaviour::default() }).await;
    let client = world.http2().await;
    let reply = client.call(post("/").body(()).unwrap(), b"12345").await.unwrap();
    assert_eq!(reply.body, br#"{"received":5}"#);

    let respond = Respond::Fixed { status: 503, body_bytes: 100_000 };
    world.simulator.set_behaviour(Behaviour { respond, ..Behaviour::default() }).unwrap();
    let reply = client.get("/").await.unwrap();
    assert_eq!((reply.head.status.as_u16(), reply.body.len()), (503, 100_000));
    assert_eq!(reply.head.headers["content-length"], "100000");

    let request = post("/a/%2e%2e/b?q=1").header("sim-respond", "describe").body(()).unwrap();
    let reply = client.call(request, b"xyz").await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&told["method"], &told["path"]), (&"POST".into(), &"/a/%2e%2e/b?q=1".into()));
    assert_eq!((&told["authority"], &told["received"]), (&"localhost".into(), &3.into()));
}

#[tokio::test]
async fn a_request_is_steered_by_its_headers() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let request = post("/")
        .header("sim-status", "418")
        .header("sim-body-bytes", "10")
        .header("sim-frame-bytes", "4")
        .header("sim-header-bytes", "1000")
        .header("sim-trailers", "a=1, b=2")
        .body(())
        .unwrap();
    let reply = client.call(request, b"").await.unwrap();
    assert_eq!((reply.head.status.as_u16(), reply.body.len(), reply.data_frames), (418, 10, 3 + 1));
    assert_eq!(reply.head.headers["sim-filler"].len(), 1000);
    assert_eq!(reply.trailers.unwrap()["b"], "2");

    let wrong = post("/").header("sim-status", "abc").body(()).unwrap();
    let reply = client.call(wrong, b"").await.unwrap();
    assert_eq!(reply.head.status, 400);
    assert!(String::from_utf8_lossy(&reply.body).starts_with("sim-status:"));
}

#[tokio::test]
async fn empty_frames_come_before_the_body() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let request = post("/").header("sim-empty-frames", "50").body(()).unwrap();
    let reply = client.call(request, b"body").await.unwrap();
    assert_eq!(reply.body, b"body");
    // One hundred per connection is what the client's library tolerates; it shows none of them.
    let request = post("/").header("sim-empty-frames", "51").body(()).unwrap();
    let error = client.call(request, b"body").await.unwrap_err();
    assert!(error.is_go_away() && error.is_library(), "{error:?}");
}

#[tokio::test]
async fn an_early_response_is_whole_and_resets_with_no_error() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let mut send = client.send.clone().ready().await.unwrap();
    let request = post("/").header("sim-early", "1").header("sim-body-bytes", "5").body(()).unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(b"the beginning"), false).unwrap();
    let reply = crate::support::read(response.await.unwrap()).await.unwrap();
    assert_eq!(reply.body.len(), 5);
    let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
    assert_eq!(world.simulator.ledger().responses, 1);
}

#[tokio::test]
async fn latency_and_its_jitter_are_waited_for() {
    let behaviour = Behaviour {
        latency: Duration::from_millis(40),
        latency_jitter: Duration::from_millis(20),
        ..Behaviour::default()
    };
    let world = World::new(behaviour).await;
    let client = world.http2().await;
    // Not before: with a handshake on its way a paused clock runs to the handshake's own deadline.
    tokio::time::pause();
    for _ in 0..3 {
        let begin = Instant::now();
        client.get("/").await.unwrap();
        // The timer rounds up to a millisecond, and the clock stood within one.
        let wait = begin.elapsed().as_millis();
        assert!((39..=62).contains(&wait), "seed 0: {wait} ms");
    }
}

#[tokio::test]
async fn every_nth_stream_is_refused_or_reset_and_only_resets_were_processed() {
    let reset = Some(ResetRule { every_nth: 3, reason: ResetReason::Cancel, at: Default::default() });
    let world = World::new(Behaviour { refuse_every: Some(2), reset, ..Behaviour::default() }).await;
    let client = world.http2().await;
    let mut reasons = Vec::new();
    for _ in 0..6 {
        reasons.push(client.get("/").await.err().map(|error| reset_reason(&error).unwrap()));
    }
    let (refused, cancelled) = (Some(Reason::REFUSED_STREAM), Some(Reason::CANCEL));
    assert_eq!(reasons, [None, refused, cancelled, refused, None, refused]);
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.requests, ledger.refused_streams, ledger.resets, ledger.responses), (3, 3, 1, 2));
}

#[tokio::test]
async fn a_reset_comes_where_the_request_asks_for_it() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let request = |at: &str| {
        post("/")
            .header("sim-reset", "enhance_your_calm")
            .header("sim-reset-at", at)
            .header("sim-body-bytes", "1000")
            .body(())
            .unwrap()
    };
    let error = client.start(request("before_headers"), Bytes::new()).await.unwrap_err();
    assert_eq!(reset_reason(&error), Some(Reason::ENHANCE_YOUR_CALM));

    let response = client.start(request("mid_body"), Bytes::new()).await.unwrap();
    let mut body = response.into_body();
    let first = body.data().await.unwrap().unwrap();
    assert_eq!(first.len(), 500);
    let error = body.data().await.unwrap().unwrap_err();
    assert_eq!(reset_reason(&error), Some(Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn a_stalled_request_gets_nothing_and_counts_as_processed() {
    let world = World::new(Behaviour { stall: Stall::BeforeResponse, ..Behaviour::default() }).await;
    let client = world.http2().await;
    let pending = client.start(get("/"), Bytes::new());
    while world.simulator.ledger().requests == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    assert!(timeout(Duration::from_secs(60), pending).await.is_err());

    world.simulator.set_behaviour(Behaviour { stall: Stall::MidBody, ..Behaviour::default() }).unwrap();
    let request = post("/").header("sim-body-bytes", "1000").body(()).unwrap();
    let mut body = client.start(request, Bytes::new()).await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap().len(), 500);
    assert!(timeout(Duration::from_secs(60), body.data()).await.is_err());
}

#[tokio::test]
async fn a_server_that_reads_nothing_stops_an_upload_at_its_window() {
    let behaviour = Behaviour { stall: Stall::ReadNothing, stream_window: 10_000, ..Behaviour::default() };
    let world = World::new(behaviour).await;
    let client = world.http2().await;
    let mut send = client.send.clone().ready().await.unwrap();
    let (_response, mut stream) = send.send_request(post("/").body(()).unwrap(), false).unwrap();
    stream.reserve_capacity(50_000);
    tokio::time::pause();
    let mut sent = 0;
    while let Ok(Some(room)) =
        timeout(Duration::from_secs(5), std::future::poll_fn(|cx| stream.poll_capacity(cx))).await
    {
        sent += room.unwrap();
        stream.send_data(Bytes::from(vec![0; stream.capacity()]), false).unwrap();
    }
    assert_eq!(sent, 10_000);
}
