//! Tests of the recorder.

use http::Method;
use pool::{ConnectionId, Journey, RetrySafe};

use super::*;
use crate::{
    outcome::ErrorCode,
    telemetry::{
        Ended,
        record::tests::delivered,
        testing::{Seen, catalog, value},
    },
};

const WITHIN: Duration = Duration::from_secs(10);

fn start(options: &RecorderOptions) -> (Recorder, Seen) {
    let seen = Seen::default();
    let recorder = Recorder::start_on(Some(Box::new(seen.clone())), options, Metrics::new(catalog()));
    (recorder.expect("threads"), seen)
}

fn count(recorder: &Recorder, series: &str) -> f64 {
    recorder.flusher().flush();
    value(&recorder.core.metrics.render(&[]), series).unwrap_or_else(|| panic!("no series {series}"))
}

#[test]
fn one_request_is_one_count_one_line_and_one_sample_per_phase_that_occurred() {
    let (recorder, seen) = start(&RecorderOptions::default());
    let journey = Journey {
        connection: Some(ConnectionId(7)),
        generation: 3,
        reused: true,
        attempts: 1,
        send: Duration::from_micros(40),
        ttfb: Duration::from_millis(2),
        ..Journey::default()
    };
    let method = Method::POST;
    recorder.handle(0).record(&Outcome { journey, ..delivered(&method, "/cards?pan=4111") });

    assert_eq!(
        count(&recorder, r#"tsh_requests_total{environment="sandbox",route="cards",outcome="2xx"}"#),
        1.0
    );
    for (phase, samples) in [("total", 1.0), ("ttfb", 1.0), ("send", 1.0), ("queue", 0.0), ("connect", 0.0)] {
        let series = format!(r#"tsh_request_seconds_count{{environment="sandbox",phase="{phase}"}}"#);
        assert_eq!(count(&recorder, &series), samples, "{phase}");
    }
    assert_eq!(count(&recorder, r#"tsh_body_bytes_total{environment="sandbox",direction="out"}"#), 20.0);
    assert_eq!(recorder.stop(WITHIN), StopReport::default());
    let lines = seen.json();
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(line["path"], "/cards", "the query is not logged");
    assert_eq!(
        (&line["connection"], &line["generation"], &line["reused"]),
        (&7.into(), &3.into(), &true.into())
    );
    assert_eq!((&line["outcome"], &line["ended"]), (&"ok".into(), &"complete".into()));
}

#[test]
fn a_failure_is_counted_and_logged_under_its_one_code() {
    let (recorder, seen) = start(&RecorderOptions::default());
    let outcome = Outcome {
        route: None,
        environment: Some(1),
        status: 503,
        code: Some(ErrorCode::QueueFull),
        retry_safe: Some(RetrySafe::Yes),
        ended: Ended::GatewayReply,
        ..delivered(&Method::GET, "/x")
    };
    recorder.handle(0).record(&outcome);
    recorder.handle(0).record(&Outcome {
        route: None,
        environment: None,
        code: Some(ErrorCode::NoRoute),
        ..outcome
    });
    let direct = r#"tsh_requests_total{environment="production",route="",outcome="queue_full"}"#;
    assert_eq!(count(&recorder, direct), 1.0);
    assert_eq!(count(&recorder, r#"tsh_requests_total{environment="",route="",outcome="no_route"}"#), 1.0);
    recorder.stop(WITHIN);
    let line = &seen.json()[0];
    let words = ["outcome", "level", "blame", "retry_safe", "environment"]
        .map(|key| line[key].as_str().unwrap().to_owned());
    assert_eq!(words, ["queue_full", "warn", "operator", "yes", "production"]);
}

#[test]
fn every_request_is_counted_even_when_the_shard_is_full() {
    let (recorder, seen) = start(&RecorderOptions { batch: 4, ..RecorderOptions::default() });
    let handle = recorder.handle(0);
    {
        // The recorder cannot drain while this is held.
        let _stalled = recorder.core.drain.lock();
        for _ in 0..10 {
            handle.record(&delivered(&Method::GET, "/"));
        }
    }
    assert_eq!(
        count(&recorder, r#"tsh_requests_total{environment="sandbox",route="cards",outcome="2xx"}"#),
        10.0
    );
    let dropped = count(&recorder, "tsh_records_dropped_total");
    assert_eq!(dropped, 6.0, "what the shard has no room for");
    recorder.stop(WITHIN);
    assert_eq!(seen.json().len() as f64, 10.0 - dropped, "a line for each record that was kept");
}

#[test]
fn workers_record_at_once_and_nothing_is_lost() {
    const WORKERS: usize = 4;
    const EACH: usize = 5_000;
    let options =
        RecorderOptions { workers: WORKERS, queue_lines: WORKERS * EACH, ..RecorderOptions::default() };
    let (recorder, seen) = start(&options);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let handle = recorder.handle(worker);
            scope.spawn(move || {
                for _ in 0..EACH {
                    handle.record(&delivered(&Method::GET, "/"));
                }
            });
        }
    });
    let all = (WORKERS * EACH) as f64;
    assert_eq!(
        count(&recorder, r#"tsh_requests_total{environment="sandbox",route="cards",outcome="2xx"}"#),
        all
    );
    let dropped = count(&recorder, "tsh_records_dropped_total");
    assert!(recorder.flusher().flush_log(WITHIN));
    let unwritten = count(&recorder, r#"tsh_log_lines_dropped_total{reason="queue_full"}"#);
    recorder.stop(WITHIN);
    assert_eq!(seen.text().lines().count() as f64, all - dropped - unwritten);
}

#[test]
fn the_thread_drains_without_being_asked() {
    let (recorder, seen) = start(&RecorderOptions::default());
    recorder.handle(0).record(&delivered(&Method::GET, "/"));
    let until = Instant::now() + WITHIN;
    while seen.text().is_empty() {
        assert!(Instant::now() < until, "no line came");
        std::thread::yield_now();
    }
}

#[test]
fn without_a_log_requests_are_counted_all_the_same() {
    let recorder = Recorder::start_on(None, &RecorderOptions::default(), Metrics::new(catalog())).unwrap();
    recorder.handle(3).record(&delivered(&Method::GET, "/"));
    assert_eq!(
        count(&recorder, r#"tsh_requests_total{environment="sandbox",route="cards",outcome="2xx"}"#),
        1.0
    );
    assert!(recorder.flusher().flush_log(WITHIN));
    assert_eq!(recorder.stop(WITHIN), StopReport::default());
}

#[test]
fn recording_after_the_stop_is_harmless() {
    let (recorder, _seen) = start(&RecorderOptions { batch: 2, ..RecorderOptions::default() });
    let handle = recorder.handle(0);
    recorder.stop(WITHIN);
    for _ in 0..5 {
        handle.record(&delivered(&Method::GET, "/"));
    }
}

#[test]
fn a_delivered_response_is_counted_under_the_class_of_its_status() {
    let (recorder, _seen) = start(&RecorderOptions::default());
    for status in [204, 302, 404, 503, 600] {
        recorder.handle(0).record(&Outcome { status, ..delivered(&Method::GET, "/") });
    }
    for class in ["2xx", "3xx", "4xx", "5xx", "other"] {
        let series =
            format!(r#"tsh_requests_total{{environment="sandbox",route="cards",outcome="{class}"}}"#);
        assert_eq!(count(&recorder, &series), 1.0, "{class}");
    }
}
