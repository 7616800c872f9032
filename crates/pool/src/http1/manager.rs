//! How bb8 gets a connection and when it must not lend one again.

use std::sync::{Arc, atomic::Ordering};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Http1Connection, SharedDialError, proof, stream::Listening};
use crate::{
    connection::{Birth, Link},
    dial::{Dialled, Progress, dial_off_worker},
    drift::Resumption,
    error::DialError,
    journey::ConnectionId,
    status::Protocol,
    supervisor::{Backoff, Context, next_id},
    workers,
};

/// Makes connections for bb8.
pub(crate) struct Manager {
    context: Arc<Context>,
    gate: Arc<Gate>,
}

/// When the next dial may start: shared by all that bb8 makes at once.
pub(crate) struct Gate(Mutex<Backoff>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Backoff::new(fastrand::u64(..))))
    }

    /// No dial is to be made now.
    pub(super) fn is_backing_off(&self) -> bool {
        self.not_before().is_some_and(|moment| moment > Instant::now())
    }

    /// No dial is to be made before this moment.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.0.lock().not_before()
    }
}

impl Manager {
    pub(super) fn new(context: Arc<Context>, gate: Arc<Gate>) -> Self {
        Self { context, gate }
    }

    /// Why no dial is made now, if none is.
    fn refusal(&self) -> Option<SharedDialError> {
        let hub = &self.context.hub;
        if hub.is_stopping() {
            return Some(Arc::new(DialError::Protocol { detail: "the gateway is stopping".to_owned() }));
        }
        let last = hub.last_failure().filter(|_| self.gate.is_backing_off())?;
        Some(last.error.clone())
    }

    /// Proves a transport and starts HTTP/1.1 on it.
    pub(super) async fn prove_and_start(
        context: &Arc<Context>,
        id: ConnectionId,
        mut dialled: Dialled,
        mut progress: Progress,
    ) -> Result<Http1Connection, DialError> {
        let resumed = dialled.facts.kind.is_resumed();
        let began = Instant::now();
        proof::prove(&mut dialled, progress.phases.tcp.unwrap_or_default(), context.timeouts.prove).await?;
        progress.phases.prove = Some(began.elapsed());

        let Dialled { transport, facts, address, generation } = dialled;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(Listening::new(transport)))
                .await
                .map_err(|e| DialError::Protocol { detail: e.to_string() })?;
        let jitter = 0.8 + fastrand::f64() * 0.4;
        let birth = Birth {
            id,
            protocol: Protocol::Http11,
            generation,
            worker: workers::index(),
            address,
            born: progress.began,
            retire_at: progress.began + context.config.max_age.mul_f64(jitter),
            facts,
        };
        let link = Link::new(birth, None);
        link.set_capacity(1);
        link.proved(progress.phases_now());
        let report = context.report(id, generation, &progress, Some(resumed), None);
        context.observer.dialled(&report);
        let counters = &context.hub.counters;
        counters.connections.fetch_add(1, Ordering::Relaxed);
        if resumed { &counters.resumed } else { &counters.full }.fetch_add(1, Ordering::Relaxed);
        context.note_proven(&link, Resumption::Unknown);
        context.hub.register(link.clone());
        context.hub.forget_failures();
        context.hub.supervisor.notify_one();
        Ok(Http1Connection::new(sender, connection, link, context.clone()))
    }

    async fn make(&self) -> Result<Http1Connection, DialError> {
        let context = &self.context;
        let id = next_id();
        let mut progress = Progress::begin();
        let generation = context.hub.generation.load_full();
        let result = match dial_off_worker(context, &generation, &mut progress).await {
            Ok(dialled) if dialled.facts.alpn == Some(tls_core::Alpn::H2) => {
                // The provider changed its mind: the supervisor takes over again.
                context.hub.set_http1(None);
                context.hub.supervisor.notify_one();
                Err(DialError::Protocol { detail: "the provider speaks HTTP/2 now".to_owned() })
            }
            Ok(dialled) => {
                let began = progress.began;
                let phases = progress.phases;
                let address = progress.address.clone();
                Self::prove_and_start(context, id, dialled, Progress { began, phases, address }).await
            }
            Err(e) => Err(e),
        };
        if let Err(e) = &result {
            context.observer.dialled(&context.report(
                id,
                generation.serial(),
                &progress,
                None,
                Some(e.code()),
            ));
            context.bury_dial(id, generation.serial(), &progress, e);
        }
        result
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Http1Connection;
    type Error = SharedDialError;

    async fn connect(&self) -> Result<Self::Connection, Self::Error> {
        if let Some(refusal) = self.refusal() {
            // Whoever waits for this dial learns now that it is not made.
            self.context.hub.outage_told.notify_waiters();
            return Err(refusal);
        }
        match self.make().await {
            Ok(connection) => {
                self.gate.0.lock().succeeded();
                Ok(connection)
            }
            Err(e) => {
                let e = Arc::new(e);
                note_failure(&self.context, &self.gate, e.clone());
                Err(e)
            }
        }
    }

    async fn is_valid(&self, connection: &mut Self::Connection) -> Result<(), Self::Error> {
        if connection.is_spent() {
            let detail = "the connection ended while it was idle".to_owned();
            return Err(Arc::new(DialError::Protocol { detail }));
        }
        Ok(())
    }

    fn has_broken(&self, connection: &mut Self::Connection) -> bool {
        connection.is_spent()
    }
}

/// Counts and logs a failed dial and tells waiters.
pub(super) fn note_failure(context: &Context, gate: &Gate, error: SharedDialError) {
    let now = Instant::now();
    gate.0.lock().failed(&context.config, &error, now);
    context.hub.counters.dials_failed.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(environment = %context.key.environment, code = error.code(), "dial failed: {error}");
    context.hub.dial_failed(error, now);
}

/// bb8 reports background failures here; `connect` has counted and logged them already.
#[derive(Debug)]
pub(super) struct Sink;

impl bb8::ErrorSink<SharedDialError> for Sink {
    fn sink(&self, _: SharedDialError) {}

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<SharedDialError>> {
        Box::new(Self)
    }
}
