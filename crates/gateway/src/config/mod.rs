//! The configuration file: from TOML to values that need no further checking, or every fault in it at once.
//!
//! Owns the file's keys, their defaults and the rules between them; [`load`] is the entry. Does not own listening,
//! dialling, or the parsing of certificates (`tls-core`). Invariants: nothing after [`load`] can be invalid; a
//! fault of time (an expired certificate) quarantines one environment, any other stops the start; no setting
//! turns verification off or grants trust by source address.

mod callers;
mod credentials;
mod endpoint;
mod environment;
mod finding;
mod health;
mod keys;
mod listen;
mod model;
mod nearest;
mod prefix;
mod report;
mod route;
mod settings;
mod tree;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use toml::de::DeTable;

pub use finding::{ConfigErrors, Finding, Severity};
pub use model::{
    AccessLog, Admin, CallerGroup, CallerTimeouts, Config, ConnectTo, Credentials, Egress, Endpoint,
    Environment, Limits, ListenAddress, Log, LogFormat, Prefix, Quarantine, Route, Runtime, Shutdown, Via,
};

use finding::Complaint;
pub use keys::reference;
use listen::Placed;
pub use listen::bind_fault;
use report::{At, Report};
use tree::Section;

/// Largest configuration file that is read, in bytes: a thousand routes fit in a tenth of it.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A sound configuration, with what is worth a word all the same.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings and quarantines, in the order of the file.
    pub findings: Vec<Finding>,
}

/// Everything that reading a file brings to light.
pub(crate) struct Inspection {
    file: PathBuf,
    /// `None` if there is an error.
    pub(crate) config: Option<Config>,
    /// Listeners that could be read, even if other things are wrong.
    pub(crate) listeners: Vec<Placed>,
    /// Errors, quarantines and warnings, in the order of the file.
    pub(crate) findings: Vec<Finding>,
}

/// Reads a configuration file and all files it names; `now` is the moment at which certificates must be valid.
///
/// Relative paths resolve against the file. Reads files and nothing else: no name is resolved, nothing is bound.
///
/// # Errors
/// [`ConfigErrors`] with every fault of the file at once, each with its place and its remedy.
pub fn load(path: &Path, now: OffsetDateTime) -> Result<Loaded, ConfigErrors> {
    let Inspection { config, findings, .. } = inspect(path, now);
    match config {
        Some(config) => Ok(Loaded { config, findings }),
        None => Err(ConfigErrors { findings }),
    }
}

impl Inspection {
    /// Tries to bind every listener, and adds what stands in the way.
    pub(crate) fn try_listeners(&mut self) {
        for Placed { address, at } in &self.listeners {
            if let Err(complaint) = listen::try_bind(address) {
                let report = Report::new(&self.file, "");
                report.error(at, complaint);
                self.findings.extend(report.into_findings());
            }
        }
        report::sort(&mut self.findings);
    }
}

/// As [`load`], but with the listeners of a faulty file too, so that `check` can try them.
pub(crate) fn inspect(path: &Path, now: OffsetDateTime) -> Inspection {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(complaint) => {
            let report = Report::new(path, "");
            report.error(&report.whole(), complaint);
            return Inspection {
                file: path.to_owned(),
                config: None,
                listeners: Vec::new(),
                findings: report.into_findings(),
            };
        }
    };
    let report = Report::new(path, &text);
    let (table, faults) = DeTable::parse_recoverable(&text);
    report_syntax(&report, &text, &faults);
    let (config, listeners) = read(&Section::root(&report, table.get_ref()), path, now);
    let findings = report.into_findings();
    let is_sound = findings.iter().all(|finding| finding.severity != Severity::Error);
    Inspection { file: path.to_owned(), config: config.filter(|_| is_sound), listeners, findings }
}

/// `None` only if something is reported.
fn read(root: &Section<'_>, path: &Path, now: OffsetDateTime) -> (Option<Config>, Vec<Placed>) {
    let (egress, mut listeners) = listen::read_egress(root);
    let (admin, admin_place) = listen::read_admin(root);
    listeners.extend(admin_place);
    listen::judge_duplicates(root, &listeners);
    let callers = callers::read(root);
    let limits = settings::read_limits(root);
    let (timeouts, caller_timeouts) = settings::read_timeouts(root);
    let log = settings::read_log(root);
    let runtime = settings::read_runtime(root);
    let shutdown = settings::read_shutdown(root);
    let name_servers = settings::read_dns(root);
    let inherited =
        environment::Inherited { timeouts: &timeouts, limits: &limits, name_servers: &name_servers, now };
    let slots = environment::read(root, &inherited);
    let routes = route::read(root, &slots, &timeouts);
    let environments: Option<Vec<_>> = slots.into_iter().map(|slot| slot.environment).collect();
    let config = environments.map(|environments| Config {
        path: path.to_owned(),
        egress,
        admin,
        callers,
        environments,
        routes,
        limits,
        timeouts,
        caller_timeouts,
        log,
        runtime,
        shutdown,
    });
    (config, listeners)
}

fn read_text(path: &Path) -> Result<String, Complaint> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Complaint::new(
            "file_missing",
            format!("there is no file {}", path.display()),
            "check the path given with --config",
        ),
        _ => Complaint::new(
            "file_unreadable",
            format!("{} cannot be read: {error}", path.display()),
            "check that it is a file and that this user may read it",
        ),
    };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE_BYTES {
        let what =
            format!("{} has {length} bytes; a configuration has at most {MAX_FILE_BYTES}", path.display());
        return Err(Complaint::new("file_too_large", what, "check the path given with --config"));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Complaint::new("syntax", format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })
}

/// Faults of the TOML itself. What is named twice is a fault of meaning, and the rest of the file is still judged.
fn report_syntax(report: &Report, text: &str, faults: &[toml::de::Error]) {
    let mut repeated_until = 0;
    for fault in faults {
        let span = fault.span().unwrap_or_default();
        let at = At { key_path: String::new(), line: fault.span().map(|s| report.line_of(s.start)) };
        if !fault.message().contains("duplicate key") {
            report.mark_broken();
            let what = format!("this is not TOML: {}", fault.message());
            let remedy =
                "mend the line; strings stand in quotes, lists in [ ], and every key on a line of its own";
            report.error(&at, Complaint::new("syntax", what, remedy));
            continue;
        }
        // The keys of a table that is there twice are there twice as well: one fault, not many.
        if span.start < repeated_until {
            continue;
        }
        let name = text.get(span.clone()).unwrap_or_default().trim();
        report.error(&at, duplicate(line_at(text, span.start), name));
        if line_at(text, span.start).starts_with('[') {
            repeated_until = text[span.start..].find("\n[").map_or(text.len(), |i| span.start + i);
        }
    }
}

/// The line that holds `offset`.
fn line_at(text: &str, offset: usize) -> &str {
    let start = text[..offset].rfind('\n').map_or(0, |i| i + 1);
    text[start..].lines().next().unwrap_or_default().trim()
}

fn duplicate(line: &str, name: &str) -> Complaint {
    let is_environment = line.strip_prefix("[environments.").is_some_and(|rest| {
        rest.split(']').next().is_some_and(|inner| inner.trim_matches('"') == name.trim_matches('"'))
    });
    if is_environment {
        let what = format!("the environment \"{name}\" is there twice");
        let remedy = "give each environment a name of its own, or merge the two";
        return Complaint::new("duplicate_environment", what, remedy);
    }
    Complaint::new("duplicate_key", format!("`{name}` is there twice"), "keep one of the two")
}
