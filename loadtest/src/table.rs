//! One table of many reports: medians over the rounds of a scenario, and the ratio of CPU per request
//! between the programs that ran it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{error::Error, html::Document, report::Report, summary};

/// Reads report files, and the `.json` files of folders in the order of their names, without the laboratory's
/// summary.
///
/// # Errors
/// [`Error::File`] for what cannot be read, [`Error::Report`] for what is no report.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Report>, Error> {
    let mut reports = Vec::new();
    for path in paths {
        // `lab.json` is about the reports, and none itself.
        for file in files(path)?.into_iter().filter(|file| !file.ends_with(summary::FILE)) {
            let failed = |source| Error::File { action: "read", path: file.clone(), source };
            let text = fs::read_to_string(&file).map_err(failed)?;
            let document = Document::parse(&text).map_err(|source| Error::Report { path: file, source })?;
            // A folder may hold figures and time series too: they are for `loadgen html`.
            if let Document::Report(report) = document {
                reports.push(*report);
            }
        }
    }
    Ok(reports)
}

/// A file, or the `.json` files of a folder in the order of their names.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let entries = fs::read_dir(path).map_err(failed)?.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    Ok(files)
}

/// Writes the table, one line per scenario and subject in the order of first appearance.
///
/// # Errors
/// Whatever the writer says.
pub(crate) fn write(reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
    let rows = rows(reports);
    let head = ["scenario", "subject", "runs", "req/s", "p50 ms", "p99 ms", "max ms", "started", "lost"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines[0].extend(["CPU µs/req", "RSS MiB"].map(str::to_owned));
    lines.extend(rows.iter().map(Row::cells));
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(out, "{cell:<width$}")?,
                1 => write!(out, "  {cell:<width$}")?,
                _ => write!(out, "  {cell:>width$}")?,
            }
        }
        writeln!(out)?;
    }
    write_ratios(&rows, out)
}

/// Whether every report of the table is good.
pub(crate) fn all_good(reports: &[Report]) -> bool {
    !reports.is_empty() && reports.iter().all(Report::is_good)
}

/// All runs of one scenario by one subject.
struct Row<'a> {
    scenario: &'a str,
    subject: &'a str,
    runs: Vec<&'a Report>,
}

impl Row<'_> {
    fn cells(&self) -> Vec<String> {
        let ms = |value: f64| format!("{:.2}", value / 1000.0);
        let sum = |f: fn(&Report) -> u64| self.runs.iter().map(|run| f(run)).sum::<u64>();
        let max = self.runs.iter().map(|run| run.latency_us.max).max().unwrap_or(0);
        vec![
            self.scenario.to_owned(),
            self.subject.to_owned(),
            self.runs.len().to_string(),
            format!("{:.0}", self.median(|run| Some(run.requests_per_second)).unwrap_or(0.0)),
            ms(self.median(|run| Some(run.latency_us.p50 as f64)).unwrap_or(0.0)),
            ms(self.median(|run| Some(run.latency_us.p99 as f64)).unwrap_or(0.0)),
            ms(max as f64),
            sum(|run| run.ledger.started).to_string(),
            sum(|run| run.ledger.lost_total() + run.warmup.lost_total()).to_string(),
            self.cpu().map_or("-".to_owned(), |cpu| format!("{cpu:.1}")),
            self.median(|run| run.process.map(|process| process.rss_peak_bytes as f64))
                .map_or("-".to_owned(), |bytes| format!("{:.1}", bytes / f64::from(1 << 20))),
        ]
    }

    fn cpu(&self) -> Option<f64> {
        self.median(|run| run.process.map(|process| process.cpu_us_per_request))
    }

    fn median(&self, value: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.runs.iter().filter_map(|run| value(run)).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            n if n % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }
}

fn rows(reports: &[Report]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for report in reports {
        let (scenario, subject) = (report.setup.scenario.as_str(), report.setup.subject.as_str());
        match rows.iter_mut().find(|row| row.scenario == scenario && row.subject == subject) {
            Some(row) => row.runs.push(report),
            None => rows.push(Row { scenario, subject, runs: vec![report] }),
        }
    }
    rows
}

fn write_ratios(rows: &[Row<'_>], out: &mut dyn Write) -> io::Result<()> {
    for (index, row) in rows.iter().enumerate() {
        let is_first = rows[..index].iter().all(|earlier| earlier.scenario != row.scenario);
        for peer in rows[index + 1..].iter().filter(|peer| is_first && peer.scenario == row.scenario) {
            if let (Some(ours), Some(theirs)) = (row.cpu(), peer.cpu()) {
                writeln!(
                    out,
                    "{}: CPU per request {} {ours:.1} µs / {} {theirs:.1} µs = {:.2}",
                    row.scenario,
                    row.subject,
                    peer.subject,
                    ours / theirs
                )?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        record::Recorder,
        report::{Usage, Window, tests::setup},
    };

    fn report(scenario: &str, subject: &str, cpu_us: f64) -> Report {
        let usage = Usage { cpu_seconds: cpu_us / 1e3, ..Usage::default() };
        let window = Window { seconds: 1.0, ended: 1000, process: Some(usage), ..Window::default() };
        Report::new(setup(scenario, subject), &Recorder::new(Arc::default()), window)
    }

    #[test]
    fn rounds_become_medians_and_subjects_a_ratio() {
        let reports: Vec<_> =
            [("gateway", 40.0), ("nghttpx", 50.0), ("gateway", 90.0), ("nghttpx", 52.0), ("gateway", 41.0)]
                .map(|(subject, cpu)| report("a", subject, cpu))
                .into();
        let mut text = Vec::new();
        write(&reports, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("a: CPU per request gateway 41.0 µs / nghttpx 51.0 µs = 0.80"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn folders_are_read_in_the_order_of_names_and_strangers_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (file, scenario) in [("2.json", "b"), ("1.json", "a")] {
            let json = serde_json::to_string(&report(scenario, "gateway", 1.0)).unwrap();
            fs::write(folder.path().join(file), json).unwrap();
        }
        fs::write(folder.path().join("gateway.log"), "not a report").unwrap();
        let reports = read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(reports.iter().map(|r| r.setup.scenario.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        fs::write(folder.path().join(summary::FILE), "{}").unwrap();
        assert_eq!(read(&[folder.path().to_owned()]).unwrap().len(), 2, "the summary is no report");
        let stranger = folder.path().join("3.json");
        fs::write(&stranger, "{}").unwrap();
        assert!(read(&[stranger]).unwrap_err().to_string().contains("--json"));
    }
}
