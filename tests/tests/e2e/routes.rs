//! Which request goes where.

use http::Request;
use tsh_tests::{EnvironmentPlan, Lab, Plan, Provider, caller::ask, empty};

const ROUTES: &str = r#"
[[routes]]
name = "strip"
path_prefix = "/mg"
strip_prefix = true
environment = "a"
[[routes]]
name = "host"
host = "b.bank"
environment = "b"
[[routes]]
name = "header"
header = { "x-pod" = "b", "x-any" = "*" }
environment = "b"
[[routes]]
name = "method"
method = ["DELETE", "PUT"]
environment = "b"
[[routes]]
name = "quick"
path_prefix = "/quick"
timeout_ms = 150
environment = "a"
[[routes]]
name = "rest"
path_prefix = "/a"
environment = "a"
"#;

async fn lab(provider: &Provider) -> Lab {
    let mut a = EnvironmentPlan::at("a", provider);
    a.endpoint = "https://tsh.test/base-a".into();
    let mut b = EnvironmentPlan::at("b", provider);
    b.endpoint = "https://tsh.test/base-b".into();
    Plan::of(a).and(b).routes(ROUTES).ready().await
}

#[tokio::test]
async fn path_host_header_and_method_choose_the_route() {
    let provider = Provider::start().await;
    let lab = lab(&provider).await;
    let at = |host: &str, path: &str| Request::builder().uri(format!("http://{host}{path}"));
    let cases = [
        ("strip", at("x", "/mg/cards?x=1"), "/base-a/cards?x=1"),
        ("strip", at("x", "/mg"), "/base-a/"),
        ("host", at("B.Bank:8080", "/any"), "/base-b/any"),
        ("header", at("x", "/z").header("x-pod", "b").header("x-any", "1"), "/base-b/z"),
        ("method", at("x", "/z").method("PUT"), "/base-b/z"),
        ("rest", at("x", "/a/b"), "/base-a/a/b"),
    ];
    for (n, (route, request, path)) in cases.into_iter().enumerate() {
        let id = format!("route-{n}");
        let request = request.header("x-correlation-id", &id).header("sim-respond", "describe");
        let reply = lab.send(request.body(empty()).unwrap()).await;
        assert_eq!(reply.json()["path"], path, "{route}");
        assert_eq!(lab.log_line(&id).await["route"], route);
    }
    for path in ["/mgx", "/ab", "/"] {
        assert_eq!(lab.get(path).await.header("gw-error"), "no_route", "{path}");
    }
}

#[tokio::test]
async fn a_route_has_its_own_time_out() {
    let provider = Provider::start().await;
    let lab = lab(&provider).await;
    let slow = ask("GET", "/quick/x", "quick-1").header("sim-delay-ms", "5000").body(empty()).unwrap();
    let reply = lab.fails(slow, "response_timeout", "unknown").await;
    assert!(reply.json()["detail"].as_str().unwrap().contains("150ms"), "{reply:?}");
    let same = ask("GET", "/a/x", "slow-1").header("sim-delay-ms", "300").body(empty()).unwrap();
    assert_eq!(lab.send(same).await.status, 200);
}

#[tokio::test]
async fn paths_pass_byte_for_byte() {
    let provider = Provider::start().await;
    let lab = lab(&provider).await;
    for path in ["/a/%41%20b//c;v=1/%2F?q=%7B&r", "/a/.well-known/x", "/a/...", "/a/%E2%82%AC"] {
        let request = ask("GET", path, &lab.id()).header("sim-respond", "describe").body(empty()).unwrap();
        assert_eq!(lab.send(request).await.json()["path"], format!("/base-a{path}"));
    }
}
