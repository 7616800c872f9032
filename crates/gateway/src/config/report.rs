//! Where findings about one file gather.
//!
//! Owns places ([`At`]), lines, and the order of findings.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use super::finding::{Complaint, Finding, Severity};

/// A place in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) key_path: String,
    pub(crate) line: Option<u32>,
}

/// Gathers findings about one file.
#[derive(Debug)]
pub(crate) struct Report {
    file: PathBuf,
    folder: PathBuf,
    /// Byte offsets at which lines begin.
    lines: Vec<usize>,
    findings: RefCell<Vec<Finding>>,
    /// The text could not be parsed as a whole: what seems to be missing may only have been skipped.
    broken: Cell<bool>,
}

impl Report {
    pub(crate) fn new(file: &Path, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        Self { file: file.to_owned(), folder, lines, findings: RefCell::default(), broken: Cell::new(false) }
    }

    /// The folder that relative paths resolve against: that of the file.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The place of the file as a whole.
    pub(crate) fn whole(&self) -> At {
        At { key_path: String::new(), line: None }
    }

    pub(crate) fn line_of(&self, offset: usize) -> u32 {
        u32::try_from(self.lines.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    pub(crate) fn mark_broken(&self) {
        self.broken.set(true);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    pub(crate) fn add(&self, severity: Severity, at: &At, complaint: Complaint) {
        self.push(severity, at, complaint, None, None);
    }

    pub(crate) fn error(&self, at: &At, complaint: Complaint) {
        self.add(Severity::Error, at, complaint);
    }

    /// A finding about a certificate or key file, or one that the seed asks for.
    pub(crate) fn push(
        &self,
        severity: Severity,
        at: &At,
        complaint: Complaint,
        asset: Option<&Path>,
        source: Option<&'static str>,
    ) {
        self.findings.borrow_mut().push(Finding {
            severity,
            code: complaint.code,
            key_path: at.key_path.clone(),
            file: self.file.clone(),
            line: at.line,
            asset: asset.map(Path::to_path_buf),
            message: complaint.message,
            remedy: complaint.remedy,
            source: source.filter(|s| !s.is_empty()),
        });
    }

    /// All findings, in the order of the file, each once.
    pub(crate) fn into_findings(self) -> Vec<Finding> {
        let mut findings = self.findings.into_inner();
        sort(&mut findings);
        findings.dedup();
        findings
    }
}

/// The order of the file; faults without a line come first.
pub(super) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| (a.line, &a.key_path, a.severity).cmp(&(b.line, &b.key_path, b.severity)));
}
