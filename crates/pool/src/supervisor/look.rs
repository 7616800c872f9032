//! The supervisor looks around: facts for the policy, gathered from connections, breaker, meter and what was learned.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Supervisor,
    breaker::Signal,
    policy::{Draining, Facts, Mode, Plan, Test, decide},
    standing::{Lending, Serving},
};
use crate::{
    config::LearnedLimitsMode,
    connection::{Link, State, Trust},
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
        let ticked = self.breaker.tick(now);
        if ticked.is_some() {
            self.tell_breaker(ticked);
        }
        self.meter.note_requests(hub.totals().requests, now);
        let links = hub.links();
        self.look_at_probe(&links, now);
        let mut facts = Facts {
            now,
            mode: self.mode(),
            serving: Vec::new(),
            draining: Vec::new(),
            dialling: u32::try_from(self.dialling.len()).unwrap_or(u32::MAX),
            waiting: hub.waiting(),
            growth_wanted: hub.take_growth_wanted(),
            recent_ends: self.meter.recent_ends(now),
            pace: self.meter.pace(),
            allowance: self.breaker.allowance(),
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

    fn mode(&self) -> Mode {
        let hub = &self.context.hub;
        if hub.is_stopping() { Mode::Stopping } else { Mode::Running }
    }

    fn look_at(&mut self, link: &Link, active: u64, now: Instant) -> Serving {
        let worthy = link.requests() > 0 || now.saturating_duration_since(link.birth.born) > WORTHY_AGE;
        if worthy && link.credit_once() {
            self.signal(Signal::Worthy(link.birth.born));
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
        if farewell.calm {
            self.ping_less();
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
        };
        if self.learned.note(sample) {
            tracing::info!(environment = %self.context.key.environment, limits = ?self.learned.limits(),
                "the provider ends connections by a rule; successors will serve before");
            self.context.note_limits(&self.learned.limits());
        }
        self.make_known();
    }

    /// The provider finds our PINGs too many (ENHANCE_YOUR_CALM): half as often from now on.
    fn ping_less(&mut self) {
        let hub = &self.context.hub;
        let interval = (hub.ping_interval() * 2).min(super::LONGEST_PING_INTERVAL);
        hub.set_ping_interval(interval);
        tracing::warn!(environment = %self.context.key.environment, ?interval,
            "the provider asked for calm; PINGs are sent half as often from now on");
    }
}
