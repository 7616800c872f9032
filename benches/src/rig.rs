//! The gateway in memory, on one thread: callers and provider at the other ends of pipes, TLS towards the provider.
//!
//! Owns the set-up. Everything between the pipes is the product's own: sniffing, hyper, routing, headers, pool,
//! HTTP/2 driver, rustls, records and access log (to `/dev/null`). Missing are sockets, worker threads and dials.

use std::{sync::Arc, time::Duration};

use gateway::{
    admin::Readiness,
    config::{CallerTimeouts, Limits, Route},
    egress::{ClientHeaders, Core, Egress, Upstream},
    grpc::Health,
    telemetry::{AccessLogTarget, Catalog, CatalogRoute, Metrics, Recorder, RecorderOptions},
};
use pool::{
    Obituaries, Pool, PoolConfig, PoolKey, PoolSpec, RetryPolicy, Target, Timeouts, Unobserved, Workers,
};
use provider_sim::KeyAlgorithm;
use tls_core::{Generation, HandshakeFacts};
use tokio::io::{DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::{
    handshake::{HOST, Handshakes, Tickets},
    http::{Caller, serve_provider},
};

/// As much as a socket's buffer would hold of these small messages.
const PIPE_BYTES: usize = 64 * 1024;
/// The default floor of a pool.
const CONNECTIONS: usize = 2;

/// A gateway that runs on the current runtime, which must be a single thread's.
pub struct Rig {
    egress: Egress,
    handshakes: Handshakes,
    recorder: Recorder,
}

impl Rig {
    /// Connects to the provider and is ready for callers.
    ///
    /// # Panics
    /// If anything fails, which would be a fault of the set-up.
    pub async fn start() -> Self {
        let handshakes = Handshakes::new(KeyAlgorithm::EcP256, Tickets::Refused);
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            streams.push(dial(&handshakes).await);
        }
        let pool = pool::bench::pool_over(spec(handshakes.generation().clone()), streams).await;
        let core = Arc::new(core(Some(pool.expect("HTTP/2"))));
        let catalog = Catalog {
            environments: vec!["sandbox".to_owned()],
            routes: core
                .routes
                .iter()
                .map(|r| CatalogRoute { name: r.name.clone(), environment: r.environment })
                .collect(),
            ..Catalog::default()
        };
        let options = RecorderOptions {
            access_log: AccessLogTarget::File("/dev/null".into()),
            ..RecorderOptions::default()
        };
        let recorder = Recorder::start(&options, Metrics::new(catalog)).expect("threads");
        let health = Health::new(&Readiness::new([])).await;
        let egress = Egress::new(core, Workers::current(), &recorder, &health);
        Self { egress, handshakes, recorder }
    }

    /// A caller over HTTP/1.1.
    pub async fn http1(&self) -> Caller {
        Caller::http1(self.pipe()).await
    }

    /// A caller over HTTP/2 cleartext.
    pub async fn h2c(&self) -> Caller {
        Caller::h2(self.pipe()).await
    }

    /// A caller of the provider itself, without a gateway between them: hyper's client over one connection.
    pub async fn direct(&self) -> Caller {
        Caller::h2(dial(&self.handshakes).await.0).await
    }

    fn pipe(&self) -> DuplexStream {
        let (near, far) = duplex(PIPE_BYTES);
        tokio::spawn(self.egress.serve_stream(far));
        near
    }

    /// Ends it: everything recorded is written.
    pub fn stop(self) {
        self.recorder.stop(Duration::from_secs(1));
    }
}

/// A proven transport to a provider that answers.
async fn dial(handshakes: &Handshakes) -> (TlsStream<DuplexStream>, HandshakeFacts) {
    let generation = handshakes.generation();
    let (near, far) = duplex(PIPE_BYTES);
    let acceptor = TlsAcceptor::from(handshakes.server().clone());
    tokio::spawn(async move { serve_provider(acceptor.accept(far).await.expect("TLS")).await });
    let connector = TlsConnector::from(generation.client_config().clone());
    let stream = connector.connect(generation.server_name(), near).await.expect("TLS");
    let facts = generation.assert_established(stream.get_ref().1).expect("our provider");
    (stream, facts)
}

fn spec(generation: Arc<Generation>) -> PoolSpec {
    PoolSpec {
        key: PoolKey {
            customer: "CUSTOMER-0001".to_owned(),
            environment: "sandbox".to_owned(),
            authority: HOST.to_owned(),
        },
        target: Target { host: HOST.to_owned(), port: 443, connect: None, via: None },
        generation,
        config: PoolConfig::default(),
        timeouts: Timeouts::default(),
        seed: 0,
        workers: Workers::current(),
        observer: Arc::new(Unobserved),
        obituaries: Obituaries::new(Arc::new(tls_core::SystemClock)),
    }
}

/// Three routes of which the last takes the benchmark's request, so that looking for it costs something.
#[must_use]
pub(crate) fn core(pool: Option<Pool>) -> Core {
    let route = |name: &str, path: &str, method: Option<http::Method>| Route {
        name: name.to_owned(),
        path_prefix: Some(path.to_owned()),
        host: None,
        method: method.map(|m| vec![m]),
        header: Vec::new(),
        environment: 0,
        strip_prefix: None,
        timeouts: Timeouts::default(),
        retry: RetryPolicy::default(),
    };
    let upstream = Upstream {
        name: "sandbox".to_owned(),
        authority: http::uri::Authority::from_static(HOST),
        base_path: "/1/sandbox".to_owned(),
        pool: pool.ok_or_else(|| gateway::egress::Refusal {
            code: gateway::outcome::ErrorCode::Quarantined,
            message: String::new(),
        }),
        timeouts: Timeouts::default(),
    };
    let routes = vec![
        route("cards", "/cards", None),
        route("reads", "/tokens", Some(http::Method::GET)),
        route("tokens", "/tokens", None),
    ];
    Core::new(vec![upstream], routes, Limits::default(), CallerTimeouts::default(), ClientHeaders::Strip)
}
