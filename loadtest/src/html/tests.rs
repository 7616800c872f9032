//! The page as a whole: it is well-formed, says what the JSON says, and stands on its own.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A folder with these files, and the page made of it.
struct Made {
    _folder: TempDir,
    page: String,
}

fn make(files: &[(&str, Value)]) -> Made {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    let mut told = Vec::new();
    run(&args(folder.path()), &mut told).unwrap();
    let file = String::from_utf8(told).unwrap();
    let page = fs::read_to_string(file.trim()).unwrap();
    assert_well_formed(&page);
    Made { _folder: folder, page }
}

fn args(folder: &Path) -> HtmlArgs {
    HtmlArgs { folder: folder.to_owned(), ours: "gateway".into() }
}

/// A report as `--json` writes it; figures follow from `seed`, so that no two are alike.
fn report(scenario: &str, subject: &str, seed: u64) -> Value {
    let usage = json!({"cpu_seconds": 0.5, "cpu_us_per_request": 20.0 + seed as f64 * 1.37,
        "rss_peak_bytes": (10 + seed) * 1_048_576, "pss_peak_bytes": (9 + seed) * 1_048_576});
    let us = 100 + seed * 7;
    json!({
        "format": 1,
        "setup": {"scenario": scenario, "subject": subject, "target": "http://127.0.0.1:1/", "protocol": "h2c",
            "rate": null, "connections": 4, "streams": 32, "body_bytes": 1024, "correlation_prefix": null},
        "seconds": 2.0, "requests_per_second": 4000.0 + seed as f64,
        "ledger": {"started": 8000 + seed, "ok": 8000 + seed, "lost": {}},
        "warmup": {"started": 10, "ok": 10, "lost": {}},
        "latency_us": {"mean": us, "min": us, "p50": us, "p90": us * 2, "p99": us * 3, "p999": us * 5, "max": us * 11},
        "lag_us": {"mean": 0.0, "min": 0, "p50": 0, "p90": 0, "p99": 0, "p999": 0, "max": 0},
        "statuses": {"200": 8000}, "body_bytes_received": 1, "reconnects": 0, "interrupted": false,
        "first_lost": {}, "process": usage, "generator": usage,
        "histogram": [[us, 4000], [us * 2, 3900], [us * 3, 90], [us * 11, 10]],
    })
}

fn rounds() -> Vec<(&'static str, Value)> {
    vec![
        ("a-1-gateway.json", report("a", "gateway", 1)),
        ("a-1-nginx.json", report("a", "nginx", 12)),
        ("a-1-envoy.json", report("a", "envoy", 60)),
        ("a-1-direct.json", report("a", "direct", 0)),
        ("a-2-gateway.json", report("a", "gateway", 4)),
        ("a-2-nginx.json", report("a", "nginx", 10)),
        ("a-3-gateway.json", report("a", "gateway", 3)),
        ("a-3-nginx.json", report("a", "nginx", 15)),
    ]
}

/// Every element that is opened is closed, in order; attributes are quoted.
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a stray > before {:.60}", &rest[at..]);
        let end = at + rest[at..].find('>').expect("every tag ends");
        let tag = &rest[at + 1..end];
        assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        rest = &rest[end + 1..];
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed out of turn");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        if tag == "style" {
            // What is in it is no markup.
            rest = &rest[rest.find("</style").expect("the style ends")..];
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "left open");
}

/// Cells of the table `id`, row by row, without markup; the spread after a blank.
fn cells(page: &str, id: &str) -> Vec<Vec<String>> {
    let table =
        page.split(&format!("<table id=\"{id}\">")).nth(1).expect("the table").split("</table>").next();
    let body = table.and_then(|table| table.split("<tbody>").nth(1)).unwrap();
    let cell = |text: &str| {
        let text = text.split("</td>").next().unwrap().split_once('>').unwrap().1;
        text.replace("<small>", " ").replace("</small>", "")
    };
    body.split("<tr").skip(1).map(|row| row.split("<td").skip(1).map(cell).collect()).collect()
}

/// Median, least, largest of a number in the reports of one subject, by the JSON alone.
fn expected(files: &[(&str, Value)], subject: &str, pointer: &str, scale: f64) -> (f64, f64, f64) {
    let mine = files.iter().filter(|(_, value)| value["setup"]["subject"] == subject);
    let mut values: Vec<f64> =
        mine.map(|(_, value)| value.pointer(pointer).unwrap().as_f64().unwrap() / scale).collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

#[test]
fn every_number_of_the_summary_is_that_of_the_json() {
    let files = rounds();
    let rows = cells(&make(&files).page, "summary");
    let subjects: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(subjects, ["gateway", "envoy", "nginx", "direct"], "ours first, references last");
    for row in &rows {
        assert_eq!(row[0], "a");
        let subject = row[1].as_str();
        for (column, pointer, scale) in [
            (3, "/process/cpu_us_per_request", 1.0),
            (5, "/requests_per_second", 1.0),
            (6, "/latency_us/p50", 1e3),
            (7, "/latency_us/p99", 1e3),
            (8, "/latency_us/p999", 1e3),
            (10, "/process/rss_peak_bytes", 1_048_576.0),
            (11, "/process/pss_peak_bytes", 1_048_576.0),
        ] {
            let (median, min, max) = expected(&files, subject, pointer, scale);
            let mut words = svg::short(median);
            if svg::short(min) != svg::short(max) {
                words = format!("{words} {}..{}", svg::short(min), svg::short(max));
            }
            assert_eq!(row[column], words, "{subject} {pointer}");
        }
        let (_, _, max) = expected(&files, subject, "/latency_us/max", 1e3);
        assert_eq!(row[9], svg::short(max));
        let mine = || files.iter().filter(|(_, value)| value["setup"]["subject"] == subject);
        let started: u64 = mine().map(|(_, value)| value["ledger"]["started"].as_u64().unwrap()).sum();
        assert_eq!(
            (&row[2], &row[12], &row[13]),
            (&mine().count().to_string(), &started.to_string(), &"0".into())
        );
    }
    let cpu = |seed: f64| 20.0 + seed * 1.37;
    let ratios = [cpu(1.0) / cpu(12.0), cpu(4.0) / cpu(10.0), cpu(3.0) / cpu(15.0)];
    let (least, most) =
        (ratios.iter().copied().fold(9.0, f64::min), ratios.iter().copied().fold(0.0, f64::max));
    assert_eq!(
        rows[0][4],
        format!("{:.2} {least:.2}..{most:.2}", cpu(3.0) / cpu(12.0)),
        "against nginx, the best peer"
    );
    assert_eq!(rows[2][4], "1.00", "the best peer against itself");
}

#[test]
fn one_subject_alone_has_no_ratio_and_its_own_drawings() {
    let page = make(&[("a-1-gateway.json", report("a", "gateway", 1))]).page;
    assert_eq!(cells(&page, "summary")[0][4], "–");
    assert_eq!(page.matches("<svg").count(), 4, "CPU, latency, throughput, memory");
    assert!(page.contains("No request was lost: 8001 started"), "{page}");
    assert!(!page.contains("NaN") && !page.contains("inf"), "a number that is none");
}

#[test]
fn a_report_without_histogram_or_process_leaves_those_drawings_out() {
    let mut bare = report("g", "gateway", 1);
    bare.as_object_mut().unwrap().remove("histogram");
    bare["process"] = Value::Null;
    bare["setup"]["rate"] = json!(1000.0);
    let page = make(&[("g-1-gateway.json", bare)]).page;
    assert_eq!(page.matches("<svg").count(), 1, "throughput alone");
    assert!(page.contains("kept a histogram"), "{page}");
    assert!(page.contains("open loop at 1000 per second"), "{page}");
}

#[test]
fn lost_requests_are_said_on_top_and_marked_in_the_table() {
    let mut lossy = report("a", "gateway", 1);
    lossy["ledger"] = json!({"started": 10, "ok": 7, "lost": {"reset": 2, "timeout": 1}});
    lossy["warmup"] = json!({"started": 5, "ok": 4, "lost": {"reset": 1}});
    let mut files = rounds();
    files[0].1 = lossy;
    let page = make(&files).page;
    assert!(page.contains("4 requests were lost, warm-up included, in 1 of the runs."), "{page}");
    assert!(page.contains("<td class=\"bad\">4</td>"), "{page}");
    assert_eq!(cells(&page, "summary")[0][13], "4");
}

#[test]
fn a_peer_that_lost_requests_is_not_the_best_while_another_lost_none() {
    let mut files = rounds();
    files[1].1["ledger"] = json!({"started": 10, "ok": 9, "lost": {"reset": 1}});
    let cpu = |seed: f64| 20.0 + seed * 1.37;
    let rows = cells(&make(&files).page, "summary");
    assert_eq!(rows[0][4], format!("{:.2}", cpu(3.0) / cpu(60.0)), "against envoy");
}

#[test]
fn runs_of_different_loads_are_not_passed_off_as_comparable() {
    let mut files = rounds();
    assert!(!make(&files).page.contains("do not compare"));
    files[1].1["setup"]["connections"] = json!(5);
    assert!(make(&files).page.contains("do not compare"));
}

#[test]
fn figures_time_series_storms_and_handshakes_have_their_own_places() {
    let spread = json!({"median": 500.0, "min": 490.0, "max": 520.0});
    let cost = json!({"cpu_us": spread, "per_cpu_second": 2000.0});
    let ratio = json!({"median": 2.75, "min": 2.6, "max": 2.9});
    let sample = |t: u64| {
        json!({"t_ms": t * 200, "handshakes_full": t / 3, "handshakes_resumed": t, "requests": t * 90,
        "reuse_ratio": 0.99, "connections": 4})
    };
    let mut files = rounds();
    files.extend([
        ("lab.json", json!({"figures": [{"scenario": "a", "subject": "gateway", "name": "system calls", "unit": "per request",
            "value": 1.5, "note": "strace <-c>"}]})),
        ("timeseries-restart.json", Value::from((0..50).map(sample).collect::<Vec<_>>())),
        ("storm.json", json!({"seed": 7, "rate": 1000.0, "seconds": 30.0, "failures": [], "outcomes": {"answered": 29999},
            "faults": [{"at": 2.5, "fault": {"kind": "go_away", "form": "exact"}}],
            "samples": [{"at": 1.0, "resident": 50_000_000}, {"at": 2.0, "resident": 52_000_000}]})),
        ("j.json", json!({"count": 200, "rounds": 5, "clock_us": 1.5, "cases": [{"key": "RSA 2048", "key_exchange": "X25519",
            "full": cost, "resumed": cost, "ratio": ratio, "wanted_ratio": 2.5}]})),
    ]);
    let made = make(&files);
    let page = &made.page;
    assert_eq!(
        cells(page, "figures"),
        [["a", "gateway", "system calls", "1.50", "per request", "strace &lt;-c&gt;"]]
    );
    for words in [
        "Gateway over time: restart",
        "<h2>Storm</h2>",
        "go away at 2.5 s",
        "RSA 2048, X25519: 2.75, wanted at least 2.5: good",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert_eq!(page.matches("<svg").count(), 4 + 3 + 4 + 1);
    // `loadgen table` of the same folder reads the runs alone.
    let runs = crate::table::read(&[made._folder.path().to_owned()]).unwrap();
    assert_eq!(runs.len(), 8);
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = make(&rounds()).page;
    for foreign in ["<script", "<link", "<img", "url(", "@import", "src=", "href="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let addresses = page.matches("http://").count() - page.matches("xmlns=\"http://").count();
    assert_eq!(addresses, 0, "only the name space of SVG looks like an address");
}

#[test]
fn names_of_scenarios_and_subjects_cannot_break_the_page() {
    let page = make(&[("x.json", report("a<b>&\"", "<script>alert(1)</script>", 1))]).page;
    assert!(!page.contains("<script"), "{page}");
}

#[test]
fn an_empty_folder_and_a_stranger_are_refused_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let complaint = |folder: &Path| run(&args(folder), &mut Vec::new()).unwrap_err().to_string();
    assert!(complaint(folder.path()).contains("holds no JSON report"));
    assert!(complaint(&folder.path().join("nowhere")).contains("no folder"));
    fs::write(folder.path().join("odd.json"), "{\"x\": 1}").unwrap();
    assert!(complaint(folder.path()).contains("odd.json"));
}
