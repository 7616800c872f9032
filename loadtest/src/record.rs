//! What became of every request: outcome counts that must balance, and latency histograms.
//!
//! Each worker has one recorder; the runner merges them. A request is entered as started before its first
//! await and leaves as ok or lost of one kind, never as both and never as neither.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hdrhistogram::Histogram;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::schedule::{Phase, Ticket};

/// Latencies above this are recorded as this: no time-out of a load test is longer. Microseconds.
const HIGHEST_US: u64 = 600_000_000;

/// Three digits keep the error of a percentile at or below 0.1 %, in 200 KiB per histogram.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Why a request was lost. Every kind makes the run fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LostKind {
    /// No connection to send it on.
    Connect,
    /// The connection ended, or failed, after the request was handed to it.
    Closed,
    /// The peer's GOAWAY excluded it after it was sent.
    Goaway,
    /// The peer reset its stream.
    Reset,
    /// The reply was no valid HTTP or gRPC.
    Protocol,
    /// No complete reply within the time-out.
    Timeout,
    /// A complete reply with a status outside the expected ones.
    Status,
    /// A gRPC status other than 0.
    GrpcStatus,
    /// A complete reply whose body does not have the expected length.
    Body,
}

/// A lost request: the kind is counted, the detail of the first of each kind is shown.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    /// What it counts as.
    pub kind: LostKind,
    /// The cause, for people; holds no body.
    pub detail: String,
    /// The HTTP status, where one arrived.
    pub status: Option<StatusCode>,
    /// What the gateway said of it, where it said something.
    pub told: Option<Told>,
}

impl Lost {
    /// A loss without a status.
    pub(crate) fn new(kind: LostKind, cause: impl std::fmt::Display) -> Self {
        Self { kind, detail: cause.to_string(), status: None, told: None }
    }
}

/// The gateway's own word on a request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// `gw-error`: the stable code.
    pub code: String,
    /// `gw-retry-safe`.
    pub retry_safe: RetrySafe,
}

/// Whether the gateway says that the request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetrySafe {
    /// It was provably not processed.
    Yes,
    /// It was, or a retry would fail in the same way.
    No,
    /// It may have been.
    Unknown,
}

impl Told {
    /// Reads it from a reply's header, or from the trailers of a gRPC call; `None` if it is no word of the gateway.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let retry_safe = match text("gw-retry-safe")? {
            "yes" => RetrySafe::Yes,
            "no" => RetrySafe::No,
            "unknown" => RetrySafe::Unknown,
            _ => return None,
        };
        Some(Self { code: text("gw-error")?.to_owned(), retry_safe })
    }
}

/// A complete, expected reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    /// Its HTTP status.
    pub status: StatusCode,
    /// Body bytes received.
    pub body_bytes: u64,
}

/// Started and ended requests of one phase. Balanced when nothing is in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Requests entered.
    pub started: u64,
    /// Of those, answered as expected.
    pub ok: u64,
    /// Of those, lost, by kind.
    pub lost: BTreeMap<LostKind, u64>,
}

impl Ledger {
    /// Lost requests of all kinds.
    pub(crate) fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Whether every started request has exactly one outcome.
    pub(crate) fn is_balanced(&self) -> bool {
        self.started == self.ok + self.lost_total()
    }

    fn merge(&mut self, other: &Self) {
        self.started += other.started;
        self.ok += other.ok;
        for (&kind, count) in &other.lost {
            *self.lost.entry(kind).or_default() += count;
        }
    }
}

/// Counts shared by all workers and read while the run goes on (progress, CPU per request).
#[derive(Debug, Default)]
pub(crate) struct Live {
    ended: AtomicU64,
    lost: AtomicU64,
    reconnects: AtomicU64,
}

impl Live {
    /// Requests ended since the start, of either phase and outcome.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Requests lost since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Connections opened after the first ones.
    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Enters a connection opened in place of one that ended.
    pub(crate) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }
}

/// The record of one worker, or of a whole run after [`Recorder::merge`].
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Requests of the warm-up.
    pub warmup: Ledger,
    /// Requests of the measured part.
    pub measured: Ledger,
    /// Measured requests answered as expected: µs from intended start to the end of the reply.
    pub latency: Histogram<u64>,
    /// Measured requests: µs from intended start until a caller took them. Shows a late generator or, in an
    /// open loop, callers that are all busy.
    pub lag: Histogram<u64>,
    /// Measured replies by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Body bytes received in measured replies.
    pub body_bytes: u64,
    /// The first loss of each kind, in words.
    pub samples: BTreeMap<LostKind, String>,
    live: Arc<Live>,
}

impl Recorder {
    /// An empty record that also counts into `live`.
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Self {
            warmup: Ledger::default(),
            measured: Ledger::default(),
            latency: histogram(),
            lag: histogram(),
            statuses: BTreeMap::new(),
            body_bytes: 0,
            samples: BTreeMap::new(),
            live,
        }
    }

    /// Enters a request that a caller takes at `now`.
    pub(crate) fn start(&mut self, ticket: &Ticket, now: Instant) {
        self.ledger(ticket.phase).started += 1;
        if ticket.phase == Phase::Measured {
            self.lag.saturating_record(micros(ticket.intended, now));
        }
    }

    /// Enters the one outcome of a started request, known at `now`.
    pub(crate) fn end(&mut self, ticket: &Ticket, outcome: Result<Reply, Lost>, now: Instant) {
        let measured = ticket.phase == Phase::Measured;
        let status = match &outcome {
            Ok(reply) => Some(reply.status),
            Err(lost) => lost.status,
        };
        if let (true, Some(status)) = (measured, status) {
            *self.statuses.entry(status.as_u16()).or_default() += 1;
        }
        match outcome {
            Ok(reply) => {
                self.ledger(ticket.phase).ok += 1;
                if measured {
                    self.latency.saturating_record(micros(ticket.intended, now));
                    self.body_bytes += reply.body_bytes;
                }
            }
            Err(lost) => {
                *self.ledger(ticket.phase).lost.entry(lost.kind).or_default() += 1;
                self.live.lost.fetch_add(1, Ordering::Relaxed);
                self.samples.entry(lost.kind).or_insert(lost.detail);
            }
        }
        self.live.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds the record of another worker.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.warmup.merge(&other.warmup);
        self.measured.merge(&other.measured);
        // Both were made by `histogram`, so neither range nor precision can differ.
        self.latency.add(&other.latency).expect("equal bounds");
        self.lag.add(&other.lag).expect("equal bounds");
        for (&status, count) in &other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.body_bytes += other.body_bytes;
        for (&kind, detail) in &other.samples {
            self.samples.entry(kind).or_insert_with(|| detail.clone());
        }
    }

    fn ledger(&mut self, phase: Phase) -> &mut Ledger {
        match phase {
            Phase::Warmup => &mut self.warmup,
            Phase::Measured => &mut self.measured,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_US, SIGNIFICANT_DIGITS).expect("constant bounds are in range")
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(HIGHEST_US)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ticket(phase: Phase) -> Ticket {
        Ticket { intended: Instant::now(), phase, sequence: 0 }
    }

    fn reply() -> Result<Reply, Lost> {
        Ok(Reply { status: StatusCode::OK, body_bytes: 10 })
    }

    #[tokio::test(start_paused = true)]
    async fn latency_counts_from_the_intended_start() {
        let mut record = Recorder::new(Arc::default());
        let ticket = ticket(Phase::Measured);
        tokio::time::advance(Duration::from_millis(40)).await;
        record.start(&ticket, Instant::now());
        tokio::time::advance(Duration::from_millis(2)).await;
        record.end(&ticket, reply(), Instant::now());
        assert!(record.latency.equivalent(record.latency.max(), 42_000));
        assert!(record.lag.equivalent(record.lag.max(), 40_000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_ledger_balances_over_phases_and_kinds() {
        let live = Arc::new(Live::default());
        let mut one = Recorder::new(live.clone());
        let mut two = Recorder::new(live.clone());
        for (record, phase, outcome) in [
            (0, Phase::Warmup, reply()),
            (0, Phase::Measured, reply()),
            (1, Phase::Measured, Err(Lost::new(LostKind::Reset, "first"))),
        ] {
            let record = if record == 0 { &mut one } else { &mut two };
            let ticket = ticket(phase);
            record.start(&ticket, Instant::now());
            assert!(!record.ledger(phase).is_balanced(), "one is in flight");
            record.end(&ticket, outcome, Instant::now());
        }
        let lost = Lost { status: Some(StatusCode::BAD_GATEWAY), ..Lost::new(LostKind::Status, "502") };
        let last = ticket(Phase::Measured);
        two.start(&last, Instant::now());
        two.end(&last, Err(lost), Instant::now());

        one.merge(&two);
        assert!(one.warmup.is_balanced() && one.measured.is_balanced());
        assert_eq!((one.measured.started, one.measured.ok, one.measured.lost_total()), (3, 1, 2));
        assert_eq!((live.ended(), live.lost()), (4, 2));
        assert_eq!(one.statuses, BTreeMap::from([(200, 1), (502, 1)]));
        assert_eq!(one.latency.len(), 1, "only answered, measured requests have a latency");
        assert_eq!(one.body_bytes, 10, "the warm-up is not measured");
        assert_eq!(one.samples[&LostKind::Reset], "first");
    }

    #[test]
    fn the_word_of_the_gateway_is_read_whole_or_not_at_all() {
        let header = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let told = Told::read(&header(&[("gw-error", "queue_full"), ("gw-retry-safe", "yes")]));
        assert_eq!(told, Some(Told { code: "queue_full".into(), retry_safe: RetrySafe::Yes }));
        assert_eq!(Told::read(&header(&[("gw-error", "queue_full")])), None);
        assert_eq!(Told::read(&header(&[("gw-error", "x"), ("gw-retry-safe", "perhaps")])), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_latency_beyond_the_range_is_kept_at_its_top() {
        let mut record = Recorder::new(Arc::default());
        let ticket = ticket(Phase::Measured);
        record.start(&ticket, Instant::now());
        tokio::time::advance(Duration::from_secs(3600)).await;
        record.end(&ticket, reply(), Instant::now());
        assert_eq!(record.latency.len(), 1);
        assert!(record.latency.max() >= HIGHEST_US);
    }
}
