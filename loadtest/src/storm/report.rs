//! What a storm came to: the judgement, the table for people, the JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    sync::Arc,
};

use gateway::runtime::Stopped;
use pool::{CauseOfDeath, PoolStatus, PoolTotals};
use provider_sim::Ledger;
use serde::Serialize;

use super::{
    books::{Books, OUTCOMES, Settled},
    director::Done,
    memory::{Sample, Trend, growth, growth_limit, second_half},
    weather::kinds,
};

/// In a storm as long as this each fault meets some connection that it was meant for, whatever else ends them.
const TIME_TO_MEET_ALL: f64 = 300.0;

/// A storm as long as this has time for every kind of fault.
const TIME_FOR_ALL: f64 = 30.0;

/// The counts that must be zero when nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rest {
    /// Streams leased by the pool.
    pub in_flight: u32,
    /// Requests in the queue.
    pub queue_depth: u32,
    /// Bytes held for replays.
    pub replay_bytes: usize,
    /// Streams that the provider has open.
    pub provider_streams: u64,
    /// Totals of the pool.
    pub totals: PoolTotals,
}

impl Rest {
    /// What a status says.
    pub(super) fn of(status: &PoolStatus, provider_streams: u64) -> Self {
        let &PoolStatus { in_flight, queue_depth, replay_bytes, totals, .. } = status;
        Self { in_flight, queue_depth, replay_bytes, provider_streams, totals }
    }

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let held = self.replay_bytes as u64 + self.provider_streams;
        held + u64::from(self.in_flight) + u64::from(self.queue_depth) == 0
    }
}

/// What was seen.
pub(super) struct Facts {
    /// How long requests started.
    pub seconds: f64,
    /// Ended by a signal.
    pub interrupted: bool,
    /// What was done to the provider.
    pub faults: Vec<Done>,
    /// The counts after the last outcome.
    pub rest: Rest,
    /// Connections that had served and ended, by cause, as the metrics have it.
    pub deaths: BTreeMap<String, u64>,
    /// What the stop of the gateway had to cut.
    pub stopped: Stopped,
    /// Resident memory, once a second.
    pub samples: Vec<Sample>,
    /// The provider's own books.
    pub provider: Ledger,
    /// The ledger.
    pub settled: Settled,
    /// The callers' books.
    pub books: Arc<Books>,
}

/// The report of one storm.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    seed: u64,
    rate: f64,
    seconds: f64,
    interrupted: bool,
    /// Why the storm failed; empty if it did not.
    failures: Vec<String>,
    outcomes: BTreeMap<&'static str, u64>,
    causes: BTreeMap<String, u64>,
    settled: Settled,
    latency_ms: BTreeMap<&'static str, f64>,
    rest: Rest,
    deaths: BTreeMap<String, u64>,
    provider: Ledger,
    faults_by_kind: BTreeMap<&'static str, u64>,
    memory: Memory,
    faults: Vec<Done>,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    peak_bytes: u64,
    trend: Trend,
    growth_bytes: f64,
    growth_limit_bytes: f64,
}

impl Report {
    pub(super) fn new(seed: u64, rate: f64, facts: Facts) -> Self {
        let trend = second_half(&facts.samples, facts.seconds);
        let growth_bytes = growth(&facts.samples, facts.seconds);
        let growth_limit_bytes = growth_limit(facts.seconds, rate);
        let mut failures = failures(&facts);
        if growth_bytes > growth_limit_bytes {
            failures.push(format!("memory grew by {:.1} MiB", mib(growth_bytes)));
        }
        let Facts { seconds, interrupted, faults, rest, deaths, samples, provider, settled, books, .. } =
            facts;
        let mut faults_by_kind = BTreeMap::new();
        for done in &faults {
            *faults_by_kind.entry(done.fault.name()).or_default() += 1;
        }
        let latency = books.latency();
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            seed,
            rate,
            seconds,
            interrupted,
            failures,
            outcomes: OUTCOMES.into_iter().map(|outcome| (outcome.words(), books.total(outcome))).collect(),
            causes: books.causes(),
            settled,
            latency_ms: [("p50", at(0.5)), ("p99", at(0.99)), ("p99.9", at(0.999)), ("max", at(1.0))].into(),
            rest,
            deaths,
            provider,
            faults_by_kind,
            memory: Memory {
                peak_bytes: samples.iter().map(|sample| sample.resident).max().unwrap_or_default(),
                trend,
                growth_bytes,
                growth_limit_bytes,
            },
            faults,
            samples,
        }
    }

    /// Whether nothing was lost, doubled, left over or unlogged, and memory is flat.
    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    /// Writes the table for people.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "storm of {} s at {} requests/s, seed {}", self.seconds, self.rate, self.seed)?;
        if self.interrupted {
            writeln!(out, "  interrupted by a signal")?;
        }
        writeln!(out, "  faults done")?;
        for (kind, count) in &self.faults_by_kind {
            writeln!(out, "    {count:8}  {kind}")?;
        }
        writeln!(out, "  {:10}  requests offered", self.settled.offered)?;
        for outcome in OUTCOMES {
            writeln!(out, "    {:8}  {}", self.outcomes[outcome.words()], outcome.words())?;
        }
        for (cause, count) in &self.causes {
            writeln!(out, "              {count} x {cause}")?;
        }
        let totals = &self.rest.totals;
        writeln!(out, "  {:10}  times processed by the provider", self.settled.processed)?;
        writeln!(out, "  {:10}  lines in the access log", self.settled.logged)?;
        writeln!(
            out,
            "  pool        {} connections, {} of them resumed, {} dials failed, {} replays, {} waited for a dial",
            totals.connections,
            totals.handshakes_resumed,
            totals.dials_failed,
            totals.replays,
            totals.waited_for_dial
        )?;
        let deaths: Vec<_> = self.deaths.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        writeln!(out, "  ends        of connections by cause: {}", deaths.join(", "))?;
        writeln!(
            out,
            "  provider    {} connections of HTTP/2, {} of HTTP/1.1, {} handshakes full",
            self.provider.connections_http2, self.provider.connections_http11, self.provider.handshakes_full
        )?;
        writeln!(
            out,
            "  at rest     in flight {}, queued {}, replay bytes {}, streams at the provider {}",
            self.rest.in_flight, self.rest.queue_depth, self.rest.replay_bytes, self.rest.provider_streams
        )?;
        let latency: Vec<_> = self.latency_ms.iter().map(|(name, ms)| format!("{name} {ms:.1}")).collect();
        writeln!(out, "  latency     ms of answered requests: {}", latency.join("  "))?;
        writeln!(
            out,
            "  memory      peak RSS {:.1} MiB; line through the second half {:+.2} KiB/s; growth {:+.1} MiB (limit {:.1})",
            mib(self.memory.peak_bytes as f64),
            self.memory.trend.bytes_per_second / 1024.0,
            mib(self.memory.growth_bytes),
            mib(self.memory.growth_limit_bytes),
        )?;
        self.write_verdict(out)
    }

    fn write_verdict(&self, out: &mut dyn Write) -> io::Result<()> {
        for failure in &self.failures {
            writeln!(out, "  FAILED      {failure}")?;
        }
        if self.is_good() {
            writeln!(
                out,
                "  good        0 lost that were provably unprocessed, 0 processed twice, one outcome and one log \
                 line each, all counts back to zero, memory flat"
            )?;
        }
        Ok(())
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

fn failures(facts: &Facts) -> Vec<String> {
    let mut failures = Vec::new();
    for (breach, found) in &facts.settled.breaches {
        let name =
            serde_json::to_value(breach).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let first: Vec<_> = found.first.iter().map(|(sequence, _)| sequence.to_string()).collect();
        failures.push(format!("{} x {name}; the first: {}", found.count, first.join(", ")));
    }
    let mut must_be_zero = |count: u64, what: &str| {
        if count > 0 {
            failures.push(format!("{count} {what}"));
        }
    };
    must_be_zero(facts.books.ended_twice(), "requests with two outcomes");
    must_be_zero(facts.rest.in_flight.into(), "streams still leased at rest");
    must_be_zero(facts.rest.queue_depth.into(), "requests still queued at rest");
    must_be_zero(facts.rest.replay_bytes as u64, "bytes still held for replays at rest");
    must_be_zero(
        facts.rest.totals.unprocessed_lost,
        "requests failed although provably unprocessed and still held, by the pool's own count",
    );
    must_be_zero(facts.rest.provider_streams, "streams still open at the provider");
    must_be_zero(
        facts.provider.stream_limit_breaches,
        "streams above the limit that the gateway had acknowledged",
    );
    must_be_zero(facts.stopped.callers as u64, "callers' connections cut by the stop");
    must_be_zero(facts.stopped.streams.into(), "streams cut by the stop");
    must_be_zero(facts.stopped.log_lines as u64, "log lines cut by the stop");
    let done: BTreeSet<_> = facts.faults.iter().map(|done| done.fault.name()).collect();
    let missing: Vec<_> = kinds().difference(&done).copied().collect();
    if !facts.interrupted && facts.seconds >= TIME_FOR_ALL && !missing.is_empty() {
        failures.push(format!("these faults never came: {}", missing.join(", ")));
    }
    if facts.seconds >= TIME_TO_MEET_ALL && !facts.interrupted {
        failures.extend(unmet(facts));
    }
    if facts.settled.offered == 0 {
        failures.push("no request was offered: nothing is proven".to_owned());
    }
    failures
}

/// Faults that came and met nothing: then the storm proves less than it says.
fn unmet(facts: &Facts) -> Vec<String> {
    let deaths = |cause: CauseOfDeath| facts.deaths.get(cause.as_str()).copied().unwrap_or_default();
    [
        (facts.provider.connections_http11, "HTTP/1.1 was never spoken"),
        (deaths(CauseOfDeath::PingTimeout), "no connection was given up for its PINGs"),
        (deaths(CauseOfDeath::AddressGone), "no connection was drained for its address"),
        (deaths(CauseOfDeath::Replaced), "no connection was replaced by one of a new identity"),
        (deaths(CauseOfDeath::Goaway), "no connection was ended by GOAWAY"),
    ]
    .into_iter()
    .filter(|(met, _)| *met == 0)
    .map(|(_, what)| what.to_owned())
    .collect()
}
