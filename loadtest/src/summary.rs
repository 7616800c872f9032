//! The judgement of a run of the laboratory: per scenario and program medians with their spread, the ratio to
//! the best peer, and figures that are in no report.
//!
//! Reads the reports of a folder and the files of its `figures`; owns the form of `lab.json`. The layout for
//! people is in `summary/text.rs`.

mod text;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{error::Error, report::Report, table};

/// Name of the summary in the folder it is about.
pub(crate) const FILE: &str = "lab.json";
/// Folder of single figures, beside the reports.
const FIGURES: &str = "figures";
/// Changes when a field changes its meaning or goes away.
const FORMAT: u32 = 1;

/// All scenarios of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    format: u32,
    scenarios: Vec<Scenario>,
    comparisons: Vec<Comparison>,
    /// Medians of all figures, once more as a list for `loadgen html`.
    figures: Vec<Figure>,
}

/// One scenario.
#[derive(Debug, Serialize)]
struct Scenario {
    scenario: String,
    /// The peer with the least CPU per request that lost nothing; if all lost something, the one of all.
    best_peer: Option<String>,
    subjects: Vec<Subject>,
}

/// One program in one scenario.
#[derive(Debug, Default, Serialize)]
struct Subject {
    subject: String,
    runs: usize,
    cpu_us_per_request: Option<Spread>,
    /// Median of the ratio of medians; its spread is that of the rounds, each against the same round of the peer.
    ratio_to_best_peer: Option<Spread>,
    requests_per_second: Option<Spread>,
    requests_per_cpu_second: Option<f64>,
    /// Medians over the rounds; `max` is the largest.
    latency_us: Option<Latency>,
    rss_peak_bytes: Option<f64>,
    pss_peak_bytes: Option<f64>,
    started: u64,
    lost: u64,
    /// Medians of figures by name, system calls per request among them.
    figures: BTreeMap<String, Spread>,
}

/// Median, least and largest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
    max: u64,
}

/// Two lines of the run against each other.
#[derive(Debug, Serialize)]
struct Comparison {
    what: &'static str,
    ratio: f64,
}

/// A figure as scripts and commands leave it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Figure {
    scenario: String,
    subject: String,
    name: String,
    value: f64,
    #[serde(default)]
    unit: String,
    /// Spread over the rounds; none in the files.
    #[serde(default)]
    note: String,
}

impl Summary {
    /// Reads a folder.
    ///
    /// # Errors
    /// [`Error::File`] for what cannot be read, [`Error::Report`] for what is neither report nor figure.
    pub(crate) fn of(folder: &Path) -> Result<Self, Error> {
        Ok(Self::new(&table::read(&[folder.to_owned()])?, &figures(&folder.join(FIGURES))?))
    }

    fn new(reports: &[Report], figures: &[Figure]) -> Self {
        let mut names: Vec<(&str, &str)> = Vec::new();
        let of_reports = reports.iter().map(|r| (r.setup.scenario.as_str(), r.setup.subject.as_str()));
        for name in of_reports.chain(figures.iter().map(|f| (f.scenario.as_str(), f.subject.as_str()))) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        // Our own first; the rest as they came.
        names.sort_by_key(|(scenario, subject)| (*scenario, !subject.starts_with("gateway")));
        let mut scenarios: Vec<Scenario> = Vec::new();
        for group in names.chunk_by(|one, other| one.0 == other.0) {
            let runs = |subject: &str| -> Vec<&Report> {
                let of = |r: &&Report| r.setup.scenario == group[0].0 && r.setup.subject == subject;
                reports.iter().filter(of).collect()
            };
            let mut subjects: Vec<_> =
                group.iter().map(|(scenario, name)| subject(name, &runs(name), scenario, figures)).collect();
            let best = best_peer(&subjects);
            if let Some(best) = &best {
                let theirs = runs(best);
                for subject in &mut subjects {
                    subject.ratio_to_best_peer = ratio(&runs(&subject.subject), &theirs);
                }
            }
            scenarios.push(Scenario { scenario: group[0].0.to_owned(), best_peer: best, subjects });
        }
        let comparisons = comparisons(&scenarios);
        Self { format: FORMAT, figures: medians(&scenarios, figures), scenarios, comparisons }
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        text::write(self, out)
    }
}

fn figures(folder: &Path) -> Result<Vec<Figure>, Error> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut figures = Vec::new();
    for file in table::files(folder)? {
        let text = fs::read_to_string(&file).map_err(|source| Error::File {
            action: "read",
            path: file.clone(),
            source,
        })?;
        figures.push(
            serde_json::from_str(&text).map_err(|source| Error::Report { path: file.clone(), source })?,
        );
    }
    Ok(figures)
}

/// The gateway under any of its settings, and what is no proxy at all.
fn is_peer(subject: &str) -> bool {
    !subject.starts_with("gateway") && subject != "floor" && subject != "direct"
}

fn best_peer(subjects: &[Subject]) -> Option<String> {
    let cpu = |subject: &Subject| subject.cpu_us_per_request.map(|cpu| cpu.median);
    subjects
        .iter()
        .filter(|subject| is_peer(&subject.subject) && cpu(subject).is_some_and(|cpu| cpu > 0.0))
        // One that drops work is cheap.
        .min_by(|a, b| {
            (a.lost > 0).cmp(&(b.lost > 0)).then(cpu(a).unwrap_or(0.0).total_cmp(&cpu(b).unwrap_or(0.0)))
        })
        .map(|subject| subject.subject.clone())
}

fn subject(name: &str, runs: &[&Report], scenario: &str, figures: &[Figure]) -> Subject {
    let of = |value: &dyn Fn(&Report) -> f64| runs.iter().map(|run| value(run)).collect::<Vec<f64>>();
    let used = |value: fn(&crate::report::Usage) -> f64| {
        Spread::of(runs.iter().filter_map(|run| run.process.as_ref().map(value)).collect())
    };
    let cpu = used(|usage| usage.cpu_us_per_request);
    let latency =
        |value: fn(&Report) -> u64| Spread::of(of(&|run| value(run) as f64)).map_or(0.0, |s| s.median);
    let mut by_name: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for figure in figures.iter().filter(|figure| figure.scenario == scenario && figure.subject == name) {
        by_name.entry(figure.name.clone()).or_default().push(figure.value);
    }
    Subject {
        subject: name.to_owned(),
        runs: runs.len(),
        cpu_us_per_request: cpu,
        ratio_to_best_peer: None,
        requests_per_second: Spread::of(of(&|run| run.requests_per_second)),
        requests_per_cpu_second: cpu.filter(|cpu| cpu.median > 0.0).map(|cpu| 1e6 / cpu.median),
        latency_us: (!runs.is_empty()).then(|| Latency {
            p50: latency(|run| run.latency_us.p50),
            p99: latency(|run| run.latency_us.p99),
            p999: latency(|run| run.latency_us.p999),
            max: runs.iter().map(|run| run.latency_us.max).max().unwrap_or(0),
        }),
        rss_peak_bytes: used(|usage| usage.rss_peak_bytes as f64).map(|spread| spread.median),
        pss_peak_bytes: used(|usage| usage.pss_peak_bytes as f64).map(|spread| spread.median),
        started: runs.iter().map(|run| run.ledger.started).sum(),
        lost: runs.iter().map(|run| run.ledger.lost_total() + run.warmup.lost_total()).sum(),
        figures: by_name.into_iter().filter_map(|(name, of)| Some((name, Spread::of(of)?))).collect(),
    }
}

/// One figure per scenario, subject and name.
fn medians(scenarios: &[Scenario], figures: &[Figure]) -> Vec<Figure> {
    let mut medians = Vec::new();
    for scenario in scenarios {
        for subject in &scenario.subjects {
            for (name, spread) in &subject.figures {
                let is_it = |f: &&Figure| {
                    (&f.scenario, &f.subject, &f.name) == (&scenario.scenario, &subject.subject, name)
                };
                let Some(first) = figures.iter().find(is_it) else { continue };
                let note = match figures.iter().filter(is_it).count() {
                    1 => String::new(),
                    rounds => format!("{rounds} rounds, {:.1}..{:.1}", spread.min, spread.max),
                };
                medians.push(Figure { value: spread.median, note, ..first.clone() });
            }
        }
    }
    medians
}

fn ratio(ours: &[&Report], theirs: &[&Report]) -> Option<Spread> {
    let cpu = |run: &&Report| run.process.map(|usage| usage.cpu_us_per_request);
    let median = |runs: &[&Report]| Spread::of(runs.iter().filter_map(cpu).collect()).map(|s| s.median);
    let rounds = ours.iter().zip(theirs).filter_map(|(one, other)| Some(cpu(one)? / cpu(other)?)).collect();
    let rounds = Spread::of(rounds)?;
    Some(Spread { median: median(ours)? / median(theirs)?, ..rounds })
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

/// What is compared with something else than the best peer of its own scenario: name, one line, the other.
const COMPARED: [(&str, [&str; 2], [&str; 2]); 5] = [
    ("gRPC against h2c (d / b)", ["d", "gateway"], ["b", "gateway"]),
    ("two workers against one (k)", ["k", "gateway-2-workers"], ["k", "gateway-1-worker"]),
    ("against the floor (a)", ["a", "gateway"], ["a", "floor"]),
    ("against the floor (b)", ["b", "gateway"], ["b", "floor"]),
    ("against Envoy (a)", ["a", "gateway"], ["a", "envoy"]),
];

fn comparisons(scenarios: &[Scenario]) -> Vec<Comparison> {
    let cpu = |[scenario, subject]: [&str; 2]| {
        let scenario = scenarios.iter().find(|s| s.scenario == scenario)?;
        let subject = scenario.subjects.iter().find(|s| s.subject == subject)?;
        subject.cpu_us_per_request.map(|cpu| cpu.median).filter(|cpu| *cpu > 0.0)
    };
    let compare = |(what, one, other)| Some(Comparison { what, ratio: cpu(one)? / cpu(other)? });
    COMPARED.into_iter().filter_map(compare).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        record::{LostKind, Recorder},
        report::{Usage, Window, tests::setup},
    };

    fn report(scenario: &str, subject: &str, cpu_us: f64) -> Report {
        let usage = Usage { cpu_seconds: cpu_us / 1e3, ..Usage::default() };
        let window = Window { seconds: 1.0, ended: 1000, process: Some(usage), ..Window::default() };
        Report::new(setup(scenario, subject), &Recorder::new(Arc::default()), window)
    }

    fn text(summary: &Summary) -> String {
        let mut text = Vec::new();
        summary.write_text(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_ratio_is_to_the_best_peer_and_its_spread_that_of_the_rounds() {
        let runs = [
            ("gateway", 40.0),
            ("slow", 90.0),
            ("fast", 50.0),
            ("floor", 10.0),
            ("gateway", 60.0),
            ("fast", 48.0),
        ];
        let reports: Vec<_> = runs.map(|(subject, cpu)| report("a", subject, cpu)).into();
        let summary = Summary::new(&reports, &[]);
        assert_eq!(summary.scenarios[0].best_peer.as_deref(), Some("fast"));
        let ratio = summary.scenarios[0].subjects[0].ratio_to_best_peer.unwrap();
        assert!((ratio.median - 50.0 / 49.0).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.min - 0.8).abs() < 1e-9 && (ratio.max - 1.25).abs() < 1e-9, "{ratio:?}");
        assert!(text(&summary).contains("1.02 (0.80..1.25)"), "{}", text(&summary));
        assert!(text(&summary).contains("against the floor (a): 5.00"), "{}", text(&summary));
    }

    #[test]
    fn a_peer_that_lost_requests_is_not_the_best() {
        let mut lossy = report("h", "lossy", 5.0);
        lossy.ledger.lost.insert(LostKind::Goaway, 1);
        let summary = Summary::new(&[report("h", "gateway", 40.0), lossy, report("h", "whole", 50.0)], &[]);
        assert_eq!(summary.scenarios[0].best_peer.as_deref(), Some("whole"));
    }

    #[test]
    fn figures_stand_beside_the_reports_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FIGURES)).unwrap();
        let json = serde_json::to_string(&report("a", "gateway", 1.0)).unwrap();
        fs::write(folder.path().join("a-1-gateway.json"), json).unwrap();
        for (file, scenario, name, value) in
            [("1", "a", "system calls per request", 4.25), ("2", "f", "Pss per idle caller", 12_000.0)]
        {
            let figure = serde_json::json!({
                "scenario": scenario, "subject": "gateway", "name": name, "value": value, "unit": "B", "points": [],
            });
            fs::write(folder.path().join(FIGURES).join(format!("{file}.json")), figure.to_string()).unwrap();
        }
        let summary = Summary::of(folder.path()).unwrap();
        let text = text(&summary);
        assert!(text.contains("4.25"), "{text}");
        assert!(text.contains("f  gateway: Pss per idle caller 12000 B"), "{text}");
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["scenarios"][1]["subjects"][0]["figures"]["Pss per idle caller"]["median"], 12_000.0);
    }
}
