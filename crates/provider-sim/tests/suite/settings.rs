//! SETTINGS that change while connections live.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use provider_sim::Behaviour;
use tokio::time::timeout;

use crate::raw::{HEADERS, RST_STREAM, Raw, SETTINGS};
use crate::support::{World, eventually, get, post};

const HEADER_TABLE_SIZE: u16 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const REFUSED_STREAM: u32 = 7;

fn limited(limit: u32) -> Behaviour {
    Behaviour { max_concurrent_streams: Some(limit), ..Behaviour::default() }
}

#[tokio::test]
async fn a_limit_of_zero_holds_every_stream_back_until_it_grows() {
    let world = World::new(limited(0)).await;
    let client = world.http2().await;
    assert_eq!(client.send.current_max_send_streams(), 0);
    let pending = client.start(get("/"), Bytes::new());
    world.simulator.set_behaviour(limited(5)).unwrap();
    assert_eq!(pending.await.unwrap().status(), 200);
    assert_eq!(client.send.current_max_send_streams(), 5);

    world.simulator.set_behaviour(limited(0)).unwrap();
    eventually(|| world.simulator.ledger().settings_acknowledged == 3).await;
    assert_eq!(client.send.current_max_send_streams(), 0);
    assert_eq!(world.simulator.ledger().stream_limit_breaches, 0);
}

#[tokio::test]
async fn a_limit_may_grow_above_what_the_connection_began_with() {
    let world = World::new(limited(1)).await;
    let mut raw = Raw::connect(&world).await;
    assert_eq!(raw.next(SETTINGS).await.setting(MAX_CONCURRENT_STREAMS), Some(1));
    world.simulator.set_behaviour(limited(4)).unwrap();
    assert_eq!(raw.next(SETTINGS).await.setting(MAX_CONCURRENT_STREAMS), Some(4));
    for stream in [1, 3, 5, 7] {
        raw.open(stream, &[]).await;
    }
    eventually(|| world.simulator.ledger().requests == 4).await;
    assert_eq!(world.simulator.ledger().peak_streams, 4);
    assert_eq!(world.simulator.ledger().stream_limit_breaches, 0);
}

#[tokio::test]
async fn a_stream_above_the_limit_is_refused_and_not_processed() {
    let world = World::new(limited(1)).await;
    let mut raw = Raw::connect(&world).await;
    raw.open(1, &[]).await;
    raw.request(3, &[("x-correlation-id", "above")]).await;
    let reset = raw.next(RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (3, REFUSED_STREAM));
    raw.finish(1, b"x").await;
    assert_eq!(raw.next(HEADERS).await.stream, 1);
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.requests, ledger.refused_streams, ledger.stream_limit_breaches), (1, 1, 1));
    assert_eq!(world.simulator.seen("above"), 0);
}

#[tokio::test]
async fn a_shrunk_limit_holds_from_its_acknowledgement_and_not_before() {
    let world = World::new(limited(128)).await;
    let mut raw = Raw::connect(&world).await;
    raw.next(SETTINGS).await;
    raw.open(1, &[]).await;
    eventually(|| world.simulator.ledger().requests == 1).await;
    world.simulator.set_behaviour(limited(1)).unwrap();
    // Overtaken by the frame that is on its way to us: served.
    raw.open(3, &[]).await;
    eventually(|| world.simulator.ledger().requests == 2).await;
    assert_eq!(raw.next(SETTINGS).await.setting(MAX_CONCURRENT_STREAMS), Some(1));
    raw.open(5, &[]).await;
    let reset = raw.next(RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (5, REFUSED_STREAM));
}

#[tokio::test]
async fn a_window_of_zero_stops_uploads_until_it_is_restored() {
    let behaviour = Behaviour { stream_window: 10_000, ..Behaviour::default() };
    let world = World::new(behaviour.clone()).await;
    let client = world.http2().await;
    let acknowledged = world.simulator.ledger().settings_acknowledged;
    let closed = Behaviour { stream_window: 0, ..behaviour.clone() };
    world.simulator.set_behaviour(closed).unwrap();
    eventually(|| world.simulator.ledger().settings_acknowledged == acknowledged + 1).await;

    let mut send = client.send.clone().ready().await.unwrap();
    let (response, mut stream) = send.send_request(post("/").body(()).unwrap(), false).unwrap();
    stream.reserve_capacity(30_000);
    let capacity = timeout(Duration::from_millis(100), poll_fn(|cx| stream.poll_capacity(cx)));
    assert!(capacity.await.is_err(), "no window");

    world.simulator.set_behaviour(Behaviour { stream_window: 20_000, ..behaviour }).unwrap();
    stream.send_data(Bytes::from(vec![1; 30_000]), true).unwrap();
    let reply = crate::support::read(response.await.unwrap()).await.unwrap();
    assert_eq!(reply.body.len(), 30_000);
}

#[tokio::test]
async fn windows_and_header_table_are_announced_at_the_beginning_and_when_they_change() {
    let behaviour = Behaviour { stream_window: 0, header_table_size: Some(0), ..Behaviour::default() };
    let world = World::new(behaviour.clone()).await;
    let mut raw = Raw::connect(&world).await;
    let opening = raw.next(SETTINGS).await;
    assert_eq!(opening.setting(INITIAL_WINDOW_SIZE), Some(0));
    assert_eq!(opening.setting(HEADER_TABLE_SIZE), Some(0));
    assert_eq!(opening.setting(MAX_CONCURRENT_STREAMS), Some(128));
    let table = Behaviour { header_table_size: Some(100), ..behaviour.clone() };
    world.simulator.set_behaviour(table.clone()).unwrap();
    assert_eq!(raw.next(SETTINGS).await.setting(HEADER_TABLE_SIZE), Some(100));
    // Two changes without an ACK in between: both arrive in the end.
    for stream_window in [7_000, 9_000] {
        world.simulator.set_behaviour(Behaviour { stream_window, ..table.clone() }).unwrap();
        tokio::task::yield_now().await;
    }
    while raw.next(SETTINGS).await.setting(INITIAL_WINDOW_SIZE) != Some(9_000) {}

    let client = world.http2().await;
    for _ in 0..3 {
        let request = get("/");
        assert_eq!(client.call(request, b"").await.unwrap().head.status, 200, "with an empty table");
    }
}
