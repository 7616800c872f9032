//! A gateway whose drift log is watched in all three places: the list, the counter, the diagnostic lines.

use std::{fmt, sync::Once};

use parking_lot::Mutex;
use serde_json::Value;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tsh_tests::{EnvironmentPlan, Lab, Plan, Provider, caller::ask, empty, eventually};

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
pub(super) struct Watch {
    pub(super) provider: Provider,
    pub(super) lab: Lab,
    pub(super) environment: &'static str,
}

impl Watch {
    /// One connection at a time, so that changes come one after another.
    pub(super) async fn over(
        environment: &'static str,
        provider: Provider,
        edit: impl FnOnce(Plan) -> Plan,
    ) -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Keep).expect("the only one"));
        let plan = EnvironmentPlan::at(environment, &provider);
        let plan = Plan::of(plan.pool("min_connections = 1\nmax_connections = 1"));
        let lab = edit(plan).ready().await;
        Self { provider, lab, environment }
    }

    pub(super) async fn start(environment: &'static str) -> Self {
        Self::over(environment, Provider::start().await, |plan| plan).await
    }

    /// Ends all connections, so that others are made.
    pub(super) async fn renew(&self) {
        let before = self.lab.total(self.environment, "connections").await;
        self.provider.sim.goaway_all();
        eventually("another connection serves", async || {
            let later = self.lab.total(self.environment, "connections").await > before;
            (later && self.lab.connections(self.environment, "serving").await > 0).then_some(())
        })
        .await;
    }

    /// The same while a request runs: a connection that carries nothing is left at the first word of its end.
    pub(super) async fn renew_under_a_request(&self, id: &str) {
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
    pub(super) async fn told_once(&self, field: &str, severity: &str) -> Value {
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
    pub(super) async fn told_once_for_all(&self, field: &str, severity: &str) -> Value {
        let change = self.told_once(field, severity).await;
        self.renew().await;
        assert_eq!(self.told_once(field, severity).await, change);
        change
    }

    /// Fields that were told of at all.
    pub(super) fn told(&self) -> Vec<String> {
        let lines = LINES.lock();
        let ours = lines.iter().filter(|line| line.environment == self.environment);
        let mut fields: Vec<_> = ours.map(|line| line.field.clone()).collect();
        fields.sort_unstable();
        fields
    }
}
