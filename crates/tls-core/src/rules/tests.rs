//! The seed's points S10 to S14 and regime `d1`, each by name.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    PKCS_RSA_SHA384, RsaKeySize, SignatureAlgorithm,
};
use time::OffsetDateTime;
use time::macros::datetime;

use super::*;
use crate::certificate::CertificateInfo;
use crate::testing::{
    Authority, COMMON_NAME, NOW, RSA_1024, RSA_2048_SHA1, client_certificate, client_certificate_with, pem,
};

/// When the stored certificates are valid.
const STORED: OffsetDateTime = datetime!(2027-01-15 00:00 UTC);

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn with(change: impl FnOnce(&mut CertificateParams)) -> CertificateInfo {
    client_certificate_with(COMMON_NAME, key(&PKCS_ECDSA_P256_SHA256), change).info()
}

fn of_key(key: KeyPair) -> CertificateInfo {
    client_certificate_with(COMMON_NAME, key, |_| {}).info()
}

fn tsh(identity: &CertificateInfo) -> Vec<Finding> {
    lint_identity(Regime::Tsh.rules(), identity, COMMON_NAME, NOW)
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.code).collect()
}

fn only(findings: Vec<Finding>) -> Finding {
    let [finding] = findings.try_into().expect("exactly one finding");
    finding
}

#[test]
fn a_good_certificate_has_no_findings() {
    assert_eq!(tsh(&client_certificate(COMMON_NAME).info()), []);
    assert_eq!(tsh(&of_key(key(&PKCS_ECDSA_P384_SHA384))), []);
}

#[test]
fn s10_a_certificate_of_a_ca_is_not_self_signed() {
    let leaf = Authority::root("Bank CA").leaf_with("host.test", |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let finding = only(tsh(&leaf.info()));
    assert_eq!((finding.code, finding.source), ("not_self_signed", "S10"));
    assert!(finding.message.contains("CN=Bank CA"), "{}", finding.message);
}

#[test]
fn s11_two_calendar_years_pass_and_a_second_more_does_not() {
    let cases = [
        (datetime!(2026-05-01 00:00 UTC), datetime!(2028-05-01 00:00:00 UTC), true),
        (datetime!(2026-05-01 00:00 UTC), datetime!(2028-05-01 00:00:01 UTC), false),
        // 731 days across a leap year are two calendar years.
        (datetime!(2027-03-01 00:00 UTC), datetime!(2029-03-01 00:00:00 UTC), true),
        (datetime!(2028-02-29 00:00 UTC), datetime!(2030-02-28 00:00:00 UTC), true),
        (datetime!(2028-02-29 00:00 UTC), datetime!(2030-03-01 00:00:00 UTC), false),
    ];
    for (not_before, not_after, passes) in cases {
        let identity = with(|params| (params.not_before, params.not_after) = (not_before, not_after));
        let now = not_before + Duration::DAY;
        let findings = lint_identity(Regime::Tsh.rules(), &identity, COMMON_NAME, now);
        let expected: &[&str] = if passes { &[] } else { &["validity_too_long"] };
        assert_eq!(codes(&findings), expected, "{not_before} to {not_after}");
    }
}

#[test]
fn s11_backdating_counts() {
    // Two years from today, but said to be valid since last week.
    let identity = with(|params| {
        params.not_before = NOW - Duration::WEEK;
        params.not_after = datetime!(2028-06-01 12:00 UTC);
    });
    let finding = only(tsh(&identity));
    assert_eq!(
        (finding.code, finding.severity, finding.source),
        ("validity_too_long", Severity::Error, "S11")
    );
    assert!(
        finding.message.contains("the latest end allowed is 2028-05-25T12:00:00Z"),
        "{}",
        finding.message
    );
}

#[test]
fn s11_expired_and_future_certificates() {
    let expired = with(|params| params.not_after = NOW - Duration::SECOND);
    let finding = only(tsh(&expired));
    assert_eq!(finding.code, "certificate_expired");
    assert!(finding.message.contains("expired on 2026-06-01T11:59:59Z"), "{}", finding.message);
    let future = with(|params| params.not_before = NOW + Duration::SECOND);
    assert_eq!(only(tsh(&future)).code, "certificate_not_yet_valid");
}

#[test]
fn a_certificate_warns_a_month_before_its_end() {
    let ending = |left: Duration| codes(&tsh(&with(|params| params.not_after = NOW + left)));
    assert_eq!(ending(Duration::days(30)), ["expires_soon"]);
    assert_eq!(ending(Duration::days(30) + Duration::SECOND), [] as [&str; 0]);
    assert_eq!(ending(Duration::ZERO), ["expires_soon"]);
    let finding = only(tsh(&with(|params| params.not_after = NOW + Duration::days(12))));
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.message.contains("in 12 days"), "{}", finding.message);
}

#[test]
fn s12_keys_that_are_not_allowed_are_named() {
    let cases = [
        (key(&PKCS_ECDSA_P521_SHA512), "ECDSA P-521"),
        (key(&PKCS_ED25519), "Ed25519"),
        (KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap(), "RSA 4096"),
    ];
    for (key, name) in cases {
        let finding = only(tsh(&of_key(key)));
        assert_eq!((finding.code, finding.source), ("key_type_not_allowed", "S12"));
        assert!(
            finding.message.contains(&format!("the key is {name}; regime tsh allows")),
            "{}",
            finding.message
        );
    }
}

#[test]
fn s12_rsa_1024_is_refused() {
    let identity = CertificateInfo::from_pem(&pem("c.pem", RSA_1024)).unwrap();
    let findings = lint_identity(Regime::Tsh.rules(), &identity, COMMON_NAME, STORED);
    assert_eq!(codes(&findings), ["key_type_not_allowed", "ca_flag_set", "no_client_auth_eku"]);
    assert!(findings[0].message.contains("RSA 1024"));
}

#[test]
fn s12_sha_1_is_refused() {
    let identity = CertificateInfo::from_pem(&pem("c.pem", RSA_2048_SHA1)).unwrap();
    let findings = lint_identity(Regime::Tsh.rules(), &identity, COMMON_NAME, STORED);
    assert_eq!(findings[0].code, "signature_hash_not_allowed");
    assert!(findings[0].message.contains("RSA with SHA-1; allowed is SHA-256"), "{}", findings[0].message);
}

#[test]
fn s12_sha_256_binds_rsa() {
    let rsa = |algorithm| of_key(KeyPair::generate_rsa_for(algorithm, RsaKeySize::_2048).unwrap());
    assert_eq!(codes(&tsh(&rsa(&PKCS_RSA_SHA256))), ["ecdsa_preferred"]);
    assert_eq!(codes(&tsh(&rsa(&PKCS_RSA_SHA384))), ["signature_hash_not_allowed", "ecdsa_preferred"]);
}

#[test]
fn s13_rsa_is_allowed_with_a_warning() {
    let identity = of_key(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());
    let finding = only(tsh(&identity));
    assert_eq!(
        (finding.code, finding.severity, finding.source),
        ("ecdsa_preferred", Severity::Warning, "S13")
    );
}

#[test]
fn s14_the_common_name_is_compared_exactly() {
    let identity = client_certificate(COMMON_NAME).info();
    for declared in ["customer-0001-sbx", "CUSTOMER-0001-SBX ", "CUSTOMER-0001-PRD", ""] {
        let findings = lint_identity(Regime::Tsh.rules(), &identity, declared, NOW);
        let finding = only(findings);
        assert_eq!((finding.code, finding.source), ("wrong_common_name", "S14"));
        assert!(finding.message.contains(&format!("{COMMON_NAME:?}")), "{}", finding.message);
        assert!(finding.message.contains(&format!("declared is {declared:?}")), "{}", finding.message);
    }
}

#[test]
fn s14_a_common_name_may_hold_slashes_and_commas() {
    for name in ["TLSMA-RSA/0001/PPR", "a, CN=b", "Société"] {
        let identity = client_certificate(name).info();
        assert_eq!(lint_identity(Regime::Tsh.rules(), &identity, name, NOW), []);
    }
}

#[test]
fn s14_no_common_name_and_several_are_wrong() {
    let none = with(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Bank");
    });
    assert!(only(tsh(&none)).message.contains("no Common Name"));
}

#[test]
fn a_plain_openssl_certificate_only_draws_warnings() {
    let plain = with(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages.clear();
        params.key_usages.clear();
    });
    let findings = tsh(&plain);
    assert_eq!(codes(&findings), ["ca_flag_set", "no_client_auth_eku"]);
    assert!(findings.iter().all(|finding| finding.severity == Severity::Warning));
}

#[test]
fn a_server_certificate_draws_a_warning_as_client_certificate() {
    let server = with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(only(tsh(&server)).message.contains("does not include client authentication"));
    let any = with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    assert_eq!(tsh(&any), []);
}

#[test]
fn everything_is_reported_at_once_errors_first() {
    let bad = client_certificate_with("WRONG", key(&PKCS_ED25519), |params| {
        params.not_after = NOW - Duration::SECOND;
        params.not_before = NOW - Duration::days(1000);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages.clear();
    });
    let findings = tsh(&bad.info());
    assert_eq!(
        codes(&findings),
        [
            "wrong_common_name",
            "certificate_expired",
            "validity_too_long",
            "key_type_not_allowed",
            "ca_flag_set",
            "no_client_auth_eku"
        ]
    );
    assert!(findings.is_sorted_by_key(|finding| finding.severity));
    assert!(findings.iter().all(|finding| !finding.remedy.is_empty()));
}

#[test]
fn d1_wants_a_certificate_signed_by_thales() {
    let d1 =
        |identity: &CertificateInfo| codes(&lint_identity(Regime::D1.rules(), identity, COMMON_NAME, NOW));
    assert_eq!(d1(&client_certificate(COMMON_NAME).info()), ["not_signed_by_thales"]);
    let signed = Authority::root("Thales CA").leaf_with("host.test", |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = NOW + Duration::days(1800);
    });
    assert_eq!(d1(&signed.info()), [] as [&str; 0]);
    assert_eq!(
        d1(&of_key(key(&PKCS_ECDSA_P384_SHA384))),
        ["key_type_not_allowed", "signature_hash_not_allowed", "not_signed_by_thales"]
    );
    let rsa = |size| of_key(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).unwrap());
    assert_eq!(d1(&rsa(RsaKeySize::_4096)), ["not_signed_by_thales"]);
    assert_eq!(d1(&rsa(RsaKeySize::_2048)), ["key_type_not_allowed", "not_signed_by_thales"]);
}

#[test]
fn s5_s6_nothing_is_shared_between_stages() {
    let key_pem = key(&PKCS_ECDSA_P256_SHA256).serialize_pem();
    let same_key = || KeyPair::from_pem(&key_pem).unwrap();
    let sandbox = client_certificate_with("A", same_key(), |_| {}).info();
    let same_key_other_name = client_certificate_with("B", same_key(), |_| {}).info();
    let other_key_same_name = client_certificate("A").info();
    let lint = |production: &CertificateInfo| {
        lint_pair_across_stages(&[
            ("sandbox", Stage::Sandbox, &sandbox),
            ("prod", Stage::Production, production),
        ])
    };
    assert_eq!(lint(&client_certificate("B").info()), []);
    let finding = only(lint(&same_key_other_name));
    assert_eq!(finding.code, "key_in_both_stages");
    assert!(finding.message.contains("sandbox (sandbox) and prod (production)"), "{}", finding.message);
    let finding = only(lint(&other_key_same_name));
    assert_eq!(finding.code, "cn_in_both_stages");
    assert!(finding.message.contains("\"A\""), "{}", finding.message);
    assert_eq!(codes(&lint(&sandbox)), ["cn_in_both_stages", "key_in_both_stages"]);
}

#[test]
fn environments_of_one_stage_may_share() {
    let identity = client_certificate("A").info();
    let pair = [("one", Stage::Sandbox, &identity), ("two", Stage::Sandbox, &identity)];
    assert_eq!(lint_pair_across_stages(&pair), []);
}

#[test]
fn names_read_back() {
    for regime in [Regime::Tsh, Regime::D1] {
        assert_eq!(regime.to_string().parse(), Ok(regime));
        assert_eq!(serde_json::to_string(&regime).unwrap(), format!("\"{regime}\""));
        assert_eq!(regime.rules().regime, regime);
    }
    for stage in [Stage::Sandbox, Stage::Production] {
        assert_eq!(stage.to_string().parse(), Ok(stage));
        assert_eq!(serde_json::from_str::<Stage>(&format!("\"{stage}\"")).unwrap(), stage);
    }
    assert_eq!(Regime::default(), Regime::Tsh);
    assert!("staging".parse::<Stage>().unwrap_err().to_string().contains("sandbox, production"));
}

#[test]
fn findings_serialise_for_json_reports() {
    let finding = only(tsh(&with(|params| params.not_after = NOW - Duration::SECOND)));
    let json = serde_json::to_value(&finding).unwrap();
    assert_eq!(json["severity"], "error");
    assert_eq!(json["code"], "certificate_expired");
    assert_eq!(json["source"], "S11");
}
