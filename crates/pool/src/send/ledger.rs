//! The ledger of one request: what its attempts came to, and what may follow. Pure: it sends and measures nothing.
//!
//! Owns the rules above a single verdict: three attempts, leases that came to nothing not counted, doubt that never goes
//! away, and what counts as lost.

use http::Method;

use crate::{
    config::{LastStreamId, RetryPolicy},
    verdict::{BodyHeld, Decision, MAX_ATTEMPTS, RetrySafe, Verdict},
};

/// Leases that may come to nothing before the request is given up. More than one connection opens no streams only while
/// many end at once, so this bounds a mistake, not a situation.
pub(super) const MAX_UNSENT: u8 = 16;

/// What a request's attempts came to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    attempts: u8,
    unsent: u8,
    /// An attempt may have been processed.
    in_doubt: bool,
    /// The last attempt provably was not processed, and the body was held.
    owed: bool,
}

/// A failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) verdict: Verdict,
    pub(super) cause: Cause,
    pub(super) body: BodyHeld,
}

/// Who ended an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The provider or the network.
    Provider,
    /// A time limit.
    Clock,
    /// The caller, or the request itself.
    Caller,
}

/// By which rules a request is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) policy: RetryPolicy,
    pub(super) last_stream_id: LastStreamId,
    pub(super) method: &'a Method,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Nothing was sent: lease again. No attempt was used up.
    LeaseAnew,
    /// Send it again elsewhere.
    Replay,
    /// It is over.
    Report(Report),
}

/// What the caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) verdict: Verdict,
    pub(super) retry_safe: RetrySafe,
    pub(super) loss: Loss,
    pub(super) denied: Denied,
}

/// Whether the pool failed to deliver what it could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// No.
    None,
    /// The provider did not process it, its body is held, and yet it failed.
    Unprocessed,
}

/// Whether the retry budget stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// No.
    No,
    /// A replay that the rules allow was too many.
    ByBudget,
}

/// Why a request got no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Starved {
    /// The queue was full, or its time ran out.
    Queue,
    /// Nothing served for as long as may be waited, the pool stops, or the caller's own time ran out: no pool could
    /// have done better.
    Beyond,
}

impl Ledger {
    /// Attempts under way or made; leases that came to nothing aside.
    pub(super) fn attempts(&self) -> u8 {
        self.attempts
    }

    /// The provider did not process what was sent, and the body is held: the request is owed another attempt.
    pub(super) fn is_owed(&self) -> bool {
        self.owed
    }

    /// A lease was had.
    pub(super) fn begin(&mut self) {
        self.attempts += 1;
    }

    /// The attempt failed. `affordable` is asked, once, only where a replay depends on the retry budget: where the
    /// request may have been processed.
    pub(super) fn rule(
        &mut self,
        failed: Failed,
        terms: Terms<'_>,
        affordable: impl FnOnce() -> bool,
    ) -> Ruling {
        let Failed { cause, body, .. } = failed;
        let verdict = failed.verdict.under(terms.last_stream_id, terms.method);
        self.owed = verdict.is_unprocessed() && body == BodyHeld::Whole && cause == Cause::Provider;
        let decision = match (cause, verdict) {
            (Cause::Caller, _) => Decision::Report(RetrySafe::No),
            (Cause::Clock, _) => Decision::Report(RetrySafe::Unknown),
            (Cause::Provider, Verdict::NotSent) if self.owed && self.unsent < MAX_UNSENT => {
                self.attempts -= 1;
                self.unsent += 1;
                return Ruling::LeaseAnew;
            }
            // A policy that sends nothing twice gives up here: that is no loss.
            (Cause::Provider, _) => verdict.decide(terms.policy, terms.method, body, self.attempts),
        };
        let (retry_safe, denied) = match decision {
            Decision::Replay if verdict.is_unprocessed() => return Ruling::Replay,
            Decision::Replay if affordable() => {
                self.in_doubt = true;
                return Ruling::Replay;
            }
            Decision::Replay => (verdict.retry_safe(), Denied::ByBudget),
            Decision::Report(retry_safe) => (retry_safe, Denied::No),
        };
        let given_up = self.attempts >= MAX_ATTEMPTS || self.unsent >= MAX_UNSENT;
        let loss = self.loss(given_up && terms.policy != RetryPolicy::Never);
        Ruling::Report(self.report(verdict, retry_safe, loss, denied))
    }

    /// No stream was had, for the first attempt or for a further one.
    pub(super) fn starve(&self, starved: Starved) -> Report {
        let loss = self.loss(starved == Starved::Queue);
        self.report(Verdict::NotSent, RetrySafe::Yes, loss, Denied::No)
    }

    fn loss(&self, ours: bool) -> Loss {
        if self.owed && ours && !self.in_doubt { Loss::Unprocessed } else { Loss::None }
    }

    /// Once an attempt may have been processed, no later one can make a retry safe.
    fn report(&self, verdict: Verdict, retry_safe: RetrySafe, loss: Loss, denied: Denied) -> Report {
        let (verdict, retry_safe) =
            if self.in_doubt { (Verdict::MaybeProcessed, RetrySafe::Unknown) } else { (verdict, retry_safe) };
        Report { verdict, retry_safe, loss, denied }
    }
}

#[cfg(test)]
mod tests;
