//! When requests are meant to start: pure arithmetic on instants handed in, no clock and no waiting.
//!
//! An open-loop run has a fixed arrival rate; request `i` is meant to start at `start + i / rate`, whatever
//! became of the ones before it. Latency counted from there has no coordinated omission: a stall delays
//! every request that should have started meanwhile, and all of them show it.

use std::time::Duration;

use tokio::time::Instant;

/// How callers are paced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pacing {
    /// A fixed arrival rate, in requests per second over all workers.
    Open {
        /// Requests per second; finite and above zero.
        rate: f64,
    },
    /// Every caller starts its next request when its last one ended.
    Closed,
}

/// How long a run lasts after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Requests start for this long.
    Time(Duration),
    /// This many requests start, over all workers.
    Requests(u64),
}

/// Whether a request is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Before the measured part: its losses count, its latency does not.
    Warmup,
    /// The measured part.
    Measured,
}

/// Leave to start one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// When the request is meant to start; latency counts from here.
    pub intended: Instant,
    /// Whether it is measured.
    pub phase: Phase,
    /// Its number, unique over all workers of a run.
    pub sequence: u64,
}

/// One worker's share of the whole: worker `index` of `workers`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// From 0.
    pub index: u64,
    /// At least 1.
    pub workers: u64,
}

/// The tickets of one worker, in order. Pure: every method takes the time it needs as an argument.
#[derive(Debug)]
pub(crate) struct Schedule {
    pacing: Pacing,
    start: Instant,
    measured_from: Instant,
    limit: Limit,
    share: Share,
    issued: u64,
    issued_measured: u64,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Until(Instant),
    Measured(u64),
}

impl Schedule {
    /// A schedule that begins at `start`, warms up for `warmup` and then measures for `extent`.
    pub(crate) fn new(
        pacing: Pacing,
        start: Instant,
        warmup: Duration,
        extent: Extent,
        share: Share,
    ) -> Self {
        let measured_from = start + warmup;
        let limit = match extent {
            Extent::Time(length) => Limit::Until(measured_from + length),
            // The remainder goes to the first workers, so that the shares add up to the whole.
            Extent::Requests(all) => {
                Limit::Measured(all / share.workers + u64::from(share.index < all % share.workers))
            }
        };
        Self { pacing, start, measured_from, limit, share, issued: 0, issued_measured: 0 }
    }

    /// When the next request of an open loop is meant to start; `None` once all have been issued.
    pub(crate) fn next_due(&self, rate: f64) -> Option<Instant> {
        let sequence = self.sequence();
        let intended = self.start + Duration::from_secs_f64(sequence as f64 / rate);
        self.allows(intended).then_some(intended)
    }

    /// Takes the next ticket if its time has come: for a closed loop always, until the end.
    pub(crate) fn take(&mut self, now: Instant) -> Take {
        let intended = match self.pacing {
            Pacing::Closed if self.allows(now) => now,
            Pacing::Closed => return Take::Ended,
            Pacing::Open { rate } => match self.next_due(rate) {
                None => return Take::Ended,
                Some(due) if due > now => return Take::NotBefore(due),
                Some(due) => due,
            },
        };
        let ticket = Ticket { intended, phase: self.phase(intended), sequence: self.sequence() };
        self.issued += 1;
        self.issued_measured += u64::from(ticket.phase == Phase::Measured);
        Take::Start(ticket)
    }

    fn sequence(&self) -> u64 {
        self.issued * self.share.workers + self.share.index
    }

    fn phase(&self, intended: Instant) -> Phase {
        if intended < self.measured_from { Phase::Warmup } else { Phase::Measured }
    }

    fn allows(&self, intended: Instant) -> bool {
        match self.limit {
            Limit::Until(end) => intended < end,
            Limit::Measured(most) => self.phase(intended) == Phase::Warmup || self.issued_measured < most,
        }
    }
}

/// What [`Schedule::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Start this request now.
    Start(Ticket),
    /// Nothing is due before this instant.
    NotBefore(Instant),
    /// Every request of the run has been issued.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Share = Share { index: 0, workers: 1 };

    fn drain(schedule: &mut Schedule, now: Instant) -> Vec<Ticket> {
        std::iter::from_fn(|| match schedule.take(now) {
            Take::Start(ticket) => Some(ticket),
            _ => None,
        })
        .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn open_loop_issues_exactly_rate_times_duration() {
        let start = Instant::now();
        let pacing = Pacing::Open { rate: 1500.0 };
        let extent = Extent::Time(Duration::from_secs(8));
        let mut schedule = Schedule::new(pacing, start, Duration::from_secs(1), extent, ALONE);
        let mut tickets = Vec::new();
        loop {
            match schedule.take(Instant::now()) {
                Take::Start(ticket) => tickets.push(ticket),
                Take::NotBefore(due) => tokio::time::sleep_until(due).await,
                Take::Ended => break,
            }
        }
        let measured = tickets.iter().filter(|t| t.phase == Phase::Measured).count();
        assert_eq!((tickets.len() - measured, measured), (1500, 12_000));
        // The last one is due at 8.9993 s; the paused clock moves in milliseconds.
        assert!(start.elapsed() <= Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_does_not_move_intended_starts() {
        let start = Instant::now();
        let extent = Extent::Time(Duration::from_secs(1));
        let mut schedule = Schedule::new(Pacing::Open { rate: 100.0 }, start, Duration::ZERO, extent, ALONE);
        tokio::time::advance(Duration::from_millis(505)).await;
        let late = drain(&mut schedule, Instant::now());
        assert_eq!(late.len(), 51, "all that should have started during the stall start now");
        for (i, ticket) in late.iter().enumerate() {
            let expected = start + Duration::from_secs_f64(i as f64 / 100.0);
            assert_eq!(ticket.intended, expected, "request {i} keeps its intended start");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn shares_add_up_and_sequences_are_unique() {
        let start = Instant::now();
        let far = start + Duration::from_secs(3600);
        for pacing in [Pacing::Open { rate: 700.0 }, Pacing::Closed] {
            let mut seen = std::collections::BTreeSet::new();
            for index in 0..3 {
                let share = Share { index, workers: 3 };
                let mut schedule =
                    Schedule::new(pacing, start, Duration::ZERO, Extent::Requests(1000), share);
                for ticket in drain(&mut schedule, far) {
                    assert!(seen.insert(ticket.sequence), "sequence {} twice", ticket.sequence);
                }
            }
            assert_eq!(seen.len(), 1000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn warmup_does_not_use_up_the_requests_of_the_run() {
        let start = Instant::now();
        let warmup = Duration::from_millis(100);
        let pacing = Pacing::Open { rate: 1000.0 };
        let mut schedule = Schedule::new(pacing, start, warmup, Extent::Requests(10), ALONE);
        let tickets = drain(&mut schedule, start + Duration::from_secs(60));
        assert_eq!(tickets.iter().filter(|t| t.phase == Phase::Warmup).count(), 100);
        assert_eq!(tickets.iter().filter(|t| t.phase == Phase::Measured).count(), 10);
        assert_eq!(schedule.take(start + Duration::from_secs(61)), Take::Ended);
    }

    #[tokio::test(start_paused = true)]
    async fn closed_loop_starts_at_once_until_the_end() {
        let start = Instant::now();
        let extent = Extent::Time(Duration::from_secs(1));
        let mut schedule = Schedule::new(Pacing::Closed, start, Duration::ZERO, extent, ALONE);
        let Take::Start(ticket) = schedule.take(start) else { panic!("a closed loop never waits") };
        assert_eq!(ticket.intended, start);
        assert_eq!(schedule.take(start + Duration::from_secs(1)), Take::Ended);
    }
}
