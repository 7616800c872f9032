//! How fast things happen in a pool: requests, ends of connections, dials. Time is passed in.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::standing::Pace;

/// Rates are measured over at least this much time.
const WINDOW: Duration = Duration::from_millis(100);
/// What a lull takes to halve the remembered rate of requests: a burst that returns should find its lead.
const HALF_LIFE: Duration = Duration::from_secs(5);
/// Ends of connections older than this are forgotten.
const RECENT: Duration = Duration::from_secs(10);
/// Most ends remembered; more of them say nothing new.
const RECENT_MAX: usize = 64;
/// What a dial is assumed to take before one was made.
const ASSUMED_DIAL: Duration = Duration::from_millis(100);

/// Measures the pace of one pool.
#[derive(Debug)]
pub(super) struct Meter {
    requests: u64,
    at: Instant,
    rate: f64,
    dial: Option<Duration>,
    /// Ends of any kind, and whether the provider made them.
    ends: VecDeque<(Instant, Maker)>,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// The provider or the network.
    Provider,
    /// The pool, to be replaced.
    Pool,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { requests: 0, at: now, rate: 0.0, dial: None, ends: VecDeque::new() }
    }

    /// So many requests were carried since the start.
    pub(super) fn note_requests(&mut self, total: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        if elapsed < WINDOW {
            return;
        }
        // Counts stay far below 2^53.
        let fresh = total.saturating_sub(self.requests) as f64 / elapsed.as_secs_f64();
        let remembered = self.rate * 0.5f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.rate = fresh.max(remembered);
        self.requests = total;
        self.at = now;
    }

    /// A dial took this long to its proof.
    pub(super) fn note_dial(&mut self, took: Duration) {
        self.dial = Some(self.dial.map_or(took, |mean| (mean * 3 + took) / 4));
    }

    pub(super) fn note_end(&mut self, maker: Maker, now: Instant) {
        if self.ends.len() == RECENT_MAX {
            self.ends.pop_front();
        }
        self.ends.push_back((now, maker));
    }

    /// Connections that the provider ended lately.
    pub(super) fn recent_ends(&mut self, now: Instant) -> u32 {
        self.ends.retain(|(at, _)| now.saturating_duration_since(*at) < RECENT);
        let theirs = self.ends.iter().filter(|(_, maker)| *maker == Maker::Provider).count();
        u32::try_from(theirs).unwrap_or(u32::MAX)
    }

    /// The pace as of the last notes.
    pub(super) fn pace(&self) -> Pace {
        Pace {
            requests: self.rate,
            ends: self.ends.len() as f64 / RECENT.as_secs_f64(),
            dial: self.dial.unwrap_or(ASSUMED_DIAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_rises_at_once_and_fades_slowly() {
        let t0 = Instant::now();
        let mut meter = Meter::new(t0);
        meter.note_requests(300, t0 + Duration::from_secs(1));
        assert_eq!(meter.pace().requests.round() as u64, 300);
        meter.note_requests(300, t0 + Duration::from_secs(6));
        assert_eq!(meter.pace().requests.round() as u64, 150);
        meter.note_requests(1300, t0 + Duration::from_secs(7));
        assert_eq!(meter.pace().requests.round() as u64, 1000);
    }

    #[test]
    fn ends_are_forgotten_after_a_while_and_those_of_the_provider_counted_apart() {
        let t0 = Instant::now();
        let mut meter = Meter::new(t0);
        meter.note_end(Maker::Provider, t0);
        meter.note_end(Maker::Pool, t0);
        assert_eq!(meter.recent_ends(t0), 1);
        assert!(meter.pace().ends > 0.1);
        assert_eq!(meter.recent_ends(t0 + RECENT), 0);
    }
}
