//! Owns the key types that can be made and the SPKI pin of a key. It does not own certificates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData as _, RsaKeySize};
use serde::{Deserialize, Serialize};

use super::issue;
use crate::SimError;

/// A key type. Those outside the provider's rules (all but the first three) exist for tests of the linter.
/// RSA below 2048 bits is missing: the crypto library refuses to make it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyAlgorithm {
    /// ECDSA on prime256v1, signing with SHA-256. The default.
    #[default]
    EcP256,
    /// ECDSA on secp384r1, signing with SHA-384.
    EcP384,
    /// RSA 2048 bits, signing with SHA-256.
    Rsa2048,
    /// RSA 3072 bits, signing with SHA-256.
    Rsa3072,
    /// RSA 4096 bits, signing with SHA-256.
    Rsa4096,
    /// RSA 2048 bits, signing with SHA-512.
    Rsa2048Sha512,
    /// ECDSA on secp521r1, signing with SHA-512.
    EcP521,
    /// Ed25519.
    Ed25519,
}

impl KeyAlgorithm {
    pub(super) fn generate(self, subject: &str) -> Result<KeyPair, SimError> {
        let made = match self {
            Self::EcP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::EcP521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
            Self::Rsa2048Sha512 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA512, RsaKeySize::_2048),
        };
        made.map_err(issue(subject))
    }
}

/// `sha256/<base64>` over the SubjectPublicKeyInfo of `key`.
pub(super) fn pin(key: &KeyPair) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
    format!("sha256/{}", STANDARD.encode(digest))
}
