//! A script on the command line: played, seeded, and refused with the file's name.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Parser as _;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::super::{SimArgs, run, sim};
use crate::cli::{Cli, Command, FAILED};

/// Refuses connections from the start, and does more at a time that the seed says.
const TOML: &str = "seed = 3\n[[step]]\nat_ms = 0\naction = { listening = { state = \"refusing\" } }\n\
     [[step]]\nbetween_ms = [500000, 600000]\ntimes = 2\naction = \"forget_sessions\"\n";
const JSON: &str = r#"{"step": [{"at_ms": 0, "action": {"listening": {"state": "refusing"}}}]}"#;

/// The arguments for a script of this text, and the folder that holds it.
fn with_script(text: &[u8], more: &[&str]) -> (tempfile::TempDir, SimArgs) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("storm.script");
    std::fs::write(&file, text).unwrap();
    let mut all = vec!["tsh-gateway".to_owned(), "sim".to_owned(), "--json".to_owned()];
    all.push(format!("--out={}", folder.path().join("assets").display()));
    all.push(format!("--script={}", file.display()));
    all.extend(more.iter().map(ToString::to_string));
    match Cli::try_parse_from(all).unwrap().command {
        Command::Sim(args) => (folder, args),
        other => panic!("parsed as {other:?}"),
    }
}

/// A report that can be read while it is being written.
#[derive(Clone, Default)]
struct Report(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Report {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Report {
    fn started(&self) -> serde_json::Value {
        serde_json::from_str(String::from_utf8_lossy(&self.0.lock()).lines().next().unwrap()).unwrap()
    }
}

/// Runs until nobody is let in any more; what was said at the start.
async fn played(args: &SimArgs) -> serde_json::Value {
    let report = Report::default();
    let refused = async {
        let address = report.started()["listening"].as_str().unwrap().to_owned();
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let mut out = report.clone();
    let ran = run(args, &mut out, refused);
    tokio::time::timeout(Duration::from_secs(10), ran).await.expect("the script is played").unwrap();
    report.started()
}

#[tokio::test]
async fn a_script_is_played_with_its_seed_or_the_one_given() {
    for (text, more, seed, events) in [
        (TOML, &[][..], 3, 3),
        (TOML, &["--script-seed=18446744073709551615"][..], u64::MAX, 3),
        (JSON, &["--script-seed=5"][..], 5, 1),
    ] {
        let (folder, args) = with_script(text.as_bytes(), more);
        let script = &played(&args).await["script"];
        assert_eq!((script["seed"].as_u64(), script["events"].as_u64()), (Some(seed), Some(events)));
        assert_eq!(script["file"].as_str(), folder.path().join("storm.script").to_str());
    }
}

#[test]
fn the_seed_given_changes_the_times() {
    let (_kept, own) = with_script(TOML.as_bytes(), &[]);
    let (_kept_too, given) = with_script(TOML.as_bytes(), &["--script-seed=4"]);
    let timeline = |args: &SimArgs| args.script.load().unwrap().unwrap().timeline();
    assert_eq!(timeline(&own), timeline(&own));
    assert_ne!(timeline(&own), timeline(&given));
}

#[test]
fn a_bad_file_is_exit_code_1_with_its_name_and_leaves_nothing() {
    let too_long = vec![b' '; usize::try_from(super::MAX_BYTES).unwrap() + 1];
    for (text, hint) in [
        (&b"[[step]]\nat_ms = 0\naction = \"sleep\"\n"[..], "--help"),
        (&b"{"[..], "cannot be read"),
        (&b"\xff\xfe"[..], "readable text file"),
        (&too_long, "`times`"),
    ] {
        let (folder, args) = with_script(text, &[]);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(sim(&args, &mut out, &mut err), ExitCode::from(FAILED));
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("storm.script") && err.contains(hint), "{err}");
        assert!(out.is_empty() && !folder.path().join("assets").exists());
    }
}

#[test]
fn a_missing_file_is_named() {
    let (folder, args) = with_script(b"", &[]);
    std::fs::remove_file(folder.path().join("storm.script")).unwrap();
    let error = args.script.load().unwrap_err().to_string();
    assert!(error.contains("storm.script") && error.contains("--script"), "{error}");
}

#[test]
fn the_script_in_the_help_can_be_played() {
    let help = Cli::try_parse_from(["tsh-gateway", "sim", "--help"]).unwrap_err().to_string();
    let example = help.split("here storm.toml:\n").nth(1).unwrap();
    assert_eq!(provider_sim::Script::parse(example).unwrap().timeline().len(), 10 + 2, "{example}");
}
