//! The application health request: a harmless request that says whether the provider's application answers us.
//!
//! Owns what is asked, what counts as good, and the thresholds. Some servers complete TLS and acknowledge PINGs and
//! refuse our certificate in HTTP instead (nginx: `400 … SSL certificate error`, `495`, `496`): only a request shows
//! that. When to ask, and what follows, is the supervisor's.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode, Uri, uri::PathAndQuery};
use serde::Serialize;

use crate::error::DialError;

/// An application health request and when it counts as failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Method; it must change nothing at the provider. Default GET.
    pub method: Method,
    /// Path and query at the provider, base path included.
    pub path: PathAndQuery,
    /// Statuses that count as healthy. Default: any 2xx.
    pub expect: Expected,
    /// From one request to the next, per environment. Range 1 s..=1 h. Default 10 s.
    pub interval: Duration,
    /// How long one may take. Range 100 ms..=60 s. Default 2 s.
    pub timeout: Duration,
    /// Failures in a row after which the environment is unhealthy: its requests are refused. Range 1..=100. Default 3.
    pub unhealthy_after: u8,
    /// Successes in a row after which it is healthy again. Range 1..=100. Default 2.
    pub healthy_after: u8,
}

impl HealthCheck {
    /// GET of this path with the defaults.
    #[must_use]
    pub fn get(path: PathAndQuery) -> Self {
        Self {
            method: Method::GET,
            path,
            expect: Expected::Success,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }

    /// The request, for this authority.
    ///
    /// # Errors
    /// If authority and path make no URI.
    pub(crate) fn request(&self, authority: &str) -> Result<Request<()>, http::Error> {
        let uri =
            Uri::builder().scheme("https").authority(authority).path_and_query(self.path.clone()).build()?;
        Request::builder().method(self.method.clone()).uri(uri).body(())
    }

    /// What an answer says; `body` is how its content begins.
    pub(crate) fn judge(&self, status: StatusCode, body: &[u8]) -> Result<(), HealthFault> {
        if self.expect.holds(status) {
            Ok(())
        } else if is_certificate_refusal(status, body) {
            Err(HealthFault::CertificateRefused(status))
        } else {
            Err(HealthFault::Status(status))
        }
    }
}

/// Which statuses are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any 2xx.
    Success,
    /// Any of these.
    Codes(Vec<StatusCode>),
}

impl Expected {
    fn holds(&self, status: StatusCode) -> bool {
        match self {
            Self::Success => status.is_success(),
            Self::Codes(codes) => codes.contains(&status),
        }
    }
}

/// nginx's own statuses for a client certificate that it did not like (495) or did not get (496). By default it
/// sends them as 400 with a page that says "The SSL certificate error" or "No required SSL certificate was sent".
fn is_certificate_refusal(status: StatusCode, body: &[u8]) -> bool {
    const WORDS: &[u8] = b"SSL certificate";
    match status.as_u16() {
        495 | 496 => true,
        400 => body.windows(WORDS.len()).any(|words| words == WORDS),
        _ => false,
    }
}

/// How much of an answer is looked at.
pub(crate) const LOOKED_AT: usize = 2048;

/// Why a health request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HealthFault {
    /// The provider refuses our certificate in HTTP.
    #[error("it answered {0}: the server refuses the client certificate")]
    CertificateRefused(StatusCode),
    /// An unexpected status.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// No answer.
    #[error("{0}")]
    Unanswered(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl HealthFault {
    /// As the cause why an environment serves nothing.
    pub(crate) fn to_dial_error(&self, check: &HealthCheck) -> Arc<DialError> {
        let path = check.path.path().to_owned();
        Arc::new(match self {
            Self::CertificateRefused(status) => DialError::RefusedInHttp { path, status: status.as_u16() },
            other => DialError::Unhealthy { path, detail: other.to_string() },
        })
    }
}

/// Asks on one HTTP/2 connection, for at most `patience`; its driver must run meanwhile.
///
/// # Cancel safety
/// Dropping it resets the stream.
pub(crate) async fn ask(
    mut sender: SendRequest<Bytes>,
    authority: &str,
    check: &HealthCheck,
    patience: Duration,
) -> Result<(), HealthFault> {
    let unanswered = |e: &dyn std::fmt::Display| HealthFault::Unanswered(e.to_string());
    let request = check.request(authority).map_err(|e| unanswered(&e))?;
    let exchange = async {
        std::future::poll_fn(|cx| sender.poll_ready(cx)).await.map_err(|e| unanswered(&e))?;
        let (response, _) = sender.send_request(request, true).map_err(|e| unanswered(&e))?;
        let (head, body) = response.await.map_err(|e| unanswered(&e))?.into_parts();
        check.judge(head.status, &beginning_of(body).await)
    };
    let limit = check.timeout.min(patience);
    tokio::time::timeout(limit, exchange).await.unwrap_or(Err(HealthFault::Timeout(limit)))
}

/// How the content of an answer begins; the rest is let go.
async fn beginning_of(mut body: h2::RecvStream) -> Vec<u8> {
    let mut seen = Vec::new();
    while seen.len() < LOOKED_AT
        && let Some(Ok(data)) = body.data().await
    {
        let _ = body.flow_control().release_capacity(data.len());
        seen.extend_from_slice(&data[..data.len().min(LOOKED_AT - seen.len())]);
    }
    seen
}

/// Health as the pool sees it: a state with thresholds, so that one lost answer does not stop the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Requests go on; so many health requests in a row have failed.
    Healthy {
        /// Failures in a row.
        failures: u8,
    },
    /// Requests are refused; so many health requests in a row have succeeded.
    Unhealthy {
        /// Successes in a row.
        successes: u8,
    },
}

impl Default for Health {
    fn default() -> Self {
        Self::Healthy { failures: 0 }
    }
}

impl Health {
    /// The word for status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy { .. } => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }

    /// The state after one more health request.
    #[must_use]
    pub(crate) fn after(self, answer: &Result<(), HealthFault>, check: &HealthCheck) -> Self {
        match (self, answer.is_ok()) {
            (Self::Healthy { .. }, true) => Self::Healthy { failures: 0 },
            (Self::Healthy { failures }, false) if failures + 1 >= check.unhealthy_after => {
                Self::Unhealthy { successes: 0 }
            }
            (Self::Healthy { failures }, false) => Self::Healthy { failures: failures + 1 },
            (Self::Unhealthy { .. }, false) => Self::Unhealthy { successes: 0 },
            (Self::Unhealthy { successes }, true) if successes + 1 >= check.healthy_after => {
                Self::Healthy { failures: 0 }
            }
            (Self::Unhealthy { successes }, true) => Self::Unhealthy { successes: successes + 1 },
        }
    }

    /// Whether requests are refused.
    pub(crate) fn is_unhealthy(self) -> bool {
        matches!(self, Self::Unhealthy { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck::get(PathAndQuery::from_static("/health"))
    }

    fn answer(good: bool) -> Result<(), HealthFault> {
        if good { Ok(()) } else { Err(HealthFault::Status(StatusCode::BAD_GATEWAY)) }
    }

    #[test]
    fn three_failures_in_a_row_make_it_unhealthy_and_two_successes_heal_it() {
        let check = check();
        let mut health = Health::default();
        let mut states = Vec::new();
        for good in [false, false, true, false, false, false, true, false, true, true, false] {
            health = health.after(&answer(good), &check);
            states.push(health.is_unhealthy());
        }
        assert_eq!(
            states,
            [false, false, false, false, false, true, true, true, true, false, false],
            "a success in between begins the count anew, both ways"
        );
    }

    #[test]
    fn thresholds_of_one_act_at_once() {
        let check = HealthCheck { unhealthy_after: 1, healthy_after: 1, ..check() };
        let sick = Health::default().after(&answer(false), &check);
        assert!(sick.is_unhealthy());
        assert!(!sick.after(&answer(true), &check).is_unhealthy());
    }

    #[test]
    fn a_certificate_refused_in_http_is_an_identity_fault() {
        let check = check();
        let page = b"<center><h1>400 Bad Request</h1></center><center>The SSL certificate error</center>";
        for (status, body) in [(495, &b""[..]), (496, b""), (400, page)] {
            let fault = check.judge(StatusCode::from_u16(status).unwrap(), body).unwrap_err();
            assert!(fault.to_dial_error(&check).is_identity_fault(), "{status}");
        }
        for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_REQUEST] {
            let fault = check.judge(status, b"busy").unwrap_err();
            assert_eq!(fault.to_dial_error(&check).code(), "provider_unhealthy");
        }
        assert!(check.judge(StatusCode::NO_CONTENT, b"").is_ok());
    }
}
