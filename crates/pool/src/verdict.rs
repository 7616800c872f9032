//! Whether the provider can have processed a request that failed, and what follows from it.
//!
//! Owns the classification (RFC 9113 §6.8, §8.7) and the rule for replays. It sends nothing itself.

use http::Method;
use serde::Serialize;

use crate::config::{LastStreamId, RetryPolicy};

/// What is known about a request whose stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No byte of it reached the provider: no stream was opened, or the connection died before the header left.
    NotSent,
    /// The provider refused the stream with REFUSED_STREAM: not processed (RFC 9113 §8.7).
    Refused,
    /// The stream's number is above the last-stream-id of the provider's GOAWAY: not processed (§6.8).
    AboveGoaway,
    /// The provider may have acted on it.
    MaybeProcessed,
}

/// What the caller is told about sending the same request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RetrySafe {
    /// The provider did not process it.
    Yes,
    /// It did, or sending it again gives the same answer: retrying cannot help or may repeat the act.
    No,
    /// It may have processed it: only the caller knows whether the call is idempotent.
    Unknown,
}

impl RetrySafe {
    /// The value of the header `gw-retry-safe`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// What to do with a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it again on another connection.
    Replay,
    /// Report the failure, with this word about a retry by the caller.
    Report(RetrySafe),
}

/// Whether the request's body can still be sent from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyHeld {
    /// Every byte taken from the caller so far is held.
    Whole,
    /// Some byte was let go.
    Gone,
}

/// Attempts a request may have in all, the first included. Three: a replay that meets a second GOAWAY gets one
/// more chance; further ones only hide a provider that refuses everything.
pub const MAX_ATTEMPTS: u8 = 3;

impl Verdict {
    /// All verdicts, for registering metrics.
    pub const ALL: [Verdict; 4] = [Self::NotSent, Self::Refused, Self::AboveGoaway, Self::MaybeProcessed];

    /// The metric label and log word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Refused => "refused",
            Self::AboveGoaway => "above_goaway",
            Self::MaybeProcessed => "maybe_processed",
        }
    }

    /// Reads the verdict from what h2 reports for a stream whose HEADERS were accepted for sending.
    ///
    /// A remote GOAWAY as a *stream's* error means only one thing in h2: the stream's id is above the
    /// last-stream-id (`recv_go_away` fails no other). Everything that is not provably unprocessed may have been.
    #[must_use]
    pub fn of_stream_error(error: &h2::Error) -> Self {
        if error.is_go_away() && error.is_remote() {
            Self::AboveGoaway
        } else if error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
        {
            Self::Refused
        } else {
            Self::MaybeProcessed
        }
    }

    /// What remains of the verdict where the provider's last-stream-id is not trusted.
    #[must_use]
    pub fn under(self, trust: LastStreamId, method: &Method) -> Self {
        match (self, trust) {
            (Self::AboveGoaway, LastStreamId::DistrustedUnlessIdempotent) if !method.is_idempotent() => {
                Self::MaybeProcessed
            }
            _ => self,
        }
    }

    /// The provider provably did not process the request.
    #[must_use]
    pub fn is_unprocessed(self) -> bool {
        !matches!(self, Self::MaybeProcessed)
    }

    /// Whether a caller may send it again after a failure with this verdict.
    #[must_use]
    pub fn retry_safe(self) -> RetrySafe {
        if self.is_unprocessed() { RetrySafe::Yes } else { RetrySafe::Unknown }
    }

    /// Replay or report: a pure function of everything that matters.
    #[must_use]
    pub fn decide(self, policy: RetryPolicy, method: &Method, body: BodyHeld, attempts: u8) -> Decision {
        let allowed = match policy {
            RetryPolicy::Never => false,
            RetryPolicy::Unprocessed => self.is_unprocessed(),
            RetryPolicy::Idempotent => self.is_unprocessed() || method.is_idempotent(),
        };
        if allowed && body == BodyHeld::Whole && attempts < MAX_ATTEMPTS {
            Decision::Replay
        } else {
            Decision::Report(self.retry_safe())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprocessed_is_replayed_for_any_method_and_maybe_processed_never_by_default() {
        for verdict in Verdict::ALL {
            for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH] {
                let decision = verdict.decide(RetryPolicy::Unprocessed, &method, BodyHeld::Whole, 1);
                if verdict == Verdict::MaybeProcessed {
                    assert_eq!(decision, Decision::Report(RetrySafe::Unknown));
                } else {
                    assert_eq!(decision, Decision::Replay);
                }
            }
        }
    }

    #[test]
    fn idempotent_policy_adds_only_idempotent_methods() {
        let again = |method: &Method| {
            Verdict::MaybeProcessed.decide(RetryPolicy::Idempotent, method, BodyHeld::Whole, 1)
                == Decision::Replay
        };
        assert!(again(&Method::GET) && again(&Method::PUT) && again(&Method::DELETE));
        assert!(!again(&Method::POST) && !again(&Method::PATCH));
    }

    #[test]
    fn a_body_that_was_let_go_is_reported_as_safe_to_retry_by_the_caller() {
        let decision =
            Verdict::AboveGoaway.decide(RetryPolicy::Unprocessed, &Method::POST, BodyHeld::Gone, 1);
        assert_eq!(decision, Decision::Report(RetrySafe::Yes));
    }

    #[test]
    fn attempts_end_at_the_limit() {
        let at = |n| Verdict::Refused.decide(RetryPolicy::Unprocessed, &Method::GET, BodyHeld::Whole, n);
        assert_eq!(at(MAX_ATTEMPTS - 1), Decision::Replay);
        assert_eq!(at(MAX_ATTEMPTS), Decision::Report(RetrySafe::Yes));
    }
}
