//! The table: what it shows at which width, and that it never breaks a line.

use std::time::Duration;

use super::*;
use crate::cli::demo::{
    snapshot::{Connections, Handshakes},
    tally::Counts,
};

fn times(p50_us: u64, p99_us: u64) -> Quantiles {
    Quantiles { count: 100, p50_us, p99_us, max_us: p99_us }
}

fn snapshot() -> Snapshot {
    let sandbox = Environment {
        name: "sandbox",
        connections: Connections { dialing: 0, serving: 2, draining: 1 },
        in_flight: 3,
        requests: 2104,
        per_second: 300.4,
        reuse_ratio: 0.9951,
        handshakes_full: Handshakes { count: 2, tls: times(3900, 4100) },
        handshakes_resumed: Handshakes { count: 8, tls: times(1500, 1900) },
        goaways: 7,
        replays: 6,
        calls: Counts { answered: 2101, latency: times(4200, 9800), ..Counts::default() },
        ..Environment::default()
    };
    let production = Environment { name: "production", requests: 2099, ..Environment::default() };
    Snapshot {
        elapsed: Duration::from_millis(7010),
        planned: Some(Duration::from_secs(10)),
        latency: times(4200, 9800),
        environments: vec![sandbox, production],
    }
}

fn size(columns: usize, rows: usize) -> Size {
    Size { columns, rows }
}

#[test]
fn the_table_of_an_ordinary_terminal() {
    let lines = frame(&snapshot(), size(80, 24), Paint::Plain);
    let expected = "\
TSH Gateway demo  0:07 of 0:10  2,101 answered, 0 lost

                             sandbox    production
connections serving                2             0
  draining                         1             0
  dialing                          0             0
in flight                          3             0
queue                              0             0
requests                       2,104         2,099
  per second                     300             0
  reuse                      99.51 %        0.00 %
handshakes full                    2             0
  TLS, median                 3.9 ms             -
handshakes resumed                 8             0
  TLS, median                 1.5 ms             -
GOAWAY received                    7             0
replays saved                      6             0
latency p50                   4.2 ms             -
  p99                         9.8 ms             -
lost                               0             0";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn every_size_of_terminal_is_respected() {
    let mut snapshot = snapshot();
    snapshot.environments[0].failure = Some("connect_refused: ".repeat(40));
    snapshot.environments[1].requests = u64::MAX;
    for columns in (0..100).chain([usize::from(u16::MAX)]) {
        for rows in 0..40 {
            let lines = frame(&snapshot, size(columns, rows), Paint::Plain);
            assert!(
                lines.len() <= rows.saturating_sub(1).max(1),
                "{columns} x {rows}: {} lines",
                lines.len()
            );
            let widest = lines.iter().map(String::len).max().unwrap_or(0);
            assert!(widest <= columns, "{columns} x {rows}: {widest} wide");
        }
    }
}

#[test]
fn what_matters_most_stays_longest() {
    let lines = frame(&snapshot(), size(80, 8), Paint::Plain).join("\n");
    for kept in ["lost", "requests", "connections serving", "reuse"] {
        assert!(lines.contains(kept), "{kept}: {lines}");
    }
    assert!(!lines.contains("TLS, median") && !lines.contains("dialing"), "{lines}");
}

#[test]
fn without_color_there_is_no_escape_sequence() {
    let lost = {
        let mut snapshot = snapshot();
        snapshot.environments[0].calls.lost = 1;
        snapshot
    };
    let plain = frame(&lost, size(80, 24), Paint::Plain).join("\n");
    assert!(!plain.contains('\x1b'), "{plain:?}");
    let colored = frame(&lost, size(80, 24), Paint::Colored).join("\n");
    assert!(colored.contains("\x1b[1;31m1\x1b[0m"), "a loss is marked: {colored:?}");
}

#[test]
fn a_message_from_afar_cannot_steer_the_terminal() {
    let mut snapshot = snapshot();
    snapshot.environments[0].failure = Some("tls: \x1b[2Jgone\u{9b}".to_owned());
    let text = frame(&snapshot, size(80, 30), Paint::Plain).join("\n");
    assert!(text.contains("sandbox: tls: ?[2Jgone?"), "{text:?}");
}

#[test]
fn a_line_says_the_same_without_a_terminal() {
    let text = line(&snapshot());
    assert!(!text.contains('\n') && !text.contains('\x1b'), "{text:?}");
    for part in [
        "   7 s  2,101 answered, 0 lost, p50 4.2 ms, p99 9.8 ms",
        "sandbox: 2 serving, 3 in flight, 0 queued, reuse 99.51 %",
        "handshakes 2 full (3.9 ms) 8 resumed (1.5 ms), 7 goaways, 6 replays",
        "production: 0 serving",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn weights_are_all_different() {
    let mut weights: Vec<_> = ROWS.iter().map(|row| row.weight).collect();
    weights.sort_unstable();
    weights.dedup();
    assert_eq!(weights.len(), ROWS.len());
}
