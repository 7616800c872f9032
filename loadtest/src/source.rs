//! Where the callers of one worker get leave to start requests.
//!
//! In a closed loop a caller asks the schedule itself. In an open loop a pacer task puts due tickets into a
//! queue, and whichever caller is idle takes the oldest; the queue is bounded by rate × time-out, because a
//! ticket older than the time-out is given up by the caller that takes it, and by the schedule's end.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    pacer::Pacer,
    schedule::{Pacing, Schedule, Take, Ticket},
};

/// The tickets of one worker, shared by its callers.
#[derive(Debug)]
pub(crate) struct Source {
    pacing: Pacing,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    schedule: Option<Schedule>,
    due: VecDeque<Ticket>,
}

impl Source {
    /// A source of the tickets of `schedule`.
    pub(crate) fn new(pacing: Pacing, schedule: Schedule) -> Self {
        let state = State { schedule: Some(schedule), due: VecDeque::new() };
        Self { pacing, state: Mutex::new(state), arrived: Notify::new() }
    }

    /// The next request to start, or `None` once the run has ended.
    ///
    /// # Cancel safety
    /// Nothing is taken before it returns, so dropping it loses no ticket.
    pub(crate) async fn next(&self) -> Option<Ticket> {
        loop {
            // Registered before looking, so that an arrival in between wakes it.
            let arrived = self.arrived.notified();
            {
                let mut state = self.state.lock();
                match self.pacing {
                    Pacing::Closed => return state.take_closed(),
                    Pacing::Open { .. } => {
                        if let Some(ticket) = state.due.pop_front() {
                            return Some(ticket);
                        }
                        // Without a schedule nothing more will arrive.
                        state.schedule.as_ref()?;
                    }
                }
            }
            arrived.await;
        }
    }

    /// Runs the arrivals of an open loop to their end; returns at once for a closed loop.
    ///
    /// # Errors
    /// When the timer cannot be made or read; the source is closed then, so callers end.
    pub(crate) async fn pace(&self) -> std::io::Result<()> {
        if self.pacing == Pacing::Closed {
            return Ok(());
        }
        let outcome = self.pace_open().await;
        self.close();
        outcome
    }

    /// Starts no further requests; the ones already due still run.
    pub(crate) fn close(&self) {
        self.state.lock().schedule = None;
        self.arrived.notify_waiters();
    }

    async fn pace_open(&self) -> std::io::Result<()> {
        let pacer = Pacer::new()?;
        loop {
            match self.release_due() {
                Take::NotBefore(due) => pacer.wait_until(due).await?,
                Take::Ended | Take::Start(_) => return Ok(()),
            }
        }
    }

    /// Queues everything due and says what comes next; never `Take::Start`.
    fn release_due(&self) -> Take {
        let now = Instant::now();
        loop {
            let mut state = self.state.lock();
            let Some(schedule) = &mut state.schedule else { return Take::Ended };
            match schedule.take(now) {
                Take::Start(ticket) => state.due.push_back(ticket),
                other => return other,
            }
            drop(state);
            self.arrived.notify_one();
        }
    }
}

impl State {
    fn take_closed(&mut self) -> Option<Ticket> {
        match self.schedule.as_mut()?.take(Instant::now()) {
            Take::Start(ticket) => Some(ticket),
            Take::NotBefore(_) | Take::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::schedule::{Extent, Share};

    fn source(pacing: Pacing, requests: u64) -> Arc<Source> {
        let share = Share { index: 0, workers: 1 };
        let schedule =
            Schedule::new(pacing, Instant::now(), Duration::ZERO, Extent::Requests(requests), share);
        Arc::new(Source::new(pacing, schedule))
    }

    #[tokio::test]
    async fn every_arrival_reaches_exactly_one_caller() {
        let source = source(Pacing::Open { rate: 20_000.0 }, 400);
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let source = source.clone();
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    while let Some(ticket) = source.next().await {
                        mine.push(ticket.sequence);
                        tokio::task::yield_now().await;
                    }
                    mine
                })
            })
            .collect();
        source.pace().await.unwrap();
        let mut all = Vec::new();
        for caller in callers {
            all.extend(caller.await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, (0..400).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn closing_ends_waiting_callers() {
        let source = source(Pacing::Open { rate: 0.001 }, 5);
        let waiting = tokio::spawn({
            let source = source.clone();
            async move { source.next().await }
        });
        tokio::task::yield_now().await;
        source.close();
        assert_eq!(waiting.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_closed_loop_needs_no_pacer() {
        let source = source(Pacing::Closed, 3);
        source.pace().await.unwrap();
        for _ in 0..3 {
            assert!(source.next().await.is_some());
        }
        assert_eq!(source.next().await, None);
    }
}
