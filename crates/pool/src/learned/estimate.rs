//! The fits: which value, if any, do the newest samples agree on?

use std::time::Duration;

use super::Sample;

/// A value that samples agree on, and by how much they differ, in parts per thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit<T> {
    pub(super) value: T,
    pub(super) spread: u64,
}

/// Samples that must agree where values may differ a little.
const AGREEING: usize = 3;
/// Connections of one age that end together and are enough to suspect that age.
const COMMON: usize = 2;
/// Two ends at exactly the same count are no accident, if the count is at least this.
const TELLING: u64 = 16;
/// Connections that carry fewer requests than this cannot be met by a successor in time.
const LEAST_REQUESTS: u64 = 4;
/// Limits on time below these are a provider that fails, not one with a rule.
const LEAST_AGE: Duration = Duration::from_secs(2);
const LEAST_IDLE: Duration = Duration::from_secs(1);
/// Timers of servers are coarse.
const TIMER_SLACK: Duration = Duration::from_millis(500);

/// The number of requests after which the provider ends a connection.
pub(super) fn requests_of(newest_first: &[Sample]) -> Option<Fit<u64>> {
    // An end while idle says nothing about a count.
    let counts: Vec<_> = newest_first.iter().filter(|s| s.idle.is_none() || s.requests > 0).collect();
    if let [a, b, ..] = counts.as_slice()
        && a.requests == b.requests
        && a.requests >= TELLING
        && a.uncertain + b.uncertain == 0
        && a.idle.is_none()
        && b.idle.is_none()
    {
        return Some(Fit { value: a.requests, spread: 0 });
    }
    // Idle connections of HTTP/1.1 carried few requests each, so a restart that closes them all would agree with itself.
    let counts = lone(counts.into_iter(), |s| s.age);
    let counts = counts.get(..AGREEING)?;
    let least = counts.iter().map(|s| s.requests).min()?;
    let most = counts.iter().map(|s| s.requests).max()?;
    let uncertain = counts.iter().map(|s| s.uncertain).max()?;
    let busy = counts.iter().any(|s| s.idle.is_none());
    let tolerated = (least / 20).max(uncertain).max(2).min(least / 4);
    (busy && least >= LEAST_REQUESTS && most - least <= tolerated)
        .then(|| Fit { value: least, spread: (most - least) * 1000 / least.max(1) })
}

/// The age at which the provider ends a connection.
pub(super) fn age_of(newest_first: &[Sample]) -> Option<Fit<Duration>> {
    let busy: Vec<_> = newest_first.iter().filter(|s| s.idle.is_none()).copied().collect();
    agreed(&apart(&busy, |s| s.age), LEAST_AGE)
}

/// The age at which connections that were born together have just ended together, in order, and not all for being idle.
pub(super) fn common_age_of(newest_first: &[Sample]) -> Option<Duration> {
    let newest = newest_first.first()?;
    let event: Vec<_> = newest_first.iter().take_while(|sample| are_together(newest, sample)).collect();
    let youngest = event.iter().min_by_key(|sample| sample.age)?;
    let in_use = |sample: &&Sample| sample.idle.is_none_or(|idle| idle < sample.age / 2);
    let common = event.len() >= COMMON
        && youngest.age >= LEAST_AGE
        && event.iter().any(in_use)
        && event.iter().all(|sample| sample.orderly && are_alike(youngest, sample));
    common.then_some(youngest.age)
}

/// Whether these connections ended at the same moment, as far as ages of theirs can be told apart.
pub(super) fn are_together(one: &Sample, other: &Sample) -> bool {
    let (earlier, later) = (one.at.min(other.at), one.at.max(other.at));
    later.saturating_duration_since(earlier) <= tolerance(one.age.min(other.age))
}

/// Whether these connections ended at the same age.
pub(super) fn are_alike(one: &Sample, other: &Sample) -> bool {
    one.age.abs_diff(other.age) <= tolerance(one.age.min(other.age))
}

fn tolerance(shortest: Duration) -> Duration {
    (shortest / 20).max(TIMER_SLACK)
}

/// How long a connection may be idle before the provider ends it.
pub(super) fn idle_of(newest_first: &[Sample]) -> Option<Duration> {
    let idle: Vec<_> = newest_first.iter().filter(|s| s.idle.is_some()).copied().collect();
    agreed(&apart(&idle, |s| s.idle.unwrap_or_default()), LEAST_IDLE).map(|fit| fit.value)
}

/// The durations of samples that ended apart.
fn apart(newest_first: &[Sample], measure: fn(&Sample) -> Duration) -> Vec<Duration> {
    lone(newest_first.iter(), measure).into_iter().map(measure).collect()
}

/// The samples that ended apart: connections that end together ended by one event (a restart, a break of the network),
/// whatever their age and whatever they carried.
fn lone<'s>(
    newest_first: impl Iterator<Item = &'s Sample>,
    measure: fn(&Sample) -> Duration,
) -> Vec<&'s Sample> {
    let mut kept: Vec<&Sample> = Vec::new();
    for sample in newest_first {
        if kept.iter().all(|k| k.at.saturating_duration_since(sample.at) > measure(sample) / 10) {
            kept.push(sample);
        }
    }
    kept
}

fn agreed(durations: &[Duration], least: Duration) -> Option<Fit<Duration>> {
    let durations = durations.get(..AGREEING)?;
    let shortest = *durations.iter().min()?;
    let spread = *durations.iter().max()? - shortest;
    (shortest >= least && spread <= tolerance(shortest)).then(|| Fit {
        value: shortest,
        spread: u64::try_from(spread.as_micros() * 1000 / shortest.as_micros().max(1)).unwrap_or(u64::MAX),
    })
}
