//! Limits on time that a provider keeps without a word (age, idleness), over HTTP/2: learned, met, relaxed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::*;

/// Requests that come one after another, with pauses, until this is dropped; none may fail.
struct Trickle {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Trickle {
    fn start(pool: &Pool) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (pool, stopped, count) = (pool.clone(), stop.clone(), answered.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                exchange(&pool, get()).await.expect("an answer");
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { stop, answered, task: Some(task) }
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.take().unwrap().await.expect("no request fails");
        assert!(self.answered.load(Ordering::Relaxed) > 0);
    }
}

/// What takes several lives of a connection by its nature.
async fn in_time(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "not in a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_born_together_that_age_together_do_so_once() {
    const AGE: Duration = Duration::from_secs(4);
    let a = client("CUSTOMER-0001-SBX");
    let ageing = Behaviour { goaway_after: Some(AGE), ..Behaviour::default() };
    let sim = provider(ageing, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 8), Timeouts::default());
    warm(&pool).await;
    let trickle = Trickle::start(&pool);
    in_time("the age is acted on after the first common end", || pool.status().learned.limits.age.is_some())
        .await;
    let first = pool.status().totals.goaways;
    assert!(first <= 2, "two connections were enough: {first}");
    let age = pool.status().learned.limits.age.unwrap();
    assert!(age.abs_diff(AGE) < AGE / 4, "{age:?}");
    // The age is known the moment both have ended; their successors are only being dialled then.
    in_time("successors serve", || serving(&pool) >= 2).await;
    // Three generations of successors; only those that try to outlive the limit may be caught by it.
    let before = pool.status().totals;
    let mut served_always = true;
    in_time("successors serve and go", || {
        served_always &= serving(&pool) > 0;
        pool.status().totals.connections >= before.connections + 6
    })
    .await;
    trickle.end().await;
    let after = pool.status().totals;
    assert!(served_always, "a second common end");
    assert!(
        after.goaways <= before.goaways + 2,
        "{} connections were caught",
        after.goaways - before.goaways
    );
    assert_eq!(after.waited_for_dial, before.waited_for_dial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learned_age_that_no_longer_holds_is_forgotten() {
    let a = client("CUSTOMER-0001-SBX");
    let ageing = Behaviour { goaway_after: Some(Duration::from_secs(3)), ..Behaviour::default() };
    let sim = provider(ageing, &[&a]).await;
    // What was born while the rule held may still confirm it; the next test finds that it is gone.
    let config = PoolConfig { retest_after: Duration::from_millis(500), ..config(2, 4) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let trickle = Trickle::start(&pool);
    in_time("the age is learned", || pool.status().learned.limits.age.is_some()).await;
    sim.set_behaviour(Behaviour { goaway_after: None, ..sim.behaviour() }).unwrap();
    in_time("it is forgotten", || pool.status().learned.limits.is_empty()).await;
    trickle.end().await;
}

#[tokio::test]
async fn an_idle_limit_is_learned_met_and_forgotten_over_http_2() {
    let a = client("CUSTOMER-0001-SBX");
    let idle = Duration::from_secs(3);
    for behaviour in [
        Behaviour { goaway_after_idle: Some(idle), ..Behaviour::default() },
        Behaviour { idle_close: Some(idle), ..Behaviour::default() },
    ] {
        let sim = provider(behaviour, &[&a]).await;
        let config = PoolConfig { retest_after: Duration::from_secs(15), ..config(1, 4) };
        let pool = start(&sim, generation(1, &a), config, Timeouts::default());
        warm(&pool).await;
        in_time("the limit is learned", || pool.status().learned.limits.idle.is_some()).await;
        let learned = pool.status().learned.limits.idle.unwrap();
        assert!(learned.abs_diff(idle) < idle / 3, "{learned:?}");
        // What was idle too long already when it was learned may still be caught.
        let settled = pool.status().totals.connections + 1;
        in_time("a successor serves", || pool.status().totals.connections >= settled).await;
        let mut served_always = true;
        in_time("it is met", || {
            served_always &= serving(&pool) > 0;
            pool.status().totals.connections >= settled + 2
        })
        .await;
        assert!(served_always, "no connection was idle for as long as the provider bears");
        let relaxed = Behaviour { goaway_after_idle: None, idle_close: None, ..sim.behaviour() };
        sim.set_behaviour(relaxed).unwrap();
        in_time("it is forgotten", || pool.status().learned.limits.is_empty()).await;
    }
}
