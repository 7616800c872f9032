//! Histograms with fixed buckets: an observation is a search among a dozen bounds and two additions.
//!
//! The exporter's own histograms keep every sample until somebody moves them into buckets, which cost a twentieth of the
//! CPU of a request and memory between two moves. Owns the buckets and their text; handles are those of `metrics`.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Histogram, HistogramFn};
use parking_lot::Mutex;

use super::definitions::Definition;

/// The buckets of one series.
struct Buckets {
    /// Upper bounds, ascending.
    bounds: &'static [f64],
    /// One more than there are bounds: the last is for what exceeds all of them.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(count as u64, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value * count as f64).to_bits());
        // Never refused: `add` always gives a value.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// All series of one metric.
struct Family {
    definition: Definition,
    series: Vec<(String, Arc<Buckets>)>,
}

/// The histograms of one gateway, in the order of their registration.
#[derive(Default)]
pub(super) struct Histograms(Mutex<Vec<Family>>);

impl Histograms {
    /// The series with these labels, made if there is none.
    pub(super) fn register(
        &self,
        definition: &Definition,
        bounds: &'static [f64],
        labels: &[(&'static str, &str)],
    ) -> Histogram {
        let labels = label_text(labels);
        let mut families = self.0.lock();
        let at = families.iter().position(|family| family.definition.name == definition.name);
        let at = at.unwrap_or_else(|| {
            families.push(Family { definition: *definition, series: Vec::new() });
            families.len() - 1
        });
        let series = &mut families[at].series;
        let known = series.iter().find(|(known, _)| *known == labels).map(|(_, buckets)| buckets.clone());
        let buckets = known.unwrap_or_else(|| {
            let buckets = Arc::new(Buckets::new(bounds));
            series.push((labels, buckets.clone()));
            buckets
        });
        Histogram::from_arc(buckets)
    }

    /// Appends the text of them all, in the form of Prometheus.
    pub(super) fn render(&self, out: &mut String) {
        for family in self.0.lock().iter() {
            let Definition { name, help, .. } = family.definition;
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
            for (labels, buckets) in &family.series {
                render_series(out, name, labels, buckets);
            }
            out.push('\n');
        }
    }
}

fn render_series(out: &mut String, name: &str, labels: &str, buckets: &Buckets) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut total = 0;
    let bounds = buckets.bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(&buckets.counts) {
        total += count.load(Ordering::Relaxed);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
    }
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let sum = f64::from_bits(buckets.sum.load(Ordering::Relaxed));
    // The count is that of the buckets just written: a scrape is consistent in itself.
    let _ = writeln!(out, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}");
}

/// `name="value"` pairs; what the text format gives a meaning is escaped.
fn label_text(labels: &[(&'static str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::{super::definitions::Kind, *};

    const BOUNDS: &[f64] = &[0.5, 1.0, 1e6];

    fn definition(name: &'static str) -> Definition {
        Definition { name, kind: Kind::Histogram(BOUNDS), labels: &["environment"], help: "Words" }
    }

    #[test]
    fn observations_are_counted_up_to_and_including_their_bound() {
        let histograms = Histograms::default();
        let series = histograms.register(&definition("x_seconds"), BOUNDS, &[("environment", "a\"b")]);
        for value in [0.25, 0.5, 0.75, 2e6] {
            series.record(value);
        }
        series.record_many(1.0, 3);
        let mut text = String::new();
        histograms.render(&mut text);
        let want = "# HELP x_seconds Words\n# TYPE x_seconds histogram\n\
            x_seconds_bucket{environment=\"a\\\"b\",le=\"0.5\"} 2\n\
            x_seconds_bucket{environment=\"a\\\"b\",le=\"1\"} 6\n\
            x_seconds_bucket{environment=\"a\\\"b\",le=\"1000000\"} 6\n\
            x_seconds_bucket{environment=\"a\\\"b\",le=\"+Inf\"} 7\n\
            x_seconds_sum{environment=\"a\\\"b\"} 2000004.5\n\
            x_seconds_count{environment=\"a\\\"b\"} 7\n\n";
        assert_eq!(text, want);
    }

    #[test]
    fn a_series_is_made_once_and_families_keep_together() {
        let histograms = Histograms::default();
        let register = |name, environment| {
            histograms.register(&definition(name), BOUNDS, &[("environment", environment)])
        };
        register("x", "a").record(1.0);
        register("y", "a").record(1.0);
        register("x", "b").record(1.0);
        register("x", "a").record(1.0);
        let mut text = String::new();
        histograms.render(&mut text);
        assert_eq!(text.matches("# TYPE x histogram").count(), 1);
        assert!(text.contains("x_count{environment=\"a\"} 2\n"), "{text}");
        assert!(text.find("x_count{environment=\"b\"}") < text.find("# TYPE y"), "{text}");
    }
}
