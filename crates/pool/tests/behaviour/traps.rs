//! The traps of h2, one test each: what the library does when it is left alone, and that the pool does not let it.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
};

use pool::{CauseOfDeath, ConnectionStatus, LearnedLimitsMode};
use provider_sim::FrameShape;
use tokio::sync::{mpsc, watch};

use crate::{frames::*, support::*};

/// Why the pool may never let a stream be parked: h2 writes one that was dropped, header and all. Should this test fail
/// one day, a parked stream can be taken back, and `connection/opening.rs` can be simpler.
#[tokio::test]
async fn h2_writes_a_parked_stream_although_it_was_dropped() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let peer = tokio::spawn(Peer::greet(far, &[(MAX_CONCURRENT_STREAMS, 1)]));
    let (sender, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let mut peer = peer.await.unwrap().unwrap();
    while !peer.next().await.unwrap().is_ack() {}
    let ask = || Request::get("https://tsh.test/").body(()).unwrap();
    let (first, _) = sender.clone().send_request(ask(), true).unwrap();
    let parked = sender.clone().send_request(ask(), true).unwrap();
    assert_eq!(peer.next().await.unwrap().stream, 1);
    drop(parked);
    peer.write(&[RawFrame::ok(1)]).await.unwrap();
    first.await.unwrap();
    let written = [peer.next().await.unwrap(), peer.next().await.unwrap()];
    assert_eq!(written.map(|f| (f.stream, f.kind)), [(3, HEADERS), (3, RST_STREAM)]);
}

/// The first connection answers nothing of its first stream, so that its single place stays taken once the limit is 1;
/// the others answer everything.
#[tokio::test]
async fn streams_that_settings_overtake_are_written_before_h2_reads_the_settings() {
    const AT_ONCE: usize = 40;
    let connections = Arc::new(AtomicU32::new(0));
    let (shrink, shrinking) = watch::channel(false);
    let (told, mut tell) = mpsc::channel(1);
    let (seen_by, count) = (connections.clone(), Arc::new(AtomicUsize::new(0)));
    let headers = count.clone();
    let port = raw("h2", move |tls| {
        let number = seen_by.fetch_add(1, Ordering::Relaxed);
        let (mut shrinking, told, headers) = (shrinking.clone(), told.clone(), headers.clone());
        async move {
            let mut peer = Peer::greet(tls, &[(MAX_CONCURRENT_STREAMS, 128)]).await.unwrap();
            let mut held = false;
            while let Ok(frame) = peer.next().await {
                if frame.kind != HEADERS {
                    continue;
                }
                headers.fetch_add(1, Ordering::Relaxed);
                if number == 0 && !std::mem::replace(&mut held, true) {
                    shrinking.wait_for(|now| *now).await.unwrap();
                    peer.write(&[RawFrame::settings(&[(MAX_CONCURRENT_STREAMS, 1)])]).await.unwrap();
                    told.send(()).await.unwrap();
                    continue;
                }
                peer.write(&[RawFrame::ok(frame.stream)]).await.unwrap();
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let holder = pool.clone();
    let holding = tokio::spawn(async move { send(&holder, get(), &options()).await.map(|_| ()) });
    eventually("the first stream is open", || count.load(Ordering::Relaxed) == 1).await;
    shrink.send_replace(true);
    tell.recv().await.unwrap();
    // The SETTINGS are in our socket, the driver has not run since: all of these are with h2 when it reads them.
    let all = futures_util::future::join_all((0..AT_ONCE).map(|_| exchange(&pool, get())));
    let answers = timeout(SOON, all).await.expect("none of them is parked in h2");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(pool.status().connections[0].capacity, 1);
    assert_eq!(count.load(Ordering::Relaxed), AT_ONCE + 1, "each was written once");
    holding.abort();
}

/// The same under load, from several workers: again and again all connections lower their limit to 1 while one stream
/// that is never answered takes that place. It is raised only once every other stream has ended and given its lease
/// back, which one that h2 parked never would.
#[test]
fn no_stream_is_parked_in_h2_whatever_the_limit_does() {
    const WORKERS: usize = 3;
    const ROUNDS: u64 = 12;
    let workers = Threads::start(WORKERS);
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let a = client("CUSTOMER-0001-SBX");
    let held = Arc::new(AtomicU32::new(0));
    let (limit, limits) = watch::channel(HIGH);
    let counted = held.clone();
    control.block_on(async {
        let port = raw("h2", move |tls| {
            let (limits, held) = (limits.clone(), counted.clone());
            async move {
                let _ = restless(tls, limits, &held).await;
            }
        })
        .await;
        let spec = PoolSpec {
            workers: workers.workers(),
            ..spec(port, generation(1, &a), config(3, 3), Timeouts::default())
        };
        let pool = Pool::start(spec, &Handle::current());
        warm(&pool).await;
        for (number, worker) in (1..).zip(&workers.handles) {
            let holder = pool.clone();
            worker.spawn(async move { send(&holder, get(), &forever()).await.map(|_| ()) });
            eventually("it is held", || held.load(Ordering::Relaxed) == number).await;
        }
        let over = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = (0..WORKERS * 12)
            .map(|i| {
                let (pool, over) = (pool.clone(), over.clone());
                workers.handles[i % WORKERS].spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        send(&pool, get(), &forever()).await.expect("a response");
                    }
                })
            })
            .collect();
        let all = |holds: fn(&ConnectionStatus) -> bool| {
            let connections = pool.status().connections;
            connections.len() == WORKERS && connections.iter().all(holds)
        };
        for round in 1..=ROUNDS {
            let requests = pool.status().totals.requests + 150;
            eventually_within(PATIENCE, "load", || pool.status().totals.requests >= requests).await;
            limit.send_replace(LOW);
            let what = format!("round {round}: the limit holds, and nobody is left in h2");
            eventually_within(PATIENCE, &what, || all(|c| (c.capacity, c.in_flight) == (LOW, 1))).await;
            limit.send_replace(HIGH);
            eventually_within(PATIENCE, "the limit is raised", || all(|c| c.capacity == HIGH)).await;
        }
        over.store(true, Ordering::Relaxed);
        for task in load {
            task.await.unwrap();
        }
    });
    workers.stop();
}

const LOW: u32 = 1;
const HIGH: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits in the queue as long as it takes.
fn forever() -> SendOptions {
    let timeouts = Timeouts { queue: PATIENT, response_header: PATIENT, ..Timeouts::default() };
    SendOptions { timeouts, ..options() }
}

/// Never answers its first stream, and lowers and raises its limit as it is told.
async fn restless(tls: Tls, mut limits: watch::Receiver<u32>, held: &AtomicU32) -> io::Result<()> {
    let limit = *limits.borrow_and_update();
    let mut peer = Peer::greet(tls, &[(MAX_CONCURRENT_STREAMS, limit)]).await?;
    let mut streams = 0u32;
    loop {
        tokio::select! {
            frame = peer.next() => {
                let frame = frame?;
                if frame.kind != HEADERS {
                    continue;
                }
                streams += 1;
                if streams == 1 {
                    held.fetch_add(1, Ordering::Relaxed);
                } else {
                    peer.write(&[RawFrame::ok(frame.stream)]).await?;
                }
            }
            Ok(()) = limits.changed() => {
                let limit = *limits.borrow_and_update();
                peer.write(&[RawFrame::settings(&[(MAX_CONCURRENT_STREAMS, limit)])]).await?;
            }
        }
    }
}

#[tokio::test]
async fn a_goaway_in_two_phases_under_load_fails_nobody() {
    let a = client("CUSTOMER-0001-SBX");
    let behaviour = Behaviour {
        goaway_after_requests: Some(100),
        goaway_form: GoAwayForm::TwoPhase,
        latency: Duration::from_millis(1),
        ..Behaviour::default()
    };
    let sim = provider(behaviour, &[&a]).await;
    let plain = PoolConfig { learned_limits: LearnedLimitsMode::Off, ..config(2, 8) };
    let pool = start(&sim, generation(1, &a), plain, Timeouts::default());
    warm(&pool).await;
    let load: Vec<_> = (0..16)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    exchange(&pool, request("POST", &[], Chunks::of(&["x"]))).await.expect("an answer");
                }
            })
        })
        .collect();
    for task in load {
        task.await.unwrap();
    }
    assert!(pool.status().totals.goaways >= 10);
    assert_eq!(pool.status().totals.unprocessed_lost, 0);
    assert_eq!(sim.ledger().requests, 1600, "none was processed twice");
}

#[tokio::test]
async fn a_connection_is_replaced_before_its_hundredth_empty_data_frame_ends_it() {
    let a = client("CUSTOMER-0001-SBX");
    let behaviour = Behaviour { frames: FrameShape::EmptyFirst { frames: 5 }, ..Behaviour::default() };
    let sim = provider(behaviour, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    for round in 0..60 {
        let answer = exchange(&pool, request("POST", &[], Chunks::of(&["whole"]))).await;
        assert!(answer.is_ok(), "response {round}: {answer:?}");
    }
    assert_eq!(sim.ledger().requests, 60);
    assert!(sim.ledger().connections_accepted >= 4, "300 empty frames cross three limits");
}

#[tokio::test]
async fn a_response_with_more_empty_data_frames_than_h2_bears_costs_its_own_connection_only() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    let flood = Behaviour { frames: FrameShape::EmptyFirst { frames: 101 }, ..Behaviour::default() };
    sim.set_behaviour(flood).unwrap();
    let cut = match send(&pool, request("POST", &[], Chunks::of(&["x"])), &options()).await {
        Ok(response) => timeout(SOON, response.into_body().collect()).await.expect("an end").is_err(),
        Err(e) => e.retry_safe == RetrySafe::Unknown,
    };
    assert!(cut, "h2 ends such a connection");
    sim.set_behaviour(Behaviour::default()).unwrap();
    exchange(&pool, get()).await.expect("the next connection carries on");
}

/// Four callers that do not read, each with its window full of 50-byte frames: 20,968 frames, each charged 206. That is
/// more than the 4 MiB that were allowed once, and than h2's own choice for this window, half a MiB.
#[tokio::test]
async fn callers_that_do_not_read_small_frames_do_not_end_the_connection_for_the_others() {
    const CALLERS: usize = 4;
    const WINDOW: usize = 256 * 1024;
    let a = client("CUSTOMER-0001-SBX");
    let behaviour = Behaviour { frames: FrameShape::Sized { bytes: 50 }, ..Behaviour::default() };
    let sim = provider(behaviour, &[&a]).await;
    let narrow = PoolConfig {
        connection_window_bytes: (CALLERS * WINDOW) as u32,
        stream_window_bytes: WINDOW as u32,
        ..config(1, 1)
    };
    let pool = start(&sim, generation(1, &a), narrow, Timeouts::default());
    warm(&pool).await;
    let size = WINDOW / 50 * 50;
    let asks = (0..CALLERS).map(|_| {
        let (pool, bytes) = (&pool, size.to_string());
        async move {
            let ask = request("GET", &[("sim-body-bytes", &bytes)], Chunks::default());
            send(pool, ask, &options()).await.expect("a header").into_body()
        }
    });
    let unread = futures_util::future::join_all(asks).await;
    let patience = SOON * 6;
    eventually_within(patience, "all of it was sent", || {
        sim.ledger().body_bytes_sent == (CALLERS * size) as u64
    })
    .await;
    exchange(&pool, get()).await.expect("somebody else is served meanwhile");
    for body in unread {
        let body = timeout(patience, body.collect()).await.expect("a body in time").expect("a whole body");
        assert_eq!(body.to_bytes().len(), size);
    }
    assert_eq!(sim.ledger().connections_accepted, 1);
}

/// Counts what the client resets and answers everything a while later, also what was reset: frames that h2 must still
/// remember to ignore.
async fn patient(tls: Tls, delay: Duration, resets: &AtomicU32) -> io::Result<()> {
    let mut peer = Peer::greet(tls, &[(MAX_CONCURRENT_STREAMS, 128)]).await?;
    let mut due: VecDeque<(Instant, u32)> = VecDeque::new();
    loop {
        let next = due.front().map_or_else(|| Instant::now() + SOON, |(at, _)| *at);
        tokio::select! {
            frame = peer.next() => {
                let frame = frame?;
                match frame.kind {
                    HEADERS => due.push_back((Instant::now() + delay, frame.stream)),
                    RST_STREAM => { resets.fetch_add(1, Ordering::Relaxed); }
                    _ => {}
                }
            }
            () = tokio::time::sleep_until(next), if !due.is_empty() => {
                let now = Instant::now();
                let mut frames = Vec::new();
                while let Some((_, stream)) = due.pop_front_if(|(at, _)| *at <= now) {
                    frames.push(RawFrame::header(stream));
                    frames.push(RawFrame::new(DATA, END, stream, b"late"));
                }
                peer.write(&frames).await?;
            }
        }
    }
}

#[tokio::test]
async fn two_thousand_cancels_in_a_second_end_no_connection() {
    let (accepted, resets) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (connections, counted) = (accepted.clone(), resets.clone());
    let port = raw("h2", move |tls| {
        connections.fetch_add(1, Ordering::Relaxed);
        let resets = counted.clone();
        async move {
            let _ = patient(tls, Duration::from_millis(20), &resets).await;
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let began = Instant::now();
    for _ in 0..40 {
        let batch = (0..50).map(|_| {
            let pool = &pool;
            async move {
                let _ = timeout(Duration::from_millis(5), send(pool, get(), &options())).await;
            }
        });
        futures_util::future::join_all(batch).await;
    }
    let answer = exchange(&pool, get()).await.expect("the connection lives");
    assert_eq!(&answer.1[..], b"late");
    assert_eq!(accepted.load(Ordering::Relaxed), 1, "no connection ended");
    let resets = resets.load(Ordering::Relaxed);
    let took = began.elapsed();
    // Of 180 in 30 seconds half may be had at once, and the other half as they pass.
    let allowed = 90 + (3.0 * took.as_secs_f64()).ceil() as u32;
    assert!((1..=allowed).contains(&resets), "{resets} resets in {took:?}, {allowed} allowed");
    eventually("all leases are back", || pool.status().in_flight == 0).await;
}

#[tokio::test]
async fn credit_is_given_back_whether_a_body_is_read_dropped_or_never_looked_at() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let narrow =
        PoolConfig { connection_window_bytes: 1024 * 1024, stream_window_bytes: 256 * 1024, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), narrow, Timeouts::default());
    warm(&pool).await;
    // Nine windows' worth; any third of it forgotten would stall the connection.
    for round in 0..45 {
        let ask = request("GET", &[("sim-body-bytes", "200000")], Chunks::default());
        let response = timeout(SOON, send(&pool, ask, &options())).await.expect("a header").unwrap();
        let mut body = response.into_body();
        match round % 3 {
            0 => assert_eq!(collect(body).await.len(), 200_000),
            1 => drop(timeout(SOON, body.frame()).await.expect("a frame")),
            _ => drop(body),
        }
    }
    eventually("all leases are back", || pool.status().in_flight == 0).await;
    let ask = request("GET", &[("sim-body-bytes", "3000000")], Chunks::default());
    assert_eq!(exchange(&pool, ask).await.unwrap().1.len(), 3_000_000);
    assert_eq!(sim.ledger().connections_accepted, 1);
}

#[tokio::test]
async fn one_ping_at_a_time_and_a_late_answer_wedges_nothing() {
    let pings = Arc::new(AtomicU32::new(0));
    let counted = pings.clone();
    let port = raw("h2", move |tls| {
        let pings = counted.clone();
        async move {
            let mut peer = Peer::greet(tls, &[]).await.unwrap();
            while let Ok(frame) = peer.read().await {
                match frame.kind {
                    SETTINGS if !frame.is_ack() => {
                        peer.write(&[RawFrame::new(SETTINGS, END, 0, &[])]).await.unwrap();
                    }
                    PING if !frame.is_ack() => {
                        pings.fetch_add(1, Ordering::Relaxed);
                        // Longer than the interval: a second PING meanwhile would be read after the answer.
                        tokio::time::sleep(Duration::from_millis(60)).await;
                        peer.write(&[RawFrame::new(PING, END, 0, &frame.payload)]).await.unwrap();
                    }
                    HEADERS => peer.write(&[RawFrame::ok(frame.stream)]).await.unwrap(),
                    _ => {}
                }
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let busy = PoolConfig { ping_interval: Duration::from_millis(20), ..config(1, 1) };
    let began = Instant::now();
    let pool = start_at(port, generation(1, &a), busy, Timeouts::default());
    warm(&pool).await;
    eventually("eight PINGs", || pings.load(Ordering::Relaxed) >= 8).await;
    assert!(began.elapsed() >= Duration::from_millis(7 * 60), "two PINGs were under way at once");
    exchange(&pool, get()).await.expect("it serves");
    let status = pool.status();
    assert_eq!(status.totals.connections, 1);
    assert!(status.connections[0].ping_rtt.is_some_and(|rtt| rtt >= Duration::from_millis(60)));
}

#[tokio::test]
async fn an_initial_window_of_zero_holds_up_the_body_and_nobody_else() {
    let (open, opened) = watch::channel(false);
    let port = raw("h2", move |tls| {
        let mut opened = opened.clone();
        async move {
            let mut peer = Peer::greet(tls, &[(INITIAL_WINDOW_SIZE, 0)]).await.unwrap();
            let mut waiting = BTreeSet::new();
            loop {
                tokio::select! {
                    frame = peer.next() => {
                        let Ok(frame) = frame else { return };
                        if frame.kind == HEADERS && !frame.ends_stream() {
                            waiting.insert(frame.stream);
                        } else if frame.ends_stream() {
                            peer.write(&[RawFrame::ok(frame.stream)]).await.unwrap();
                        }
                    }
                    Ok(()) = opened.changed() => {
                        let frames: Vec<_> = waiting.iter().map(|id| RawFrame::window(*id, 100_000)).collect();
                        peer.write(&frames).await.unwrap();
                    }
                }
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let large = Chunks { chunks: VecDeque::from([Bytes::from(vec![7; 50_000])]), endless: false };
    let posts: Vec<_> = [Chunks::of(&["small"]), large]
        .into_iter()
        .map(|body| {
            let pool = pool.clone();
            tokio::spawn(async move { exchange(&pool, request("POST", &[], body)).await.map(|_| ()) })
        })
        .collect();
    eventually("both are under way", || pool.status().in_flight == 2).await;
    for _ in 0..20 {
        exchange(&pool, get()).await.expect("who sends no body needs no window");
    }
    assert!(posts.iter().all(|post| !post.is_finished()));
    open.send_replace(true);
    for post in posts {
        timeout(SOON, post).await.expect("an answer").unwrap().expect("an answer");
    }
}

#[tokio::test]
async fn the_cause_of_death_names_empty_frames() {
    assert!(CauseOfDeath::ALL.iter().any(|cause| cause.as_str() == "empty_frames"));
}
