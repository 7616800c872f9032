//! The summary as a table for people.

use std::io::{self, Write};

use super::{Figure, Subject, Summary};

/// The figure that has a column of its own.
const SYSCALLS: &str = "system calls per request";

const HEAD: [&str; 14] = [
    "scenario",
    "subject",
    "runs",
    "CPU µs/req",
    "min..max",
    "ratio to best peer",
    "req/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "RSS MiB",
    "syscalls/req",
    "lost",
];

/// Writes the table, figures without a column, and comparisons across scenarios.
///
/// # Errors
/// Whatever the writer says.
pub(super) fn write(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = vec![HEAD.map(str::to_owned)];
    for scenario in &summary.scenarios {
        for subject in scenario.subjects.iter().filter(|subject| subject.runs > 0) {
            let is_best = scenario.best_peer.as_deref() == Some(subject.subject.as_str());
            lines.push(cells(&scenario.scenario, subject, if is_best { " *" } else { "" }));
        }
    }
    if lines.len() > 1 {
        write_aligned(&lines, out)?;
        writeln!(out, "* best peer: the least CPU per request among the peers that lost nothing")?;
    }
    for figure in summary.figures.iter().filter(|figure| figure.name != SYSCALLS) {
        let Figure { scenario, subject, name, value, unit, note } = figure;
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        writeln!(out, "{scenario}  {subject}: {name} {value:.0} {unit}{note}")?;
    }
    for comparison in &summary.comparisons {
        writeln!(out, "CPU per request {}: {:.2}", comparison.what, comparison.ratio)?;
    }
    Ok(())
}

fn cells(scenario: &str, subject: &Subject, mark: &str) -> [String; HEAD.len()] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let ms = |us: f64| format!("{:.2}", us / 1000.0);
    let latency = subject.latency_us.unwrap_or_default();
    let cpu = subject.cpu_us_per_request;
    [
        scenario.to_owned(),
        format!("{}{mark}", subject.subject),
        subject.runs.to_string(),
        or_dash(cpu.map(|cpu| format!("{:.1}", cpu.median))),
        or_dash(cpu.map(|cpu| format!("{:.1}..{:.1}", cpu.min, cpu.max))),
        or_dash(subject.ratio_to_best_peer.map(|r| format!("{:.2} ({:.2}..{:.2})", r.median, r.min, r.max))),
        or_dash(subject.requests_per_second.map(|rate| format!("{:.0}", rate.median))),
        ms(latency.p50),
        ms(latency.p99),
        ms(latency.p999),
        ms(latency.max as f64),
        or_dash(subject.rss_peak_bytes.map(|bytes| format!("{:.1}", bytes / f64::from(1 << 20)))),
        or_dash(subject.figures.get(SYSCALLS).map(|calls| format!("{:.2}", calls.median))),
        subject.lost.to_string(),
    ]
}

fn write_aligned(lines: &[[String; HEAD.len()]], out: &mut dyn Write) -> io::Result<()> {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            match column {
                0 => write!(out, "{cell:<width$}")?,
                1 => write!(out, "  {cell:<width$}")?,
                _ => write!(out, "  {cell:>width$}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
