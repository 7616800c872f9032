//! A provider that changes while the gateway runs: each change is listed once, counted once and logged once.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Once},
    time::Duration,
};

use parking_lot::Mutex;
use provider_sim::{Behaviour, GoAwayForm, HttpVersions, KeyExchange, Resumption, Rotation, TlsVersions};
use serde_json::Value;
use tokio::task::JoinHandle;
use tracing::{Event, Metadata, Subscriber, field::Field, field::Visit, span};
use tsh_tests::{
    EnvironmentPlan, Http1, Lab, NameServer, Plan, Provider, caller::ask, empty, eventually,
    names::PROVIDER_NAME,
};

/// Diagnostic lines of the drift log, of all gateways of this process. An environment's name tells whose they are.
static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// One diagnostic line.
#[derive(Clone, Debug, Default)]
struct Line {
    environment: String,
    field: String,
    message: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "environment" => self.environment = format!("{value:?}"),
            "field" => self.field = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

/// Keeps what the drift log writes, and nothing else.
struct Keep;

impl Subscriber for Keep {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("pool::drift")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        LINES.lock().push(line);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// A gateway before a provider that is about to change.
struct Watch {
    provider: Provider,
    lab: Lab,
    environment: &'static str,
}

impl Watch {
    /// One connection at a time, so that changes come one after another.
    async fn over(environment: &'static str, provider: Provider, edit: impl FnOnce(Plan) -> Plan) -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Keep).expect("the only one"));
        let plan = EnvironmentPlan::at(environment, &provider);
        let plan = Plan::of(plan.pool("min_connections = 1\nmax_connections = 1"));
        let lab = edit(plan).ready().await;
        Self { provider, lab, environment }
    }

    async fn start(environment: &'static str) -> Self {
        Self::over(environment, Provider::start().await, |plan| plan).await
    }

    /// Ends all connections, so that others are made.
    async fn renew(&self) {
        let before = self.lab.total(self.environment, "connections").await;
        self.provider.sim.goaway_all();
        eventually("another connection serves", async || {
            let later = self.lab.total(self.environment, "connections").await > before;
            (later && self.lab.connections(self.environment, "serving").await > 0).then_some(())
        })
        .await;
    }

    /// The same while a request runs: a connection that carries nothing is left at the first word of its end.
    async fn renew_under_a_request(&self, id: &str) {
        let ends = async {
            let sim = &self.provider.sim;
            eventually("it is in flight", async || (sim.seen(id) == 1).then_some(())).await;
            self.renew().await;
        };
        let request = ask("GET", "/", id).header("sim-delay-ms", "500").body(empty()).expect("a request");
        let (reply, ()) = tokio::join!(self.lab.send(request), ends);
        assert_eq!(reply.status, 200, "{reply:?}");
        // It is over, and its end was looked at.
        eventually("the old connection is buried", async || {
            let list = self.lab.admin_get("/api/v1/connections?state=dead").await.json();
            let carried = self.lab.log_line(id).await["connection"].clone();
            let dead = list["connections"].as_array().expect("a list");
            dead.iter().any(|c| c["id"] == carried).then_some(())
        })
        .await;
    }

    /// What is listed of this field, newest first.
    async fn changes(&self, field: &str) -> Vec<Value> {
        let query = format!("/api/v1/drift?environment={}&field={field}", self.environment);
        self.lab.admin_get(&query).await.json()["changes"].as_array().expect("a list").clone()
    }

    async fn counted(&self, field: &str) -> u64 {
        let labels = [("environment", self.environment), ("field", field)];
        self.lab.metrics().await.count("tsh_provider_drift_total", &labels)
    }

    /// The log's sentences of this field.
    fn logged(&self, field: &str) -> Vec<String> {
        let lines = LINES.lock();
        let ours = lines.iter().filter(|line| line.environment == self.environment && line.field == field);
        ours.map(|line| line.message.clone()).collect()
    }

    /// Waits for the first change of this field and checks that it is told in each place, once.
    async fn told_once(&self, field: &str, severity: &str) -> Value {
        eventually(&format!("{field} is listed, counted and logged"), async || {
            (!self.logged(field).is_empty() && self.counted(field).await > 0).then_some(())
        })
        .await;
        let changes = self.changes(field).await;
        let [change] = changes.as_slice() else { panic!("one change of {field}: {changes:?}") };
        assert_eq!(change["severity"], severity, "{change}");
        assert_eq!((&change["kind"], &change["repeats"]), (&"new".into(), &0.into()), "{change}");
        let sentence = change["sentence"].as_str().expect("a sentence");
        assert_eq!(self.logged(field), [format!("the provider changed: {sentence}")]);
        assert_eq!(self.counted(field).await, 1);
        change.clone()
    }

    /// The same, and another connection to the same provider is no news.
    async fn told_once_for_all(&self, field: &str, severity: &str) -> Value {
        let change = self.told_once(field, severity).await;
        self.renew().await;
        assert_eq!(self.told_once(field, severity).await, change);
        change
    }

    /// Fields that were told of at all.
    fn told(&self) -> Vec<String> {
        let lines = LINES.lock();
        let ours = lines.iter().filter(|line| line.environment == self.environment);
        let mut fields: Vec<_> = ours.map(|line| line.field.clone()).collect();
        fields.sort_unstable();
        fields
    }
}

#[tokio::test]
async fn another_tls_version() {
    let watch = Watch::start("drift-tls").await;
    watch.provider.behave(|b| b.tls = TlsVersions::Tls12Only);
    watch.renew().await;
    let change = watch.told_once_for_all("tls_version", "warning").await;
    assert_eq!(change["sentence"], "tls_version 1.3 -> 1.2");
}

#[tokio::test]
async fn another_key_exchange() {
    let watch = Watch::start("drift-group").await;
    watch.provider.behave(|b| b.key_exchange = KeyExchange::Classical);
    // What a resumed handshake says of its group is not compared.
    watch.provider.sim.forget_sessions().unwrap();
    watch.renew().await;
    let change = watch.told_once("key_exchange", "warning").await;
    assert_eq!((&change["from"], &change["to"]), (&"X25519MLKEM768".into(), &"X25519".into()), "{change}");
    assert_eq!(watch.told(), ["key_exchange"]);
}

#[tokio::test]
async fn another_certificate_of_the_same_authority() {
    let watch = Watch::start("drift-leaf").await;
    watch.provider.sim.rotate_certificate(Rotation::Leaf).unwrap();
    watch.renew().await;
    let change = watch.told_once("leaf", "notice").await;
    assert_ne!(change["from"], change["to"]);
    assert_eq!(watch.told(), ["leaf"], "the issuer is the same");
}

#[tokio::test]
async fn another_authority_that_is_trusted_too() {
    let provider = Provider::start().await;
    let next = Arc::new(provider.pki.replaced().unwrap());
    let anchors = provider.pki.anchors_pem() + &next.anchors_pem();
    let watch =
        Watch::over("drift-issuer", provider, |plan| plan.with(|environment| environment.anchors = anchors))
            .await;
    watch.provider.sim.set_pki(next).unwrap();
    watch.renew().await;
    watch.told_once("issuer", "warning").await;
    watch.told_once("leaf", "notice").await;
    assert_eq!(watch.told(), ["issuer", "leaf"]);
}

#[tokio::test]
async fn another_protocol() {
    let watch = Watch::start("drift-alpn").await;
    watch.provider.behave(|b| b.http = HttpVersions::Http11Only);
    watch.renew().await;
    let change = watch.told_once_for_all("alpn", "warning").await;
    assert_eq!(change["sentence"], "alpn h2 -> http/1.1");
    assert_eq!(watch.told(), ["alpn"]);
}

#[tokio::test]
async fn tickets_that_are_not_sent_any_more() {
    let watch = Watch::start("drift-tickets").await;
    watch.provider.behave(|b| b.tickets = 0);
    // Tickets follow full handshakes only.
    watch.provider.sim.forget_sessions().unwrap();
    watch.renew().await;
    let change = watch.told_once("tickets", "warning").await;
    assert_eq!(change["sentence"], "tickets 2 -> 0");
}

#[tokio::test]
async fn tickets_that_are_not_taken_any_more() {
    let watch = Watch::start("drift-resumption").await;
    watch.renew().await;
    assert!(watch.lab.total(watch.environment, "handshakes_resumed").await > 0);
    watch.provider.behave(|b| b.resumption = Resumption::Refuse);
    watch.renew().await;
    let change = watch.told_once_for_all("resumption", "warning").await;
    assert_eq!(change["sentence"], "resumption accepted -> refused");
    assert_eq!(watch.told(), ["resumption"]);
}

async fn another_address() {
    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let provider = Provider::also_at(&[AWAY], Behaviour::default()).await;
    let names = NameServer::start(&[HOME]).await;
    let connect = format!("{PROVIDER_NAME}:{}", provider.sim.addr().port());
    let servers = format!("[dns]\nservers = [\"{}\"]", names.address());
    let watch = Watch::over("drift-address", provider, |plan| {
        plan.with(|environment| environment.connect = connect).section(&servers)
    })
    .await;
    names.say(&[AWAY]);
    let change = watch.told_once("address", "notice").await;
    assert_eq!(change["sentence"], "address 127.0.0.1 -> 127.0.0.2");
    assert_eq!(watch.told(), ["address"]);
}

#[tokio::test]
async fn another_way_to_say_goodbye() {
    let watch = Watch::start("drift-farewell").await;
    watch.renew_under_a_request("one").await;
    watch.provider.behave(|b| b.goaway_form = GoAwayForm::TwoPhase);
    watch.renew_under_a_request("two").await;
    let change = watch.told_once("farewell", "notice").await;
    assert_eq!(change["sentence"], "farewell goaway -> goaway twice");
    watch.renew_under_a_request("three").await;
    assert_eq!(watch.told_once("farewell", "notice").await, change);
    assert_eq!(watch.told(), ["farewell"]);
}

#[tokio::test]
async fn a_number_of_requests_after_which_connections_end() {
    let watch = Watch::start("drift-requests").await;
    watch.provider.behave(|b| b.goaway_after_requests = Some(20));
    let requests = requests(&watch, |_| 0);
    let change = watch.told_once("enforced_requests", "warning").await;
    requests.abort();
    assert_eq!(change["sentence"], "enforced_requests none -> 20");
    assert_eq!(watch.told(), ["enforced_requests"]);
}

async fn an_age_at_which_connections_end() {
    let age = Some(Duration::from_millis(2200));
    let provider = Provider::with(Behaviour { goaway_after: age, ..Behaviour::default() }).await;
    let watch = Watch::over("drift-age", provider, |plan| plan).await;
    // Connections of one age that carry very different numbers of requests: it is the age that they have in common.
    let requests = requests(&watch, |connection| if connection.is_multiple_of(2) { 100 } else { 10 });
    let change = watch.told_once("enforced_age", "warning").await;
    requests.abort();
    assert_eq!(change["from"], "none");
    assert!(change["to"].as_str().unwrap().starts_with("2."), "{change}");
    assert_eq!(watch.told(), ["enforced_age"]);
}

async fn an_idle_time_after_which_connections_end() {
    let idle = Some(Duration::from_millis(1500));
    let provider = Provider::with(Behaviour { goaway_after_idle: idle, ..Behaviour::default() }).await;
    let watch = Watch::over("drift-idle", provider, |plan| plan).await;
    let change = watch.told_once("enforced_idle", "warning").await;
    assert_eq!(change["from"], "none");
    assert!(change["to"].as_str().unwrap().starts_with("1."), "{change}");
    assert_eq!(watch.told(), ["enforced_idle"]);
}

/// Each of them waits for a clock: side by side.
#[tokio::test]
async fn another_address_and_limits_on_age_and_idleness() {
    tokio::join!(
        another_address(),
        an_age_at_which_connections_end(),
        an_idle_time_after_which_connections_end()
    );
}

/// Requests one after another, until aborted. `delay` says how many milliseconds the provider takes, by the number
/// that it gave to the connection of the request before.
fn requests(watch: &Watch, delay: fn(u64) -> u64) -> JoinHandle<()> {
    let address = watch.lab.egress();
    tokio::spawn(async move {
        let mut caller = Http1::connect(address).await;
        let mut connection = 0;
        for n in 0.. {
            let request = ask("GET", "/", &format!("load-{n}")).header("sim-delay-ms", delay(connection));
            let reply = caller.send(request.body(empty()).expect("a request")).await;
            connection = reply.header("sim-connection").parse().unwrap_or(connection);
            if !caller.is_open().await {
                caller = Http1::connect(address).await;
            }
        }
    })
}
