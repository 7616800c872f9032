//! Medians over rounds, their spread, and ratios to the best peer.
//!
//! Owns which runs belong together and who is a peer; nothing here knows how it is shown.

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// Subjects that are no proxy one could use instead: the same work without a proxy, or the least a proxy could do.
const REFERENCES: [&str; 2] = ["direct", "floor"];

/// Median, least and largest of some rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The middle one; the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

/// All runs of one scenario by one subject.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// Name of the program.
    pub subject: &'a str,
    /// Its runs, in the order of rounds.
    pub runs: Vec<&'a Report>,
}

impl Row<'_> {
    /// A figure of every run that has it.
    pub(super) fn values(&self, value: impl Fn(&Report) -> Option<f64>) -> Vec<f64> {
        self.runs.iter().filter_map(|run| value(run)).collect()
    }

    /// CPU time per request, µs.
    pub(super) fn cpu(&self) -> Vec<f64> {
        self.values(|run| run.process.map(|process| process.cpu_us_per_request))
    }

    /// Requests lost in all runs, warm-up included.
    pub(super) fn lost(&self) -> u64 {
        self.runs.iter().map(|run| run.ledger.lost_total() + run.warmup.lost_total()).sum()
    }

    /// Requests started in the measured parts of all runs.
    pub(super) fn started(&self) -> u64 {
        self.runs.iter().map(|run| run.ledger.started).sum()
    }

    /// Buckets of all runs together, `[µs, requests]`, in ascending order; empty if no run has any.
    pub(super) fn histogram(&self) -> Vec<(u64, u64)> {
        let mut buckets = std::collections::BTreeMap::new();
        for &(value, count) in self.runs.iter().flat_map(|run| &run.histogram) {
            *buckets.entry(value).or_insert(0) += count;
        }
        buckets.into_iter().collect()
    }
}

/// All subjects of one scenario.
#[derive(Debug)]
pub(super) struct Scenario<'a> {
    /// Its name.
    pub name: &'a str,
    /// One row per subject; ours first, then the peers, then the references, each in the order of appearance.
    pub rows: Vec<Row<'a>>,
}

/// What a subject is in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The program in question, or a variant of it.
    Ours,
    /// What it is compared with.
    Peer,
    /// No proxy.
    Reference,
}

impl Part {
    /// By the name: `ours`, and what continues it with a dash, is ours.
    pub(super) fn of(subject: &str, ours: &str) -> Self {
        let is = |name: &str| {
            subject.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        if is(ours) {
            Self::Ours
        } else if REFERENCES.into_iter().any(is) {
            Self::Reference
        } else {
            Self::Peer
        }
    }
}

/// Groups reports by scenario, in the order of names, and subject.
pub(super) fn group<'a>(reports: &'a [Report], ours: &str) -> Vec<Scenario<'a>> {
    let mut scenarios: Vec<Scenario<'a>> = Vec::new();
    for report in reports {
        let (name, subject) = (report.setup.scenario.as_str(), report.setup.subject.as_str());
        let at = scenarios.iter().position(|scenario| scenario.name == name).unwrap_or_else(|| {
            scenarios.push(Scenario { name, rows: Vec::new() });
            scenarios.len() - 1
        });
        let rows = &mut scenarios[at].rows;
        match rows.iter_mut().find(|row| row.subject == subject) {
            Some(row) => row.runs.push(report),
            None => rows.push(Row { subject, runs: vec![report] }),
        }
    }
    scenarios.sort_by_key(|scenario| scenario.name);
    for scenario in &mut scenarios {
        scenario.rows.sort_by_key(|row| Part::of(row.subject, ours));
    }
    scenarios
}

impl<'a> Scenario<'a> {
    /// The peer with the least CPU time per request that lost nothing; if all lost something, the one of all.
    pub(super) fn best_peer(&self, ours: &str) -> Option<&Row<'a>> {
        let peers = self.rows.iter().filter(|row| Part::of(row.subject, ours) == Part::Peer);
        let with_cpu = peers.filter_map(|row| Some((row.lost() > 0, Spread::of(&row.cpu())?.median, row)));
        let best = with_cpu.min_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        best.map(|(_, _, row)| row)
    }
}

/// How `row` stands to `peer` in CPU time per request: the ratio of the medians, and the least and largest ratio
/// within a round. Without equal numbers of rounds there is no such pair, and the spread is that of the median.
pub(super) fn cpu_ratio(row: &Row<'_>, peer: &Row<'_>) -> Option<Spread> {
    let (ours, theirs) = (row.cpu(), peer.cpu());
    let median = Spread::of(&ours)?.median / Spread::of(&theirs)?.median;
    if ours.len() != theirs.len() {
        return Some(Spread { median, min: median, max: median });
    }
    let rounds: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    let Spread { min, max, .. } = Spread::of(&rounds)?;
    Some(Spread { median, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_median_of_odd_and_even_numbers_of_rounds() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn variants_are_ours_and_references_are_no_peers() {
        for (subject, part) in [
            ("gateway", Part::Ours),
            ("gateway-2w", Part::Ours),
            ("gatewayd", Part::Peer),
            ("nginx", Part::Peer),
            ("floor", Part::Reference),
            ("direct-h2c", Part::Reference),
        ] {
            assert_eq!(Part::of(subject, "gateway"), part, "{subject}");
        }
    }
}
