//! The linter: a rule set applied to a certificate, and identities compared across stages.

use time::{Date, Month, OffsetDateTime};

use super::{Finding, IssuerRule, KeyPreference, KeyRule, RuleSet, Severity, Stage};
use crate::certificate::{CertificateInfo, HashKind, KeyKind};
use crate::clock::rfc3339;

/// Everything in which `identity` breaks `rules` at `now`; empty if it is good. Errors come first.
///
/// `declared_common_name` is the value given in the Thales portal for the environment (S14).
pub fn lint_identity(
    rules: &RuleSet,
    identity: &CertificateInfo,
    declared_common_name: &str,
    now: OffsetDateTime,
) -> Vec<Finding> {
    let mut findings: Vec<_> = [
        common_name(identity, declared_common_name),
        time_of_use(identity, now),
        validity(rules, identity),
        key_type(rules, identity),
        signature_hash(rules, identity),
        issuer(rules, identity),
        expires_soon(rules, identity, now),
        preference(rules, identity),
        ca_flag(identity),
        client_auth(identity),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// What is shared between environments of different stages and must not be: a Common Name or a key.
///
/// Each entry is an environment's name, its stage and its client certificate.
pub fn lint_pair_across_stages(environments: &[(&str, Stage, &CertificateInfo)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, one) in environments.iter().enumerate() {
        for other in &environments[index + 1..] {
            if one.1 != other.1 {
                findings.extend(shared_common_name(one, other));
                findings.extend(shared_key(one, other));
            }
        }
    }
    findings
}

fn error(code: &'static str, source: &'static str, message: String, remedy: String) -> Option<Finding> {
    Some(Finding { code, severity: Severity::Error, message, remedy, source })
}

fn warning(code: &'static str, source: &'static str, message: String, remedy: String) -> Option<Finding> {
    Some(Finding { code, severity: Severity::Warning, message, remedy, source })
}

/// Compared on the decoded value: a Common Name may hold slashes and commas.
fn common_name(identity: &CertificateInfo, declared: &str) -> Option<Finding> {
    if identity.common_names() == [declared] {
        return None;
    }
    let found = match identity.common_names() {
        [] => "no Common Name".to_owned(),
        [one] => format!("the Common Name {one:?}"),
        several => format!("{} Common Names {several:?}", several.len()),
    };
    error(
        "wrong_common_name",
        "S14",
        format!("the certificate has {found}, declared is {declared:?}"),
        format!(
            "declare what the Thales portal gives for this environment, and make the certificate with exactly the Common Name {declared:?}"
        ),
    )
}

fn time_of_use(identity: &CertificateInfo, now: OffsetDateTime) -> Option<Finding> {
    if now > identity.not_after() {
        return error(
            "certificate_expired",
            "S11",
            format!("the certificate expired on {}", rfc3339(identity.not_after())),
            "make a new certificate and have Thales endorse it".into(),
        );
    }
    if now < identity.not_before() {
        return error(
            "certificate_not_yet_valid",
            "S11",
            format!("the certificate is not valid before {}", rfc3339(identity.not_before())),
            "wait until then, make a new certificate, or set this machine's clock right".into(),
        );
    }
    None
}

/// From `notBefore`, wherever that lies: a backdated certificate has lived for as long as it says.
fn validity(rules: &RuleSet, identity: &CertificateInfo) -> Option<Finding> {
    let years = rules.max_validity_years?;
    let latest = add_years(identity.not_before(), years)?;
    if identity.not_after() <= latest {
        return None;
    }
    error(
        "validity_too_long",
        "S11",
        format!(
            "the certificate is valid from {} to {}, more than {years} years; the latest end allowed is {}",
            rfc3339(identity.not_before()),
            rfc3339(identity.not_after()),
            rfc3339(latest),
        ),
        format!("make a new certificate of at most {years} calendar years (`-days 730` with openssl)"),
    )
}

fn key_type(rules: &RuleSet, identity: &CertificateInfo) -> Option<Finding> {
    if rule_for(rules, identity).is_some() {
        return None;
    }
    let allowed: Vec<_> = rules.keys.iter().map(|rule| rule.key.to_string()).collect();
    error(
        "key_type_not_allowed",
        rules.keys_source,
        format!("the key is {}; regime {} allows {}", identity.key(), rules.regime, allowed.join(", ")),
        "make a new key, best ECDSA P-256, and a new certificate".into(),
    )
}

fn signature_hash(rules: &RuleSet, identity: &CertificateInfo) -> Option<Finding> {
    let allowed: Vec<HashKind> = match rule_for(rules, identity) {
        Some(rule) => rule.hashes.to_vec(),
        // The key is refused already; of the hash only that no rule at all would allow it is worth a word.
        None => rules.keys.iter().flat_map(|rule| rule.hashes).copied().collect(),
    };
    let known_key = rule_for(rules, identity).is_some();
    match identity.signature().hash() {
        Some(hash) if allowed.contains(&hash) => return None,
        None if !known_key => return None,
        _ => {}
    }
    let names: Vec<_> = allowed.iter().map(HashKind::to_string).collect();
    error(
        "signature_hash_not_allowed",
        rules.keys_source,
        format!("the certificate is signed by {}; allowed is {}", identity.signature(), unique(&names)),
        "make a new certificate signed with SHA-256 (`-sha256` with openssl)".into(),
    )
}

fn issuer(rules: &RuleSet, identity: &CertificateInfo) -> Option<Finding> {
    match (rules.issuer, identity.is_self_signed()) {
        (IssuerRule::SelfSigned, false) => error(
            "not_self_signed",
            "S10",
            format!("the certificate is not signed by its own key; its issuer is {}", identity.issuer()),
            "make a self-signed certificate; Thales endorses that certificate itself, no CA".into(),
        ),
        (IssuerRule::ThalesCa, true) => error(
            "not_signed_by_thales",
            "D1",
            "the certificate is self-signed; regime d1 needs one signed by the Thales CA".into(),
            "send a signing request to Thales, and configure the certificate that comes back".into(),
        ),
        (IssuerRule::SelfSigned, true) | (IssuerRule::ThalesCa, false) => None,
    }
}

fn expires_soon(rules: &RuleSet, identity: &CertificateInfo, now: OffsetDateTime) -> Option<Finding> {
    let left = identity.not_after() - now;
    if left.is_negative() || left > rules.expiry_horizon {
        return None;
    }
    warning(
        "expires_soon",
        "S11",
        format!(
            "the certificate expires on {}, in {} days",
            rfc3339(identity.not_after()),
            left.whole_days()
        ),
        "make the next certificate now and have Thales endorse it before that day".into(),
    )
}

fn preference(rules: &RuleSet, identity: &CertificateInfo) -> Option<Finding> {
    let is_rsa = matches!(identity.key(), KeyKind::Rsa { .. });
    if rules.key_preference != KeyPreference::Ecdsa || !is_rsa || rule_for(rules, identity).is_none() {
        return None;
    }
    warning(
        "ecdsa_preferred",
        "S13",
        format!("the key is {}; Thales prefers ECDSA, and its handshakes cost less", identity.key()),
        "at the next renewal make an ECDSA P-256 key".into(),
    )
}

fn ca_flag(identity: &CertificateInfo) -> Option<Finding> {
    if identity.is_ca() != Some(true) {
        return None;
    }
    warning(
        "ca_flag_set",
        "S10",
        "the certificate says that it is a CA (`CA:TRUE`, what a plain `openssl req -x509` makes)".into(),
        "at the next renewal make it with `-addext basicConstraints=critical,CA:FALSE`".into(),
    )
}

fn client_auth(identity: &CertificateInfo) -> Option<Finding> {
    let usage = identity.extended_key_usage();
    if usage.is_some_and(|usage| usage.client_auth || usage.any) {
        return None;
    }
    let message = match usage {
        Some(_) => "the extended key usage does not include client authentication; strict servers refuse it",
        None => "the certificate has no extended key usage",
    };
    warning(
        "no_client_auth_eku",
        "S10",
        message.into(),
        "at the next renewal make it with `-addext extendedKeyUsage=clientAuth`".into(),
    )
}

type Environment<'a> = (&'a str, Stage, &'a CertificateInfo);

fn shared_common_name(one: &Environment<'_>, other: &Environment<'_>) -> Option<Finding> {
    let shared = one.2.common_names().iter().find(|name| other.2.common_names().contains(name))?;
    error(
        "cn_in_both_stages",
        "S14",
        format!("the Common Name {shared:?} is used by {} and {}", name_of(one), name_of(other)),
        "each environment has its own Common Name; take each from the Thales portal of that environment"
            .into(),
    )
}

fn shared_key(one: &Environment<'_>, other: &Environment<'_>) -> Option<Finding> {
    if one.2.spki() != other.2.spki() {
        return None;
    }
    error(
        "key_in_both_stages",
        "S6",
        format!("{} and {} use the same key ({})", name_of(one), name_of(other), one.2.spki()),
        "make a key of its own for each stage: whoever takes the sandbox's must not have production's".into(),
    )
}

fn name_of(environment: &Environment<'_>) -> String {
    format!("{} ({})", environment.0, environment.1)
}

fn rule_for<'a>(rules: &'a RuleSet, identity: &CertificateInfo) -> Option<&'a KeyRule> {
    rules.keys.iter().find(|rule| rule.key.matches(identity.key()))
}

fn unique(names: &[String]) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !seen.contains(&name.as_str()) {
            seen.push(name);
        }
    }
    seen.join(", ")
}

/// The same day and time `years` later; 29 February becomes the 28th, the stricter reading. `None` beyond
/// the calendar.
fn add_years(from: OffsetDateTime, years: u8) -> Option<OffsetDateTime> {
    let year = from.year() + i32::from(years);
    let day = match (from.month(), from.day()) {
        (Month::February, 29) => Date::from_calendar_date(year, Month::February, 29)
            .or_else(|_| Date::from_calendar_date(year, Month::February, 28)),
        (month, day) => Date::from_calendar_date(year, month, day),
    };
    Some(from.replace_date(day.ok()?))
}
