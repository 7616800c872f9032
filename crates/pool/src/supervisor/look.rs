//! The supervisor looks around: facts for the policy, gathered from connections, breaker, meter and what was learned.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Supervisor,
    breaker::Signal,
    policy::{Draining, Facts, Mode, Plan, Test, decide},
    silence::Unanswered,
    standing::{Lending, Serving},
};
use crate::{
    config::LearnedLimitsMode,
    connection::{Link, State, Trust},
    learned::Noted,
    status::CauseOfDeath,
};

/// A connection that the provider ends before it carried anything and before this age counts as a failed dial.
pub(super) const WORTHY_AGE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// What should be done now.
    pub(super) fn look(&mut self) -> Plan {
        let now = Instant::now();
        let hub = self.context.hub.clone();
        let active = hub.generation.load().serial();
        if std::mem::replace(&mut self.active, active) != active {
            self.signal(Signal::Renewed);
            hub.set_questions_cost(false);
            hub.forget_failures();
        }
        self.look_at_answers();
        self.look_at_pings();
        if self.calm.tick(now) {
            self.tell_interval("the provider has not complained for long; PINGs are sent more often again");
        }
        let ticked = self.breaker.tick(now);
        if ticked.is_some() {
            self.tell_breaker(ticked);
        }
        self.meter.note_requests(hub.totals().requests, now);
        let links = hub.links();
        self.note_proven(&links);
        self.look_at_probe(&links, now);
        let mut facts = Facts {
            now,
            mode: self.mode(),
            serving: Vec::new(),
            draining: Vec::new(),
            dialling: self.still_dialling(&links),
            waiting: hub.waiting(),
            growth_wanted: hub.take_growth_wanted(),
            recent_ends: self.meter.recent_ends(now),
            pace: self.meter.pace(),
            allowance: self.breaker.allowance(self.dialling.len(), now),
            limits: self.learned.limits(),
            test: if self.learned.retest_due(now) { Test::Due } else { Test::NotDue },
        };
        for link in &links {
            if link.passport.take_settings_changed() {
                self.context.note_settings(link);
            }
            match link.state() {
                State::Serving => facts.serving.push(self.look_at(link, active, now)),
                State::Draining => {
                    self.learn_from(link, now);
                    // The provider ends it after the response that it carries: whoever reads that has limits.
                    if !link.is_parting() {
                        let since = link.drain_since().unwrap_or(now);
                        facts.draining.push(Draining { id: link.id(), since });
                    }
                }
                State::Dialing | State::Proving | State::Closed => {}
            }
        }
        facts.limits = self.learned.limits();
        decide(&self.context.config, &facts)
    }

    /// What requests told since: that nothing was heard, that something was answered.
    fn look_at_answers(&mut self) {
        let hub = self.context.hub.clone();
        if hub.take_silence() {
            self.signal(Signal::Unanswered(Unanswered::Requests));
        }
        if hub.take_answer() {
            self.signal(Signal::Answered);
        }
    }

    /// Dials under way. One that has come to serve counts as what it is, though `publish` has not seen it yet: counted
    /// twice it would stand for a second connection that nobody dials.
    fn still_dialling(&self, links: &[std::sync::Arc<Link>]) -> u32 {
        let proven = links.iter().filter(|link| self.dialling.contains_key(&link.id())).count();
        u32::try_from(self.dialling.len().saturating_sub(proven)).unwrap_or(u32::MAX)
    }

    /// What connections found out about PINGs.
    fn look_at_pings(&self) {
        let ignored = self.context.hub.ignores_pings();
        if self.context.hub.known.load().learned.ignores_pings == ignored {
            return;
        }
        let environment = &self.context.key.environment;
        if ignored {
            tracing::warn!(%environment,
                "the provider acknowledges SETTINGS but no PINGs: connections are kept alive by SETTINGS");
        } else {
            tracing::info!(%environment, "the provider answers PINGs");
        }
        self.make_known();
    }

    fn mode(&self) -> Mode {
        let hub = &self.context.hub;
        if hub.is_stopping() { Mode::Stopping } else { Mode::Running }
    }

    fn look_at(&mut self, link: &Link, active: u64, now: Instant) -> Serving {
        link.note_active(active);
        let worthy = link.requests() > 0 || now.saturating_duration_since(link.birth.born) > WORTHY_AGE;
        if worthy && link.credit_once() {
            self.signal(Signal::Worthy(link.birth.born));
        }
        if let Some(fault) = link.vitals().take_unwell()
            && self.checks.counts_beside(now)
        {
            self.note_check(&Err(fault));
        }
        Serving {
            id: link.id(),
            in_flight: link.in_flight(),
            capacity: link.capacity(),
            requests: link.requests(),
            born: link.birth.born,
            retire_at: link.birth.retire_at,
            condemned: self.condemnation(link, active),
            doubted: link.vitals().trust() != Trust::Full,
            probing: self.probe == Some(link.id()),
            idle_for: link.idle_for(now).unwrap_or_default(),
            lending: Lending::of(link.birth.protocol),
        }
    }

    /// Why the connection has to go whatever its age, if it has to.
    fn condemnation(&self, link: &Link, active: u64) -> Option<CauseOfDeath> {
        if link.birth.generation != active {
            return Some(CauseOfDeath::Replaced);
        }
        if link.vitals().is_worn() {
            return Some(CauseOfDeath::EmptyFrames);
        }
        self.context.directory.is_gone(link.birth.address).then_some(CauseOfDeath::AddressGone)
    }

    /// Has the connection under test outlived the limits?
    fn look_at_probe(&mut self, links: &[std::sync::Arc<Link>], now: Instant) {
        let Some(id) = self.probe else { return };
        let Some(link) = links.iter().find(|l| l.id() == id && l.state() == State::Serving) else {
            // It ended: how, the limits have learned already, or will when its end is noted.
            self.probe = None;
            self.make_known();
            return;
        };
        let idle = link.idle_for(now).unwrap_or_default();
        let age = now.saturating_duration_since(link.birth.born);
        if self.learned.outlived(link.requests(), age, idle) {
            tracing::info!(environment = %self.context.key.environment, connection = %id,
                limits = ?self.learned.limits(), "a learned limit no longer holds");
            self.probe = None;
            self.context.note_limits(&self.learned.limits());
            self.make_known();
        }
    }

    /// Takes the sample of a connection whose end the provider announced, once.
    pub(super) fn learn_from(&mut self, link: &Link, now: Instant) {
        let Some(farewell) = link.vitals().sample_once() else { return };
        if farewell.calm && blames_pings(link) && self.calm.asked(farewell.at) {
            self.tell_interval("the provider asked for calm; PINGs are sent half as often from now on");
        }
        if !farewell.routine || self.context.config.learned_limits == LearnedLimitsMode::Off {
            return;
        }
        let sample = crate::learned::Sample {
            at: farewell.at.min(now),
            requests: farewell.requests,
            uncertain: farewell.uncertain,
            age: farewell.at.saturating_duration_since(link.birth.born),
            idle: farewell.idle,
            orderly: farewell.orderly,
        };
        let (environment, limits) = (&self.context.key.environment, self.learned.limits());
        match self.learned.note(sample) {
            Noted::Nothing => {}
            // Somebody has lived longer already.
            Noted::Suspected if self.learned.outlived(0, self.greatest_age(now), Duration::ZERO) => {}
            Noted::Suspected => {
                let age = self.learned.limits().age;
                tracing::info!(%environment, ?age, "connections ended together at one age: a rule, or an accident; \
                    successors will serve before that age, and one connection finds out");
            }
            Noted::Learned => {
                tracing::info!(%environment, limits = ?self.learned.limits(), before = ?limits,
                    "the provider ends connections by a rule; successors will serve before");
                self.context.note_limits(&self.learned.limits());
            }
        }
        self.make_known();
    }

    /// The age of the eldest connection that serves.
    fn greatest_age(&self, now: Instant) -> Duration {
        let links = self.context.hub.links();
        let serving = links.iter().filter(|link| link.state() == State::Serving);
        serving.map(|link| now.saturating_duration_since(link.birth.born)).max().unwrap_or_default()
    }

    /// Tells connections how often PINGs are sent from now on.
    fn tell_interval(&self, why: &str) {
        let interval = self.calm.interval();
        self.context.hub.set_ping_interval(interval);
        tracing::warn!(environment = %self.context.key.environment, ?interval, "{why}");
    }
}

/// Whether PINGs are what a provider had too many of. ENHANCE_YOUR_CALM does not say; its words may, and a connection on
/// which many streams were reset had another fault.
fn blames_pings(link: &Link) -> bool {
    let words = link.passport.parting_words();
    let names_pings = words.is_some_and(|words| words.as_str().to_ascii_lowercase().contains("ping"));
    names_pings || link.resets().lock().spent() < FEW_RESETS
}

/// Resets that no server takes for an attack.
const FEW_RESETS: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::serving;

    #[test]
    fn a_call_for_calm_on_a_connection_with_many_resets_is_not_about_pings() {
        let link = serving(1, 100);
        assert!(blames_pings(&link));
        for _ in 0..20 {
            link.resets().lock().try_take(180, Instant::now());
        }
        assert!(!blames_pings(&link));
    }
}
