//! The command line of the simulator, and the configuration that it prints.

use clap::Parser as _;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::*;
use crate::{
    cli::{Cli, Command},
    config,
};

fn parse(arguments: &[&str]) -> Result<SimArgs, clap::Error> {
    let all = ["tsh-gateway", "sim"].into_iter().chain(arguments.iter().copied());
    Cli::try_parse_from(all).map(|cli| match cli.command {
        Command::Sim(args) => args,
        other => panic!("parsed as {other:?}"),
    })
}

#[test]
fn flags_become_behaviour() {
    let args = parse(&[
        "--out=x",
        "--goaway-after-requests=200",
        "--goaway-after-ms=1500",
        "--goaway-form=behind:3",
        "--latency-ms=40",
        "--max-concurrent-streams=0",
        "--tickets=0",
        "--http=http/1.1",
        "--tls=1.2",
        "--respond=fixed:503:10",
        "--client-auth=refuse-late",
    ])
    .unwrap();
    let expected = Behaviour {
        goaway_after_requests: Some(200),
        goaway_after: Some(std::time::Duration::from_millis(1500)),
        goaway_form: provider_sim::GoAwayForm::Behind { streams: 3 },
        latency: std::time::Duration::from_millis(40),
        max_concurrent_streams: None,
        tickets: 0,
        http: provider_sim::HttpVersions::Http11Only,
        tls: provider_sim::TlsVersions::Tls12Only,
        respond: provider_sim::Respond::Fixed { status: 503, body_bytes: 10 },
        client_auth: provider_sim::ClientAuth::RefuseLate,
        ..Behaviour::default()
    };
    assert_eq!(args.behaviour.behaviour(), expected);
}

#[test]
fn no_flags_are_the_defaults_of_the_simulator() {
    assert_eq!(parse(&["--out=x"]).unwrap().behaviour.behaviour(), Behaviour::default());
}

#[test]
fn wrong_usage_says_what_would_be_right() {
    for (flag, hint) in [
        ("--goaway-form=later", "two-phase"),
        ("--goaway-form=behind:x", "whole number"),
        ("--respond=fixed:99:1", "200 to 999"),
        ("--respond=fixed:200", "fixed:STATUS:BYTES"),
        ("--http=h3", "h2+http/1.1"),
        ("--tickets=21", "0..=20"),
        ("--goaway-after-requests=0", "1.."),
        ("--script-seed=7", "--script <FILE>"),
        ("--script-seed=x", "invalid digit"),
    ] {
        let error = parse(&["--out=x", flag]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(hint), "{flag}: {error}");
    }
    assert_eq!(parse(&[]).unwrap_err().exit_code(), 2, "--out is required");
}

async fn ran(json: bool) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let out_dir = folder.path().join("assets \"quoted\"");
    let mut args = parse(&["--out", out_dir.to_str().unwrap()]).unwrap();
    args.json = json;
    let (stop, stopped) = oneshot::channel();
    stop.send(()).unwrap();
    let mut out = Vec::new();
    run(&args, &mut out, async { stopped.await.unwrap() }).await.unwrap();
    (folder, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn the_snippet_is_a_configuration_that_loads() {
    let (folder, text) = ran(false).await;
    let snippet = text.split("configuration:\n\n").nth(1).unwrap().split("Ctrl-C").next().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, snippet).unwrap();
    let loaded = config::load(&file, OffsetDateTime::now_utc()).unwrap_or_else(|e| panic!("{e}"));
    assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    assert!(loaded.config.environments[0].credentials.is_ok());
    assert!(text.contains("handshakes resumed"), "the ledger at the end: {text}");
}

#[tokio::test]
async fn json_is_one_line_at_the_start_and_one_at_the_end() {
    let (_folder, text) = ran(true).await;
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0]["listening"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(lines[1]["requests"], 0);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = parse(&["--out", folder.path().to_str().unwrap(), "--listen", &address]).unwrap();
    let failed = run(&args, &mut Vec::new(), std::future::ready(())).await.unwrap_err();
    assert!(failed.to_string().contains(&address), "{failed}");
}
