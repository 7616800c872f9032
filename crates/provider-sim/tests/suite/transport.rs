//! The ends of connections below HTTP, and silence.

use std::io::ErrorKind;
use std::time::Duration;

use provider_sim::{Behaviour, GoAwayForm, Rotation, Stall, Target};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::raw::{DATA, Raw, SETTINGS};
use crate::support::{World, eventually};

/// Long enough that silence is no accident.
const SILENCE: Duration = Duration::from_millis(100);

/// A client that has nothing more to send: what it sent after the end would turn FIN into RST.
async fn settled(world: &World) -> Raw {
    let acknowledged = world.simulator.ledger().settings_acknowledged;
    let mut raw = Raw::connect(world).await;
    raw.next(SETTINGS).await;
    eventually(|| world.simulator.ledger().settings_acknowledged > acknowledged).await;
    raw
}

async fn with_request_in_flight(world: &World) -> Raw {
    let requests = world.simulator.ledger().requests;
    let mut raw = settled(world).await;
    raw.open(1, &[]).await;
    eventually(|| world.simulator.ledger().requests > requests).await;
    raw
}

#[tokio::test]
async fn each_end_looks_to_tls_as_it_should() {
    let cases = [
        (GoAwayForm::CloseNotify, Ok(())),
        (GoAwayForm::Fin, Err(ErrorKind::UnexpectedEof)),
        (GoAwayForm::HalfClose, Err(ErrorKind::UnexpectedEof)),
        (GoAwayForm::Reset, Err(ErrorKind::ConnectionReset)),
    ];
    for (form, expected) in cases {
        let world = World::new(Behaviour::default()).await;
        let mut raw = with_request_in_flight(&world).await;
        assert_eq!(world.simulator.end(Target::All, form), 1);
        assert_eq!(raw.end().await, expected, "{form:?}");
        assert_eq!(world.simulator.ledger().goaways_sent, 0);
    }
}

#[tokio::test]
async fn a_request_ends_its_own_connection_in_each_way() {
    let cases = [
        ("close_notify", Ok(())),
        ("fin", Err(ErrorKind::UnexpectedEof)),
        ("half_close", Err(ErrorKind::UnexpectedEof)),
        ("reset", Err(ErrorKind::ConnectionReset)),
    ];
    let world = World::new(Behaviour::default()).await;
    for (form, expected) in cases {
        let mut raw = settled(&world).await;
        raw.open(1, &[("sim-goaway", form), ("sim-goaway-at", "request_data")]).await;
        raw.send(DATA, 0, 1, b"the beginning").await;
        assert_eq!(raw.end().await, expected, "{form}");
    }
}

#[tokio::test]
async fn a_half_closed_connection_is_read_on_and_answers_nothing() {
    let world = World::new(Behaviour::default()).await;
    let mut raw = settled(&world).await;
    raw.request(1, &[("sim-goaway", "half_close")]).await;
    assert_eq!(raw.end().await, Err(ErrorKind::UnexpectedEof));
    for stream in 1..200 {
        raw.request(2 * stream + 1, &[]).await;
    }
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.connections_open, ledger.requests), (1, 1), "nothing of it is a request");
    drop(raw);
    eventually(|| world.simulator.ledger().connections_open == 0).await;
}

#[tokio::test]
async fn a_black_hole_neither_reads_nor_writes_and_keeps_the_socket() {
    let world = World::new(Behaviour::default()).await;
    let mut raw = with_request_in_flight(&world).await;
    assert_eq!(world.simulator.end(Target::Newest, GoAwayForm::BlackHole), 1);
    while let Ok(frame) = timeout(SILENCE, raw.frame()).await {
        frame.unwrap().expect("the connection stays");
    }
    let upload = async { while raw.try_send(DATA, 0, 1, &[0; 16_000]).await.is_ok() {} };
    assert!(timeout(SILENCE, upload).await.is_err(), "the buffers of the system are full");
    assert_eq!(world.simulator.ledger().connections_open, 1);
    world.simulator.kill_connections();
    eventually(|| world.simulator.ledger().connections_open == 0).await;
}

#[tokio::test]
async fn a_stall_within_the_handshake_lets_out_a_scrap_of_it() {
    let world = World::new(Behaviour { stall: Stall::MidHandshake, ..Behaviour::default() }).await;
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(world.config().into(), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    let mut tcp = TcpStream::connect(world.simulator.addr()).await.unwrap();
    tcp.write_all(&hello).await.unwrap();
    let mut buffer = [0; 4096];
    let n = tcp.read(&mut buffer).await.unwrap();
    assert!(n > 0 && n < 100, "{n} bytes");
    assert_eq!(buffer[0], 22, "of a handshake record");
    assert!(timeout(SILENCE, tcp.read(&mut buffer)).await.is_err());
    world.simulator.kill_connections();
    assert_eq!(tcp.read(&mut buffer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn orders_reach_connections_that_are_still_in_their_handshake() {
    let world = World::new(Behaviour { stall: Stall::AtHandshake, ..Behaviour::default() }).await;
    let mut tcp = TcpStream::connect(world.simulator.addr()).await.unwrap();
    eventually(|| world.simulator.ledger().connections_open == 1).await;
    world.simulator.end(Target::All, GoAwayForm::Fin);
    assert_eq!(tcp.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_certificate_is_rotated_live_for_new_connections() {
    let world = World::new(Behaviour::default()).await;
    let open = world.http2().await;
    let rotated = world.simulator.rotate_certificate(Rotation::Leaf).unwrap();
    let tls = world.tls(world.config()).await.unwrap();
    assert_eq!(&tls.get_ref().1.peer_certificates().unwrap()[0], rotated.server_certificate());
    world.simulator.rotate_certificate(Rotation::Authority).unwrap();
    let error = world.tls(world.config()).await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    assert_eq!(open.get("/").await.unwrap().head.status, 200, "an open connection stays");
}
