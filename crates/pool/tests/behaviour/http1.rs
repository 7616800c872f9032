//! Providers that speak HTTP/1.1.

use crate::support::*;

#[tokio::test]
async fn a_replay_over_http11_carries_the_whole_body() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    sim.set_behaviour(http11()).unwrap();
    let body = Chunks::of(&["pay ", "100 EUR"]);
    let (status, echoed, ..) =
        exchange(&pool, request("POST", &[("sim-goaway", "zero")], body)).await.unwrap();
    assert_eq!((status, echoed), (StatusCode::OK, Bytes::from_static(b"pay 100 EUR")));
}

/// R3a
#[tokio::test]
async fn a_renewal_over_http11_makes_nobody_wait_and_the_old_generation_ends() {
    let (a, b) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    let sim = provider(http11(), &[&a, &b]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    pool.activate(generation(2, &b));
    let mut carried_by = Vec::new();
    let began = Instant::now();
    while carried_by.last() != Some(&2) {
        assert!(began.elapsed() < SOON, "the new generation never came to serve");
        let (.., generation) = exchange(&pool, get()).await.unwrap();
        carried_by.push(generation);
    }
    assert_eq!(pool.status().totals.waited_for_dial, 0, "make before break");
    eventually("the old generation is gone", || pool.status().connections.iter().all(|c| c.generation == 2))
        .await;
    for _ in 0..4 {
        let (.., generation) = exchange(&pool, get()).await.unwrap();
        assert_eq!(generation, 2);
    }
}

#[tokio::test]
async fn a_pin_taken_away_ends_idle_http11_connections_at_once() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    pool.activate(pinned(2, &a, &pki().rotated().unwrap().server_pin()));
    let answer = exchange(&pool, get()).await;
    assert!(answer.is_err(), "carried by a connection whose pin was taken away: {answer:?}");
}

/// R3c
#[tokio::test]
async fn http11_connections_that_were_closed_while_idle_cost_no_request() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(6, 6), Timeouts::default());
    warm(&pool).await;
    sim.kill_connections();
    eventually("all are seen to be closed", || serving(&pool) == 0).await;
    let answer = exchange(&pool, get()).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// R3d
#[tokio::test]
async fn the_floor_of_http11_stands_again_after_the_provider_closed_idle_connections() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    sim.kill_connections();
    // Seen to be closed, and mended, may be one moment: the provider counts both.
    let again = || sim.ledger().connections_accepted >= 4 && serving(&pool) >= 2;
    eventually("the floor stands again without any request", again).await;
}

#[tokio::test]
async fn an_http11_connection_belongs_to_the_generation_it_was_dialled_with() {
    let (a, b) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    let mut switched_in_time = false;
    while !switched_in_time {
        // Without tickets the proof is a window of silence: time enough for a switch, on most machines.
        let sim = provider(Behaviour { tickets: 0, ..http11() }, &[&a]).await;
        let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
        eventually("a handshake", || sim.ledger().connections_http11 > 0).await;
        pool.activate(generation(2, &b));
        switched_in_time = serving(&pool) == 0;
        let seen = || {
            let status = pool.status();
            let wrong = status.connections.iter().any(|c| c.generation == 2);
            assert!(!wrong, "the provider never let the second identity in");
            // The first identity's connection serves, and the second was turned away.
            status.connections.iter().any(|c| c.generation == 1) && status.totals.dials_failed > 0
        };
        let began = Instant::now();
        while !seen() {
            assert!(began.elapsed() < SOON, "not both identities were met: {:?}", pool.status());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn a_chunked_response_leaves_its_http11_connection_fit_for_the_next() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    for _ in 0..20 {
        exchange(&pool, request("POST", &[], Chunks::of(&["a", "b"]))).await.unwrap();
    }
    let accepted = sim.ledger().connections_accepted;
    assert!(accepted <= 4, "{accepted} connections for 20 requests one after another");
}

#[tokio::test]
async fn an_http11_provider_that_is_gone_is_reported_at_once() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    sim.stop().await;
    eventually("it is seen to be closed", || serving(&pool) == 0).await;
    for round in 0..3 {
        let began = Instant::now();
        let error = exchange(&pool, get()).await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::Unavailable(_)), "round {round}: {:?}", error.kind);
        assert!(began.elapsed() < Duration::from_millis(500), "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn the_queue_of_http11_is_bounded() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { queue_capacity: 1, http1_max_connections: 1, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let pool = pool.clone();
            let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
            tokio::spawn(async move { send(&pool, ask, &options()).await.map(|_| ()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let turned_away = tasks.iter().filter(|task| task.is_finished()).count();
    // One more than the queue holds may be on its way from the queue to its connection.
    assert!(turned_away >= 2, "{turned_away} of 5 were turned away; one is carried and one may wait");
}

#[tokio::test]
async fn the_deadline_of_the_exchange_holds_while_an_http11_connection_is_waited_for() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { http1_max_connections: 1, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let busy = pool.clone();
    let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
    tokio::spawn(async move { send(&busy, ask, &options()).await.map(|_| ()) });
    eventually("it is carried", || sim.ledger().requests == 1).await;
    let total = Some(Duration::from_millis(200));
    let hurried = SendOptions { timeouts: Timeouts { total, ..Timeouts::default() }, ..options() };
    let began = Instant::now();
    let answer = send(&pool, get(), &hurried).await;
    assert!(answer.is_err());
    assert!(began.elapsed() < Duration::from_secs(1), "after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_stop_waits_for_exchanges_over_http11() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    let carrier = pool.clone();
    let ask = request("GET", &[("sim-delay-ms", "700")], Chunks::default());
    let carried = tokio::spawn(async move { exchange(&carrier, ask).await.map(|_| ()) });
    eventually("it is carried", || sim.ledger().requests == 1).await;
    assert_eq!(pool.status().in_flight, 1, "a request over HTTP/1.1 is in flight");
    pool.stop(SOON).await;
    tokio::task::yield_now().await;
    assert!(carried.is_finished(), "the stop ended before the exchange did");
}

/// A request that its caller gives up leaves nothing behind that the next one meets.
#[tokio::test]
async fn an_http11_request_that_is_given_up_harms_nobody() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { http1_max_connections: 2, ..config(2, 2) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    for round in 0..20u32 {
        let ask = |id: &'static str| request("POST", &[("sim-delay-ms", "50")], Chunks::of(&[id]));
        let options = options();
        let (first, second) = (send(&pool, ask("first"), &options), send(&pool, ask("second"), &options));
        let given_up = async {
            tokio::select! {
                biased;
                _ = futures_join(first, second) => {}
                () = tokio::time::sleep(Duration::from_millis(u64::from(round) * 3)) => {}
            }
        };
        Box::pin(given_up).await;
        let (_, body, ..) = exchange(&pool, request("POST", &[], Chunks::of(&["mine"]))).await.unwrap();
        assert_eq!(body, "mine", "round {round}");
    }
    eventually("nothing is held", || pool.status().replay_bytes == 0 && pool.status().in_flight == 0).await;
}

#[tokio::test]
async fn an_early_http11_response_does_not_lend_a_connection_that_still_sends_a_body() {
    let port = raw("http/1.1", async |mut tls| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = tls.read_u8().await else { return };
            head.push(byte);
        }
        // As nginx: the answer at once, the rest of the body is read and thrown away.
        tls.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy(&mut tls, &mut tokio::io::sink()).await;
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let slow = Chunks { endless: true, ..Chunks::of(&["a body without end"]) };
    let (status, ..) = exchange(&pool, request("POST", &[], slow)).await.unwrap();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, ..) = exchange(&pool, request("POST", &[], Chunks::of(&["b"]))).await.unwrap();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn requests_wait_for_a_busy_http11_connection_although_no_other_can_be_dialled() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 4), Timeouts::default());
    warm(&pool).await;
    sim.set_endorsed(Vec::new()).unwrap();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let pool = pool.clone();
            let ask = request("GET", &[("sim-delay-ms", "100")], Chunks::default());
            tokio::spawn(async move { exchange(&pool, ask).await.map(|_| ()) })
        })
        .collect();
    for task in tasks {
        let answer = task.await.unwrap();
        assert!(answer.is_ok(), "a connection serves and comes free in time: {answer:?}");
    }
}
