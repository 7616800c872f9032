//! Owns the life of the server: listening, accepting, live changes, the end. It does not own what happens on a
//! connection.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::behaviour::{Behaviour, GoAwayForm};
use crate::door::{AddressLedger, Door, Listening};
use crate::ending::Ending;
use crate::ledger::{Account, Books, Ledger};
use crate::registry::{Registry, Target};
use crate::tls::{Endorsed, Sessions, server_config};
use crate::{Pki, SimError, serve};

/// How often another free port is tried when the one of the first address is taken at a further one.
const PORT_ATTEMPTS: u32 = 20;
/// Out of file descriptors lasts a while; do not spin on it.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// Response bodies are slices of one shared block.
const FILLER_BYTES: usize = 64 * 1024;

/// What [`Simulator::start`] needs.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// Where to listen. Default `127.0.0.1:0`: loopback, a free port.
    pub listen: SocketAddr,
    /// Further addresses to listen on, with the same port, such as 127.0.0.2 and 127.0.0.3. Default: none.
    pub also_listen: Vec<IpAddr>,
    /// The server's certificates.
    pub pki: Arc<Pki>,
    /// The client certificates that are let in. Default: none.
    pub endorsed: Vec<Endorsed>,
    /// How to behave. Default: [`Behaviour::default`].
    pub behaviour: Behaviour,
    /// Makes jitter, spikes and random targets repeatable. Default 0.
    pub seed: u64,
}

impl SimulatorOptions {
    /// The defaults with these certificates.
    pub fn new(pki: Arc<Pki>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            also_listen: Vec::new(),
            pki,
            endorsed: Vec::new(),
            behaviour: Behaviour::default(),
            seed: 0,
        }
    }
}

/// A running provider. Dropping it stops it without waiting; [`stop`](Self::stop) waits.
pub struct Simulator {
    shared: Arc<Shared>,
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
        let doors = open_doors(&options)?;
        let sessions = Sessions::new();
        let endorsed = Arc::new(options.endorsed);
        let tls = server_config(&options.pki, &options.behaviour, &endorsed, &sessions)?;
        let live = Live { behaviour: options.behaviour, pki: options.pki, endorsed, sessions, tls };
        let shared = Arc::new(Shared {
            books: Arc::new(Books::default()),
            live: watch::Sender::new(Arc::new(live)),
            registry: Registry::new(options.seed),
            doors,
            changing: Mutex::new(()),
            connections: AtomicU64::new(0),
            stop: CancellationToken::new(),
            filler: Bytes::from(vec![b'.'; FILLER_BYTES]),
            seed: options.seed,
            tasks: TaskTracker::new(),
        });
        for door in &shared.doors {
            shared.tasks.spawn(accept_loop(door.clone(), shared.clone()));
        }
        Ok(Self { shared })
    }

    /// Where it listens; with several addresses the first.
    pub fn addr(&self) -> SocketAddr {
        self.shared.doors[0].addr
    }

    /// All addresses that it listens on, in the order of [`SimulatorOptions`]. The port is the same.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.shared.doors.iter().map(|door| door.addr).collect()
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
        self.shared.change(|live| live.behaviour = behaviour)
    }

    /// Endorses one more client certificate. Open connections and tickets stay.
    ///
    /// # Errors
    /// [`SimError::Tls`], which a running server has already proven not to happen.
    pub fn endorse(&self, endorsed: Endorsed) -> Result<(), SimError> {
        self.shared.change(|live| Arc::make_mut(&mut live.endorsed).push(endorsed))
    }

    /// Replaces the list of endorsed client certificates. Tickets of before are worth nothing any more; open
    /// connections stay, as they do at the provider.
    ///
    /// # Errors
    /// As [`endorse`](Self::endorse).
    pub fn set_endorsed(&self, endorsed: Vec<Endorsed>) -> Result<(), SimError> {
        self.shared.change(|live| {
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
        self.shared.change(|live| {
            live.pki = pki;
            live.sessions = Sessions::new();
        })
    }

    /// Forgets all sessions: the next handshakes are full.
    ///
    /// # Errors
    /// As [`endorse`](Self::endorse).
    pub fn forget_sessions(&self) -> Result<(), SimError> {
        self.shared.change(|live| live.sessions = Sessions::new())
    }

    /// The books now.
    pub fn ledger(&self) -> Ledger {
        self.shared.books.snapshot()
    }

    /// What one address has seen; nothing for an address that it does not listen on.
    pub fn address_ledger(&self, address: IpAddr) -> AddressLedger {
        self.shared.door(address).map(|door| door.ledger()).unwrap_or_default()
    }

    /// How often a request with this `x-correlation-id` was processed. The last million ids are remembered.
    pub fn seen(&self, correlation_id: &str) -> u32 {
        self.account(correlation_id).processed
    }

    /// How often a request with this `x-correlation-id` arrived, and how often it was processed. One that was
    /// refused, ignored or disowned by GOAWAY arrived, and was not processed. The last million ids are
    /// remembered, in at most 32 MiB.
    pub fn account(&self, correlation_id: &str) -> Account {
        self.shared.books.account(correlation_id)
    }

    /// Correlation ids that were processed more than once, sorted; at most 10,000.
    pub fn duplicated(&self) -> Vec<String> {
        self.shared.books.duplicated()
    }

    /// Resets every open TCP connection, handshakes too. The listener stays.
    pub fn kill_connections(&self) {
        self.end(Target::All, GoAwayForm::Reset);
    }

    /// Sends GOAWAY on every open HTTP/2 connection, in the form that the behaviour says; HTTP/1.1 connections
    /// end after the response at hand.
    pub fn goaway_all(&self) {
        self.end(Target::All, self.behaviour().goaway_form);
    }

    /// Ends connections in this form, with the code and debug data of the behaviour. Returns how many were
    /// told. The forms without GOAWAY reach handshakes too, and connections that are ending already.
    pub fn end(&self, target: Target, form: GoAwayForm) -> usize {
        self.shared.end(target, form)
    }

    /// Accepts, or not, or refuses new connections, at all addresses. Open ones stay. Takes effect before it
    /// returns; the port stays reserved while connections are refused.
    ///
    /// # Errors
    /// [`SimError::Listen`] if the port cannot be listened on again.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO enabled.
    pub fn set_listening(&self, listening: Listening) -> Result<(), SimError> {
        self.shared.set_listening(None, listening)
    }

    /// The same at one address. Does nothing for an address that it does not listen on.
    ///
    /// # Errors
    /// As [`set_listening`](Self::set_listening).
    ///
    /// # Panics
    /// As [`set_listening`](Self::set_listening).
    pub fn set_listening_at(&self, address: IpAddr, listening: Listening) -> Result<(), SimError> {
        self.shared.set_listening(Some(address), listening)
    }

    /// What becomes of new connections now, at the first address.
    pub fn listening(&self) -> Listening {
        self.shared.doors[0].listening()
    }

    /// Goes away and comes back on the same port: refuses new connections, resets all open ones, waits, and
    /// accepts again with empty session memory, as a new process would.
    ///
    /// # Errors
    /// As [`set_listening`](Self::set_listening).
    ///
    /// # Cancel safety
    /// Dropping the future leaves it away.
    pub async fn restart(&self, down: Duration) -> Result<(), SimError> {
        self.shared.restart(down).await
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
            .field("addr", &self.addr())
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
    pub(crate) pki: Arc<Pki>,
    pub(crate) sessions: Arc<Sessions>,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) books: Arc<Books>,
    pub(crate) live: watch::Sender<Arc<Live>>,
    pub(crate) registry: Registry,
    pub(crate) stop: CancellationToken,
    pub(crate) filler: Bytes,
    pub(crate) seed: u64,
    pub(crate) tasks: TaskTracker,
    /// Never empty.
    doors: Vec<Arc<Door>>,
    /// One change at a time: a change reads, edits and publishes.
    changing: Mutex<()>,
    /// Accepted so far, over all addresses.
    connections: AtomicU64,
}

impl Shared {
    pub(crate) fn change(&self, edit: impl FnOnce(&mut Live)) -> Result<(), SimError> {
        let _one_at_a_time = self.changing.lock();
        let mut live = Live::clone(&self.live.borrow());
        edit(&mut live);
        live.tls = server_config(&live.pki, &live.behaviour, &live.endorsed, &live.sessions)?;
        self.live.send_replace(Arc::new(live));
        Ok(())
    }

    pub(crate) fn end(&self, target: Target, form: GoAwayForm) -> usize {
        let ending = Ending::in_form(&self.live.borrow().behaviour, form);
        self.registry.order(target, &ending)
    }

    pub(crate) fn set_listening(&self, at: Option<IpAddr>, listening: Listening) -> Result<(), SimError> {
        for door in self.doors.iter().filter(|door| at.is_none_or(|at| door.addr.ip() == at)) {
            door.set(listening).map_err(|source| SimError::Listen { addr: door.addr, source })?;
        }
        Ok(())
    }

    pub(crate) async fn restart(&self, down: Duration) -> Result<(), SimError> {
        self.set_listening(None, Listening::Refusing)?;
        self.end(Target::All, GoAwayForm::Reset);
        self.change(|live| live.sessions = Sessions::new())?;
        tokio::time::sleep(down).await;
        self.set_listening(None, Listening::Accepting)
    }

    fn door(&self, address: IpAddr) -> Option<&Arc<Door>> {
        self.doors.iter().find(|door| door.addr.ip() == address)
    }
}

/// All addresses with one port. A port that the system chose for the first may be taken at another.
fn open_doors(options: &SimulatorOptions) -> Result<Vec<Arc<Door>>, SimError> {
    let attempts = if options.listen.port() == 0 { PORT_ATTEMPTS } else { 1 };
    let mut attempt = 1;
    loop {
        match open_doors_once(options) {
            Err(SimError::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && attempt < attempts =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn open_doors_once(options: &SimulatorOptions) -> Result<Vec<Arc<Door>>, SimError> {
    let open = |addr| Door::open(addr).map(Arc::new).map_err(|source| SimError::Listen { addr, source });
    let mut doors = vec![open(options.listen)?];
    for &address in &options.also_listen {
        doors.push(open(SocketAddr::new(address, doors[0].addr.port()))?);
    }
    Ok(doors)
}

async fn accept_loop(door: Arc<Door>, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            accepted = door.accept() => accepted,
        };
        match accepted {
            Ok(tcp) => spawn_connection(tcp, &door, &shared),
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

fn spawn_connection(tcp: TcpStream, door: &Arc<Door>, shared: &Arc<Shared>) {
    // Best effort: without it responses are only slower.
    let _ = tcp.set_nodelay(true);
    let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    // Registered here and not in the task, so that no order after `accept` is missed.
    let orders = shared.registry.enter(number, door.addr.ip());
    let connection = serve::Connection::new(number, shared.clone(), door.clone());
    shared.tasks.spawn(serve::run(tcp, connection, orders));
}
