//! The whole demonstration, small: real sockets, real handshakes, free ports.

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

async fn demonstrated(args: &DemoArgs, presentation: Presentation) -> (Summary, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let never = std::future::pending();
    let summary = run(args, presentation, &mut out, &mut err, never).await.unwrap_or_else(|e| panic!("{e}"));
    (summary, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_seconds_lose_nothing_and_show_both_kinds_of_handshake() {
    // Enough that the sandbox's provider ends connections within the time.
    let args = parse(&["--for=2s", "--rate=1000"]).unwrap();
    let (summary, out, err) = demonstrated(&args, Presentation::Lines).await;
    assert!(summary.is_good(), "{out}");
    let json = serde_json::to_value(&summary).unwrap();
    let number = |key: &str| json[key].as_f64().unwrap();
    assert!(number("answered") > 500.0, "{out}");
    assert!(number("handshakes_full") >= 4.0 && number("handshakes_resumed") >= 1.0, "{out}");
    assert!(number("reuse_ratio") > 0.98, "{out}");
    let sandbox = &json["environments"][0];
    assert!(sandbox["goaways"].as_u64() >= Some(1) && sandbox["replays"].as_u64() >= Some(1), "{out}");
    // What the gateway says is what the providers saw.
    let seen = |key: &str| {
        json["providers"].as_array().unwrap().iter().map(|p| p[key].as_f64().unwrap()).sum::<f64>()
    };
    assert_eq!(seen("requests") - seen("requests_disowned"), number("answered"), "{out}");
    assert_eq!(seen("handshakes_full"), number("handshakes_full"), "{out}");
    assert_eq!(seen("handshakes_resumed"), number("handshakes_resumed"), "{out}");
    for part in ["curl -i http://127.0.0.1:", "grpcurl -plaintext", "   1 s  ", "every request was answered"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(err.is_empty() && !out.contains('\x1b'), "{err}{out:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_sums_up_too() {
    let args = parse(&[]).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let stop = Notify::new();
    let mut seen = Watched { out: &mut out, wanted: "lost", stop: &stop };
    let summary =
        run(&args, Presentation::Table(Paint::Plain), &mut seen, &mut err, stop.notified()).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\x1b[?25l") && text.contains("\x1b[?25h"), "the cursor comes back: {text:?}");
    assert_eq!(text.contains("every request was answered"), summary.is_good(), "{text}");
}

/// Rings once something was written.
struct Watched<'w> {
    out: &'w mut Vec<u8>,
    wanted: &'static str,
    stop: &'w Notify,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        // In the second frame, so that there was time for requests.
        if String::from_utf8_lossy(self.out).matches(self.wanted).count() > 3 {
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
    let (_, out, err) = demonstrated(&args, Presentation::Json).await;
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
