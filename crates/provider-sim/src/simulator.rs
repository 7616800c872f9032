//! Owns the life of the server: listening, accepting, live changes, the end. It does not own what happens on a
//! connection.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::behaviour::Behaviour;
use crate::ledger::{Books, Ledger};
use crate::tls::{Endorsed, Sessions, server_config};
use crate::{Pki, SimError, serve};

/// As nginx: its `listen … backlog` default on Linux is 511; twice that survives a reconnect storm.
const BACKLOG: u32 = 1024;
/// Out of file descriptors lasts a while; do not spin on it.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// Response bodies are slices of one shared block.
const FILLER_BYTES: usize = 64 * 1024;

/// What [`Simulator::start`] needs.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// Where to listen. Default `127.0.0.1:0`: loopback, a free port.
    pub listen: SocketAddr,
    /// The server's certificates.
    pub pki: Arc<Pki>,
    /// The client certificates that are let in. Default: none.
    pub endorsed: Vec<Endorsed>,
    /// How to behave. Default: [`Behaviour::default`].
    pub behaviour: Behaviour,
    /// Makes latency jitter repeatable. Default 0.
    pub seed: u64,
}

impl SimulatorOptions {
    /// The defaults with these certificates.
    pub fn new(pki: Arc<Pki>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            pki,
            endorsed: Vec::new(),
            behaviour: Behaviour::default(),
            seed: 0,
        }
    }
}

/// A running provider. Dropping it stops it without waiting; [`stop`](Self::stop) waits.
pub struct Simulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// One change at a time: a change reads, edits and publishes.
    changing: Mutex<()>,
}

impl Simulator {
    /// Listens and serves on the current tokio runtime.
    ///
    /// # Errors
    /// [`SimError::Listen`] if the address is taken, [`SimError::Tls`] if the server's key cannot sign,
    /// [`SimError::Behaviour`] if a value is out of range.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO and time enabled.
    pub async fn start(options: SimulatorOptions) -> Result<Self, SimError> {
        options.behaviour.validate()?;
        let listener =
            listen(options.listen).map_err(|source| SimError::Listen { addr: options.listen, source })?;
        let addr =
            listener.local_addr().map_err(|source| SimError::Listen { addr: options.listen, source })?;
        let sessions = Sessions::new();
        let endorsed = Arc::new(options.endorsed);
        let tls = server_config(&options.pki, &options.behaviour, &endorsed, &sessions)?;
        let live = Live { behaviour: options.behaviour, pki: options.pki, endorsed, sessions, tls };
        let shared = Arc::new(Shared {
            books: Arc::new(Books::default()),
            live: watch::Sender::new(Arc::new(live)),
            signals: watch::Sender::new(Signals::default()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            filler: Bytes::from(vec![b'.'; FILLER_BYTES]),
            seed: options.seed,
        });
        shared.tasks.spawn(accept_loop(listener, shared.clone()));
        Ok(Self { addr, shared, changing: Mutex::new(()) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The behaviour now.
    pub fn behaviour(&self) -> Behaviour {
        self.shared.live.borrow().behaviour.clone()
    }

    /// Replaces the behaviour. What applies to whom is said at [`Behaviour`].
    ///
    /// # Errors
    /// [`SimError::Behaviour`] if a value is out of range; nothing has changed then.
    pub fn set_behaviour(&self, behaviour: Behaviour) -> Result<(), SimError> {
        behaviour.validate()?;
        self.change(|live| live.behaviour = behaviour)
    }

    /// Endorses one more client certificate. Open connections and tickets stay.
    ///
    /// # Errors
    /// [`SimError::Tls`], which a running server has already proven not to happen.
    pub fn endorse(&self, endorsed: Endorsed) -> Result<(), SimError> {
        self.change(|live| Arc::make_mut(&mut live.endorsed).push(endorsed))
    }

    /// Replaces the list of endorsed client certificates. Tickets of before are worth nothing any more; open
    /// connections stay, as they do at the provider.
    ///
    /// # Errors
    /// As [`endorse`](Self::endorse).
    pub fn set_endorsed(&self, endorsed: Vec<Endorsed>) -> Result<(), SimError> {
        self.change(|live| {
            live.endorsed = Arc::new(endorsed);
            live.sessions = Sessions::new();
        })
    }

    /// Serves new connections with other certificates: the provider's own rotation. Tickets of before are worth
    /// nothing any more.
    ///
    /// # Errors
    /// [`SimError::Tls`] if the new server key cannot sign.
    pub fn set_pki(&self, pki: Arc<Pki>) -> Result<(), SimError> {
        self.change(|live| {
            live.pki = pki;
            live.sessions = Sessions::new();
        })
    }

    /// Forgets all sessions: the next handshakes are full.
    ///
    /// # Errors
    /// As [`endorse`](Self::endorse).
    pub fn forget_sessions(&self) -> Result<(), SimError> {
        self.change(|live| live.sessions = Sessions::new())
    }

    /// The books now.
    pub fn ledger(&self) -> Ledger {
        self.shared.books.snapshot()
    }

    /// How often a request with this `x-correlation-id` was processed. The last 200,000 ids are remembered.
    pub fn seen(&self, correlation_id: &str) -> u32 {
        self.shared.books.seen(correlation_id)
    }

    /// Correlation ids that were processed more than once, sorted; at most 10,000.
    pub fn duplicated(&self) -> Vec<String> {
        self.shared.books.duplicated()
    }

    /// Resets every open TCP connection, handshakes too. The listener stays.
    pub fn kill_connections(&self) {
        self.shared.signals.send_modify(|signals| signals.kills += 1);
    }

    /// Sends GOAWAY on every open HTTP/2 connection, in the form that the behaviour says; HTTP/1.1 connections
    /// end after the response at hand.
    pub fn goaway_all(&self) {
        self.shared.signals.send_modify(|signals| signals.goaways += 1);
    }

    /// Closes the listener and all connections, and waits until they are gone. The address is free afterwards.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the server stopping.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn change(&self, edit: impl FnOnce(&mut Live)) -> Result<(), SimError> {
        let _one_at_a_time = self.changing.lock();
        let mut live = Live::clone(&self.shared.live.borrow());
        edit(&mut live);
        live.tls = server_config(&live.pki, &live.behaviour, &live.endorsed, &live.sessions)?;
        self.shared.live.send_replace(Arc::new(live));
        Ok(())
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("addr", &self.addr)
            .field("ledger", &self.ledger())
            .finish_non_exhaustive()
    }
}

/// What can change while the server runs; replaced as a whole.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) behaviour: Behaviour,
    pub(crate) endorsed: Arc<Vec<Endorsed>>,
    pub(crate) tls: Arc<ServerConfig>,
    pki: Arc<Pki>,
    sessions: Arc<Sessions>,
}

/// Orders to all connections; each compares with what it saw last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signals {
    pub(crate) kills: u64,
    pub(crate) goaways: u64,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) books: Arc<Books>,
    pub(crate) live: watch::Sender<Arc<Live>>,
    pub(crate) signals: watch::Sender<Signals>,
    pub(crate) stop: CancellationToken,
    pub(crate) filler: Bytes,
    pub(crate) seed: u64,
    tasks: TaskTracker,
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart on the same port must not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

async fn accept_loop(listener: TcpListener, shared: Arc<Shared>) {
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, _)) => {
                number += 1;
                spawn_connection(tcp, number, &shared);
            }
            Err(error) => {
                tracing::warn!(%error, "the simulated provider cannot accept");
                tokio::select! {
                    biased;
                    () = shared.stop.cancelled() => return,
                    () = tokio::time::sleep(ACCEPT_BACK_OFF) => {}
                }
            }
        }
    }
}

fn spawn_connection(tcp: TcpStream, number: u64, shared: &Arc<Shared>) {
    // Best effort: without it responses are only slower.
    let _ = tcp.set_nodelay(true);
    // Subscribed here and not in the task, so that no signal after `accept` is missed.
    let signals = shared.signals.subscribe();
    let connection = serve::Connection::new(number, shared.clone());
    shared.tasks.spawn(serve::run(tcp, connection, signals));
}
