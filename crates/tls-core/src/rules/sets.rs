//! The two rule sets, as data.

use time::Duration;

use super::{AllowedKey, IssuerRule, KeyPreference, KeyRule, Regime, RuleSet};
use crate::certificate::HashKind;

/// What an ECDSA certificate may be signed with: SHA-256 fits P-256, SHA-384 fits P-384, and the provider
/// binds a hash for RSA only.
const EC_HASHES: &[HashKind] = &[HashKind::Sha256, HashKind::Sha384, HashKind::Sha512];

/// A month: endorsing a new certificate takes a person at Thales.
const EXPIRY_HORIZON: Duration = Duration::days(30);

/// Regime `tsh` (S10 to S14).
pub static TSH: RuleSet = RuleSet {
    regime: Regime::Tsh,
    keys: &[
        KeyRule { key: AllowedKey::EcP256, hashes: EC_HASHES },
        KeyRule { key: AllowedKey::EcP384, hashes: EC_HASHES },
        KeyRule { key: AllowedKey::Rsa { bits: 2048 }, hashes: &[HashKind::Sha256] },
    ],
    keys_source: "S12",
    max_validity_years: Some(2),
    issuer: IssuerRule::SelfSigned,
    key_preference: KeyPreference::Ecdsa,
    expiry_horizon: EXPIRY_HORIZON,
};

/// Regime `d1`: the Thales CA signs and decides the validity.
pub static D1: RuleSet = RuleSet {
    regime: Regime::D1,
    keys: &[
        KeyRule { key: AllowedKey::Rsa { bits: 4096 }, hashes: &[HashKind::Sha256] },
        KeyRule { key: AllowedKey::EcP256, hashes: &[HashKind::Sha256] },
    ],
    keys_source: "D1",
    max_validity_years: None,
    issuer: IssuerRule::ThalesCa,
    key_preference: KeyPreference::None,
    expiry_horizon: EXPIRY_HORIZON,
};
