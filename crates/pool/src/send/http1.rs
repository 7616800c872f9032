//! One attempt of one request over HTTP/1.1: the connection is on loan for the whole exchange.
//!
//! hyper sends and reads in the connection's own task; here is what the caller's side must know: when to give up, what
//! is known about a request whose connection died, and whether the connection may be lent again. Dropping the future
//! gives the exchange up, and with it the connection.

mod body;
mod fit;

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::TrySendError};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::body::{Sending, Slot};
pub(super) use self::{body::Progress, fit::fit};
use super::{
    BoxError, Head,
    exchange::{Connection, Limits, Unanswered},
    upload::{Upload, UploadError},
};
use crate::{
    connection::{Farewell, Link},
    error::SendErrorKind,
    http1::{Http1Body, Loan, Passed, in_origin_form},
    hub::{Hub, StreamLease},
    journey::Phase,
    observe::{Observer, Stale},
    status::CauseOfDeath,
    supervisor::Context,
    verdict::Verdict,
};

/// A response header, and how far the request's body has come.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) progress: Arc<Progress>,
    /// Bytes taken from the caller by then.
    pub(super) taken: u64,
    pub(super) lease: StreamLease,
}

/// Makes one attempt. What failed comes back with the request's body; the lease has been given back.
///
/// # Cancel safety
/// Dropping it closes the connection; the provider may have processed the request.
pub(super) async fn attempt<B>(
    context: &Context,
    lease: StreamLease,
    head: &Head,
    mut upload: Upload<B>,
    limits: Limits,
) -> Result<Answered, (Unanswered, Upload<B>)>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    upload.begin_attempt();
    let progress = Arc::new(Progress::new(upload.is_empty()));
    let slot: Slot<B> = Arc::new(Mutex::new(Some(upload)));
    let mut request = in_origin_form(head.to_request());
    *request.version_mut() = Version::HTTP_11;
    let request = request.map(|()| Sending::new(slot.clone(), progress.clone()).boxed_unsync());
    // Declared after the lease: it goes first, so that the connection is retired when the lease gives it back.
    let mut exchange = Exchange { link: lease.link().clone(), otherwise: Some(CauseOfDeath::Abandoned) };
    match exchange.make(context, &lease, request, &progress, limits).await {
        Ok(response) => {
            let taken = slot.lock().as_mut().map_or(0, |upload| {
                upload.let_go();
                upload.taken()
            });
            Ok(Answered { response, progress, taken, lease })
        }
        Err((kind, verdict)) => {
            // From here on the connection's task finds nothing to send. Nobody else empties the slot.
            let upload = slot.lock().take().expect("the upload is taken once");
            let phase = match (verdict, progress.moved().ended) {
                (Verdict::NotSent, _) => Phase::Headers,
                (_, true) => Phase::ResponseHeader,
                (_, false) if upload.is_untouched() => Phase::Headers,
                (_, false) => Phase::RequestBody,
            };
            let link = exchange.link.clone();
            // Over HTTP/1.1 no connection outlives a failed exchange, and it is retired with it.
            Err((Unanswered { kind, verdict, phase, connection: Connection::Goes, link }, upload))
        }
    }
}

/// An exchange under way. Whatever becomes of it but a response: the connection carries nothing more.
struct Exchange {
    link: Arc<Link>,
    /// Why the connection ends; `None` once there is a response.
    otherwise: Option<CauseOfDeath>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(cause) = self.otherwise {
            self.link.retire(cause, Instant::now());
        }
    }
}

impl Exchange {
    async fn make(
        &mut self,
        context: &Context,
        lease: &StreamLease,
        request: Request<Http1Body>,
        progress: &Progress,
        limits: Limits,
    ) -> Result<Response<Incoming>, (SendErrorKind, Verdict)> {
        let retired = || (gone("the connection is being retired"), Verdict::NotSent);
        let loan = lease.loan().ok_or_else(retired)?;
        let (before, began) = (loan.passed(), Instant::now());
        let response = loan.send(request).map_err(|()| retired())?;
        let answer = tokio::select! {
            biased;
            answer = response => answer,
            kind = overdue(progress, began, limits) => return Err((kind, Verdict::MaybeProcessed)),
        };
        match answer {
            Ok(response) => {
                self.otherwise = None;
                if ends_connection(response.version(), response.headers()) {
                    hear_farewell(&self.link);
                    context.hub.supervisor.notify_one();
                }
                Ok(response)
            }
            Err(e) => {
                self.otherwise = Some(CauseOfDeath::ClosedByProvider);
                let failed = why(e, loan, before, progress, limits);
                note_race(context, lease, loan, before, &failed);
                Err(failed)
            }
        }
    }
}

/// The provider will close the connection after this response (RFC 9112 §9.6).
fn ends_connection(version: Version, headers: &HeaderMap) -> bool {
    let says = |option: &str| {
        headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(option))
    };
    says("close") || (version < Version::HTTP_11 && !says("keep-alive"))
}

/// Keeps how the connection stood when its end was announced, and has its successor dialled while the body still comes.
fn hear_farewell(link: &Link) {
    link.vitals().bid_farewell(Farewell {
        at: Instant::now(),
        requests: link.requests(),
        uncertain: 0,
        idle: None,
        routine: true,
        orderly: true,
        calm: false,
    });
    link.retire(CauseOfDeath::ClosedByProvider, Instant::now());
}

/// Counts requests that met a connection which the provider was just closing.
fn note_race(
    context: &Context,
    lease: &StreamLease,
    loan: &Loan,
    before: Passed,
    (kind, verdict): &(SendErrorKind, Verdict),
) {
    let silent = loan.passed().read == before.read;
    if lease.is_reuse() && silent && matches!(kind, SendErrorKind::ProviderReset { .. }) {
        let stale = if *verdict == Verdict::NotSent { Stale::Unsent } else { Stale::InDoubt };
        note_stale(&context.hub, &*context.observer, stale);
    }
}

/// Counts a connection that turned out to be closed.
fn note_stale(hub: &Hub, observer: &dyn Observer, stale: Stale) {
    let counter = match stale {
        Stale::Unsent => &hub.counters.stale_unsent,
        Stale::InDoubt => &hub.counters.stale_in_doubt,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    observer.stale(stale);
}

/// Why there is no response, and whether the provider can have acted on the request.
fn why<T>(
    mut error: TrySendError<T>,
    loan: &Loan,
    before: Passed,
    progress: &Progress,
    limits: Limits,
) -> (SendErrorKind, Verdict) {
    let returned = error.take_message().is_some();
    let error = error.into_error();
    let kind = match progress.take_fault() {
        Some(UploadError::TooLarge { limit }) => SendErrorKind::BodyTooLarge { limit },
        Some(UploadError::Caller(detail)) => SendErrorKind::CallerGone { detail },
        Some(UploadError::Stream) | None if is_too_large(&error) => {
            let detail = format!("its response header is larger than {} bytes", limits.header_bytes);
            SendErrorKind::ProviderReset { detail }
        }
        Some(UploadError::Stream) | None => SendErrorKind::ProviderReset { detail: words_of(&error) },
    };
    // Given back by hyper, or not a byte of it taken by the transport: the provider has not seen it.
    let unsent = returned || loan.passed().written == before.written;
    (kind, if unsent { Verdict::NotSent } else { Verdict::MaybeProcessed })
}

/// hyper tells it apart by a method that needs its server.
fn is_too_large(error: &hyper::Error) -> bool {
    error.is_parse() && error.to_string().contains("too large")
}

fn words_of(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn gone(detail: &str) -> SendErrorKind {
    SendErrorKind::ProviderReset { detail: detail.to_owned() }
}

/// Waits until a limit has passed; each time the limit that holds now is computed anew.
async fn overdue(progress: &Progress, began: Instant, limits: Limits) -> SendErrorKind {
    loop {
        let moved = progress.moved();
        let since = moved.at.max(began);
        let (due, kind) = if moved.ended {
            let after = limits.response_header;
            (since + after, SendErrorKind::ResponseTimeout { after })
        } else {
            (since + limits.idle, SendErrorKind::IdleTimeout { after: limits.idle })
        };
        let (due, kind) = match limits.deadline {
            Some(deadline) if deadline < due => {
                let after = deadline.saturating_duration_since(began);
                (deadline, SendErrorKind::TotalTimeout { after })
            }
            _ => (due, kind),
        };
        let now = Instant::now();
        if now >= due {
            return kind;
        }
        // The body may end at any moment, which nobody tells: not asleep when the wait that begins then is over.
        tokio::time::sleep_until(due.min(now + limits.response_header)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    /// A body that ended after the wait had begun kept the longer limit.
    #[tokio::test(start_paused = true)]
    async fn the_limit_for_the_response_counts_from_the_end_of_the_body_whenever_that_comes() {
        let progress = Arc::new(Progress::new(false));
        let began = Instant::now();
        let (header, idle) = (Duration::from_secs(30), Duration::from_secs(60));
        let limits = Limits { response_header: header, idle, deadline: None, header_bytes: 0, resets: 0 };
        let body = progress.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(50)).await;
            body.note(true);
        });
        let kind = overdue(&progress, began, limits).await;
        assert!(matches!(kind, SendErrorKind::ResponseTimeout { .. }), "{kind:?}");
        // Timers go by whole milliseconds.
        let late = began.elapsed() - Duration::from_secs(80);
        assert!(late < Duration::from_millis(10), "{late:?}");
    }

    #[test]
    fn a_response_says_whether_its_connection_ends() {
        let with = |value: &'static str| {
            HeaderMap::from_iter([(header::CONNECTION, HeaderValue::from_static(value))])
        };
        for (version, headers, ends) in [
            (Version::HTTP_11, HeaderMap::new(), false),
            (Version::HTTP_11, with("keep-alive"), false),
            (Version::HTTP_11, with("Close"), true),
            (Version::HTTP_11, with("x-hop, close"), true),
            (Version::HTTP_11, with("closed"), false),
            (Version::HTTP_10, HeaderMap::new(), true),
            (Version::HTTP_10, with("Keep-Alive"), false),
        ] {
            assert_eq!(ends_connection(version, &headers), ends, "{version:?} {headers:?}");
        }
    }
}
