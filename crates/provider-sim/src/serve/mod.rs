//! Owns one connection from accept to end: handshake, second look at the certificate, the choice between
//! HTTP/2 and HTTP/1.1, and the signals that end it from outside. It does not own what a request gets.

mod http1;
mod http2;
mod reply;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::behaviour::{Behaviour, ClientAuth, RefusalAlert, Stall};
use crate::door::Door;
use crate::ending::Ending;
use crate::plan::drawn;
use crate::simulator::{Live, Shared};
use crate::socket::{Socket, Switch, Thrown, linger};
use crate::tls::{ALPN_H2, leaf_fault};

/// Longer than any client waits, short enough to be rid of a half-open one. nginx: `client_header_timeout`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Room for a whole TLS record: the library asks for 4 KiB at a time.
const READ_AHEAD: usize = 16 * 1024;

/// TCP, read ahead, under TLS.
pub(crate) type Tls = TlsStream<BufReader<Socket>>;

/// What the parts of one connection share.
pub(crate) struct Connection {
    /// Counts accepted connections from 1; the response header `sim-connection`.
    pub(crate) number: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) switch: Switch,
    door: Arc<Door>,
}

impl Connection {
    pub(crate) fn new(number: u64, shared: Arc<Shared>, door: Arc<Door>) -> Self {
        shared.books.connections_accepted.add(1);
        shared.books.connections_open.add(1);
        door.accepted.add(1);
        door.open.add(1);
        Self { number, shared, switch: Switch::default(), door }
    }

    /// A request is taken up for processing.
    pub(crate) fn processed(&self, correlation_id: Option<&str>) {
        self.shared.books.processed(correlation_id);
        self.door.requests.add(1);
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        self.shared.live.borrow().clone()
    }

    /// The same for the same seed, connection and request.
    pub(crate) fn jitter(&self, behaviour: &Behaviour, ordinal: u64) -> Duration {
        drawn(behaviour, self.shared.seed, self.number, ordinal)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.registry.leave(self.number);
        self.shared.books.connections_open.sub(1);
        self.door.open.sub(1);
    }
}

/// Serves one connection until it ends, is ended, or the server stops.
pub(crate) async fn run(tcp: TcpStream, connection: Connection, mut orders: mpsc::Receiver<Ending>) {
    let connection = Arc::new(connection);
    let stop = connection.shared.stop.clone();
    let socket = Socket::new(tcp, connection.switch.clone());
    let (protocol, protocol_orders) = mpsc::channel(1);
    let mut serving = Box::pin(serve(socket, connection.clone(), protocol_orders));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // The sender lives in the registry until `connection` is dropped.
            Some(ending) = orders.recv() => match connection.switch.throw(ending.form) {
                Thrown::HangUp => break,
                // Nobody to take it: the connection is ending already, or still in its handshake.
                Thrown::Lamed | Thrown::NotOurs => drop(protocol.try_send(ending)),
            },
            () = &mut serving => break,
        }
    }
    // The socket goes down inside, by FIN or RST as armed; only then does the connection count as closed.
    drop(serving);
    drop(connection);
}

async fn serve(socket: Socket, connection: Arc<Connection>, mut orders: mpsc::Receiver<Ending>) {
    let live = connection.live();
    let handshake = handshake(socket, &connection, &live);
    let Ok(Some(tls)) = timeout(HANDSHAKE_TIMEOUT, handshake).await else { return };
    if live.behaviour.stall == Stall::BeforeSettings {
        return std::future::pending().await;
    }
    // A GOAWAY has no place in a handshake.
    while orders.try_recv().is_ok() {}
    if tls.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
        connection.shared.books.connections_http2.add(1);
        http2::serve(tls, connection, orders, &live.behaviour).await;
    } else {
        connection.shared.books.connections_http11.add(1);
        http1::serve(tls, connection, orders, &live.behaviour).await;
    }
}

async fn handshake(mut socket: Socket, connection: &Connection, live: &Live) -> Option<Tls> {
    let books = &connection.shared.books;
    if live.behaviour.stall == Stall::AtHandshake {
        return std::future::pending().await;
    }
    if live.behaviour.stall == Stall::MidHandshake {
        connection.switch.cut_next_write();
    }
    if live.behaviour.client_auth == ClientAuth::RefuseEarly {
        books.handshakes_refused.add(1);
        refuse_early(&mut socket, live.behaviour.refusal_alert).await;
        return None;
    }
    let io = BufReader::with_capacity(READ_AHEAD, socket);
    let accept = TlsAcceptor::from(live.tls.clone()).accept(io).into_fallible();
    let tls = match accept.await {
        Ok(tls) => tls,
        Err((error, io)) => {
            // Without a word from the peer the fault was found here, by our verifier or by the library.
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                    books.handshakes_refused.add(1);
                }
                _ => books.handshakes_failed.add(1),
            }
            linger(io).await;
            return None;
        }
    };
    if still_endorsed(&tls, live) {
        match tls.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => books.handshakes_resumed.add(1),
            _ => books.handshakes_full.add(1),
        }
        Some(tls)
    } else {
        books.handshakes_refused.add(1);
        linger(tls).await;
        None
    }
}

/// A resumed handshake restores the client's certificate from the session and asks no verifier.
fn still_endorsed(tls: &Tls, live: &Live) -> bool {
    if live.behaviour.client_auth != ClientAuth::PinnedLeaf {
        return true;
    }
    let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    leaf.is_some_and(|leaf| leaf_fault(&live.endorsed, leaf, UnixTime::now()).is_none())
}

/// A plaintext alert in answer to the ClientHello: the earliest refusal that TLS has.
async fn refuse_early(socket: &mut Socket, alert: RefusalAlert) {
    const ALERT_RECORD: [u8; 5] = [21, 3, 3, 0, 2];
    const FATAL: u8 = 2;
    let mut hello = [0; 2048];
    // A peer that is gone needs no alert.
    if !matches!(socket.read(&mut hello).await, Ok(n) if n > 0) {
        return;
    }
    let mut record = ALERT_RECORD.to_vec();
    record.extend_from_slice(&[FATAL, alert.code()]);
    if socket.write_all(&record).await.is_ok() {
        linger(socket).await;
    }
}
