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
    stream::{Passed, Signs, Watch},
};
use crate::{
    connection::{Link, State, Trust},
    send::BoxError,
    status::CauseOfDeath,
};

/// The request body type of the HTTP/1.1 path; the hot path (HTTP/2) boxes nothing.
pub(crate) type Http1Body = UnsyncBoxBody<Bytes, BoxError>;

/// hyper's sender; taken out when the connection is to close.
pub(super) type Sender = Arc<Mutex<Option<SendRequest<Http1Body>>>>;

/// So long after it was first found not to be ready, an exchange that has ended will not let go of its connection.
const ENDLESS: Duration = Duration::from_secs(1);

/// A connection that bb8 lends.
pub(crate) struct Http1Connection {
    sender: Sender,
    watch: Arc<dyn Watch>,
    link: Arc<Link>,
    /// Since when its last exchange, which has ended, has not let go of it.
    lingers: Arc<Mutex<Option<Instant>>>,
    place: Place,
}

/// Whether bb8 has the connection here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here,
    /// It was put onto another shelf; what is left here is let go.
    Elsewhere,
}

impl Http1Connection {
    pub(super) fn new(sender: Sender, watch: Arc<dyn Watch>, link: Arc<Link>) -> Self {
        Self { sender, watch, link, lingers: Arc::default(), place: Place::Here }
    }

    /// The connection, to be put onto another shelf. What stays behind is spent.
    pub(super) fn take_along(&mut self) -> Self {
        self.place = Place::Elsewhere;
        Self {
            sender: self.sender.clone(),
            watch: self.watch.clone(),
            link: self.link.clone(),
            lingers: self.lingers.clone(),
            place: Place::Here,
        }
    }

    /// It is lent only when there is no other: its budget is used up, so that the provider may close it with the next
    /// request, or it may have lost touch with the provider.
    pub(super) fn is_last_resort(&self) -> bool {
        self.link.is_spent() || self.link.vitals().trust() == Trust::Doubted
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// It must not be lent again: closed, retired, or left in the middle of an exchange.
    pub(super) fn is_spent(&self) -> bool {
        self.place == Place::Elsewhere
            || self.link.state() != State::Serving
            || self.sender.lock().as_ref().is_none_or(SendRequest::is_closed)
    }

    /// The socket says that it ended, whether or not its task has come to notice.
    pub(super) fn has_ended(&self) -> bool {
        self.watch.signs() == Signs::Ended
    }
}

/// Whether a connection on loan can carry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// It can.
    Fit,
    /// Not yet: something has arrived that its own task has not read (a late ticket, say), or the last bytes of the
    /// exchange before have not left. Nothing is wrong with it.
    Unready,
    /// The provider closed it while it was idle.
    Ended,
    /// It was retired meanwhile.
    Retired,
    /// The exchange before has ended, and does not let go of it.
    Lingering,
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

    /// Looks before it is used: is it open, and has nothing arrived that nobody asked for? Whatever arrived, its own
    /// task reads it: a ticket is harmless, anything else ends the connection.
    pub(crate) fn fitness(&self) -> Fitness {
        match self.connection.watch.signs() {
            Signs::Quiet => {}
            Signs::Ended => return Fitness::Ended,
            Signs::Unread => return Fitness::Unready,
        }
        if self.link().state() != State::Serving {
            return Fitness::Retired;
        }
        let ready = match self.connection.sender.lock().as_ref() {
            Some(sender) if !sender.is_closed() => sender.is_ready(),
            _ => return Fitness::Ended,
        };
        let mut lingers = self.connection.lingers.lock();
        if ready {
            *lingers = None;
            return Fitness::Fit;
        }
        let now = Instant::now();
        let since = *lingers.get_or_insert(now);
        if now.saturating_duration_since(since) < ENDLESS { Fitness::Unready } else { Fitness::Lingering }
    }

    /// Waits until the exchange before has let go of it, or it has closed. What else makes it unready does not say when
    /// it ends: that is waited for without end.
    ///
    /// # Cancel safety
    /// Waits only.
    pub(crate) async fn let_go(&self) {
        if self.connection.sender.lock().as_ref().is_some_and(SendRequest::is_ready) {
            return std::future::pending().await;
        }
        std::future::poll_fn(|cx| match self.connection.sender.lock().as_mut() {
            Some(sender) => sender.poll_ready(cx).map(drop),
            None => Poll::Ready(()),
        })
        .await;
    }

    /// What passed on it so far.
    pub(crate) fn passed(&self) -> Passed {
        self.connection.watch.passed()
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
