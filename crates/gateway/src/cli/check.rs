//! `tsh-gateway check`: everything that is wrong with a configuration, at once, with place and remedy.
//!
//! Owns the report, its text and JSON forms and its exit codes. The faults are found by `config`; the one thing
//! tried here is whether the listeners can be bound.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tls_core::AnchorInfo;

use crate::config::{self, Config, Environment, Finding, Inspection, Severity};

/// Exit code when nothing is wrong; warnings do not count.
const GOOD: u8 = 0;
/// Exit code when there is an error or a quarantine, or the report could not be written.
const FINDINGS: u8 = 1;
/// Exit code for wrong usage.
const USAGE: u8 = 2;

/// Checks a configuration and every file it names, without starting anything.
///
/// Exit code 0: good (there may be warnings); 1: errors; 2: wrong usage.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tsh-gateway check --config gateway.toml\n  tsh-gateway check --config gateway.toml --json | jq '.findings[].code'\n  tsh-gateway check --keys"
)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "keys")]
    pub config: Option<PathBuf>,
    /// Report as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Do not try to bind the listeners: for the configuration of a gateway that is running.
    #[arg(long)]
    pub skip_listeners: bool,
    /// Print every key with its form, range and default, and end.
    #[arg(long, conflicts_with_all = ["config", "json", "skip_listeners"])]
    pub keys: bool,
}

/// Runs the command; the report goes to `out`.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> ExitCode {
    let written = match &args.config {
        _ if args.keys => write!(out, "{}", config::reference()).map(|()| GOOD),
        Some(path) => check_file(path, args, OffsetDateTime::now_utc(), out),
        None => {
            writeln!(out, "name the configuration: tsh-gateway check --config gateway.toml").map(|()| USAGE)
        }
    };
    // Nobody is left to tell if the report cannot be written; the exit code still must not say "good".
    ExitCode::from(written.and_then(|code| out.flush().map(|()| code)).unwrap_or(FINDINGS))
}

fn check_file(path: &Path, args: &CheckArgs, now: OffsetDateTime, out: &mut dyn Write) -> io::Result<u8> {
    let mut inspection = config::inspect(path, now);
    if !args.skip_listeners {
        inspection.try_listeners();
    }
    let report = CheckReport::new(path, &inspection);
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.ok { GOOD } else { FINDINGS })
}

/// What `check` says.
#[derive(Debug, Serialize)]
struct CheckReport<'c> {
    file: &'c Path,
    /// Neither error nor quarantine.
    ok: bool,
    errors: usize,
    quarantines: usize,
    warnings: usize,
    findings: &'c [Finding],
    /// Empty where an error keeps the configuration from being read as a whole.
    environments: Vec<EnvironmentReport<'c>>,
}

/// What requests to an environment would go out with.
#[derive(Debug, Serialize)]
struct EnvironmentReport<'c> {
    name: &'c str,
    stage: tls_core::Stage,
    customer: &'c str,
    endpoint: String,
    quarantine: Option<&'static str>,
    common_name: Option<&'c str>,
    fingerprint: Option<String>,
    not_after: Option<String>,
    anchors: &'c [AnchorInfo],
    pins: usize,
}

impl<'c> CheckReport<'c> {
    fn new(file: &'c Path, inspection: &'c Inspection) -> Self {
        let count = |severity| inspection.findings.iter().filter(|f| f.severity == severity).count();
        let (errors, quarantines) = (count(Severity::Error), count(Severity::Quarantine));
        let environments = inspection.config.as_ref().map(describe).unwrap_or_default();
        Self {
            file,
            ok: errors + quarantines == 0,
            errors,
            quarantines,
            warnings: count(Severity::Warning),
            findings: &inspection.findings,
            environments,
        }
    }
}

impl fmt::Display for CheckReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.findings {
            writeln!(f, "{finding}\n")?;
        }
        for environment in &self.environments {
            writeln!(f, "{environment}")?;
        }
        let verdict = if self.ok { "good" } else { "not good" };
        write!(f, "{}: {verdict}: {}", self.file.display(), counted(self.errors, "error"))?;
        if self.quarantines > 0 {
            write!(f, ", {}", counted(self.quarantines, "quarantine"))?;
        }
        writeln!(f, ", {}", counted(self.warnings, "warning"))
    }
}

impl fmt::Display for EnvironmentReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, customer {}): {}", self.name, self.stage, self.customer, self.endpoint)?;
        if let Some(code) = self.quarantine {
            write!(f, "\n  quarantined: {code}")?;
        }
        if let (Some(fingerprint), Some(not_after)) = (&self.fingerprint, &self.not_after) {
            let name = self.common_name.unwrap_or("none");
            write!(f, "\n  identity: common name {name}, until {not_after}, sha256 {fingerprint}")?;
        }
        for anchor in self.anchors {
            let until = rfc3339(anchor.not_after());
            write!(f, "\n  anchor:   {}, until {until}, from {}", anchor.subject(), anchor.label())?;
        }
        match self.pins {
            0 => write!(f, "\n  pins:     off"),
            pins => write!(f, "\n  pins:     {pins}"),
        }
    }
}

fn describe(config: &Config) -> Vec<EnvironmentReport<'_>> {
    config.environments.iter().map(describe_environment).collect()
}

fn describe_environment(environment: &Environment) -> EnvironmentReport<'_> {
    let (identity, trust, quarantine) = match &environment.credentials {
        Ok(credentials) => (Some(&credentials.identity), Some(&credentials.trust), None),
        Err(quarantine) => (quarantine.identity.as_ref(), None, Some(quarantine.code)),
    };
    let leaf = identity.map(tls_core::Identity::certificate);
    EnvironmentReport {
        name: &environment.name,
        stage: environment.stage,
        customer: &environment.customer,
        endpoint: environment.endpoint.to_string(),
        quarantine,
        common_name: leaf.and_then(|leaf| leaf.common_name()),
        fingerprint: leaf.map(|leaf| leaf.fingerprint().to_string()),
        not_after: leaf.map(|leaf| rfc3339(leaf.not_after())),
        anchors: trust.map_or(&[], tls_core::Trust::anchors),
        pins: trust.map_or(0, |trust| trust.pins().len()),
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn rfc3339(at: OffsetDateTime) -> String {
    // Only years beyond 9999 have no such form, and X.509 has none of those.
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

#[cfg(test)]
mod tests;
