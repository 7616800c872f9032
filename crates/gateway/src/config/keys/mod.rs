//! Every key of the configuration, once: name, form or unit with range, default, meaning.
//!
//! Owns the lists that the walker checks against and that `docs/configuration.md` must agree with (a test compares
//! them both ways). Defaults live in `model` and `pool`; a test compares them with the words here.

use std::fmt;

mod environment;
mod gateway;
mod route;

pub(crate) use environment::{ENVIRONMENT, ENVIRONMENT_TIMEOUTS, HEALTH, IDENTITY, POOL, TLS, TRUST};
pub(crate) use gateway::{ADMIN, CALLER, DNS, EGRESS, LIMITS, LOG, ROOT, RUNTIME, SHUTDOWN, TIMEOUTS};
pub(crate) use route::{ROUTE, ROUTE_TIMEOUTS};

/// A known key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The default as it would be written in the file, or words in parentheses.
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
}

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A whole number in a range. Units: `s`, `ms`, `bytes`, or none for counts.
    Whole { min: u64, max: u64, unit: &'static str },
    /// `true` or `false`.
    Switch,
    /// A string of this form, or a list of such strings.
    Text(&'static str),
    /// A table below.
    Table,
}

pub(super) const fn whole(
    name: &'static str,
    min: u64,
    max: u64,
    unit: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { name, kind: Kind::Whole { min, max, unit }, default, about }
}

pub(super) const fn text(
    name: &'static str,
    form: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { name, kind: Kind::Text(form), default, about }
}

pub(super) const fn switch(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Switch, default, about }
}

pub(super) const fn table(name: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Table, default: "(see below)", about }
}

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
pub(super) const GIB: u64 = 1024 * MIB;
/// One hour in milliseconds.
pub(super) const HOUR_MS: u64 = 3_600_000;

/// All sections with their headings, in the order of the documentation.
pub(crate) const SECTIONS: &[(&str, &[Key])] = &[
    ("the top of the file", ROOT),
    ("`[egress]`", EGRESS),
    ("`[admin]`", ADMIN),
    ("`[callers.NAME]`", CALLER),
    ("`[environments.NAME]`", ENVIRONMENT),
    ("`[environments.NAME.identity]`", IDENTITY),
    ("`[environments.NAME.trust]`", TRUST),
    ("`[environments.NAME.tls]`", TLS),
    ("`[environments.NAME.pool]`", POOL),
    ("`[environments.NAME.health]`", HEALTH),
    ("`[environments.NAME.timeouts]`", ENVIRONMENT_TIMEOUTS),
    ("`[[routes]]`", ROUTE),
    ("`[routes.timeouts]`", ROUTE_TIMEOUTS),
    ("`[limits]`", LIMITS),
    ("`[timeouts]`", TIMEOUTS),
    ("`[dns]`", DNS),
    ("`[log]`", LOG),
    ("`[runtime]`", RUNTIME),
    ("`[shutdown]`", SHUTDOWN),
];

/// Keys that have a meaning, but none yet in this version, and why.
pub(crate) const NOT_YET: &[(&str, &str)] = &[
    ("caller", "callers are not authenticated yet, so no route can ask who calls"),
    ("ingress", "calls from Thales to the bank are not carried yet"),
    ("passphrase", "encrypted private keys are not supported yet"),
];

/// Every key as Markdown tables: what `check --keys` prints and `docs/configuration.md` repeats.
pub fn reference() -> String {
    let mut text = String::new();
    for (heading, keys) in SECTIONS {
        text.push_str(&format!("### {heading}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"));
        for key in *keys {
            text.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                key.name,
                key.kind,
                shown(key.default),
                key.about
            ));
        }
        text.push('\n');
    }
    text
}

/// A default as code; words in parentheses as words.
fn shown(default: &str) -> String {
    match default.strip_prefix('(').and_then(|d| d.strip_suffix(')')) {
        Some(words) => words.to_owned(),
        None => format!("`{default}`"),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { min, max, unit: "" } => write!(f, "{min} to {max}"),
            Self::Whole { min, max, unit } => write!(f, "{min} to {max} {unit}"),
            Self::Switch => f.write_str("`true` or `false`"),
            Self::Text(form) => f.write_str(form),
            Self::Table => f.write_str("table"),
        }
    }
}
