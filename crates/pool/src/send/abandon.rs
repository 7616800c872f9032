//! Streams that nobody wants any more: reset at once, or left to run out.
//!
//! Each reset costs the provider work without an answer, so providers count them and end the whole connection above some
//! number (netty: 200 within 30 seconds), and h2 remembers only so many. A caller who cancels in bulk must not end the
//! connection under the others: above the budget a stream is read to its end and thrown away, for a bounded time, on its
//! own lease. Owns the budget and the streams that run out.

use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture};
use tokio::{runtime::Handle, time::Instant};

use crate::hub::StreamLease;

/// What is left of a stream.
pub(super) enum Half {
    /// The whole request was sent, nothing has come back.
    Response(ResponseFuture),
    /// The request was being sent; without its end the provider cannot take it for a whole one.
    Unfinished(ResponseFuture, SendStream<Bytes>),
    /// The response's body was being read.
    Body(RecvStream),
    /// The response's body is complete, its end is on the way.
    Tail(RecvStream),
}

/// Longest time that a stream is left to run out; then it is reset after all.
const RUN_OUT: Duration = Duration::from_secs(10);

/// Gives a stream up. `budget` is how many may be reset on its connection within 30 seconds.
pub(super) fn abandon(half: Half, lease: StreamLease, budget: u32) {
    let wait_for_end =
        matches!(half, Half::Tail(_)) || !lease.link().resets().lock().try_take(budget, Instant::now());
    if wait_for_end && let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            // Dropping what did not end resets it.
            let _ = tokio::time::timeout(RUN_OUT, run_out(half)).await;
            drop(lease);
        });
    }
    // Otherwise h2 resets it with CANCEL when the handles go, which is here; the lease goes after them.
}

async fn run_out(half: Half) {
    let (mut body, _unfinished) = match half {
        Half::Response(response) => match response.await {
            Ok(response) => (response.into_body(), None),
            Err(_) => return,
        },
        Half::Unfinished(response, stream) => match response.await {
            Ok(response) => (response.into_body(), Some(stream)),
            Err(_) => return,
        },
        Half::Body(body) | Half::Tail(body) => (body, None),
    };
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    let _ = body.trailers().await;
}

/// Resets that are left on one connection: half of the budget at once, the other half spread over the window, so that
/// no window of 30 seconds sees more than the whole.
#[derive(Debug, Default)]
pub(crate) struct ResetBudget {
    spent: f64,
    at: Option<Instant>,
}

/// The window of the budget.
const WINDOW: Duration = Duration::from_secs(30);

impl ResetBudget {
    /// How many of the latest resets weigh on the budget, as of the last one.
    pub(crate) fn spent(&self) -> f64 {
        self.spent
    }

    /// Takes one of `budget` resets per 30 seconds, if one is left now.
    pub(crate) fn try_take(&mut self, budget: u32, now: Instant) -> bool {
        let half = f64::from(budget) / 2.0;
        let passed = self.at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.spent = (self.spent - half * passed.as_secs_f64() / WINDOW.as_secs_f64()).max(0.0);
        let left = self.spent + 1.0 <= half;
        self.spent += f64::from(u8::from(left));
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_of_thirty_seconds_sees_more_resets_than_the_budget() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let begin = Instant::now();
        let mut budget = ResetBudget::default();
        let (mut now, mut taken) = (Duration::ZERO, Vec::new());
        while now < Duration::from_secs(300) {
            if budget.try_take(180, begin + now) {
                taken.push(now);
            }
            now += Duration::from_millis(random.u64(0..60));
        }
        for (i, from) in taken.iter().enumerate() {
            let within = taken[i..].iter().take_while(|at| **at < *from + WINDOW).count();
            assert!(within <= 180, "{within} resets in a window, seed {seed}");
        }
        assert!(taken.len() > 900, "what is allowed can be had: {} of about 990, seed {seed}", taken.len());
    }

    #[test]
    fn an_idle_connection_has_half_of_the_budget_at_once() {
        let mut budget = ResetBudget::default();
        let now = Instant::now();
        assert_eq!((0..1000).filter(|_| budget.try_take(180, now)).count(), 90);
        assert_eq!((0..1000).filter(|_| budget.try_take(180, now + WINDOW)).count(), 90);
    }
}
