//! What a provider does of its own accord, and how the pool meets it: limits, suspicion, PINGs, health, the breaker.

use std::sync::atomic::{AtomicBool, Ordering};

use pool::{BreakerState, Expected, Health, HealthCheck, LearnedLimitsMode};

use crate::support::*;

/// Sends requests one after another from `callers` tasks until `until` holds; returns how many were answered.
async fn load(pool: &Pool, callers: usize, until: impl Fn() -> bool + Send + Sync + Clone + 'static) -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (pool, stop) = (pool.clone(), stop.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    exchange(&pool, get()).await.expect("an answer");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < SOON * 4, "what the load waits for has not happened");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    sum
}

fn limited(requests: u32) -> Behaviour {
    Behaviour {
        goaway_after_requests: Some(requests),
        goaway_form: GoAwayForm::Immediate,
        latency: Duration::from_millis(1),
        ..Behaviour::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_limit_is_learned_nobody_is_replayed_and_nobody_waits() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(limited(100), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 8), Timeouts::default());
    warm(&pool).await;
    let p = pool.clone();
    load(&pool, 8, move || p.status().learned.limits.requests == Some(100)).await;
    // Connections older than the knowledge may still be caught by it.
    let settle = pool.status().totals.connections + 4;
    let p = pool.clone();
    load(&pool, 8, move || p.status().totals.connections >= settle).await;
    let before = pool.status().totals;
    let p = pool.clone();
    load(&pool, 8, move || p.status().totals.connections >= before.connections + 10).await;
    let after = pool.status().totals;
    assert_eq!(after.replays, before.replays, "the provider's limit hurt somebody although it is known");
    assert_eq!(after.goaways, before.goaways);
    assert_eq!(after.waited_for_dial, before.waited_for_dial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_no_longer_holds_is_forgotten_after_a_test_that_hurts_nobody() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(limited(60), &[&a]).await;
    let config = PoolConfig { retest_after: Duration::from_millis(300), ..config(2, 8) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let p = pool.clone();
    load(&pool, 6, move || p.status().learned.limits.requests == Some(60)).await;
    sim.set_behaviour(Behaviour { goaway_after_requests: None, ..sim.behaviour() }).unwrap();
    let p = pool.clone();
    load(&pool, 6, move || p.status().learned.limits.is_empty()).await;
    assert_eq!(pool.status().learned.under_test, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_of_a_limit_that_holds_replays_nobody() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(limited(60), &[&a]).await;
    let config = PoolConfig { retest_after: Duration::from_millis(200), ..config(2, 8) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let p = pool.clone();
    load(&pool, 4, move || p.status().learned.limits.requests == Some(60)).await;
    let settle = pool.status().totals.connections + 4;
    let p = pool.clone();
    load(&pool, 4, move || p.status().totals.connections >= settle).await;
    let before = pool.status().totals;
    let p = pool.clone();
    load(&pool, 4, move || p.status().totals.goaways >= before.goaways + 2).await;
    assert_eq!(pool.status().totals.replays, before.replays, "the test of a limit hurt somebody");
    assert_eq!(pool.status().learned.limits.requests, Some(60));
}

#[tokio::test]
async fn limits_are_not_learned_where_that_is_switched_off() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(limited(50), &[&a]).await;
    let config = PoolConfig { learned_limits: LearnedLimitsMode::Off, ..config(2, 8) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let p = pool.clone();
    load(&pool, 4, move || p.status().totals.goaways >= 5).await;
    assert!(pool.status().learned.limits.is_empty());
}

#[tokio::test]
async fn a_provider_that_acknowledges_no_pings_serves_all_the_same() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { pings: provider_sim::Pings::Ignore, ..Behaviour::default() }, &[&a]).await;
    let config = PoolConfig {
        ping_interval: Duration::from_secs(1),
        ping_timeout: Duration::from_millis(200),
        ..config(1, 2)
    };
    // The first PING has the time of the proof to be answered; half of that is waited for it.
    let overdue = Duration::from_secs(2);
    let timeouts = Timeouts { prove: overdue, ..Timeouts::default() };
    let pool = start(&sim, generation(1, &a), config, timeouts);
    warm(&pool).await;
    let (_, _, first, _) = exchange(&pool, get()).await.unwrap();
    eventually("it, or its successor, is older than its first PING may be", || {
        pool.status().connections.iter().any(|c| c.age > overdue + Duration::from_millis(500))
    })
    .await;
    let (_, _, later, _) = exchange(&pool, get()).await.unwrap();
    assert_eq!(first, later, "an unanswered PING ended a connection of a provider that answers none");
    assert!(pool.status().learned.ignores_pings);
}

const SICK: provider_sim::Respond = provider_sim::Respond::Fixed { status: 503, body_bytes: 4 };

/// As [`eventually`], for what takes some seconds by its nature.
async fn within_reason(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON * 4, "not in {:?}: {what}", SOON * 4);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn check(path: &'static str) -> HealthCheck {
    HealthCheck {
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(300),
        expect: Expected::Success,
        ..HealthCheck::get(http::uri::PathAndQuery::from_static(path))
    }
}

#[tokio::test]
async fn an_unhealthy_application_is_not_sent_requests_until_it_recovers() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let config = PoolConfig { health: Some(check("/health")), ..config(1, 2) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    exchange(&pool, get()).await.unwrap();
    let well = sim.behaviour();
    sim.set_behaviour(Behaviour { respond: SICK, ..well.clone() }).unwrap();
    eventually("the breaker opens", || pool.status().breaker.refuses_requests).await;
    let error = exchange(&pool, get()).await.unwrap_err();
    let SendErrorKind::Unavailable(cause) = &error.kind else { panic!("{error}") };
    assert_eq!((cause.code(), error.retry_safe), ("provider_unhealthy", RetrySafe::Yes));
    assert!(matches!(pool.status().health, Some(Health::Unhealthy { .. })));
    assert!(serving(&pool) >= 1, "the connections are not to blame");
    sim.set_behaviour(well).unwrap();
    eventually("the breaker closes by proof", || pool.status().breaker.state == BreakerState::Closed).await;
    exchange(&pool, get()).await.expect("served again");
}

/// A pool with a single stream, which one caller always waits for.
async fn crowded(check: HealthCheck, timeouts: Timeouts, latency: Duration) -> (Simulator, Pool) {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let config = PoolConfig { health: Some(check), max_streams: 1, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), config, timeouts);
    warm(&pool).await;
    sim.set_behaviour(Behaviour { latency, ..sim.behaviour() }).unwrap();
    (sim, pool)
}

#[tokio::test]
async fn what_a_health_request_waits_in_our_own_queue_is_not_held_against_the_provider() {
    // Twice the latency passes from asking to the answer, half of it in the queue.
    let latency = Duration::from_millis(1500);
    let check = HealthCheck { timeout: Duration::from_millis(2800), unhealthy_after: 2, ..check("/health") };
    let timeouts = Timeouts { queue: PATIENT, ..Timeouts::default() };
    let (sim, pool) = crowded(check, timeouts, latency).await;
    let before = sim.ledger().requests;
    for _ in 0..4 {
        let response = send(&pool, get(), &SendOptions { timeouts, ..options() }).await;
        assert_eq!(response.expect("requests are not refused").status(), StatusCode::OK);
    }
    assert!(sim.ledger().requests >= before + 6, "health requests were made in between");
    assert!(!pool.status().breaker.refuses_requests, "the provider is well, it is we who are busy");
}

#[tokio::test]
async fn a_health_request_that_got_no_stream_says_nothing() {
    let check = HealthCheck { unhealthy_after: 1, ..check("/health") };
    let timeouts = Timeouts { queue: Duration::from_millis(50), ..Timeouts::default() };
    let (sim, pool) = crowded(check, timeouts, Duration::ZERO).await;
    // The only stream is taken for longer than several health requests would wait for it.
    let held = request("GET", &[("sim-delay-ms", "2000")], Chunks::default());
    let p = pool.clone();
    let holder = tokio::spawn(async move { exchange(&p, held).await });
    eventually("the stream is taken", || sim.ledger().streams_open == 1).await;
    holder.await.unwrap().expect("an answer");
    assert_eq!(pool.status().health, Some(Health::Healthy { failures: 0 }));
}

#[tokio::test]
async fn a_health_request_is_asked_and_judged_as_configured() {
    let a = client("CUSTOMER-0001-SBX");
    let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let desk = asked.clone();
    let port = raw("h2", move |tls| {
        let desk = desk.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                desk.lock().push(format!("{} {}", request.method(), request.uri()));
                let _ = respond.send_response(Response::builder().status(404).body(()).unwrap(), true);
            }
        }
    })
    .await;
    let codes = |code| Expected::Codes(vec![StatusCode::NO_CONTENT, code]);
    for (expect, well) in [(codes(StatusCode::NOT_FOUND), true), (codes(StatusCode::OK), false)] {
        let check = HealthCheck { method: http::Method::HEAD, expect, ..check("/base/health?deep=1") };
        let config = PoolConfig { health: Some(check), ..config(1, 1) };
        let pool = start_at(port, generation(1, &a), config, Timeouts::default());
        warm(&pool).await;
        asked.lock().clear();
        eventually("it is asked again and again", || asked.lock().len() >= 5).await;
        let wire = format!("HEAD https://{HOST}/base/health?deep=1");
        assert!(asked.lock().iter().all(|line| *line == wire), "{:?}", asked.lock());
        eventually("it is judged", || pool.status().breaker.refuses_requests != well).await;
        let proof = if well { pool::Proof::HealthRequest } else { pool::Proof::Ping };
        assert_eq!(pool.status().connections[0].proof, Some(proof));
        pool.stop(SOON).await;
    }
}

#[tokio::test]
async fn an_application_that_answers_no_health_request_fails_no_dial() {
    let a = client("CUSTOMER-0001-SBX");
    let silent = Behaviour { stall: Stall::BeforeResponse, ..Behaviour::default() };
    for behaviour in [silent, Behaviour { respond: SICK, ..Behaviour::default() }] {
        let sim = provider(behaviour, &[&a]).await;
        // The application may take longer than the proof: the proof does not wait for it.
        let check = HealthCheck { interval: PATIENT, timeout: Duration::from_secs(60), ..check("/health") };
        let config = PoolConfig { health: Some(check), ..config(2, 2) };
        let timeouts = Timeouts { prove: Duration::from_secs(2), ..Timeouts::default() };
        let pool = start(&sim, generation(1, &a), config, timeouts);
        within_reason("both serve", || serving(&pool) == 2).await;
        let status = pool.status();
        assert_eq!((status.totals.dials_failed, status.breaker.state), (0, BreakerState::Closed));
        assert!(status.connections.iter().all(|c| c.proof == Some(pool::Proof::Ping)), "{status:?}");
        let counted = || pool.status().health == Some(Health::Healthy { failures: 1 });
        eventually("it counts as one failed health request", counted).await;
    }
}

#[tokio::test]
async fn a_refused_certificate_opens_the_breaker_with_the_certificate_named() {
    let a = client("CUSTOMER-0001-SBX");
    let stranger = client("CUSTOMER-0002-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &stranger), config(1, 2), Timeouts::default());
    eventually("the breaker opens", || pool.status().breaker.state == BreakerState::Open).await;
    let breaker = pool.status().breaker;
    let fingerprint = generation(1, &stranger).identity().certificate().fingerprint().to_string();
    assert!(breaker.message.as_deref().is_some_and(|m| m.contains(&fingerprint)), "{breaker:?}");
    assert!(breaker.next_trial_in > Some(Duration::from_secs(10)), "a refused certificate is probed slowly");
    assert!(!breaker.refuses_requests);
    let error = exchange(&pool, get()).await.unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_provider_that_asks_for_calm_gets_half_the_pings() {
    let a = client("CUSTOMER-0001-SBX");
    let calm = Arc::new(AtomicBool::new(true));
    let asked = calm.clone();
    let port = raw("h2", move |tls| {
        let asked = asked.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let _ = respond.send_response(Response::new(()), true);
                if asked.swap(false, Ordering::Relaxed) {
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                }
            }
        }
    })
    .await;
    let pool = start_at(port, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    let before = pool.status().learned.ping_interval;
    let _ = exchange(&pool, get()).await;
    eventually("PINGs are sent half as often", || pool.status().learned.ping_interval == before * 2).await;
}

#[tokio::test]
async fn connections_that_are_asked_for_calm_together_halve_the_pings_once() {
    let a = client("CUSTOMER-0001-SBX");
    let (ask, asked) = tokio::sync::watch::channel(false);
    let port = raw("h2", move |tls| {
        let mut asked = asked.clone();
        async move {
            let late = *asked.borrow();
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            tokio::select! {
                _ = connection.accept() => {}
                _ = asked.wait_for(|asked| *asked && !late) => {
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                }
            }
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let pool = start_at(port, generation(1, &a), config(4, 8), Timeouts::default());
    warm(&pool).await;
    let before = pool.status().learned.ping_interval;
    ask.send(true).unwrap();
    eventually("all of them are gone", || pool.status().totals.goaways >= 4).await;
    eventually("PINGs are sent half as often", || pool.status().learned.ping_interval > before).await;
    eventually("their successors serve", || serving(&pool) >= 4).await;
    assert_eq!(pool.status().learned.ping_interval, before * 2);
}
