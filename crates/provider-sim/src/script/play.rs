//! Owns the playing of a script on a running provider. It does not own what the events do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Map;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::timeline::{self, Act, Event};
use super::{Script, as_map, changed};
use crate::SimError;
use crate::behaviour::Behaviour;
use crate::door::Listening;
use crate::simulator::Shared;

/// A script that is being played. Dropping it lets the script go on; it ends with the simulator at the latest.
#[derive(Debug)]
pub struct Playing {
    player: JoinHandle<Result<(), SimError>>,
    cancel: CancellationToken,
    done: Arc<AtomicUsize>,
}

impl Playing {
    /// How many events have happened.
    pub fn events(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for the last event.
    ///
    /// # Errors
    /// [`SimError`] of the event that failed; what comes after it has not happened.
    ///
    /// # Cancel safety
    /// Dropping the future lets the script go on.
    pub async fn finished(self) -> Result<(), SimError> {
        // A player that was aborted with its runtime has nothing more to say.
        self.player.await.unwrap_or(Ok(()))
    }

    /// Ends the script now, and takes back what it has changed of the behaviour and of the listening.
    ///
    /// # Errors
    /// [`SimError`] of an event that failed, or of taking back.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the script ending.
    pub async fn stop(self) -> Result<(), SimError> {
        self.cancel.cancel();
        self.player.await.unwrap_or(Ok(()))
    }
}

pub(crate) fn play(shared: Arc<Shared>, script: &Script) -> Playing {
    let cancel = shared.stop.child_token();
    let done = Arc::new(AtomicUsize::new(0));
    let events = timeline::of(script);
    let tasks = shared.tasks.clone();
    let base = shared.live.borrow().behaviour.clone();
    let player = Player { shared, base, away: 0, done: done.clone() };
    let player = tasks.spawn(player.run(events, cancel.clone()));
    Playing { player, cancel, done }
}

struct Player {
    shared: Arc<Shared>,
    /// The behaviour when the script began.
    base: Behaviour,
    /// Restarts under way.
    away: u32,
    done: Arc<AtomicUsize>,
}

impl Player {
    async fn run(mut self, events: Vec<Event>, cancel: CancellationToken) -> Result<(), SimError> {
        let begin = Instant::now();
        for Event { at, act } in events {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return self.take_back(),
                () = sleep_until(begin + at) => {}
            }
            tracing::info!(at_ms = at.as_millis() as u64, %act, "script");
            self.perform(act).await?;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn perform(&mut self, act: Act) -> Result<(), SimError> {
        let shared = &self.shared;
        match act {
            Act::End(target, form) => {
                shared.end(target, form);
                Ok(())
            }
            Act::Change(keys) => self.change(&keys),
            Act::Restore(keys) => {
                let base = as_map(&self.base).unwrap_or_default();
                let named = |key: &String| keys.is_empty() || keys.contains(key);
                self.change(&base.into_iter().filter(|(key, _)| named(key)).collect())
            }
            Act::Leave => {
                self.away += 1;
                shared.leave()
            }
            Act::Return => {
                self.away = self.away.saturating_sub(1);
                if self.away > 0 {
                    return Ok(());
                }
                shared.set_listening(None, Listening::Accepting)
            }
            Act::Listen(listening, address) => shared.set_listening(address, listening),
            Act::Rotate(rotation) => {
                let shared = shared.clone();
                // Making a key may take long; requests do not wait for it.
                match tokio::task::spawn_blocking(move || shared.rotate(rotation)).await {
                    Ok(rotated) => rotated.map(drop),
                    Err(_) => Ok(()),
                }
            }
            Act::Forget => shared.forget_sessions(),
        }
    }

    fn change(&self, keys: &Map<String, serde_json::Value>) -> Result<(), SimError> {
        let mut problem = None;
        self.shared.change(|live| match changed(&live.behaviour, keys) {
            Ok(behaviour) => live.behaviour = behaviour,
            Err(found) => problem = Some(found),
        })?;
        match problem {
            Some(problem) => Err(SimError::Script { problem }),
            None => Ok(()),
        }
    }

    fn take_back(&self) -> Result<(), SimError> {
        if self.shared.stop.is_cancelled() {
            return Ok(());
        }
        self.shared.change(|live| live.behaviour = self.base.clone())?;
        self.shared.set_listening(None, Listening::Accepting)
    }
}
