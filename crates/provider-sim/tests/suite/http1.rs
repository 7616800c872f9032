//! The same provider over HTTP/1.1.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use provider_sim::{Behaviour, HttpVersions};

use crate::support::World;

async fn connect(world: &World) -> SendRequest<Full<Bytes>> {
    let tls = world.tls(world.config()).await.unwrap();
    let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    // Ends with the connection; a reset shows at the request.
    tokio::spawn(async move { drop(connection.await) });
    send
}

fn post(headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::post("/p").header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from_static(b"hello"))).unwrap()
}

async fn body(response: Response<Incoming>) -> Result<Bytes, hyper::Error> {
    Ok(response.into_body().collect().await?.to_bytes())
}

fn http11() -> Behaviour {
    Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() }
}

#[tokio::test]
async fn a_connection_is_kept_alive_and_echoes() {
    let world = World::new(http11()).await;
    let mut client = connect(&world).await;
    for _ in 0..3 {
        let response = client.send_request(post(&[("x-correlation-id", "c")])).await.unwrap();
        assert_eq!(response.headers()["x-correlation-id"], "c");
        assert_eq!(body(response).await.unwrap(), "hello");
    }
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.connections_http11, ledger.requests, ledger.responses), (1, 3, 3));
    assert_eq!(world.simulator.seen("c"), 3);
}

#[tokio::test]
async fn without_alpn_it_is_http11() {
    let world = World::new(Behaviour { http: HttpVersions::NoAlpn, ..Behaviour::default() }).await;
    let response = connect(&world).await.send_request(post(&[("sim-status", "404")])).await.unwrap();
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn the_connection_closes_after_so_many_requests() {
    let world = World::new(Behaviour { goaway_after_requests: Some(2), ..http11() }).await;
    let mut client = connect(&world).await;
    let first = client.send_request(post(&[])).await.unwrap();
    assert!(!first.headers().contains_key("connection"));
    body(first).await.unwrap();
    client.ready().await.unwrap();
    let second = client.send_request(post(&[])).await.unwrap();
    assert_eq!(second.headers()["connection"], "close");
    assert_eq!(body(second).await.unwrap(), "hello");
    assert!(client.ready().await.is_err());
}

#[tokio::test]
async fn a_reset_breaks_the_connection_where_it_is_asked_for() {
    let world = World::new(http11()).await;
    let orders = [("sim-reset", "cancel"), ("sim-reset-at", "mid_body"), ("sim-body-bytes", "1000")];
    let response = connect(&world).await.send_request(post(&orders)).await.unwrap();
    assert_eq!(response.headers()["content-length"], "1000");
    assert!(body(response).await.is_err());
    assert!(connect(&world).await.send_request(post(&[("sim-reset", "cancel")])).await.is_err());
    assert_eq!(world.simulator.ledger().resets, 2);
}

#[tokio::test]
async fn goaway_all_closes_idle_connections() {
    let world = World::new(http11()).await;
    let mut client = connect(&world).await;
    body(client.send_request(post(&[])).await.unwrap()).await.unwrap();
    world.simulator.goaway_all();
    while client.ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
}
