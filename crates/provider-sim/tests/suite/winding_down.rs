//! The ends of connections: every form of GOAWAY, none at all, limits that change while it runs.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use provider_sim::{Behaviour, GoAwayForm, Pings, ResetReason, Simulator, SimulatorOptions, Stall};
use tokio::time::timeout;

use crate::support::{Client, World, post};

fn ending_with(goaway_form: GoAwayForm) -> Behaviour {
    Behaviour { goaway_form, ..Behaviour::default() }
}

/// Requests that wait for the provider, each with its correlation id.
fn start(client: &Client, count: usize, delay_ms: u32) -> Vec<(String, h2::client::ResponseFuture)> {
    (0..count)
        .map(|n| {
            let id = format!("c-{n}");
            let request = post("/")
                .header("x-correlation-id", &id)
                .header("sim-delay-ms", delay_ms.to_string())
                .body(())
                .unwrap();
            (id, client.start(request, Bytes::from_static(b"x")))
        })
        .collect()
}

async fn taken_up(world: &World, requests: u64) {
    while world.simulator.ledger().requests < requests {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn after_so_many_requests_the_rest_is_ignored_unprocessed() {
    let world = World::new(Behaviour { goaway_after_requests: Some(10), ..Behaviour::default() }).await;
    let client = world.http2().await;
    let mut answered = Vec::new();
    let mut unprocessed = Vec::new();
    for (id, response) in start(&client, 30, 5) {
        match response.await {
            Ok(response) => {
                assert_eq!(crate::support::read(response).await.unwrap().body, b"x");
                answered.push(id);
            }
            Err(error) => {
                assert!(error.is_go_away() && error.is_remote(), "{error:?}");
                unprocessed.push(id);
            }
        }
    }
    assert_eq!((answered.len(), unprocessed.len()), (10, 20));
    assert!(answered.iter().all(|id| world.simulator.seen(id) == 1));
    assert!(unprocessed.iter().all(|id| world.simulator.seen(id) == 0));
    client.driver.await.unwrap().unwrap();
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.requests, ledger.goaways_sent, ledger.responses), (10, 1, 10));
}

#[tokio::test]
async fn two_phases_lose_nothing() {
    let world = World::new(ending_with(GoAwayForm::TwoPhase)).await;
    let client = world.http2().await;
    let pending = start(&client, 20, 20);
    taken_up(&world, 1).await;
    world.simulator.goaway_all();
    for (_, response) in pending {
        assert_eq!(response.await.unwrap().status(), 200);
    }
    client.driver.await.unwrap().unwrap();
    assert_eq!(world.simulator.ledger().requests, 20);
}

#[tokio::test]
async fn goaway_zero_disowns_everything_in_flight() {
    let world = World::new(ending_with(GoAwayForm::Zero)).await;
    let client = world.http2().await;
    let pending = start(&client, 5, 60_000);
    taken_up(&world, 5).await;
    world.simulator.goaway_all();
    for (id, response) in pending {
        let error = response.await.unwrap_err();
        assert!(error.is_go_away() && error.is_remote(), "{error:?}");
        assert_eq!(world.simulator.seen(&id), 0);
    }
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.requests, ledger.requests_disowned), (5, 5));
}

#[tokio::test]
async fn goaway_behind_disowns_the_newest_and_finishes_the_others() {
    let world = World::new(ending_with(GoAwayForm::Behind { streams: 3 })).await;
    let client = world.http2().await;
    let pending = start(&client, 8, 20);
    taken_up(&world, 8).await;
    world.simulator.goaway_all();
    let mut outcomes = Vec::new();
    for (id, response) in pending {
        outcomes.push((response.await.is_ok(), world.simulator.seen(&id)));
    }
    assert_eq!(outcomes[..5], [(true, 1); 5]);
    assert_eq!(outcomes[5..], [(false, 0); 3]);
}

#[tokio::test]
async fn goaway_max_alone_disowns_nothing() {
    let world = World::new(ending_with(GoAwayForm::MaxOnly)).await;
    let client = world.http2().await;
    let pending = start(&client, 4, 20);
    taken_up(&world, 4).await;
    world.simulator.goaway_all();
    for (_, response) in pending {
        assert_eq!(response.await.unwrap().status(), 200);
    }
    assert!(client.send.clone().ready().await.is_err(), "no new streams after a GOAWAY");
}

#[tokio::test]
async fn an_abrupt_end_carries_its_reason_and_leaves_what_is_in_flight_in_doubt() {
    let form = GoAwayForm::Abrupt { reason: ResetReason::EnhanceYourCalm };
    let world = World::new(ending_with(form)).await;
    let client = world.http2().await;
    let pending = start(&client, 2, 60_000);
    taken_up(&world, 2).await;
    world.simulator.goaway_all();
    for (id, response) in pending {
        assert!(response.await.is_err());
        assert_eq!(world.simulator.seen(&id), 1);
    }
    let error = client.driver.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn fin_and_reset_end_without_a_word() {
    for form in [GoAwayForm::Fin, GoAwayForm::Reset] {
        let world = World::new(ending_with(form)).await;
        let client = world.http2().await;
        let pending = start(&client, 1, 60_000);
        taken_up(&world, 1).await;
        world.simulator.goaway_all();
        for (_, response) in pending {
            let error = response.await.unwrap_err();
            assert!(error.is_io(), "{form:?}: {error:?}");
        }
        assert_eq!(world.simulator.ledger().goaways_sent, 0);
    }
}

#[tokio::test]
async fn a_single_request_can_end_its_connection() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let reply =
        client.call(post("/").header("sim-goaway", "immediate").body(()).unwrap(), b"x").await.unwrap();
    assert_eq!(reply.body, b"x");
    client.driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_ends_at_its_age_and_when_idle() {
    let age = Some(Duration::from_millis(20));
    let world = World::new(Behaviour { goaway_after: age, ..Behaviour::default() }).await;
    let client = world.http2().await;
    client.driver.await.unwrap().unwrap();
    assert_eq!(world.simulator.ledger().goaways_sent, 1);

    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    client.get("/").await.unwrap();
    world.simulator.set_behaviour(Behaviour { idle_close: age, ..Behaviour::default() }).unwrap();
    // Without close_notify the end of the stream is an error of the client's TLS.
    assert!(client.driver.await.unwrap().unwrap_err().is_io());
    assert_eq!(world.simulator.ledger().goaways_sent, 0);
}

#[tokio::test]
async fn killed_connections_are_reset_and_the_listener_stays() {
    let world = World::new(Behaviour::default()).await;
    let (first, second) = (world.http2().await, world.http2().await);
    world.simulator.kill_connections();
    for client in [first, second] {
        let error = client.driver.await.unwrap().unwrap_err();
        assert_eq!(error.get_io().unwrap().kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(world.http2().await.get("/").await.unwrap().head.status, 200);
}

#[tokio::test]
async fn a_stopped_server_can_be_started_again_on_its_address() {
    let world = World::new(Behaviour::default()).await;
    let addr = world.simulator.addr();
    let client = world.http2().await;
    world.simulator.stop().await;
    assert!(client.driver.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());

    let endorsed = vec![world.client.endorsed()];
    let options = SimulatorOptions { listen: addr, endorsed, ..SimulatorOptions::new(world.pki.clone()) };
    let simulator = Simulator::start(options).await.unwrap();
    assert_eq!(simulator.addr(), addr);
    let world = World { simulator, ..world };
    assert_eq!(world.http2().await.get("/").await.unwrap().head.status, 200);
}

#[tokio::test]
async fn the_stream_cap_is_announced_and_never_passed() {
    let world = World::new(Behaviour { max_concurrent_streams: Some(3), ..Behaviour::default() }).await;
    let client = world.http2().await;
    assert_eq!(client.send.current_max_send_streams(), 3);
    for (_, response) in start(&client, 9, 5) {
        assert_eq!(response.await.unwrap().status(), 200);
    }
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.peak_streams, ledger.stream_limit_breaches), (3, 0));
}

#[tokio::test]
async fn a_lowered_cap_reaches_open_connections() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    assert_eq!(client.send.current_max_send_streams(), 128);
    let lowered = Behaviour { max_concurrent_streams: Some(2), ..Behaviour::default() };
    world.simulator.set_behaviour(lowered).unwrap();
    while client.send.current_max_send_streams() != 2 {
        client.get("/").await.unwrap();
    }
    for (_, response) in start(&client, 6, 5) {
        assert_eq!(response.await.unwrap().status(), 200);
    }
    assert_eq!(world.simulator.ledger().stream_limit_breaches, 0);
}

#[tokio::test]
async fn pings_can_vanish_while_requests_are_answered() {
    let world = World::new(Behaviour { pings: Pings::Ignore, ..Behaviour::default() }).await;
    let tls = world.tls(world.config()).await.unwrap();
    let (send, mut connection) = h2::client::handshake(tls).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    let driver = tokio::spawn(connection);
    let client = Client { send, driver };
    client.get("/").await.unwrap();
    tokio::time::pause();
    assert!(timeout(Duration::from_secs(60), ping.ping(h2::Ping::opaque())).await.is_err());
    assert_eq!(client.get("/").await.unwrap().head.status, 200);
    assert_eq!(world.simulator.ledger().pings, 1);
}

#[tokio::test]
async fn a_stall_holds_where_it_says() {
    let world = World::new(Behaviour { stall: Stall::AtHandshake, ..Behaviour::default() }).await;
    tokio::time::pause();
    assert!(timeout(Duration::from_secs(30), world.tls(world.config())).await.is_err());
    tokio::time::resume();
    let before_settings = Behaviour { stall: Stall::BeforeSettings, ..Behaviour::default() };
    world.simulator.set_behaviour(before_settings).unwrap();
    let tls = world.tls(world.config()).await.unwrap();
    tokio::time::pause();
    assert!(timeout(Duration::from_secs(30), Client::over(tls)).await.is_err());
}

#[tokio::test]
async fn bodies_in_flight_above_a_cut_do_not_starve_those_below() {
    let behaviour = Behaviour { connection_window: 65_535, ..ending_with(GoAwayForm::Behind { streams: 1 }) };
    let world = World::new(behaviour).await;
    let client = world.http2().await;
    let mut send = client.send.clone().ready().await.unwrap();
    let (kept, mut kept_body) = send.send_request(post("/").body(()).unwrap(), false).unwrap();
    let (cut, mut cut_body) = send.send_request(post("/").body(()).unwrap(), false).unwrap();
    taken_up(&world, 2).await;
    cut_body.send_data(Bytes::from(vec![1; 60_000]), false).unwrap();
    world.simulator.goaway_all();
    let fate = crate::support::read(cut.await.unwrap()).await.unwrap_err();
    assert!(fate.is_go_away() && fate.is_remote(), "{fate:?}");
    kept_body.send_data(Bytes::from(vec![2; 200_000]), true).unwrap();
    let reply = crate::support::read(kept.await.unwrap()).await.unwrap();
    assert_eq!(reply.body.len(), 200_000);
}
