//! Stalls and resets within one stream, many small frames, replies that nobody reads, PINGs that vanish.

use std::time::Duration;

use bytes::Bytes;
use provider_sim::{Behaviour, LatencySpike, Pings};
use tokio::time::{Instant, timeout};

use crate::raw::{DATA, HEADERS, PING, RST_STREAM, Raw, SETTINGS};
use crate::support::{World, eventually, get, post};

/// Long enough that silence is no accident.
const SILENCE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_stream_is_reset_at_every_point_with_any_code() {
    let cases: [(&str, &[u8]); 5] = [
        ("before_headers", &[]),
        ("mid_request", &[]),
        ("after_headers", &[HEADERS]),
        ("mid_body", &[HEADERS, DATA]),
        ("before_trailers", &[HEADERS, DATA, DATA]),
    ];
    // A body of a known length leaves in two halves.
    let world = World::new(Behaviour::default()).await;
    for (at, before) in cases {
        let mut raw = Raw::connect(&world).await;
        let orders = [
            ("sim-reset", "4242"),
            ("sim-reset-at", at),
            ("sim-body-bytes", "1000"),
            ("sim-trailers", "a=1"),
        ];
        raw.request(1, &orders).await;
        let mut seen = Vec::new();
        let reset = loop {
            let frame = raw.frame().await.unwrap().unwrap();
            match frame.kind {
                RST_STREAM => break frame,
                HEADERS | DATA => seen.push(frame.kind),
                _ => {}
            }
        };
        assert_eq!((seen.as_slice(), reset.code()), (before, 4242), "{at}");
    }
    assert_eq!(world.simulator.ledger().resets, 5);
}

#[tokio::test]
async fn a_reset_in_the_middle_of_the_request_does_not_wait_for_its_end() {
    let world = World::new(Behaviour::default()).await;
    let mut raw = Raw::connect(&world).await;
    raw.open(1, &[("sim-reset", "cancel"), ("sim-reset-at", "mid_request")]).await;
    raw.send(DATA, 0, 1, b"the beginning").await;
    assert_eq!(raw.next(RST_STREAM).await.code(), 8);
}

#[tokio::test]
async fn a_stall_after_the_headers_or_before_the_trailers_holds_there() {
    let world = World::new(Behaviour::default()).await;
    for (at, expected) in [("after_headers", 0), ("before_trailers", 1000)] {
        let mut raw = Raw::connect(&world).await;
        let orders = [("sim-stall", at), ("sim-body-bytes", "1000"), ("sim-trailers", "a=1")];
        raw.request(1, &orders).await;
        raw.next(HEADERS).await;
        let mut received = 0;
        while let Ok(frame) = timeout(SILENCE, raw.frame()).await {
            let frame = frame.unwrap().expect("the connection stays");
            assert!(!frame.ends_stream() || frame.kind == SETTINGS, "{at}: {frame:?}");
            received += if frame.kind == DATA { frame.payload.len() } else { 0 };
        }
        assert_eq!(received, expected, "{at}");
    }
}

#[tokio::test]
async fn a_body_comes_in_thousands_of_tiny_frames() {
    let world = World::new(Behaviour::default()).await;
    let mut raw = Raw::connect(&world).await;
    raw.request(1, &[("sim-frame-bytes", "1"), ("sim-body-bytes", "5000")]).await;
    let mut frames = 0;
    loop {
        let frame = raw.next(DATA).await;
        frames += 1;
        assert_eq!(frame.payload.len(), 1);
        if frame.ends_stream() {
            break;
        }
    }
    assert_eq!(frames, 5000);
}

#[tokio::test]
async fn one_hundred_and_one_empty_frames_are_really_sent() {
    let world = World::new(Behaviour::default()).await;
    let mut raw = Raw::connect(&world).await;
    raw.request(1, &[("sim-empty-frames", "101")]).await;
    let mut empty = 0;
    loop {
        let frame = raw.next(DATA).await;
        empty += usize::from(frame.payload.is_empty() && !frame.ends_stream());
        if frame.ends_stream() {
            break;
        }
    }
    assert_eq!(empty, 101);
}

#[tokio::test]
async fn three_hundred_replies_are_sent_whether_anybody_reads_them_or_not() {
    let world = World::new(Behaviour { max_concurrent_streams: None, ..Behaviour::default() }).await;
    let mut raw = Raw::connect(&world).await;
    for n in 0..300 {
        raw.request(2 * n + 1, &[("sim-body-bytes", "50")]).await;
    }
    eventually(|| world.simulator.ledger().responses == 300).await;
    assert_eq!(world.simulator.ledger().body_bytes_sent, 15_000);

    // A client of the library that does not read them, with the library's own budget, ends the connection.
    let client = world.http2().await;
    let mut unread = Vec::new();
    let error = loop {
        if let Err(error) = client.send.clone().ready().await {
            break error;
        }
        let request = post("/").header("sim-body-bytes", "50").body(()).unwrap();
        match client.start(request, Bytes::new()).await {
            Ok(response) => unread.push(response),
            Err(error) => break error,
        }
        assert!(unread.len() <= 300, "the trap of the library is gone");
    };
    assert!(error.is_go_away() && error.is_library(), "{error:?}");
}

#[tokio::test]
async fn the_first_pings_are_answered_and_the_others_vanish() {
    let world =
        World::new(Behaviour { pings: Pings::IgnoreAfter { answered: 2 }, ..Behaviour::default() }).await;
    let mut raw = Raw::connect(&world).await;
    for n in 0..3 {
        raw.send(PING, 0, 0, &[n; 8]).await;
    }
    let mut answered = Vec::new();
    while let Ok(frame) = timeout(SILENCE, raw.frame()).await {
        let frame = frame.unwrap().expect("the connection stays");
        if frame.kind == PING {
            answered.push(frame.payload[0]);
        }
    }
    assert_eq!(answered, [0, 1]);
    assert_eq!(world.simulator.ledger().pings, 3);
}

#[tokio::test]
async fn a_latency_spike_hits_some_requests() {
    let latency_spike = Some(LatencySpike { one_in: 3, wait: Duration::from_millis(200) });
    let world = World::new(Behaviour { latency_spike, ..Behaviour::default() }).await;
    let client = world.http2().await;
    tokio::time::pause();
    let mut late = 0;
    for _ in 0..30 {
        let begin = Instant::now();
        client.call(get("/"), b"").await.unwrap();
        late += usize::from(begin.elapsed() >= Duration::from_millis(190));
    }
    assert!((3..=20).contains(&late), "seed 0: {late} of 30");
}
