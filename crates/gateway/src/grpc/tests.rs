//! Tests of the gRPC API: the generated client against the routes that listeners serve.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request as HttpRequest, Response as HttpResponse};
use parking_lot::Mutex;
use pool::{ConnectionId, Journey, RetrySafe};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{
    error::{ErrorInfo, RpcStatus},
    proto::{egress_client::EgressClient, pools_client::PoolsClient, send_request::Target as Wanted},
    *,
};
use crate::{
    admin::Readiness,
    egress::{Callers, Peer},
    outcome::ErrorCode,
    telemetry::{
        Metrics, Recorder, RecorderOptions, Requirement,
        testing::{FakeView, Seen, catalog},
    },
};

const WITHIN: Duration = Duration::from_secs(10);

/// What the stand-in for the egress path does with a call.
#[derive(Clone, Default)]
enum Act {
    #[default]
    Echo,
    Fail(ErrorCode, RetrySafe),
    Hang,
    Large(usize),
}

/// What reached the core: target, method, URI, headers, time left.
type SeenCall = (Target, Method, String, http::HeaderMap, Option<Duration>);

#[derive(Default)]
struct FakeCore {
    act: Mutex<Act>,
    seen: Mutex<Vec<SeenCall>>,
    placing: Mutex<Option<Target>>,
}

#[tonic::async_trait]
impl EgressCore for FakeCore {
    fn place(&self, target: &Target, request: &HttpRequest<Bytes>) -> Result<Placed, Box<Failure>> {
        *self.placing.lock() = Some(target.clone());
        match target {
            Target::Environment(name) if name != "sandbox" => {
                Err(Failure::before_send(ErrorCode::UnknownEnvironment, format!("no environment {name}")))
            }
            Target::Environment(_) => Ok(Placed { route: None, environment: 0 }),
            Target::Route(_) | Target::Matched if request.uri().path().starts_with("/nowhere") => {
                Err(Failure::before_send(ErrorCode::NoRoute, "nothing matches"))
            }
            Target::Route(_) | Target::Matched => Ok(Placed { route: Some(0), environment: 0 }),
        }
    }

    async fn execute(&self, call: Call) -> Result<Executed, Box<Failure>> {
        let request = &call.request;
        let target = self.placing.lock().clone().expect("placed before it is executed");
        let headers = request.headers().clone();
        self.seen.lock().push((
            target,
            request.method().clone(),
            request.uri().to_string(),
            headers,
            call.timeout,
        ));
        let journey = Journey {
            connection: Some(ConnectionId(9)),
            generation: 2,
            reused: true,
            attempts: 1,
            ttfb: Duration::from_micros(750),
            ..Journey::default()
        };
        let act = self.act.lock().clone();
        let body = match act {
            Act::Fail(code, retry_safe) => {
                return Err(Box::new(Failure {
                    code,
                    retry_safe,
                    retry_after: None,
                    message: "as told".to_owned(),
                    journey,
                }));
            }
            Act::Hang => std::future::pending().await,
            Act::Echo => call.request.into_body(),
            Act::Large(size) => Bytes::from(vec![b'x'; size]),
        };
        let response = HttpResponse::builder().status(201).header("x-reply", "yes").body(body);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        Ok(Executed { response: response.expect("a response"), trailers: Some(trailers), journey })
    }
}

struct Fixture {
    core: Arc<FakeCore>,
    recorder: Recorder,
    lines: Seen,
    routes: Router,
    view: Arc<FakeView>,
    readiness: Arc<Readiness>,
    health: Health,
}

async fn fixture() -> Fixture {
    let core = Arc::new(FakeCore::default());
    let lines = Seen::default();
    let sink = Box::new(lines.clone());
    let recorder =
        Recorder::start_on(Some(sink), &RecorderOptions::default(), Metrics::new(catalog())).unwrap();
    let view = FakeView::new("sandbox", Requirement::Required);
    let readiness = Readiness::new([view.clone() as Arc<dyn PoolView>]);
    let health = Health::new(&readiness).await;
    let limits = GrpcLimits { message_bytes: 64 * 1024, ..GrpcLimits::default() };
    let routes = egress_routes(core.clone(), recorder.handle(0), &health, limits);
    Fixture { core, recorder, lines, routes, view, readiness, health }
}

impl Fixture {
    fn client(&self) -> EgressClient<Router> {
        EgressClient::new(self.routes.clone())
    }

    /// The access log so far.
    fn log(&self) -> Vec<serde_json::Value> {
        assert!(self.recorder.flusher().flush_log(WITHIN));
        self.lines.json()
    }
}

fn post(target: Option<Wanted>, path: &str) -> proto::SendRequest {
    proto::SendRequest {
        target,
        method: "POST".to_owned(),
        path: path.to_owned(),
        headers: vec![proto::Header {
            name: "X-A".to_owned(),
            value: "1".to_owned(),
            raw_value: Bytes::new(),
        }],
        body: Bytes::from_static(b"hello"),
    }
}

/// The code in metadata and details; they must agree.
fn code_of(status: &tonic::Status) -> String {
    let details = RpcStatus::decode(status.details()).expect("details");
    let info = ErrorInfo::decode(details.details[0].value.as_slice()).expect("an ErrorInfo");
    assert_eq!(status.metadata().get("gw-error").unwrap(), info.reason.as_str());
    info.reason
}

#[tokio::test]
async fn a_call_becomes_a_request_and_its_response_a_message() {
    let fixture = fixture().await;
    let mut request = Request::new(post(Some(Wanted::Environment("sandbox".to_owned())), "/cards?x=1"));
    request.set_timeout(Duration::from_secs(3));
    request.metadata_mut().insert("x-correlation-id", "abc".parse().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], 5));
    let share = Callers::default().of(Peer::Tcp(address));
    request.extensions_mut().insert(CallerIdentity { address: Some(address), share });
    let response = fixture.client().send(request).await.unwrap();
    assert_eq!(response.metadata().get("x-correlation-id").unwrap(), "abc");
    let message = response.into_inner();
    assert_eq!(
        (message.status, &message.body[..], message.correlation_id.as_str()),
        (201, &b"hello"[..], "abc")
    );
    assert_eq!(message.headers[0].name, "x-reply");
    assert_eq!((message.trailers[0].name.as_str(), message.trailers[0].value.as_str()), ("x-sum", "42"));
    let journey = message.journey.unwrap();
    assert_eq!((journey.connection_id, journey.reused, journey.ttfb_micros), (9, true, 750));

    let (target, method, uri, headers, timeout) = fixture.core.seen.lock().remove(0);
    assert_eq!(
        (target, method, uri.as_str()),
        (Target::Environment("sandbox".to_owned()), Method::POST, "/cards?x=1")
    );
    assert_eq!((headers["x-a"].as_bytes(), headers["x-correlation-id"].as_bytes()), (&b"1"[..], &b"abc"[..]));
    assert_eq!(timeout, Some(Duration::from_secs(3)));

    let log = fixture.log();
    assert_eq!(log.len(), 1, "one request, one line");
    let words = ["path", "protocol", "environment", "route", "correlation_id", "outcome", "ended"];
    let words = words.map(|key| log[0][key].as_str().unwrap().to_owned());
    assert_eq!(words, ["/cards", "grpc", "sandbox", "", "abc", "ok", "complete"]);
    assert_eq!(
        (&log[0]["status"], &log[0]["bytes_in"], &log[0]["bytes_out"]),
        (&201.into(), &5.into(), &5.into())
    );
    assert_eq!((&log[0]["connection"], &log[0]["peer"]), (&9.into(), &"127.0.0.1:5".into()));
}

#[tokio::test]
async fn a_call_without_a_target_goes_by_the_routes_and_gets_a_correlation_id() {
    let fixture = fixture().await;
    let message = fixture.client().send(post(None, "/cards")).await.unwrap().into_inner();
    assert_eq!(message.correlation_id.len(), 32);
    let (target, _, _, headers, timeout) = fixture.core.seen.lock().remove(0);
    assert_eq!((target, timeout), (Target::Matched, None));
    assert_eq!(headers["x-correlation-id"].as_bytes(), message.correlation_id.as_bytes());
    assert_eq!(fixture.log()[0]["route"], "cards");
}

#[tokio::test]
async fn a_correlation_id_in_the_message_goes_before_one_in_the_metadata() {
    let fixture = fixture().await;
    let mut message = post(None, "/cards");
    let value = "inner".to_owned();
    message.headers.push(proto::Header {
        name: "x-correlation-id".to_owned(),
        value,
        raw_value: Bytes::new(),
    });
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-correlation-id", "outer".parse().unwrap());
    assert_eq!(fixture.client().send(request).await.unwrap().into_inner().correlation_id, "inner");
}

#[tokio::test]
async fn a_failure_has_one_code_in_status_details_metadata_and_log() {
    let fixture = fixture().await;
    *fixture.core.act.lock() = Act::Fail(ErrorCode::ProviderReset, RetrySafe::Unknown);
    let status = fixture.client().send(post(None, "/cards")).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status).as_str()), (Code::Unavailable, "provider_reset"));
    assert_eq!(status.metadata().get("gw-retry-safe").unwrap(), "unknown");
    assert!(status.metadata().contains_key("x-correlation-id"));
    assert!(status.message().contains("as told"), "{}", status.message());
    let log = fixture.log();
    assert_eq!((&log[0]["outcome"], &log[0]["retry_safe"]), (&"provider_reset".into(), &"unknown".into()));
    assert_eq!((&log[0]["status"], &log[0]["connection"]), (&502.into(), &9.into()));
}

#[tokio::test]
async fn what_is_wrong_with_a_call_by_itself_never_reaches_the_pool() {
    let fixture = fixture().await;
    let unknown = post(Some(Wanted::Environment("staging".to_owned())), "/");
    let no_header = proto::SendRequest {
        headers: vec![proto::Header {
            name: ":path".to_owned(),
            value: "/".to_owned(),
            raw_value: Bytes::new(),
        }],
        ..post(None, "/")
    };
    for (message, code) in [
        (post(None, "no-slash"), "bad_request"),
        (no_header, "bad_request"),
        (post(None, "/nowhere"), "no_route"),
        (unknown, "unknown_environment"),
    ] {
        let status = fixture.client().send(message).await.unwrap_err();
        assert_eq!(code_of(&status), code);
        assert_eq!(status.metadata().get("gw-retry-safe").unwrap(), "no");
    }
    assert!(fixture.core.seen.lock().is_empty());
    let outcomes: Vec<_> =
        fixture.log().iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes, ["bad_request", "bad_request", "no_route", "unknown_environment"]);
}

#[tokio::test]
async fn deadlines_that_are_wrong_or_over_are_told_apart() {
    let fixture = fixture().await;
    for (timeout, code) in [("soon", "bad_request"), ("0m", "deadline_exceeded")] {
        let mut request = Request::new(post(None, "/"));
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        assert_eq!(code_of(&fixture.client().send(request).await.unwrap_err()), code);
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_with_our_code_and_recorded() {
    let fixture = fixture().await;
    let mut message = post(None, "/");
    message.body = Bytes::from(vec![0; 65 * 1024]);
    let status = fixture.client().send(message).await.unwrap_err();
    assert_eq!(code_of(&status), "body_too_large");
    assert_eq!(fixture.log()[0]["outcome"], "body_too_large");
}

#[tokio::test]
async fn what_is_not_grpc_on_a_reserved_path_gets_a_problem_document_and_a_record() {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let fixture = fixture().await;
    let plain = HttpRequest::post("/tsh.gateway.v1.Egress/Send").header(CONTENT_TYPE, "application/json");
    let old = HttpRequest::post("/tsh.gateway.v1.Egress/Send").header(CONTENT_TYPE, "application/grpc");
    for request in [plain.version(http::Version::HTTP_2), old.version(http::Version::HTTP_11)] {
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = fixture.routes.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(
            (&response.headers()["gw-error"], &response.headers()["gw-retry-safe"]),
            (&"bad_request".parse().unwrap(), &"no".parse().unwrap())
        );
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"bad_request".into(), &400.into()));
        assert!(problem["detail"].as_str().unwrap().contains("gRPC"), "{problem}");
    }
    assert_eq!(fixture.log().len(), 2);
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    use tower::ServiceExt;
    let fixture = fixture().await;
    let request = HttpRequest::post("/tsh.gateway.v1.Egress/Exchange").version(http::Version::HTTP_2);
    let request = request.header(CONTENT_TYPE, "application/grpc").body(axum::body::Body::empty()).unwrap();
    let response = fixture.routes.clone().oneshot(request).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!((status.code(), code_of(&status).as_str()), (Code::Unimplemented, "method_not_allowed"));
}

#[tokio::test]
async fn a_response_that_makes_too_large_a_message_is_an_error_and_not_a_cut() {
    let fixture = fixture().await;
    *fixture.core.act.lock() = Act::Large(64 * 1024);
    let status = fixture.client().send(post(None, "/")).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status).as_str()), (Code::ResourceExhausted, "response_too_large"));
    assert_eq!(status.metadata().get("gw-retry-safe").unwrap(), "no");
    *fixture.core.act.lock() = Act::Large(63 * 1024);
    assert!(fixture.client().send(post(None, "/")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_one_record() {
    let fixture = fixture().await;
    *fixture.core.act.lock() = Act::Hang;
    let mut client = fixture.client();
    let call = client.send(post(None, "/cards"));
    assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
    let log = fixture.log();
    assert_eq!(log.len(), 1);
    assert_eq!((&log[0]["outcome"], &log[0]["ended"]), (&"caller_gone".into(), &"caller_gone".into()));
    assert_eq!((&log[0]["environment"], &log[0]["path"]), (&"sandbox".into(), &"/cards".into()));
}

#[tokio::test]
async fn pools_are_not_served_where_callers_are() {
    let fixture = fixture().await;
    let mut client = PoolsClient::new(fixture.routes.clone());
    let status = client.list(proto::ListPoolsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_admin_listener_lists_pools() {
    let fixture = fixture().await;
    fixture.view.serve();
    let pools: Arc<[Arc<dyn PoolView>]> = Arc::new([fixture.view.clone() as Arc<dyn PoolView>]);
    let routes = admin_routes(pools, &fixture.health);
    let list =
        PoolsClient::new(routes.clone()).list(proto::ListPoolsRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.pools.len(), list.pools[0].connections.len()), (1, 2));
    let unknown = proto::ListPoolsRequest { environment: "staging".to_owned() };
    assert_eq!(PoolsClient::new(routes).list(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn health_follows_each_environment_and_the_gateway() {
    let fixture = fixture().await;
    let status = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        HealthClient::new(fixture.routes.clone())
            .check(request)
            .await
            .map(|r| r.into_inner().status().as_str_name())
    };
    assert_eq!(status("").await.unwrap(), "NOT_SERVING", "not before the floor was met");
    let stop = CancellationToken::new();
    let task = tokio::spawn(fixture.health.clone().run(fixture.readiness.clone(), stop.clone()));

    fixture.view.serve();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((status("").await.unwrap(), status("sandbox").await.unwrap()), ("SERVING", "SERVING"));
    fixture.view.fail("connection_refused");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((status("").await.unwrap(), status("sandbox").await.unwrap()), ("SERVING", "NOT_SERVING"));
    assert_eq!(status("staging").await.unwrap_err().code(), Code::NotFound);

    stop.cancel();
    task.await.unwrap();
    assert_eq!(status("").await.unwrap(), "NOT_SERVING", "a stop says so at once");
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_nothing_else() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let fixture = fixture().await;
    let admin = admin_routes(Arc::new([]), &fixture.health);
    for (routes, ours) in [(fixture.routes.clone(), "tsh.gateway.v1.Egress"), (admin, "tsh.gateway.v1.Pools")]
    {
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut answers = ServerReflectionClient::new(routes)
            .server_reflection_info(tokio_stream::once(list))
            .await
            .unwrap()
            .into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(services) = answer else { panic!("{answer:?}") };
        let mut names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
        names.sort();
        let expected = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", ours];
        assert_eq!(names, expected);
    }
}

#[test]
fn reserved_paths_are_those_of_our_services_and_grpcs_own() {
    for path in ["/tsh.gateway.v1.Egress/Send", "/tsh.gateway.v1.Pools/List", "/grpc.health.v1.Health/Check"]
    {
        assert!(is_reserved(path), "{path}");
    }
    for path in ["/", "/tsh.gateway", "/grpc", "/v1/grpc.health.v1.Health/Check"] {
        assert!(!is_reserved(path), "{path}");
    }
}

#[test]
fn grpc_is_known_by_its_content_type() {
    let headers =
        |value: &'static str| http::HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
    for value in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
        assert!(is_grpc(&headers(value)), "{value}");
    }
    for value in ["application/json", "application/grpc-web", "text/plain"] {
        assert!(!is_grpc(&headers(value)), "{value}");
    }
    assert!(!is_grpc(&http::HeaderMap::new()));
}
