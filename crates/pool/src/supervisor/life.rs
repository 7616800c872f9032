//! The life of one connection as one task: dial, prove, serve, end.

use std::sync::{Arc, atomic::Ordering};

use tls_core::HandshakeKind;
use tokio::time::Instant;

use super::{Context, next_id};
use crate::{
    connection::{Birth, Driver, Ended, Limits, Link, Proof, wire},
    dial::{Dialled, Progress, dial_off_worker},
    drift::Resumption,
    error::DialError,
    health::{self, HealthFault},
    http1::{self, Asking, Unserved},
    journey::ConnectionId,
    observe::DialReport,
    passport::counted,
    status::{CauseOfDeath, Protocol},
};

/// How a life ended.
#[derive(Debug)]
pub(super) enum LifeEnd {
    /// It never served.
    Failed(Arc<DialError>),
    /// It served, and ended.
    Served { link: Arc<Link>, ended: Ended },
}

/// What the supervisor decided about a connection before it was dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destiny {
    pub(crate) id: ConnectionId,
    pub(crate) worker: usize,
    pub(crate) max_age: std::time::Duration,
}

/// Lives one connection.
pub(super) async fn live(context: Arc<Context>, destiny: Destiny) -> (Destiny, LifeEnd) {
    let asking = if context.hub.questions_cost() { Asking::Nothing } else { Asking::Health };
    let mut end = attempt(&context, destiny, asking).await;
    if let Err(Unserved::Spent(fault)) = end {
        context.note_spent(&fault);
        end = attempt(&context, destiny, Asking::Nothing).await;
    }
    let end = match end {
        Ok((link, ended)) => LifeEnd::Served { link, ended },
        Err(Unserved::Failed(e)) => LifeEnd::Failed(Arc::new(e)),
        // One that was not asked cannot have been lost by the question.
        Err(Unserved::Spent(fault)) => LifeEnd::Failed(Arc::new(context.as_dial_error(&fault))),
    };
    (destiny, end)
}

/// Dials once, and serves if that comes to something. What fails is reported.
async fn attempt(
    context: &Arc<Context>,
    destiny: Destiny,
    asking: Asking,
) -> Result<(Arc<Link>, Ended), Unserved> {
    let mut progress = Progress::begin();
    let generation = context.hub.generation.load_full();
    let watch = context.records.dials.begin(generation.tickets().stats().taken);
    let result = dial_off_worker(context, &generation, &mut progress).await;
    let resumption = watch.end(generation.tickets().stats().taken);
    let end = match result {
        Ok(dialled) => {
            let address = dialled.address;
            let end = if dialled.facts.alpn == Some(tls_core::Alpn::H2) {
                serve(context, destiny, dialled, resumption, &mut progress).await.map_err(Unserved::from)
            } else {
                // `http/1.1`, or nothing agreed on.
                http1::serve(context, destiny, asking, dialled, resumption, &mut progress).await
            };
            if matches!(end, Err(Unserved::Failed(_))) {
                context.directory.note_failure(address);
            }
            end
        }
        Err(e) => Err(e.into()),
    };
    let (id, why) = match &end {
        Ok(_) => return end,
        Err(Unserved::Failed(e)) => (destiny.id, e.clone()),
        // Its number stays with the connection that takes its place.
        Err(Unserved::Spent(fault)) => (next_id(), context.as_dial_error(fault)),
    };
    let report = context.report(id, generation.serial(), &progress, None, Some(why.code()));
    context.observer.dialled(&report);
    context.bury_dial(id, generation.serial(), &progress, &why);
    end
}

async fn serve(
    context: &Arc<Context>,
    destiny: Destiny,
    dialled: Dialled,
    resumption: Resumption,
    progress: &mut Progress,
) -> Result<(Arc<Link>, Ended), DialError> {
    let Dialled { transport, facts, address, generation } = dialled;
    let kind = facts.kind;
    let (transport, tickets) = counted(transport);
    let (wire, handle) = wire(transport);
    let (sender, connection) = context
        .h2_settings()
        .handshake(wire)
        .await
        .map_err(|e| DialError::Protocol { detail: e.to_string() })?;
    let birth = Birth {
        id: destiny.id,
        protocol: Protocol::H2,
        generation,
        worker: destiny.worker,
        address,
        born: progress.began,
        retire_at: progress.began + destiny.max_age,
        facts,
    };
    let link = Link::new(birth, Some(sender));
    link.passport.note_tickets(tickets);
    let limits = Limits {
        max_streams: context.config.max_streams,
        ping_timeout: context.config.ping_timeout.max(context.timeouts.prove),
        stream_window: context.config.stream_window_bytes,
    };
    let hub = context.hub.clone();
    let mut driver =
        Driver::new(connection, handle, link.clone(), limits, hub.clone(), context.observer.clone())
            .map_err(|e| DialError::Protocol { detail: e.to_string() })?;

    prove(context, &mut driver, &link, kind, progress).await?;
    context.announce(&link, progress, resumption);
    let ended = driver.until_ended().await;
    Ok((link, ended))
}

/// Waits for the proof that the provider took our certificate. TLS 1.3 lets a handshake succeed although the server
/// refuses it, and SETTINGS may come before it looks: only an answer to what we sent after it shows that it did. That
/// is the acknowledgement of our PING; where a provider answers none, that of our SETTINGS. Then, if there is a health
/// request, its answer: some servers refuse in HTTP.
async fn prove<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    context: &Context,
    driver: &mut Driver<S>,
    link: &Link,
    kind: HandshakeKind,
    progress: &mut Progress,
) -> Result<(), DialError> {
    let began = Instant::now();
    let limit = context.timeouts.prove;
    let proof = async {
        link.passport.note_proof(until_acknowledged(context, driver).await?);
        if let (Some(check), Some(sender)) = (&context.config.health, link.sender()) {
            // Less than all that is left, so that a slow application is not taken for an unproven connection.
            let patience = limit.saturating_sub(began.elapsed()).mul_f64(0.9);
            let asked = health::ask(sender, &context.key.authority, check, patience);
            // Anything but a refusal of the certificate is the application's matter, not this connection's.
            match driver.during(asked).await? {
                Ok(()) => link.passport.note_proof(Proof::HealthRequest),
                Err(fault @ HealthFault::CertificateRefused(_)) => {
                    return Ok(Err(fault.to_dial_error(check)));
                }
                Err(fault) => link.vitals().note_unwell(fault),
            }
        }
        Ok(Ok(()))
    };
    match tokio::time::timeout(limit, proof).await {
        Ok(Ok(Ok(()))) => {
            progress.phases.prove = Some(began.elapsed());
            Ok(())
        }
        Ok(Ok(Err(refused))) => Err(DialError::clone(&refused)),
        Err(_) | Ok(Err(Ended { cause: CauseOfDeath::PingTimeout, .. })) => {
            Err(DialError::ProveTimeout { after: limit })
        }
        Ok(Err(Ended { fault, detail, .. })) => Err(DialError::before_proof(fault, detail, kind)),
    }
}

/// Until the PING is acknowledged, or it has not been for a while and SETTINGS are. What that says of the provider is
/// found out while the connection serves: its PING stays on its way, and may be answered yet.
async fn until_acknowledged<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    context: &Context,
    driver: &mut Driver<S>,
) -> Result<Proof, Ended> {
    let patience = if context.hub.ignores_pings() { PING_PATIENCE_KNOWN } else { PING_PATIENCE };
    let patience = patience.min(context.timeouts.prove / 2);
    if let Ok(pong) = tokio::time::timeout(patience, driver.until_pong()).await {
        return pong.map(|()| Proof::Ping);
    }
    driver.until_acknowledged().await
}

/// How long the answer to the first PING is waited for before the acknowledgement of SETTINGS is proof enough.
const PING_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
/// The same for a provider that ignored PINGs before: whether it does still, its connection finds out.
const PING_PATIENCE_KNOWN: std::time::Duration = std::time::Duration::from_millis(50);

impl Context {
    /// A proven HTTP/1.1 connection was lost by the health request: from now on new ones are not asked, until a health
    /// request over the pool is answered.
    fn note_spent(&self, fault: &HealthFault) {
        self.hub.counters.dials_failed.fetch_add(1, Ordering::Relaxed);
        if !self.hub.set_questions_cost(true) {
            tracing::warn!(environment = %self.key.environment,
                "the health request cost a new connection ({fault}); new ones are not asked until it is answered");
        }
    }

    fn as_dial_error(&self, fault: &HealthFault) -> DialError {
        match &self.config.health {
            Some(check) => DialError::clone(&fault.to_dial_error(check)),
            None => DialError::Protocol { detail: fault.to_string() },
        }
    }

    /// A connection is proven: it serves from now on, and everybody hears of it.
    pub(crate) fn announce(&self, link: &Arc<Link>, progress: &Progress, resumption: Resumption) {
        link.proved(progress.phases_now());
        self.directory.note_success(link.birth.address);
        let resumed = link.birth.facts.kind.is_resumed();
        let report = self.report(link.id(), link.birth.generation, progress, Some(resumed), None);
        self.observer.dialled(&report);
        let counters = &self.hub.counters;
        counters.connections.fetch_add(1, Ordering::Relaxed);
        if resumed { &counters.resumed } else { &counters.full }.fetch_add(1, Ordering::Relaxed);
        self.hub.register(link.clone());
        self.hub.supervisor.notify_one();
        self.note_proven(link, resumption);
    }

    pub(crate) fn report(
        &self,
        connection: ConnectionId,
        generation: u64,
        progress: &Progress,
        resumed: Option<bool>,
        failure: Option<&'static str>,
    ) -> DialReport {
        DialReport {
            connection,
            address: progress.address.clone(),
            phases: progress.phases_now(),
            resumed,
            failure,
            generation,
        }
    }

    /// h2's settings; each differs from the default for the reason beside it.
    pub(crate) fn h2_settings(&self) -> h2::client::Builder {
        let config = &self.config;
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            // Before SETTINGS arrive h2 assumes no limit; nothing is sent before the proof, but be modest.
            .initial_max_send_streams(1)
            .initial_window_size(config.stream_window_bytes)
            .initial_connection_window_size(config.connection_window_bytes)
            .max_header_list_size(config.max_response_header_bytes)
            // Many small DATA frames are how JSON replies look, not an attack.
            .data_frame_budget(data_frame_budget(config.connection_window_bytes))
            // A storm of cancelled requests must not end the connection for the others.
            .max_concurrent_reset_streams(RESET_MEMORY)
            .reset_stream_duration(RESET_MEMORY_TIME);
        builder
    }
}

/// Allowance for unread small DATA frames: h2 charges each shorter than 256 bytes with what it lacks until it is read,
/// and ends the connection, under everybody, when the allowance is used up.
///
/// The charge is about what such a frame really costs: h2 keeps 260 to 300 bytes for it, measured, whatever it carries.
/// So the allowance bounds memory. Never to end a connection for frames within our windows would take 255 times the
/// connection window: one byte a frame, 8 GiB for 32 MiB, and the whole process would end instead. Eight times suffices
/// for the whole window unread in frames of 29 bytes or more, and at the defaults for twenty streams unread in frames of
/// five bytes, or four in frames of one. It is 256 MiB at the default window, and nothing while callers read. (h2's own
/// choice, half of the window, ends a connection whose window is unread in frames of 170 bytes.)
fn data_frame_budget(connection_window: u32) -> usize {
    usize::try_from(connection_window).unwrap_or(usize::MAX).saturating_mul(8)
}

/// Locally reset streams that h2 remembers, and for how long.
const RESET_MEMORY: usize = 1024;
const RESET_MEMORY_TIME: std::time::Duration = std::time::Duration::from_secs(10);
