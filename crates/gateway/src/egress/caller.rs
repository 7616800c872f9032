//! One connection of a caller: who it is, where it stands between two requests.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use super::{callers::Share, core::Core};
use crate::telemetry::{CallerProtocol, RecorderHandle};

/// What every request of one connection shares.
pub(super) struct Caller {
    pub(super) core: Arc<Core>,
    pub(super) recorder: RecorderHandle,
    /// `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) share: Share,
    pub(super) protocol: CallerProtocol,
    pub(super) phase: Arc<Phase>,
}

impl Caller {
    /// HTTP/1.1 (or 1.0): one request at a time.
    pub(super) fn is_http1(&self) -> bool {
        self.protocol == CallerProtocol::Http11
    }
}

/// Where a connection stands: decides which time limit holds. Shared by the reader and the requests.
#[derive(Debug)]
pub(super) struct Phase {
    at: AtomicU8,
    /// The body of the request under way broke the form of HTTP/1.1.
    malformed: AtomicBool,
}

/// The phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum At {
    /// Accepted; no byte has come.
    Fresh,
    /// Between two requests.
    Idle,
    /// A request's header has begun.
    Head,
    /// A request is under way, or the protocol watches over itself (HTTP/2).
    Busy,
}

impl Phase {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { at: AtomicU8::new(At::Fresh as u8), malformed: AtomicBool::new(false) })
    }

    pub(super) fn at(&self) -> At {
        match self.at.load(Ordering::Relaxed) {
            0 => At::Fresh,
            1 => At::Idle,
            2 => At::Head,
            _ => At::Busy,
        }
    }

    fn set(&self, at: At) {
        self.at.store(at as u8, Ordering::Relaxed);
    }

    /// Bytes arrived. Returns whether a request's header begins with them.
    pub(super) fn bytes_arrived(&self) -> bool {
        let begins = matches!(self.at(), At::Fresh | At::Idle);
        if begins {
            self.set(At::Head);
        }
        begins
    }

    /// A request's header is complete.
    pub(super) fn exchange_began(&self) {
        self.set(At::Busy);
    }

    /// The request's body is not what HTTP/1.1 allows; nothing can follow it on this connection.
    pub(super) fn body_malformed(&self) {
        self.malformed.store(true, Ordering::Relaxed);
    }

    /// Whether it is not.
    pub(super) fn is_body_malformed(&self) -> bool {
        self.malformed.load(Ordering::Relaxed)
    }

    /// The exchange is over; on HTTP/1.1 the next request may begin.
    pub(super) fn exchange_ended(&self) {
        self.set(At::Idle);
    }
}
