//! Writes obituaries: from a link that ended, from a dial that failed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{DialTimes, Name, Obituaries, Obituary, PinStart, PingMicros, Prefix, ShortText, UnixMicros};
use crate::{
    connection::Link,
    dial::Progress,
    drift::{DialCount, Drift},
    error::DialError,
    journey::ConnectionId,
    status::CauseOfDeath,
    supervisor::Context,
};

/// What one pool keeps for whoever looks afterwards.
#[derive(Debug)]
pub(crate) struct Records {
    environment: Arc<str>,
    obituaries: Arc<Obituaries>,
    /// What changed about the provider.
    pub(crate) drift: Mutex<Drift>,
    /// Which dials ran alone.
    pub(crate) dials: DialCount,
}

impl Records {
    /// Of this environment's pool.
    pub(crate) fn new(environment: &str, obituaries: Arc<Obituaries>) -> Self {
        Self {
            environment: environment.into(),
            obituaries,
            drift: Mutex::new(Drift::new()),
            dials: DialCount::default(),
        }
    }

    /// The store's wall time.
    pub(crate) fn wall_time(&self) -> time::OffsetDateTime {
        self.obituaries.now()
    }
}

/// What is known of an end beside the link itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buried<'a> {
    pub(crate) cause: CauseOfDeath,
    /// What was said about it, h2's words for example.
    pub(crate) detail: &'a str,
    pub(crate) at: Instant,
}

impl Context {
    /// Keeps the obituary of a connection that served.
    pub(crate) fn bury(&self, link: &Link, end: Buried<'_>) {
        let records = &self.records;
        let age = end.at.saturating_duration_since(link.birth.born);
        let facts = &link.birth.facts;
        let passport = link.passport.status(age, link.in_flight());
        let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        records.obituaries.push(Obituary {
            id: link.id(),
            environment: records.environment.clone(),
            generation: link.birth.generation,
            ended: UnixMicros::of(records.wall_time()),
            age_us: micros(age),
            idle_us: passport.idle.map_or(u64::MAX, micros),
            requests: link.requests(),
            address: Some(link.birth.address.into()),
            phases: DialTimes::from(&link.phases()),
            ping: PingMicros::from(passport.ping),
            cipher_suite: Some(Name::of(facts.cipher_suite)),
            key_exchange: facts.key_exchange.map(Name::of),
            code: None,
            goaway: passport.goaway,
            peak_in_flight: link.peak_in_flight(),
            tickets_received: passport
                .tickets_received
                .map_or(0, |count| u16::try_from(count).unwrap_or(u16::MAX)),
            leaf: facts.peer_chain.first().map(Prefix::of),
            anchor: Some(Prefix::of(&facts.anchor)),
            pin: facts.pin.as_ref().map(PinStart::of),
            protocol: Some(link.birth.protocol),
            handshake: Some(facts.kind),
            tls: Some(facts.version),
            proof: link.passport.proof(),
            cause: end.cause,
            detail: link.passport.parting_words().unwrap_or_else(|| ShortText::of(end.detail)),
        });
    }

    /// Keeps the obituary of a dial that failed.
    pub(crate) fn bury_dial(
        &self,
        id: ConnectionId,
        generation: u64,
        progress: &Progress,
        error: &DialError,
    ) {
        let records = &self.records;
        let phases = progress.phases_now();
        records.obituaries.push(Obituary {
            id,
            environment: records.environment.clone(),
            generation,
            ended: UnixMicros::of(records.wall_time()),
            age_us: u64::try_from(phases.total.as_micros()).unwrap_or(u64::MAX),
            idle_us: u64::MAX,
            requests: 0,
            address: progress.address.parse().ok(),
            phases: DialTimes::from(&phases),
            ping: PingMicros::from(None),
            cipher_suite: None,
            key_exchange: None,
            code: Some(Name::of(error.code())),
            goaway: None,
            peak_in_flight: 0,
            tickets_received: 0,
            leaf: None,
            anchor: None,
            pin: None,
            protocol: None,
            handshake: None,
            tls: None,
            proof: None,
            cause: CauseOfDeath::NeverServed,
            detail: ShortText::of(error.to_string()),
        });
    }
}
