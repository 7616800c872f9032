//! `[environments.NAME.identity]` and `.trust`: the files, what the linter says of them, and what that means.
//!
//! Owns resolving the asset paths, and the line between what stops a start and what only quarantines an
//! environment: time. Parsing and rules belong to `tls-core`.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use tls_core::{
    CertificateInfo, Generation, Identity, IdentityError, PemReadError, PemSource, PinSet, Regime, SpkiPin,
    Stage, TlsOptions, Trust, TrustError, lint_identity, lint_pair_across_stages,
};

use super::finding::{Complaint, Severity};
use super::keys;
use super::model::{Credentials, Quarantine};
use super::report::{At, Report};
use super::tree::Section;

/// Seed names of the files (S24, S20), with the endings that the contract gives them.
const CERTIFICATE: &str = "CUSTOMER_TLS_CLIENT_CERTIFICATE.pem";
const KEY: &str = "CUSTOMER_TLS_CLIENT_CERTIFICATE.key";
const ANCHORS: &str = "TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem";

/// Rights on a key file that draw a warning: anything for others, writing for the group. Reading for the group is
/// how containers hand keys to a user.
const KEY_MODE_WARNED: u32 = 0o037;

/// What was read for one environment.
pub(super) struct Read {
    /// The client certificate, where it could be decoded.
    pub(super) leaf: Option<CertificateInfo>,
    /// Where its file is named.
    pub(super) at: At,
    /// `None` if there are faults; they are reported.
    pub(super) credentials: Option<Result<Credentials, Quarantine>>,
}

/// A client certificate with its environment, to compare across stages.
pub(super) struct Material {
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) leaf: CertificateInfo,
    pub(super) at: At,
}

/// A file of an environment, with the key that names it.
struct Asset {
    path: PathBuf,
    at: At,
}

/// What stops an environment, but not the gateway.
type Stop = Option<Complaint>;

/// Reads identity and trust of one environment, `host` being the server's name.
pub(super) fn read(
    section: &Section<'_>,
    host: Option<&str>,
    regime: Regime,
    tls: &TlsOptions,
    now: OffsetDateTime,
) -> Read {
    let assets = section.text("assets").map(|text| section.report().folder().join(text.value));
    if let Some(folder) = assets.as_ref().filter(|folder| !folder.is_dir()) {
        let what = format!("there is no folder {}", folder.display());
        let complaint =
            Complaint::new("folder_missing", what, "check the path; relative ones resolve against this file");
        section.report().error(&section.at_key("assets"), complaint);
    }
    let identity_section = section.section("identity", keys::IDENTITY);
    let (leaf, identity, identity_stop) = read_identity(&identity_section, assets.as_deref(), regime, now);
    let (trust, trust_stop) =
        read_trust(&section.section("trust", keys::TRUST), assets.as_deref(), host, now);
    let at = identity_section.at_key("certificate");
    let stop = identity_stop.or(trust_stop);
    let credentials = match (identity, trust, stop) {
        (identity, _, Some(stop)) => {
            let Complaint { code, message, remedy } = stop;
            Some(Err(Quarantine { code, message, remedy, identity }))
        }
        (Some(identity), Some(trust), None) => {
            try_build(section, &identity, &trust, tls);
            Some(Ok(Credentials { identity, trust }))
        }
        _ => None,
    };
    Read { leaf, at, credentials }
}

/// A common name or key used in both stages: reported at the later environment.
pub(super) fn judge_across_stages(report: &Report, materials: &[Material]) {
    for (index, later) in materials.iter().enumerate() {
        for earlier in &materials[..index] {
            let pair = [entry(earlier), entry(later)];
            for finding in lint_pair_across_stages(&pair) {
                let complaint = Complaint::new(finding.code, finding.message, finding.remedy);
                report.push(Severity::Error, &later.at, complaint, None, Some(finding.source));
            }
        }
    }
}

fn entry(material: &Material) -> (&str, Stage, &CertificateInfo) {
    (&material.name, material.stage, &material.leaf)
}

/// Reads the client certificate and its key.
fn read_identity(
    section: &Section<'_>,
    assets: Option<&Path>,
    regime: Regime,
    now: OffsetDateTime,
) -> (Option<CertificateInfo>, Option<Identity>, Stop) {
    let common_name = section.required_text(
        "common_name",
        "give the common name exactly as the Thales portal shows it for this environment (S14)",
    );
    let certificate = asset(section, assets, "certificate", CERTIFICATE);
    let key = asset(section, assets, "key", KEY);
    let certificate_pem = certificate.as_ref().and_then(|asset| open(section.report(), asset));
    let key_pem = key.as_ref().and_then(|asset| open(section.report(), asset));
    if let Some(asset) = key.as_ref().filter(|_| key_pem.is_some()) {
        judge_key_mode(section.report(), asset);
    }
    let (Some(asset), Some(pem)) = (&certificate, &certificate_pem) else { return (None, None, None) };
    let leaf = match CertificateInfo::from_pem(pem) {
        Ok(leaf) => leaf,
        Err(error) => {
            let error = IdentityError::from(error);
            complain(section.report(), asset, identity_code(&error), &error);
            return (None, None, None);
        }
    };
    let stop = common_name.and_then(|name| lint(section.report(), asset, &leaf, name.value, regime, now));
    let identity = key.zip(key_pem).and_then(|(key_asset, key_pem)| {
        let made = Identity::from_pem(pem, &key_pem);
        made.map_err(|error| {
            let at_fault = if blames_certificate(&error) { asset } else { &key_asset };
            complain(section.report(), at_fault, identity_code(&error), &error);
        })
        .ok()
    });
    (Some(leaf), identity, stop)
}

/// Applies the rule set; what only time is wrong with comes back as the reason for quarantine.
fn lint(
    report: &Report,
    asset: &Asset,
    leaf: &CertificateInfo,
    common_name: &str,
    regime: Regime,
    now: OffsetDateTime,
) -> Stop {
    let mut stop = None;
    for finding in lint_identity(regime.rules(), leaf, common_name, now) {
        let complaint = Complaint::new(finding.code, finding.message, finding.remedy);
        let severity = match finding.severity {
            tls_core::Severity::Warning => Severity::Warning,
            tls_core::Severity::Error if is_matter_of_time(finding.code) => Severity::Quarantine,
            tls_core::Severity::Error => Severity::Error,
        };
        if severity == Severity::Quarantine {
            stop = stop.or_else(|| Some(complaint.clone()));
        }
        report.push(severity, &asset.at, complaint, Some(&asset.path), Some(finding.source));
    }
    stop
}

/// Reads anchors and pins.
fn read_trust(
    section: &Section<'_>,
    assets: Option<&Path>,
    host: Option<&str>,
    now: OffsetDateTime,
) -> (Option<Trust>, Stop) {
    let pins = read_pins(section);
    let Some(anchors) = anchor_assets(section, assets) else { return (None, None) };
    let report = section.report();
    let opened: Vec<_> =
        anchors.iter().filter_map(|asset| open(report, asset).map(|pem| (asset, pem))).collect();
    // One by one first, so that every faulty file is named and not just the first.
    let mut sound = Vec::with_capacity(opened.len());
    for (asset, pem) in &opened {
        match Trust::new("localhost", std::slice::from_ref(pem), PinSet::default(), now) {
            Ok(_) | Err(TrustError::AnchorExpired { .. } | TrustError::AnchorNotYetValid { .. }) => {
                sound.push((*asset, pem.clone()));
            }
            Err(error) => complain(report, asset, trust_code(&error), &error),
        }
    }
    let Some(host) = host.filter(|_| !anchors.is_empty() && sound.len() == anchors.len()) else {
        return (None, None);
    };
    let sources: Vec<_> = sound.iter().map(|(_, pem)| pem.clone()).collect();
    match Trust::new(host, &sources, pins, now) {
        Ok(trust) => {
            warn_of_untimely(report, &sound, now);
            (Some(trust), None)
        }
        Err(error) => {
            let complaint = split(trust_code(&error), &error.to_string(), &anchors[0].path);
            let severity =
                if is_matter_of_time(complaint.code) { Severity::Quarantine } else { Severity::Error };
            report.push(severity, &anchors[0].at, complaint.clone(), Some(&anchors[0].path), Some("S9"));
            (None, (severity == Severity::Quarantine).then_some(complaint))
        }
    }
}

/// Anchor files that are of no use now, beside others that are.
fn warn_of_untimely(report: &Report, anchors: &[(&Asset, PemSource)], now: OffsetDateTime) {
    for (asset, pem) in anchors {
        if let Err(error) = Trust::new("localhost", std::slice::from_ref(pem), PinSet::default(), now) {
            let complaint = split(trust_code(&error), &error.to_string(), &asset.path);
            report.push(Severity::Warning, &asset.at, complaint, Some(&asset.path), Some("S9"));
        }
    }
}

fn anchor_assets(section: &Section<'_>, assets: Option<&Path>) -> Option<Vec<Asset>> {
    if !section.has("anchors") {
        return asset(section, assets, "anchors", ANCHORS).map(|asset| vec![asset]);
    }
    let texts = section.texts("anchors")?;
    if texts.is_empty() {
        let error = TrustError::EmptyAnchors;
        let complaint = split(trust_code(&error), &error.to_string(), Path::new(""));
        section.report().push(Severity::Error, &section.at_key("anchors"), complaint, None, Some("S9"));
    }
    let folder = section.report().folder();
    Some(texts.into_iter().map(|t| Asset { path: resolve(folder, assets, t.value), at: t.at }).collect())
}

fn read_pins(section: &Section<'_>) -> PinSet {
    let texts = section.texts("pins").unwrap_or_default();
    let parsed = texts.iter().filter_map(|text| {
        let parsed = text.value.parse::<SpkiPin>();
        parsed
            .map_err(|error| {
                let what = format!("\"{}\" is not a pin: {error}", text.value);
                let remedy =
                    "write sha256/ and the base64 SHA-256 of the server's public key (SubjectPublicKeyInfo)";
                section.report().error(&text.at, Complaint::new("malformed_pin", what, remedy));
            })
            .ok()
    });
    parsed.collect()
}

/// The file that a key names, or the seed's name in `assets`.
fn asset(section: &Section<'_>, assets: Option<&Path>, name: &str, seed_name: &str) -> Option<Asset> {
    let at = section.at_key(name);
    if section.has(name) {
        let path = resolve(section.report().folder(), assets, section.text(name)?.value);
        return Some(Asset { path, at });
    }
    match assets {
        Some(folder) => folder.is_dir().then(|| Asset { path: folder.join(seed_name), at }),
        None => {
            section.missing(
                name,
                &format!("name the file, or set `assets` to the folder that holds {seed_name}"),
            );
            None
        }
    }
}

/// Relative paths resolve against the configuration file; a bare file name lies in `assets` where that is set.
fn resolve(folder: &Path, assets: Option<&Path>, value: &str) -> PathBuf {
    match assets {
        Some(assets) if !value.contains('/') => assets.join(value),
        _ => folder.join(value),
    }
}

fn open(report: &Report, asset: &Asset) -> Option<PemSource> {
    let error = match PemSource::read(&asset.path) {
        Ok(source) => return Some(source),
        Err(error) => error,
    };
    let code = match &error {
        PemReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => "file_missing",
        PemReadError::Io { .. } => "file_unreadable",
        PemReadError::TooLarge { .. } => "file_too_large",
    };
    complain(report, asset, code, &error);
    None
}

fn judge_key_mode(report: &Report, asset: &Asset) {
    let Ok(metadata) = fs::metadata(&asset.path) else { return };
    if metadata.mode() & KEY_MODE_WARNED != 0 {
        let complaint = Complaint::new(
            "key_readable_by_others",
            format!(
                "the private key has mode {:04o}: others on this host can get at it",
                metadata.mode() & 0o7777
            ),
            format!("chmod 600 {}", asset.path.display()),
        );
        report.push(Severity::Warning, &asset.at, complaint, Some(&asset.path), None);
    }
}

/// Whether these parts could ever make a handshake.
fn try_build(section: &Section<'_>, identity: &Identity, trust: &Trust, tls: &TlsOptions) {
    if let Err(error) = Generation::build(0, identity.clone(), trust.clone(), tls.clone()) {
        let complaint = split("unusable_tls_settings", &error.to_string(), Path::new(""));
        section.report().error(&section.at_key("tls"), complaint);
    }
}

fn complain(report: &Report, asset: &Asset, code: &'static str, error: &dyn fmt::Display) {
    let complaint = split(code, &error.to_string(), &asset.path);
    report.push(Severity::Error, &asset.at, complaint, Some(&asset.path), None);
}

/// `tls-core` writes "file: fault; remedy"; a finding keeps the three apart.
fn split(code: &'static str, text: &str, path: &Path) -> Complaint {
    let file = format!("{}: ", path.display());
    let text = text.strip_prefix(&file).unwrap_or(text);
    match text.split_once("; ") {
        Some((message, remedy)) => Complaint::new(code, message, remedy),
        None => Complaint::new(code, text, "mend or replace the file"),
    }
}

/// Faults that time brings and takes away: they stop one environment, not the gateway.
fn is_matter_of_time(code: &str) -> bool {
    matches!(
        code,
        "certificate_expired" | "certificate_not_yet_valid" | "anchor_expired" | "anchor_not_yet_valid"
    )
}

fn blames_certificate(error: &IdentityError) -> bool {
    matches!(error, IdentityError::NoCertificate { .. } | IdentityError::MalformedCertificate { .. })
}

fn identity_code(error: &IdentityError) -> &'static str {
    match error {
        IdentityError::NoCertificate { .. } => "no_certificate",
        IdentityError::MalformedCertificate { .. } => "malformed_certificate",
        IdentityError::NoPrivateKey { .. } => "no_private_key",
        IdentityError::MalformedKey { .. } => "malformed_key",
        IdentityError::EncryptedKey { .. } => "encrypted_key",
        IdentityError::UnsupportedKey { .. } => "unsupported_key",
        IdentityError::SeveralKeys { .. } => "several_keys",
        IdentityError::KeyMismatch { .. } => "key_mismatch",
    }
}

fn trust_code(error: &TrustError) -> &'static str {
    match error {
        TrustError::EmptyAnchors => "empty_anchors",
        TrustError::NoCertificate { .. } => "no_certificate",
        TrustError::MalformedCertificate { .. } => "malformed_certificate",
        TrustError::OnlyLeaf { .. } => "only_leaf",
        TrustError::AnchorExpired { .. } => "anchor_expired",
        TrustError::AnchorNotYetValid { .. } => "anchor_not_yet_valid",
        TrustError::BadServerName { .. } => "bad_server_name",
    }
}
