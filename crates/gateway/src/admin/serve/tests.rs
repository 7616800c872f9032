//! Tests of the admin listener over sockets.

use std::net::SocketAddr;

use http_body_util::BodyExt;
use hyper::client::conn::http2;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};

use super::*;
use crate::{
    admin::{Readiness, bind_unix},
    grpc::Health,
    telemetry::{
        Metrics, PoolView, Recorder, RecorderOptions, Requirement,
        testing::{FakeView, catalog},
    },
};

const WITHIN: Duration = Duration::from_secs(10);

struct Fixture {
    address: Option<SocketAddr>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _recorder: Recorder,
}

async fn serve_on(listener: AdminListener) -> Fixture {
    let view: Arc<dyn PoolView> = FakeView::new("sandbox", Requirement::Required);
    let recorder = Recorder::start_on(None, &RecorderOptions::default(), Metrics::new(catalog())).unwrap();
    let readiness = Readiness::new([view.clone()]);
    let health = Health::new(&readiness).await;
    let state = AdminState {
        telemetry: recorder.flusher(),
        pools: Arc::new([view]),
        obituaries: pool::Obituaries::new(Arc::new(tls_core::SystemClock)),
        readiness,
        health,
    };
    let (address, stop) = (listener.local_address(), CancellationToken::new());
    let task = tokio::spawn(serve(listener, state, stop.clone()));
    Fixture { address, stop, task, _recorder: recorder }
}

async fn on_loopback() -> Fixture {
    serve_on(AdminListener::bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()).await
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> String {
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    timeout(WITHIN, stream.read_to_string(&mut reply)).await.expect("a reply in time").unwrap();
    reply
}

#[tokio::test]
async fn plain_http_and_grpc_share_the_port() {
    let fixture = on_loopback().await;
    let address = fixture.address.unwrap();
    let reply = ask(TcpStream::connect(address).await.unwrap(), &address.to_string()).await;
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("ok\n"), "{reply}");

    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let driver = tokio::spawn(connection);
    // An empty message in gRPC's framing: not compressed, length 0.
    let body = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]));
    let request = http::Request::post(format!("http://{address}/tsh.gateway.v1.Pools/List"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let response = timeout(WITHIN, sender.send_request(request)).await.unwrap().unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert!(body.to_bytes().windows(7).any(|w| w == b"sandbox"));
    drop(sender);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_name_is_looked_at_on_tcp_and_not_on_a_unix_socket() {
    let fixture = on_loopback().await;
    let stream = TcpStream::connect(fixture.address.unwrap()).await.unwrap();
    assert!(ask(stream, "rebound.example").await.starts_with("HTTP/1.1 421 "));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let _fixture = serve_on(AdminListener::Unix(bind_unix(&path).unwrap())).await;
    assert!(ask(UnixStream::connect(&path).await.unwrap(), "anything").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_the_task() {
    let fixture = on_loopback().await;
    let mut idle = TcpStream::connect(fixture.address.unwrap()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    timeout(WITHIN, idle.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    fixture.stop.cancel();
    timeout(WITHIN, fixture.task).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(fixture.address.unwrap()).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn beyond_the_limit_connections_wait_and_are_then_served() {
    let fixture = on_loopback().await;
    let address = fixture.address.unwrap();
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let waiting =
        tokio::spawn(async move { ask(TcpStream::connect(address).await.unwrap(), "localhost").await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    held.clear();
    let reply = timeout(WITHIN, waiting).await.unwrap().unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}
