//! The life of an HTTP/1.1 connection after its handshake: prove, serve, end. One task, as for HTTP/2.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use hyper::client::conn::http1::{Builder, Connection};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tls_core::HandshakeKind;
use tokio::time::{Instant, Sleep};

use super::{
    Http1Body, Http1Connection,
    connection::Sender,
    health, proof, protocol_error,
    stream::{Listening, Probe, listening},
};
use crate::{
    connection::{Birth, Ended, Farewell, Link, Proof, State},
    dial::{Dialled, Progress},
    drift::Resumption,
    error::DialError,
    health::HealthFault,
    passport::{Counted, counted},
    status::{CauseOfDeath, Protocol},
    supervisor::{Context, Destiny},
};

/// How long the polite end of TLS may take.
const CLOSING: Duration = Duration::from_secs(1);
/// A provider that closes sooner than this after a response does not do so because the connection is idle.
const AT_ONCE: Duration = Duration::from_millis(500);
/// How long the end of a connection waits for the exchange that it ended in.
const LAST_WORD: Duration = Duration::from_millis(100);
/// hyper's buffer for what it reads; the header's own limit may be larger.
const BUFFER: usize = 64 * 1024;

/// Proves a transport, puts the connection into bb8 and drives it until it ends.
///
/// # Errors
/// Why it never came to serve.
pub(crate) async fn serve(
    context: &Arc<Context>,
    destiny: Destiny,
    mut dialled: Dialled,
    resumption: Resumption,
    progress: &mut Progress,
) -> Result<(Arc<Link>, Ended), DialError> {
    let began = Instant::now();
    let round_trip = progress.phases.tcp.unwrap_or_default();
    let mut proof = match &context.config.health {
        // Its answer says more than silence does.
        Some(_) => Proof::HealthRequest,
        None => proof::prove(&mut dialled, round_trip, context.timeouts.prove).await?,
    };
    let Dialled { transport, facts, address, generation } = dialled;
    let kind = facts.kind;
    let (transport, tickets) = counted(transport);
    let (stream, probe) = listening(transport);
    let header = context.config.max_response_header_bytes as usize;
    let (sender, connection) = Builder::new()
        .max_header_size(header)
        .max_buf_size(header.max(BUFFER))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| protocol_error(&e))?;
    let birth = Birth {
        id: destiny.id,
        protocol: Protocol::Http11,
        generation,
        worker: destiny.worker,
        address,
        born: progress.began,
        retire_at: progress.began + destiny.max_age,
        facts,
    };
    let link = Link::new(birth, None);
    link.passport.note_tickets(tickets);
    link.set_capacity(1);
    let sender: Sender = Arc::new(Mutex::new(Some(sender)));
    let mut drive = Drive {
        connection,
        link: link.clone(),
        sender: sender.clone(),
        probe: Arc::new(probe),
        over: None,
        timer: None,
    };
    if proof == Proof::HealthRequest {
        proof = ask(context, &mut drive, kind).await?;
    }
    progress.phases.prove = Some(began.elapsed());
    link.passport.note_proof(proof);
    context.announce(&link, progress, resumption);
    context.hub.http1().add(Http1Connection::new(sender, drive.probe.clone(), link.clone()));
    context.hub.dispatch();
    let ended = drive.until_ended().await;
    context.hub.http1().note_end();
    context.hub.dispatch();
    Ok((link, ended))
}

/// Makes the health request: any answer but a refusal of the certificate is the application's matter.
async fn ask(context: &Context, drive: &mut Drive, kind: HandshakeKind) -> Result<Proof, DialError> {
    let limit = context.timeouts.prove;
    let Some(check) = &context.config.health else { return Ok(Proof::QuietWindow) };
    let asked = {
        let sender = drive.sender.clone();
        drive.during(health::ask(sender, &context.key.authority, check))
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(Err(fault @ HealthFault::CertificateRefused(_)))) => {
            Err(DialError::clone(&fault.to_dial_error(check)))
        }
        Ok(Ok(Err(HealthFault::Unanswered(detail)))) => Err(proof::ended(drive.probe.fault(), &detail, kind)),
        Ok(Ok(Err(HealthFault::Timeout(after)))) => Err(DialError::ProveTimeout { after }),
        Ok(Ok(_)) => Ok(Proof::HealthRequest),
        Err(_) => Err(DialError::ProveTimeout { after: limit }),
        Ok(Err(Ended { fault, detail, .. })) => Err(proof::ended(fault, &detail, kind)),
    }
}

/// Drives one connection. Dropping it closes the transport at once.
struct Drive {
    connection: Connection<TokioIo<Listening<Counted>>, Http1Body>,
    link: Arc<Link>,
    sender: Sender,
    probe: Arc<Probe<Counted>>,
    /// How hyper's part of it ended, once it did.
    over: Option<hyper::Result<()>>,
    /// Bounds the polite end, or the wait for what the last exchange has to say.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Drive {
    /// Runs while `work` does, which uses the connection.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            // The work first: its last word may have arrived together with the end.
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            match Pin::new(&mut self.connection).poll(cx) {
                // What ended it is told to the work, unless it has heard already.
                Poll::Ready(_) if work.as_mut().poll(cx).is_pending() => {
                    let (cause, detail) = (CauseOfDeath::NeverServed, "closed".to_owned());
                    Poll::Ready(Err(Ended { cause, fault: self.probe.fault(), detail }))
                }
                Poll::Ready(_) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    async fn until_ended(mut self) -> Ended {
        std::future::poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn poll_turn(&mut self, cx: &mut TaskContext<'_>) -> Poll<Ended> {
        self.link.register_driver(cx.waker());
        let left = self.link.state() == State::Draining && self.link.in_flight() == 0;
        if left && self.link.cause() == Some(CauseOfDeath::Abandoned) {
            // An exchange was left half way: nothing that still comes is wanted.
            return Poll::Ready(self.ended());
        }
        if left && self.timer.is_none() {
            // Without its sender hyper ends the connection as TLS wants it.
            drop(self.sender.lock().take());
            self.timer = Some(Box::pin(tokio::time::sleep(CLOSING)));
        }
        if self.over.is_none()
            && let Poll::Ready(end) = Pin::new(&mut self.connection).poll(cx)
        {
            self.over = Some(end);
            self.timer = Some(Box::pin(tokio::time::sleep(LAST_WORD)));
        }
        let told = self.link.state() != State::Serving || self.link.in_flight() == 0;
        let in_time = self.timer.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_pending());
        // The last response may say why: whoever reads it is heard first.
        if in_time && !(told && self.over.is_some()) { Poll::Pending } else { Poll::Ready(self.ended()) }
    }

    fn ended(&mut self) -> Ended {
        let end = self.over.take().unwrap_or(Ok(()));
        let now = Instant::now();
        let idle = self.link.idle_for(now);
        if self.link.state() == State::Serving {
            self.link.vitals().bid_farewell(Farewell {
                at: now,
                requests: self.link.requests(),
                uncertain: 0,
                // At once after a response: it is that response, or the age, that ended it.
                idle: idle.filter(|idle| *idle >= AT_ONCE),
                // An end in the middle of an exchange follows no rule.
                routine: idle.is_some() && !matches!(&end, Err(e) if e.is_parse()),
                orderly: end.is_ok(),
                calm: false,
            });
        }
        let cause = match &end {
            Err(e) if e.is_parse() => CauseOfDeath::ProtocolError,
            _ => CauseOfDeath::ClosedByProvider,
        };
        self.link.ended(cause);
        drop(self.sender.lock().take());
        let detail = match end {
            Ok(()) if idle.is_some() => "closed while it was idle".to_owned(),
            Ok(()) => "closed".to_owned(),
            Err(e) => e.to_string(),
        };
        Ended { cause: self.link.cause().unwrap_or(cause), fault: self.probe.fault(), detail }
    }
}
