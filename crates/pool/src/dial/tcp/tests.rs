//! Dead addresses beside live ones, and the socket's options.

use std::{net::IpAddr, sync::Arc};

use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;

use super::*;
use crate::{
    dial::HostPort,
    dns::{Answer, Early, Resolve, ResolveError},
};

/// Answers the same always.
struct Fixed(Vec<IpAddr>);

impl Resolve for Fixed {
    async fn resolve(&self, _: &str, _: Early) -> Result<Answer, ResolveError> {
        Ok(Answer { addresses: self.0.clone(), ttl: Duration::from_secs(60), silent: None })
    }
}

const LIMIT: Duration = Duration::from_secs(5);

fn directory(port: u16, addresses: &[&str]) -> Arc<Directory> {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let place = HostPort { host: "tsh.test".to_owned(), port };
    Arc::new(Directory::start(place, LIMIT, Fixed(addresses), &Handle::current(), || ()))
}

async fn dial(directory: &Directory) -> (Result<Connected, DialError>, Progress) {
    let mut progress = Progress::begin();
    let result = connect(directory, LIMIT, &mut progress).await;
    (result, progress)
}

/// A listener at `ip` whose queue is full: the kernel leaves further SYNs unanswered.
fn black_hole(ip: &str, port: u16) -> (Socket, Vec<Socket>) {
    let address = SocketAddr::new(ip.parse().unwrap(), port).into();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    // The kernel takes one more than the backlog; one to spare.
    let filling = (0..3)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        })
        .collect();
    (listener, filling)
}

/// A listener at 127.0.0.1 on a port that is free at 127.0.0.2 and 127.0.0.3, too, most likely.
async fn live() -> (tokio::net::TcpListener, u16) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_black_hole_costs_a_quarter_of_a_second_once() {
    let (_live, port) = live().await;
    let _hole = black_hole("127.0.0.2", port);
    let directory = directory(port, &["127.0.0.2", "127.0.0.1"]);
    let began = Instant::now();
    let (connected, progress) = dial(&directory).await;
    assert_eq!(connected.unwrap().address.ip().to_string(), "127.0.0.1");
    assert_eq!(progress.address, format!("127.0.0.1:{port}"));
    let took = began.elapsed();
    assert!(took >= STAGGER && took < Duration::from_secs(2), "{took:?}");
    // The next dial knows.
    let began = Instant::now();
    assert!(dial(&directory).await.0.is_ok());
    assert!(began.elapsed() < STAGGER, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_address_that_refuses_costs_nothing() {
    let (_live, port) = live().await;
    let directory = directory(port, &["127.0.0.3", "127.0.0.2", "127.0.0.1"]);
    let began = Instant::now();
    let (connected, _) = dial(&directory).await;
    assert_eq!(connected.unwrap().address.ip().to_string(), "127.0.0.1");
    assert!(began.elapsed() < STAGGER, "the next address is tried at once: {:?}", began.elapsed());
}

#[tokio::test]
async fn no_more_than_four_addresses_are_tried() {
    let (_live, port) = live().await;
    let addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.1"];
    let directory = directory(port, &addresses);
    let (result, progress) = dial(&directory).await;
    assert!(matches!(result, Err(DialError::Refused { .. })), "{result:?}");
    assert_eq!(progress.address, format!("127.0.0.5:{port}"), "the last that was tried");
    // Those that failed go last: the next dial begins with the fifth.
    assert!(dial(&directory).await.0.is_ok());
}

#[tokio::test]
async fn black_holes_alone_end_at_the_limit_and_are_named() {
    let (listener, port) = live().await;
    drop(listener);
    let _holes = [black_hole("127.0.0.2", port), black_hole("127.0.0.3", port)];
    let directory = directory(port, &["127.0.0.2", "127.0.0.3"]);
    let mut progress = Progress::begin();
    let limit = Duration::from_millis(400);
    let error = connect(&directory, limit, &mut progress).await.unwrap_err();
    assert_eq!(error.code(), "connect_timeout");
    assert!(error.to_string().contains("127.0.0.2"), "{error}");
    let status = directory.status(Instant::now()).unwrap();
    assert!(status.addresses.iter().all(|a| a.failed_lately && a.connections == 0), "{status:?}");
}

#[tokio::test]
async fn a_long_lived_flow_gets_its_socket_options() {
    let (_live, port) = live().await;
    let (connected, _) = dial(&directory(port, &["127.0.0.1"])).await;
    let connected = connected.unwrap();
    let socket = SockRef::from(&connected.tcp);
    assert!(connected.tcp.nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
    #[cfg(target_os = "linux")]
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
}

#[tokio::test]
async fn a_dial_that_is_given_up_gives_its_address_back() {
    let (listener, port) = live().await;
    drop(listener);
    let _hole = black_hole("127.0.0.2", port);
    let directory = directory(port, &["127.0.0.2"]);
    let dialling = tokio::spawn({
        let directory = directory.clone();
        async move { dial(&directory).await.0.map(|_| ()) }
    });
    let in_use = || directory.status(Instant::now()).unwrap().addresses.first().map_or(0, |a| a.connections);
    while in_use() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    dialling.abort();
    let _ = dialling.await;
    assert_eq!(in_use(), 0);
}
