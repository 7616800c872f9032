//! One attempt of one request over HTTP/1.1: the connection is on loan for the whole exchange.
//!
//! hyper sends and reads in the connection's own task; here is what the caller's side must know: when to give up, what
//! is known about a request whose connection died, and whether the connection may be lent again. Dropping the future
//! gives the exchange up, and with it the connection.

mod body;

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{HeaderMap, Response, Version, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::TrySendError};
use parking_lot::Mutex;
use tokio::time::Instant;

pub(super) use self::body::Progress;
use self::body::{Sending, Slot};
use super::{
    BoxError, Head,
    exchange::{Limits, Unanswered},
    upload::{Upload, UploadError},
};
use crate::{
    connection::Farewell,
    error::SendErrorKind,
    http1::{Loan, Passed, in_origin_form},
    hub::{Hub, StreamLease},
    status::CauseOfDeath,
    verdict::Verdict,
};

/// A response header, and how far the request's body has come.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) progress: Arc<Progress>,
    /// Bytes taken from the caller by then.
    pub(super) taken: u64,
}

/// Makes one attempt. What failed comes back with the request's body.
///
/// # Cancel safety
/// Dropping it closes the connection; the provider may have processed the request.
pub(super) async fn attempt<B>(
    hub: &Hub,
    lease: &StreamLease,
    loan: &Loan,
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
    let before = loan.passed();
    let began = Instant::now();
    // Whatever happens but a response: this connection carries nothing more.
    let mut exchange = Exchange { loan, ended: Some(CauseOfDeath::Abandoned) };
    let result = match loan.send(request) {
        Err(()) => Err(gone("the connection is being retired", Verdict::NotSent)),
        Ok(response) => tokio::select! {
            biased;
            answer = response => answer.map_err(|e| {
                exchange.ended = Some(CauseOfDeath::ClosedByProvider);
                let failed = why(e, loan, before, &progress, limits);
                note_race(hub, lease, before, &failed);
                failed
            }),
            kind = overdue(&progress, began, limits) => {
                Err(Unanswered { kind, verdict: Verdict::MaybeProcessed })
            }
        },
    };
    match result {
        Ok(response) => {
            exchange.ended = None;
            drop(exchange);
            if ends_connection(response.version(), response.headers()) {
                hear_farewell(lease, loan);
                hub.supervisor.notify_one();
            }
            let taken = slot.lock().as_mut().map_or(0, |upload| {
                upload.let_go();
                upload.taken()
            });
            Ok(Answered { response, progress, taken })
        }
        Err(failed) => {
            // From here on the connection's task finds nothing to send. The slot is filled until somebody takes it.
            let upload = slot.lock().take().expect("nobody else takes the upload");
            Err((failed, upload))
        }
    }
}

/// Closes the connection unless the exchange came to a response.
struct Exchange<'a> {
    loan: &'a Loan,
    ended: Option<CauseOfDeath>,
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(cause) = self.ended {
            self.loan.retire(cause);
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
fn hear_farewell(lease: &StreamLease, loan: &Loan) {
    let link = lease.link();
    link.vitals().bid_farewell(Farewell {
        at: Instant::now(),
        requests: link.requests(),
        uncertain: 0,
        idle: None,
        routine: true,
        calm: false,
    });
    loan.retire(CauseOfDeath::ClosedByProvider);
}

/// Counts requests that met a connection which the provider was just closing.
fn note_race(hub: &Hub, lease: &StreamLease, before: Passed, failed: &Unanswered) {
    let unanswered = lease.loan().is_some_and(|loan| loan.passed().read == before.read);
    if !lease.is_reuse() || !unanswered || !matches!(failed.kind, SendErrorKind::ProviderReset { .. }) {
        return;
    }
    let counter = match failed.verdict {
        Verdict::MaybeProcessed => &hub.counters.stale_in_doubt,
        _ => &hub.counters.stale_unsent,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why there is no response, and whether the provider can have acted on the request.
fn why<T>(
    mut error: TrySendError<T>,
    loan: &Loan,
    before: Passed,
    progress: &Progress,
    limits: Limits,
) -> Unanswered {
    let returned = error.take_message().is_some();
    let error = error.into_error();
    let kind = match progress.take_fault() {
        Some(UploadError::TooLarge { limit }) => SendErrorKind::BodyTooLarge { limit },
        Some(UploadError::Caller(detail)) => SendErrorKind::CallerGone { detail },
        Some(UploadError::Stream) | None if error.is_parse_too_large() => {
            let detail = format!("its response header is larger than {} bytes", limits.header_bytes);
            SendErrorKind::ProviderReset { detail }
        }
        Some(UploadError::Stream) | None => SendErrorKind::ProviderReset { detail: words_of(&error) },
    };
    // Given back by hyper, or not a byte of it taken by the transport: the provider has not seen it.
    let unsent = returned || loan.passed().written == before.written;
    Unanswered { kind, verdict: if unsent { Verdict::NotSent } else { Verdict::MaybeProcessed } }
}

fn words_of(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn gone(detail: &str, verdict: Verdict) -> Unanswered {
    Unanswered { kind: SendErrorKind::ProviderReset { detail: detail.to_owned() }, verdict }
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
        if Instant::now() >= due {
            return kind;
        }
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

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
