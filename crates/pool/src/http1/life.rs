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
use tls_core::TlsFault;
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

/// Whether a new connection is asked for the application's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// It is, if there is a health request.
    Health,
    /// It is not: the question would cost the connection.
    Nothing,
}

/// Why a connection never came to serve.
#[derive(Debug)]
pub(crate) enum Unserved {
    /// The dial failed.
    Failed(DialError),
    /// It was proven, but the health request cost it: there was no answer, or one that closes the connection. That is
    /// the application's matter; another connection will serve that is not asked.
    Spent(HealthFault),
}

impl From<DialError> for Unserved {
    fn from(error: DialError) -> Self {
        Self::Failed(error)
    }
}

/// Proves a transport, puts the connection into bb8 and drives it until it ends.
///
/// # Errors
/// Why it never came to serve.
pub(crate) async fn serve(
    context: &Arc<Context>,
    destiny: Destiny,
    asking: Asking,
    mut dialled: Dialled,
    resumption: Resumption,
    progress: &mut Progress,
) -> Result<(Arc<Link>, Ended), Unserved> {
    let began = Instant::now();
    let proof = proof::prove(&mut dialled, &progress.phases, context.timeouts.prove).await?;
    let mut drive = begin(context, destiny, dialled, progress).await?;
    let link = drive.link.clone();
    link.passport.note_proof(proof);
    drive.settle(context, asking, began + context.timeouts.prove).await?;
    progress.phases.prove = Some(began.elapsed());
    context.announce(&link, progress, resumption);
    context.hub.http1().add(Http1Connection::new(drive.sender.clone(), drive.probe.clone(), link.clone()));
    context.hub.dispatch();
    let ended = drive.until_ended().await;
    context.hub.http1().note_end();
    context.hub.dispatch();
    Ok((link, ended))
}

/// Lays HTTP/1.1 over a proven transport.
async fn begin(
    context: &Context,
    destiny: Destiny,
    dialled: Dialled,
    progress: &Progress,
) -> Result<Drive, DialError> {
    let Dialled { transport, facts, address, generation } = dialled;
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
    let sender = Arc::new(Mutex::new(Some(sender)));
    Ok(Drive { connection, link, sender, probe: Arc::new(probe), over: None, timer: None })
}

/// The connection ended before the work on it did.
#[derive(Debug)]
struct Closed;

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
    /// Asks for the application's health, if it is to, and waits until hyper is ready for a request.
    async fn settle(&mut self, context: &Context, asking: Asking, until: Instant) -> Result<(), Unserved> {
        let check = context.config.health.as_ref().filter(|_| asking == Asking::Health);
        if let Some(check) = check {
            let asked = health::ask(self.sender.clone(), &context.key.authority, check);
            let answer = match tokio::time::timeout_at(until, self.during(asked)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(Closed)) => Err(HealthFault::Unanswered("closed".to_owned())),
                Err(_) => Err(HealthFault::Timeout(context.timeouts.prove)),
            };
            match answer {
                Ok(()) => self.link.passport.note_proof(Proof::HealthRequest),
                // It took our certificate, and whatever ails it is not this connection's matter.
                Err(HealthFault::Status(_)) => {}
                Err(fault @ HealthFault::CertificateRefused(_)) => {
                    return Err(DialError::clone(&fault.to_dial_error(check)).into());
                }
                Err(fault) => return Err(self.spent(fault)),
            }
        }
        let sender = self.sender.clone();
        let ready = std::future::poll_fn(|cx| match sender.lock().as_mut() {
            Some(sender) => sender.poll_ready(cx).map(drop),
            None => Poll::Ready(()),
        });
        match tokio::time::timeout_at(until, self.during(ready)).await {
            Ok(Ok(())) if self.over.is_none() => Ok(()),
            // With its answer, as it said or not.
            _ if check.is_some() => Err(self.spent(HealthFault::Unanswered("it closes after it".to_owned()))),
            Ok(_) => {
                let kind = self.link.birth.facts.kind;
                Err(proof::ended(self.probe.fault(), "closed", kind).into())
            }
            Err(_) => Err(DialError::ProveTimeout { after: context.timeouts.prove }.into()),
        }
    }

    /// The health request cost the connection; unless TLS says that something else did.
    fn spent(&self, fault: HealthFault) -> Unserved {
        match self.probe.fault() {
            None | Some(TlsFault::Closed) => Unserved::Spent(fault),
            Some(fault) => Unserved::Failed(DialError::Tls(fault)),
        }
    }

    /// Runs while `work` does, which uses the connection.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Closed> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            // The work first: its last word may have arrived together with the end.
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if self.over.is_none()
                && let Poll::Ready(end) = Pin::new(&mut self.connection).poll(cx)
            {
                self.over = Some(end);
            }
            if self.over.is_none() {
                return Poll::Pending;
            }
            // What ended it is told to the work.
            match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Ok(done)),
                Poll::Pending => Poll::Ready(Err(Closed)),
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
