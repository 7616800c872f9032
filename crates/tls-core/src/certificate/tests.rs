//! Reading certificates of every kind the linter must speak of.

use rcgen::string::BmpString;
use rcgen::{DnType, DnValue, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};
use time::macros::datetime;

use super::*;
use crate::testing::{
    Authority, HOST, RSA_1024, RSA_2048_PSS, RSA_2048_SHA1, client_certificate, client_certificate_with, pem,
};

fn read(bytes: &[u8]) -> CertificateInfo {
    CertificateInfo::from_pem(&pem("c.pem", bytes)).unwrap()
}

#[test]
fn a_client_certificate_is_read_in_full() {
    let client = client_certificate("CUSTOMER-0001-SBX");
    let info = client.info();
    assert_eq!(info.common_names(), ["CUSTOMER-0001-SBX"]);
    assert_eq!(info.common_name(), Some("CUSTOMER-0001-SBX"));
    assert_eq!(info.subject(), "CN=CUSTOMER-0001-SBX");
    assert_eq!(info.issuer(), info.subject());
    assert_eq!(info.key(), &KeyKind::EcP256);
    assert_eq!(info.signature(), &SignatureKind::Ecdsa(HashKind::Sha256));
    assert_eq!(info.is_ca(), Some(false));
    let usage = info.extended_key_usage().unwrap();
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(info.is_self_signed());
    assert_eq!(info.fingerprint(), Fingerprint::of(&client.der));
    assert!(info.serial().bytes().all(|digit| digit.is_ascii_hexdigit()));
}

#[test]
fn an_issued_certificate_is_not_self_signed_and_has_its_names() {
    let info = Authority::root("Root").leaf(HOST).info();
    assert!(!info.is_self_signed());
    assert_eq!(info.dns_names(), [HOST]);
    assert_eq!(info.issuer(), "CN=Root");
    assert_eq!(info.is_ca(), None);
}

#[test]
fn a_certificate_that_only_names_itself_as_issuer_is_not_self_signed() {
    // Subject and issuer agree, the signature is another key's.
    let root = Authority::root("Same Name");
    let pretender = root.subordinate("Same Name").info();
    assert!(pretender.is_self_issued());
    assert!(!pretender.is_self_signed());
    assert!(root.info().is_self_signed());
}

#[test]
fn rsa_1024_is_read_so_that_it_can_be_refused_by_name() {
    let info = read(RSA_1024);
    assert_eq!(info.key(), &KeyKind::Rsa { bits: 1024 });
    assert_eq!(info.signature(), &SignatureKind::RsaPkcs1(HashKind::Sha256));
    assert_eq!(info.is_ca(), Some(true));
    assert_eq!(info.subject(), "C=FR, O=Example Bank, CN=CUSTOMER-0001-SBX");
    assert_eq!(info.not_after(), datetime!(2027-11-23 21:42:00 UTC));
    assert!(info.is_self_signed());
}

#[test]
fn sha_1_is_read_so_that_it_can_be_refused_by_name() {
    let info = read(RSA_2048_SHA1);
    assert_eq!(info.key(), &KeyKind::Rsa { bits: 2048 });
    assert_eq!(info.signature(), &SignatureKind::RsaPkcs1(HashKind::Sha1));
    assert!(info.is_self_signed());
}

#[test]
fn rsa_pss_parameters_are_read() {
    let info = read(RSA_2048_PSS);
    assert_eq!(info.key(), &KeyKind::Rsa { bits: 2048 });
    assert_eq!(info.signature(), &SignatureKind::RsaPss(HashKind::Sha256));
    assert!(info.is_self_signed());
}

#[test]
fn curves_are_told_apart() {
    let kind = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let info = client_certificate_with("c", key, |_| {}).info();
        assert!(info.is_self_signed());
        info.key().clone()
    };
    assert_eq!(kind(&PKCS_ECDSA_P384_SHA384), KeyKind::EcP384);
    assert_eq!(kind(&PKCS_ECDSA_P521_SHA512), KeyKind::EcOther("P-521".into()));
    assert_eq!(kind(&PKCS_ED25519), KeyKind::Ed25519);
}

#[test]
fn common_names_are_decoded_whatever_their_string_type() {
    let with = |value: DnValue| {
        let key = KeyPair::generate().unwrap();
        let client = client_certificate_with("x", key, |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, value);
        });
        client.info().common_names().to_vec()
    };
    assert_eq!(with(DnValue::BmpString(BmpString::try_from("Société").unwrap())), ["Société"]);
    assert_eq!(with(DnValue::PrintableString("PRD/0001".try_into().unwrap())), ["PRD/0001"]);
    assert_eq!(with(DnValue::UniversalString("wide".try_into().unwrap())), ["wide"]);
    assert_eq!(with(DnValue::TeletexString("old".try_into().unwrap())), ["old"]);
    assert_eq!(with("a, b + c/d".into()), ["a, b + c/d"]);
    assert_eq!(with("".into()), [""]);
}

#[test]
fn a_common_name_that_cannot_be_decoded_is_shown_as_hex() {
    // A UTF8String whose bytes are not UTF-8, put into the finished certificate.
    let mut der = client_certificate("marker").der.to_vec();
    let places: Vec<_> = (0..der.len() - 6).filter(|at| der[*at..].starts_with(b"marker")).collect();
    assert_eq!(places.len(), 2, "issuer and subject");
    for place in places {
        der[place] = 0xff;
    }
    let info = CertificateInfo::from_der("c", &CertificateDer::from(der)).unwrap();
    assert_eq!(info.common_names(), ["#ff61726b6572"]);
}

#[test]
fn the_end_of_validity_is_read_whatever_the_extensions_are() {
    let leaf = Authority::root("Root").leaf(HOST);
    assert_eq!(not_after(&leaf.der), Some(leaf.info().not_after()));
    assert_eq!(not_after(&CertificateDer::from(vec![0x30, 0])), None);
}

#[test]
fn a_file_without_a_certificate_says_what_it_needs() {
    let error = CertificateInfo::from_pem(&pem("empty.pem", "nothing here\n")).unwrap_err();
    assert!(matches!(error, CertificateError::NoCertificate { .. }));
    let text = error.to_string();
    assert!(text.starts_with("empty.pem: no certificate"), "{text}");
    assert!(text.contains("-----BEGIN CERTIFICATE-----"), "{text}");
}

#[test]
fn der_instead_of_pem_is_recognised() {
    let der = client_certificate("c").der;
    let error = CertificateInfo::from_pem(&pem("c.der", &der)).unwrap_err();
    assert!(error.to_string().contains("openssl x509 -inform der"), "{error}");
}

#[test]
fn a_damaged_certificate_is_malformed() {
    let der = client_certificate("c").der;
    let cut = CertificateDer::from(der[..der.len() - 1].to_vec());
    let error = CertificateInfo::from_der("cut.pem", &cut).unwrap_err();
    assert!(error.to_string().starts_with("cut.pem: malformed certificate"), "{error}");
    let mut longer = der.to_vec();
    longer.push(0);
    let error = CertificateInfo::from_der("long.pem", &CertificateDer::from(longer)).unwrap_err();
    assert!(error.to_string().contains("1 bytes follow"), "{error}");
}

#[test]
fn no_cut_of_a_certificate_makes_the_reader_panic() {
    let der = Authority::root("Root").leaf(HOST).der;
    for end in 0..der.len() {
        assert!(CertificateInfo::from_der("cut", &CertificateDer::from(der[..end].to_vec())).is_err());
    }
    for position in 0..der.len() {
        let mut flipped = der.to_vec();
        flipped[position] ^= 0x80;
        // Accepted or refused; what matters is that it returns.
        let _ = CertificateInfo::from_der("flipped", &CertificateDer::from(flipped));
    }
}

#[test]
fn fingerprints_have_a_long_and_a_short_form() {
    let fingerprint = Fingerprint::of(b"");
    assert_eq!(fingerprint.to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(fingerprint.short(), "e3b0c442");
    assert_eq!(serde_json::to_string(&fingerprint).unwrap(), format!("\"{fingerprint}\""));
}

#[test]
fn validity_includes_both_ends() {
    let info = client_certificate("c").info();
    assert!(info.is_valid_at(info.not_before()));
    assert!(info.is_valid_at(info.not_after()));
    assert!(!info.is_valid_at(info.not_before() - time::Duration::SECOND));
    assert!(!info.is_valid_at(info.not_after() + time::Duration::SECOND));
}
