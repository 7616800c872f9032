//! The ledger of a storm: one cell per request, written once by its caller, joined at the end with what the
//! provider processed and what the access log says.
//!
//! Owns the outcomes and what they may be joined with. All memory is taken and touched before the storm, so that
//! the books do not show as growth.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use gateway::outcome::ErrorCode;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use provider_sim::Account;
use serde::Serialize;
use tokio::time::Instant;

use crate::record::{Lost, LostKind, Reply, RetrySafe};

/// How a request ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub(super) enum Outcome {
    /// A complete, expected reply.
    Answered = 2,
    /// Refused with `gw-retry-safe: yes` while the provider was away, or had cut all dials: nothing served that could
    /// have carried it.
    Away,
    /// Refused with `gw-retry-safe: yes`; its body was larger than what is held for a replay.
    BodyGone,
    /// Refused with `gw-retry-safe: yes` although the body was held: it should have been sent again.
    Forsaken,
    /// Failed with `gw-retry-safe: no` or `unknown`: the provider may have processed it.
    Ambiguous,
    /// The reply broke off after its header.
    Cut,
    /// No reply at all within the caller's patience.
    TimedOut,
    /// Anything else: a reply that is not what was asked for, a gateway that does not accept.
    Wrong,
}

/// All outcomes, in order.
pub(super) const OUTCOMES: [Outcome; 8] = [
    Outcome::Answered,
    Outcome::Away,
    Outcome::BodyGone,
    Outcome::Forsaken,
    Outcome::Ambiguous,
    Outcome::Cut,
    Outcome::TimedOut,
    Outcome::Wrong,
];

impl Outcome {
    /// What it is called in the table.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Away => "refused while the provider was away or had cut all dials (retry-safe: yes)",
            Self::BodyGone => "failed unprocessed, body too large to be held (retry-safe: yes)",
            Self::Forsaken => "failed unprocessed although the body was held (retry-safe: yes)",
            Self::Ambiguous => "failed, maybe processed (retry-safe: no or unknown)",
            Self::Cut => "reply broken off after its header",
            Self::TimedOut => "no reply in time",
            Self::Wrong => "wrong reply, or none accepted",
        }
    }

    fn read(cell: u8) -> Option<Self> {
        OUTCOMES.into_iter().find(|&outcome| outcome as u8 == cell)
    }
}

/// Whether the gateway holds the whole body of a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It fits into the replay buffer.
    Whole,
    /// It does not.
    InPart,
}

/// Whether the provider can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It listens, and has for a while.
    There,
    /// It listens, but cut every connection a moment ago, dials on their way too.
    Shaken,
    /// It does not listen, or came back a moment ago.
    Away,
}

/// What the caller saw, in one word.
pub(super) fn classify(result: &Result<Reply, Lost>, held: Held, reach: Reach) -> Outcome {
    let lost = match result {
        Ok(_) => return Outcome::Answered,
        Err(lost) => lost,
    };
    let Some(told) = &lost.told else {
        return match lost.kind {
            LostKind::Closed | LostKind::Reset | LostKind::Goaway | LostKind::Protocol => Outcome::Cut,
            LostKind::Timeout => Outcome::TimedOut,
            LostKind::Connect | LostKind::Status | LostKind::GrpcStatus | LostKind::Body => Outcome::Wrong,
        };
    };
    match (told.retry_safe, held) {
        (RetrySafe::No | RetrySafe::Unknown, _) => Outcome::Ambiguous,
        (RetrySafe::Yes, _) if reach == Reach::Away && nothing_served(&told.code) => Outcome::Away,
        (RetrySafe::Yes, _) if reach == Reach::Shaken && dial_failed(&told.code) => Outcome::Away,
        (RetrySafe::Yes, Held::InPart) => Outcome::BodyGone,
        (RetrySafe::Yes, Held::Whole) => Outcome::Forsaken,
    }
}

/// Whether the code is that of a request for which no connection could be had: any but those of an exchange that
/// had begun.
fn nothing_served(code: &str) -> bool {
    let begun = [
        ErrorCode::ProviderReset,
        ErrorCode::ResponseCut,
        ErrorCode::ResponseTimeout,
        ErrorCode::IdleTimeout,
    ];
    begun.into_iter().all(|begun| begun.as_str() != code)
}

/// Whether the code is that of a dial that failed: not of an exchange, and not of somebody who waited in vain.
fn dial_failed(code: &str) -> bool {
    let waited = [ErrorCode::QueueTimeout, ErrorCode::QueueFull, ErrorCode::DeadlineUnreachable];
    nothing_served(code) && waited.into_iter().all(|waited| waited.as_str() != code)
}

/// What the books hold against the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Breach {
    /// A request without an outcome.
    NoOutcome,
    /// Provably unprocessed, the body held, and yet failed.
    LostUnprocessed,
    /// The caller was told that a retry is safe, and the provider had processed it.
    WronglyCalledSafe,
    /// Processed more than once.
    Duplicated,
    /// Answered, but the provider never processed it.
    AnsweredUnprocessed,
    /// A reply broke off, and the request had never reached the provider.
    CutUnsent,
    /// No reply in the caller's time.
    TimedOut,
    /// A reply that is not what was asked for.
    WrongReply,
    /// Not in the access log.
    NotLogged,
    /// In the access log more than once.
    LoggedTwice,
}

/// All that is known of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    /// How it ended; `None` if it never did.
    pub outcome: Option<Outcome>,
    /// How often it reached the provider.
    pub arrived: u32,
    /// How often the provider processed it; what GOAWAY disowned does not count, even if its reply had begun.
    pub processed: u32,
    /// Lines in the access log.
    pub logged: u8,
}

impl Entry {
    /// What is wrong with it; nothing for nearly all.
    pub(super) fn breaches(self) -> Vec<Breach> {
        let mut breaches = Vec::new();
        match (self.outcome, self.processed) {
            (None, _) => breaches.push(Breach::NoOutcome),
            (Some(Outcome::Answered), 0) => breaches.push(Breach::AnsweredUnprocessed),
            (Some(Outcome::Forsaken), 0) => breaches.push(Breach::LostUnprocessed),
            (Some(Outcome::Away | Outcome::BodyGone | Outcome::Forsaken), 1..) => {
                breaches.push(Breach::WronglyCalledSafe);
            }
            (Some(Outcome::Cut), 0) if self.arrived == 0 => breaches.push(Breach::CutUnsent),
            (Some(Outcome::TimedOut), _) => breaches.push(Breach::TimedOut),
            (Some(Outcome::Wrong), _) => breaches.push(Breach::WrongReply),
            _ => {}
        }
        if self.processed > 1 {
            breaches.push(Breach::Duplicated);
        }
        match self.logged {
            0 => breaches.push(Breach::NotLogged),
            1 => {}
            _ => breaches.push(Breach::LoggedTwice),
        }
        breaches
    }
}

/// Requests with the same fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Found {
    /// How many.
    pub count: u64,
    /// The first ones, by number.
    pub first: Vec<(u64, Entry)>,
}

/// Examples kept per breach.
const EXAMPLES: usize = 10;

impl Found {
    fn add(&mut self, sequence: u64, entry: Entry) {
        self.count += 1;
        if self.first.len() < EXAMPLES {
            self.first.push((sequence, entry));
        }
    }
}

/// The books, settled.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Settled {
    /// Requests that callers started.
    pub offered: u64,
    /// Times that the provider processed one of them.
    pub processed: u64,
    /// Lines of the access log about them.
    pub logged: u64,
    /// What is wrong, and with which.
    pub breaches: BTreeMap<Breach, Found>,
}

/// Cell of a request that has not started.
const UNSEEN: u8 = 0;
/// Cell of a request that has started.
const OFFERED: u8 = 1;

/// Most texts kept for the report.
const MAX_KINDS: usize = 200;

/// Longest time in the histogram, µs.
const HIGHEST_US: u64 = 60_000_000;

/// The books.
#[derive(Debug)]
pub(super) struct Books {
    cells: Box<[AtomicU8]>,
    logged: Box<[AtomicU8]>,
    totals: [AtomicU64; OUTCOMES.len()],
    offered: AtomicU64,
    ended_twice: AtomicU64,
    causes: Mutex<BTreeMap<String, u64>>,
    latency: Mutex<Histogram<u64>>,
}

impl Books {
    /// Books for requests numbered below `requests`.
    pub(super) fn new(requests: usize) -> Self {
        // Written, not only reserved: pages that are touched for the first time in the storm would show as growth.
        let cells = |value: u8| -> Box<[AtomicU8]> {
            let cells: Box<[AtomicU8]> = (0..requests).map(|_| AtomicU8::new(0xff)).collect();
            cells.iter().for_each(|cell| cell.store(value, Ordering::Relaxed));
            cells
        };
        let latency = Histogram::new_with_bounds(1, HIGHEST_US, 3).expect("constant bounds are in range");
        Self {
            cells: cells(UNSEEN),
            logged: cells(0),
            totals: Default::default(),
            offered: AtomicU64::new(0),
            ended_twice: AtomicU64::new(0),
            causes: Mutex::default(),
            latency: Mutex::new(latency),
        }
    }

    /// A caller takes request `sequence`.
    pub(super) fn offer(&self, sequence: u64) {
        self.offered.fetch_add(1, Ordering::Relaxed);
        self.cells[sequence as usize].store(OFFERED, Ordering::Relaxed);
    }

    /// The one outcome of request `sequence`, meant to start at `intended`, with its cause if it failed.
    pub(super) fn enter(&self, sequence: u64, outcome: Outcome, cause: Option<&str>, intended: Instant) {
        let cell = &self.cells[sequence as usize];
        let entered =
            cell.compare_exchange(OFFERED, outcome as u8, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !entered {
            self.ended_twice.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.totals[outcome as usize - Outcome::Answered as usize].fetch_add(1, Ordering::Relaxed);
        match cause {
            None => {
                let micros = u64::try_from(intended.elapsed().as_micros()).unwrap_or(HIGHEST_US);
                self.latency.lock().saturating_record(micros);
            }
            Some(cause) => {
                let mut causes = self.causes.lock();
                let key = format!("{}: {cause}", serde_word(outcome));
                if causes.len() < MAX_KINDS || causes.contains_key(&key) {
                    *causes.entry(key).or_default() += 1;
                }
            }
        }
    }

    /// A line of the access log names request `sequence`.
    pub(super) fn log_line(&self, sequence: u64) {
        if let Some(cell) = self.logged.get(sequence as usize) {
            // One thread counts lines, so nothing is lost between the two.
            cell.store(cell.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Requests started.
    pub(super) fn offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    /// Requests that were entered as ended more than once.
    pub(super) fn ended_twice(&self) -> u64 {
        self.ended_twice.load(Ordering::Relaxed)
    }

    /// Requests that ended so.
    pub(super) fn total(&self, outcome: Outcome) -> u64 {
        self.totals[outcome as usize - Outcome::Answered as usize].load(Ordering::Relaxed)
    }

    /// Requests that ended.
    pub(super) fn ended(&self) -> u64 {
        OUTCOMES.into_iter().map(|outcome| self.total(outcome)).sum()
    }

    /// Why requests failed: outcome, code and text, and how many. The first 200 kinds.
    pub(super) fn causes(&self) -> BTreeMap<String, u64> {
        self.causes.lock().clone()
    }

    /// Latency of answered requests, µs from the intended start.
    pub(super) fn latency(&self) -> Histogram<u64> {
        self.latency.lock().clone()
    }

    /// Joins the three sources and collects what is wrong.
    pub(super) fn settle(&self, account: impl FnMut(u64) -> Account) -> Settled {
        let mut settled = Settled::default();
        for (sequence, entry) in self.entries(account) {
            settled.offered += 1;
            settled.processed += u64::from(entry.processed);
            settled.logged += u64::from(entry.logged);
            for breach in entry.breaches() {
                settled.breaches.entry(breach).or_default().add(sequence, entry);
            }
        }
        settled
    }

    /// Every request that was offered, joined with the provider's `account` of it.
    pub(super) fn entries(
        &self,
        mut account: impl FnMut(u64) -> Account,
    ) -> impl Iterator<Item = (u64, Entry)> {
        self.cells.iter().zip(&self.logged).enumerate().filter_map(move |(sequence, (cell, logged))| {
            let cell = cell.load(Ordering::Relaxed);
            let sequence = sequence as u64;
            (cell != UNSEEN).then(|| {
                let Account { arrived, processed } = account(sequence);
                let entry = Entry {
                    outcome: Outcome::read(cell),
                    arrived,
                    processed,
                    logged: logged.load(Ordering::Relaxed),
                };
                (sequence, entry)
            })
        })
    }
}

fn serde_word(outcome: Outcome) -> String {
    serde_json::to_value(outcome).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::record::Told;

    fn account(processed: u32) -> Account {
        Account { arrived: processed, processed }
    }

    fn told(code: &str, retry_safe: RetrySafe) -> Result<Reply, Lost> {
        let told = Some(Told { code: code.to_owned(), retry_safe });
        Err(Lost { told, ..Lost::new(LostKind::Status, "cause") })
    }

    #[test]
    fn a_safe_retry_is_excused_only_while_nothing_served() {
        let refused = told("connection_refused", RetrySafe::Yes);
        assert_eq!(classify(&refused, Held::Whole, Reach::Away), Outcome::Away);
        assert_eq!(classify(&refused, Held::Whole, Reach::There), Outcome::Forsaken);
        let cut = told("tls_closed", RetrySafe::Yes);
        assert_eq!(classify(&cut, Held::Whole, Reach::Shaken), Outcome::Away);
        let in_vain = told("queue_timeout", RetrySafe::Yes);
        assert_eq!(classify(&in_vain, Held::Whole, Reach::Away), Outcome::Away);
        assert_eq!(
            classify(&in_vain, Held::Whole, Reach::Shaken),
            Outcome::Forsaken,
            "the provider was there"
        );
        let reset = told("provider_reset", RetrySafe::Yes);
        assert_eq!(classify(&reset, Held::Whole, Reach::Away), Outcome::Forsaken, "it had a connection");
        assert_eq!(classify(&reset, Held::Whole, Reach::Shaken), Outcome::Forsaken, "it had a connection");
        assert_eq!(classify(&reset, Held::InPart, Reach::There), Outcome::BodyGone);
    }

    #[test]
    fn words_of_the_gateway_beat_the_kind_of_loss() {
        let unknown = told("provider_reset", RetrySafe::Unknown);
        assert_eq!(classify(&unknown, Held::Whole, Reach::There), Outcome::Ambiguous);
        let cut = Err(Lost::new(LostKind::Reset, "cut"));
        assert_eq!(classify(&cut, Held::Whole, Reach::There), Outcome::Cut);
        let body = Err(Lost::new(LostKind::Body, "short"));
        assert_eq!(classify(&body, Held::Whole, Reach::There), Outcome::Wrong, "cut short without a sign");
        let reply = Ok(Reply { status: StatusCode::OK, body_bytes: 0 });
        assert_eq!(classify(&reply, Held::Whole, Reach::There), Outcome::Answered);
    }

    fn breaches(outcome: Outcome, processed: u32) -> Vec<Breach> {
        Entry { outcome: Some(outcome), arrived: processed, processed, logged: 1 }.breaches()
    }

    #[test]
    fn each_outcome_is_held_against_what_the_provider_processed() {
        assert_eq!(breaches(Outcome::Answered, 1), []);
        assert_eq!(breaches(Outcome::Answered, 0), [Breach::AnsweredUnprocessed]);
        assert_eq!(breaches(Outcome::Answered, 2), [Breach::Duplicated]);
        assert_eq!(breaches(Outcome::Away, 0), []);
        assert_eq!(breaches(Outcome::Away, 1), [Breach::WronglyCalledSafe]);
        assert_eq!(breaches(Outcome::BodyGone, 0), []);
        assert_eq!(breaches(Outcome::Forsaken, 0), [Breach::LostUnprocessed]);
        assert_eq!(breaches(Outcome::Ambiguous, 0), [], "a lost connection proves nothing");
        assert_eq!(breaches(Outcome::Ambiguous, 1), []);
        assert_eq!(breaches(Outcome::Ambiguous, 2), [Breach::Duplicated]);
        assert_eq!(breaches(Outcome::Cut, 1), []);
        assert_eq!(breaches(Outcome::Cut, 0), [Breach::CutUnsent]);
        let disowned = Entry { outcome: Some(Outcome::Cut), arrived: 1, processed: 0, logged: 1 };
        assert_eq!(disowned.breaches(), [], "GOAWAY disowned what had begun to be answered");
        assert_eq!(breaches(Outcome::TimedOut, 1), [Breach::TimedOut]);
        assert_eq!(breaches(Outcome::Wrong, 1), [Breach::WrongReply]);
    }

    #[test]
    fn one_request_has_one_line_and_one_outcome() {
        let entry = |logged| Entry { outcome: Some(Outcome::Answered), arrived: 1, processed: 1, logged };
        assert_eq!(entry(0).breaches(), [Breach::NotLogged]);
        assert_eq!(entry(2).breaches(), [Breach::LoggedTwice]);
        let open = Entry { outcome: None, arrived: 0, processed: 0, logged: 1 };
        assert_eq!(open.breaches(), [Breach::NoOutcome]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_books_take_one_outcome_per_request_and_know_who_has_none() {
        let books = Books::new(4);
        let now = Instant::now();
        for sequence in [0, 2, 3] {
            books.offer(sequence);
        }
        books.enter(0, Outcome::Answered, None, now);
        books.enter(0, Outcome::Cut, Some("again"), now);
        books.enter(2, Outcome::Ambiguous, Some("provider_reset"), now);
        books.log_line(2);
        assert_eq!((books.offered(), books.ended(), books.ended_twice()), (3, 2, 1));
        let entries: Vec<_> = books.entries(|sequence| account(u32::from(sequence == 2))).collect();
        let entry = |outcome, processed, logged| Entry { outcome, arrived: processed, processed, logged };
        assert_eq!(
            entries,
            [
                (0, entry(Some(Outcome::Answered), 0, 0)),
                (2, entry(Some(Outcome::Ambiguous), 1, 1)),
                (3, entry(None, 0, 0)),
            ]
        );
        assert_eq!(books.causes(), BTreeMap::from([("ambiguous: provider_reset".to_owned(), 1)]));
    }
}
