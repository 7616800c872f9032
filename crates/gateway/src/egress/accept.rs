//! Accepting callers: listeners, the limit on connections, survival of a full descriptor table.
//!
//! One task per listener on the control runtime; each connection is handed to the worker that serves the fewest.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pool::Workers;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{callers::Peer, connection::Server};
use crate::{
    admin,
    config::{ListenAddress, bind_fault},
    telemetry::metrics::CallerMetrics,
};

/// Pause after a failed accept, doubling up to the longest: out of descriptors must not become a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Connections the kernel holds while we are busy or at the limit.
const BACKLOG: u32 = 4096;

/// A bound egress listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix socket, for members of the file's group.
    Unix(UnixListener),
}

impl Listener {
    /// Binds. To be called inside a runtime.
    ///
    /// # Errors
    /// What is wrong with the address and how to mend it.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        let bound = match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            ListenAddress::Unix(path) => bind_unix(path).map(Self::Unix),
        };
        bound.map_err(|e| io::Error::new(e.kind(), bind_fault(address, &e)))
    }

    /// The address, for TCP.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Callers of an egress socket are other services: the file's group may use it.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = admin::bind_unix(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Hands accepted connections to workers and counts them.
pub(super) struct Acceptor {
    /// One server per worker.
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) workers: Workers,
    pub(super) load: Arc<[AtomicUsize]>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) metrics: CallerMetrics,
    pub(super) tasks: TaskTracker,
    /// Cancelled when no more connections are to be accepted.
    pub(super) stop: CancellationToken,
}

enum Accepted {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl Acceptor {
    /// Accepts until stopped.
    pub(super) async fn run(self: Arc<Self>, listener: Listener) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            // At the limit the kernel's backlog holds the rest: they wait instead of being turned away.
            let permit = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                permit = self.permit() => permit,
            };
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = accept(&listener) => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    pause = SHORTEST_PAUSE;
                    self.metrics.accepted.increment(1);
                    self.hand_over(accepted, permit);
                }
                Err(error) => {
                    self.metrics.accept_errors.increment(1);
                    tracing::warn!(%error, pause = ?pause, "cannot accept a caller; trying again after a pause");
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    }
                }
            }
        }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return permit;
        }
        self.metrics.refused.increment(1);
        tracing::warn!("limits.max_connections is reached: new callers wait in the kernel's backlog");
        // The semaphore is never closed, so this always comes to a permit.
        match self.permits.clone().acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => std::future::pending().await,
        }
    }

    fn hand_over(&self, accepted: Accepted, permit: OwnedSemaphorePermit) {
        let worker = (0..self.load.len()).min_by_key(|w| self.load[*w].load(Ordering::Relaxed)).unwrap_or(0);
        let server = self.servers[worker].clone();
        let guard = Load::take(self.load.clone(), worker, self.metrics.open.clone());
        let serve = async move {
            match accepted {
                Accepted::Tcp(stream, peer) => {
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        server.serve(stream, Peer::Tcp(peer)).await;
                    }
                }
                Accepted::Unix(stream) => {
                    if let Ok(stream) = UnixStream::from_std(stream) {
                        let uid = stream.peer_cred().map(|peer| peer.uid()).ok();
                        server.serve(stream, Peer::Unix(uid)).await;
                    }
                }
            }
            drop((guard, permit));
        };
        self.tasks.spawn_on(serve, self.workers.handle(worker));
    }
}

/// Takes one connection off the listener, detached from this runtime's reactor.
async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(stream.into_std()?, peer))
        }
        Listener::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
    }
}

/// A connection counted against its worker; returned when dropped.
struct Load {
    load: Arc<[AtomicUsize]>,
    worker: usize,
    open: metrics::Gauge,
}

impl Load {
    fn take(load: Arc<[AtomicUsize]>, worker: usize, open: metrics::Gauge) -> Self {
        load[worker].fetch_add(1, Ordering::Relaxed);
        open.increment(1.0);
        Self { load, worker, open }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.load[self.worker].fetch_sub(1, Ordering::Relaxed);
        self.open.decrement(1.0);
    }
}
