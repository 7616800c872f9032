//! Foreign programs on both sides: nginx as the provider; curl, h2load and a gRPC client of another language as
//! callers.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, task::JoinSet};
use tsh_tests::{
    EnvironmentPlan, Feed, Http1, Lab, Plan, Provider, Reply,
    caller::ask,
    eventually, full,
    peers::{self, Nginx},
    within,
};

struct Setup {
    nginx: Nginx,
    lab: Lab,
    _folder: tempfile::TempDir,
    _provider: Provider,
}

/// A gateway before nginx.
async fn before_nginx(more: &str) -> Setup {
    let provider = Provider::start().await;
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path(), &provider.pki, &provider.client, more).await;
    let mut environment = EnvironmentPlan::at("sandbox", &provider);
    environment.connect = nginx.address.to_string();
    let lab = Plan::of(environment).ready().await;
    Setup { nginx, lab, _folder: folder, _provider: provider }
}

async fn run(program: &str, arguments: &[&str]) -> String {
    let command = Command::new(peers::find(program).expect("asked for before"))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(program, command).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test]
async fn curl_gets_its_reply_through_nginx_over_both_protocols() {
    if !peers::have("curl_gets_its_reply_through_nginx_over_both_protocols", &["nginx", "curl"]) {
        return;
    }
    let setup = before_nginx("").await;
    let url = format!("http://{}/cards", setup.lab.egress());
    for (version, method, http) in [("--http1.1", "POST", "1.1"), ("--http2-prior-knowledge", "GET", "2")] {
        let id = format!("x-correlation-id: curl{version}");
        let mut arguments = vec![version, "-sS", "-H", &id, "-w", "%{http_code} %{http_version}", &url];
        if method == "POST" {
            // Over HTTP/2 this nginx answers before it has read the body, which curl 7.88 takes for an error, here
            // as with nginx alone.
            arguments.extend(["-d", "{\"a\":1}"]);
        }
        let reply = run("curl", &arguments).await;
        assert!(reply.contains(&format!("nginx {method} curl{version}")), "{reply}");
        assert!(reply.ends_with(&format!("200 {http}")), "{reply}");
    }
    let pool = setup.lab.pool("sandbox").await;
    assert_eq!(pool["connections"][0]["protocol"], "h2", "{pool}");
}

#[tokio::test]
async fn curl_posts_over_both_protocols() {
    if !peers::have("curl_posts_over_both_protocols", &["curl"]) {
        return;
    }
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let url = format!("http://{}/cards", lab.egress());
    for (version, http) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let arguments = [
            version,
            "-sS",
            "-d",
            "{\"a\":1}",
            "-H",
            "sim-respond: sink",
            "-w",
            " %{http_code} %{http_version}",
            &url,
        ];
        assert_eq!(run("curl", &arguments).await, format!("{{\"received\":7}} 200 {http}"));
    }
}

#[tokio::test]
async fn h2load_gets_all_its_replies() {
    if !peers::have("h2load_gets_all_its_replies", &["nginx", "h2load"]) {
        return;
    }
    let setup = before_nginx("").await;
    let url = format!("http://{}/load", setup.lab.egress());
    for version in [&["-n", "600", "-c", "4", "-m", "8"][..], &["--h1", "-n", "600", "-c", "8"]] {
        let report = run("h2load", &[version, &[&url]].concat()).await;
        assert!(report.contains("600 succeeded, 0 failed"), "{report}");
        assert!(report.contains("600 2xx, 0 3xx, 0 4xx, 0 5xx"), "{report}");
    }
}

#[tokio::test]
async fn a_grpc_client_in_python_gets_its_reply() {
    if !peers::have_python_module("a_grpc_client_in_python_gets_its_reply", "grpc") {
        return;
    }
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    // SendRequest{environment="sandbox", method="POST", path="/py", body="hello"}, by hand: no generated code needed.
    let script = format!(
        "import grpc\n\
         def field(n, b): return bytes([n << 3 | 2, len(b)]) + b\n\
         request = field(1, b'sandbox') + field(3, b'POST') + field(4, b'/py') + field(6, b'hello')\n\
         with grpc.insecure_channel('{0}') as channel:\n\
         \x20   send = channel.unary_unary('/tsh.gateway.v1.Egress/Send')\n\
         \x20   reply = send(request, timeout=5)\n\
         \x20   assert b'hello' in reply, reply\n\
         \x20   echo = channel.unary_unary('/bank.Cards/Get')\n\
         \x20   assert echo(b'ping', timeout=5) == b'ping'\n\
         \x20   print('done')\n",
        lab.egress()
    );
    assert_eq!(run("python3", &["-c", &script]).await.trim(), "done");
}

/// POSTs at a fixed rate, spread over keep-alive callers; every reply must be 2xx.
async fn steady(lab: &Lab, per_second: u32, seconds: u32) -> usize {
    let (callers, each) = (30, (per_second * seconds / 30) as usize);
    let gap = Duration::from_secs(1) * 30 / per_second;
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let address = lab.egress();
        tasks.spawn(async move {
            let mut connection = Http1::connect(address).await;
            let mut ticks = tokio::time::interval(gap);
            let mut bad = Vec::new();
            for n in 0..each {
                ticks.tick().await;
                let request =
                    ask("POST", "/steady", &format!("steady-{caller}-{n}")).body(full(vec![b'x'; 1024]));
                let reply = connection.send(request.unwrap()).await;
                if reply.status != 200 {
                    bad.push((reply.status, reply.header("gw-error").to_owned(), n));
                }
            }
            bad
        });
    }
    let bad: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(bad, [], "of {}", callers * each);
    callers * each
}

#[tokio::test]
async fn nginx_that_ends_connections_after_200_requests_loses_none() {
    if !peers::have("nginx_that_ends_connections_after_200_requests_loses_none", &["nginx"]) {
        return;
    }
    let setup = before_nginx("keepalive_requests 200;").await;
    let sent = steady(&setup.lab, 1500, 2).await as u64;
    setup.lab.until_counted("2xx", sent).await;
    let metrics = setup.lab.metrics().await;
    let ended = |cause| metrics.count("tsh_connections_closed_total", &[("cause", cause)]);
    // The first ones meet nginx's limit; their successors are replaced before it.
    let (met, avoided) = (ended("goaway"), ended("learned_limit"));
    assert!(met >= 2 && met + avoided >= 9, "{met} met, {avoided} avoided");
    let pool = setup.lab.pool("sandbox").await;
    assert_eq!(pool["learned"]["limits"]["requests"], 200);
}

#[tokio::test]
async fn nginx_reloaded_under_load_loses_no_request() {
    if !peers::have("nginx_reloaded_under_load_loses_no_request", &["nginx"]) {
        return;
    }
    let setup = before_nginx("").await;
    let reloads = async {
        for n in 1..=4u64 {
            eventually("load", async || {
                (setup.lab.total("sandbox", "requests").await > n * 250).then_some(())
            })
            .await;
            setup.nginx.reload();
            let before = setup.lab.total("sandbox", "connections").await;
            eventually("new connections", async || {
                (setup.lab.total("sandbox", "connections").await > before).then_some(())
            })
            .await;
        }
    };
    tokio::join!(steady(&setup.lab, 600, 3), reloads);
}

#[tokio::test]
async fn nginx_that_refuses_our_certificate_in_http_sees_no_request_served() {
    if !peers::have("nginx_that_refuses_our_certificate_in_http_sees_no_request_served", &["nginx"]) {
        return;
    }
    let (provider, other) = (Provider::start().await, Provider::start().await);
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path(), &provider.pki, &other.client, "").await;
    let lab = Plan::at(&provider).with(|e| e.connect = nginx.address.to_string()).start().await;
    // TLS and PING are fine there; the refusal is nginx's own 400, passed on as it is.
    let reply = lab.get("/").await;
    assert_eq!((reply.status, reply.header("gw-error")), (400, ""), "{reply:?}");
    assert!(String::from_utf8_lossy(&reply.body).contains("SSL certificate error"), "{reply:?}");
}

#[tokio::test]
async fn nginx_that_answers_before_it_has_read_the_body_is_passed_on_whole() {
    if !peers::have("nginx_that_answers_before_it_has_read_the_body_is_passed_on_whole", &["nginx"]) {
        return;
    }
    let setup = before_nginx("").await;
    let (mut http1, mut h2c) = (setup.lab.http1().await, setup.lab.h2c().await);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for n in 0..150 {
        let (id, (feed, body)) = (format!("early-{n}"), Feed::new());
        let request = ask("POST", "/early", &id).body(body).unwrap();
        let pause = Duration::from_micros(random.u64(0..2000));
        let feeding = async move {
            // The body comes before, while or after nginx answers.
            tokio::time::sleep(pause).await;
            feed.send(vec![b'x'; 700]).await;
        };
        let call = async {
            let response = if n % 2 == 0 { h2c.open(request).await } else { http1.open(request).await };
            let response = response.unwrap_or_else(|e| panic!("{id} (seed {seed}): {e:?}"));
            Reply::read(response).await
        };
        let (reply, ()) = within("a reply", async { tokio::join!(call, feeding) }).await;
        assert_eq!((reply.status, &reply.cut), (200, &None), "{id} (seed {seed}): {reply:?}");
        assert_eq!(reply.body, format!("nginx POST {id}\n"), "seed {seed}");
        if !http1.is_open().await {
            http1 = setup.lab.http1().await;
        }
    }
    setup.lab.until_counted("2xx", 150).await;
}
