//! What is wrong with a configuration: where, what, and how to mend it.
//!
//! Owns [`Finding`], its text form, and [`ConfigErrors`]. Finding faults is the work of the other modules.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The gateway does not start.
    Error,
    /// The gateway starts, but one environment answers every request with this code. An error for `check`.
    Quarantine,
    /// Worth a look; everything serves.
    Warning,
}

impl Severity {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Quarantine => "quarantine",
            Self::Warning => "warning",
        }
    }
}

/// One fault or warning: where, what, and how to mend it. Never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Stable name of the fault, `snake_case`.
    pub code: &'static str,
    /// Where in the configuration, `environments.sandbox.endpoint`; empty for the file as a whole.
    pub key_path: String,
    /// The configuration file.
    pub file: PathBuf,
    /// Line in that file, from 1; `None` if the fault has no line.
    pub line: Option<u32>,
    /// The certificate or key file concerned, as resolved.
    pub asset: Option<PathBuf>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub remedy: String,
    /// The point of the seed that asks for it (`S14`), where one does.
    pub source: Option<&'static str>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {}", self.severity.as_str(), self.code, self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key_path.is_empty() {
            write!(f, " {}", self.key_path)?;
        }
        write!(f, "\n  {}", self.message)?;
        if let Some(source) = self.source.filter(|s| !s.is_empty()) {
            write!(f, " ({source})")?;
        }
        if let Some(asset) = &self.asset {
            write!(f, "\n  file: {}", asset.display())?;
        }
        write!(f, "\n  remedy: {}", self.remedy)
    }
}

/// Everything that is wrong with a configuration, all at once, in the order of the file.
///
/// Holds at least one finding of severity [`Severity::Error`]; quarantines and warnings stand among them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// All findings, in the order of the file.
    pub findings: Vec<Finding>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

/// A fault without its place: what a parser of a single value returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// Stable name of the fault.
    pub(crate) code: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// How to mend it.
    pub(crate) remedy: String,
}

impl Complaint {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into() }
    }
}
