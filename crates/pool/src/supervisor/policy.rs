//! What a pool should do next, as a pure function: facts in, plan out. No clock, no chance, no task.
//!
//! Owns which connections are dialled, retired, cut, or put to the test. How each one stands is `standing`.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    breaker::Allowance,
    standing::{Lending, Pace, Serving, Standing},
};
use crate::{config::PoolConfig, journey::ConnectionId, learned::LearnedLimits, status::CauseOfDeath};

/// A connection on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draining {
    pub(super) id: ConnectionId,
    pub(super) since: Instant,
}

/// What the pool is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Keep connections, of whichever version the provider answers with.
    Running,
    /// End all of them.
    Stopping,
}

/// Whether a learned limit is to be put to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// It was tested lately, or there is none.
    NotDue,
    /// The next connection that reaches a limit should try to outlive it.
    Due,
}

/// Everything that matters for the next step.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) now: Instant,
    pub(super) mode: Mode,
    pub(super) serving: Vec<Serving>,
    pub(super) draining: Vec<Draining>,
    pub(super) dialling: u32,
    pub(super) waiting: u32,
    pub(super) growth_wanted: bool,
    /// Connections that the provider ended lately.
    pub(super) recent_ends: u32,
    /// How fast requests come, connections end, and dials are.
    pub(super) pace: Pace,
    /// What the breaker allows.
    pub(super) allowance: Allowance,
    /// What the provider is known to do of its own accord.
    pub(super) limits: LearnedLimits,
    pub(super) test: Test,
}

/// The next step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Dials to start.
    pub(super) dials: u32,
    /// Connections that take no new streams from now on.
    pub(super) retire: Vec<(ConnectionId, CauseOfDeath)>,
    /// Connections whose drain took too long.
    pub(super) cut: Vec<ConnectionId>,
    /// The connection that is to outlive the learned limits if it can, one stream at a time.
    pub(super) probe: Option<ConnectionId>,
    /// When to look again, if nothing happens before.
    pub(super) wake_at: Option<Instant>,
}

/// Dials at once, whatever the need. Handshakes cost the provider more than us; a herd of them helps nobody.
const MAX_DIALS: u32 = 4;
/// The same where each connection carries one request only.
const MAX_EXCLUSIVE_DIALS: u32 = 8;
/// How often a connection under test is looked at.
const PROBE_LOOK: Duration = Duration::from_millis(500);

/// Decides the next step.
pub(super) fn decide(config: &PoolConfig, facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    for draining in &facts.draining {
        let deadline = draining.since + config.drain_timeout;
        if deadline <= facts.now { plan.cut.push(draining.id) } else { plan.look_again(deadline) }
    }
    match facts.mode {
        Mode::Running => keep(config, facts, &mut plan),
        Mode::Stopping => retire_all(facts, CauseOfDeath::Stopped, &mut plan),
    }
    plan
}

fn retire_all(facts: &Facts, cause: CauseOfDeath, plan: &mut Plan) {
    plan.retire.extend(facts.serving.iter().map(|c| (c.id, cause)));
}

fn keep(config: &PoolConfig, facts: &Facts, plan: &mut Plan) {
    let mut fresh = Vec::new();
    let mut due = Vec::new();
    for connection in &facts.serving {
        match connection.standing(facts.now, &facts.limits, &facts.pace) {
            Standing::Fresh { until } => {
                fresh.push(connection);
                until.into_iter().for_each(|at| plan.look_again(at));
            }
            // It serves until it is due, but its successor is wanted now.
            Standing::Fading { until } => until.into_iter().for_each(|at| plan.look_again(at)),
            Standing::Due(cause) => due.push((connection, cause)),
            Standing::Probing => plan.look_again(facts.now + PROBE_LOOK),
        }
    }
    let serving = count(&fresh);
    let most = most(config, facts);
    // A provider that ends connections of its own accord takes one at any time: have a spare.
    let spare = u32::from(facts.recent_ends > 0);
    let floor = (config.min_connections + spare).min(config.max_connections);
    let load =
        if lends_exclusively(facts) { needed_beside(&fresh, facts) } else { needed_for(&facts.serving) };
    let wanted = floor.max(load).max(serving + growth(facts)).min(most);
    plan_dials(config, facts, wanted.saturating_sub(serving + facts.dialling), serving, plan);

    // Make before break: an elder goes only when the floor stands, and the load can be carried, without it.
    if serving >= config.min_connections.max(load).min(most) {
        plan.probe = probe(facts, &due);
        plan.retire
            .extend(due.iter().filter(|(c, _)| Some(c.id) != plan.probe).map(|(c, cause)| (c.id, *cause)));
    }
    shrink(config, facts, &fresh, floor, plan);
}

/// Most connections: where one carries one request, more of them are needed.
fn most(config: &PoolConfig, facts: &Facts) -> u32 {
    if lends_exclusively(facts) {
        config.http1_max_connections.max(config.min_connections)
    } else {
        config.max_connections
    }
}

fn lends_exclusively(facts: &Facts) -> bool {
    facts.serving.iter().any(|c| c.lending == Lending::Exclusive)
}

/// How many connections more those who wait are worth. One shared connection serves many of them: one dial at a time.
/// An exclusive one serves one: as many as wait.
fn growth(facts: &Facts) -> u32 {
    if lends_exclusively(facts) {
        facts.waiting
    } else {
        u32::from(facts.dialling == 0 && (facts.waiting > 0 || facts.growth_wanted))
    }
}

/// How many of the `missing` connections are dialled now.
fn plan_dials(config: &PoolConfig, facts: &Facts, missing: u32, serving: u32, plan: &mut Plan) {
    if missing == 0 {
        return;
    }
    let room = match facts.allowance {
        Allowance::NotBefore(moment) => {
            plan.look_again(moment);
            return;
        }
        Allowance::Trial => 1,
        // Below the floor all that is missing is urgent; above it, only what ends while a dial takes its time.
        Allowance::Any if lends_exclusively(facts) => MAX_EXCLUSIVE_DIALS,
        Allowance::Any if serving < config.min_connections => MAX_DIALS,
        Allowance::Any => facts.pace.replacements_at_once().min(MAX_DIALS),
    };
    plan.dials = missing.min(room.saturating_sub(facts.dialling));
}

/// The connection that puts the learned limits to the test instead of being retired: one at a time.
fn probe(facts: &Facts, due: &[(&Serving, CauseOfDeath)]) -> Option<ConnectionId> {
    if facts.test == Test::NotDue || facts.serving.iter().any(|c| c.probing) {
        return None;
    }
    due.iter().find(|(_, cause)| *cause == CauseOfDeath::LearnedLimit).map(|(c, _)| c.id)
}

/// How many connections like these carry their present load with a quarter to spare.
fn needed_for(serving: &[Serving]) -> u32 {
    let sum = |of: fn(&Serving) -> u32| serving.iter().map(|c| u64::from(of(c))).sum::<u64>();
    let (in_flight, capacity) = (sum(|c| c.in_flight), sum(|c| c.capacity));
    // in_flight ÷ (¾ of the mean capacity), rounded up.
    let needed = (in_flight * 4 * serving.len() as u64)
        .checked_div(capacity * 3)
        .map_or(0, |whole| whole + u64::from(whole * capacity * 3 != in_flight * 4 * serving.len() as u64));
    u32::try_from(needed).unwrap_or(u32::MAX)
}

/// The same where further connections carry one request each: these, and one for each request that they cannot carry
/// with a quarter to spare.
fn needed_beside(fresh: &[&Serving], facts: &Facts) -> u32 {
    let in_flight: u64 = facts.serving.iter().map(|c| u64::from(c.in_flight)).sum();
    let room: u64 = fresh.iter().map(|c| u64::from(c.capacity)).sum();
    let lacking = (in_flight * 4).div_ceil(3).saturating_sub(room);
    count(fresh).saturating_add(u32::try_from(lacking).unwrap_or(u32::MAX))
}

/// Ends connections above the floor that have carried nothing for a while.
fn shrink(config: &PoolConfig, facts: &Facts, fresh: &[&Serving], floor: u32, plan: &mut Plan) {
    let surplus = count(fresh).saturating_sub(floor);
    if surplus == 0 {
        return;
    }
    plan.look_again(facts.now + config.idle_shrink / 4);
    if facts.waiting > 0 || facts.growth_wanted {
        return;
    }
    let idle = fresh.iter().filter(|c| c.in_flight == 0 && c.idle_for >= config.idle_shrink);
    plan.retire.extend(idle.take(surplus as usize).map(|c| (c.id, CauseOfDeath::Idle)));
}

fn count(connections: &[&Serving]) -> u32 {
    u32::try_from(connections.len()).unwrap_or(u32::MAX)
}

impl Plan {
    fn look_again(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

#[cfg(test)]
mod tests;
