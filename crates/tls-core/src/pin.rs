//! SPKI pins: the SHA-256 of a certificate's public key, in the form `sha256/<base64>`.
//!
//! Owns their text form and constant-time lookup. Which keys are held against a [`PinSet`] is decided in
//! `verifier.rs`: those on the verified path.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::{Choice, ConstantTimeEq as _};

/// The prefix of a pin's text form.
const PREFIX: &str = "sha256/";

/// The SHA-256 of a `SubjectPublicKeyInfo` (RFC 7469 §2.4). Text form: `sha256/<base64>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpkiPin([u8; 32]);

impl SpkiPin {
    /// The pin of a DER-encoded `SubjectPublicKeyInfo`, its outer SEQUENCE included.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(sha256(spki_der))
    }

    /// The 32 bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for SpkiPin {
    type Err = PinParseError;

    fn from_str(text: &str) -> Result<Self, PinParseError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(PinParseError::Prefix)?;
        let bytes = STANDARD
            .decode(encoded)
            .or_else(|_| STANDARD_NO_PAD.decode(encoded))
            .map_err(|_| PinParseError::Base64)?;
        let digest = bytes.as_slice().try_into().map_err(|_| PinParseError::Length { found: bytes.len() })?;
        Ok(Self(digest))
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SpkiPin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpkiPin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Why a text is not a pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinParseError {
    /// It does not begin with `sha256/`.
    #[error("a pin begins with `sha256/`; write the base64 SHA-256 of the public key behind that prefix")]
    Prefix,
    /// What follows the prefix is not base64.
    #[error("what follows `sha256/` is not base64 (the standard alphabet, with `+` and `/`)")]
    Base64,
    /// The decoded bytes are not 32.
    #[error(
        "a SHA-256 pin has 32 bytes, this one decodes to {found}; the pin is of the public key, not the key itself"
    )]
    Length {
        /// How many bytes were decoded.
        found: usize,
    },
}

/// The pins of one environment. Empty means that pinning is off (chain and name are still verified).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinSet(Vec<SpkiPin>);

impl PinSet {
    /// Whether pinning is off.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many different pins there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `pin` is in the set. Takes the same time wherever, and whether, it is found.
    pub fn contains(&self, pin: &SpkiPin) -> bool {
        let found = self.0.iter().fold(Choice::from(0), |found, held| found | held.0.ct_eq(&pin.0));
        found.into()
    }

    /// The pins, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &SpkiPin> {
        self.0.iter()
    }
}

impl FromIterator<SpkiPin> for PinSet {
    /// Sorted and without doubles, so that two sets written in another order are equal.
    fn from_iter<I: IntoIterator<Item = SpkiPin>>(pins: I) -> Self {
        let mut pins: Vec<_> = pins.into_iter().collect();
        pins.sort_unstable();
        pins.dedup();
        Self(pins)
    }
}

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGICERT: &str = "sha256/k2v657xBsOVe1PQRwOsHsw3bsGT2VzIqz5K+59sNQws=";

    #[test]
    fn a_pin_reads_back_as_it_was_written() {
        let pin: SpkiPin = DIGICERT.parse().unwrap();
        assert_eq!(pin.to_string(), DIGICERT);
        assert_eq!(format!("{pin:?}"), DIGICERT);
        assert_eq!(serde_json::to_string(&pin).unwrap(), format!("\"{DIGICERT}\""));
    }

    #[test]
    fn padding_may_be_left_out() {
        let bare: SpkiPin = DIGICERT.trim_end_matches('=').parse().unwrap();
        assert_eq!(bare.to_string(), DIGICERT);
    }

    #[test]
    fn a_malformed_pin_says_what_is_wrong() {
        let parse = |text: &str| text.parse::<SpkiPin>().unwrap_err();
        assert_eq!(parse("k2v657xBsOVe1PQRwOsHsw3bsGT2VzIqz5K+59sNQws="), PinParseError::Prefix);
        assert_eq!(parse("sha1/AAAA"), PinParseError::Prefix);
        assert_eq!(parse("sha256/not base64!"), PinParseError::Base64);
        assert_eq!(parse("sha256/AAAA"), PinParseError::Length { found: 3 });
        assert_eq!(parse("sha256/"), PinParseError::Length { found: 0 });
        assert!(parse("sha256/AAAA").to_string().contains("32 bytes, this one decodes to 3"));
    }

    #[test]
    fn a_set_ignores_order_and_doubles() {
        let (a, b) = (SpkiPin([1; 32]), SpkiPin([2; 32]));
        let set: PinSet = [b, a, b].into_iter().collect();
        assert_eq!(set, [a, b].into_iter().collect());
        assert_eq!(set.len(), 2);
        assert!(set.contains(&a) && set.contains(&b));
        assert!(!set.contains(&SpkiPin([3; 32])));
    }

    #[test]
    fn an_empty_set_contains_nothing() {
        let set = PinSet::default();
        assert!(set.is_empty());
        assert!(!set.contains(&SpkiPin([0; 32])));
    }
}
