//! The drift log: what changed about the provider since this process first met it.
//!
//! Owns the provider's fingerprint ([`Fingerprint`]), how it is compared with what was seen before ([`Drift`], pure),
//! and the log of changes. A provider that drifts is not at fault; but whoever wonders why the p99 rose at three
//! o'clock finds here that `max_concurrent_streams 500 -> 100`.

mod field;
mod fingerprint;
mod note;
mod track;

pub use self::{
    field::{DriftField, DriftSeverity, DriftValue},
    track::{DriftChange, DriftKind},
};
pub(crate) use self::{
    fingerprint::{Fingerprint, Goodbye},
    note::{DialCount, Resumption},
    track::Drift,
};
