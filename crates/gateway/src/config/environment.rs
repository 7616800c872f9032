//! `[environments.NAME]`: reading them, and the rules that hold between them.
//!
//! Owns names, stages and the keys that are not files; certificates and anchors are read in `credentials`.

use std::net::SocketAddr;

use pool::Timeouts;
use tls_core::{Regime, Stage};

use super::credentials::{self, Material};
use super::endpoint::{Endpoint, parse_connect, parse_endpoint, parse_via};
use super::finding::Complaint;
use super::model::{Environment, Limits};
use super::report::At;
use super::settings::{change_dial_timeouts, change_request_timeouts, read_pool, read_tls};
use super::tree::{Section, Text};
use super::{health, keys};

/// Longest name: it stands in metric labels and log lines.
const MAX_NAME: usize = 63;

/// What routes need to know of an environment, even of a faulty one.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) at: At,
    pub(crate) timeouts: Timeouts,
    /// `None` if it has faults; they are reported.
    pub(crate) environment: Option<Environment>,
}

/// What environments inherit.
pub(crate) struct Inherited<'c> {
    pub(crate) timeouts: &'c Timeouts,
    pub(crate) limits: &'c Limits,
    pub(crate) name_servers: &'c [SocketAddr],
    pub(crate) now: time::OffsetDateTime,
}

/// Reads all environments.
pub(crate) fn read(root: &Section<'_>, inherited: &Inherited<'_>) -> Vec<Slot> {
    let sections = root.named_sections("environments", keys::ENVIRONMENT);
    if sections.is_empty() && !root.report().is_broken() {
        let complaint = Complaint::new(
            "no_environment",
            "there is no environment, so there is nowhere to send requests",
            "add [environments.sandbox]; docs/configuration.md has an example",
        );
        root.report().error(&root.at_key("environments"), complaint);
    }
    let mut slots: Vec<Slot> = Vec::with_capacity(sections.len());
    let mut materials = Vec::new();
    for (name, section) in &sections {
        judge_name(section, name, &slots);
        let (slot, material) = read_environment(section, name, inherited);
        slots.push(slot);
        materials.extend(material);
    }
    credentials::judge_across_stages(root.report(), &materials);
    slots
}

fn judge_name(section: &Section<'_>, name: &str, earlier: &[Slot]) {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        let what = format!("\"{name}\" cannot name an environment");
        let remedy = format!("use letters, digits, `-` and `_`, at most {MAX_NAME} characters");
        section.report().error(section.at(), Complaint::new("bad_name", what, remedy));
    }
    if let Some(twin) = earlier.iter().find(|slot| slot.name.eq_ignore_ascii_case(name)) {
        let what =
            format!("\"{name}\" and \"{}\" name the same environment but for the case of letters", twin.name);
        let complaint =
            Complaint::new("duplicate_environment", what, "give each environment a name of its own");
        section.report().error(section.at(), complaint);
    }
}

fn read_environment(
    section: &Section<'_>,
    name: &str,
    inherited: &Inherited<'_>,
) -> (Slot, Option<Material>) {
    let mut timeouts = *inherited.timeouts;
    let changes = section.section("timeouts", keys::ENVIRONMENT_TIMEOUTS);
    change_dial_timeouts(&changes, &mut timeouts);
    change_request_timeouts(&changes, &mut timeouts);

    let stages = [("sandbox", Stage::Sandbox), ("production", Stage::Production)];
    if !section.has("stage") {
        section.missing("stage", "write stage = \"sandbox\" or stage = \"production\"");
    }
    let stage = section.choice("stage", &stages);
    let regimes = [("tsh", Regime::Tsh), ("d1", Regime::D1)];
    let regime = section.choice("regime", &regimes).unwrap_or_default();
    let customer =
        section.required_text("customer", "give the customer identifier received from Thales (S2)");
    let endpoint = section
        .required_text(
            "endpoint",
            "give TSH_INBOUND_HOST joined with the API's base path: https://host/base/path/",
        )
        .and_then(|text| parsed(section, &text, parse_endpoint));
    let connect = section.text("connect").and_then(|text| parsed(section, &text, parse_connect));
    let via = section.text("via").and_then(|text| parsed(section, &text, parse_via));
    let required = section.boolean("required").unwrap_or(true);
    let mut pool = read_pool(section, inherited.limits);
    pool.name_servers = inherited.name_servers.to_vec();
    pool.health = health::read(section, endpoint.as_ref());
    let tls = read_tls(section);

    let host = endpoint.as_ref().map(|e: &Endpoint| e.host.as_str());
    let read = credentials::read(section, host, regime, &tls, inherited.now);
    let material = stage.zip(read.leaf).map(|(stage, leaf)| Material {
        name: name.to_owned(),
        stage,
        leaf,
        at: read.at,
    });
    let environment = stage.zip(customer).zip(endpoint).zip(read.credentials).map(
        |(((stage, customer), endpoint), credentials)| Environment {
            name: name.to_owned(),
            stage,
            customer: customer.value.to_owned(),
            endpoint,
            connect,
            via,
            required,
            regime,
            tls,
            credentials,
            pool,
            timeouts,
        },
    );
    (Slot { name: name.to_owned(), at: section.at().clone(), timeouts, environment }, material)
}

fn parsed<T>(section: &Section<'_>, text: &Text<'_>, parse: fn(&str) -> Result<T, Complaint>) -> Option<T> {
    parse(text.value).map_err(|complaint| section.report().error(&text.at, complaint)).ok()
}
