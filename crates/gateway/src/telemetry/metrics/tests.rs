//! Tests of the metrics as a whole.

use std::{collections::BTreeSet, time::Duration};

use pool::{
    CauseOfDeath, ConnectionId, DialPhases, DialReport, DriftField, GenerationRole, Stale, State, Verdict,
};

use super::*;
use crate::{
    outcome::ErrorCode,
    telemetry::{
        Quarantined, Requirement,
        testing::{CLIENT_NOT_AFTER, FakeView, SERVER_NOT_AFTER, catalog, connection, value},
    },
};

const DOCUMENT: &str = include_str!("../../../../../docs/metrics.md");

/// The names that `docs/metrics.md` has a row for.
fn documented() -> BTreeSet<&'static str> {
    DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `tsh_")?.split_once('`'))
        .map(|(name, _)| name)
        .collect()
}

/// The families in a rendered text, from its `# TYPE` lines, less the prefix.
fn rendered(text: &str) -> BTreeSet<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE tsh_"));
    types.filter_map(|rest| rest.split(' ').next()).collect()
}

#[test]
fn the_document_the_definitions_and_the_output_name_the_same_metrics() {
    let text = Metrics::new(catalog()).render(&[]);
    let defined: BTreeSet<_> = DEFINITIONS.iter().map(|d| d.name.strip_prefix("tsh_").unwrap()).collect();
    assert_eq!(rendered(&text), defined, "everything is registered at start-up");
    assert_eq!(documented(), defined, "docs/metrics.md");
    for definition in DEFINITIONS {
        assert!(text.contains(&format!("# HELP {} ", definition.name)), "{} has no help", definition.name);
        let row =
            DOCUMENT.lines().find(|line| line.starts_with(&format!("| `{}`", definition.name))).unwrap();
        for label in definition.labels {
            assert!(
                row.contains(&format!("`{label}`")),
                "{}: label {label} is not in its row",
                definition.name
            );
        }
        let kind = match definition.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert!(row.contains(kind), "{} is a {kind}", definition.name);
        assert!(
            text.contains(&format!("# TYPE {} {kind}\n", definition.name)),
            "{} is a {kind}",
            definition.name
        );
    }
}

#[test]
fn names_are_unique_and_buckets_rise() {
    let names: BTreeSet<_> = DEFINITIONS.iter().map(|d| d.name).collect();
    assert_eq!(names.len(), DEFINITIONS.len());
    for definition in DEFINITIONS {
        match definition.kind {
            Kind::Counter => assert!(definition.name.ends_with("_total"), "{}", definition.name),
            Kind::Histogram(buckets) => {
                assert!(!buckets.is_empty() && buckets.is_sorted_by(|a, b| a < b), "{}", definition.name);
            }
            Kind::Gauge => {}
        }
    }
}

#[test]
fn dials_are_counted_by_kind_and_result_and_only_good_ones_are_timed() {
    let metrics = Metrics::new(catalog());
    let observer = metrics.observer(0).unwrap();
    let phases = DialPhases {
        tcp: Some(Duration::from_millis(1)),
        tls: Some(Duration::from_millis(4)),
        total: Duration::from_millis(6),
        ..DialPhases::default()
    };
    let report = |resumed, failure| DialReport {
        connection: ConnectionId(1),
        address: String::new(),
        phases,
        resumed,
        failure,
        generation: 1,
    };
    observer.dialled(&report(Some(false), None));
    observer.dialled(&report(Some(true), None));
    observer.dialled(&report(None, Some("connection_refused")));
    observer.dialled(&report(Some(false), Some("identity_refused")));
    observer.dialled(&report(None, Some("a_code_of_tomorrow")));

    let text = metrics.render(&[]);
    for (kind, result) in [
        ("full", "ok"),
        ("resumed", "ok"),
        ("unknown", "connection_refused"),
        ("full", "identity_refused"),
        ("unknown", "other"),
    ] {
        let series =
            format!(r#"tsh_handshakes_total{{environment="sandbox",kind="{kind}",result="{result}"}}"#);
        assert_eq!(value(&text, &series), Some(1.0), "{series}");
    }
    for (phase, samples) in [("tls", 1.0), ("total", 1.0), ("dns", 0.0)] {
        let series =
            format!(r#"tsh_handshake_seconds_count{{environment="sandbox",phase="{phase}",kind="full"}}"#);
        assert_eq!(value(&text, &series), Some(samples), "{series}");
    }
    let bucket =
        r#"tsh_handshake_seconds_bucket{environment="sandbox",phase="tls",kind="resumed",le="0.005"}"#;
    assert_eq!(value(&text, bucket), Some(1.0));
}

#[test]
fn every_code_that_a_dial_can_fail_with_has_its_own_series() {
    let metrics = Metrics::new(catalog());
    let text = metrics.render(&[]);
    for code in [
        ErrorCode::DnsFailure,
        ErrorCode::PinMismatch,
        ErrorCode::ProveTimeout,
        ErrorCode::ProviderProtocolError,
    ] {
        let series = format!(
            r#"tsh_handshakes_total{{environment="sandbox",kind="unknown",result="{}"}}"#,
            code.as_str()
        );
        assert_eq!(value(&text, &series), Some(0.0), "{series}");
    }
}

#[test]
fn deaths_goaways_retries_and_drift_are_counted() {
    let metrics = Metrics::new(catalog());
    let observer = metrics.observer(1).unwrap();
    observer.closed(ConnectionId(1), CauseOfDeath::Goaway, 200);
    observer.goaway(ConnectionId(1), 0);
    observer.goaway(ConnectionId(2), 11);
    observer.goaway(ConnectionId(3), 1);
    observer.retried(Verdict::AboveGoaway);
    observer.drifted(DriftField::MaxConcurrentStreams);
    let text = metrics.render(&[]);
    for series in [
        r#"tsh_connections_closed_total{environment="production",cause="goaway"}"#,
        r#"tsh_goaways_total{environment="production",error="no_error"}"#,
        r#"tsh_goaways_total{environment="production",error="enhance_your_calm"}"#,
        r#"tsh_goaways_total{environment="production",error="other"}"#,
        r#"tsh_retries_total{environment="production",verdict="above_goaway"}"#,
        r#"tsh_provider_drift_total{environment="production",field="max_concurrent_streams"}"#,
        r#"tsh_connection_requests_bucket{environment="production",le="200"}"#,
    ] {
        assert_eq!(value(&text, series), Some(1.0), "{series}");
    }
    assert_eq!(
        value(&text, r#"tsh_connection_requests_bucket{environment="production",le="100"}"#),
        Some(0.0)
    );
    assert!(metrics.observer(2).is_none());
}

#[test]
fn stale_connections_are_counted_by_what_became_of_the_request() {
    let metrics = Metrics::new(catalog());
    let observer = metrics.observer(0).unwrap();
    observer.stale(Stale::InDoubt);
    observer.stale(Stale::Unsent);
    observer.stale(Stale::Unsent);
    let text = metrics.render(&[]);
    for (request, count) in [("unsent", 2.0), ("in_doubt", 1.0)] {
        let series = format!(r#"tsh_stale_connections_total{{environment="sandbox",request="{request}"}}"#);
        assert_eq!(value(&text, &series), Some(count), "{series}");
    }
}

#[test]
fn gauges_show_the_pools_at_the_moment_of_the_scrape() {
    let metrics = Metrics::new(catalog());
    let view = FakeView::new("sandbox", Requirement::Required);
    let pools: [Arc<dyn PoolView>; 1] = [view.clone()];
    view.serve();
    view.edit(|status| {
        let mut old = connection(3, State::Draining);
        old.role = GenerationRole::Draining;
        status.connections.push(old);
        status.connections.push(connection(4, State::Proving));
        status.dialling = 2;
        status.in_flight = 9;
        status.queue_depth = 4;
        status.reuse_ratio = 0.75;
        status.tickets.held = 5;
    });
    let text = metrics.render(&pools);
    for (series, expected) in [
        (r#"tsh_connections{environment="sandbox",state="serving",generation="active"}"#, 2.0),
        (r#"tsh_connections{environment="sandbox",state="draining",generation="draining"}"#, 1.0),
        (r#"tsh_connections{environment="sandbox",state="proving",generation="active"}"#, 1.0),
        // Two dials are under way; one of them is the connection that is being proved.
        (r#"tsh_connections{environment="sandbox",state="dialing",generation="active"}"#, 1.0),
        (r#"tsh_streams_in_flight{environment="sandbox"}"#, 9.0),
        (r#"tsh_queue_depth{environment="sandbox"}"#, 4.0),
        (r#"tsh_reuse_ratio{environment="sandbox"}"#, 0.75),
        (r#"tsh_tickets{environment="sandbox",state="held"}"#, 5.0),
        (r#"tsh_floor_met{environment="sandbox"}"#, 1.0),
        (
            r#"tsh_certificate_expiry_timestamp_seconds{environment="sandbox",role="client"}"#,
            CLIENT_NOT_AFTER as f64,
        ),
        (
            r#"tsh_certificate_expiry_timestamp_seconds{environment="sandbox",role="server"}"#,
            SERVER_NOT_AFTER as f64,
        ),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}");
    }
    let anchor = r#"tsh_certificate_expiry_timestamp_seconds{environment="sandbox",role="anchor"}"#;
    assert!(value(&text, anchor).unwrap().is_nan(), "unknown is not 1970");

    view.fail("connection_refused");
    let text = metrics.render(&pools);
    let serving = r#"tsh_connections{environment="sandbox",state="serving",generation="active"}"#;
    assert_eq!(value(&text, serving), Some(0.0), "a gauge does not remember");
}

#[test]
fn a_quarantine_is_seen_and_its_expired_certificate_too() {
    let metrics = Metrics::new(catalog());
    let view = FakeView::new("production", Requirement::Required);
    view.quarantine(Quarantined { code: ErrorCode::CertificateExpired, message: "renew it".to_owned() });
    let text = metrics.render(&[view as Arc<dyn PoolView>]);
    assert_eq!(value(&text, r#"tsh_quarantined{environment="production"}"#), Some(1.0));
    assert_eq!(value(&text, r#"tsh_floor_met{environment="production"}"#), Some(0.0));
    let client = r#"tsh_certificate_expiry_timestamp_seconds{environment="production",role="client"}"#;
    assert_eq!(value(&text, client), Some(CLIENT_NOT_AFTER as f64));
}

#[test]
fn several_gateways_in_one_process_count_apart() {
    let (one, other) = (Metrics::new(catalog()), Metrics::new(catalog()));
    one.callers().accepted.increment(3);
    assert_eq!(value(&one.render(&[]), "tsh_caller_connections_accepted_total"), Some(3.0));
    assert_eq!(value(&other.render(&[]), "tsh_caller_connections_accepted_total"), Some(0.0));
}
