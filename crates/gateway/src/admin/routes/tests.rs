//! Tests of the admin endpoints.

use axum::body::Body;
use http_body_util::BodyExt;
use pool::Obituaries;
use tower::ServiceExt;

use super::*;
use crate::{
    admin::Readiness,
    grpc::Health,
    outcome::ErrorCode,
    telemetry::{
        Metrics, PoolView, Quarantined, Recorder, RecorderOptions, Requirement,
        record::tests::delivered,
        testing::{FakeView, catalog, value},
    },
};

pub(crate) struct Fixture {
    app: Router,
    pub(crate) sandbox: Arc<FakeView>,
    production: Arc<FakeView>,
    recorder: Recorder,
    pub(crate) obituaries: Arc<Obituaries>,
}

pub(crate) async fn fixture() -> Fixture {
    let sandbox = FakeView::new("sandbox", Requirement::Required);
    let production = FakeView::new("production", Requirement::Optional);
    let recorder = Recorder::start_on(None, &RecorderOptions::default(), Metrics::new(catalog())).unwrap();
    let views: [Arc<dyn PoolView>; 2] = [sandbox.clone(), production.clone()];
    let readiness = Readiness::new(views.clone());
    let health = Health::new(&readiness).await;
    let obituaries = Obituaries::new(Arc::new(tls_core::SystemClock));
    let state = AdminState {
        telemetry: recorder.flusher(),
        pools: views.into(),
        obituaries: obituaries.clone(),
        readiness,
        health,
    };
    Fixture { app: router(state, HostCheck::LoopbackOnly), sandbox, production, recorder, obituaries }
}

impl Fixture {
    pub(crate) async fn get(&self, target: &str) -> (StatusCode, String) {
        self.ask(target, "127.0.0.1:9901").await
    }

    async fn ask(&self, target: &str, host: &str) -> (StatusCode, String) {
        let request = Request::builder().uri(target).header("host", host).body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn json(&self, target: &str) -> (StatusCode, serde_json::Value) {
        let (status, text) = self.get(target).await;
        (status, serde_json::from_str(&text).expect("JSON"))
    }
}

#[tokio::test]
async fn the_index_lists_every_endpoint_and_each_answers() {
    let fixture = fixture().await;
    let (_, index) = fixture.get("/").await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/pools", "/api/v1/connections", "/api/v1/drift"] {
        assert!(index.contains(path), "{path}");
        assert_ne!(fixture.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(fixture.get("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(fixture.get("/nonsense").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn readyz_is_503_with_reasons_until_the_floor_was_met() {
    let fixture = fixture().await;
    let (status, answer) = fixture.json("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&answer["ready"], &answer["reasons"][0]["environment"]), (&false.into(), &"sandbox".into()));
    fixture.sandbox.serve();
    let (status, answer) = fixture.json("/readyz").await;
    assert_eq!((status, &answer["ready"]), (StatusCode::OK, &true.into()));
    assert_eq!(fixture.json("/readyz?environment=production").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, problem) = fixture.json("/readyz?environment=staging").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(problem["message"].as_str().unwrap().contains("sandbox, production"), "{problem}");
}

#[tokio::test]
async fn a_scrape_sees_requests_that_ended_just_before() {
    let fixture = fixture().await;
    fixture.recorder.handle(0).record(&delivered(&http::Method::GET, "/"));
    let (status, text) = fixture.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let series = r#"tsh_requests_total{environment="sandbox",route="cards",outcome="2xx"}"#;
    assert_eq!(value(&text, series), Some(1.0));
}

#[tokio::test]
async fn pools_are_listed_as_json_with_units_in_the_names() {
    let fixture = fixture().await;
    fixture.sandbox.serve();
    fixture
        .production
        .quarantine(Quarantined { code: ErrorCode::CertificateExpired, message: "renew it".to_owned() });
    let (status, list) = fixture.json("/api/v1/pools").await;
    assert_eq!(status, StatusCode::OK);
    let (sandbox, production) = (&list["pools"][0], &list["pools"][1]);
    assert_eq!(sandbox["environment"], "sandbox");
    assert_eq!((&sandbox["required"], &sandbox["floor_met"]), (&true.into(), &true.into()));
    let connection = &sandbox["connections"][0];
    assert_eq!((&connection["state"], &connection["age_millis"]), (&"serving".into(), &1500.into()));
    assert_eq!(connection["ping_rtt_micros"], 250);
    assert_eq!(connection["handshake"]["key_exchange"], "X25519MLKEM768");
    assert_eq!(connection["handshake"]["peer_not_after"], "2033-05-18T03:33:20Z");
    assert_eq!(production["quarantine"]["code"], "certificate_expired");

    let (_, one) = fixture.json("/api/v1/pools?environment=production").await;
    assert_eq!(one["pools"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.json("/api/v1/pools?environment=staging").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_page_on_another_name_reads_nothing() {
    let fixture = fixture().await;
    for path in [
        "/",
        "/metrics",
        "/api/v1/pools",
        "/api/v1/connections",
        "/api/v1/drift",
        "/nonsense",
        "/tsh.gateway.v1.Pools/List",
    ] {
        assert_eq!(
            fixture.ask(path, "rebound.example:9901").await.0,
            StatusCode::MISDIRECTED_REQUEST,
            "{path}"
        );
    }
}
