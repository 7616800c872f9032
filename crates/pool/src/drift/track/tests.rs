//! Tests of the drift log: what is news, what is told once, what is bounded.

use time::macros::datetime;

use super::*;

const WALL: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
const MINUTE: Duration = Duration::from_secs(60);

/// A drift log with a clock that the test moves.
struct Lab {
    drift: Drift,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        Self { drift: Drift::new(), now: Instant::now() }
    }

    fn see(&mut self, field: DriftField, value: DriftValue) -> Vec<String> {
        let mut fingerprint = Fingerprint::default();
        fingerprint.set(field, value);
        let wall = WALL;
        self.drift.observe(self.now, wall, &fingerprint).iter().map(ToString::to_string).collect()
    }

    fn streams(&mut self, streams: u64) -> Vec<String> {
        self.see(DriftField::MaxConcurrentStreams, DriftValue::Number(streams))
    }
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn the_first_sight_is_no_change_and_neither_is_the_same_again() {
    let mut lab = Lab::new();
    assert_eq!(lab.streams(500), none());
    assert_eq!(lab.streams(500), none());
    assert_eq!(lab.streams(100), ["max_concurrent_streams 500 -> 100"]);
    assert_eq!(lab.streams(100), none());
    let change = lab.drift.changes().next().unwrap();
    assert_eq!((change.when, change.kind), (WALL, DriftKind::New));
    assert_eq!(change.severity, DriftSeverity::Warning);
}

#[test]
fn two_servers_that_differ_are_told_once_and_counted() {
    let mut lab = Lab::new();
    lab.streams(500);
    assert_eq!(lab.streams(100).len(), 1);
    assert_eq!(lab.streams(500), ["max_concurrent_streams 100 -> 500 (alternates)"]);
    for turn in 0..1000 {
        lab.now += Duration::from_secs(5);
        assert_eq!(lab.streams(if turn % 2 == 0 { 100 } else { 500 }), none(), "turn {turn}");
    }
    assert_eq!(lab.drift.changes().count(), 2);
    assert_eq!(lab.drift.changes().next().unwrap().repeats, 1000);
    assert_eq!(lab.streams(50), ["max_concurrent_streams 500 -> 50"], "a third value is news");
}

#[test]
fn a_value_not_seen_for_an_hour_is_news_again() {
    let mut lab = Lab::new();
    lab.streams(500);
    lab.streams(100);
    for _ in 0..61 {
        lab.now += MINUTE;
        assert_eq!(lab.streams(100), none());
    }
    assert_eq!(lab.streams(500), ["max_concurrent_streams 100 -> 500"]);
}

#[test]
fn the_present_value_is_known_however_long_ago_it_was_seen() {
    let mut lab = Lab::new();
    lab.streams(500);
    lab.now += MINUTE * 60 * 24;
    assert_eq!(lab.streams(500), none());
    assert_eq!(lab.streams(100), ["max_concurrent_streams 500 -> 100"]);
}

#[test]
fn a_field_that_is_always_another_one_is_told_sixteen_times_and_then_once() {
    let mut lab = Lab::new();
    let told: usize = (0..1000).map(|n| lab.streams(n).len()).sum();
    assert_eq!(told, KNOWN - 1 + 1, "every value that fits after the first, and that it varies");
    let last = lab.drift.changes().next().unwrap();
    assert_eq!((last.kind, last.repeats), (DriftKind::Varies, 1000 - KNOWN as u64 - 1));
}

#[test]
fn learned_limits_are_presumed_absent_and_judged_with_tolerance() {
    let mut lab = Lab::new();
    let mut requests = |value| lab.see(DriftField::EnforcedRequests, value);
    assert_eq!(requests(DriftValue::Absent), none());
    assert_eq!(requests(DriftValue::Number(200)), ["enforced_requests none -> 200"]);
    assert_eq!(requests(DriftValue::Number(190)), none());
    assert_eq!(requests(DriftValue::Number(100)), ["enforced_requests 200 -> 100"]);
    let age = DriftValue::Time(Duration::from_secs(300));
    assert_eq!(lab.see(DriftField::EnforcedAge, age), ["enforced_age none -> 300s"]);
}

#[test]
fn a_new_address_is_told_and_coming_back_to_another_is_not() {
    let mut lab = Lab::new();
    let mut address = |text: &str| lab.see(DriftField::Address, DriftValue::Text(text.to_owned()));
    assert_eq!(address("192.0.2.1"), none());
    assert_eq!(address("192.0.2.2"), ["address 192.0.2.1 -> 192.0.2.2"]);
    assert_eq!(address("192.0.2.1"), none());
    assert_eq!(address("192.0.2.2"), none());
    assert_eq!(address("192.0.2.3"), ["address 192.0.2.2 -> 192.0.2.3"]);
}

#[test]
fn fields_do_not_disturb_one_another() {
    let mut lab = Lab::new();
    let mut fingerprint = Fingerprint::default();
    fingerprint.set(DriftField::MaxConcurrentStreams, DriftValue::Number(1));
    fingerprint.set(DriftField::MaxFrameSize, DriftValue::Absent);
    assert!(lab.drift.observe(lab.now, WALL, &fingerprint).is_empty());
    assert_eq!(
        lab.see(DriftField::MaxFrameSize, DriftValue::Number(1 << 14)),
        ["max_frame_size none -> 16384"]
    );
    assert_eq!(lab.streams(1), none());
}

#[test]
fn the_list_is_bounded_and_repeats_of_a_forgotten_change_are_let_go() {
    let mut lab = Lab::new();
    lab.see(DriftField::TlsVersion, DriftValue::Text("1.3".into()));
    lab.see(DriftField::TlsVersion, DriftValue::Text("1.2".into()));
    assert_eq!(lab.see(DriftField::TlsVersion, DriftValue::Text("1.3".into())).len(), 1);
    for hour in 0..600 {
        // Two values, each told anew because the other was forgotten meanwhile.
        lab.now += REMEMBERED;
        lab.streams(hour % 2);
    }
    assert_eq!(lab.drift.changes().count(), KEPT);
    assert!(lab.drift.changes().all(|change| change.field == DriftField::MaxConcurrentStreams));
    lab.drift.repeat(Some(1));
    assert!(lab.drift.changes().all(|change| change.repeats == 0));
}
