//! Where connections are born: spread over the workers, and again after some have died.

use std::{sync::Arc, time::Duration};

use provider_sim::{Simulator, SimulatorOptions};
use tls_core::SystemClock;
use tokio::{runtime::Handle, time::Instant};

use crate::{
    HostPort, Obituaries, Pool, PoolConfig, PoolKey, PoolSpec, State, Target, Timeouts, Unobserved, Workers,
    testing::{generation, papers},
};

const WORKERS: usize = 3;

async fn start(connections: u32) -> (Simulator, Pool) {
    let (pki, client) = papers();
    let options =
        SimulatorOptions { endorsed: vec![client.endorsed()], ..SimulatorOptions::new(pki.clone()) };
    let sim = Simulator::start(options).await.unwrap();
    let spec = PoolSpec {
        key: PoolKey { customer: "C".into(), environment: "sandbox".into(), authority: "tsh.test".into() },
        target: Target {
            host: "tsh.test".into(),
            port: 443,
            connect: Some(HostPort { host: "127.0.0.1".into(), port: sim.addr().port() }),
            via: None,
        },
        generation: generation(),
        config: PoolConfig {
            min_connections: connections,
            max_connections: connections,
            ..PoolConfig::default()
        },
        timeouts: Timeouts::default(),
        seed: 7,
        // Which worker a connection is of is a number; that all of them run here changes nothing about it.
        workers: Workers::new(vec![Handle::current(); WORKERS]),
        observer: Arc::new(Unobserved),
        obituaries: Obituaries::new(Arc::new(SystemClock)),
    };
    let pool = Pool::start(spec, &Handle::current());
    (sim, pool)
}

/// How many connections serve on each worker.
fn spread(pool: &Pool) -> [usize; WORKERS] {
    let mut count = [0; WORKERS];
    let links = pool.context.hub.links();
    let serving = links.iter().filter(|link| link.state() == State::Serving);
    serving.for_each(|link| count[link.birth.worker] += 1);
    count
}

async fn until_spread(pool: &Pool, want: [usize; WORKERS]) {
    let began = Instant::now();
    while spread(pool) != want {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?} is not {want:?}", spread(pool));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn connections_are_born_on_the_worker_that_has_fewest() {
    let (sim, pool) = start(6).await;
    until_spread(&pool, [2, 2, 2]).await;
    for dead in 0..WORKERS {
        // The successors of one worker's connections go where they are missing.
        let links = pool.context.hub.links();
        let dying = links.iter().filter(|link| link.birth.worker == dead);
        dying.for_each(|link| link.retire(crate::CauseOfDeath::Age, Instant::now()));
        until_spread(&pool, [2, 2, 2]).await;
    }
    sim.kill_connections();
    let old: Vec<_> = pool.context.hub.links().iter().map(|link| link.id()).collect();
    let began = Instant::now();
    while pool.context.hub.links().iter().any(|link| old.contains(&link.id())) {
        assert!(began.elapsed() < Duration::from_secs(20), "they end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until_spread(&pool, [2, 2, 2]).await;
    pool.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_floor_that_does_not_divide_differs_by_one_at_most() {
    let (_sim, pool) = start(4).await;
    let began = Instant::now();
    loop {
        let mut spread = spread(&pool);
        spread.sort_unstable();
        if spread == [1, 1, 2] {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{spread:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pool.stop(Duration::from_secs(5)).await;
}
