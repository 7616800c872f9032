//! Names for what a certificate is made with: key kinds, signatures and their hashes.
//!
//! Owns the translation from object identifiers. Whether a kind is allowed is decided in `rules`.

use std::fmt;

use serde::Serialize;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// The kind and size of a certificate's public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// ECDSA on P-256 (prime256v1, secp256r1).
    EcP256,
    /// ECDSA on P-384 (secp384r1).
    EcP384,
    /// An elliptic curve other than these; its name or object identifier.
    EcOther(String),
    /// RSA.
    Rsa {
        /// Length of the modulus in bits.
        bits: u32,
    },
    /// Ed25519.
    Ed25519,
    /// Another algorithm; its name or object identifier.
    Other(String),
}

impl KeyKind {
    pub(super) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        match spki.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.10045.2.1" => curve(&spki.algorithm),
            "1.2.840.113549.1.1.1" => match spki.parsed() {
                Ok(PublicKey::RSA(key)) => Self::Rsa { bits: modulus_bits(key.modulus) },
                _ => Self::Other("RSA (malformed key)".into()),
            },
            "1.2.840.113549.1.1.10" => Self::Other("RSASSA-PSS".into()),
            "1.2.840.10040.4.1" => Self::Other("DSA".into()),
            "1.3.101.112" => Self::Ed25519,
            "1.3.101.113" => Self::Other("Ed448".into()),
            oid => Self::Other(oid.to_owned()),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcP256 => f.write_str("ECDSA P-256"),
            Self::EcP384 => f.write_str("ECDSA P-384"),
            Self::EcOther(name) => write!(f, "ECDSA {name}"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// The hash inside a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKind {
    /// MD5: broken.
    Md5,
    /// SHA-1: broken for signatures.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl fmt::Display for HashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
            Self::Sha224 => "SHA-224",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        })
    }
}

/// The algorithm that a certificate was signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureKind {
    /// RSA PKCS#1 v1.5.
    RsaPkcs1(HashKind),
    /// RSA-PSS.
    RsaPss(HashKind),
    /// ECDSA.
    Ecdsa(HashKind),
    /// Ed25519, which hashes inside.
    Ed25519,
    /// Another algorithm; its object identifier.
    Other(String),
}

impl SignatureKind {
    /// The hash, where the algorithm has one of its own to choose.
    pub fn hash(&self) -> Option<HashKind> {
        match self {
            Self::RsaPkcs1(hash) | Self::RsaPss(hash) | Self::Ecdsa(hash) => Some(*hash),
            Self::Ed25519 | Self::Other(_) => None,
        }
    }

    pub(super) fn of(algorithm: &AlgorithmIdentifier<'_>) -> Self {
        match algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.4" => Self::RsaPkcs1(HashKind::Md5),
            "1.2.840.113549.1.1.5" => Self::RsaPkcs1(HashKind::Sha1),
            "1.2.840.113549.1.1.14" => Self::RsaPkcs1(HashKind::Sha224),
            "1.2.840.113549.1.1.11" => Self::RsaPkcs1(HashKind::Sha256),
            "1.2.840.113549.1.1.12" => Self::RsaPkcs1(HashKind::Sha384),
            "1.2.840.113549.1.1.13" => Self::RsaPkcs1(HashKind::Sha512),
            oid @ "1.2.840.113549.1.1.10" => {
                pss_hash(algorithm).map_or(Self::Other(oid.into()), Self::RsaPss)
            }
            "1.2.840.10045.4.1" => Self::Ecdsa(HashKind::Sha1),
            "1.2.840.10045.4.3.1" => Self::Ecdsa(HashKind::Sha224),
            "1.2.840.10045.4.3.2" => Self::Ecdsa(HashKind::Sha256),
            "1.2.840.10045.4.3.3" => Self::Ecdsa(HashKind::Sha384),
            "1.2.840.10045.4.3.4" => Self::Ecdsa(HashKind::Sha512),
            "1.3.101.112" => Self::Ed25519,
            oid => Self::Other(oid.to_owned()),
        }
    }
}

impl fmt::Display for SignatureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaPkcs1(hash) => write!(f, "RSA with {hash}"),
            Self::RsaPss(hash) => write!(f, "RSA-PSS with {hash}"),
            Self::Ecdsa(hash) => write!(f, "ECDSA with {hash}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(oid) => write!(f, "an unknown algorithm ({oid})"),
        }
    }
}

/// The named curve in an EC key's parameters.
fn curve(algorithm: &AlgorithmIdentifier<'_>) -> KeyKind {
    let named = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match named.map(|oid| oid.to_id_string()).as_deref() {
        Some("1.2.840.10045.3.1.7") => KeyKind::EcP256,
        Some("1.3.132.0.34") => KeyKind::EcP384,
        Some("1.3.132.0.33") => KeyKind::EcOther("P-224".into()),
        Some("1.3.132.0.35") => KeyKind::EcOther("P-521".into()),
        Some("1.3.132.0.10") => KeyKind::EcOther("secp256k1".into()),
        Some(oid) => KeyKind::EcOther(oid.to_owned()),
        None => KeyKind::EcOther("with explicit parameters".into()),
    }
}

/// The hash in RSASSA-PSS parameters (RFC 4055 §3.1); absent means SHA-1.
fn pss_hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<HashKind> {
    use x509_parser::signature_algorithm::RsaSsaPssParams;
    let parameters = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
    match parameters.hash_algorithm_oid().to_id_string().as_str() {
        "1.3.14.3.2.26" => Some(HashKind::Sha1),
        "2.16.840.1.101.3.4.2.4" => Some(HashKind::Sha224),
        "2.16.840.1.101.3.4.2.1" => Some(HashKind::Sha256),
        "2.16.840.1.101.3.4.2.2" => Some(HashKind::Sha384),
        "2.16.840.1.101.3.4.2.3" => Some(HashKind::Sha512),
        _ => None,
    }
}

/// Bits of a DER integer's magnitude: leading zero bytes and bits do not count.
fn modulus_bits(modulus: &[u8]) -> u32 {
    let significant = match modulus.iter().position(|byte| *byte != 0) {
        Some(first) => &modulus[first..],
        None => return 0,
    };
    // A modulus comes from a file of at most 1 MiB, so its length in bits fits.
    significant.len() as u32 * 8 - significant[0].leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modulus_bits_ignore_the_sign_byte_and_leading_zero_bits() {
        assert_eq!(modulus_bits(&[]), 0);
        assert_eq!(modulus_bits(&[0, 0]), 0);
        assert_eq!(modulus_bits(&[0, 0x80]), 8);
        assert_eq!(modulus_bits(&[0x01, 0x00]), 9);
        let mut modulus = vec![0; 257];
        modulus[1] = 0xc0;
        assert_eq!(modulus_bits(&modulus), 2048);
    }

    #[test]
    fn kinds_are_named_as_the_provider_names_them() {
        assert_eq!(KeyKind::Rsa { bits: 2048 }.to_string(), "RSA 2048");
        assert_eq!(KeyKind::EcOther("P-521".into()).to_string(), "ECDSA P-521");
        assert_eq!(SignatureKind::RsaPkcs1(HashKind::Sha1).to_string(), "RSA with SHA-1");
        assert_eq!(SignatureKind::Ed25519.hash(), None);
    }
}
