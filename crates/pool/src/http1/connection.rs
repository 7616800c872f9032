//! One HTTP/1.1 connection: hyper's sender, its driver task, its link.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{task::AbortHandle, time::Instant};

use super::stream::Listening;
use crate::{
    connection::{Link, State},
    dial::Transport,
    passport::Buried,
    send::BoxError,
    status::CauseOfDeath,
    supervisor::Context,
};

/// The request body type of the HTTP/1.1 path; the hot path (HTTP/2) boxes nothing.
pub(crate) type Http1Body = UnsyncBoxBody<Bytes, BoxError>;

/// A connection that bb8 lends.
pub(crate) struct Http1Connection {
    sender: SendRequest<Http1Body>,
    driver: AbortHandle,
    link: Arc<Link>,
    context: Arc<Context>,
}

impl Http1Connection {
    pub(super) fn new(
        sender: SendRequest<Http1Body>,
        connection: Connection<TokioIo<Listening<Transport>>, Http1Body>,
        link: Arc<Link>,
        context: Arc<Context>,
    ) -> Self {
        let driven = link.clone();
        let reporter = context.clone();
        let driver = tokio::spawn(async move {
            // How it ended is told to the request that was under way; an idle end is a closed connection.
            let _ = connection.await;
            driven.ended(CauseOfDeath::ClosedByProvider);
            // Reported now: bb8 lets go of an idle connection only when it looks at it next.
            bury(&reporter, &driven);
        });
        Self { sender, driver: driver.abort_handle(), link, context }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn sender(&mut self) -> &mut SendRequest<Http1Body> {
        &mut self.sender
    }

    /// It must not be lent again: closed, aged, of an older generation, or left in the middle of an exchange.
    pub(super) fn is_spent(&self) -> bool {
        let now = Instant::now();
        if now >= self.link.birth.retire_at {
            self.link.retire(CauseOfDeath::Age, now);
        } else if self.link.birth.generation != self.context.hub.generation.load().serial() {
            self.link.retire(CauseOfDeath::Replaced, now);
        } else if self.context.directory.is_gone(self.link.birth.address) {
            self.link.retire(CauseOfDeath::AddressGone, now);
        } else if self.context.hub.is_stopping() {
            self.link.retire(CauseOfDeath::Stopped, now);
        }
        self.sender.is_closed() || self.link.state() != State::Serving
    }
}

impl Drop for Http1Connection {
    fn drop(&mut self) {
        self.driver.abort();
        let cause = self.link.cause().unwrap_or(CauseOfDeath::Idle);
        self.link.ended(cause);
        bury(&self.context, &self.link);
    }
}

/// Reports the end of a connection, once.
fn bury(context: &Context, link: &Link) {
    if link.bury_once() {
        context.hub.unregister(link.id());
        let cause = link.cause().unwrap_or(CauseOfDeath::ClosedByProvider);
        context.observer.closed(link.id(), cause, link.requests());
        context.bury(link, Buried { cause, detail: "", at: Instant::now() });
        context.note_gone(link, cause);
        context.hub.supervisor.notify_one();
    }
}
