//! What became of the requests that the demonstration sent: counts, latencies, reasons of losses.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// Latencies above this are recorded as this; a request is given up before. Microseconds.
const HIGHEST_US: u64 = 60_000_000;
/// Keeps the error of a percentile at or below 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Different reasons kept; what comes after counts as one of them, so that no peer's text grows the map.
const MOST_REASONS: usize = 8;
const OTHER_REASON: &str = "other";

/// The books of one environment, shared by its callers.
#[derive(Debug)]
pub(super) struct Tally {
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    answered: u64,
    lost: u64,
    reasons: BTreeMap<String, u64>,
    latency: Histogram<u64>,
}

/// The books at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Requests answered 2xx, whole.
    pub(super) answered: u64,
    /// Requests that were not.
    pub(super) lost: u64,
    /// Why, in words.
    pub(super) reasons: BTreeMap<String, u64>,
    /// Of answered requests.
    pub(super) latency: Quantiles,
}

/// Points of a distribution; zero where nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Quantiles {
    /// How many values.
    pub(super) count: u64,
    /// Median, µs.
    pub(super) p50_us: u64,
    /// 99th percentile, µs.
    pub(super) p99_us: u64,
    /// Largest, µs.
    pub(super) max_us: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        let numbers = Numbers { answered: 0, lost: 0, reasons: BTreeMap::new(), latency: histogram() };
        Self { numbers: Mutex::new(numbers) }
    }

    /// Enters a complete 2xx answer.
    pub(super) fn answered(&self, latency: Duration) {
        let mut numbers = self.numbers.lock();
        numbers.answered += 1;
        record(&mut numbers.latency, latency);
    }

    /// Enters a lost request.
    pub(super) fn lost(&self, reason: String) {
        let mut numbers = self.numbers.lock();
        numbers.lost += 1;
        let is_new = !numbers.reasons.contains_key(&reason);
        let reason =
            if is_new && numbers.reasons.len() >= MOST_REASONS { OTHER_REASON.to_owned() } else { reason };
        *numbers.reasons.entry(reason).or_default() += 1;
    }

    /// The books now.
    pub(super) fn counts(&self) -> Counts {
        let numbers = self.numbers.lock();
        Counts {
            answered: numbers.answered,
            lost: numbers.lost,
            reasons: numbers.reasons.clone(),
            latency: quantiles(&numbers.latency),
        }
    }

    /// Adds the latencies recorded here to `all`.
    pub(super) fn add_to(&self, all: &mut Histogram<u64>) {
        // Both were made by `histogram`, so neither range nor precision can differ.
        all.add(&self.numbers.lock().latency).expect("equal bounds");
    }
}

/// An empty histogram of microseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_US, SIGNIFICANT_DIGITS).expect("constant bounds are in range")
}

/// Enters a duration.
pub(super) fn record(histogram: &mut Histogram<u64>, value: Duration) {
    histogram.saturating_record(u64::try_from(value.as_micros()).unwrap_or(HIGHEST_US));
}

/// The points that are shown.
pub(super) fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    if histogram.is_empty() {
        return Quantiles::default();
    }
    Quantiles {
        count: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        max_us: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answered_and_lost_are_counted_once_each() {
        let tally = Tally::new();
        for ms in 1..=99 {
            tally.answered(Duration::from_millis(ms));
        }
        tally.lost("503 queue_full".to_owned());
        let counts = tally.counts();
        assert_eq!((counts.answered, counts.lost), (99, 1));
        assert_eq!(counts.latency.count, 99, "a lost request has no latency");
        let p50 = counts.latency.p50_us;
        assert!((49_900..=50_100).contains(&p50), "{p50}");
    }

    #[test]
    fn reasons_are_bounded_and_none_is_forgotten() {
        let tally = Tally::new();
        for n in 0..100 {
            tally.lost(format!("reason {n}"));
        }
        let reasons = tally.counts().reasons;
        assert_eq!(reasons.len(), MOST_REASONS + 1);
        assert_eq!(reasons.values().sum::<u64>(), 100);
        assert_eq!(reasons[OTHER_REASON], 92);
    }

    #[test]
    fn nothing_recorded_is_zero() {
        assert_eq!(quantiles(&histogram()), Quantiles::default());
    }
}
