//! What Thales demands of a client certificate, as data, and the linter that applies it.
//!
//! Owns the rule sets of the two regimes and the findings. Nothing here touches a connection: whether a
//! finding stops a start or quarantines an environment is decided by the gateway.

mod lint;
mod sets;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::Duration;

use crate::certificate::{HashKind, KeyKind};

pub use lint::{lint_identity, lint_pair_across_stages};
pub use sets::{D1, TSH};

/// The stage of an environment. Identities and keys never cross stages (S5, S6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Sandbox (S5).
    Sandbox,
    /// Production (S6).
    Production,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sandbox => "sandbox",
            Self::Production => "production",
        })
    }
}

impl FromStr for Stage {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "sandbox" => Ok(Self::Sandbox),
            "production" => Ok(Self::Production),
            _ => Err(UnknownName { name: name.to_owned(), known: "sandbox, production" }),
        }
    }
}

/// Which set of rules Thales applies to an environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Regime {
    /// Tokenization (S10 to S14): a self-signed certificate, endorsed by Thales. The default.
    #[default]
    Tsh,
    /// The D1 API: a certificate signed by the Thales CA.
    D1,
}

impl Regime {
    /// The rules of this regime.
    pub fn rules(self) -> &'static RuleSet {
        match self {
            Self::Tsh => &TSH,
            Self::D1 => &D1,
        }
    }
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tsh => "tsh",
            Self::D1 => "d1",
        })
    }
}

impl FromStr for Regime {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "tsh" => Ok(Self::Tsh),
            "d1" => Ok(Self::D1),
            _ => Err(UnknownName { name: name.to_owned(), known: "tsh, d1" }),
        }
    }
}

/// A stage or regime of that name does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown name {name:?}; known are {known}")]
pub struct UnknownName {
    /// The name that was given.
    pub name: String,
    /// The names that exist.
    pub known: &'static str,
}

/// The rules of one regime.
#[derive(Debug)]
pub struct RuleSet {
    /// The regime these rules belong to.
    pub regime: Regime,
    /// The keys that are allowed, each with the hashes its certificate may be signed with.
    pub keys: &'static [KeyRule],
    /// Where the key rule is written.
    pub keys_source: &'static str,
    /// Longest validity in calendar years, counted from `notBefore`, so that backdating is included; `None`
    /// if there is no such rule.
    pub max_validity_years: Option<u8>,
    /// Who signs the certificate.
    pub issuer: IssuerRule,
    /// Whether an RSA key draws a warning.
    pub key_preference: KeyPreference,
    /// How long before its end a certificate draws a warning.
    pub expiry_horizon: Duration,
}

/// One allowed kind of key.
#[derive(Debug)]
pub struct KeyRule {
    /// The kind.
    pub key: AllowedKey,
    /// The hashes that the certificate's signature may use.
    pub hashes: &'static [HashKind],
}

/// A kind of key that a rule can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedKey {
    /// ECDSA on P-256.
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// RSA of exactly this many bits.
    Rsa {
        /// Length of the modulus.
        bits: u32,
    },
}

impl AllowedKey {
    /// Whether `key` is of this kind.
    pub fn matches(self, key: &KeyKind) -> bool {
        match self {
            Self::EcP256 => *key == KeyKind::EcP256,
            Self::EcP384 => *key == KeyKind::EcP384,
            Self::Rsa { bits } => *key == KeyKind::Rsa { bits },
        }
    }
}

impl fmt::Display for AllowedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcP256 => f.write_str("ECDSA P-256"),
            Self::EcP384 => f.write_str("ECDSA P-384"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
        }
    }
}

/// Who must have signed a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerRule {
    /// The certificate itself (S10).
    SelfSigned,
    /// The Thales CA, from a signing request.
    ThalesCa,
}

/// Whether one of the allowed kinds of key is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPreference {
    /// ECDSA over RSA (S13).
    Ecdsa,
    /// None is stated.
    None,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Thales will refuse the certificate, or using it breaks a rule.
    Error,
    /// It works, but something is unwise or about to fail.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name, snake case.
    pub code: &'static str,
    /// How grave.
    pub severity: Severity,
    /// What is wrong, with the values found.
    pub message: String,
    /// How to mend it.
    pub remedy: String,
    /// Where the rule is written: a point of the seed such as `S11`, or `D1`.
    pub source: &'static str,
}

#[cfg(test)]
mod tests;
