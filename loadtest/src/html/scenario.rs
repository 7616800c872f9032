//! The drawings of one scenario: CPU, throughput, memory, latency.

use super::{
    bars::{self, Bar},
    curves::{self, Curve},
    page::{self, Palette},
    stats::{Row, Scenario, Spread},
    summary::MIB,
};
use crate::report::Setup;

/// All drawings of a scenario.
pub(super) fn section(scenario: &Scenario<'_>, palette: &Palette<'_>) -> String {
    let chart = |title: &str, sentence: &str, axis: &str, values: &dyn Fn(&Row<'_>) -> Vec<f64>| {
        let bars: Vec<Bar> = scenario.rows.iter().filter_map(|row| bar(row, palette, values(row))).collect();
        if bars.is_empty() {
            return String::new();
        }
        page::figure(
            title,
            sentence,
            &bars::draw(&bars, axis, &format!("{title}, scenario {}", scenario.name)),
        )
    };
    let inside = [
        chart(
            "CPU per request",
            "CPU time of the whole program per request, user and kernel: the median of the runs, and the whisker \
             from the least to the largest. Shorter is better.",
            "CPU time per request, µs",
            &|row| row.cpu(),
        ),
        latency(scenario, palette),
        chart(
            "Throughput",
            "Requests that ended per second, median and whisker over the runs. In an open loop it is the rate \
             that was offered, if the program kept up.",
            "requests per second",
            &|row| row.values(|run| Some(run.requests_per_second)),
        ),
        chart(
            "Memory",
            "Largest resident memory of all processes of the program together, median and whisker over the \
             runs. Shorter is better.",
            "resident memory, MiB",
            &|row| row.values(|run| Some(run.process?.rss_peak_bytes as f64 / MIB).filter(|mib| *mib > 0.0)),
        ),
    ]
    .concat();
    page::section(&format!("Scenario {}", scenario.name), &describe(scenario), &inside)
}

fn bar(row: &Row<'_>, palette: &Palette<'_>, values: Vec<f64>) -> Option<Bar> {
    let spread = Spread::of(&values)?;
    Some(Bar { name: row.subject.to_owned(), look: palette.look(row.subject), spread })
}

fn latency(scenario: &Scenario<'_>, palette: &Palette<'_>) -> String {
    let title = "Latency by percentile";
    let curve = |row: &Row<'_>| Curve {
        name: row.subject.to_owned(),
        look: palette.look(row.subject),
        buckets: row.histogram(),
    };
    let curves: Vec<Curve> = scenario.rows.iter().map(curve).collect();
    let is_open = scenario.rows.iter().flat_map(|row| &row.runs).all(|run| run.setup.rate.is_some());
    let sentence = if is_open {
        "Time within which a share of the requests was answered, from the intended start, all runs together; \
         each further nine has the same room. Lower is better."
    } else {
        "Time within which a share of the requests was answered, all runs together; each further nine has the \
         same room. The loop is closed: callers wait for replies, so this is no measure under a given load."
    };
    match curves::draw(&curves, &format!("{title}, scenario {}", scenario.name)) {
        Some(drawing) => page::figure(title, sentence, &drawing),
        None => page::figure(title, "No run of this scenario kept a histogram of latencies.", ""),
    }
}

/// The load in words, from the first run; and whether others had another.
fn describe(scenario: &Scenario<'_>) -> String {
    let runs = || scenario.rows.iter().flat_map(|row| &row.runs);
    let Some(first) = runs().next() else { return String::new() };
    let load = |setup: &Setup| {
        let Setup { protocol, connections, streams, body_bytes, .. } = setup;
        let pacing =
            setup.rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate} per second"));
        format!("{protocol}, {pacing}, {connections} connections × {streams}, bodies of {body_bytes} B")
    };
    let words = load(&first.setup);
    let differs = runs().any(|run| load(&run.setup) != words);
    let warning = if differs { " Not all runs had the same load: they do not compare." } else { "" };
    format!("{words}; {:.1} s per run.{warning}", first.seconds)
}
