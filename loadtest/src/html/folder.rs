//! The JSON files of a folder, told apart by what is in them.
//!
//! Owns the formats that only the page reads: figures of the laboratory, time series, and the part of a storm's
//! report that is shown.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{error::Error, handshakes, report::Report, table};

/// One JSON file.
#[derive(Debug)]
pub(crate) enum Document {
    /// A run.
    Report(Box<Report>),
    /// `lab.json`.
    Figures(Vec<Figure>),
    /// Of `loadgen handshakes`.
    Handshakes(handshakes::Report),
    /// Of `loadgen storm`.
    Storm(Box<Storm>),
    /// Of `loadgen watch`.
    Series(Vec<Sample>),
}

/// A figure that is in no report of a run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Figure {
    /// Scenario it belongs to.
    pub scenario: String,
    /// Program it is of.
    pub subject: String,
    /// What it is, such as `system calls per request`.
    pub name: String,
    /// Its unit; may be empty.
    #[serde(default)]
    pub unit: String,
    /// The number.
    pub value: f64,
    /// How it came about, or what was wanted.
    #[serde(default)]
    pub note: String,
}

/// One look at the gateway's metrics. Counters are since the start of the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Milliseconds since the first look was due.
    pub t_ms: u64,
    /// Full handshakes that came to serve.
    pub handshakes_full: u64,
    /// Resumed handshakes that came to serve.
    pub handshakes_resumed: u64,
    /// Requests ended, of any outcome.
    pub requests: u64,
    /// 1 - connections / requests; the least of all environments.
    pub reuse_ratio: f64,
    /// Connections to providers, in any state.
    pub connections: u64,
}

/// What is shown of a storm.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Storm {
    /// Seed of all that was random.
    pub seed: u64,
    /// Requests per second.
    pub rate: f64,
    /// How long requests started.
    pub seconds: f64,
    /// Why it failed.
    #[serde(default)]
    pub failures: Vec<String>,
    /// Requests by outcome.
    #[serde(default)]
    pub outcomes: BTreeMap<String, u64>,
    /// What was done to the provider, and when.
    pub faults: Vec<Fault>,
    /// Resident memory over time.
    pub samples: Vec<Memory>,
}

/// One fault.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fault {
    /// Seconds since the start.
    pub at: f64,
    /// What.
    pub fault: FaultKind,
}

/// The kind of a fault, without its particulars.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FaultKind {
    /// Its name.
    pub kind: String,
}

/// One look at memory.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Memory {
    /// Seconds since the start.
    pub at: f64,
    /// Resident memory, bytes.
    pub resident: u64,
}

#[derive(Deserialize)]
struct Lab {
    figures: Vec<Figure>,
}

impl Document {
    /// Reads one file's text. What is nothing known is taken for a report, so that the complaint is about that.
    ///
    /// # Errors
    /// What the parser says.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_str(text)?;
        let has = |key: &str| value.get(key).is_some();
        Ok(if value.is_array() {
            Self::Series(serde_json::from_value(value)?)
        } else if has("figures") {
            Self::Figures(serde_json::from_value::<Lab>(value)?.figures)
        } else if has("cases") {
            Self::Handshakes(serde_json::from_value(value)?)
        } else if has("samples") && has("faults") {
            Self::Storm(serde_json::from_value(value)?)
        } else {
            Self::Report(serde_json::from_value(value)?)
        })
    }
}

/// Everything in a folder.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub reports: Vec<Report>,
    pub figures: Vec<Figure>,
    pub handshakes: Vec<handshakes::Report>,
    /// By name.
    pub storms: Vec<(String, Storm)>,
    /// By name.
    pub series: Vec<(String, Vec<Sample>)>,
}

impl Folder {
    /// Reads every `.json` file of `folder`, in the order of names.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is no folder or holds nothing, [`Error::File`] and [`Error::Report`] for what cannot
    /// be read.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        if !folder.is_dir() {
            return Err(Error::Usage(format!("{} is no folder of reports", folder.display())));
        }
        let mut this = Self::default();
        let files = table::files(folder)?;
        for file in &files {
            let failed = |source| Error::File { action: "read", path: file.clone(), source };
            let text = fs::read_to_string(file).map_err(failed)?;
            let wrong = |source| Error::Report { path: file.clone(), source };
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            match Document::parse(&text).map_err(wrong)? {
                Document::Report(report) => this.reports.push(*report),
                Document::Figures(figures) => this.figures.extend(figures),
                Document::Handshakes(report) => this.handshakes.push(report),
                Document::Storm(storm) => this.storms.push((name.into_owned(), *storm)),
                Document::Series(samples) => {
                    let name = name.strip_prefix("timeseries-").unwrap_or(&name);
                    this.series.push((name.to_owned(), samples));
                }
            }
        }
        if files.is_empty() {
            return Err(Error::Usage(format!("{} holds no JSON report", folder.display())));
        }
        Ok(this)
    }
}
