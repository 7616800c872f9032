//! What a pool should do next, as a pure function: facts in, plan out. No clock, no chance, no task.

use std::time::Duration;

use tokio::time::Instant;

use crate::{config::PoolConfig, journey::ConnectionId, status::CauseOfDeath};

/// A connection that carries new streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Serving {
    pub(super) id: ConnectionId,
    pub(super) in_flight: u32,
    /// Streams it may carry at once.
    pub(super) capacity: u32,
    pub(super) retire_at: Instant,
    /// Its generation is the active one.
    pub(super) current: bool,
    /// How long it has carried nothing.
    pub(super) idle_for: Duration,
}

/// A connection on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draining {
    pub(super) id: ConnectionId,
    pub(super) since: Instant,
}

/// What the pool is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Keep connections.
    Running,
    /// The provider speaks HTTP/1.1: the connections are kept elsewhere.
    Http1,
    /// End all of them.
    Stopping,
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
    /// No dial before this moment (back-off).
    pub(super) not_before: Option<Instant>,
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
    /// When to look again, if nothing happens before.
    pub(super) wake_at: Option<Instant>,
}

/// Dials at once. Handshakes cost the provider more than us; a herd of them after an outage helps nobody.
const MAX_DIALS: u32 = 4;

/// Decides the next step.
pub(super) fn decide(config: &PoolConfig, facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    for draining in &facts.draining {
        let deadline = draining.since + config.drain_timeout;
        if deadline <= facts.now { plan.cut.push(draining.id) } else { plan.look_again(deadline) }
    }
    match facts.mode {
        Mode::Running => keep(config, facts, &mut plan),
        Mode::Http1 => retire_all(facts, CauseOfDeath::Replaced, &mut plan),
        Mode::Stopping => retire_all(facts, CauseOfDeath::Stopped, &mut plan),
    }
    plan
}

fn retire_all(facts: &Facts, cause: CauseOfDeath, plan: &mut Plan) {
    plan.retire.extend(facts.serving.iter().map(|c| (c.id, cause)));
}

fn keep(config: &PoolConfig, facts: &Facts, plan: &mut Plan) {
    let (fresh, due): (Vec<_>, Vec<_>) =
        facts.serving.iter().partition(|c| c.current && facts.now < c.retire_at);
    let serving = count(&fresh);
    // A provider that ends connections of its own accord takes one at any time: have a spare.
    let spare = u32::from(facts.recent_ends > 0);
    let floor = (config.min_connections + spare).min(config.max_connections);
    let growth = facts.dialling == 0 && (facts.waiting > 0 || facts.growth_wanted);
    let load = needed_for(&facts.serving);
    let wanted = floor.max(load).max(serving + u32::from(growth)).min(config.max_connections);

    let missing = wanted.saturating_sub(serving + facts.dialling);
    match facts.not_before {
        Some(moment) if missing > 0 && moment > facts.now => plan.look_again(moment),
        _ => plan.dials = missing.min(MAX_DIALS.saturating_sub(facts.dialling)),
    }

    // Make before break: an elder goes only when the floor stands, and the load can be carried, without it.
    if serving >= config.min_connections.max(load).min(config.max_connections) {
        plan.retire.extend(
            due.iter().map(|c| (c.id, if c.current { CauseOfDeath::Age } else { CauseOfDeath::Replaced })),
        );
    }
    shrink(config, facts, &fresh, floor, plan);
    for connection in &fresh {
        plan.look_again(connection.retire_at);
    }
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
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(1000);

    fn config() -> PoolConfig {
        PoolConfig { min_connections: 2, max_connections: 4, ..PoolConfig::default() }
    }

    fn facts(serving: Vec<Serving>) -> Facts {
        Facts {
            now: Instant::now(),
            mode: Mode::Running,
            serving,
            draining: Vec::new(),
            dialling: 0,
            waiting: 0,
            growth_wanted: false,
            recent_ends: 0,
            not_before: None,
        }
    }

    fn serving(id: u64) -> Serving {
        Serving {
            id: ConnectionId(id),
            in_flight: 1,
            capacity: 100,
            retire_at: Instant::now() + LATER,
            current: true,
            idle_for: Duration::ZERO,
        }
    }

    #[test]
    fn the_floor_is_dialled_at_once_and_only_once() {
        let mut f = facts(vec![]);
        assert_eq!(decide(&config(), &f).dials, 2);
        f.dialling = 2;
        assert_eq!(decide(&config(), &f).dials, 0);
    }

    #[test]
    fn growth_is_one_dial_at_a_time_up_to_the_maximum() {
        let mut f = facts(vec![serving(1), serving(2)]);
        f.waiting = 50;
        assert_eq!(decide(&config(), &f).dials, 1);
        f.dialling = 1;
        assert_eq!(decide(&config(), &f).dials, 0, "single flight");
        f.dialling = 0;
        f.serving = (1..=4).map(serving).collect();
        assert_eq!(decide(&config(), &f).dials, 0, "never above the maximum");
    }

    #[test]
    fn back_off_delays_the_dial_and_asks_to_be_woken() {
        let mut f = facts(vec![]);
        let moment = f.now + Duration::from_secs(3);
        f.not_before = Some(moment);
        let plan = decide(&config(), &f);
        assert_eq!((plan.dials, plan.wake_at), (0, Some(moment)));
    }

    #[test]
    fn an_aged_connection_stays_until_its_successor_serves() {
        let mut old = serving(1);
        old.retire_at = Instant::now();
        let mut f = facts(vec![old, serving(2)]);
        f.now = Instant::now() + Duration::from_millis(1);
        let plan = decide(&config(), &f);
        assert_eq!(plan.dials, 1, "the successor is dialled first");
        assert!(plan.retire.is_empty());
        f.serving.push(serving(3));
        let plan = decide(&config(), &f);
        assert_eq!(plan.retire, [(ConnectionId(1), CauseOfDeath::Age)]);
        assert_eq!(plan.dials, 0);
    }

    #[test]
    fn an_old_generation_is_replaced_make_before_break() {
        let mut old: Vec<_> = (1..=2).map(serving).collect();
        old.iter_mut().for_each(|c| c.current = false);
        let mut f = facts(old);
        assert_eq!(decide(&config(), &f).dials, 2);
        assert!(decide(&config(), &f).retire.is_empty());
        f.serving.extend([serving(3), serving(4)]);
        let causes: Vec<_> = decide(&config(), &f).retire;
        assert_eq!(
            causes,
            [(ConnectionId(1), CauseOfDeath::Replaced), (ConnectionId(2), CauseOfDeath::Replaced)]
        );
    }

    #[test]
    fn a_renewal_under_load_keeps_the_capacity() {
        let mut old: Vec<_> = (1..=4).map(serving).collect();
        for c in &mut old {
            c.current = false;
            c.in_flight = 70;
        }
        let mut f = facts(old);
        assert_eq!(decide(&config(), &f).dials, 4, "280 streams need four connections");
        f.serving.extend([serving(5), serving(6)]);
        assert!(decide(&config(), &f).retire.is_empty(), "two new ones cannot carry it");
        f.serving.extend([serving(7), serving(8)]);
        assert_eq!(decide(&config(), &f).retire.len(), 4);
    }

    #[test]
    fn a_provider_that_ends_connections_is_met_with_a_spare() {
        let mut f = facts(vec![serving(1), serving(2)]);
        f.recent_ends = 1;
        assert_eq!(decide(&config(), &f).dials, 1);
    }

    #[test]
    fn surplus_is_closed_when_idle_but_never_below_the_floor() {
        let mut idle: Vec<_> = (1..=4).map(serving).collect();
        for c in &mut idle {
            c.in_flight = 0;
            c.idle_for = LATER;
        }
        let plan = decide(&config(), &facts(idle));
        assert_eq!(plan.retire.len(), 2);
        assert!(plan.retire.iter().all(|(_, cause)| *cause == CauseOfDeath::Idle));
    }

    #[test]
    fn a_drain_that_takes_too_long_is_cut() {
        let mut f = facts(vec![serving(1), serving(2)]);
        let since = f.now;
        f.draining.push(Draining { id: ConnectionId(9), since });
        assert_eq!(decide(&config(), &f).wake_at, Some(since + config().drain_timeout));
        f.now += config().drain_timeout;
        assert_eq!(decide(&config(), &f).cut, [ConnectionId(9)]);
    }

    #[test]
    fn a_stop_retires_everything_and_dials_nothing() {
        let mut f = facts(vec![serving(1)]);
        f.mode = Mode::Stopping;
        f.waiting = 9;
        let plan = decide(&config(), &f);
        assert_eq!(plan.dials, 0);
        assert_eq!(plan.retire, [(ConnectionId(1), CauseOfDeath::Stopped)]);
    }
}
