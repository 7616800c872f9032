//! The tables at the top: all scenarios and subjects in numbers, and the figures of the laboratory.

use std::fmt::Write as _;

use super::{
    folder::Figure,
    stats::{Part, Row, Scenario, Spread, cpu_ratio},
    svg::{escape, short},
};
use crate::report::Report;

/// Bytes of a mebibyte.
pub(super) const MIB: f64 = 1_048_576.0;

const HEAD: [&str; 12] = [
    "runs",
    "CPU per request, µs",
    "CPU, ratio to best peer",
    "requests/s",
    "p50, ms",
    "p99, ms",
    "p99.9, ms",
    "max, ms",
    "RSS peak, MiB",
    "PSS peak, MiB",
    "started",
    "lost",
];

/// One sentence on lost requests and on runs that prove nothing.
pub(super) fn verdict(reports: &[Report]) -> String {
    let bad = reports.iter().filter(|report| !report.is_good()).count();
    let lost: u64 = reports.iter().map(|r| r.ledger.lost_total() + r.warmup.lost_total()).sum();
    let interrupted = reports.iter().filter(|report| report.interrupted).count();
    let started: u64 = reports.iter().map(|report| report.ledger.started).sum();
    let (class, mut words) = match (lost, bad) {
        (0, 0) => ("verdict", format!("No request was lost: {started} started, all answered as expected.")),
        (0, _) => ("bad", format!("{bad} runs prove nothing: they answered no request or do not balance.")),
        _ => ("bad", format!("{lost} requests were lost, warm-up included, in {bad} of the runs.")),
    };
    if interrupted > 0 {
        let _infallible = write!(words, " {interrupted} runs were interrupted.");
    }
    format!("<p class=\"{class}\">{words}</p>\n")
}

/// All scenarios and subjects.
pub(super) fn table(scenarios: &[Scenario<'_>], ours: &str) -> String {
    let mut html = String::from(
        "<h2>Summary</h2>\n<p>Large: the median over the runs. Small: the least and the largest run. The ratio is CPU \
         per request by that of the cheapest peer in the scenario, the medians and, small, within each round; below \
         1 is cheaper. The maximum is over all runs, started and lost are sums, warm-up losses included.</p>\n\
         <div class=\"wide\"><table id=\"summary\">\n<thead><tr><th class=\"words\">scenario</th>\
         <th class=\"words\">subject</th>",
    );
    for title in HEAD {
        let _infallible = write!(html, "<th>{title}</th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for scenario in scenarios {
        let best = scenario.best_peer(ours);
        for (index, row) in scenario.rows.iter().enumerate() {
            let first = if index == 0 { "first" } else { "" };
            let own = if Part::of(row.subject, ours) == Part::Ours { "ours" } else { "" };
            let ratio = best.and_then(|peer| cpu_ratio(row, peer));
            let _infallible = writeln!(
                html,
                "<tr class=\"{first} {own}\"><td class=\"words\">{}</td><td class=\"words\">{}</td>{}</tr>",
                escape(scenario.name),
                escape(row.subject),
                cells(row, ratio)
            );
        }
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}

fn cells(row: &Row<'_>, ratio: Option<Spread>) -> String {
    let spread = |values: Vec<f64>| cell(Spread::of(&values), short);
    // An empty histogram has zeros for percentiles: they are no latency.
    let latency = |pick: fn(&Report) -> u64| {
        spread(row.values(|run| (run.latency_us.max > 0).then(|| pick(run) as f64 / 1e3)))
    };
    let largest = row.runs.iter().map(|run| run.latency_us.max).max().filter(|max| *max > 0);
    let largest = largest.map_or("–".to_owned(), |us| short(us as f64 / 1e3));
    // Zero is "not readable".
    let memory = |bytes: u64| (bytes > 0).then_some(bytes as f64 / MIB);
    let lost = row.lost();
    let lost_class = if lost > 0 { " class=\"bad\"" } else { "" };
    [
        format!("<td>{}</td>", row.runs.len()),
        spread(row.cpu()),
        cell(ratio, |value| format!("{value:.2}")),
        spread(row.values(|run| Some(run.requests_per_second))),
        latency(|run| run.latency_us.p50),
        latency(|run| run.latency_us.p99),
        latency(|run| run.latency_us.p999),
        format!("<td>{largest}</td>"),
        spread(row.values(|run| memory(run.process?.rss_peak_bytes))),
        spread(row.values(|run| memory(run.process?.pss_peak_bytes))),
        format!("<td>{}</td>", row.started()),
        format!("<td{lost_class}>{lost}</td>"),
    ]
    .concat()
}

fn cell(spread: Option<Spread>, text: impl Fn(f64) -> String) -> String {
    match spread {
        None => "<td>–</td>".to_owned(),
        // Equal, or not to be told apart in three digits.
        Some(Spread { median, min, max }) if text(min) == text(max) => format!("<td>{}</td>", text(median)),
        Some(Spread { median, min, max }) => {
            format!("<td>{}<small>{}..{}</small></td>", text(median), text(min), text(max))
        }
    }
}

/// Figures that no run reports, as `lab.json` lists them.
pub(super) fn figures(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<h2>Further figures</h2>\n<p>What no single run reports, from lab.json.</p>\n<div class=\"wide\">\
         <table id=\"figures\">\n<thead><tr><th class=\"words\">scenario</th><th class=\"words\">subject</th>\
         <th class=\"words\">figure</th><th>value</th><th class=\"words\">unit</th><th class=\"words\">note</th></tr>\
         </thead>\n<tbody>\n",
    );
    let mut previous = None;
    for Figure { scenario, subject, name, unit, value, note } in figures {
        let class = if previous == Some(scenario) { "" } else { "first" };
        previous = Some(scenario);
        let [scenario, subject, name, unit, note] =
            [scenario, subject, name, unit, note].map(|text| escape(text));
        let _infallible = writeln!(
            html,
            "<tr class=\"{class}\"><td class=\"words\">{scenario}</td><td class=\"words\">{subject}</td>\
             <td class=\"words\">{name}</td><td>{}</td><td class=\"words\">{unit}</td>\
             <td class=\"words note\">{note}</td></tr>",
            short(*value)
        );
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}
