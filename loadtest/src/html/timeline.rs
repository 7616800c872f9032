//! What is not of one scenario: handshakes, the gateway's metrics over time, a storm.

use std::collections::BTreeMap;

use super::{
    bars::{self, Bar},
    folder::{Sample, Storm},
    page,
    stats::Spread,
    summary::MIB,
    svg::Look,
    times::{self, Base, Lane, Line, Plot},
};
use crate::handshakes::Report;

/// Points of a line at most.
const POINTS: usize = 800;

/// Handshakes of one `loadgen handshakes`.
pub(super) fn handshakes(report: &Report) -> String {
    let bar = |name: String, number, spread| Bar { name, look: Look::nth(number), spread };
    let costs = report.cases.iter().flat_map(|case| {
        let name = |kind: &str| format!("{}, {}, {kind}", case.key, case.key_exchange);
        [bar(name("full"), 0, case.full.cpu_us), bar(name("resumed"), 1, case.resumed.cpu_us)]
    });
    let ratios =
        report.cases.iter().map(|case| bar(format!("{}, {}", case.key, case.key_exchange), 2, case.ratio));
    let rates = report.cases.iter().flat_map(|case| {
        let name = |kind: &str| format!("{}, {}, {kind}", case.key, case.key_exchange);
        let flat = |value| Spread { median: value, min: value, max: value };
        [
            bar(name("full"), 0, flat(case.full.per_cpu_second)),
            bar(name("resumed"), 1, flat(case.resumed.per_cpu_second)),
        ]
    });
    let draw = |title: &str, sentence: &str, axis: &str, bars: Vec<Bar>| {
        page::figure(title, sentence, &bars::draw(&bars, axis, title))
    };
    let inside = [
        draw(
            "CPU per handshake",
            "CPU time of the client's half of a handshake, the check after it included: median and whisker over \
             the rounds. Shorter is better.",
            "CPU time per handshake, µs",
            costs.collect(),
        ),
        draw(
            "Handshakes per CPU second",
            "Handshakes that one second of CPU time is enough for on the client's side.",
            "handshakes per CPU second",
            rates.collect(),
        ),
        draw(
            "Full by resumed",
            "How many times cheaper a resumed handshake is than a full one, median and whisker over the rounds. Longer is better.",
            "CPU of a full handshake by that of a resumed one",
            ratios.collect(),
        ),
    ];
    let intro = format!(
        "Client side only, over memory, by key of both certificates and by key exchange: {} rounds of {} each. The \
         clock's own {:.1} µs per handshake are included. Full by resumed: {}.",
        report.rounds,
        report.count,
        report.clock_us,
        wanted(report)
    );
    page::section("Handshakes", &intro, &inside.concat())
}

/// What is asked of the ratios, and whether it holds.
fn wanted(report: &Report) -> String {
    let judged = report.cases.iter().filter_map(|case| {
        let (wanted, found) = (case.wanted_ratio?, case.ratio.median);
        let verdict = if case.is_good() { "good" } else { "FAILED" };
        Some(format!("{}, {}: {found:.2}, wanted at least {wanted}: {verdict}", case.key, case.key_exchange))
    });
    judged.collect::<Vec<_>>().join("; ")
}

/// The gateway's metrics over time.
pub(super) fn gateway(name: &str, samples: &[Sample]) -> String {
    let samples = thinned(samples);
    let line = |name: &str, number, points| Line { name: name.to_owned(), look: Look::nth(number), points };
    let alone =
        |name: &str, number, points| Line { name: name.to_owned(), look: Look::solid(number), points };
    // Before the first request there is no reuse, and its zero would hide the rest.
    let used = samples.iter().filter(|sample| sample.requests > 0);
    let reuse = used.map(|sample| (seconds(sample), sample.reuse_ratio)).collect();
    let gauge = |value: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        samples.iter().map(|sample| (seconds(sample), value(sample))).collect()
    };
    let draw = |title: &str, sentence: &str, axis, base, lines| {
        let plot = Plot { axis, base, lines, lanes: Vec::new() };
        let drawing = times::draw(&plot, &format!("{title}, {name}"));
        drawing.map_or(String::new(), |drawing| page::figure(title, sentence, &drawing))
    };
    let inside = [
        draw(
            "Handshakes over time",
            "Handshakes that came to serve, per second between two samples, full and resumed.",
            "handshakes per second",
            Base::Zero,
            vec![
                line("full", 0, rates(&samples, |sample| sample.handshakes_full)),
                line("resumed", 1, rates(&samples, |sample| sample.handshakes_resumed)),
            ],
        ),
        draw(
            "Reuse over time",
            "Share of the requests since the gateway's start that needed no new connection; the axis does not \
             begin at zero.",
            "1 - connections / requests",
            Base::Data,
            vec![alone("reuse", 2, reuse)],
        ),
        draw(
            "Requests over time",
            "Requests that ended, per second between two samples.",
            "requests per second",
            Base::Zero,
            vec![alone("requests", 0, rates(&samples, |sample| sample.requests))],
        ),
        draw(
            "Connections over time",
            "Connections to the provider in any state, at each sample.",
            "connections",
            Base::Zero,
            vec![alone("connections", 3, gauge(|sample| sample.connections as f64))],
        ),
    ];
    let intro = format!("{} samples of the gateway's metrics.", samples.len());
    page::section(&format!("Gateway over time: {name}"), &intro, &inside.concat())
}

/// Every n-th sample, so that what is drawn is bounded; rates between those left are still right.
fn thinned(samples: &[Sample]) -> Vec<Sample> {
    samples.iter().step_by(samples.len().div_ceil(POINTS).max(1)).copied().collect()
}

fn seconds(sample: &Sample) -> f64 {
    sample.t_ms as f64 / 1e3
}

/// Growth of a counter per second between samples; one that fell began anew at zero.
fn rates(samples: &[Sample], counter: fn(&Sample) -> u64) -> Vec<(f64, f64)> {
    let pairs = samples.iter().zip(samples.iter().skip(1));
    let rate = |(before, after): (&Sample, &Sample)| {
        let (from, to) = (counter(before), counter(after));
        let grown = to.checked_sub(from).unwrap_or(to) as f64;
        let took = seconds(after) - seconds(before);
        (took > 0.0).then(|| (seconds(after), grown / took))
    };
    pairs.filter_map(rate).collect()
}

/// Memory and faults of a storm.
pub(super) fn storm(name: &str, storm: &Storm) -> String {
    let step = storm.samples.len().div_ceil(POINTS).max(1);
    let memory = storm.samples.iter().step_by(step).map(|sample| (sample.at, sample.resident as f64 / MIB));
    let mut lanes: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for fault in &storm.faults {
        lanes.entry(&fault.fault.kind).or_default().push(fault.at);
    }
    let lanes = lanes.into_iter().map(|(name, at)| Lane { name: name.replace('_', " "), at }).collect();
    let lines =
        vec![Line { name: "resident memory".to_owned(), look: Look::nth(0), points: memory.collect() }];
    let plot = Plot { axis: "resident memory, MiB", base: Base::Zero, lines, lanes };
    let title = "Memory and faults over time";
    let sentence = "Resident memory of gateway, provider and callers together above; below, one dot for every fault, \
                    by kind.";
    let drawing = times::draw(&plot, &format!("{title}, {name}"));
    let inside = drawing.map_or(String::new(), |drawing| page::figure(title, sentence, &drawing));
    let outcomes: Vec<_> = storm
        .outcomes
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    let judged = if storm.failures.is_empty() { "Good.".to_owned() } else { failed(&storm.failures) };
    let intro = format!(
        "{} s at {} requests per second, seed {}. Requests: {}. {judged}",
        storm.seconds,
        storm.rate,
        storm.seed,
        outcomes.join(", ")
    );
    page::section(&storm_title(name), &intro, &inside)
}

fn storm_title(name: &str) -> String {
    let named = name.trim_start_matches("storm").trim_start_matches('-');
    if named.is_empty() { "Storm".to_owned() } else { format!("Storm: {named}") }
}

fn failed(failures: &[String]) -> String {
    format!("FAILED: {}.", failures.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(requests: &[u64]) -> Vec<Sample> {
        let at = |(index, &requests)| Sample { t_ms: index as u64 * 200, requests, ..Sample::default() };
        requests.iter().enumerate().map(at).collect()
    }

    #[test]
    fn a_rate_is_growth_by_time_and_survives_a_restart() {
        let rates = rates(&samples(&[100, 120, 120, 6]), |sample| sample.requests);
        let rounded: Vec<_> = rates.iter().map(|(_, rate)| rate.round() as u64).collect();
        assert_eq!(rounded, [100, 0, 30]);
    }

    #[test]
    fn thinning_bounds_what_is_drawn() {
        let many: Vec<u64> = (0..10_000).collect();
        assert!(thinned(&samples(&many)).len() <= POINTS);
        assert_eq!(thinned(&samples(&[1, 2])).len(), 2);
        assert!(thinned(&[]).is_empty());
    }
}
