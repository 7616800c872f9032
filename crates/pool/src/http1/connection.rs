//! One HTTP/1.1 connection as bb8 lends it: hyper's sender, what the socket says, its link.
//!
//! Owns nothing of its life: the task in `life` drives it, and the supervisor decides when it goes.

use std::{sync::Arc, task::Poll, time::Duration};

use bb8::PooledConnection;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::SendRequest},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Manager,
    stream::{Passed, Probe, Signs},
};
use crate::{
    connection::{Link, State},
    passport::Counted,
    send::BoxError,
    status::CauseOfDeath,
};

/// The request body type of the HTTP/1.1 path; the hot path (HTTP/2) boxes nothing.
pub(crate) type Http1Body = UnsyncBoxBody<Bytes, BoxError>;

/// hyper's sender; taken out when the connection is to close.
pub(super) type Sender = Arc<Mutex<Option<SendRequest<Http1Body>>>>;

/// How long something unread on an idle connection may take to turn out harmless (a late ticket).
const SETTLING: Duration = Duration::from_millis(2);
/// How long hyper may take to be ready again after an exchange that has ended.
const READYING: Duration = Duration::from_millis(100);

/// A connection that bb8 lends.
pub(crate) struct Http1Connection {
    sender: Sender,
    probe: Arc<Probe<Counted>>,
    link: Arc<Link>,
}

impl Http1Connection {
    pub(super) fn new(sender: Sender, probe: Arc<Probe<Counted>>, link: Arc<Link>) -> Self {
        Self { sender, probe, link }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// It must not be lent again: closed, retired, or left in the middle of an exchange.
    pub(super) fn is_spent(&self) -> bool {
        self.link.state() != State::Serving || self.sender.lock().as_ref().is_none_or(SendRequest::is_closed)
    }

    /// The socket says that it ended, whether or not its task has come to notice.
    pub(super) fn has_ended(&self) -> bool {
        self.probe.signs() == Signs::Ended
    }
}

/// Whether a connection on loan can carry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// It can.
    Fit,
    /// The provider closed it while it was idle.
    Ended,
    /// Something arrived that nobody asked for, or the last exchange will not end.
    Spoilt,
}

/// A connection on loan: it goes back to bb8 when this is dropped, and is lent again unless it was retired.
pub(crate) struct Loan {
    connection: PooledConnection<'static, Manager>,
}

impl Loan {
    pub(super) fn new(connection: PooledConnection<'static, Manager>) -> Self {
        Self { connection }
    }

    fn link(&self) -> &Link {
        self.connection.link()
    }

    /// Looks before it is used: is it open, and has nothing arrived that nobody asked for?
    ///
    /// # Cancel safety
    /// Looks only.
    pub(crate) async fn fitness(&self) -> Fitness {
        let began = Instant::now();
        loop {
            match self.connection.probe.signs() {
                Signs::Quiet => break,
                Signs::Ended => return Fitness::Ended,
                Signs::Unread if began.elapsed() > SETTLING => return Fitness::Spoilt,
                // Its task reads it: a ticket is harmless, anything else ends the connection.
                Signs::Unread => tokio::task::yield_now().await,
            }
        }
        let ready = std::future::poll_fn(|cx| match self.connection.sender.lock().as_mut() {
            Some(sender) => sender.poll_ready(cx).map(|ready| ready.is_ok()),
            None => Poll::Ready(false),
        });
        match tokio::time::timeout(READYING, ready).await {
            Ok(true) if self.link().state() == State::Serving => Fitness::Fit,
            Ok(_) => Fitness::Ended,
            Err(_) => Fitness::Spoilt,
        }
    }

    /// What passed on it so far.
    pub(crate) fn passed(&self) -> Passed {
        self.connection.probe.passed()
    }

    /// Hands a request to hyper; `Err` gives it back where the connection is closing.
    pub(crate) fn send(
        &self,
        request: Request<Http1Body>,
    ) -> Result<impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Http1Body>>>>, ()> {
        self.connection.sender.lock().as_mut().map(|sender| sender.try_send_request(request)).ok_or(())
    }

    /// It carries nothing more, for this reason.
    pub(crate) fn retire(&self, cause: CauseOfDeath) {
        self.link().retire(cause, Instant::now());
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Its task may wait for nothing but the end of this loan. The permit went back just before.
        if self.connection.is_spent() {
            self.link().wake_driver();
        }
    }
}
