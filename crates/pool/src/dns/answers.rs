//! What is known of one name: which addresses it has, which are gone, when to ask again, in what order to dial.
//!
//! Pure: time comes in as an argument, nothing is asked here. [`super::Directory`] asks and tells.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

/// An answer is not asked for more often than this, whatever its TTL: with TTL 0 each dial asks, but a storm of dials
/// is not a storm of queries.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest pause before a name that could not be resolved is asked for again.
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How long "there is no such name" is believed at most, so that a name that appears is found soon.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(5);
/// Answers rotate: an address is gone when absent from this many in a row …
const ABSENT_ANSWERS: u32 = 3;
/// … over this many TTLs.
const ABSENT_TTLS: u32 = 2;
/// Most addresses taken from one answer; a UDP answer of 4 KiB holds about 250.
const MAX_PER_ANSWER: usize = 64;
/// Most addresses remembered; the longest absent ones are let go first.
const MAX_KNOWN: usize = 256;
/// How long an address that failed once is tried last; doubles with each failure in a row.
const PENALTY: Duration = Duration::from_secs(5);
/// Longest penalty.
const LONGEST_PENALTY: Duration = Duration::from_secs(300);

/// What a resolver found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The addresses, in the resolver's order. Never empty.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long they may be believed: the shortest TTL on the way to them.
    pub(crate) ttl: Duration,
    /// A family whose half of the question was not answered: nothing is known of its addresses.
    pub(crate) silent: Option<Family>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4, asked for as A.
    V4,
    /// IPv6, asked for as AAAA.
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The one that this is not.
    pub(super) fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// Why a resolver found nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The name does not exist, or has no address.
    #[error("{detail}")]
    NoAddress {
        /// What the answer said.
        detail: String,
        /// How long that may be believed.
        ttl: Duration,
    },
    /// No usable answer came.
    #[error("{detail}")]
    Failed {
        /// What went wrong.
        detail: String,
    },
}

/// What a dial should do about its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Take what is known.
    Use,
    /// Something is known, but its time is over: wait a little for a new answer, then use the old one.
    WaitBriefly,
    /// Nothing is known: wait for an answer.
    Wait,
    /// Nothing is known, and an answer failed too lately to ask again.
    Refuse(String),
}

/// What an answer changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Addresses that were not known before.
    pub(super) came: Vec<IpAddr>,
    /// Addresses that are gone.
    pub(super) gone: Vec<IpAddr>,
    /// Whether the name can be resolved.
    pub(super) health: Health,
}

/// How the ability to resolve changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Health {
    /// As it was.
    #[default]
    Unchanged,
    /// It was lost with this answer.
    Lost,
    /// It is back.
    Regained,
}

/// What is known of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) address: IpAddr,
    absence: Option<Absence>,
    strikes: Option<Strikes>,
}

/// Answers in a row that did not hold the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Absence {
    answers: u32,
    since: Instant,
    longest_ttl: Duration,
}

/// Dials in a row that failed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strikes {
    count: u32,
    at: Instant,
}

impl Strikes {
    fn weighs(&self, now: Instant) -> bool {
        let doublings = self.count.saturating_sub(1).min(16);
        now < self.at + PENALTY.saturating_mul(1 << doublings).min(LONGEST_PENALTY)
    }
}

impl Known {
    /// Answers in a row that did not hold it.
    pub(super) fn absent_answers(&self) -> u32 {
        self.absence.map_or(0, |absence| absence.answers)
    }

    /// A dial there failed lately.
    pub(super) fn is_penalised(&self, now: Instant) -> bool {
        self.strikes.is_some_and(|strikes| strikes.weighs(now))
    }

    /// One more answer without it. Says whether it is gone.
    fn missed(&mut self, now: Instant, ttl: Duration) -> bool {
        let absence = self.absence.get_or_insert(Absence { answers: 0, since: now, longest_ttl: ttl });
        absence.answers += 1;
        absence.longest_ttl = absence.longest_ttl.max(ttl);
        absence.answers >= ABSENT_ANSWERS
            && now.saturating_duration_since(absence.since) >= absence.longest_ttl * ABSENT_TTLS
    }
}

/// The failure that stands since the last good answer.
#[derive(Clone, Debug)]
struct Failure {
    error: ResolveError,
    since: Instant,
    count: u32,
    retry_at: Instant,
}

/// What is known of one name.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Those of the last good answer in its order, then those that were absent from it but are not gone.
    known: Vec<Known>,
    /// Until when the last good answer may be believed; `None` before the first.
    until: Option<Instant>,
    failure: Option<Failure>,
}

impl Answers {
    /// Takes an answer, or the lack of one. The last good answer outlives failures, "no such name" too: a slip of
    /// whoever keeps the zone ends no connection.
    pub(super) fn note(&mut self, now: Instant, result: Result<Answer, ResolveError>) -> Change {
        match result {
            Ok(answer) => {
                let failed = self.failure.take().is_some();
                let mut change = self.take(now, &answer, None);
                change.health = if failed { Health::Regained } else { Health::Unchanged };
                change
            }
            Err(error) => {
                let (since, count) = self.failure.as_ref().map_or((now, 1), |f| (f.since, f.count + 1));
                let pause = match &error {
                    ResolveError::NoAddress { ttl, .. } => (*ttl).clamp(SHORTEST, LONGEST_NEGATIVE),
                    ResolveError::Failed { .. } => {
                        SHORTEST.saturating_mul(1 << (count - 1).min(8)).min(LONGEST_RETRY)
                    }
                };
                self.failure = Some(Failure { error, since, count, retry_at: now + pause });
                let health = if count == 1 { Health::Lost } else { Health::Unchanged };
                Change { health, ..Change::default() }
            }
        }
    }

    /// Takes the whole of an answer of which the half of family `counted` was taken before: that half counts once, and
    /// may be believed no longer than it said.
    pub(super) fn note_rest(&mut self, now: Instant, answer: &Answer, counted: Family) -> Change {
        let until = self.until;
        let change = self.take(now, answer, Some(counted));
        self.until = self.until.min(until);
        change
    }

    /// `counted` is the family that the same answer was taken for already.
    fn take(&mut self, now: Instant, answer: &Answer, counted: Option<Family>) -> Change {
        let ttl = answer.ttl.max(SHORTEST);
        self.until = Some(now + ttl);
        let mut change = Change::default();
        let before = std::mem::take(&mut self.known);
        for &address in answer.addresses.iter().take(MAX_PER_ANSWER) {
            if self.find(address).is_some() {
                continue;
            }
            let known = before.iter().find(|known| known.address == address);
            if known.is_none() {
                change.came.push(address);
            }
            self.known.push(Known { address, absence: None, strikes: known.and_then(|k| k.strikes) });
        }
        let mut absent = Vec::new();
        for mut known in before {
            if self.find(known.address).is_some() {
                continue;
            }
            let family = Some(Family::of(known.address));
            if answer.silent == family || counted == family {
                self.known.push(known);
            } else if known.missed(now, ttl) {
                change.gone.push(known.address);
            } else {
                absent.push(known);
            }
        }
        absent.sort_by_key(Known::absent_answers);
        self.known.extend(absent);
        change.gone.extend(self.known.drain(self.known.len().min(MAX_KNOWN)..).map(|known| known.address));
        change
    }

    fn find(&self, address: IpAddr) -> Option<&Known> {
        self.known.iter().find(|known| known.address == address)
    }

    fn find_mut(&mut self, address: IpAddr) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.address == address)
    }

    /// What a dial at `now` should do.
    pub(super) fn demand(&self, now: Instant) -> Demand {
        let pausing = self.failure.as_ref().filter(|failure| now < failure.retry_at);
        match (self.until, pausing) {
            (Some(until), _) if now < until => Demand::Use,
            (Some(_), Some(_)) => Demand::Use,
            (Some(_), None) => Demand::WaitBriefly,
            (None, Some(failure)) => Demand::Refuse(failure.error.to_string()),
            (None, None) => Demand::Wait,
        }
    }

    /// When to ask next of one's own accord; `None` for at once.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        self.failure.as_ref().map(|failure| failure.retry_at).or(self.until)
    }

    /// Whether the address has left the name. Not before the first good answer, and not while answers fail.
    pub(super) fn is_gone(&self, address: IpAddr) -> bool {
        self.until.is_some() && self.find(address).is_none()
    }

    /// The addresses of the last good answer in the order in which to dial them: those that failed lately last, the
    /// least used first, and among equals IPv6 and IPv4 in turn (RFC 8305 §4).
    pub(super) fn candidates(&self, now: Instant, in_use: impl Fn(IpAddr) -> u32) -> Vec<IpAddr> {
        let present = self.known.iter().filter(|known| known.absence.is_none());
        let (v6, v4): (Vec<&Known>, Vec<&Known>) = present.partition(|known| known.address.is_ipv6());
        let mut ordered = interleave(v6, v4);
        ordered.sort_by_key(|known| {
            let penalty = known.strikes.filter(|strikes| strikes.weighs(now)).map(|strikes| strikes.at);
            (penalty, in_use(known.address))
        });
        ordered.into_iter().map(|known| known.address).collect()
    }

    /// A dial there failed.
    pub(super) fn struck(&mut self, address: IpAddr, now: Instant) {
        if let Some(known) = self.find_mut(address) {
            let count = known.strikes.map_or(0, |strikes| strikes.count).saturating_add(1);
            known.strikes = Some(Strikes { count, at: now });
        }
    }

    /// A connection there came to serve.
    pub(super) fn forgiven(&mut self, address: IpAddr) {
        if let Some(known) = self.find_mut(address) {
            known.strikes = None;
        }
    }

    /// The addresses that are not gone.
    pub(super) fn known(&self) -> &[Known] {
        &self.known
    }

    /// How long the last good answer may still be believed; `None` when its time is over or there is none.
    pub(super) fn valid_for(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now)
    }

    /// Since when answers fail, and why.
    pub(super) fn failing(&self) -> Option<(Instant, &ResolveError)> {
        self.failure.as_ref().map(|failure| (failure.since, &failure.error))
    }
}

fn interleave<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    let mut whole = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            return whole;
        }
        whole.extend(a.into_iter().chain(b));
    }
}

#[cfg(test)]
mod tests;
