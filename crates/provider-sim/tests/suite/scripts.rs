//! Scripts played on a running provider.

use std::time::Duration;

use provider_sim::{Behaviour, Listening, Script};
use tokio::net::TcpStream;

use crate::support::{World, eventually};

fn script(text: &str) -> Script {
    Script::parse(text).unwrap()
}

#[tokio::test]
async fn a_script_ends_connections_changes_the_behaviour_and_restarts() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let script = script(
        r#"
        seed = 11
        [[step]]
        at_ms = 0
        action = { behaviour = { latency_ms = 5, goaway_form = "two_phase" } }
        [[step]]
        between_ms = [1, 10]
        action = { end = { target = "random", form = "immediate" } }
        [[step]]
        at_ms = 20
        action = { restart = { down_ms = [20, 40] } }
        [[step]]
        at_ms = 30
        action = { rotate_certificate = "leaf" }
        "#,
    );
    let before = world.simulator.pki().server_pin();
    let playing = world.simulator.play(&script);
    client.driver.await.unwrap().unwrap();
    eventually(|| world.simulator.listening() == Listening::Refusing).await;
    assert!(TcpStream::connect(world.simulator.addr()).await.is_err());
    playing.finished().await.unwrap();
    assert_eq!(world.simulator.behaviour().latency, Duration::from_millis(5));
    assert_ne!(world.simulator.pki().server_pin(), before);
    assert_eq!(world.http2().await.get("/").await.unwrap().head.status, 200);
    assert_eq!(world.simulator.ledger().goaways_sent, 1);
}

#[tokio::test]
async fn a_stopped_script_takes_back_what_it_changed() {
    let world = World::new(Behaviour { tickets: 1, ..Behaviour::default() }).await;
    let script = script(
        r#"
        [[step]]
        at_ms = 0
        action = { behaviour = { tickets = 5 } }
        [[step]]
        at_ms = 0
        action = { listening = { state = "refusing" } }
        [[step]]
        at_ms = 600000
        action = "forget_sessions"
        "#,
    );
    let playing = world.simulator.play(&script);
    eventually(|| playing.events() == 2).await;
    assert_eq!((world.simulator.behaviour().tickets, world.simulator.listening()), (5, Listening::Refusing));
    playing.stop().await.unwrap();
    assert_eq!((world.simulator.behaviour().tickets, world.simulator.listening()), (1, Listening::Accepting));
}

#[tokio::test]
async fn what_lasts_for_a_while_goes_back_to_what_it_was() {
    let world = World::new(Behaviour { latency: Duration::from_millis(3), ..Behaviour::default() }).await;
    let text = "[[step]]\nat_ms = 0\nfor_ms = 30\naction = { behaviour = { latency_ms = 50 } }";
    let playing = world.simulator.play(&script(text));
    eventually(|| world.simulator.behaviour().latency == Duration::from_millis(50)).await;
    playing.finished().await.unwrap();
    assert_eq!(world.simulator.behaviour().latency, Duration::from_millis(3));
}

#[tokio::test]
async fn a_script_ends_with_its_simulator() {
    let world = World::new(Behaviour::default()).await;
    let playing =
        world.simulator.play(&script("[[step]]\nat_ms = 600000\naction = { restart = { down_ms = 1 } }"));
    world.simulator.stop().await;
    playing.finished().await.unwrap();
}
