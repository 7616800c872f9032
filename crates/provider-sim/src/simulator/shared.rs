//! Owns the state that all connections share, the listening and accepting, and how live changes are made. It
//! does not own what happens on a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
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

use super::SimulatorOptions;
use crate::behaviour::{Behaviour, GoAwayForm};
use crate::door::{Door, Listening};
use crate::ending::Ending;
use crate::ledger::Books;
use crate::registry::{Registry, Target};
use crate::script::Rotation;
use crate::tls::{Endorsed, Sessions, server_config};
use crate::{Pki, SimError, serve};

/// How often another free port is tried when the one of the first address is taken at a further one.
const PORT_ATTEMPTS: u32 = 20;
/// Out of file descriptors lasts a while; do not spin on it.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// Response bodies are slices of one shared block.
const FILLER_BYTES: usize = 64 * 1024;

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
    /// Listens and accepts.
    pub(super) fn start(options: SimulatorOptions) -> Result<Arc<Self>, SimError> {
        let doors = open_doors(&options)?;
        let sessions = Sessions::new();
        let endorsed = Arc::new(options.endorsed);
        let tls = server_config(&options.pki, &options.behaviour, &endorsed, &sessions)?;
        let live = Live { behaviour: options.behaviour, pki: options.pki, endorsed, sessions, tls };
        let shared = Arc::new(Self {
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
        Ok(shared)
    }

    /// Never empty.
    pub(super) fn doors(&self) -> &[Arc<Door>] {
        &self.doors
    }

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

    /// The first half of a restart: refuses, resets, forgets.
    pub(crate) fn leave(&self) -> Result<(), SimError> {
        self.set_listening(None, Listening::Refusing)?;
        self.end(Target::All, GoAwayForm::Reset);
        self.forget_sessions()
    }

    pub(super) async fn restart(&self, down: Duration) -> Result<(), SimError> {
        self.leave()?;
        tokio::time::sleep(down).await;
        self.set_listening(None, Listening::Accepting)
    }

    pub(crate) fn forget_sessions(&self) -> Result<(), SimError> {
        self.change(|live| live.sessions = Sessions::new())
    }

    pub(crate) fn rotate(&self, rotation: Rotation) -> Result<Arc<Pki>, SimError> {
        let present = self.live.borrow().pki.clone();
        let pki = Arc::new(match rotation {
            Rotation::Leaf => present.rotated()?,
            Rotation::Authority => present.replaced()?,
        });
        self.change(|live| {
            live.pki = pki.clone();
            live.sessions = Sessions::new();
        })?;
        Ok(pki)
    }

    pub(super) fn door(&self, address: IpAddr) -> Option<&Arc<Door>> {
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
