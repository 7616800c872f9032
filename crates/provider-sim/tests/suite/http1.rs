//! The same provider over HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use provider_sim::{Behaviour, GoAwayForm, Http1Close, HttpVersions, Stall, Target};

use crate::support::{World, eventually};

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

async fn closed(client: &mut SendRequest<Full<Bytes>>) {
    while client.ready().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_not_while_it_is_busy() {
    let idle_close = Some(Duration::from_millis(50));
    let world = World::new(Behaviour { idle_close, ..http11() }).await;
    let mut client = connect(&world).await;
    let slow = client.send_request(post(&[("sim-delay-ms", "150")])).await.unwrap();
    assert_eq!(body(slow).await.unwrap(), "hello", "a request that lasts longer is no idle time");
    client.ready().await.unwrap();
    closed(&mut client).await;
    let never_used = connect(&world).await;
    eventually(|| world.simulator.ledger().connections_open == 0).await;
    drop(never_used);
}

#[tokio::test]
async fn the_last_response_may_come_without_a_word_about_the_close() {
    let behaviour = Behaviour { goaway_after_requests: Some(2), http1_close: Http1Close::Silent, ..http11() };
    let world = World::new(behaviour).await;
    for orders in [&[][..], &[("sim-body-bytes", "300000")], &[("sim-trailers", "a=1")]] {
        let mut client = connect(&world).await;
        for _ in 0..2 {
            client.ready().await.unwrap();
            let response = client.send_request(post(orders)).await.unwrap();
            assert!(!response.headers().contains_key("connection"), "{orders:?}");
            assert!(!body(response).await.unwrap().is_empty(), "{orders:?}: it comes whole");
        }
        closed(&mut client).await;
    }
}

#[tokio::test]
async fn a_connection_is_ended_below_http_after_the_response_or_in_its_middle() {
    let world = World::new(http11()).await;
    for form in ["reset", "fin", "close_notify", "half_close"] {
        let mut client = connect(&world).await;
        let orders = [("sim-goaway", form), ("sim-goaway-at", "after_response")];
        let response = client.send_request(post(&orders)).await.unwrap();
        assert!(!response.headers().contains_key("connection"));
        assert_eq!(body(response).await.unwrap(), "hello", "{form}");
        closed(&mut client).await;

        for at in ["response_headers", "before_trailers"] {
            let mut client = connect(&world).await;
            let orders = [("sim-goaway", form), ("sim-goaway-at", at)];
            let response = client.send_request(post(&orders)).await.unwrap();
            assert!(body(response).await.is_err(), "{form} {at}");
        }
        for at in ["headers", "request_data"] {
            let mut client = connect(&world).await;
            let orders = [("sim-goaway", form), ("sim-goaway-at", at), ("sim-respond", "sink")];
            assert!(client.send_request(post(&orders)).await.is_err(), "{form} {at}");
        }
    }
}

#[tokio::test]
async fn orders_from_outside_end_idle_connections() {
    for form in [GoAwayForm::CloseNotify, GoAwayForm::Fin, GoAwayForm::Reset, GoAwayForm::HalfClose] {
        let world = World::new(http11()).await;
        let mut client = connect(&world).await;
        body(client.send_request(post(&[])).await.unwrap()).await.unwrap();
        assert_eq!(world.simulator.end(Target::All, form), 1);
        closed(&mut client).await;
    }
}

#[tokio::test]
async fn a_half_close_is_seen_while_a_request_body_waits_to_be_read() {
    let world = World::new(Behaviour { stall: Stall::BeforeResponse, ..http11() }).await;
    let mut client = connect(&world).await;
    // More than the server reads ahead.
    let large = Request::post("/p").header("host", "localhost").header("x-correlation-id", "large");
    let large = large.body(Full::new(Bytes::from(vec![b'l'; 256 * 1024]))).unwrap();
    let answer = tokio::spawn(async move { client.send_request(large).await });
    eventually(|| world.simulator.seen("large") == 1).await;
    assert_eq!(world.simulator.end(Target::All, GoAwayForm::HalfClose), 1);
    assert!(answer.await.unwrap().is_err());
}

#[tokio::test]
async fn the_version_changes_live_for_new_connections() {
    let world = World::new(Behaviour::default()).await;
    let open = world.http2().await;
    let cases = [
        (HttpVersions::Http11Only, Some(b"http/1.1".as_slice())),
        (HttpVersions::NoAlpn, None),
        (HttpVersions::H2Only, Some(b"h2".as_slice())),
    ];
    for (http, expected) in cases {
        world.simulator.set_behaviour(Behaviour { http, ..Behaviour::default() }).unwrap();
        let tls = world.tls(world.config()).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), expected, "{http:?}");
        assert_eq!(open.get("/").await.unwrap().head.status, 200, "{http:?}");
    }
}
