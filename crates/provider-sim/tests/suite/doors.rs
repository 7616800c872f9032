//! Listening, not accepting, refusing, coming back, and several addresses.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use provider_sim::{AddressLedger, Behaviour, GoAwayForm, Listening, SimulatorOptions, Target};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Client, World, eventually};

fn loopback(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, n))
}

async fn refused(world: &World) -> bool {
    let error = TcpStream::connect(world.simulator.addr()).await.err();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn connections_are_refused_while_open_ones_live_and_the_port_comes_back() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    for _ in 0..3 {
        world.simulator.set_listening(Listening::Refusing).unwrap();
        assert!(refused(&world).await);
        assert_eq!(client.get("/").await.unwrap().head.status, 200);
        world.simulator.set_listening(Listening::Accepting).unwrap();
        assert_eq!(world.http2().await.get("/").await.unwrap().head.status, 200);
    }
}

#[tokio::test]
async fn the_port_stays_reserved_while_connections_are_refused() {
    let world = World::new(Behaviour::default()).await;
    world.simulator.set_listening(Listening::Refusing).unwrap();
    let taken = std::net::TcpListener::bind(world.simulator.addr());
    assert_eq!(world.simulator.listening(), Listening::Refusing);
    // Where the system lets others in, that is no fault of ours: only what we hold is checked.
    if taken.is_err() {
        world.simulator.set_listening(Listening::Accepting).unwrap();
        world.http2().await;
    }
}

#[tokio::test]
async fn a_backlogged_server_is_connected_to_and_says_nothing_until_it_accepts() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    world.simulator.set_listening(Listening::Backlogged).unwrap();
    let mut handshake = Box::pin(world.tls(world.config()));
    assert!(timeout(Duration::from_millis(100), &mut handshake).await.is_err());
    assert_eq!(client.get("/").await.unwrap().head.status, 200);
    assert_eq!(world.simulator.ledger().connections_accepted, 1);
    world.simulator.set_listening(Listening::Accepting).unwrap();
    Client::over(handshake.await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_restart_resets_all_refuses_for_a_while_and_forgets_sessions() {
    let world = World::new(Behaviour::default()).await;
    let config = world.config();
    let client = Client::over(world.tls(config.clone()).await.unwrap()).await.unwrap();
    let restart = world.simulator.restart(Duration::from_millis(100));
    let meanwhile = async {
        let error = client.driver.await.unwrap().unwrap_err();
        assert_eq!(error.get_io().unwrap().kind(), ErrorKind::ConnectionReset);
        assert!(refused(&world).await);
    };
    let (restarted, ()) = tokio::join!(restart, meanwhile);
    restarted.unwrap();
    let again = Client::over(world.tls(config).await.unwrap()).await.unwrap();
    assert_eq!(again.get("/").await.unwrap().head.status, 200);
    assert_eq!(world.simulator.ledger().handshakes_resumed, 0);
}

#[tokio::test]
async fn several_addresses_share_a_port_and_are_counted_apart() {
    let also_listen = vec![loopback(2), loopback(3)];
    let world = World::with(|options| SimulatorOptions { also_listen, ..options }).await;
    let addrs = world.simulator.addrs();
    assert_eq!(addrs.iter().map(|addr| addr.ip()).collect::<Vec<_>>(), [1, 2, 3].map(loopback));
    assert!(addrs.iter().all(|addr| addr.port() == world.simulator.addr().port()));

    let config = Arc::new(world.config());
    let mut clients = Vec::new();
    for n in [1, 2, 2, 3] {
        let tcp = TcpStream::connect((loopback(n), world.simulator.addr().port())).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap();
        let client = Client::over(tls).await.unwrap();
        client.get("/").await.unwrap();
        clients.push(client);
    }
    let seen = |n| world.simulator.address_ledger(loopback(n));
    let two = AddressLedger { connections_accepted: 2, connections_open: 2, requests: 2 };
    assert_eq!(seen(2), two);
    assert_eq!((seen(1).connections_open, seen(3).requests, seen(4)), (1, 1, AddressLedger::default()));

    assert_eq!(world.simulator.end(Target::Address(loopback(2)), GoAwayForm::Reset), 2);
    eventually(|| seen(2).connections_open == 0).await;
    assert_eq!(seen(2).connections_accepted, 2);
    assert_eq!(clients[0].get("/").await.unwrap().head.status, 200);
    world.simulator.set_listening_at(loopback(3), Listening::Refusing).unwrap();
    assert!(TcpStream::connect((loopback(3), world.simulator.addr().port())).await.is_err());
    assert!(!refused(&world).await, "the first address still accepts");
}
