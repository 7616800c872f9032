//! Ends an HTTP/2 caller's stream whose response nobody takes: it would hold a stream of the provider for ever.
//!
//! A caller that opens no flow-control window is seen by nobody: hyper waits for the window and does not ask for the
//! body, the socket moves for other streams. So each stream says whose turn it is, and a timer, armed only while it
//! is the caller's, ends it. HTTP/1.1 has no such windows: there the socket stands still, which `io` sees.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// Whose turn it is on a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    whose: Whose,
    /// Pieces handed over so far: movement is seen by it.
    pieces: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Whose {
    /// The gateway's or the provider's: the response is being made.
    #[default]
    Ours,
    /// The caller's: there is a piece for it, or the next was not asked for yet.
    Callers,
}

tokio::task_local! {
    static TURN: Cell<Turn>;
}

/// A piece of the response is there to be taken. Without effect on HTTP/1.1.
pub(super) fn callers_turn() {
    let _ = TURN.try_with(|turn| {
        turn.set(Turn { whose: Whose::Callers, pieces: turn.get().pieces.wrapping_add(1) });
    });
}

/// The response has no piece for the caller now, or no more at all.
pub(super) fn our_turn() {
    let _ = TURN.try_with(|turn| turn.set(Turn { whose: Whose::Ours, ..turn.get() }));
}

/// Spawns the streams of an HTTP/2 caller, each under watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchedStreams {
    /// How long a caller may take nothing of a response.
    pub(super) idle: Duration,
}

impl<F> hyper::rt::Executor<F> for WatchedStreams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Kept in one place from here on: a stream's future is several kilobytes, and each layer would move it.
        tokio::spawn(watched(Box::pin(stream), self.idle));
    }
}

/// Runs `stream` to its end, or until it has been the caller's turn without movement for `idle`. Then it is dropped:
/// the caller gets RST_STREAM, and the exchange is recorded as one whose caller is gone.
fn watched<F: Future<Output = ()>>(mut stream: Pin<Box<F>>, idle: Duration) -> impl Future<Output = ()> {
    TURN.scope(Cell::default(), async move {
        let mut stall = Stall::default();
        poll_fn(|cx| {
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            stall.poll(cx, TURN.with(Cell::get), idle)
        })
        .await;
    })
}

/// How long the caller's turn has lasted.
#[derive(Default)]
struct Stall {
    seen: Turn,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Ready when it has lasted for `idle`.
    fn poll(&mut self, cx: &mut Context<'_>, turn: Turn, idle: Duration) -> Poll<()> {
        if turn.whose == Whose::Ours {
            (self.seen, self.since) = (turn, None);
            return Poll::Pending;
        }
        let now = Instant::now();
        let since = match self.since {
            Some(since) if self.seen == turn => since,
            _ => now,
        };
        (self.seen, self.since) = (turn, Some(since));
        let due = since + idle;
        // One timer for all turns: it is set anew when it fires too early, not with each piece.
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        while timer.as_mut().poll(cx).is_ready() {
            if now >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_for_its_caller_is_ended_after_the_limit() {
        let began = Instant::now();
        let stream = async {
            callers_turn();
            std::future::pending().await
        };
        watched(Box::pin(stream), IDLE).await;
        assert_eq!(began.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_for_the_provider_is_not() {
        let began = Instant::now();
        let stream = async {
            callers_turn();
            tokio::time::sleep(IDLE / 2).await;
            our_turn();
            tokio::time::sleep(IDLE * 20).await;
        };
        watched(Box::pin(stream), IDLE).await;
        assert_eq!(began.elapsed(), IDLE / 2 + IDLE * 20);
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_taken_gives_the_whole_time_again() {
        let began = Instant::now();
        let taken = Arc::new(Notify::new());
        let (give, take) = (taken.clone(), taken);
        let feeding = tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(IDLE * 9 / 10).await;
                give.notify_one();
            }
        });
        let stream = async move {
            loop {
                our_turn();
                callers_turn();
                take.notified().await;
            }
        };
        watched(Box::pin(stream), IDLE).await;
        assert_eq!(began.elapsed(), IDLE * 9 / 10 * 5 + IDLE);
        feeding.await.unwrap();
    }
}
