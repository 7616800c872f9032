//! Files, certificates, anchors and pins: S9 to S14, S20, S24.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};
use time::Duration;
use time::macros::datetime;

use crate::config::testing::{
    Client, Fixture, GOOD, NOW, PRODUCTION, RSA_1024, RSA_2048_SHA1, authority_pem, with, write,
};
use crate::config::{Finding, Severity, load};

const CERTIFICATE: &str = "CUSTOMER_TLS_CLIENT_CERTIFICATE.pem";
const KEY: &str = "CUSTOMER_TLS_CLIENT_CERTIFICATE.key";
const ANCHORS: &str = "TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem";
const COMMON_NAME: &str = "CUSTOMER-0001-SBX";

#[track_caller]
fn says(finding: &Finding, message: &str, remedy: &str) {
    assert!(finding.message.contains(message), "message of {finding:#?}");
    assert!(finding.remedy.contains(remedy), "remedy of {finding:#?}");
}

#[track_caller]
fn is_about(finding: &Finding, key_path: &str, file: &str) {
    assert_eq!(finding.key_path, key_path, "{finding}");
    assert!(finding.asset.as_ref().is_some_and(|asset| asset.ends_with(file)), "{finding}");
    assert!(finding.line.is_some(), "{finding}");
}

#[test]
fn a_missing_file_is_named() {
    for (file, key_path) in [
        (CERTIFICATE, "environments.sandbox.identity.certificate"),
        (KEY, "environments.sandbox.identity.key"),
        (ANCHORS, "environments.sandbox.trust.anchors"),
    ] {
        let fixture = Fixture::new();
        fs::remove_file(fixture.sandbox(file)).unwrap();
        let finding = fixture.only(GOOD, "file_missing");
        says(&finding, "cannot be read", "check the path");
        is_about(&finding, key_path, file);
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.sandbox(KEY)).unwrap();
    fs::create_dir(fixture.sandbox(KEY)).unwrap();
    let finding = fixture.only(GOOD, "file_unreadable");
    says(&finding, "cannot be read", "this user may read the file");
    is_about(&finding, "environments.sandbox.identity.key", KEY);
}

#[test]
fn a_missing_assets_folder_is_one_fault_and_not_three() {
    let fixture = Fixture::new();
    let finding = fixture.only(&GOOD.replace("assets/sandbox", "assets/nowhere"), "folder_missing");
    says(&finding, "assets/nowhere", "check the path");
    assert_eq!(finding.key_path, "environments.sandbox.assets");
}

#[test]
fn files_named_nowhere_are_asked_for() {
    let fixture = Fixture::new();
    let findings = fixture.findings(&GOOD.replace("assets = \"assets/sandbox\"\n", ""));
    let missing: Vec<_> =
        findings.iter().filter(|f| f.code == "missing_key").map(|f| f.key_path.as_str()).collect();
    assert_eq!(
        missing,
        [
            "environments.sandbox.identity.certificate",
            "environments.sandbox.identity.key",
            "environments.sandbox.trust.anchors",
        ]
    );
    assert!(findings[0].remedy.contains("set `assets`"), "{}", findings[0]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let fixture = Fixture::new();
    write(&fixture.sandbox(KEY), &Client::new(COMMON_NAME).key_pem());
    let finding = fixture.only(GOOD, "key_mismatch");
    says(&finding, "does not belong to the certificate", "name the key");
    is_about(&finding, "environments.sandbox.identity.key", KEY);
}

/// S14.
#[test]
fn a_wrong_common_name_is_refused_with_both_names() {
    let fixture = Fixture::new();
    Client::new("CUSTOMER-0002").write(&fixture.assets("sandbox"));
    let finding = fixture.only(GOOD, "wrong_common_name");
    says(&finding, "CUSTOMER-0002", "Thales portal");
    assert!(finding.message.contains(COMMON_NAME));
    assert_eq!(finding.source, Some("S14"));
    is_about(&finding, "environments.sandbox.identity.certificate", CERTIFICATE);
}

#[test]
fn an_expired_certificate_quarantines_its_environment_and_the_other_serves() {
    let fixture = Fixture::new();
    Client::new(COMMON_NAME)
        .valid(NOW - Duration::days(400), NOW - Duration::days(1))
        .write(&fixture.assets("sandbox"));
    let text = format!("{GOOD}{PRODUCTION}");
    let finding = fixture.only(&text, "certificate_expired");
    assert_eq!(finding.severity, Severity::Quarantine);
    says(&finding, "expired on 2026-11-22", "make a new certificate");
    is_about(&finding, "environments.sandbox.identity.certificate", CERTIFICATE);
    let config = load(&fixture.write_config(&text), NOW).unwrap().config;
    let quarantine = config.environments[0].credentials.as_ref().unwrap_err();
    assert_eq!(quarantine.code, "certificate_expired");
    assert!(quarantine.identity.is_some(), "its expiry is still to be seen in metrics");
    assert!(config.environments[1].credentials.is_ok());
}

#[test]
fn a_certificate_that_is_not_valid_yet_quarantines_its_environment() {
    let fixture = Fixture::new();
    Client::new(COMMON_NAME)
        .valid(NOW + Duration::days(1), NOW + Duration::days(90))
        .write(&fixture.assets("sandbox"));
    let finding = fixture.only(GOOD, "certificate_not_yet_valid");
    assert_eq!(finding.severity, Severity::Quarantine);
    says(&finding, "not valid before 2026-11-24", "clock");
}

/// S11.
#[test]
fn a_validity_above_two_years_is_refused_and_two_years_to_the_second_are_not() {
    let fixture = Fixture::new();
    let from = datetime!(2026-10-01 12:00 UTC);
    let until = datetime!(2028-10-01 12:00 UTC);
    Client::new(COMMON_NAME).valid(from, until).write(&fixture.assets("sandbox"));
    assert_eq!(fixture.findings(GOOD), []);
    Client::new(COMMON_NAME).valid(from, until + Duration::seconds(1)).write(&fixture.assets("sandbox"));
    let finding = fixture.only(GOOD, "validity_too_long");
    says(&finding, "more than 2 years", "at most 2 calendar years");
    assert_eq!(finding.source, Some("S11"));
}

/// S12, S13.
#[test]
fn rsa_1024_and_4096_are_refused_in_regime_tsh_and_2048_is_not() {
    let fixture = Fixture::new();
    write(&fixture.sandbox(CERTIFICATE), RSA_1024);
    let findings = fixture.findings(GOOD);
    let finding = findings.iter().find(|f| f.code == "key_type_not_allowed").expect("RSA 1024 is refused");
    says(finding, "RSA 1024", "make a new key");

    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).unwrap();
    Client::new(COMMON_NAME).key(rsa(RsaKeySize::_4096)).write(&fixture.assets("sandbox"));
    let finding = fixture.only(GOOD, "key_type_not_allowed");
    says(&finding, "RSA 4096", "ECDSA P-256");
    assert_eq!(finding.source, Some("S12"));

    Client::new(COMMON_NAME).key(rsa(RsaKeySize::_2048)).write(&fixture.assets("sandbox"));
    let finding = fixture.only(GOOD, "ecdsa_preferred");
    assert_eq!(finding.severity, Severity::Warning);

    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    Client::new(COMMON_NAME).key(p384).write(&fixture.assets("sandbox"));
    assert_eq!(fixture.findings(GOOD), []);
}

#[test]
fn rsa_4096_is_allowed_in_regime_d1_but_a_self_signed_certificate_is_not() {
    let fixture = Fixture::new();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap();
    Client::new(COMMON_NAME).key(rsa).write(&fixture.assets("sandbox"));
    let finding = fixture.only(&with("environment", "regime = \"d1\""), "not_signed_by_thales");
    says(&finding, "self-signed", "signing request");
}

/// S12.
#[test]
fn sha_1_is_refused() {
    let fixture = Fixture::new();
    write(&fixture.sandbox(CERTIFICATE), RSA_2048_SHA1);
    let findings = fixture.findings(GOOD);
    let finding = findings.iter().find(|f| f.code == "signature_hash_not_allowed").expect("SHA-1 is refused");
    says(finding, "SHA-1", "SHA-256");
}

/// S5, S6.
#[test]
fn a_key_used_in_both_stages_is_refused() {
    let fixture = Fixture::new();
    let key = KeyPair::generate().unwrap();
    let copy = KeyPair::from_pem(&key.serialize_pem()).unwrap();
    Client::new(COMMON_NAME).key(key).write(&fixture.assets("sandbox"));
    Client::new("CUSTOMER-0001-PRD").key(copy).write(&fixture.assets("production"));
    let finding = fixture.only(&format!("{GOOD}{PRODUCTION}"), "key_in_both_stages");
    says(&finding, "sandbox (sandbox) and production (production)", "a key of its own");
    assert_eq!(finding.key_path, "environments.production.identity.certificate");
}

/// S5, S14.
#[test]
fn a_common_name_used_in_both_stages_is_refused() {
    let fixture = Fixture::new();
    Client::new(COMMON_NAME).write(&fixture.assets("production"));
    let text = format!("{GOOD}{}", PRODUCTION.replace("CUSTOMER-0001-PRD", COMMON_NAME));
    let finding = fixture.only(&text, "cn_in_both_stages");
    says(&finding, COMMON_NAME, "Thales portal");
}

#[test]
fn a_common_name_and_key_may_serve_two_environments_of_one_stage() {
    let fixture = Fixture::new();
    let second = PRODUCTION.replace("production", "sandbox2").replace("assets/sandbox2", "assets/sandbox");
    let second =
        second.replace("stage = \"sandbox2\"", "stage = \"sandbox\"").replace("0001-PRD", "0001-SBX");
    let findings = fixture.findings(&format!("{GOOD}{second}"));
    assert!(findings.iter().all(|f| f.severity == Severity::Warning), "{findings:#?}");
}

#[test]
fn an_encrypted_key_is_refused_with_the_way_to_decrypt_it() {
    let fixture = Fixture::new();
    let pem = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    write(&fixture.sandbox(KEY), pem);
    let finding = fixture.only(GOOD, "encrypted_key");
    says(&finding, "encrypted", "openssl pkcs8 -in");
    is_about(&finding, "environments.sandbox.identity.key", KEY);
}

#[test]
fn a_pem_without_a_certificate_is_refused() {
    let fixture = Fixture::new();
    let key = fs::read_to_string(fixture.sandbox(KEY)).unwrap();
    write(&fixture.sandbox(CERTIFICATE), &key);
    let finding = fixture.only(GOOD, "no_certificate");
    says(&finding, "no certificate in this file", "BEGIN CERTIFICATE");
    is_about(&finding, "environments.sandbox.identity.certificate", CERTIFICATE);
}

/// S9, S20.
#[test]
fn empty_anchors_are_refused_as_a_list_and_as_a_file() {
    let fixture = Fixture::new();
    let finding = fixture.only(&with("trust", "anchors = []"), "empty_anchors");
    says(&finding, "no built-in roots", "TSH_TLS_SERVER_CERTIFICATE_CHAIN");
    assert_eq!(finding.key_path, "environments.sandbox.trust.anchors");
    write(&fixture.sandbox(ANCHORS), "");
    let finding = fixture.only(GOOD, "no_certificate");
    is_about(&finding, "environments.sandbox.trust.anchors", ANCHORS);
}

#[test]
fn expired_anchors_quarantine_and_beside_a_valid_one_only_warn() {
    let fixture = Fixture::new();
    let old = authority_pem(NOW - Duration::days(900), NOW - Duration::days(1));
    write(&fixture.sandbox("old.pem"), &old);
    let finding = fixture.only(&with("trust", "anchors = [\"old.pem\"]"), "anchor_expired");
    assert_eq!(finding.severity, Severity::Quarantine);
    says(&finding, "expired on 2026-11-22", "TSH_TLS_SERVER_CERTIFICATE_CHAIN");
    is_about(&finding, "environments.sandbox.trust.anchors[0]", "old.pem");
    let both = with("trust", "anchors = [\"old.pem\", \"TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem\"]");
    let finding = fixture.only(&both, "anchor_expired");
    assert_eq!(finding.severity, Severity::Warning);
    assert!(fixture.inspect(&both).config.unwrap().environments[0].credentials.is_ok());
}

#[test]
fn every_faulty_anchor_file_is_named_and_not_just_the_first() {
    let fixture = Fixture::new();
    write(&fixture.sandbox("a.pem"), "nothing");
    write(&fixture.sandbox("b.pem"), &Client::new("leaf").certificate_pem());
    let findings = fixture.findings(&with("trust", "anchors = [\"a.pem\", \"b.pem\", \"c.pem\"]"));
    let seen: Vec<_> = findings.iter().map(|f| (f.key_path.rsplit('.').next().unwrap(), f.code)).collect();
    assert_eq!(
        seen,
        [("anchors[0]", "no_certificate"), ("anchors[1]", "only_leaf"), ("anchors[2]", "file_missing")]
    );
}

#[test]
fn a_malformed_pin_is_told_what_is_wrong_with_it() {
    let fixture = Fixture::new();
    for (pin, fault) in [
        ("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "begins with `sha256/`"),
        ("sha256/47DEQpj8!!", "not base64"),
        ("sha256/AAAA", "3"),
    ] {
        let finding = fixture.only(&with("trust", &format!("pins = [\"{pin}\"]")), "malformed_pin");
        says(&finding, fault, "sha256/ and the base64 SHA-256");
        assert_eq!(finding.key_path, "environments.sandbox.trust.pins[0]");
    }
}

#[test]
fn a_key_that_others_may_read_draws_a_warning_and_group_reading_does_not() {
    let fixture = Fixture::new();
    let mode = |mode| fs::set_permissions(fixture.sandbox(KEY), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    assert_eq!(fixture.findings(GOOD), []);
    mode(0o644);
    let finding = fixture.only(GOOD, "key_readable_by_others");
    assert_eq!(finding.severity, Severity::Warning);
    says(&finding, "0644", "chmod 600");
}

#[test]
fn no_finding_repeats_key_material() {
    let fixture = Fixture::new();
    let pem = "-----BEGIN PRIVATE KEY-----\nc2Vj*cmV0c2VjcmV0\n-----END PRIVATE KEY-----\n";
    write(&fixture.sandbox(KEY), pem);
    let findings = format!("{:?}", fixture.findings(GOOD));
    assert!(findings.contains("malformed_key") && !findings.contains("c2Vj"), "{findings}");
}
