//! The cryptography that is offered: the only place that lists protocol versions, cipher suites and key
//! exchange groups.
//!
//! The provider is aws-lc-rs, built here and passed explicitly; nothing is installed process-wide, so a
//! second provider in the same process changes nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use serde::{Deserialize, Serialize};

/// The protocol versions that are offered: TLS 1.3 and 1.2 (S7, S15). Nothing older exists in rustls.
pub static TLS_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Forward-secret AEAD suites only, in the order of preference.
static CIPHER_SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// A key exchange group that may be offered.
///
/// The first of a list is the one whose key share is sent at once; a server that wants another costs a
/// second round trip ([`HandshakeKind::FullWithHelloRetryRequest`](crate::HandshakeKind)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyExchange {
    /// `x25519mlkem768`: the hybrid that stands against a recorded handshake being broken later. Makes the
    /// ClientHello about 1.2 KiB larger, which old appliances may dislike. TLS 1.3 only.
    X25519MlKem768,
    /// `x25519`.
    X25519,
    /// `secp256r1`, NIST P-256.
    Secp256r1,
    /// `secp384r1`, NIST P-384.
    Secp384r1,
}

impl KeyExchange {
    /// All groups in the default order: the post-quantum hybrid first.
    pub const ALL: [Self; 4] = [Self::X25519MlKem768, Self::X25519, Self::Secp256r1, Self::Secp384r1];

    /// The name in configuration: lower case, as IANA lists it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X25519MlKem768 => "x25519mlkem768",
            Self::X25519 => "x25519",
            Self::Secp256r1 => "secp256r1",
            Self::Secp384r1 => "secp384r1",
        }
    }

    fn group(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519MlKem768 => kx_group::X25519MLKEM768,
            Self::X25519 => kx_group::X25519,
            Self::Secp256r1 => kx_group::SECP256R1,
            Self::Secp384r1 => kx_group::SECP384R1,
        }
    }
}

impl fmt::Display for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyExchange {
    type Err = UnknownKeyExchange;

    fn from_str(name: &str) -> Result<Self, UnknownKeyExchange> {
        let found = Self::ALL.into_iter().find(|group| group.as_str() == name);
        found.ok_or_else(|| UnknownKeyExchange(name.to_owned()))
    }
}

/// A key exchange group of that name is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown key exchange group {0:?}; known are x25519mlkem768, x25519, secp256r1, secp384r1")]
pub struct UnknownKeyExchange(
    /// The name that was given.
    pub String,
);

/// The aws-lc-rs provider with the groups `kx` in that order; doubles count once.
pub fn crypto_provider(kx: &[KeyExchange]) -> Arc<CryptoProvider> {
    let mut kx_groups: Vec<&'static dyn SupportedKxGroup> = Vec::with_capacity(kx.len());
    for group in kx.iter().map(|kx| kx.group()) {
        if kx_groups.iter().all(|held| held.name() != group.name()) {
            kx_groups.push(group);
        }
    }
    Arc::new(CryptoProvider {
        cipher_suites: CIPHER_SUITES.to_vec(),
        kx_groups,
        ..aws_lc_rs::default_provider()
    })
}

#[cfg(test)]
mod tests {
    use rustls::{NamedGroup, ProtocolVersion};

    use super::*;

    #[test]
    fn every_group_reads_back_by_name_and_in_serde() {
        for group in KeyExchange::ALL {
            assert_eq!(group.to_string().parse(), Ok(group));
            assert_eq!(serde_json::to_string(&group).unwrap(), format!("\"{group}\""));
        }
        let error = "x448".parse::<KeyExchange>().unwrap_err();
        assert!(error.to_string().contains("\"x448\"; known are x25519mlkem768"), "{error}");
    }

    #[test]
    fn groups_keep_their_order_and_doubles_count_once() {
        let provider =
            crypto_provider(&[KeyExchange::Secp384r1, KeyExchange::X25519, KeyExchange::Secp384r1]);
        let names: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(names, [NamedGroup::secp384r1, NamedGroup::X25519]);
    }

    #[test]
    fn s7_only_tls_1_2_and_1_3_are_offered() {
        let versions: Vec<_> = TLS_VERSIONS.iter().map(|version| version.version).collect();
        assert_eq!(versions, [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2]);
    }

    #[test]
    fn the_suites_are_those_of_the_library_so_that_an_update_is_looked_at() {
        assert_eq!(CIPHER_SUITES, aws_lc_rs::DEFAULT_CIPHER_SUITES);
    }

    #[test]
    fn no_provider_is_installed_process_wide() {
        crypto_provider(&KeyExchange::ALL);
        assert!(CryptoProvider::get_default().is_none());
    }
}
