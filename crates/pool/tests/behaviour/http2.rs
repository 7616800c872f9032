//! Providers that speak HTTP/2, and what holds for both.

use std::sync::atomic::{AtomicU32, Ordering};

use pool::LearnedLimitsMode;
use tokio::sync::watch;

use crate::support::*;

#[tokio::test]
async fn a_flush_that_was_pending_is_resumed_at_the_next_turn() {
    let transport = Shared::default();
    transport.0.lock().socket_full = true;
    let (mut stream, drain) = coalesce::coalesce(transport.clone());
    stream.write_all(b"the end of a payment").await.unwrap();
    let turn = || std::future::poll_fn(|cx| Poll::Ready(drain.poll_drain(cx).is_ready()));
    assert!(!turn().await, "the socket is full");
    transport.0.lock().socket_full = false;
    assert!(turn().await);
    assert_eq!(transport.0.lock().sent, 20, "bytes stay in the TLS layer until something else is written");
}

#[tokio::test]
async fn a_removed_pin_stops_new_streams_at_once() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    pool.activate(pinned(2, &a, &pki().rotated().unwrap().server_pin()));
    let answer = exchange(&pool, get()).await;
    assert!(answer.is_err(), "carried by a connection whose pin was taken away: {answer:?}");
}

#[tokio::test]
async fn an_old_failure_does_not_refuse_requests_while_a_good_dial_is_under_way() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }, &[&a]).await;
    let timeouts = Timeouts { tls: Duration::from_millis(300), ..Timeouts::default() };
    let pool = start(&sim, generation(1, &a), config(1, 2), timeouts);
    warm(&pool).await;
    // A dial for growth fails, while the first connection serves on and nobody waits any more.
    sim.set_behaviour(Behaviour { stall: Stall::AtHandshake, ..sim.behaviour() }).unwrap();
    exchange(&pool, get()).await.unwrap();
    eventually("the dial for growth failed", || pool.status().last_failure.is_some()).await;
    sim.set_behaviour(Behaviour { stall: Stall::None, ..sim.behaviour() }).unwrap();
    eventually("the pause after it is over", || {
        let status = pool.status();
        let pause = status.breaker.next_trial_in.unwrap_or_default();
        (serving(&pool), status.dialling) == (1, 0) && pause.is_zero()
    })
    .await;
    sim.kill_connections();
    while serving(&pool) > 0 {
        tokio::task::yield_now().await;
    }
    let answer = exchange(&pool, get()).await;
    assert!(answer.is_ok(), "no dial has failed since the last connection ended: {answer:?}");
}

#[test]
fn goaways_under_load_on_many_workers_fail_no_request() {
    // Without what is learned every connection ends by the provider's hand: the harder case.
    for learned_limits in [LearnedLimitsMode::Off, LearnedLimitsMode::On] {
        let threads = Threads::start(3);
        let control =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let failures = control.block_on(carry_under_goaways(&threads, learned_limits));
        threads.stop();
        let some = &failures[..failures.len().min(5)];
        assert!(failures.is_empty(), "{learned_limits:?}: {} failed, e.g. {some:?}", failures.len());
    }
}

/// 36 callers on three workers, a GOAWAY after every 150 requests of a connection; returns what failed.
async fn carry_under_goaways(threads: &Threads, learned_limits: LearnedLimitsMode) -> Vec<String> {
    let a = client("CUSTOMER-0001-SBX");
    let behaviour = Behaviour {
        goaway_after_requests: Some(150),
        goaway_form: GoAwayForm::Immediate,
        ..Behaviour::default()
    };
    let sim = provider(behaviour, &[&a]).await;
    let config = PoolConfig { learned_limits, ..config(3, 8) };
    let spec = PoolSpec {
        workers: threads.workers(),
        ..spec(sim.addr().port(), generation(1, &a), config, Timeouts::default())
    };
    let pool = Pool::start(spec, &Handle::current());
    warm(&pool).await;
    let callers: Vec<_> = (0..36)
        .map(|n| threads.handles[n % threads.handles.len()].spawn(post_often(pool.clone(), 300)))
        .collect();
    let mut failures = Vec::new();
    for caller in callers {
        failures.extend(caller.await.unwrap());
    }
    assert_eq!(pool.status().totals.unprocessed_lost, 0);
    pool.stop(SOON).await;
    failures
}

/// One request after the other; returns what failed.
async fn post_often(pool: Pool, times: u32) -> Vec<String> {
    let mut failures = Vec::new();
    for _ in 0..times {
        match send(&pool, request("POST", &[], Chunks::of(&["x"])), &options()).await {
            Ok(response) => {
                failures.extend(response.into_body().collect().await.err().map(|e| format!("body: {e}")));
            }
            Err(e) => failures.push(format!("{e} {:?} {}", e.verdict, e.journey.attempts)),
        }
    }
    failures
}

#[tokio::test]
async fn a_provider_that_ends_every_connection_at_once_is_not_stormed_with_dials() {
    let a = client("CUSTOMER-0001-SBX");
    let behaviour = Behaviour { goaway_after: Some(Duration::from_millis(20)), ..Behaviour::default() };
    let sim = provider(behaviour, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 8), Timeouts::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let accepted = sim.ledger().connections_accepted;
    pool.stop(SOON).await;
    assert!(accepted <= 40, "{accepted} connections in two seconds, and not one request");
}

#[tokio::test]
async fn a_new_identity_does_not_wait_out_the_pause_of_the_refused_one() {
    let (a, b) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    let sim = provider(Behaviour::default(), &[&b]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    eventually("the first is refused", || pool.status().last_failure.is_some()).await;
    pool.activate(generation(2, &b));
    warm(&pool).await;
}

#[tokio::test]
async fn what_one_attempt_may_have_done_is_not_forgotten_when_the_next_gets_no_stream() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    sim.set_endorsed(Vec::new()).unwrap();
    let ask =
        request("DELETE", &[("sim-goaway", "fin"), ("sim-stall", "before_response")], Chunks::default());
    let patient = SendOptions { retry: RetryPolicy::Idempotent, ..options() };
    let Err(error) = timeout(SOON, send(&pool, ask, &patient)).await.expect("an outcome") else {
        panic!("nothing serves");
    };
    assert_eq!(sim.ledger().requests, 1, "the first attempt was processed");
    assert_eq!(error.retry_safe, RetrySafe::Unknown, "{error:?}");
}

#[tokio::test]
async fn callers_that_do_not_read_stall_nobody_else() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let mut unread = Vec::new();
    for _ in 0..9 {
        let ask = request("GET", &[("sim-body-bytes", "4000000")], Chunks::default());
        unread.push(timeout(SOON, send(&pool, ask, &options())).await.expect("a header").unwrap());
    }
    let windows = 9 * u64::from(PoolConfig::default().stream_window_bytes);
    eventually("their windows are full", || sim.ledger().body_bytes_sent >= windows).await;
    let response =
        send(&pool, request("POST", &[], Chunks::of(&["quick"])), &options()).await.expect("a header");
    let body = timeout(SOON * 4, response.into_body().collect()).await;
    assert!(body.is_ok(), "nine callers that do not read hold up everybody on the connection");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_dials() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { stall: Stall::AtHandshake, ..Behaviour::default() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts { tls: PATIENT, ..Timeouts::default() });
    eventually("dials are under way", || sim.ledger().connections_accepted == 2).await;
    timeout(SOON, pool.stop(PATIENT)).await.expect("neither the dials' hour nor its own is waited for");
}

#[tokio::test]
async fn waiters_learn_the_known_cause_when_the_last_connection_ends_under_them() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    // The certificate is refused from now on; what serves goes on. Growth fails, and pauses for long.
    sim.set_endorsed(Vec::new()).unwrap();
    let first = pool.clone();
    let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
    tokio::spawn(async move { send(&first, ask, &options()).await.map(|_| ()) });
    eventually("the dial for growth is refused", || pool.status().last_failure.is_some()).await;
    let second = pool.clone();
    let waiting = tokio::spawn(async move { send(&second, get(), &options()).await.map(|_| ()) });
    eventually("it waits", || pool.status().queue_depth == 1).await;
    sim.kill_connections();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::Unavailable(_)), "{:?}", error.kind);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_on_another_connection() {
    let refusing = Arc::new(AtomicU32::new(0));
    let numbers = refusing.clone();
    let port = raw("h2", move |tls| {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut connection = h2::server::handshake(tls).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                drop(request);
                if number == 0 {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    let _ = respond.send_response(Response::new(()), true);
                }
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    for _ in 0..8 {
        let answer = exchange(&pool, get()).await;
        assert!(answer.is_ok(), "the other connection refuses nothing: {answer:?}");
    }
}

#[tokio::test]
async fn a_refused_certificate_is_not_dialled_at_every_turn_while_an_older_connection_serves() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 4), Timeouts::default());
    warm(&pool).await;
    sim.set_endorsed(Vec::new()).unwrap();
    for _ in 0..20 {
        let wait = || request("GET", &[("sim-delay-ms", "20")], Chunks::default());
        let (one, two) = tokio::join!(exchange(&pool, wait()), exchange(&pool, wait()));
        drop((one, two));
    }
    let refused = sim.ledger().handshakes_refused;
    assert!(refused <= 2, "{refused} dials in 20 short turns with a certificate that the provider refuses");
}

/// The provider holds its proof back until the pin is gone.
#[tokio::test]
async fn a_dial_under_way_when_its_pin_was_taken_away_carries_nothing() {
    let (prove, proving) = watch::channel(false);
    let (shaken, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = (shaken.clone(), ended.clone());
    let port = raw("h2", move |tls| {
        let (mut proving, (shaken, ended)) = (proving.clone(), counts.clone());
        async move {
            shaken.fetch_add(1, Ordering::Relaxed);
            proving.wait_for(|now| *now).await.unwrap();
            if let Ok(mut connection) = h2::server::handshake(tls).await {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let _ = respond.send_response(Response::new(()), true);
                }
            }
            ended.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let timeouts = Timeouts { prove: PATIENT, ..Timeouts::default() };
    let pool = start_at(port, generation(1, &a), config(1, 1), timeouts);
    eventually("a dial waits for its proof", || shaken.load(Ordering::Relaxed) == 1).await;
    pool.activate(pinned(2, &a, &pki().rotated().unwrap().server_pin()));
    prove.send_replace(true);
    let began = Instant::now();
    while ended.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < SOON * 4, "it lives although its pin was taken away");
        let answer = exchange(&pool, get()).await;
        assert!(answer.is_err(), "carried by a connection whose pin was taken away: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(exchange(&pool, get()).await.is_err());
}
