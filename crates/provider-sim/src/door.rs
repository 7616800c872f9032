//! Owns one listening address: accepting, not accepting, refusing, and the same port again afterwards. It does
//! not own the connections.

use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::ledger::Count;

/// As nginx: its `listen … backlog` default on Linux is 511; twice that survives a reconnect storm.
const BACKLOG: u32 = 1024;

/// What becomes of new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listening {
    /// They are accepted.
    #[default]
    Accepting,
    /// The system completes TCP's handshake, and nobody takes them: no byte ever comes.
    Backlogged,
    /// They are refused.
    Refusing,
}

/// What one listening address has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AddressLedger {
    /// TCP connections accepted.
    pub connections_accepted: u64,
    /// TCP connections open now.
    pub connections_open: u64,
    /// Requests taken up for processing.
    pub requests: u64,
}

pub(crate) struct Door {
    pub(crate) addr: SocketAddr,
    state: Mutex<State>,
    changed: Notify,
    /// Bound and never listening, so that the port stays ours while the listener is gone. Where the system does
    /// not allow it, the port may be taken meanwhile.
    _reservation: Option<TcpSocket>,
    pub(crate) accepted: Count,
    pub(crate) open: Count,
    pub(crate) requests: Count,
}

struct State {
    listening: Listening,
    /// None while refusing.
    listener: Option<TcpListener>,
}

impl Door {
    pub(crate) fn open(addr: SocketAddr) -> io::Result<Self> {
        let reserved = bound(addr)?;
        let addr = reserved.local_addr()?;
        let (listener, reservation) = match listen(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                drop(reserved);
                (listen(addr)?, None)
            }
            listener => (listener?, Some(reserved)),
        };
        let state = State { listening: Listening::Accepting, listener: Some(listener) };
        Ok(Self {
            addr,
            state: Mutex::new(state),
            changed: Notify::new(),
            _reservation: reservation,
            accepted: Count::default(),
            open: Count::default(),
            requests: Count::default(),
        })
    }

    pub(crate) fn listening(&self) -> Listening {
        self.state.lock().listening
    }

    /// Takes effect at once: when it returns, connections are refused, or not.
    pub(crate) fn set(&self, listening: Listening) -> io::Result<()> {
        let mut state = self.state.lock();
        match listening {
            Listening::Refusing => state.listener = None,
            Listening::Accepting | Listening::Backlogged if state.listener.is_none() => {
                state.listener = Some(listen(self.addr)?);
            }
            Listening::Accepting | Listening::Backlogged => {}
        }
        state.listening = listening;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next connection. Waits while none is accepted.
    ///
    /// Cancel safe: a connection that is not returned stays in the backlog.
    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        loop {
            let accepted = std::future::poll_fn(|cx| match &*self.state.lock() {
                State { listening: Listening::Accepting, listener: Some(listener) } => {
                    listener.poll_accept(cx).map_ok(|(tcp, _)| tcp)
                }
                _ => Poll::Pending,
            });
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                accepted = accepted => return accepted,
            }
        }
    }

    pub(crate) fn ledger(&self) -> AddressLedger {
        AddressLedger {
            connections_accepted: self.accepted.get(),
            connections_open: self.open.get(),
            requests: self.requests.get(),
        }
    }
}

fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart on the same port must not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    bound(addr)?.listen(BACKLOG)
}
