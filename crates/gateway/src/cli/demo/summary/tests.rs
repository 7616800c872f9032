//! The summary: what it counts as good, and what it says of what was lost.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::cli::demo::{snapshot::Handshakes, tally::Counts};

fn environment(answered: u64, lost: u64) -> Environment {
    let reasons: BTreeMap<_, _> =
        (lost > 0).then(|| ("503 queue_full".to_owned(), lost)).into_iter().collect();
    Environment {
        name: "sandbox",
        requests: answered,
        handshakes_full: Handshakes { count: 2, ..Handshakes::default() },
        handshakes_resumed: Handshakes { count: 3, ..Handshakes::default() },
        calls: Counts { answered, lost, reasons, ..Counts::default() },
        ..Environment::default()
    }
}

fn summary(answered: u64, lost: u64, twice: usize) -> Summary {
    let last = Snapshot {
        elapsed: Duration::from_secs(10),
        environments: vec![environment(answered, lost)],
        ..Snapshot::default()
    };
    let ledger = Ledger { connections_accepted: 5, ..Ledger::default() };
    Summary::new(last, &[ledger], twice, Stopped::default())
}

#[test]
fn every_request_answered_is_good() {
    let summary = summary(6000, 0, 0);
    assert!(summary.is_good());
    let text = summary.text(Paint::Plain);
    for part in [
        "6,000 requests in 10 s, reuse 99.91 %",
        "handshakes: 2 full, 3 resumed (the providers saw 5 connections)",
        "every request was answered, none was processed twice",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn one_lost_request_is_not_and_says_why() {
    let summary = summary(5999, 1, 0);
    assert!(!summary.is_good());
    let text = summary.text(Paint::Plain);
    assert!(text.contains("sandbox: 1 lost: 503 queue_full") && text.ends_with("1 request lost\n"), "{text}");
}

#[test]
fn a_request_processed_twice_is_not() {
    let summary = summary(6000, 0, 2);
    assert!(!summary.is_good());
    let text = summary.text(Paint::Plain);
    assert!(text.contains("processed 2 requests more than once"), "{text}");
    assert!(!text.contains("none was processed twice"), "{text}");
}

#[test]
fn no_request_at_all_is_not() {
    let summary = summary(0, 0, 0);
    assert!(!summary.is_good());
    assert!(summary.text(Paint::Plain).ends_with("no request was made\n"));
}

#[test]
fn the_json_has_the_numbers_a_script_asks_for() {
    let json = serde_json::to_value(summary(6000, 0, 0)).unwrap();
    assert_eq!(json["good"], true);
    assert_eq!((&json["answered"], &json["lost"]), (&6000.into(), &0.into()));
    assert_eq!((&json["handshakes_full"], &json["handshakes_resumed"]), (&2.into(), &3.into()));
    assert!(json["reuse_ratio"].as_f64().unwrap() > 0.99);
    assert_eq!(json["providers"][0]["connections_accepted"], 5);
    assert_eq!(json["environments"][0]["name"], "sandbox");
}
