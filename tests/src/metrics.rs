//! The text of `/metrics`, read back.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads Prometheus' text format, as far as the gateway writes it.
    ///
    /// # Panics
    /// On a line that is none of it.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(sample).collect())
    }

    /// The sum of all series of this name that carry these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// As [`sum`](Self::sum), as a count.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Whether there is such a series.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// Requests with this outcome, over all environments and routes.
    pub fn outcomes(&self, outcome: &str) -> u64 {
        self.count("tsh_requests_total", &[("outcome", outcome)])
    }

    /// Outcomes that were counted at all.
    pub fn outcomes_seen(&self) -> BTreeMap<String, u64> {
        let mut seen = BTreeMap::new();
        for sample in self.matching("tsh_requests_total", &[]).filter(|sample| sample.value > 0.0) {
            *seen.entry(sample.labels["outcome"].clone()).or_default() += sample.value as u64;
        }
        seen
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        })
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = value.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("no end: {line}"))),
        None => (series, ""),
    };
    // Label values here hold neither commas nor quotes: names of environments, routes and codes.
    let labels = labels
        .split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
            (key.to_owned(), value.trim_matches('"').to_owned())
        })
        .collect();
    Sample { name: name.to_owned(), labels, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_part_of_their_labels() {
        let metrics = Metrics::parse("# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4.5\nb 1\n");
        assert_eq!(metrics.sum("a", &[("x", "1")]), 7.5);
        assert_eq!(metrics.sum("a", &[("y", "2")]), 3.0);
        assert!(!metrics.has("a", &[("y", "4")]) && metrics.has("b", &[]));
    }
}
