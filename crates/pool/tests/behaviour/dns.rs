//! Names: their TTLs, moves, failures; several addresses behind one.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use hickory_proto::rr::RecordType;
use parking_lot::Mutex;
use pool::{CauseOfDeath, ConnectionId, DialReport, Observer, PoolStatus, Verdict};
use tokio::sync::mpsc;

use crate::{
    nameserver::{NameServer, Script},
    support::*,
};

/// Long enough for three answers over two TTLs of a second, on a slow machine.
const AFTER_A_MOVE: Duration = Duration::from_secs(15);

/// Simulated providers at 127.0.0.1, 127.0.0.2, … on one port.
async fn providers(count: u8, behaviour: Behaviour, client: &ClientCredentials) -> (Vec<Simulator>, u16) {
    for _ in 0..20 {
        let mut providers: Vec<Simulator> = Vec::new();
        for n in 1..=count {
            let port = providers.first().map_or(0, |first| first.addr().port());
            let listen = SocketAddr::from(([127, 0, 0, n], port));
            let endorsed = vec![client.endorsed()];
            let behaviour = behaviour.clone();
            let options = SimulatorOptions { listen, endorsed, behaviour, ..SimulatorOptions::new(pki()) };
            // Somebody else may have that port at the other address.
            let Ok(provider) = Simulator::start(options).await else { break };
            providers.push(provider);
        }
        if providers.len() == usize::from(count) {
            let port = providers[0].addr().port();
            return (providers, port);
        }
    }
    panic!("no port is free at {count} loopback addresses");
}

/// Counts why connections ended.
#[derive(Default)]
struct Deaths(Mutex<HashMap<CauseOfDeath, u32>>);

impl Deaths {
    fn of(&self, cause: CauseOfDeath) -> u32 {
        self.0.lock().get(&cause).copied().unwrap_or(0)
    }

    fn total(&self) -> u32 {
        self.0.lock().values().sum()
    }
}

impl Observer for Deaths {
    fn dialled(&self, _: &DialReport) {}
    fn closed(&self, _: ConnectionId, cause: CauseOfDeath, _: u64) {
        *self.0.lock().entry(cause).or_insert(0) += 1;
    }
    fn goaway(&self, _: ConnectionId, _: u32) {}
    fn retried(&self, _: Verdict) {}
    fn drifted(&self, _: pool::DriftField) {}
}

struct Stage {
    pool: Pool,
    deaths: Arc<Deaths>,
}

/// A pool that dials `provider.dns.test` and asks this name server.
fn start_by_name(server: &NameServer, port: u16, client: &ClientCredentials, config: PoolConfig) -> Stage {
    let deaths = Arc::new(Deaths::default());
    let spec = PoolSpec {
        key: PoolKey { customer: "C".into(), environment: "sandbox".into(), authority: HOST.into() },
        target: Target {
            host: HOST.to_owned(),
            port: 443,
            connect: Some(HostPort { host: "provider.dns.test".to_owned(), port }),
            via: None,
        },
        generation: generation(1, client),
        config: PoolConfig { name_servers: vec![server.address()], ..config },
        timeouts: Timeouts::default(),
        seed: 7,
        workers: Workers::current(),
        observer: deaths.clone(),
        obituaries: Obituaries::new(Arc::new(SystemClock)),
    };
    Stage { pool: Pool::start(spec, &Handle::current()), deaths }
}

/// Serving connections per address.
fn spread(status: &PoolStatus) -> BTreeMap<String, usize> {
    let mut spread = BTreeMap::new();
    for connection in status.connections.iter().filter(|c| c.state == State::Serving) {
        let address: SocketAddr = connection.address.parse().unwrap();
        *spread.entry(address.ip().to_string()).or_insert(0) += 1;
    }
    spread
}

fn all_at(pool: &Pool, address: &str, count: usize) -> bool {
    spread(&pool.status()) == BTreeMap::from([(address.to_owned(), count)])
}

/// Waits until every connection has lasted: one that ends sooner counts as a dial that failed.
async fn seasoned(pool: &Pool) {
    warm(pool).await;
    let old = || pool.status().connections.iter().all(|c| c.age > Duration::from_secs(1));
    eventually("all have lasted a while", old).await;
}

async fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not in {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_dials_within_a_ttl_ask_once() {
    let a = client("CUSTOMER-0001-SBX");
    let (sims, port) = providers(1, Behaviour::default(), &a).await;
    let server = NameServer::start(Script::addresses(300, &["127.0.0.1"])).await;
    let Stage { pool, deaths } = start_by_name(&server, port, &a, config(4, 4));
    seasoned(&pool).await;
    sims[0].kill_connections();
    eventually("all are dialled anew", || deaths.total() == 4 && serving(&pool) == 4).await;
    assert_eq!(server.asked(), 1);
    let resolution = pool.status().resolution.unwrap();
    assert_eq!(resolution.host, "provider.dns.test");
    assert!(resolution.valid_for.unwrap() <= Duration::from_secs(300));
    assert_eq!(resolution.addresses[0].connections, 4);
}

#[tokio::test]
async fn a_ttl_that_ended_is_asked_for_again_without_any_dial() {
    let a = client("CUSTOMER-0001-SBX");
    let (_sims, port) = providers(1, Behaviour::default(), &a).await;
    let server = NameServer::start(Script::addresses(1, &["127.0.0.1"])).await;
    let Stage { pool, .. } = start_by_name(&server, port, &a, config(1, 1));
    warm(&pool).await;
    let began = Instant::now();
    within(AFTER_A_MOVE, "asked by TTL", || server.asked() >= 4).await;
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "more often than once a second: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_ttl_of_an_alias_counts() {
    let a = client("CUSTOMER-0001-SBX");
    let (_sims, port) = providers(1, Behaviour::default(), &a).await;
    let server = NameServer::start(Script::Alias { ttl: 20, address: "127.0.0.1".parse().unwrap() }).await;
    let Stage { pool, .. } = start_by_name(&server, port, &a, config(1, 1));
    warm(&pool).await;
    let valid_for = pool.status().resolution.unwrap().valid_for.unwrap();
    assert!(valid_for <= Duration::from_secs(20), "{valid_for:?}");
}

#[tokio::test]
async fn a_name_that_moves_takes_its_connections_along_and_loses_no_request() {
    let a = client("CUSTOMER-0001-SBX");
    let (sims, port) = providers(2, Behaviour::default(), &a).await;
    let server = NameServer::start(Script::addresses(1, &["127.0.0.1"])).await;
    let Stage { pool, deaths } = start_by_name(&server, port, &a, config(2, 4));
    warm(&pool).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (pool, stopped) = (pool.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut sent = 0;
                while !*stopped.borrow() {
                    exchange(&pool, request("POST", &[("sim-delay-ms", "5")], Chunks::of(&["x"])))
                        .await
                        .unwrap();
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    eventually("the load is on", || sims[0].ledger().requests > 20).await;

    server.say(Script::addresses(1, &["127.0.0.2"]));
    let moved = Instant::now();
    within(AFTER_A_MOVE, "the old connections are gone", || all_at(&pool, "127.0.0.2", 2)).await;
    // One TTL of the old answer may be left; then three answers, a TTL apart.
    assert!(moved.elapsed() >= Duration::from_secs(2), "too soon: {:?}", moved.elapsed());
    within(AFTER_A_MOVE, "the drain ends", || deaths.of(CauseOfDeath::AddressGone) == 2).await;
    stop.send_replace(true);
    let mut sent = 0;
    for task in load {
        sent += task.await.expect("no request fails");
    }
    let carried: u64 = sims.iter().map(|sim| sim.ledger().requests).sum();
    assert_eq!(carried, sent, "each exactly once");
    assert_eq!(deaths.total(), 2, "nothing else ended: {:?}", deaths.0.lock());
}

#[tokio::test]
async fn new_connections_go_to_the_new_address_as_soon_as_the_ttl_is_over() {
    let a = client("CUSTOMER-0001-SBX");
    let (sims, port) = providers(2, Behaviour::default(), &a).await;
    let server = NameServer::start(Script::addresses(2, &["127.0.0.1"])).await;
    let Stage { pool, .. } = start_by_name(&server, port, &a, config(1, 1));
    seasoned(&pool).await;
    server.say(Script::addresses(2, &["127.0.0.2"]));
    let asked = server.asked();
    within(AFTER_A_MOVE, "asked again", || server.asked() > asked).await;
    assert!(all_at(&pool, "127.0.0.1", 1), "what serves goes on serving");
    sims[0].kill_connections();
    eventually("the next dial goes to the new address", || all_at(&pool, "127.0.0.2", 1)).await;
}

#[tokio::test]
async fn without_dns_connections_stay_and_the_last_answer_is_dialled() {
    let a = client("CUSTOMER-0001-SBX");
    let (sims, port) = providers(1, Behaviour::default(), &a).await;
    let server = NameServer::start(Script::addresses(1, &["127.0.0.1"])).await;
    let Stage { pool, deaths } = start_by_name(&server, port, &a, config(2, 2));
    seasoned(&pool).await;
    for (script, words) in [
        (Script::Silent, "no name server answered"),
        (Script::Failing, "Server Failure"),
        (Script::NoSuchName, "there is no such name"),
    ] {
        server.say(script);
        let failure = || pool.status().resolution.unwrap().failure.unwrap_or_default();
        within(AFTER_A_MOVE * 2, words, || failure().contains(words)).await;
        assert_eq!((serving(&pool), pool.status().resolution.unwrap().addresses.len()), (2, 1));
    }
    assert_eq!(deaths.total(), 0, "nothing ended for want of an answer");
    sims[0].kill_connections();
    within(SOON, "dialled by the last answer", || deaths.total() == 2 && serving(&pool) == 2).await;
    assert!(pool.status().resolution.unwrap().failing_for.is_some());
    server.say(Script::addresses(60, &["127.0.0.1"]));
    within(AFTER_A_MOVE * 2, "noticed", || pool.status().resolution.unwrap().failing_for.is_none()).await;
}

#[tokio::test]
async fn answers_that_rotate_end_no_connection() {
    let a = client("CUSTOMER-0001-SBX");
    let (_sims, port) = providers(3, Behaviour::default(), &a).await;
    let turns: [&[&str]; 3] = [&["127.0.0.1"], &["127.0.0.2"], &["127.0.0.3"]];
    let server = NameServer::start(Script::rotating(1, &turns)).await;
    let Stage { pool, deaths } = start_by_name(&server, port, &a, config(2, 2));
    warm(&pool).await;
    within(AFTER_A_MOVE, "three rounds of answers", || server.asked() >= 9).await;
    assert_eq!(deaths.total(), 0, "{:?}", deaths.0.lock());
    assert_eq!(pool.status().resolution.unwrap().addresses.len(), 3);
}

#[tokio::test]
async fn several_addresses_are_used_side_by_side() {
    let a = client("CUSTOMER-0001-SBX");
    let (sims, port) = providers(3, Behaviour::default(), &a).await;
    let server = NameServer::start(Script::addresses(300, &["127.0.0.1", "127.0.0.2", "127.0.0.3"])).await;
    let Stage { pool, .. } = start_by_name(&server, port, &a, config(6, 6));
    seasoned(&pool).await;
    let even = [("127.0.0.1", 2), ("127.0.0.2", 2), ("127.0.0.3", 2)];
    assert_eq!(spread(&pool.status()), even.map(|(a, n)| (a.to_owned(), n)).into());
    // One of them dies: its share goes to the others, and no request waits for it.
    sims[1].kill_connections();
    let mut sims = sims;
    sims.remove(1).stop().await;
    eventually("the others carry its share", || {
        let spread = spread(&pool.status());
        spread.values().sum::<usize>() == 6 && !spread.contains_key("127.0.0.2")
    })
    .await;
    exchange(&pool, get()).await.unwrap();
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_dns_failure_until_it_appears() {
    let a = client("CUSTOMER-0001-SBX");
    let (_sims, port) = providers(1, Behaviour::default(), &a).await;
    let server = NameServer::start(Script::NoSuchName).await;
    let Stage { pool, .. } = start_by_name(&server, port, &a, config(1, 1));
    let error = exchange(&pool, get()).await.unwrap_err();
    let SendErrorKind::Unavailable(cause) = &error.kind else { panic!("{error:?}") };
    assert_eq!(cause.code(), "dns_failure");
    let words = "the name provider.dns.test cannot be resolved: there is no such name (NXDOMAIN)";
    assert_eq!(cause.to_string(), words);
    assert_eq!(error.retry_safe, RetrySafe::Yes);
    server.say(Script::addresses(60, &["127.0.0.1"]));
    within(AFTER_A_MOVE, "it serves", || serving(&pool) == 1).await;
    exchange(&pool, get()).await.unwrap();
}

#[tokio::test]
async fn a_name_whose_ipv6_half_is_never_answered_is_dialled_by_its_ipv4_half() {
    let a = client("CUSTOMER-0001-SBX");
    let (_sims, port) = providers(1, Behaviour::default(), &a).await;
    let addresses = vec!["127.0.0.1".parse().unwrap()];
    let script = Script::OneFamily { family: RecordType::A, addresses, ttl: 60 };
    let server = NameServer::start(script).await;
    let Stage { pool, .. } = start_by_name(&server, port, &a, config(1, 1));
    let began = Instant::now();
    within(AFTER_A_MOVE, "it serves", || serving(&pool) == 1).await;
    // Well before the question for the other half ends, which is at the connect limit.
    assert!(began.elapsed() < Timeouts::default().connect, "after {:?}", began.elapsed());
    exchange(&pool, get()).await.unwrap();
    assert_eq!(pool.status().resolution.unwrap().failure, None);
}

#[tokio::test]
async fn an_address_that_shakes_hands_and_serves_nobody_stays_penalised() {
    const DYING: u32 = 2;
    let a = client("CUSTOMER-0001-SBX");
    let (accepted, (greeted, mut greeting)) = (AtomicU32::new(0), mpsc::channel(1));
    let port = raw("h2", move |mut tls| {
        let (number, greeted) = (accepted.fetch_add(1, Ordering::Relaxed), greeted.clone());
        async move {
            // Whoever sends the preface has done with the handshake.
            let read = tls.read_u8().await;
            if number >= DYING && read.is_ok() {
                let _ = greeted.send(()).await;
                let _ = tls.read_to_end(&mut Vec::new()).await;
            }
        }
    })
    .await;
    let server = NameServer::start(Script::addresses(300, &["127.0.0.1"])).await;
    let pause = Duration::from_millis(50);
    let config = PoolConfig { backoff_initial: pause, identity_fault_pause: pause, ..config(1, 1) };
    let Stage { pool, .. } = start_by_name(&server, port, &a, config);
    timeout(SOON, greeting.recv()).await.expect("a dial after those that ended before the proof");
    assert!(pool.status().resolution.unwrap().addresses[0].failed_lately, "a handshake is no proof");
}

#[tokio::test]
async fn http_1_connections_follow_a_name_that_moves() {
    let a = client("CUSTOMER-0001-SBX");
    let (sims, port) = providers(2, http11(), &a).await;
    let server = NameServer::start(Script::addresses(1, &["127.0.0.1"])).await;
    let Stage { pool, .. } = start_by_name(&server, port, &a, config(1, 2));
    warm(&pool).await;
    exchange(&pool, get()).await.unwrap();
    server.say(Script::addresses(1, &["127.0.0.2"]));
    let moved = Instant::now();
    while sims[1].ledger().requests == 0 {
        assert!(moved.elapsed() < AFTER_A_MOVE, "requests still go to the old address");
        exchange(&pool, get()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(moved.elapsed() >= Duration::from_secs(2), "too soon: {:?}", moved.elapsed());
}
