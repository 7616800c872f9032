//! A running gateway and everything that it says of itself.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use gateway::{
    outcome::ErrorCode,
    runtime::{Gateway, Stopped},
    telemetry::Condition,
};
use http::Request;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    caller::{self, Body, H2c, Http1, Raw, Reply, empty},
    metrics::Metrics,
    wait::eventually,
};

/// A gateway in this process.
pub struct Lab {
    folder: TempDir,
    gateway: Option<Gateway>,
    egress: SocketAddr,
    admin: SocketAddr,
    socket: Option<PathBuf>,
    ids: AtomicU64,
}

impl Lab {
    pub(crate) fn new(folder: TempDir, gateway: Gateway, socket: Option<PathBuf>) -> Self {
        let egress = gateway.egress_addresses()[0];
        let admin = gateway.admin_address().expect("admin listens on TCP");
        Self { folder, gateway: Some(gateway), egress, admin, socket, ids: AtomicU64::new(1) }
    }

    /// Where callers call.
    pub fn egress(&self) -> SocketAddr {
        self.egress
    }

    /// Where operators look.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The Unix socket, if one was asked for.
    pub fn socket(&self) -> &Path {
        self.socket.as_deref().expect("a plan with a Unix socket")
    }

    /// A folder that lives as long as the gateway.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A correlation identifier that no other request of this gateway has.
    pub fn id(&self) -> String {
        format!("test-{}", self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// A new HTTP/1.1 connection.
    pub async fn http1(&self) -> Http1 {
        Http1::connect(self.egress).await
    }

    /// A new HTTP/2 connection.
    pub async fn h2c(&self) -> H2c {
        H2c::connect(self.egress).await
    }

    /// A new connection for bytes.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.egress).await
    }

    /// One request on a connection of its own.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        self.http1().await.send(request).await
    }

    /// GET without anything special.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.ask("GET", path)).await
    }

    /// A request without a body.
    pub fn ask(&self, method: &str, path: &str) -> Request<Body> {
        caller::ask(method, path, &self.id()).body(empty()).expect("a request")
    }

    /// A request to the admin listener.
    pub async fn admin_get(&self, path: &str) -> Reply {
        let request = Request::get(format!("http://{}{path}", self.admin)).body(empty()).expect("a request");
        Http1::connect(self.admin).await.send(request).await
    }

    /// Waits until `/readyz` says so.
    pub async fn until_ready(&self) {
        eventually("the gateway is ready", async || {
            (self.admin_get("/readyz").await.status == 200).then_some(())
        })
        .await;
    }

    /// A scrape.
    pub async fn metrics(&self) -> Metrics {
        let reply = self.admin_get("/metrics").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        Metrics::parse(std::str::from_utf8(&reply.body).expect("UTF-8"))
    }

    /// The pool of an environment, as JSON.
    pub async fn pool(&self, environment: &str) -> Value {
        let reply = self.admin_get(&format!("/api/v1/pools?environment={environment}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["pools"][0].clone()
    }

    /// Connections of an environment in this state.
    pub async fn connections(&self, environment: &str, state: &str) -> usize {
        let pool = self.pool(environment).await;
        pool["connections"].as_array().map_or(0, |all| all.iter().filter(|c| c["state"] == state).count())
    }

    /// One of the pool's totals.
    pub async fn total(&self, environment: &str, name: &str) -> u64 {
        self.pool(environment).await["totals"][name].as_u64().expect("a total of that name")
    }

    /// The lines of the access log so far.
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The line of one request.
    pub async fn log_line(&self, id: &str) -> Value {
        eventually(&format!("a log line of {id}"), async || {
            let mut lines: Vec<_> = self.log().into_iter().filter(|l| l["correlation_id"] == id).collect();
            assert!(lines.len() <= 1, "one request, one line: {lines:?}");
            lines.pop()
        })
        .await
    }

    /// Waits until this many requests with this outcome are counted.
    pub async fn until_counted(&self, outcome: &str, count: u64) {
        eventually(&format!("{count} of {outcome}"), async || {
            (self.metrics().await.outcomes(outcome) >= count).then_some(())
        })
        .await;
        let metrics = self.metrics().await;
        assert_eq!(metrics.outcomes(outcome), count, "{:?}", metrics.outcomes_seen());
    }

    /// Sends a request that must fail with this code: the same in header, document, log and metric.
    pub async fn fails(&self, request: Request<Body>, code: &str, retry_safe: &str) -> Reply {
        let id = request.headers()["x-correlation-id"].to_str().expect("ASCII").to_owned();
        let before = self.metrics().await.outcomes(code);
        let reply = self.send(request).await;
        self.assert_failed(&reply, &id, code, retry_safe).await;
        self.until_counted(code, before + 1).await;
        reply
    }

    /// The reply and the log line name this failure.
    pub async fn assert_failed(&self, reply: &Reply, id: &str, code: &str, retry_safe: &str) {
        let row = ErrorCode::from_code(code).unwrap_or_else(|| panic!("`{code}` is not in the table")).row();
        assert_eq!(
            (reply.header("gw-error"), reply.status, reply.header("gw-retry-safe")),
            (code, row.status, retry_safe),
            "{reply:?}"
        );
        assert_eq!(reply.header("content-type"), "application/problem+json");
        let document = reply.json();
        assert_eq!(
            (&document["code"], &document["retry_safe"], &document["status"], &document["title"]),
            (&code.into(), &retry_safe.into(), &row.status.into(), &row.title.into()),
            "{document}"
        );
        assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{document}");
        self.assert_logged(id, code, retry_safe).await;
    }

    /// The log line names this failure.
    pub async fn assert_logged(&self, id: &str, code: &str, retry_safe: &str) {
        let line = self.log_line(id).await;
        assert_eq!((&line["outcome"], &line["retry_safe"]), (&code.into(), &retry_safe.into()), "{line}");
    }

    /// The gateway, to be stopped beside other things.
    pub fn take(&mut self) -> Gateway {
        self.gateway.take().expect("a gateway that still runs")
    }

    /// Stops the gateway.
    pub async fn stop(&mut self) -> Stopped {
        self.take().stop().await
    }
}

/// Whatever a test does, no provider may be met with more failed dials than this: back-off must hold.
const STORM: u64 = 300;

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(gateway) = self.gateway.as_ref().filter(|_| !std::thread::panicking()) else { return };
        for view in gateway.views().iter() {
            if let Condition::Pooled(status) = view.condition() {
                let dials = status.totals.dials_failed;
                assert!(dials < STORM, "{dials} failed dials of {} are a storm", view.environment());
            }
        }
    }
}
