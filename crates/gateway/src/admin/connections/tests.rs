//! Tests of the listing: selection, order, bounds, and what is told of a living and of a dead connection.

use std::time::Duration;

use pool::{
    CauseOfDeath, ConnectionId, DialPhases, DialTimes, GoAwaySeen, Name, Obituary, PingMicros, PingSeries,
    PingTimes, Protocol, ShortText, State, UnixMicros,
};
use serde_json::Value;

use super::*;
use crate::{
    admin::routes::tests::{Fixture, fixture},
    telemetry::testing::connection,
};

fn obituary(id: u64, cause: CauseOfDeath, ago: Duration) -> Obituary {
    let mut recent = PingSeries::default();
    [1200, 1000].into_iter().for_each(|us| recent.push(Duration::from_micros(us)));
    let times = PingTimes {
        first: Duration::from_micros(900),
        min: Duration::from_micros(250),
        max: Duration::from_millis(3),
        last: Duration::from_millis(1),
        count: 9,
        recent,
    };
    let phases = DialPhases { tls: Some(Duration::from_micros(4200)), ..DialPhases::default() };
    Obituary {
        id: ConnectionId(id),
        environment: "sandbox".into(),
        generation: 1,
        ended: UnixMicros::of(OffsetDateTime::now_utc() - ago),
        age_us: 61_000_000,
        idle_us: 1_500_000,
        requests: 200,
        address: "192.0.2.7:443".parse().ok(),
        phases: DialTimes::from(&phases),
        ping: PingMicros::from(Some(times)),
        cipher_suite: None,
        key_exchange: None,
        code: (cause == CauseOfDeath::NeverServed).then(|| Name::of("connection_refused")),
        goaway: Some(GoAwaySeen { error_code: 0, last_stream_id: 399 }),
        peak_in_flight: 17,
        tickets_received: 2,
        leaf: None,
        anchor: None,
        pin: None,
        protocol: Some(Protocol::H2),
        handshake: None,
        tls: None,
        proof: None,
        cause,
        detail: ShortText::of("max_requests"),
    }
}

/// Two live, three died; the eldest of the dead is the last number.
async fn populated() -> Fixture {
    let fixture = fixture().await;
    fixture.sandbox.serve();
    fixture.sandbox.edit(|status| status.connections.push(connection(9, State::Draining)));
    let second = Duration::from_secs(1);
    fixture.obituaries.push(obituary(5, CauseOfDeath::Goaway, second * 600));
    fixture.obituaries.push(obituary(4, CauseOfDeath::Age, second * 60));
    fixture.obituaries.push(obituary(8, CauseOfDeath::NeverServed, second * 6));
    fixture
}

fn ids(answer: &Value) -> Vec<u64> {
    answer["connections"].as_array().unwrap().iter().map(|c| c["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_living_come_first_and_then_the_last_to_die() {
    let fixture = populated().await;
    let (status, all) = fixture.json("/api/v1/connections").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((ids(&all), &all["truncated"]), (vec![9, 2, 1, 8, 4, 5], &false.into()));
}

#[tokio::test]
async fn each_filter_narrows() {
    let fixture = populated().await;
    for (query, want) in [
        ("state=living", vec![9, 2, 1]),
        ("state=dead", vec![8, 4, 5]),
        ("state=closed", vec![8, 4, 5]),
        ("state=serving", vec![2, 1]),
        ("state=draining", vec![9]),
        ("cause=goaway", vec![5]),
        ("cause=never_served", vec![8]),
        ("since=100", vec![9, 2, 1, 8, 4]),
        ("since=100&state=dead", vec![8, 4]),
        ("id=4", vec![4]),
        ("id=c2", vec![2]),
        ("id=77", vec![]),
        ("environment=production", vec![]),
        ("environment=sandbox&state=dead", vec![8, 4, 5]),
        ("protocol=http/1.1", vec![]),
        ("protocol=http%2F1.1", vec![]),
        ("protocol=h2&limit=10000", vec![9, 2, 1, 8, 4, 5]),
        ("generation=1&address=192.0.2.7", vec![8, 4, 5]),
        ("address=192.0.2.7:443", vec![8, 4, 5]),
        ("address=192.0.2.7:444", vec![]),
        ("address=127.0.0.1", vec![9, 2, 1]),
        ("generation=2", vec![]),
    ] {
        let (status, answer) = fixture.json(&format!("/api/v1/connections?{query}")).await;
        assert_eq!((status, ids(&answer)), (StatusCode::OK, want), "{query}");
    }
}

#[tokio::test]
async fn a_limit_cuts_and_says_so() {
    let fixture = populated().await;
    for (limit, want, truncated) in [
        (2, vec![9, 2], true),
        (3, vec![9, 2, 1], true),
        (5, vec![9, 2, 1, 8, 4], true),
        (6, vec![9, 2, 1, 8, 4, 5], false),
    ] {
        let (_, answer) = fixture.json(&format!("/api/v1/connections?limit={limit}")).await;
        assert_eq!((ids(&answer), &answer["truncated"]), (want, &truncated.into()), "{limit}");
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_and_says_what_is_allowed() {
    let fixture = populated().await;
    for (query, parameter, allowed) in [
        ("stat=living", "stat", "state"),
        ("state=alive", "state", "serving"),
        ("state=", "state", "living"),
        ("cause=boredom", "cause", "goaway"),
        ("protocol=h3", "protocol", "http/1.1"),
        ("environment=staging", "environment", "production"),
        ("generation=new", "generation", "the serial of a generation"),
        ("address=tsh.example", "address", "an IP address with or without a port"),
        ("id=x1", "id", "the number of a connection, such as 7 or c7"),
        ("since=-1", "since", "a number of seconds"),
        ("limit=10001", "limit", "a number from 1 to 10000"),
        ("limit=1&limit=1", "limit", "since"),
    ] {
        let (status, problem) = fixture.json(&format!("/api/v1/connections?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(
            (&problem["parameter"], &problem["code"]),
            (&parameter.into(), &"invalid_parameter".into())
        );
        let words = problem["allowed"].as_array().unwrap();
        assert!(words.iter().any(|word| word == allowed), "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(allowed), "{query}: {problem}");
    }
}

#[tokio::test]
async fn a_dead_connection_is_told_with_units_in_the_names() {
    let fixture = populated().await;
    let (_, answer) = fixture.json("/api/v1/connections?id=5").await;
    let dead = &answer["connections"][0];
    assert_eq!((&dead["state"], &dead["cause"]), (&"closed".into(), &"goaway".into()));
    assert_eq!((&dead["age_millis"], &dead["idle_millis"]), (&61_000.into(), &1500.into()));
    assert_eq!((&dead["requests"], &dead["peak_in_flight"]), (&200.into(), &17.into()));
    assert_eq!(dead["goaway"], serde_json::json!({ "error_code": 0, "last_stream_id": 399 }));
    assert_eq!((&dead["phases"]["tls_micros"], &dead["ping"]["min_micros"]), (&4200.into(), &250.into()));
    assert_eq!((&dead["address"], &dead["detail"]), (&"192.0.2.7:443".into(), &"max_requests".into()));
    assert!(dead["phases"].get("tcp_micros").is_none(), "what is not known is not there");
    let moment = |name: &str| dead[name].as_str().unwrap().to_owned();
    assert!(moment("born") < moment("ended"), "{dead}");
    let (_, answer) = fixture.json("/api/v1/connections?id=8").await;
    assert_eq!(answer["connections"][0]["code"], "connection_refused");
}

#[tokio::test]
async fn a_living_connection_is_told_in_the_same_shape() {
    let fixture = populated().await;
    let (_, answer) = fixture.json("/api/v1/connections?id=1").await;
    let living = &answer["connections"][0];
    assert_eq!((&living["state"], &living["proof"]), (&"serving".into(), &"ping".into()));
    assert_eq!((&living["environment"], &living["protocol"]), (&"sandbox".into(), &"h2".into()));
    assert_eq!((&living["age_millis"], &living["capacity"]), (&1500.into(), &100.into()));
    assert_eq!(living["handshake"]["leaf"].as_str().unwrap().len(), 16);
    assert!(living.get("cause").is_none() && living.get("ended").is_none());
}
