//! Our client identity towards one environment: certificate chain and private key, parsed and matched.
//!
//! Owns loading, and the proof that key and certificate belong together. Whether the certificate satisfies
//! Thales is decided by the linter in `rules`.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::certificate::{CertificateError, CertificateInfo, KeyKind, certificates_of};
use crate::pem::PemSource;
use crate::pin::SpkiPin;
use crate::provider::{KeyExchange, crypto_provider};

/// A client certificate chain with its private key. Cheap to clone.
///
/// `Debug` shows common name, serial and fingerprint; the key is never shown.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    leaf: CertificateInfo,
    chain: Vec<CertificateDer<'static>>,
    key: Key,
}

/// The private key, as far as rustls can use it.
enum Key {
    Usable(Arc<CertifiedKey>),
    /// Of a kind that every rule set refuses (RSA below 2048 bits, an odd curve): kept so that the linter
    /// can say so by name.
    Unusable,
}

impl Identity {
    /// Reads a certificate chain (leaf first) and its private key (PKCS#8, SEC1 or PKCS#1).
    ///
    /// A key of a kind that no rule set allows and rustls cannot sign with, RSA 1024 for example, is not
    /// an error here but in [`Generation::build`](crate::Generation::build): the linter names it better.
    ///
    /// # Errors
    ///
    /// [`IdentityError`], which names the file, what is wrong and how to mend it.
    pub fn from_pem(certificate: &PemSource, key: &PemSource) -> Result<Self, IdentityError> {
        let chain = certificates_of(certificate)?;
        let leaf = CertificateInfo::from_der(certificate.label(), &chain[0])?;
        for link in &chain[1..] {
            CertificateInfo::from_der(certificate.label(), link)?;
        }
        let private = only_key(key)?;
        let key = match_key(certificate, &leaf, &chain, key, private)?;
        Ok(Self(Arc::new(Inner { leaf, chain, key })))
    }

    /// The leaf certificate, decoded.
    pub fn certificate(&self) -> &CertificateInfo {
        &self.0.leaf
    }

    /// The chain as it is sent, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// The pin of the leaf's public key.
    pub fn public_key_pin(&self) -> SpkiPin {
        self.0.leaf.spki()
    }

    /// What rustls signs with; `None` if it cannot sign with this key.
    pub(crate) fn certified_key(&self) -> Option<&Arc<CertifiedKey>> {
        match &self.0.key {
            Key::Usable(key) => Some(key),
            Key::Unusable => None,
        }
    }

    /// Whether both send the same chain. The key is then the same too: it was matched with the leaf.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.chain == other.0.chain
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("common_name", &self.0.leaf.common_name())
            .field("serial", &self.0.leaf.serial())
            .field("fingerprint", &self.0.leaf.fingerprint())
            .finish_non_exhaustive()
    }
}

/// Why certificate and key do not make an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate file holds no PEM certificate.
    #[error("{label}: no certificate in this file; {remedy}")]
    NoCertificate {
        /// The path as the user wrote it.
        label: String,
        /// How to mend it.
        remedy: &'static str,
    },
    /// A certificate in the file cannot be decoded.
    #[error("{label}: malformed certificate: {detail}; export it again as PEM")]
    MalformedCertificate {
        /// The path as the user wrote it.
        label: String,
        /// What is wrong.
        detail: String,
    },
    /// The key file holds no private key.
    #[error(
        "{label}: no private key in this file; it needs a PEM section that begins with -----BEGIN PRIVATE KEY-----, -----BEGIN EC PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----"
    )]
    NoPrivateKey {
        /// The path as the user wrote it.
        label: String,
    },
    /// A section of the key file cannot be decoded.
    #[error("{label}: malformed private key: {detail}; export it again as PEM (PKCS#8)")]
    MalformedKey {
        /// The path as the user wrote it.
        label: String,
        /// What is wrong; never the content.
        detail: String,
    },
    /// The key is behind a passphrase.
    #[error(
        "{label}: the private key is encrypted, and passphrases are not supported in this version; decrypt it with `openssl pkcs8 -in {label} -out <new file>` into a file that only this user can read (mode 0600)"
    )]
    EncryptedKey {
        /// The path as the user wrote it.
        label: String,
    },
    /// The key is of a kind that cannot sign a TLS handshake here.
    #[error(
        "{label}: the private key cannot be used: it is damaged, or neither ECDSA P-256, ECDSA P-384 nor RSA 2048; make a new key and certificate"
    )]
    UnsupportedKey {
        /// The path as the user wrote it.
        label: String,
    },
    /// The key file holds more than one private key.
    #[error("{label}: {found} private keys in this file; leave only the one that belongs to the certificate")]
    SeveralKeys {
        /// The path as the user wrote it.
        label: String,
        /// How many.
        found: usize,
    },
    /// The key is not the certificate's.
    #[error(
        "{key_label}: the private key does not belong to the certificate in {certificate_label} ({certificate}); name the key that this certificate was made with"
    )]
    KeyMismatch {
        /// The key's path as the user wrote it.
        key_label: String,
        /// The certificate's path as the user wrote it.
        certificate_label: String,
        /// Subject and short fingerprint of the certificate.
        certificate: String,
    },
}

impl From<CertificateError> for IdentityError {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::NoCertificate { label, remedy } => Self::NoCertificate { label, remedy },
            CertificateError::Malformed { label, detail } => Self::MalformedCertificate { label, detail },
        }
    }
}

/// The one private key of a file.
fn only_key(source: &PemSource) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let label = source.label().to_owned();
    // Before decoding: the older form of encryption has the outside of a plain key.
    if source.has_encrypted_key() {
        return Err(IdentityError::EncryptedKey { label });
    }
    let mut keys = source
        .private_keys()
        .map_err(|detail| IdentityError::MalformedKey { label: label.clone(), detail })?;
    match (keys.pop(), keys.len()) {
        (None, _) => Err(IdentityError::NoPrivateKey { label }),
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(IdentityError::SeveralKeys { label, found: others + 1 }),
    }
}

/// Loads the key and proves that it is the leaf's.
fn match_key(
    certificate: &PemSource,
    leaf: &CertificateInfo,
    chain: &[CertificateDer<'static>],
    source: &PemSource,
    private: PrivateKeyDer<'static>,
) -> Result<Key, IdentityError> {
    let mismatch = || IdentityError::KeyMismatch {
        key_label: source.label().to_owned(),
        certificate_label: certificate.label().to_owned(),
        certificate: format!("{}, fingerprint {}", leaf.subject(), leaf.fingerprint().short()),
    };
    let signing = match provider().key_provider.load_private_key(private) {
        Ok(signing) => signing,
        Err(_) if is_beyond_rustls(leaf.key()) => return Ok(Key::Unusable),
        Err(_) => return Err(IdentityError::UnsupportedKey { label: source.label().to_owned() }),
    };
    let spki = signing.public_key().map(|spki| SpkiPin::of_spki(&spki));
    if spki != Some(leaf.spki()) {
        return Err(mismatch());
    }
    Ok(Key::Usable(Arc::new(CertifiedKey::new(chain.to_vec(), signing))))
}

/// Kinds that the crypto library does not load, so that a failure to load says nothing about the file.
fn is_beyond_rustls(key: &KeyKind) -> bool {
    match key {
        KeyKind::Rsa { bits } => !(2048..=8192).contains(bits),
        KeyKind::EcOther(name) => name != "P-521",
        KeyKind::Other(_) => true,
        KeyKind::EcP256 | KeyKind::EcP384 | KeyKind::Ed25519 => false,
    }
}

/// Loading a key needs a provider, but no key exchange.
fn provider() -> Arc<CryptoProvider> {
    crypto_provider(&KeyExchange::ALL)
}

#[cfg(test)]
mod tests;
