//! The whole demonstration, small: real sockets, real handshakes, free ports.

use std::sync::Arc;

use clap::Parser as _;
use tokio::sync::Notify;

use super::*;
use crate::cli::{Cli, Command};

fn parse(arguments: &[&str]) -> Result<DemoArgs, clap::Error> {
    let all =
        ["tsh-gateway", "demo", "--port=0", "--admin-port=0"].into_iter().chain(arguments.iter().copied());
    Cli::try_parse_from(all).map(|cli| match cli.command {
        Command::Demo(args) => args,
        other => panic!("parsed as {other:?}"),
    })
}

/// Runs until its time is over, or until what was written is `enough`.
async fn demonstrated(
    args: &DemoArgs,
    presentation: Presentation,
    enough: fn(&str) -> bool,
) -> (Summary, String, String) {
    let stop = Arc::new(Notify::new());
    let mut out = Watched { text: String::new(), enough, stop: stop.clone() };
    let mut err = Vec::new();
    let ran = run(args, presentation, &mut out, &mut err, stop.notified()).await;
    (ran.unwrap_or_else(|e| panic!("{e}")), out.text, String::from_utf8(err).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_connections_end_and_both_kinds_of_handshake_are_counted() {
    // Two seconds where the machine is free; on a busy one until the sandbox's provider has ended a connection.
    let args = parse(&["--for=60s", "--rate=1000"]).unwrap();
    let (summary, out, err) = demonstrated(&args, Presentation::Lines, |text| {
        let last = text.lines().rev().find_map(|line| line.split(" | sandbox: ").nth(1)).unwrap_or_default();
        let sandbox = last.split('|').next().unwrap_or_default();
        let seen = |what: &str| sandbox.contains(what) && !sandbox.contains(&format!(" 0 {what}"));
        text.ends_with('\n') && seen("resumed") && seen("goaways") && seen("replays")
    })
    .await;
    assert!(summary.is_good(), "{out}");
    let json = serde_json::to_value(&summary).unwrap();
    let number = |key: &str| json[key].as_f64().unwrap();
    assert!(number("answered") > 300.0 && number("seconds") < 59.0, "{out}");
    assert!(number("handshakes_full") >= 4.0 && number("handshakes_resumed") >= 1.0, "{out}");
    assert!(number("reuse_ratio") > 0.98, "{out}");
    // What the gateway says is what the providers saw.
    let seen = |key: &str| -> f64 {
        json["providers"].as_array().unwrap().iter().map(|provider| provider[key].as_f64().unwrap()).sum()
    };
    assert_eq!(seen("requests") - seen("requests_disowned"), number("answered"), "{out}");
    assert_eq!(seen("handshakes_full"), number("handshakes_full"), "{out}");
    assert_eq!(seen("handshakes_resumed"), number("handshakes_resumed"), "{out}");
    for part in ["curl -i http://127.0.0.1:", "grpcurl -plaintext", " s  ", "every request was answered"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(err.is_empty() && !out.contains('\x1b'), "{err}{out:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_sums_up_too() {
    let args = parse(&[]).unwrap();
    // From the second frame on: the first may come before any request.
    let answered = |text: &str| text.matches(" answered, ").count() > 1;
    let (summary, text, _) = demonstrated(&args, Presentation::Table(Paint::Plain), answered).await;
    assert!(text.contains("\x1b[?25l") && text.contains("\x1b[?25h"), "the cursor comes back: {text:?}");
    assert_eq!(text.contains("every request was answered"), summary.is_good(), "{text}");
}

/// Rings when enough was written.
struct Watched {
    text: String,
    enough: fn(&str) -> bool,
    stop: Arc<Notify>,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.push_str(std::str::from_utf8(bytes).expect("whole characters"));
        if (self.enough)(&self.text) {
            self.stop.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_the_summary_alone() {
    let args = parse(&["--for=300ms", "--json"]).unwrap();
    let (_, out, err) = demonstrated(&args, Presentation::Json, |_| false).await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    assert_eq!(json["lost"], 0);
    assert!(err.contains("curl"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_was_asked_for_is_not_exchanged_for_another() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let args = DemoArgs { port: Some(port), ..parse(&["--for=1s"]).unwrap() };
    let never = std::future::pending();
    let failed = run(&args, Presentation::Lines, &mut Vec::new(), &mut Vec::new(), never).await.unwrap_err();
    assert!(failed.to_string().contains(&port.to_string()), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_ends_it() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let args = parse(&[]).unwrap();
    let never = std::future::pending();
    let failed = run(&args, Presentation::Lines, &mut Gone, &mut Vec::new(), never).await.unwrap_err();
    assert!(matches!(failed, DemoError::Report(_)), "{failed}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for wrong in ["--for=soon", "--rate=0", "--json --plain"] {
        let arguments: Vec<_> = wrong.split(' ').collect();
        assert_eq!(parse(&arguments).unwrap_err().exit_code(), 2, "{wrong}");
    }
}
