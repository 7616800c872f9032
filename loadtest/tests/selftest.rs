//! `loadgen` end to end, as its users run it, against a tiny server in this process.
//!
//! The server answers every protocol from memory and loses requests on order; what is tested is that
//! `loadgen` counts what the server saw, and that its exit code tells the truth.

mod server;

use std::{path::Path, process::Output};

use serde_json::Value;
use server::{Behaviour, Server};
use tokio::process::Command;

struct Ran {
    output: Output,
    report: Value,
}

impl Ran {
    fn code(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    fn text(&self) -> String {
        let Output { stdout, stderr, .. } = &self.output;
        format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
    }

    fn count(&self, pointer: &str) -> u64 {
        self.report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }
}

async fn loadgen(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(flags).output().await.unwrap()
}

/// Runs against `server` with a JSON report; no warm-up unless the flags ask for one.
async fn measure(server: &Server, flags: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let target = format!("http://{}/echo?x=1", server.address());
    let fixed = ["--target", &target, "--json", json.to_str().unwrap()];
    let warmup: &[&str] = if flags.contains("--warmup") { &[] } else { &["--warmup", "0s"] };
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let output = loadgen(&[&fixed[..], warmup, &flags[..]].concat()).await;
    let report = read_json(&json);
    let ran = Ran { output, report };
    assert!(!ran.report.is_null(), "no report: {}", ran.text());
    ran
}

fn read_json(file: &Path) -> Value {
    std::fs::read_to_string(file).map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

fn assert_balanced(ran: &Ran) {
    let lost: u64 =
        ran.report["ledger"]["lost"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(ran.count("/ledger/started"), ran.count("/ledger/ok") + lost, "{}", ran.text());
}

const PROTOCOLS: [&str; 3] = [
    "--protocol http1 --connections 8",
    "--protocol h2c --connections 2 --streams 8",
    "--protocol grpc --streams 8",
];

#[tokio::test]
async fn every_request_is_answered_and_seen_once_by_the_server() {
    for protocol in PROTOCOLS {
        for pacing in ["--closed", "--rate 2000", "--closed --threads 2", "--rate 2000 --threads 2"] {
            let server = Server::start(Behaviour::default()).await;
            let ran =
                measure(&server, &format!("{protocol} {pacing} --requests 500 --body-bytes 1KiB")).await;
            assert_eq!(ran.code(), 0, "{protocol} {pacing}: {}", ran.text());
            assert_balanced(&ran);
            assert_eq!(ran.count("/ledger/ok"), 500, "{protocol} {pacing}");
            assert_eq!(ran.count("/statuses/200"), 500);
            assert_eq!(ran.count("/body_bytes_received"), 500 * 1024, "bodies are echoed");
            assert_eq!(server.requests(), 500, "{protocol} {pacing}");
            assert!(ran.count("/latency_us/p50") > 0);
            assert!(ran.text().contains("started 500 = ok 500 + lost 0"), "{}", ran.text());
        }
    }
}

#[tokio::test]
async fn a_lost_request_makes_the_exit_code_1() {
    for protocol in PROTOCOLS {
        let server = Server::start(Behaviour { fail_every: Some(50), ..Behaviour::default() }).await;
        let ran = measure(&server, &format!("{protocol} --closed --requests 200")).await;
        assert_eq!(ran.code(), 1, "{protocol}: {}", ran.text());
        assert_balanced(&ran);
        assert_eq!((ran.count("/ledger/ok"), ran.count("/ledger/lost/status")), (196, 4), "{protocol}");
        assert!(ran.text().contains("gw-error queue_full"), "the cause is named: {}", ran.text());
    }
}

#[tokio::test]
async fn a_reset_or_cut_connection_is_a_loss_and_the_run_goes_on() {
    for protocol in PROTOCOLS {
        let server = Server::start(Behaviour { cut_every: Some(50), ..Behaviour::default() }).await;
        let ran = measure(&server, &format!("{protocol} --closed --requests 200 --timeout 2s")).await;
        assert_eq!(ran.code(), 1, "{protocol}: {}", ran.text());
        assert_balanced(&ran);
        let kind = if protocol.contains("http1") { "closed" } else { "reset" };
        assert_eq!(ran.count(&format!("/ledger/lost/{kind}")), 4, "{protocol}: {}", ran.text());
        assert_eq!(ran.count("/ledger/ok"), 196, "{protocol}");
    }
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout_and_no_more() {
    for protocol in PROTOCOLS {
        let server = Server::start(Behaviour { hang_every: Some(10), ..Behaviour::default() }).await;
        let ran = measure(&server, &format!("{protocol} --rate 1000 --requests 100 --timeout 300ms")).await;
        assert_eq!(ran.code(), 1, "{protocol}: {}", ran.text());
        assert_balanced(&ran);
        assert!(ran.count("/ledger/lost/timeout") >= 10, "{protocol}: {}", ran.text());
    }
}

#[tokio::test]
async fn a_grpc_status_other_than_0_is_a_loss() {
    let server = Server::start(Behaviour { grpc_status: "14", ..Behaviour::default() }).await;
    let ran = measure(&server, "--protocol grpc --streams 4 --closed --requests 20").await;
    assert_eq!((ran.code(), ran.count("/ledger/lost/grpc_status")), (1, 20), "{}", ran.text());
}

#[tokio::test]
async fn a_server_that_ends_connections_between_requests_loses_none() {
    let server = Server::start(Behaviour { close_after: Some(20), ..Behaviour::default() }).await;
    let ran = measure(&server, "--protocol http1 --connections 4 --closed --requests 400").await;
    assert_eq!(ran.code(), 0, "{}", ran.text());
    assert!(ran.count("/reconnects") >= 16, "{}", ran.text());
    assert_eq!(server.requests(), 400);
}

#[tokio::test]
async fn latency_shows_a_stall_in_every_request_it_delayed() {
    let server = Server::start(Behaviour { stall_once_ms: 200, ..Behaviour::default() }).await;
    let ran = measure(&server, "--protocol http1 --connections 1 --rate 500 --requests 400").await;
    assert_eq!(ran.code(), 0, "{}", ran.text());
    // One caller, 200 ms silent at 500/s: about 100 of 400 requests should have started meanwhile. A closed
    // loop would report one slow request and a p90 of microseconds.
    assert!(ran.count("/latency_us/p90") > 50_000, "{}", ran.text());
}

#[tokio::test]
async fn correlation_ids_are_unique_and_their_prefix_is_reported() {
    for protocol in PROTOCOLS {
        let server = Server::start(Behaviour::default()).await;
        let flags = format!("{protocol} --closed --requests 300 --correlation --threads 2 --seed 7");
        let ran = measure(&server, &flags).await;
        assert_eq!(ran.code(), 0, "{protocol}: {}", ran.text());
        let ids = server.correlation_ids();
        assert_eq!(ids.len(), 300, "{protocol}: each request has its own");
        assert!(ids.iter().all(|id| id.starts_with("lg-0000000000000007-")), "{protocol}");
        assert!(ran.text().contains("lg-0000000000000007"), "{}", ran.text());
    }
}

#[tokio::test]
async fn the_warmup_is_booked_apart_but_its_losses_fail_the_run() {
    let server = Server::start(Behaviour { fail_every: Some(100_000), ..Behaviour::default() }).await;
    let flags = "--protocol h2c --streams 8 --rate 1000 --warmup 100ms --duration 300ms";
    let ran = measure(&server, flags).await;
    assert_eq!((ran.count("/warmup/started"), ran.count("/ledger/started")), (100, 300), "{}", ran.text());
    assert_eq!(ran.code(), 0);

    let server = Server::start(Behaviour { fail_first: true, ..Behaviour::default() }).await;
    let ran = measure(&server, flags).await;
    assert_eq!((ran.code(), ran.count("/ledger/ok")), (1, 300), "{}", ran.text());
}

#[tokio::test]
async fn a_streamed_body_goes_up_and_comes_down_whole() {
    for protocol in ["http1", "h2c"] {
        let server = Server::start(Behaviour::default()).await;
        let flags = format!("--protocol {protocol} --upload-bytes 64MiB --expect-body-bytes 64MiB");
        let ran = measure(&server, &flags).await;
        assert_eq!(ran.code(), 0, "{protocol}: {}", ran.text());
        assert_eq!(ran.count("/body_bytes_received"), 64 << 20);
        let peak = ran.count("/generator/rss_peak_bytes");
        assert!(peak < 64 << 20, "{protocol}: the generator buffers the body: {peak} bytes");

        let flags = format!("--protocol {protocol} --upload-bytes 1MiB --expect-body-bytes 2MiB");
        let ran = measure(&server, &flags).await;
        assert_eq!((ran.code(), ran.count("/ledger/lost/body")), (1, 1), "{}", ran.text());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_cpu_of_a_watched_process_is_reported_per_request() {
    let server = Server::start(Behaviour::default()).await;
    let flags = format!("--protocol h2c --streams 8 --closed --requests 2000 --pid {}", std::process::id());
    let ran = measure(&server, &flags).await;
    assert_eq!(ran.code(), 0, "{}", ran.text());
    let process = &ran.report["process"];
    assert!(process["cpu_us_per_request"].as_f64().unwrap() > 1.0, "{process}");
    assert!(process["rss_peak_bytes"].as_u64().unwrap() > 1 << 20, "{process}");
}

#[tokio::test]
async fn nobody_listening_is_told_before_the_clock_starts() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for protocol in ["http1", "h2c"] {
        let target = format!("http://127.0.0.1:{port}/");
        let output = loadgen(&["--target", &target, "--protocol", protocol, "--closed"]).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("cannot connect") && text.contains("listening"), "{text}");
    }
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    for flags in [
        &["--target", "http://127.0.0.1:1/"][..],
        &["--target", "https://127.0.0.1:1/", "--closed"],
        &["--target", "http://127.0.0.1:1/", "--rate", "x"],
        &["--target", "http://127.0.0.1:1/", "--closed", "--pid", "4000000000"],
        &["--no-such-flag"],
        &["table"],
        &[],
    ] {
        let output = loadgen(flags).await;
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let help = loadgen(&["--help"]).await;
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
}

#[tokio::test]
async fn the_table_joins_runs_and_fails_on_a_loss_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour::default()).await;
    let target = format!("http://{}/", server.address());
    for (file, expected) in [("1.json", "2xx"), ("2.json", "2xx"), ("3.json", "404")] {
        let json = folder.path().join(file);
        let (json, scenario) = (json.to_str().unwrap(), if expected == "404" { "bad" } else { "good" });
        let flags = ["--target", &target, "--closed", "--requests", "10", "--warmup", "0s", "--quiet"];
        loadgen(
            &[&flags[..], &["--json", json, "--scenario", scenario, "--expect-status", expected]].concat(),
        )
        .await;
    }
    let output = loadgen(&["table", folder.path().to_str().unwrap()]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let row = |scenario: &str| text.lines().find(|line| line.starts_with(scenario)).unwrap().to_owned();
    assert_eq!(row("good").split_whitespace().nth(2), Some("2"), "{text}");
    assert_eq!(row("bad").split_whitespace().nth(8), Some("10"), "{text}");
    std::fs::remove_file(folder.path().join("3.json")).unwrap();
    let output = loadgen(&["table", folder.path().to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(0));
}
