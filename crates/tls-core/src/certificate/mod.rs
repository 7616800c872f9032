//! What is read from one X.509 certificate, decoded once and owned.
//!
//! Owns reading, not judging: a certificate signed with SHA-1 or holding a 1024-bit key is read like any
//! other, so that the linter can speak of it.

mod algorithms;
mod parse;

use std::fmt;

use rustls::pki_types::CertificateDer;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

pub use algorithms::{HashKind, KeyKind, SignatureKind};
pub(crate) use parse::not_after;

use crate::clock::serialize_rfc3339;
use crate::pem::PemSource;
use crate::pin::{SpkiPin, sha256};

/// The SHA-256 of a certificate's DER encoding: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(sha256(der))
    }

    /// The first 8 hex digits: enough for a person to tell certificates apart in a list.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }

    /// The 32 bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The purposes of the extended key usage extension that concern TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExtendedKeyUsage {
    /// `anyExtendedKeyUsage`.
    pub any: bool,
    /// `id-kp-serverAuth`.
    pub server_auth: bool,
    /// `id-kp-clientAuth`.
    pub client_auth: bool,
}

/// One X.509 certificate, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateInfo {
    subject: String,
    common_names: Vec<String>,
    issuer: String,
    serial: String,
    #[serde(serialize_with = "serialize_rfc3339")]
    not_before: OffsetDateTime,
    #[serde(serialize_with = "serialize_rfc3339")]
    not_after: OffsetDateTime,
    key: KeyKind,
    signature: SignatureKind,
    is_ca: Option<bool>,
    extended_key_usage: Option<ExtendedKeyUsage>,
    self_signed: bool,
    dns_names: Vec<String>,
    fingerprint: Fingerprint,
    spki: SpkiPin,
    /// Subject and issuer in DER, to find who issued whom.
    #[serde(skip)]
    raw_subject: Vec<u8>,
    #[serde(skip)]
    raw_issuer: Vec<u8>,
}

impl CertificateInfo {
    /// Reads a certificate in DER. `label` is what messages call it.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Malformed`] if it is not an X.509 certificate, or something follows it.
    pub fn from_der(label: &str, der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        parse::parse(der).map_err(|detail| CertificateError::Malformed { label: label.to_owned(), detail })
    }

    /// Reads the first certificate of a PEM file: for a certificate whose key is not at hand, or not usable.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if there is none, or it cannot be decoded.
    pub fn from_pem(source: &PemSource) -> Result<Self, CertificateError> {
        let chain = certificates_of(source)?;
        Self::from_der(source.label(), &chain[0])
    }

    /// The subject as text, for people: `C=FR, O=Bank, CN=CUSTOMER-0001-SBX`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Every Common Name of the subject, decoded, in the order of the certificate. More than one is rare.
    pub fn common_names(&self) -> &[String] {
        &self.common_names
    }

    /// The first Common Name, if there is one.
    pub fn common_name(&self) -> Option<&str> {
        self.common_names.first().map(String::as_str)
    }

    /// The issuer as text, for people.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The serial number, lower-case hex without separators.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Start of validity, UTC, inclusive.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// End of validity, UTC, inclusive.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether `now` lies within the validity.
    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Kind and size of the public key.
    pub fn key(&self) -> &KeyKind {
        &self.key
    }

    /// The algorithm that the issuer signed with.
    pub fn signature(&self) -> &SignatureKind {
        &self.signature
    }

    /// `cA` of the basic constraints; `None` if the certificate has no such extension.
    pub fn is_ca(&self) -> Option<bool> {
        self.is_ca
    }

    /// The extended key usage; `None` if the certificate has no such extension (any use is allowed then).
    pub fn extended_key_usage(&self) -> Option<ExtendedKeyUsage> {
        self.extended_key_usage
    }

    /// Whether the certificate names itself as issuer and, where the algorithm is one that can be checked,
    /// its own key verifies its signature.
    pub fn is_self_signed(&self) -> bool {
        self.self_signed
    }

    /// DNS names of the subject alternative name extension.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// SHA-256 of the DER encoding.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The pin of the public key.
    pub fn spki(&self) -> SpkiPin {
        self.spki
    }

    /// Whether this certificate's subject is the issuer named in `other`. Names only, no signature.
    pub(crate) fn is_named_issuer_of(&self, other: &Self) -> bool {
        self.raw_subject == other.raw_issuer
    }

    /// Subject and issuer are the same name.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.raw_subject == self.raw_issuer
    }
}

/// Why a certificate could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The file holds no PEM certificate.
    #[error("{label}: no certificate in this file; {remedy}")]
    NoCertificate {
        /// The path as the user wrote it.
        label: String,
        /// How to mend it.
        remedy: &'static str,
    },
    /// There is one, but it cannot be decoded.
    #[error("{label}: malformed certificate: {detail}; export it again as PEM")]
    Malformed {
        /// The path as the user wrote it.
        label: String,
        /// What is wrong.
        detail: String,
    },
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates_of(source: &PemSource) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let label = || source.label().to_owned();
    let chain =
        source.certificates().map_err(|detail| CertificateError::Malformed { label: label(), detail })?;
    if chain.is_empty() {
        let remedy = match source.looks_like_der() {
            true => "it looks like DER: convert it with `openssl x509 -inform der -in … -out …`",
            false => "it needs a PEM section that begins with -----BEGIN CERTIFICATE-----",
        };
        return Err(CertificateError::NoCertificate { label: label(), remedy });
    }
    Ok(chain)
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

#[cfg(test)]
mod tests;
