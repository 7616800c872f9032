//! What is remembered of connections and of the provider: obituaries and drift, against a simulated provider.

use parking_lot::Mutex;
use pool::{
    CauseOfDeath, ConnectionId, DialReport, DriftChange, DriftField, DriftSeverity, Name, Obituary,
    ObituaryFilter, Observer, Proof, Protocol, Verdict,
};
use provider_sim::Resumption;

use crate::support::*;

/// Remembers in which respects the provider changed.
#[derive(Default)]
struct Drifted(Mutex<Vec<DriftField>>);

impl Observer for Drifted {
    fn dialled(&self, _: &DialReport) {}
    fn closed(&self, _: ConnectionId, _: CauseOfDeath, _: u64) {}
    fn goaway(&self, _: ConnectionId, _: u32) {}
    fn retried(&self, _: Verdict) {}
    fn drifted(&self, field: DriftField) {
        self.0.lock().push(field);
    }
}

struct Lab {
    sim: Simulator,
    pool: Pool,
    obituaries: Arc<Obituaries>,
    observer: Arc<Drifted>,
}

impl Lab {
    async fn start(behaviour: Behaviour, min: u32, max: u32) -> Self {
        let a = client("CUSTOMER-0001-SBX");
        let sim = provider(behaviour, &[&a]).await;
        let obituaries = Obituaries::new(Arc::new(SystemClock));
        let observer = Arc::new(Drifted::default());
        let spec = PoolSpec {
            obituaries: obituaries.clone(),
            observer: observer.clone(),
            ..spec(sim.addr().port(), generation(1, &a), config(min, max), Timeouts::default())
        };
        let pool = Pool::start(spec, &Handle::current());
        Self { sim, pool, obituaries, observer }
    }

    fn dead(&self) -> Vec<Obituary> {
        self.obituaries.find(&ObituaryFilter::default(), usize::MAX)
    }

    async fn first_dead(&self) -> Obituary {
        eventually("an obituary", || !self.obituaries.is_empty()).await;
        // The oldest: what died next is not what the test is about.
        self.dead().pop().unwrap()
    }

    fn changes(&self) -> Vec<String> {
        self.pool.drift().iter().map(DriftChange::to_string).collect()
    }

    /// Ends all connections and waits for others to serve.
    async fn renew(&self) {
        let newest = || self.pool.status().connections.iter().map(|c| c.id.0).max().unwrap_or(0);
        let before = newest();
        self.sim.kill_connections();
        eventually("a successor serves", || {
            newest() > before
                && self.pool.status().connections.iter().any(|c| c.state == State::Serving && c.id.0 > before)
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_the_provider_ended_is_remembered_with_its_goaway_and_its_requests() {
    let behaviour = Behaviour {
        goaway_after_requests: Some(3),
        goaway_form: GoAwayForm::Immediate,
        ..Behaviour::default()
    };
    let lab = Lab::start(behaviour, 1, 1).await;
    warm(&lab.pool).await;
    let living = lab.pool.status().connections.remove(0);
    assert_eq!(living.proof, Some(Proof::Ping));
    assert_eq!(living.passport.settings.unwrap().max_concurrent_streams, Some(128));
    assert_eq!(living.passport.tickets_received, Some(2));
    assert_eq!(living.passport.ping.unwrap().count, 1);
    for _ in 0..3 {
        exchange(&lab.pool, get()).await.unwrap();
    }
    let dead = lab.first_dead().await;
    assert_eq!((dead.id, dead.cause), (living.id, CauseOfDeath::Goaway));
    assert_eq!((dead.requests, dead.peak_in_flight, dead.generation), (3, 1, 1));
    assert_eq!(dead.goaway.map(|g| (g.error_code, g.last_stream_id)), Some((0, 5)));
    assert_eq!(dead.address.unwrap().to_string(), living.address);
    assert_eq!((&*dead.environment, dead.protocol), ("sandbox", Some(Protocol::H2)));
    assert_eq!((dead.proof, dead.tickets_received), (Some(Proof::Ping), 2));
    assert_eq!(dead.cipher_suite.map(Name::as_str), Some(living.handshake.cipher_suite));
    assert!(pki().server_pin().starts_with(&dead.pin.unwrap().to_string()), "{:?}", dead.pin);
    assert_eq!(dead.phases.tls.get().map(|d| d.as_micros()), living.phases.tls.map(|d| d.as_micros()));
    assert_eq!(dead.ping.first.get().map(|d| d.as_micros()), living.ping_rtt.map(|d| d.as_micros()));
    assert!(living.handshake.peer_chain[0].to_string().starts_with(&dead.leaf.unwrap().to_string()));
    assert!(dead.code.is_none());
}

#[tokio::test]
async fn a_dial_that_failed_is_remembered_with_its_code() {
    let lab = Lab::start(Behaviour { stall: Stall::None, ..Behaviour::default() }, 1, 1).await;
    lab.sim.set_endorsed(Vec::new()).unwrap();
    lab.sim.kill_connections();
    eventually("a dial is refused", || lab.pool.status().last_failure.is_some()).await;
    let never = ObituaryFilter { cause: Some(CauseOfDeath::NeverServed), ..ObituaryFilter::default() };
    let dead = lab.obituaries.find(&never, 1).remove(0);
    assert_eq!(dead.code.map(Name::as_str), Some(lab.pool.status().last_failure.unwrap().code));
    assert_eq!((dead.requests, dead.protocol, dead.proof), (0, None, None));
    assert!(!dead.detail.as_str().is_empty() && dead.phases.tcp.get().is_some(), "{dead:?}");
}

#[tokio::test]
async fn an_http11_connection_is_remembered_too() {
    let lab = Lab::start(http11(), 1, 1).await;
    warm(&lab.pool).await;
    let (_, _, id, _) = exchange(&lab.pool, get()).await.unwrap();
    eventually("it is given back", || lab.pool.status().in_flight == 0).await;
    lab.sim.kill_connections();
    let found = ObituaryFilter { id: Some(ConnectionId(id)), ..ObituaryFilter::default() };
    eventually("its obituary", || !lab.obituaries.find(&found, 1).is_empty()).await;
    let dead = lab.obituaries.find(&found, 1).remove(0);
    assert_eq!((dead.protocol, dead.requests), (Some(Protocol::Http11), 1));
    assert_eq!(dead.cause, CauseOfDeath::ClosedByProvider);
    assert!(dead.idle().is_some_and(|idle| idle < dead.age()), "it fell idle after its request: {dead:?}");
}

#[tokio::test]
async fn how_a_provider_says_goodbye_over_http11_is_compared_too() {
    let lab = Lab::start(Behaviour { goaway_after_requests: Some(1), ..http11() }, 1, 2).await;
    warm(&lab.pool).await;
    let (_, _, announced, _) = exchange(&lab.pool, get()).await.unwrap();
    let gone = |id: u64| !lab.pool.status().connections.iter().any(|c| c.id.0 == id);
    eventually("it ended as its last response said", || gone(announced)).await;
    warm(&lab.pool).await;
    lab.renew().await;
    let farewells = || lab.changes().into_iter().filter(|c| c.starts_with("farewell")).collect::<Vec<_>>();
    eventually("it is noticed", || farewells() == ["farewell connection: close -> close"]).await;
}

#[tokio::test]
async fn a_limit_that_shrinks_on_a_living_connection_is_drift() {
    let lab = Lab::start(Behaviour { max_concurrent_streams: Some(50), ..Behaviour::default() }, 1, 1).await;
    warm(&lab.pool).await;
    exchange(&lab.pool, get()).await.unwrap();
    assert_eq!(lab.changes(), Vec::<String>::new(), "the first sight is no change");
    lab.sim.set_behaviour(Behaviour { max_concurrent_streams: Some(10), ..lab.sim.behaviour() }).unwrap();
    eventually("the change is noticed", || !lab.pool.drift().is_empty()).await;
    assert_eq!(lab.changes(), ["max_concurrent_streams 50 -> 10"]);
    let status = lab.pool.status();
    assert_eq!(status.drift[0].severity, DriftSeverity::Warning);
    assert_eq!(*lab.observer.0.lock(), [DriftField::MaxConcurrentStreams]);
}

#[tokio::test]
async fn fewer_tickets_are_drift_and_the_same_again_is_not() {
    let behaviour = Behaviour { resumption: Resumption::Refuse, ..Behaviour::default() };
    let lab = Lab::start(behaviour, 1, 1).await;
    warm(&lab.pool).await;
    lab.renew().await;
    let quiet = |changes: Vec<String>| {
        // How it ended, and whether tickets helped, is not what this is about.
        changes
            .into_iter()
            .filter(|c| !c.starts_with("farewell") && !c.starts_with("resumption"))
            .collect::<Vec<_>>()
    };
    assert_eq!(quiet(lab.changes()), Vec::<String>::new());
    lab.sim.set_behaviour(Behaviour { tickets: 0, ..lab.sim.behaviour() }).unwrap();
    lab.renew().await;
    eventually("fewer tickets are noticed", || quiet(lab.changes()) == ["tickets 2 -> 0"]).await;
}

#[tokio::test]
async fn tickets_that_are_no_longer_accepted_are_drift() {
    let lab = Lab::start(Behaviour::default(), 1, 1).await;
    warm(&lab.pool).await;
    lab.renew().await;
    lab.sim.set_behaviour(Behaviour { resumption: Resumption::Refuse, ..lab.sim.behaviour() }).unwrap();
    lab.renew().await;
    eventually("it is noticed", || lab.changes().contains(&"resumption accepted -> refused".to_owned()))
        .await;
    assert!(lab.observer.0.lock().contains(&DriftField::Resumption));
}

#[tokio::test]
async fn a_limit_that_was_learned_is_drift() {
    let behaviour = Behaviour {
        goaway_after_requests: Some(30),
        goaway_form: GoAwayForm::Immediate,
        ..Behaviour::default()
    };
    let lab = Lab::start(behaviour, 1, 2).await;
    warm(&lab.pool).await;
    let began = Instant::now();
    while !lab.changes().contains(&"enforced_requests none -> 30".to_owned()) {
        assert!(began.elapsed() < SOON, "not among {:?}", lab.changes());
        exchange(&lab.pool, get()).await.unwrap();
    }
}

#[tokio::test]
async fn a_provider_that_answers_no_pings_is_proven_by_its_settings_and_that_is_said() {
    let lab =
        Lab::start(Behaviour { pings: provider_sim::Pings::Ignore, ..Behaviour::default() }, 1, 1).await;
    warm(&lab.pool).await;
    let living = lab.pool.status().connections.remove(0);
    assert_eq!((living.proof, living.passport.ping), (Some(Proof::SettingsAck), None));
}
