//! HTTP/1.1 connections without a provider, for unit tests: what the socket says is told to them.
//!
//! Owns no test.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{io::DuplexStream, task::JoinHandle};

use super::{
    Http1Body, Http1Connection, Http1Pool, Passed,
    connection::Sender,
    stream::{Signs, Watch},
};
use crate::{connection::Link, status::DialPhases, testing::link_on};

/// A socket that says what it is told to.
struct Says(Mutex<Signs>);

impl Watch for Says {
    fn signs(&self) -> Signs {
        *self.0.lock()
    }
    fn passed(&self) -> Passed {
        Passed::default()
    }
}

/// A connection in the pool, and what holds it open.
pub(crate) struct Member {
    pub(crate) link: Arc<Link>,
    says: Arc<Says>,
    sender: Sender,
    _far: DuplexStream,
    driver: Driver,
}

/// hyper's part of a connection.
enum Driver {
    /// Its task runs.
    Running { _task: JoinHandle<()> },
    /// It has not come to run yet: the connection is not ready.
    Waiting(Box<dyn FnOnce() -> JoinHandle<()> + Send>),
}

impl Member {
    pub(crate) fn says_quiet(&self) {
        *self.says.0.lock() = Signs::Quiet;
    }
    pub(crate) fn says_unread(&self) {
        *self.says.0.lock() = Signs::Unread;
    }
    pub(crate) fn says_ended(&self) {
        *self.says.0.lock() = Signs::Ended;
    }
    /// As when its task ends it.
    pub(crate) fn close(&self) {
        drop(self.sender.lock().take());
    }
    /// Its task comes to run: it will be ready.
    pub(crate) fn drive(&mut self) {
        let running = Driver::Running { _task: tokio::spawn(async {}) };
        if let Driver::Waiting(start) = std::mem::replace(&mut self.driver, running) {
            self.driver = Driver::Running { _task: start() };
        }
    }
}

/// A connection of this worker that is ready for a request.
pub(crate) async fn member_on(pool: &Http1Pool, worker: usize) -> Member {
    let mut member = unready_on(pool, worker).await;
    member.drive();
    while !member.sender.lock().as_ref().is_some_and(|sender| sender.is_ready()) {
        tokio::task::yield_now().await;
    }
    member
}

/// A connection whose task has not come to run.
pub(crate) async fn unready_on(pool: &Http1Pool, worker: usize) -> Member {
    let (near, far) = tokio::io::duplex(64);
    let (sender, connection) =
        hyper::client::conn::http1::handshake::<_, Http1Body>(TokioIo::new(near)).await.unwrap();
    let start = move || tokio::spawn(async move { drop(connection.await) });
    let link = link_on(worker, 1, 1);
    link.proved(DialPhases::default());
    let says = Arc::new(Says(Mutex::new(Signs::Quiet)));
    let sender: Sender = Arc::new(Mutex::new(Some(sender)));
    pool.add(Http1Connection::new(sender.clone(), says.clone(), link.clone()));
    Member { link, says, sender, _far: far, driver: Driver::Waiting(Box::new(start)) }
}
