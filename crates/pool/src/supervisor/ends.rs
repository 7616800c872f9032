//! The supervisor hears how lives and health requests ended, and draws the consequences.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use tokio::{task::AbortHandle, time::Instant};

use super::{
    Context, Dialling, Supervisor,
    breaker::Signal,
    life::{Destiny, LifeEnd},
    look::WORTHY_AGE,
    pace::Maker,
    silence::Unanswered,
};
use crate::{
    connection::Link, error::DialError, health::HealthFault, journey::ConnectionId, passport::Buried,
    status::CauseOfDeath,
};

impl Supervisor {
    pub(super) fn note(&mut self, joined: Result<(Destiny, LifeEnd), tokio::task::JoinError>) {
        match joined {
            Ok((destiny, end)) => {
                let dialling = self.dialling.remove(&destiny.id);
                self.aborts.remove(&destiny.id);
                match end {
                    LifeEnd::Failed(error) => {
                        // No dial is forgotten before it has failed or served.
                        let began = dialling.map_or_else(Instant::now, |dial| dial.began);
                        self.note_failure(destiny.id, began, error);
                    }
                    LifeEnd::Served { link, ended } => self.note_end(&link, ended.cause, &ended.detail),
                }
            }
            Err(e) => self.note_lost_task(&e),
        }
    }

    fn note_failure(&mut self, id: ConnectionId, began: Instant, error: Arc<DialError>) {
        let hub = self.context.hub.clone();
        hub.counters.dials_failed.fetch_add(1, Ordering::Relaxed);
        self.signal(Signal::DialFailed { why: error.clone(), began });
        let now = Instant::now();
        let pause = self.breaker.dials_resume_at().map(|until| until.saturating_duration_since(now));
        let what = self.context.explain(&error);
        if error.is_identity_fault() {
            tracing::error!(environment = %self.context.key.environment, connection = %id, code = error.code(),
                next_dial_in = ?pause, "{what}");
        } else {
            tracing::warn!(environment = %self.context.key.environment, connection = %id, code = error.code(),
                next_dial_in = ?pause, "dial failed: {what}");
        }
        hub.dial_failed(error, now);
    }

    fn note_end(&mut self, link: &Link, cause: CauseOfDeath, detail: &str) {
        let now = Instant::now();
        let hub = self.context.hub.clone();
        hub.unregister(link.id());
        self.learn_from(link, now);
        self.context.observer.closed(link.id(), cause, link.requests());
        self.context.bury(link, Buried { cause, detail, at: now });
        self.context.note_gone(link, cause);
        tracing::info!(environment = %self.context.key.environment, connection = %link.id(),
            cause = cause.as_str(), requests = link.requests(), detail, "connection ended");
        use CauseOfDeath::{
            Abandoned, Age, ClosedByProvider, Exhausted, Goaway, LearnedLimit, PingTimeout, ProtocolError,
            Replaced,
        };
        match cause {
            Goaway | ClosedByProvider | PingTimeout | ProtocolError | CauseOfDeath::EmptyFrames => {
                self.meter.note_end(Maker::Provider, now);
            }
            Age | Abandoned | LearnedLimit | Exhausted | Replaced | CauseOfDeath::AddressGone => {
                self.meter.note_end(Maker::Pool, now);
                return;
            }
            CauseOfDeath::Idle | CauseOfDeath::Stopped | CauseOfDeath::NeverServed => return,
        }
        if cause == PingTimeout {
            self.signal(Signal::Unanswered(Unanswered::Ping));
        }
        if link.requests() == 0 && now.saturating_duration_since(link.birth.born) < WORTHY_AGE {
            let error = DialError::Protocol { detail: format!("ended at once: {detail}") };
            self.signal(Signal::EndedAtOnce { why: Arc::new(error), began: link.birth.born });
        }
    }

    /// A task that was cut or panicked reports nothing: its number says whose it was.
    fn note_lost_task(&mut self, error: &tokio::task::JoinError) {
        if error.is_panic() {
            tracing::error!(environment = %self.context.key.environment, "a connection's task panicked: {error}");
        }
        let Some(id) = owner_of(error.id(), &self.aborts) else { return };
        self.aborts.remove(&id);
        if let Some(Dialling { began, .. }) = self.dialling.remove(&id) {
            let error = DialError::Protocol { detail: "the dial's task ended without a word".to_owned() };
            self.signal(Signal::DialFailed { why: Arc::new(error), began });
        }
        if let Some(link) = self.context.hub.links().into_iter().find(|l| l.id() == id) {
            link.ended(CauseOfDeath::Stopped);
            let cause = link.cause().unwrap_or(CauseOfDeath::Stopped);
            self.note_end(&link, cause, "cut");
        }
    }

    /// A health request was answered, or not.
    pub(super) fn note_check(&mut self, answer: &Result<(), HealthFault>) {
        let Some(check) = self.context.config.health.clone() else { return };
        if !matches!(answer, Err(HealthFault::Timeout(_) | HealthFault::Unanswered(_))) {
            self.context.hub.set_questions_cost(false);
        }
        let before = self.health;
        self.health = before.after(answer, &check);
        match answer {
            Err(fault) if self.health.is_unhealthy() => {
                let why = fault.to_dial_error(&check);
                if !before.is_unhealthy() {
                    tracing::error!(environment = %self.context.key.environment, code = why.code(),
                        "{}; requests are refused until it recovers", self.context.explain(&why));
                }
                self.signal(Signal::Unhealthy(why));
            }
            Err(fault) => {
                tracing::warn!(environment = %self.context.key.environment, "health request failed: {fault}");
                self.make_known();
            }
            Ok(()) if before.is_unhealthy() && !self.health.is_unhealthy() => {
                tracing::info!(environment = %self.context.key.environment, "the provider is healthy again");
                // Its own answer is not that of the trial.
                let _ = self.context.hub.take_answer();
                self.signal(Signal::Healthy);
            }
            Ok(()) if self.health.is_unhealthy() => self.make_known(),
            // An answer as good as that to a request.
            Ok(()) => self.signal(Signal::Answered),
        }
    }
}

/// The connection whose task has this number. Other tasks may have ended too: they report for themselves.
fn owner_of(task: tokio::task::Id, tasks: &HashMap<ConnectionId, AbortHandle>) -> Option<ConnectionId> {
    tasks.iter().find(|(_, handle)| handle.id() == task).map(|(id, _)| *id)
}

impl Context {
    /// What went wrong, for a person: a refused certificate is named.
    pub(crate) fn explain(&self, error: &DialError) -> String {
        if !error.is_identity_fault() {
            return error.to_string();
        }
        let generation = self.hub.generation.load();
        let certificate = generation.identity().certificate();
        format!(
            "{error}; check that the certificate {} is endorsed in the Thales portal",
            certificate.fingerprint()
        )
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    /// Every task that had ended counted as lost when one was cut, and its connection was buried twice.
    #[tokio::test]
    async fn a_cut_task_is_told_from_one_that_ended_by_itself_at_the_same_moment() {
        let mut lives = JoinSet::new();
        let mut tasks = HashMap::new();
        for n in 1..=8 {
            tasks.insert(
                ConnectionId(n),
                lives.spawn(async move {
                    if n == 5 {
                        std::future::pending().await
                    }
                }),
            );
        }
        tasks[&ConnectionId(5)].abort();
        while !tasks.values().all(AbortHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        let mut lost = Vec::new();
        while let Some(joined) = lives.join_next_with_id().await {
            if let Err(error) = joined {
                lost.extend(owner_of(error.id(), &tasks));
            }
        }
        assert_eq!(lost, [ConnectionId(5)]);
    }
}
