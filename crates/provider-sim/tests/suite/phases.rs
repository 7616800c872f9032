//! GOAWAY frame by frame: every last id, code and debug data, at every point of a request.

use std::time::Duration;

use provider_sim::{Account, Behaviour, GoAwayForm, GoAwayPoint, ResetReason, Target};
use tokio::time::Instant;

use crate::raw::{DATA, GOAWAY, HEADERS, Raw};
use crate::support::{World, eventually, post};

const MAX_ID: u32 = (1 << 31) - 1;
const ENHANCE_YOUR_CALM: u32 = 11;

fn calm(goaway_form: GoAwayForm) -> Behaviour {
    Behaviour {
        goaway_form,
        goaway_code: ResetReason::EnhanceYourCalm,
        goaway_debug: "too_many_pings".to_owned(),
        ..Behaviour::default()
    }
}

#[tokio::test]
async fn every_form_says_its_last_id_with_code_and_debug_data() {
    let cases = [
        (GoAwayForm::Immediate, 5),
        (GoAwayForm::Zero, 0),
        (GoAwayForm::Behind { streams: 1 }, 3),
        (GoAwayForm::Exact { last: 1 }, 1),
        (GoAwayForm::MaxOnly, MAX_ID),
        (GoAwayForm::Abrupt { reason: ResetReason::EnhanceYourCalm }, 5),
    ];
    for (form, last) in cases {
        let world = World::new(calm(form)).await;
        let mut raw = Raw::connect(&world).await;
        for stream in [1, 3, 5] {
            raw.open(stream, &[("x-correlation-id", &format!("c-{stream}"))]).await;
        }
        eventually(|| world.simulator.ledger().requests == 3).await;
        world.simulator.goaway_all();
        let goaway = raw.next(GOAWAY).await;
        assert_eq!(goaway.goaway(), (last, ENHANCE_YOUR_CALM, b"too_many_pings".as_slice()), "{form:?}");
        for stream in [1, 3, 5] {
            let processed = u32::from(stream <= last);
            let expected = Account { arrived: 1, processed };
            assert_eq!(world.simulator.account(&format!("c-{stream}")), expected, "{form:?} {stream}");
        }
    }
}

#[tokio::test]
async fn two_phases_wait_as_long_as_told_and_serve_what_comes_between() {
    let wait = Duration::from_millis(80);
    let world = World::new(Behaviour { goaway_wait: wait, ..calm(GoAwayForm::TwoPhase) }).await;
    let mut raw = Raw::connect(&world).await;
    raw.request(1, &[]).await;
    raw.next(HEADERS).await;
    let begin = Instant::now();
    world.simulator.goaway_all();
    assert_eq!(raw.next(GOAWAY).await.goaway(), (MAX_ID, 0, b"".as_slice()));
    raw.request(3, &[]).await;
    assert_eq!(raw.next(HEADERS).await.stream, 3);
    let second = raw.next(GOAWAY).await;
    assert_eq!(second.goaway(), (3, ENHANCE_YOUR_CALM, b"too_many_pings".as_slice()));
    assert!(begin.elapsed() >= wait, "{:?}", begin.elapsed());
    assert_eq!(raw.end().await, Ok(()));
}

#[tokio::test]
async fn the_goaway_comes_at_the_point_of_the_request_that_was_asked_for() {
    let cases: [(&str, &[u8]); 4] = [
        ("request_data", &[GOAWAY, HEADERS, DATA, HEADERS]),
        ("response_headers", &[HEADERS, GOAWAY, DATA, HEADERS]),
        ("before_trailers", &[HEADERS, DATA, GOAWAY, HEADERS]),
        ("after_response", &[HEADERS, DATA, HEADERS, GOAWAY]),
    ];
    for (at, expected) in cases {
        let world = World::new(Behaviour::default()).await;
        let mut raw = Raw::connect(&world).await;
        let orders = [("sim-goaway", "immediate"), ("sim-goaway-at", at), ("sim-trailers", "a=1")];
        raw.request(1, &orders).await;
        assert_eq!(raw.kinds().await, expected, "{at}");
    }
}

#[tokio::test]
async fn at_headers_the_body_has_not_been_seen_and_at_request_data_not_its_end() {
    let world = World::new(Behaviour::default()).await;
    for (at, body) in [("headers", b"".as_slice()), ("request_data", b"the beginning")] {
        let mut raw = Raw::connect(&world).await;
        raw.open(1, &[("sim-goaway", "zero"), ("sim-goaway-at", at), ("x-correlation-id", at)]).await;
        if !body.is_empty() {
            raw.send(DATA, 0, 1, body).await;
        }
        assert_eq!(raw.next(GOAWAY).await.goaway().0, 0, "{at}");
        assert_eq!(raw.end().await, Ok(()), "{at}: nothing is left to do");
        assert_eq!(world.simulator.account(at), Account { arrived: 1, processed: 0 });
    }
    assert_eq!(world.simulator.ledger().requests_disowned, 2);
}

#[tokio::test]
async fn the_last_of_so_many_requests_ends_the_connection_where_the_behaviour_says() {
    let behaviour = Behaviour {
        goaway_after_requests: Some(2),
        goaway_at: GoAwayPoint::AfterResponse,
        ..Behaviour::default()
    };
    let world = World::new(behaviour).await;
    let mut raw = Raw::connect(&world).await;
    raw.request(1, &[]).await;
    raw.request(3, &[]).await;
    assert_eq!(raw.next(GOAWAY).await.goaway().0, 3);
    assert_eq!(world.simulator.ledger().responses, 2);
}

#[tokio::test]
async fn a_response_that_has_left_before_goaway_zero_stays_processed() {
    let world = World::new(Behaviour { goaway_form: GoAwayForm::Zero, ..Behaviour::default() }).await;
    let mut raw = Raw::connect(&world).await;
    raw.request(1, &[("x-correlation-id", "answered")]).await;
    while !raw.next(DATA).await.ends_stream() {}
    raw.open(3, &[("x-correlation-id", "open")]).await;
    eventually(|| world.simulator.ledger().requests == 2).await;
    world.simulator.goaway_all();
    raw.next(GOAWAY).await;
    assert_eq!((world.simulator.seen("answered"), world.simulator.seen("open")), (1, 0));
}

#[tokio::test]
async fn an_idle_connection_is_told_goaway() {
    let idle = Some(Duration::from_millis(20));
    let world = World::new(Behaviour { goaway_after_idle: idle, ..Behaviour::default() }).await;
    let client = world.http2().await;
    client.get("/").await.unwrap();
    client.driver.await.unwrap().unwrap();
    assert_eq!(world.simulator.ledger().goaways_sent, 1);
}

#[tokio::test]
async fn one_connection_is_ended_and_the_others_stay() {
    let world = World::new(Behaviour::default()).await;
    let (first, second) = (world.http2().await, world.http2().await);
    let number: u64 =
        second.get("/").await.unwrap().head.headers["sim-connection"].to_str().unwrap().parse().unwrap();
    let told = world.simulator.end(Target::Connection(number), GoAwayForm::Immediate);
    assert_eq!(told, 1);
    second.driver.await.unwrap().unwrap();
    assert_eq!(first.get("/").await.unwrap().head.status, 200);
    assert_eq!(world.simulator.end(Target::Oldest, GoAwayForm::Reset), 1);
    first.driver.await.unwrap().unwrap_err();
    assert_eq!(world.simulator.end(Target::All, GoAwayForm::Reset), 0, "none is left");
}

#[tokio::test]
async fn what_arrives_above_the_last_id_is_counted_and_not_processed() {
    let world = World::new(Behaviour { goaway_after_requests: Some(1), ..Behaviour::default() }).await;
    let mut raw = Raw::connect(&world).await;
    raw.open(1, &[("x-correlation-id", "one")]).await;
    raw.request(3, &[("x-correlation-id", "two")]).await;
    eventually(|| world.simulator.ledger().requests_ignored == 1).await;
    assert_eq!(world.simulator.account("one"), Account { arrived: 1, processed: 1 });
    assert_eq!(world.simulator.account("two"), Account { arrived: 1, processed: 0 });
    let client = world.http2().await;
    let again = post("/").header("x-correlation-id", "two").body(()).unwrap();
    client.call(again, b"x").await.unwrap();
    assert_eq!(world.simulator.account("two"), Account { arrived: 2, processed: 1 });
    let refused = post("/").header("x-correlation-id", "three").header("sim-refuse", "1").body(()).unwrap();
    world.http2().await.call(refused, b"x").await.unwrap_err();
    assert_eq!(world.simulator.account("three"), Account { arrived: 1, processed: 0 });
    assert!(world.simulator.duplicated().is_empty());
    assert_eq!(world.simulator.ledger().requests_arrived, 4);
}
