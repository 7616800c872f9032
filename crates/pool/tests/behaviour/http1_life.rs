//! The life of HTTP/1.1 connections: races with a provider that closes them, what is learned, how they are replaced,

//! how the pool follows a provider from one version to the other.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pool::{
    CauseOfDeath, ConnectionId, DialReport, DriftField, HealthCheck, Observer, Proof, Protocol, Verdict,
};
use provider_sim::{ClientAuth, TlsVersions};

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
    let config = PoolConfig { idle_shrink: Duration::from_millis(1500), ..config(2, 2) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            let ask = request("GET", &[("sim-delay-ms", "500")], Chunks::default());
            tokio::spawn(async move { exchange(&pool, ask).await.map(|_| ()) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    // Counted where they arrived: on a slow machine the first may have been let go already.
    let accepted = sim.ledger().connections_accepted;
    assert!(accepted >= 8, "{accepted} for 8 at once");
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
    let (mut before, mut until) = (closed.load(Ordering::Relaxed), replaced() + 3);
    let mut looked = Instant::now();
    while replaced() < until {
        assert!(serving(&pool) >= 1, "the floor broke");
        assert!(began.elapsed() < SOON * 12, "{:?}", recorder.ends.lock());
        tokio::time::sleep(Duration::from_millis(5)).await;
        // A machine that stood still for longer than the margin proves nothing: count anew.
        if looked.elapsed() > Duration::from_millis(100) {
            (before, until) = (closed.load(Ordering::Relaxed), replaced() + 3);
        }
        looked = Instant::now();
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

#[tokio::test]
async fn the_record_says_what_proved_an_http11_connection() {
    let check = HealthCheck::get("/health".parse().unwrap());
    for (behaviour, health, proof) in [
        (Behaviour { tls: TlsVersions::Tls12Only, ..http11() }, None, Proof::Handshake),
        (Behaviour { tls: TlsVersions::Tls13Only, ..http11() }, None, Proof::Ticket),
        (Behaviour { tickets: 0, tls: TlsVersions::Tls13Only, ..http11() }, None, Proof::QuietWindow),
        (Behaviour { tickets: 0, ..http11() }, Some(check), Proof::HealthRequest),
    ] {
        let a = client("CUSTOMER-0001-SBX");
        let sim = provider(behaviour, &[&a]).await;
        let config = PoolConfig { health, ..config(1, 1) };
        let pool = start(&sim, generation(1, &a), config, Timeouts::default());
        warm(&pool).await;
        assert_eq!(pool.status().connections[0].proof, Some(proof));
        exchange(&pool, get()).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_refused_in_http_is_an_identity_fault_over_http11_too() {
    let a = client("CUSTOMER-0001-SBX");
    let behaviour = Behaviour { client_auth: ClientAuth::RefuseHttp, ..http11() };
    let sim = provider(behaviour, &[&a]).await;
    let health = Some(HealthCheck::get("/health".parse().unwrap()));
    let pool = start(&sim, generation(1, &a), PoolConfig { health, ..config(1, 1) }, Timeouts::default());
    let error = exchange(&pool, get()).await.unwrap_err();
    let SendErrorKind::Unavailable(cause) = &error.kind else { panic!("{error:?}") };
    assert_eq!(cause.code(), "identity_refused");
}

#[tokio::test]
async fn a_refused_certificate_is_an_identity_fault_over_http11() {
    let (a, stranger) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    for tickets in [0, 2] {
        let sim = provider(Behaviour { tickets, ..http11() }, &[&a]).await;
        let pool = start(&sim, generation(1, &stranger), config(1, 1), Timeouts::default());
        let error = exchange(&pool, get()).await.unwrap_err();
        let SendErrorKind::Unavailable(cause) = &error.kind else { panic!("{error:?}") };
        assert!(cause.is_identity_fault(), "{cause}");
    }
}
