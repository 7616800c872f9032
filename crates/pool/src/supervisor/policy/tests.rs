//! The policy, fact by fact.

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
        pace: Pace::default(),
        allowance: Allowance::Any,
        limits: LearnedLimits::default(),
        test: Test::NotDue,
    }
}

fn serving(id: u64) -> Serving {
    Serving {
        id: ConnectionId(id),
        in_flight: 1,
        capacity: 100,
        requests: 1,
        born: Instant::now(),
        retire_at: Instant::now() + LATER,
        condemned: None,
        doubted: false,
        probing: false,
        idle_for: Duration::ZERO,
        lending: Lending::Shared,
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
    f.allowance = Allowance::NotBefore(moment);
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
    old.iter_mut().for_each(|c| c.condemned = Some(CauseOfDeath::Replaced));
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
        c.condemned = Some(CauseOfDeath::Replaced);
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

fn limited(requests: u64) -> LearnedLimits {
    LearnedLimits { requests: Some(requests), ..LearnedLimits::default() }
}

#[test]
fn a_connection_near_its_learned_limit_serves_on_while_its_successor_is_dialled() {
    let mut f = facts(vec![serving(1), serving(2)]);
    f.limits = limited(200);
    f.pace = Pace { requests: 300.0, ends: 1.5, dial: Duration::from_millis(150) };
    assert_eq!(decide(&config(), &f).dials, 0, "far from the limit");
    f.serving[0].requests = 100;
    let plan = decide(&config(), &f);
    assert_eq!((plan.dials, plan.retire.len()), (1, 0));
    f.serving.push(serving(3));
    assert!(decide(&config(), &f).retire.is_empty(), "what is left of it is used");
    f.serving[0].requests = 196;
    let plan = decide(&config(), &f);
    assert_eq!(plan.retire, [(ConnectionId(1), CauseOfDeath::LearnedLimit)]);
}

#[test]
fn a_connection_is_replaced_before_the_provider_ends_it_for_being_idle_or_old() {
    for limits in [
        LearnedLimits { idle: Some(Duration::from_secs(60)), ..LearnedLimits::default() },
        LearnedLimits { age: Some(Duration::from_secs(60)), ..LearnedLimits::default() },
    ] {
        let mut f = facts(vec![serving(1), serving(2)]);
        f.limits = limits;
        f.serving[0].in_flight = 0;
        f.serving[0].idle_for = Duration::from_secs(40);
        f.serving[0].born = f.now;
        f.now += Duration::from_secs(40);
        f.serving[1].born = f.now;
        let plan = decide(&config(), &f);
        assert_eq!((plan.dials, plan.retire.len()), (0, 0), "{limits:?}");
        let wake = plan.wake_at.expect("it is looked at in time");
        f.now += Duration::from_secs(15);
        assert!(wake < f.now);
        f.serving[0].idle_for += Duration::from_secs(15);
        assert_eq!(decide(&config(), &f).dials, 1, "{limits:?}");
        f.serving.push(serving(3));
        f.serving[2].born = f.now;
        assert_eq!(decide(&config(), &f).retire, [(ConnectionId(1), CauseOfDeath::LearnedLimit)]);
    }
}

#[test]
fn one_connection_at_a_time_puts_the_limit_to_the_test() {
    let mut f = facts((1..=4).map(serving).collect());
    f.limits = limited(200);
    f.serving[0].requests = 199;
    f.serving[1].requests = 199;
    f.test = Test::Due;
    let plan = decide(&config(), &f);
    assert_eq!(plan.probe, Some(ConnectionId(1)));
    assert_eq!(plan.retire, [(ConnectionId(2), CauseOfDeath::LearnedLimit)]);
    f.serving[0].probing = true;
    f.serving[0].requests = 230;
    let plan = decide(&config(), &f);
    assert_eq!((plan.probe, plan.retire.len()), (None, 1), "the one under test stays");
}

#[test]
fn a_connection_under_suspicion_is_met_with_a_successor() {
    let mut f = facts(vec![serving(1), serving(2)]);
    f.serving[0].doubted = true;
    let plan = decide(&config(), &f);
    assert_eq!((plan.dials, plan.retire.len()), (1, 0));
}

#[test]
fn replacements_at_once_follow_the_rate_of_deaths_but_the_floor_is_urgent() {
    let config = PoolConfig { min_connections: 2, max_connections: 8, ..PoolConfig::default() };
    let mut f = facts((1..=8).map(serving).collect());
    for c in &mut f.serving {
        c.in_flight = 70;
        c.condemned = Some(CauseOfDeath::Replaced);
    }
    f.serving.push(serving(9));
    f.serving.push(serving(10));
    assert_eq!(decide(&config, &f).dials, 1, "nothing ends of its own accord: one at a time");
    f.pace = Pace { requests: 0.0, ends: 7.0, dial: Duration::from_millis(200) };
    assert_eq!(decide(&config, &f).dials, 4);
    f.serving.clear();
    f.pace = Pace::default();
    assert_eq!(decide(&config, &f).dials, 2, "the floor at once, and no herd");
}

#[test]
fn an_open_breaker_delays_and_a_half_open_one_allows_a_single_trial() {
    let mut f = facts(vec![]);
    f.allowance = Allowance::Trial;
    assert_eq!(decide(&config(), &f).dials, 1);
    f.dialling = 1;
    assert_eq!(decide(&config(), &f).dials, 0);
}

#[test]
fn a_connection_whose_address_left_the_name_is_replaced_make_before_break() {
    let mut f = facts(vec![serving(1), serving(2)]);
    f.serving[0].condemned = Some(CauseOfDeath::AddressGone);
    let plan = decide(&config(), &f);
    assert_eq!((plan.dials, plan.retire.len()), (1, 0));
    f.serving.push(serving(3));
    assert_eq!(decide(&config(), &f).retire, [(ConnectionId(1), CauseOfDeath::AddressGone)]);
}

/// HTTP/1.1: one connection, one request.
fn exclusive(id: u64, in_flight: u32) -> Serving {
    Serving { in_flight, capacity: 1, lending: Lending::Exclusive, ..serving(id) }
}

#[test]
fn exclusive_connections_grow_by_as_many_as_wait_and_no_herd() {
    let config = PoolConfig { http1_max_connections: 16, ..config() };
    let mut f = facts(vec![exclusive(1, 1), exclusive(2, 1)]);
    f.waiting = 3;
    assert_eq!(decide(&config, &f).dials, 3, "each of them needs one of its own");
    f.waiting = 100;
    assert_eq!(decide(&config, &f).dials, MAX_EXCLUSIVE_DIALS);
    f.dialling = MAX_EXCLUSIVE_DIALS;
    assert_eq!(decide(&config, &f).dials, 0);
    f.serving = (1..=16).map(|id| exclusive(id, 1)).collect();
    f.dialling = 0;
    assert_eq!(decide(&config, &f).dials, 0, "never above the maximum");
}

#[test]
fn busy_exclusive_connections_have_a_spare_before_anybody_waits() {
    let f = facts((1..=3).map(|id| exclusive(id, 1)).collect());
    assert_eq!(decide(&config(), &f).dials, 1);
}

#[test]
fn connections_of_both_versions_make_up_the_floor() {
    let f = facts(vec![serving(1), exclusive(2, 0)]);
    let plan = decide(&config(), &f);
    assert_eq!((plan.dials, plan.retire.len()), (0, 0), "a mixed provider is not dialled without end");
    let mut old = serving(1);
    old.condemned = Some(CauseOfDeath::Replaced);
    let f = facts(vec![old, exclusive(2, 0), exclusive(3, 0)]);
    assert_eq!(decide(&config(), &f).retire, [(ConnectionId(1), CauseOfDeath::Replaced)]);
}

#[test]
fn an_idle_exclusive_connection_goes_before_the_provider_closes_it_and_not_before_its_successor_serves() {
    let mut old = exclusive(1, 0);
    old.idle_for = crate::http1::IDLE_LIMIT;
    let mut f = facts(vec![old, exclusive(2, 0)]);
    f.now = Instant::now() + crate::http1::IDLE_LIMIT;
    f.serving[1].idle_for = Duration::ZERO;
    let plan = decide(&config(), &f);
    assert_eq!((plan.dials, plan.retire.len()), (1, 0));
    f.serving.push(exclusive(3, 0));
    assert_eq!(decide(&config(), &f).retire, [(ConnectionId(1), CauseOfDeath::Idle)]);
}

#[test]
fn a_learned_idle_limit_is_kept_by_a_fifth() {
    let mut f = facts(vec![exclusive(4, 0), exclusive(5, 0)]);
    f.limits.idle = Some(Duration::from_secs(10));
    f.pace.dial = Duration::from_millis(50);
    let fades = Duration::from_secs(8) - f.pace.lead();
    for (idle, dials) in [(fades - Duration::from_millis(1), 0), (fades, 1)] {
        f.serving[0].idle_for = idle;
        f.now = Instant::now() + idle;
        assert_eq!(decide(&config(), &f).dials, dials, "{idle:?}");
    }
    f.serving.push(exclusive(6, 0));
    f.serving[0].idle_for = Duration::from_secs(8);
    assert_eq!(decide(&config(), &f).retire, [(ConnectionId(4), CauseOfDeath::LearnedLimit)]);
}

#[test]
fn a_slow_dial_makes_no_successor_fade_at_birth() {
    let mut f = facts(vec![exclusive(1, 0), exclusive(2, 0)]);
    f.limits.idle = Some(Duration::from_secs(1));
    f.pace.dial = Duration::from_secs(2);
    assert_eq!(decide(&config(), &f).dials, 0);
}

#[test]
fn a_shared_connection_goes_only_when_exclusive_ones_can_carry_its_load() {
    let mut old = serving(1);
    old.condemned = Some(CauseOfDeath::Replaced);
    old.in_flight = 4;
    let mut f = facts(vec![old, exclusive(2, 0), exclusive(3, 0)]);
    let plan = decide(&config(), &f);
    assert_eq!((plan.dials, plan.retire.len()), (4, 0), "four requests and a quarter to spare need six");
    f.serving.extend((4..=7).map(|id| exclusive(id, 0)));
    assert_eq!(decide(&config(), &f).retire, [(ConnectionId(1), CauseOfDeath::Replaced)]);
}

#[test]
fn a_connection_whose_stream_numbers_run_out_is_replaced_make_before_break() {
    use crate::connection::{STREAM_ROOM, STREAM_WARNING};
    let with = |requests| Serving { requests, ..serving(1) };
    let mut f = facts(vec![with(STREAM_ROOM - STREAM_WARNING), serving(2)]);
    let plan = decide(&config(), &f);
    assert_eq!((plan.dials, plan.retire.len()), (1, 0), "the successor comes first");
    f.serving = vec![with(STREAM_ROOM), serving(2), serving(3)];
    assert_eq!(decide(&config(), &f).retire, vec![(ConnectionId(1), CauseOfDeath::Exhausted)]);
}
