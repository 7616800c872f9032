//! Tests of the access log.

use http::Method;
use time::macros::datetime;

use super::*;
use crate::telemetry::{
    Outcome,
    record::{Batch, tests::delivered},
    testing::catalog,
};

fn line(outcome: &Outcome<'_>) -> serde_json::Value {
    let mut batch = Batch::with_room(1);
    batch.push(outcome).unwrap();
    let (entry, text) = batch.iter().next().unwrap();
    let mut out = Vec::new();
    write_line(&mut out, &mut WallTime::now(), &catalog(), entry, text);
    assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), 1, "one line");
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_fields_of_a_line_are_these() {
    let line = line(&delivered(&Method::GET, "/cards"));
    let fields: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "time",
        "level",
        "correlation_id",
        "protocol",
        "peer",
        "caller",
        "method",
        "path",
        "route",
        "environment",
        "status",
        "outcome",
        "ended",
        "connection",
        "generation",
        "reused",
        "resumed",
        "attempts",
        "waited_for_dial",
        "queue_us",
        "connect_us",
        "send_us",
        "ttfb_us",
        "total_us",
        "bytes_in",
        "bytes_out",
    ];
    expected.sort_unstable();
    let mut fields = fields;
    fields.sort_unstable();
    assert_eq!(fields, expected);
    assert_eq!((&line["route"], &line["environment"]), (&"cards".into(), &"sandbox".into()));
    assert_eq!(line["caller"], "batch");
    assert_eq!(line["total_us"], 3_000);
}

#[test]
fn callers_cannot_forge_lines_or_break_the_json() {
    let outcome = Outcome { correlation_id: b"a\"b\\\n{\xff", ..delivered(&Method::GET, "/\"}\u{7f}{") };
    let line = line(&outcome);
    assert_eq!(line["correlation_id"], "a\"b\\\n{\u{fffd}");
    assert_eq!(line["path"], "/\"}\u{7f}{");
}

#[test]
fn a_cut_path_says_so() {
    let path = format!("/{}", "a".repeat(4_000));
    let line = line(&delivered(&Method::GET, &path));
    assert_eq!(line["path"].as_str().unwrap().len(), crate::telemetry::record::MAX_LOGGED_PATH);
    assert_eq!(line["path_cut"], true);
}

#[test]
fn times_are_rfc_3339_in_utc_to_the_microsecond() {
    let instant = Instant::now();
    let mut wall = WallTime::at(instant, datetime!(2026-11-23 21:00:00.123456789 UTC));
    assert_eq!(wall.text(instant), "2026-11-23T21:00:00.123456Z");
    assert_eq!(wall.text(instant + Duration::from_secs(1)), "2026-11-23T21:00:01.123456Z");
    assert_eq!(wall.text(instant - Duration::from_millis(1)), "2026-11-23T21:00:00.122456Z");
    assert_eq!(wall.text(instant - Duration::from_micros(123_456)), "2026-11-23T21:00:00.000000Z");
    assert_eq!(wall.text(instant - Duration::from_micros(123_457)), "2026-11-23T20:59:59.999999Z");
    assert_eq!(wall.text(instant + Duration::from_secs(86_400)), "2026-11-24T21:00:00.123456Z");
}

#[tokio::test(start_paused = true)]
async fn a_log_file_follows_its_name_after_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut sink = AccessLogTarget::File(path.clone()).open().unwrap().unwrap();
    sink.write_lines(b"one\n").unwrap();
    std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    tokio::time::advance(ROTATION_CHECK).await;
    sink.write_lines(b"two\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    assert_eq!(std::fs::read_to_string(folder.path().join("access.log.1")).unwrap(), "one\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent").join("access.log");
    assert!(AccessLogTarget::File(path).open().is_err());
    assert!(AccessLogTarget::Off.open().unwrap().is_none());
}
