//! Many requests at once, each with its own name, and what became of each.

use std::time::Duration;

use http::{Request, request};
use tokio::task::JoinSet;

use crate::{
    caller::{self, Body, Http1, Reply, full},
    lab::Lab,
    provider::Provider,
};

/// Concurrent HTTP/1.1 callers.
#[derive(Clone, Debug)]
pub struct Load {
    /// Begins every correlation identifier.
    pub name: String,
    /// Concurrent callers, one connection each.
    pub callers: usize,
    /// Requests of each.
    pub each: usize,
    /// Pause between two requests of one caller.
    pub pause: Duration,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// Path.
    pub path: String,
}

impl Load {
    /// POSTs of a hundred bytes without a pause.
    pub fn new(name: &str, callers: usize, each: usize) -> Self {
        let (name, path) = (name.to_owned(), "/load".to_owned());
        Self { name, callers, each, pause: Duration::ZERO, headers: Vec::new(), path }
    }

    /// With this field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// To this path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// With this pause between two requests of one caller.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Sends everything and waits for every reply.
    pub async fn run(&self, lab: &Lab) -> Tally {
        let mut tasks = JoinSet::new();
        for caller in 0..self.callers {
            let (load, address) = (self.clone(), lab.egress());
            tasks.spawn(async move { load.call(caller, address).await });
        }
        Tally(tasks.join_all().await.into_iter().flatten().collect())
    }

    async fn call(self, caller: usize, address: std::net::SocketAddr) -> Vec<(String, Reply)> {
        let mut connection = Http1::connect(address).await;
        let mut replies = Vec::with_capacity(self.each);
        for n in 0..self.each {
            let id = format!("{}-{caller}-{n}", self.name);
            let reply = connection.send(self.request(&id)).await;
            replies.push((id, reply));
            if !connection.is_open().await {
                connection = Http1::connect(address).await;
            }
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
        }
        replies
    }

    fn request(&self, id: &str) -> Request<Body> {
        let ask = caller::ask("POST", &self.path, id);
        let with = |ask: request::Builder, (name, value): &(&'static str, String)| ask.header(*name, value);
        self.headers.iter().fold(ask, with).body(full(vec![b'x'; 100])).expect("a request")
    }
}

/// What became of each request.
#[derive(Debug)]
pub struct Tally(pub Vec<(String, Reply)>);

impl Tally {
    /// Every request was answered 200 and processed exactly once.
    ///
    /// # Panics
    /// With the first that was not.
    pub fn assert_all_answered_once(&self, provider: &Provider) {
        for (id, reply) in &self.0 {
            assert_eq!(reply.status, 200, "{id}: {reply:?}");
            assert_eq!(provider.sim.seen(id), 1, "{id} was processed so often");
        }
        assert_eq!(provider.sim.duplicated(), Vec::<String>::new());
    }

    /// The replies that are no 200.
    pub fn failed(&self) -> impl Iterator<Item = &(String, Reply)> {
        self.0.iter().filter(|(_, reply)| reply.status != 200)
    }
}
