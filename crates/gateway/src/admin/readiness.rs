//! Readiness: a latch per environment, closed when its floor was met once, and the stop that opens them all.
//!
//! A latch and not the present state: when a provider is down for a while, this gateway still answers with the
//! cause at once, and taking it out of service would help nobody.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde::Serialize;

use crate::{
    outcome::ErrorCode,
    telemetry::{Condition, PoolView, Requirement},
};

/// The latches of all environments.
pub struct Readiness {
    environments: Vec<Latch>,
    stopping: AtomicBool,
}

struct Latch {
    view: Arc<dyn PoolView>,
    met: AtomicBool,
}

/// Ready or not, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether to send traffic.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<Reason>,
}

/// What readiness waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The environment; empty when the whole gateway is meant.
    pub environment: String,
    /// A code of the error table, or `floor_not_met` while its first connections are made.
    pub code: String,
    /// What is the matter, for a person.
    pub message: String,
}

impl Readiness {
    /// Nothing is latched yet.
    #[must_use]
    pub fn new(environments: impl IntoIterator<Item = Arc<dyn PoolView>>) -> Arc<Self> {
        let latch = |view| Latch { view, met: AtomicBool::new(false) };
        Arc::new(Self {
            environments: environments.into_iter().map(latch).collect(),
            stopping: AtomicBool::new(false),
        })
    }

    /// From now on nothing is ready: the gateway stops.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Looks at the pools and closes the latches of floors that are met. Called now and then by the health task,
    /// so that a floor met between two questions counts.
    pub fn refresh(&self) {
        for latch in &self.environments {
            latch.is_met();
        }
    }

    /// Whether the gateway is ready: all required environments were.
    #[must_use]
    pub fn overall(&self) -> Answer {
        self.answer(
            self.environments.iter().filter(|latch| latch.view.requirement() == Requirement::Required),
        )
    }

    /// Whether this environment is, required or not; `None` if there is no such.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<Answer> {
        let latch = self.environments.iter().find(|latch| latch.view.environment() == name)?;
        Some(self.answer(std::iter::once(latch)))
    }

    /// Each environment and whether it can carry a request now, its latch aside; none can while stopping.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (&str, bool)> {
        let stopping = self.is_stopping();
        self.environments.iter().map(move |latch| {
            (latch.view.environment(), !stopping && latch.is_met() && latch.view.can_serve())
        })
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn answer<'a>(&'a self, latches: impl Iterator<Item = &'a Latch>) -> Answer {
        let reasons: Vec<Reason> = if self.is_stopping() {
            vec![Reason {
                environment: String::new(),
                code: ErrorCode::Stopping.as_str().to_owned(),
                message: ErrorCode::Stopping.row().title.to_owned(),
            }]
        } else {
            latches.filter(|latch| !latch.is_met()).map(Latch::reason).collect()
        };
        Answer { ready: reasons.is_empty(), reasons }
    }
}

impl Latch {
    fn is_met(&self) -> bool {
        if self.met.load(Ordering::Acquire) {
            return true;
        }
        let met = self.view.floor_met();
        if met {
            self.met.store(true, Ordering::Release);
        }
        met
    }

    fn reason(&self) -> Reason {
        let (code, message) = match self.view.condition() {
            Condition::Quarantined(quarantined) => (quarantined.code.as_str(), quarantined.message),
            Condition::Pooled(status) => {
                let serving = status.connections.iter().filter(|c| c.state == pool::State::Serving).count();
                let floor = format!("{serving} of {} connections serve", status.min_connections);
                match status.last_failure {
                    Some(failure) => {
                        (failure.code, format!("{floor}; the last dial failed: {}", failure.message))
                    }
                    None => ("floor_not_met", floor),
                }
            }
        };
        Reason { environment: self.view.environment().to_owned(), code: code.to_owned(), message }
    }
}

#[cfg(test)]
mod tests;
