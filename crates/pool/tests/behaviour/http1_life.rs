//! The life of HTTP/1.1 connections: races with a provider that closes them, what is learned, how they are replaced,
//! how the pool follows a provider from one version to the other.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use pool::{CauseOfDeath, ConnectionId, DialReport, DriftField, Observer, Protocol, Verdict};
use tokio_rustls::server::TlsStream;

use crate::support::*;

/// Keeps how connections ended.
#[derive(Default)]
struct Recorder {
    ends: parking_lot::Mutex<Vec<(CauseOfDeath, u64)>>,
    dials: AtomicU32,
}

impl Recorder {
    fn ended_by(&self, cause: CauseOfDeath) -> usize {
        self.ends.lock().iter().filter(|(c, _)| *c == cause).count()
    }
}

impl Observer for Recorder {
    fn dialled(&self, _: &DialReport) {
        self.dials.fetch_add(1, Ordering::Relaxed);
    }
    fn closed(&self, _: ConnectionId, cause: CauseOfDeath, requests: u64) {
        self.ends.lock().push((cause, requests));
    }
    fn goaway(&self, _: ConnectionId, _: u32) {}
    fn retried(&self, _: Verdict) {}
    fn drifted(&self, _: DriftField) {}
}

fn start_recorded(port: u16, generation: Arc<Generation>, config: PoolConfig) -> (Pool, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let spec = PoolSpec { observer: recorder.clone(), ..spec(port, generation, config, Timeouts::default()) };
    (Pool::start(spec, &Handle::current()), recorder)
}

/// Reads one request to its end; `None` when the connection ended or said nothing for so long.
async fn read_request(tls: &mut TlsStream<TcpStream>, patience: Duration) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(patience, tls.read_u8()).await.ok()?.ok()?);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |n| n.trim().parse().unwrap())];
    tls.read_exact(&mut body).await.ok()?;
    if text.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(tls.read_u8().await.ok()?);
        }
    }
    Some(body)
}

async fn answer(tls: &mut TlsStream<TcpStream>, body: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = tls.write_all(&[head.as_bytes(), body].concat()).await;
    let _ = tls.flush().await;
}

const PATIENT: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_floor_of_http11_is_dialled_once() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(3, 3), Timeouts::default());
    warm(&pool).await;
    for _ in 0..20 {
        exchange(&pool, get()).await.unwrap();
    }
    assert_eq!(sim.ledger().connections_accepted, 3);
    assert_eq!(pool.status().totals.waited_for_dial, 0);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_lent_and_costs_no_attempt() {
    // Each connection answers once and closes without a word.
    let port = raw("http/1.1", async |mut tls| {
        if let Some(body) = read_request(&mut tls, PATIENT).await {
            answer(&mut tls, &body).await;
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(2, 4), Timeouts::default());
    warm(&pool).await;
    for round in 0..40 {
        let mut journey = Journey::default();
        let sent = pool.send(request("POST", &[], Chunks::of(&["x"])), &options(), &mut journey).await;
        let response = sent.unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        collect(response.into_body()).await;
        assert_eq!(journey.attempts, 1, "round {round}");
    }
    let totals = pool.status().totals;
    assert_eq!((totals.requests, totals.stale_in_doubt), (40, 0), "{totals:?}");
}

#[tokio::test]
async fn a_connection_on_which_something_unasked_arrived_is_not_lent() {
    let connections = Arc::new(AtomicU32::new(0));
    let counter = connections.clone();
    let spoken = Arc::new(AtomicBool::new(false));
    let speaks = spoken.clone();
    let port = raw("http/1.1", move |mut tls| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let speaks = speaks.clone();
        async move {
            while let Some(body) = read_request(&mut tls, PATIENT).await {
                answer(&mut tls, &body).await;
                if number == 0 {
                    let late = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n";
                    tls.write_all(late).await.unwrap();
                    tls.flush().await.unwrap();
                    speaks.store(true, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    exchange(&pool, get()).await.unwrap();
    while !spoken.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    for round in 0..10 {
        let (status, ..) = exchange(&pool, get()).await.unwrap();
        assert_eq!(
            status,
            StatusCode::OK,
            "round {round}: an answer to nobody's question was taken for ours"
        );
    }
}

/// A server whose connection number `n` (from 1) dies when it has read its `fatal(n)`-th request, without an answer.
async fn dying(fatal: impl Fn(u32) -> u32 + Send + Sync + Copy + 'static) -> (u16, Arc<AtomicU32>) {
    let connections = Arc::new(AtomicU32::new(0));
    let read = Arc::new(AtomicU32::new(0));
    let counted = read.clone();
    let port = raw("http/1.1", move |mut tls| {
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        let counted = counted.clone();
        async move {
            for nth in 1.. {
                let Some(body) = read_request(&mut tls, PATIENT).await else { return };
                counted.fetch_add(1, Ordering::Relaxed);
                if nth == fatal(number) {
                    return;
                }
                answer(&mut tls, &body).await;
            }
        }
    })
    .await;
    (port, read)
}

#[tokio::test]
async fn a_request_that_was_written_and_not_answered_is_reported_and_not_repeated() {
    let (port, read) = dying(|_| 2).await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    exchange(&pool, get()).await.unwrap();
    let error = exchange(&pool, request("GET", &[], Chunks::default())).await.unwrap_err();
    assert_eq!(error.verdict, Some(Verdict::MaybeProcessed));
    assert_eq!((error.retry_safe, error.journey.attempts), (RetrySafe::Unknown, 1));
    assert!(error.journey.reused);
    assert_eq!(read.load(Ordering::Relaxed), 2, "sent again although it may have been processed");
    let totals = pool.status().totals;
    assert_eq!((totals.stale_in_doubt, totals.replays), (1, 0));
}

#[tokio::test]
async fn an_idempotent_request_is_repeated_over_http11_with_its_whole_body_where_the_policy_says_so() {
    let (port, read) = dying(|number| if number <= 2 { 1 } else { u32::MAX }).await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    let by_policy = |retry| SendOptions { retry, ..options() };
    let put = || request("PUT", &[("content-length", "11")], Chunks::of(&["pay ", "100 EUR"]));
    let mut journey = Journey::default();
    let response = pool.send(put(), &by_policy(RetryPolicy::Idempotent), &mut journey).await.unwrap();
    assert_eq!(collect(response.into_body()).await, "pay 100 EUR");
    assert_eq!(journey.attempts, 3);
    assert_eq!(read.load(Ordering::Relaxed), 3);
    eventually("nothing is held", || pool.status().replay_bytes == 0).await;
}

#[tokio::test]
async fn over_http11_only_idempotent_methods_are_repeated_and_none_where_the_policy_says_never() {
    for (method, retry) in
        [("POST", RetryPolicy::Idempotent), ("PUT", RetryPolicy::Never), ("PUT", RetryPolicy::Unprocessed)]
    {
        let (port, read) = dying(|number| if number == 1 { 1 } else { u32::MAX }).await;
        let a = client("CUSTOMER-0001-SBX");
        let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
        warm(&pool).await;
        let options = SendOptions { retry, ..options() };
        let ask = request(method, &[("content-length", "1")], Chunks::of(&["x"]));
        let error = send(&pool, ask, &options).await.unwrap_err();
        assert_eq!(error.retry_safe, RetrySafe::Unknown, "{method} {retry:?}");
        assert_eq!(read.load(Ordering::Relaxed), 1, "{method} {retry:?}");
    }
}

#[tokio::test]
async fn a_body_too_large_to_be_held_is_not_repeated_over_http11() {
    let (port, read) = dying(|number| if number == 1 { 1 } else { u32::MAX }).await;
    let a = client("CUSTOMER-0001-SBX");
    let config = PoolConfig { replay_buffer_bytes: 4, ..config(1, 1) };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let options = SendOptions { retry: RetryPolicy::Idempotent, ..options() };
    let ask = request("PUT", &[("content-length", "5")], Chunks::of(&["12345"]));
    assert!(send(&pool, ask, &options).await.is_err());
    assert_eq!(read.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_limit_on_response_headers_holds_over_http11() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { max_response_header_bytes: 16 * 1024, ..config(1, 2) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let filled = |bytes| request("GET", &[("sim-header-bytes", bytes)], Chunks::default());
    exchange(&pool, filled("15000")).await.unwrap();
    let error = exchange(&pool, filled("17000")).await.unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::ProviderReset { .. }), "{:?}", error.kind);
    assert!(error.to_string().contains("16384"), "{error}");
    exchange(&pool, get()).await.expect("others are not harmed");
}

#[tokio::test]
async fn an_exchange_given_up_half_way_is_counted_as_that() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let (pool, recorder) = start_recorded(sim.addr().port(), generation(1, &a), config(1, 1));
    warm(&pool).await;
    let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
    let total = Some(Duration::from_millis(50));
    let hurried = SendOptions { timeouts: Timeouts { total, ..Timeouts::default() }, ..options() };
    assert!(send(&pool, ask, &hurried).await.is_err());
    eventually("it is closed", || recorder.ended_by(CauseOfDeath::Abandoned) == 1).await;
    eventually("its successor serves", || serving(&pool) == 1).await;
    assert_eq!(recorder.ended_by(CauseOfDeath::ClosedByProvider), 0);
}

#[tokio::test]
async fn http11_connections_grow_by_need_are_reused_last_first_and_shrink_when_idle() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { idle_shrink: Duration::from_millis(300), ..config(2, 2) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            let ask = request("GET", &[("sim-delay-ms", "200")], Chunks::default());
            tokio::spawn(async move { exchange(&pool, ask).await.map(|_| ()) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(serving(&pool) >= 8, "{} for 8 at once", serving(&pool));
    let (.., first, _) = exchange(&pool, get()).await.unwrap();
    for _ in 0..10 {
        let (.., connection, _) = exchange(&pool, get()).await.unwrap();
        assert_eq!(connection, first, "the one used last is warmest");
    }
    eventually("the surplus is let go", || serving(&pool) == 2).await;
    exchange(&pool, get()).await.unwrap();
}

#[tokio::test]
async fn aged_http11_connections_are_replaced_before_they_go() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { max_age: Duration::from_millis(400), ..config(2, 2) };
    let (pool, recorder) = start_recorded(sim.addr().port(), generation(1, &a), config);
    warm(&pool).await;
    while recorder.ended_by(CauseOfDeath::Age) < 6 {
        exchange(&pool, get()).await.unwrap();
    }
    let totals = pool.status().totals;
    assert_eq!((totals.waited_for_dial, totals.stale_unsent), (0, 0), "{totals:?}");
    assert!(serving(&pool) >= 2);
}

#[tokio::test]
async fn a_limit_on_requests_per_http11_connection_is_learned_and_met_by_a_successor() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { goaway_after_requests: Some(30), ..http11() }, &[&a]).await;
    let (pool, recorder) = start_recorded(sim.addr().port(), generation(1, &a), config(1, 4));
    warm(&pool).await;
    let learned = || pool.status().learned.limits.requests == Some(30);
    let began = Instant::now();
    while !learned() {
        exchange(&pool, get()).await.unwrap();
        assert!(began.elapsed() < SOON, "not learned: {:?}", recorder.ends.lock());
    }
    // Connections older than the knowledge may still be caught by it.
    for _ in 0..60 {
        exchange(&pool, get()).await.unwrap();
    }
    let (before, closed) = (pool.status().totals, recorder.ended_by(CauseOfDeath::ClosedByProvider));
    for _ in 0..300 {
        exchange(&pool, get()).await.unwrap();
    }
    let after = pool.status().totals;
    assert_eq!(after.waited_for_dial, before.waited_for_dial, "somebody waited for a handshake");
    assert_eq!(recorder.ended_by(CauseOfDeath::ClosedByProvider), closed, "the limit was reached");
    assert!(recorder.ended_by(CauseOfDeath::LearnedLimit) >= 5, "{:?}", recorder.ends.lock());
}

#[tokio::test]
async fn how_long_http11_connections_may_be_idle_is_learned_and_kept() {
    const CLOSES_AFTER: Duration = Duration::from_millis(1500);
    let closed = Arc::new(AtomicU32::new(0));
    let counter = closed.clone();
    let port = raw("http/1.1", move |mut tls| {
        let counter = counter.clone();
        async move {
            let idle = async {
                while let Some(body) = read_request(&mut tls, CLOSES_AFTER).await {
                    answer(&mut tls, &body).await;
                }
            };
            let began = Instant::now();
            idle.await;
            if began.elapsed() >= CLOSES_AFTER {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let (pool, recorder) = start_recorded(port, generation(1, &a), config(1, 4));
    warm(&pool).await;
    let began = Instant::now();
    while pool.status().learned.limits.idle.is_none() {
        assert!(began.elapsed() < SOON * 4, "not learned: {:?}", recorder.ends.lock());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Those that are older than the knowledge have gone when as many again have been replaced.
    let replaced = || recorder.ended_by(CauseOfDeath::LearnedLimit);
    let settle = replaced() + 2;
    while replaced() < settle {
        assert!(began.elapsed() < SOON * 4, "{:?}", recorder.ends.lock());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (before, until) = (closed.load(Ordering::Relaxed), replaced() + 3);
    while replaced() < until {
        assert!(serving(&pool) >= 1, "the floor broke");
        assert!(began.elapsed() < SOON * 6, "{:?}", recorder.ends.lock());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(closed.load(Ordering::Relaxed), before, "the provider still closed one");
    exchange(&pool, get()).await.unwrap();
}

/// Requests from `callers` tasks until told to stop; all must be answered.
fn load(pool: &Pool, callers: usize) -> (Arc<AtomicBool>, Vec<tokio::task::JoinHandle<u64>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = (0..callers)
        .map(|_| {
            let (pool, stop) = (pool.clone(), stop.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (status, body, ..) = exchange(&pool, request("POST", &[], Chunks::of(&["mine"])))
                        .await
                        .expect("an answer");
                    assert_eq!((status, &body[..]), (StatusCode::OK, &b"mine"[..]));
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    (stop, tasks)
}

fn of_version(pool: &Pool, protocol: Protocol) -> usize {
    pool.status().connections.iter().filter(|c| c.protocol == protocol && c.state == State::Serving).count()
}

#[tokio::test]
async fn a_provider_that_changes_its_version_to_and_fro_loses_nobody() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let config = PoolConfig { max_age: Duration::from_millis(300), ..config(2, 4) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let (stop, tasks) = load(&pool, 4);
    for _ in 0..3 {
        for (behaviour, protocol, other) in [
            (http11(), Protocol::Http11, Protocol::H2),
            (Behaviour::default(), Protocol::H2, Protocol::Http11),
        ] {
            sim.set_behaviour(behaviour).unwrap();
            // Those of the old version serve until their successors of the new one do.
            let turned = || of_version(&pool, protocol) >= 2 && of_version(&pool, other) == 0;
            eventually("all connections speak the new version", turned).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        assert!(task.await.expect("no request failed") > 0);
    }
    let totals = pool.status().totals;
    assert_eq!((totals.dials_failed, totals.replays), (0, 0), "{totals:?}");
}

/// Passes connections on to these ports in turn, as a name with several addresses does.
async fn in_turn(ports: [u16; 2]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for n in 0usize.. {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", ports[n % 2])).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    port
}

#[tokio::test]
async fn a_provider_with_one_address_of_each_version_is_served_without_redialling() {
    let a = client("CUSTOMER-0001-SBX");
    let (one, other) = (provider(Behaviour::default(), &[&a]).await, provider(http11(), &[&a]).await);
    let port = in_turn([one.addr().port(), other.addr().port()]).await;
    let (pool, recorder) = start_recorded(port, generation(1, &a), config(2, 4));
    warm(&pool).await;
    assert_eq!((of_version(&pool, Protocol::H2), of_version(&pool, Protocol::Http11)), (1, 1));
    let (stop, tasks) = load(&pool, 4);
    let carried = || pool.status().totals.requests >= 400;
    eventually("some load", carried).await;
    one.kill_connections();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        // Those on the killed connection may fail; the others must not.
        let _ = task.await;
    }
    eventually("its end is seen", || recorder.ended_by(CauseOfDeath::ClosedByProvider) >= 1).await;
    eventually("the floor stands again", || serving(&pool) >= 2).await;
    for _ in 0..50 {
        exchange(&pool, get()).await.unwrap();
    }
    let dials = recorder.dials.load(Ordering::Relaxed);
    assert!(dials <= 8, "{dials} dials for a floor of two");
}

#[tokio::test]
async fn whoever_waits_for_one_version_is_served_by_the_other() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    sim.set_behaviour(Behaviour { max_concurrent_streams: Some(1), ..http11() }).unwrap();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let pool = pool.clone();
            let ask = request("GET", &[("sim-delay-ms", "300")], Chunks::default());
            tokio::spawn(async move { exchange(&pool, ask).await.map(|_| ()) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().expect("a connection of the new version carries it");
    }
    assert!(sim.ledger().connections_http11 > 0);
}

#[tokio::test]
async fn a_stop_cuts_an_http11_exchange_that_outlasts_its_deadline() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let (pool, recorder) = start_recorded(sim.addr().port(), generation(1, &a), config(1, 1));
    warm(&pool).await;
    let carrier = pool.clone();
    let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
    let carried = tokio::spawn(async move { send(&carrier, ask, &options()).await.map(|_| ()) });
    eventually("it is carried", || sim.ledger().requests == 1).await;
    let cut = pool.stop(Duration::from_millis(100)).await;
    assert_eq!(cut.streams, 1);
    let error = timeout(SOON, carried).await.expect("it learns of it").unwrap().unwrap_err();
    assert_eq!(error.verdict, Some(Verdict::MaybeProcessed));
    eventually("nothing is left", || sim.ledger().connections_open == 0).await;
    assert!(recorder.dials.load(Ordering::Relaxed) <= 2, "one and its spare");
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut_over_http11() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig {
        max_age: Duration::from_millis(200),
        drain_timeout: Duration::from_millis(200),
        ..config(1, 1)
    };
    let (pool, recorder) = start_recorded(sim.addr().port(), generation(1, &a), config);
    warm(&pool).await;
    let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
    let answer = timeout(SOON, send(&pool, ask, &options())).await.expect("it does not hang");
    assert!(answer.is_err());
    assert!(recorder.ended_by(CauseOfDeath::Age) >= 1, "{:?}", recorder.ends.lock());
}

/// A provider that closes at random: before a request, after it was read, in the middle of an answer, between two.
/// It keeps the books.
#[derive(Default)]
struct Books {
    /// Per request, how often it was read whole.
    read: parking_lot::Mutex<std::collections::HashMap<Vec<u8>, u32>>,
}

async fn closes_at_random(seed: u64, books: Arc<Books>) -> u16 {
    let connections = Arc::new(AtomicU64::new(0));
    raw("http/1.1", move |mut tls| {
        let number = connections.fetch_add(1, Ordering::Relaxed);
        let books = books.clone();
        async move {
            let mut chance = fastrand::Rng::with_seed(seed ^ (number << 8));
            let mut patience = PATIENT;
            loop {
                let Some(body) = read_request(&mut tls, patience).await else { return };
                *books.read.lock().entry(body.clone()).or_default() += 1;
                match chance.u8(..) {
                    0..8 => return,
                    8..16 => {
                        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
                        return;
                    }
                    16..40 => {
                        answer(&mut tls, &body).await;
                        return;
                    }
                    40..60 => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                            body.len()
                        );
                        let _ = tls.write_all(&[head.as_bytes(), &body].concat()).await;
                        let _ = tls.shutdown().await;
                        return;
                    }
                    _ => answer(&mut tls, &body).await,
                }
                patience =
                    if chance.u8(..) < 64 { Duration::from_millis(chance.u64(0..15)) } else { PATIENT };
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_closes_at_random_the_books_balance() {
    const CALLERS: u64 = 8;
    const EACH: u64 = 250;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let books = Arc::new(Books::default());
    let port = closes_at_random(seed, books.clone()).await;
    let a = client("CUSTOMER-0001-SBX");
    let config = PoolConfig { http1_max_connections: 16, ..config(4, 8) };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let tasks: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                let mut chance = fastrand::Rng::with_seed(seed ^ caller);
                for n in 0..EACH {
                    let id: &'static str = Box::leak(format!("{caller}/{n}").into_boxed_str());
                    let answer = pool
                        .send(request("POST", &[], Chunks::of(&[id])), &options(), &mut Journey::default())
                        .await;
                    let outcome = match answer {
                        Ok(response) => match timeout(SOON, response.into_body().collect()).await.unwrap() {
                            Ok(body) => Ok(body.to_bytes()),
                            Err(_) => Err(None),
                        },
                        Err(e) => Err(Some(e)),
                    };
                    outcomes.push((id, outcome));
                    if chance.u8(..) < 32 {
                        tokio::time::sleep(Duration::from_millis(chance.u64(0..20))).await;
                    }
                }
                outcomes
            })
        })
        .collect();
    let mut answered = 0;
    for task in tasks {
        for (id, outcome) in task.await.unwrap() {
            let chunk = format!("{:x}\r\n{id}\r\n0\r\n\r\n", id.len());
            let read = books.read.lock().get(chunk.as_bytes()).copied().unwrap_or_default();
            assert!(read <= 1, "seed {seed}: {id} was processed {read} times");
            match outcome {
                Ok(body) => {
                    assert_eq!((read, &body[..]), (1, chunk.as_bytes()), "seed {seed}: {id}");
                    answered += 1;
                }
                Err(None) => assert_eq!(read, 1, "seed {seed}: {id} was answered in part"),
                Err(Some(e)) => {
                    let doubt = e.verdict == Some(Verdict::MaybeProcessed);
                    assert!(doubt, "seed {seed}: {id} was provably not processed, and yet lost: {e:?}");
                }
            }
        }
    }
    assert!(answered > CALLERS * EACH * 3 / 4, "seed {seed}: {answered} answered");
    eventually("nothing is left in flight", || pool.status().in_flight == 0).await;
    let status = pool.status();
    assert_eq!((status.queue_depth, status.replay_bytes), (0, 0), "seed {seed}");
}
