//! A door for the package `benches` and for unit tests: leases without a provider, and a pool over streams that are no
//! sockets.
//!
//! Owns nothing that the product uses; compiled for tests and with the feature `bench` only. The parts it puts together are the
//! product's own, so that what is measured is what runs.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tls_core::{Generation, HandshakeFacts};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    Pool, PoolConfig, PoolSpec,
    connection::{Birth, Driver, Limits, Link, wire},
    dns::Directory,
    hub::{Hub, Preference, StreamLease},
    passport::Records,
    send::Sending,
    status::DialPhases,
    status::Protocol,
    supervisor::{Context, next_id},
};

/// A hub whose connections serve but have no transport: leasing and giving back, and nothing else.
#[derive(Clone)]
pub struct Leases(Arc<Hub>);

/// One stream on loan; dropping it gives it back.
pub struct Lease(StreamLease);

impl Leases {
    /// `connections` of them with room for `streams` each, number i on worker i.
    #[must_use]
    pub fn serving(
        generation: Arc<Generation>,
        facts: &HandshakeFacts,
        connections: usize,
        streams: u32,
    ) -> Self {
        let hub = Hub::new(
            generation.clone(),
            &PoolConfig { queue_capacity: 0, ..PoolConfig::default() },
            connections,
        );
        let links = (0..connections)
            .map(|worker| {
                let link = Link::new(birth(&generation, worker, facts.clone()), None);
                link.set_capacity(streams);
                link.proved(DialPhases::default());
                link
            })
            .collect();
        hub.publish(links);
        Self(hub)
    }

    /// A stream, if one is free; as a request asks for it first.
    #[must_use]
    pub fn try_lease(&self) -> Option<Lease> {
        self.0.try_lease(Preference::Balanced).map(Lease)
    }
}

impl Lease {
    /// Whether its connection had carried a request before.
    #[must_use]
    pub fn is_reuse(&self) -> bool {
        self.0.is_reuse()
    }
}

/// A pool that serves over these streams, each with the facts of its handshake, until they end. Nothing dials,
/// replaces or retires: `spec.target` and `spec.seed` are not used. The drivers run on the current runtime.
///
/// # Errors
/// When the other end of a stream does not speak HTTP/2.
///
/// # Cancel safety
/// Dropping it closes the streams.
pub async fn pool_over<S>(spec: PoolSpec, streams: Vec<(S, HandshakeFacts)>) -> Result<Pool, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let context = context_of(spec);
    let mut links = Vec::with_capacity(streams.len());
    for (worker, (stream, facts)) in streams.into_iter().enumerate() {
        let (link, driver) = connect(&context, stream, worker % context.workers.len(), facts).await?;
        tokio::spawn(driver.until_ended());
        links.push(link);
    }
    context.hub.publish(links);
    Ok(Pool { context, supervisor: Arc::new(Mutex::new(None)) })
}

/// What the parts of such a pool share.
pub(crate) fn context_of(spec: PoolSpec) -> Arc<Context> {
    let records = Records::new(&spec.key.environment, spec.obituaries);
    Arc::new(Context {
        key: spec.key,
        directory: Directory::silent(spec.target.place()),
        sending: Sending::new(&spec.config, spec.workers.len()),
        target: spec.target,
        hub: Hub::new(spec.generation, &spec.config, spec.workers.len()),
        config: spec.config,
        timeouts: spec.timeouts,
        workers: spec.workers,
        observer: spec.observer,
        records,
    })
}

/// One proven and registered connection over this stream, as it would be after a dial, and the driver that is to be
/// run.
///
/// # Errors
/// When the other end of the stream does not speak HTTP/2.
pub(crate) async fn connect<S>(
    context: &Context,
    stream: S,
    worker: usize,
    facts: HandshakeFacts,
) -> Result<(Arc<Link>, Driver<S>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let birth = birth(&context.hub.generation.load(), worker, facts);
    let (stream, handle) = wire(stream);
    let (sender, connection) = context.h2_settings().handshake(stream).await.map_err(|e| e.to_string())?;
    let link = Link::new(birth, Some(sender));
    let config = &context.config;
    let limits = Limits {
        max_streams: config.max_streams,
        ping_timeout: config.ping_timeout,
        stream_window: config.stream_window_bytes,
    };
    let (hub, observer) = (context.hub.clone(), context.observer.clone());
    let mut driver =
        Driver::new(connection, handle, link.clone(), limits, hub, observer).map_err(|e| e.to_string())?;
    driver.until_pong().await.map_err(|ended| ended.detail)?;
    link.proved(DialPhases::default());
    context.hub.register(link.clone());
    Ok((link, driver))
}

fn birth(generation: &Generation, worker: usize, facts: HandshakeFacts) -> Birth {
    let now = Instant::now();
    Birth {
        id: next_id(),
        protocol: Protocol::H2,
        generation: generation.serial(),
        worker,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        born: now,
        retire_at: now,
        facts,
    }
}
