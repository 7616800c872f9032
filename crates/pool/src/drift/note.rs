//! Where the drift log is fed and told: at the proof of a connection, at its end, when limits are learned.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{DriftChange, DriftSeverity, Fingerprint, Goodbye};
use crate::{
    connection::Link,
    learned::LearnedLimits,
    status::{CauseOfDeath, Protocol},
    supervisor::Context,
};

/// Whether a dial offered a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resumption {
    /// It took one from the store.
    Offered,
    /// There was none, or another dial ran at the same time and may have taken it.
    Unknown,
}

/// Counts dials, to know which of them ran alone.
#[derive(Debug, Default)]
pub(crate) struct DialCount {
    begun: AtomicU64,
    open: AtomicU64,
}

/// A dial under way.
pub(crate) struct DialWatch<'a> {
    count: &'a DialCount,
    number: u64,
    alone: bool,
    taken: u64,
}

impl DialCount {
    /// A dial begins, with so many tickets taken so far.
    pub(crate) fn begin(&self, taken: u64) -> DialWatch<'_> {
        let alone = self.open.fetch_add(1, Ordering::SeqCst) == 0;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        DialWatch { count: self, number, alone, taken }
    }
}

impl DialWatch<'_> {
    /// Its handshake is over, with so many tickets taken by now.
    pub(crate) fn end(self, taken: u64) -> Resumption {
        let alone = self.alone && self.count.begun.load(Ordering::SeqCst) == self.number;
        if alone && taken > self.taken { Resumption::Offered } else { Resumption::Unknown }
    }
}

impl Drop for DialWatch<'_> {
    fn drop(&mut self) {
        self.count.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Context {
    /// A connection serves: compares its provider with what is known.
    pub(crate) fn note_proven(&self, link: &Link, resumption: Resumption) {
        let birth = &link.birth;
        let passport = link.passport.status(Duration::ZERO, 0);
        let mut fingerprint =
            Fingerprint::default().with_handshake(&birth.facts).with_address(birth.address.into());
        if let Some(settings) = &passport.settings {
            fingerprint = fingerprint.with_settings(settings);
        }
        let resumed = birth.facts.kind.is_resumed();
        if birth.facts.version == tls_core::TlsVersion::Tls13
            && !resumed
            && let Some(tickets) = passport.tickets_received
        {
            fingerprint = fingerprint.with_tickets(tickets);
        }
        if resumed || resumption == Resumption::Offered {
            fingerprint = fingerprint.with_resumption(resumed);
        }
        self.note_drift(&fingerprint);
    }

    /// The provider sent SETTINGS anew.
    pub(crate) fn note_settings(&self, link: &Link) {
        if let Some(settings) = &link.passport.status(Duration::ZERO, 0).settings {
            self.note_drift(&Fingerprint::default().with_settings(settings));
        }
    }

    /// A connection ended: how the provider said goodbye, if it was the provider.
    pub(crate) fn note_gone(&self, link: &Link, cause: CauseOfDeath) {
        let by_provider = matches!(cause, CauseOfDeath::Goaway | CauseOfDeath::ClosedByProvider);
        if by_provider && let Some(goodbye) = goodbye(link) {
            self.note_drift(&Fingerprint::default().with_farewell(goodbye));
        }
    }

    /// The limits that the provider enforces without saying so were learned, changed or dropped.
    pub(crate) fn note_limits(&self, limits: &LearnedLimits) {
        self.note_drift(&Fingerprint::default().with_limits(limits.requests, limits.age, limits.idle));
    }

    fn note_drift(&self, fingerprint: &Fingerprint) {
        let wall = self.records.wall_time();
        let news = self.records.drift.lock().observe(Instant::now(), wall, fingerprint);
        for change in &news {
            self.observer.drifted(change.field);
            self.log_drift(change);
        }
    }

    fn log_drift(&self, change: &DriftChange) {
        let environment = &self.key.environment;
        let field = change.field.as_str();
        match change.severity {
            DriftSeverity::Warning => {
                tracing::warn!(%environment, field, "the provider changed: {change}");
            }
            DriftSeverity::Notice => tracing::info!(%environment, field, "the provider changed: {change}"),
        }
    }
}

/// How the provider said goodbye on this connection, if it did.
fn goodbye(link: &Link) -> Option<Goodbye> {
    if link.birth.protocol == Protocol::H2 {
        return Some(match link.passport.status(Duration::ZERO, 0).goaways {
            0 => Goodbye::Close,
            1 => Goodbye::GoAway,
            _ => Goodbye::GoAwayTwice,
        });
    }
    // An end in the middle of an exchange is an accident: nobody kept how it stood then.
    link.vitals().farewell()?;
    // Announced with a response, it drained until that was read; without a word it served to the end.
    Some(if link.drain_since().is_some() { Goodbye::LastResponse } else { Goodbye::Close })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dial_that_ran_alone_and_took_a_ticket_is_known_to_have_offered_one() {
        let count = DialCount::default();
        assert_eq!(count.begin(5).end(6), Resumption::Offered);
        assert_eq!(count.begin(6).end(6), Resumption::Unknown, "there was none");
        let first = count.begin(6);
        let second = count.begin(6);
        assert_eq!(second.end(7), Resumption::Unknown, "the other may have taken it");
        assert_eq!(first.end(7), Resumption::Unknown, "the other may have taken it");
        let given_up = count.begin(7);
        drop(given_up);
        assert_eq!(count.begin(7).end(8), Resumption::Offered);
    }
}
