//! Loading identities, and every way in which the files can be wrong.

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};

use super::*;
use crate::testing::{
    Authority, COMMON_NAME, HOST, RSA_1024, client_certificate, client_certificate_with, pem,
};

fn load(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Identity, IdentityError> {
    Identity::from_pem(&pem("client.pem", certificate), &pem("client.key", key))
}

fn message(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> String {
    load(certificate, key).unwrap_err().to_string()
}

#[test]
fn certificate_and_key_make_an_identity() {
    let client = client_certificate(COMMON_NAME);
    let identity = load(&client.pem, client.key_pem()).unwrap();
    assert_eq!(identity.certificate().common_name(), Some(COMMON_NAME));
    assert_eq!(identity.chain(), std::slice::from_ref(&client.der));
    assert_eq!(identity.public_key_pin(), client.pin());
    assert!(identity.certified_key().is_some());
}

#[test]
fn every_allowed_kind_of_key_can_sign() {
    let keys = [
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    ];
    for key in keys {
        let client = client_certificate_with(COMMON_NAME, key, |_| {});
        assert!(load(&client.pem, client.key_pem()).unwrap().certified_key().is_some());
    }
}

#[test]
fn certificate_and_key_may_share_a_file() {
    let client = client_certificate(COMMON_NAME);
    let both = format!("{}{}", client.key_pem(), client.pem);
    assert!(load(&both, &both).is_ok());
}

#[test]
fn a_chain_is_sent_as_it_stands_leaf_first() {
    let root = Authority::root("Root");
    let leaf = root.leaf(HOST);
    let identity = load(format!("{}{}", leaf.pem, root.pem), leaf.key_pem()).unwrap();
    assert_eq!(identity.chain(), [leaf.der.clone(), root.der.clone()]);
}

#[test]
fn a_key_of_another_certificate_is_named_with_both_files() {
    let (one, other) = (client_certificate(COMMON_NAME), client_certificate(COMMON_NAME));
    let error = load(&one.pem, other.key_pem()).unwrap_err();
    assert!(matches!(error, IdentityError::KeyMismatch { .. }));
    let text = error.to_string();
    assert!(text.starts_with("client.key: "), "{text}");
    assert!(text.contains("client.pem") && text.contains(&one.info().fingerprint().short()), "{text}");
}

#[test]
fn a_chain_with_the_ca_first_does_not_match_the_key() {
    let root = Authority::root("Root");
    let leaf = root.leaf(HOST);
    let error = load(format!("{}{}", root.pem, leaf.pem), leaf.key_pem()).unwrap_err();
    assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error}");
}

#[test]
fn missing_parts_are_named() {
    let client = client_certificate(COMMON_NAME);
    let text = message("", client.key_pem());
    assert!(text.starts_with("client.pem: no certificate in this file"), "{text}");
    let text = message(&client.pem, &client.pem);
    assert!(text.starts_with("client.key: no private key in this file"), "{text}");
    // A key given where the certificate belongs.
    let text = message(client.key_pem(), client.key_pem());
    assert!(text.starts_with("client.pem: no certificate in this file"), "{text}");
}

#[test]
fn an_encrypted_key_gets_the_command_that_decrypts_it() {
    let client = client_certificate(COMMON_NAME);
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    for key in [pkcs8, legacy] {
        let error = load(&client.pem, key).unwrap_err();
        assert!(matches!(error, IdentityError::EncryptedKey { .. }));
        assert!(error.to_string().contains("openssl pkcs8 -in client.key -out"), "{error}");
    }
}

#[test]
fn several_keys_are_refused_with_their_count() {
    let client = client_certificate(COMMON_NAME);
    let error = load(&client.pem, client.key_pem().repeat(3)).unwrap_err();
    assert_eq!(error, IdentityError::SeveralKeys { label: "client.key".into(), found: 3 });
}

#[test]
fn a_damaged_key_is_refused_without_showing_it() {
    let client = client_certificate(COMMON_NAME);
    let text = message(&client.pem, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    assert!(text.contains("cannot be used") && !text.contains("c2VjcmV0"), "{text}");
    let text = message(&client.pem, "-----BEGIN PRIVATE KEY-----\nc2V*jcmV0\n-----END PRIVATE KEY-----\n");
    assert!(text.contains("malformed private key") && !text.contains("jcmV0"), "{text}");
}

#[test]
fn a_damaged_certificate_is_refused() {
    let client = client_certificate(COMMON_NAME);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let text = message(broken, client.key_pem());
    assert!(text.starts_with("client.pem: malformed certificate"), "{text}");
    // Further down the chain too.
    let text = message(format!("{}{broken}", client.pem), client.key_pem());
    assert!(text.starts_with("client.pem: malformed certificate"), "{text}");
}

#[test]
fn rsa_1024_is_left_to_the_linter() {
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let identity = load(RSA_1024, key).unwrap();
    assert_eq!(identity.certificate().key(), &KeyKind::Rsa { bits: 1024 });
    assert!(identity.certified_key().is_none());
}

#[test]
fn identities_are_the_same_by_content() {
    let (one, other) = (client_certificate(COMMON_NAME), client_certificate(COMMON_NAME));
    let first = load(&one.pem, one.key_pem()).unwrap();
    assert!(first.is_same(&first.clone()));
    assert!(first.is_same(&load(&one.pem, one.key_pem()).unwrap()));
    assert!(!first.is_same(&load(&other.pem, other.key_pem()).unwrap()));
}

#[test]
fn debug_shows_no_key() {
    let client = client_certificate(COMMON_NAME);
    let shown = format!("{:?}", load(&client.pem, client.key_pem()).unwrap());
    assert!(shown.contains(COMMON_NAME) && shown.contains(&client.info().fingerprint().to_string()));
    assert!(shown.ends_with(".. }"), "{shown}");
    assert!(!shown.contains("key"), "{shown}");
}
