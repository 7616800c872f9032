//! Comparing what is seen with what was seen: which changes are news. Pure.
//!
//! Owns the hysteresis. A provider is often several servers behind one name, and they differ: a value that was seen
//! within the last hour is known, and going back and forth between known values is told once and counted from then on.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{DriftField, DriftSeverity, DriftValue, Fingerprint};

/// How long a value is remembered after it was last seen.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Values remembered for one field; a field with more of them varies.
const KNOWN: usize = 16;
/// Changes kept.
const KEPT: usize = 256;

/// What kind of change it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftKind {
    /// To a value that was not seen within the last hour.
    New,
    /// Back to a value that was: several servers differ, or the change was taken back. Told once; further changes
    /// between known values are counted in [`DriftChange::repeats`].
    Alternates,
    /// One value more than can be remembered: the field says nothing any more. Told once, then counted.
    Varies,
}

impl DriftKind {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Alternates => "alternates",
            Self::Varies => "varies",
        }
    }
}

/// One change of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DriftChange {
    /// When it was first seen.
    #[serde(serialize_with = "time_as_rfc3339")]
    pub when: OffsetDateTime,
    /// What changed.
    pub field: DriftField,
    /// From this value.
    pub from: DriftValue,
    /// To this value.
    pub to: DriftValue,
    /// What kind of change.
    pub kind: DriftKind,
    /// Whether it lowers trust or capacity.
    pub severity: DriftSeverity,
    /// Further changes that this one stands for.
    pub repeats: u64,
}

fn time_as_rfc3339<S: serde::Serializer>(at: &OffsetDateTime, out: S) -> Result<S::Ok, S::Error> {
    let text = at.format(&time::format_description::well_known::Rfc3339);
    out.serialize_str(&text.map_err(serde::ser::Error::custom)?)
}

impl std::fmt::Display for DriftChange {
    /// A sentence such as `max_concurrent_streams 500 -> 100`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} -> {}", self.field, self.from, self.to)?;
        match self.kind {
            DriftKind::New => Ok(()),
            DriftKind::Alternates => f.write_str(" (alternates)"),
            DriftKind::Varies => f.write_str(" (varies)"),
        }
    }
}

/// What is known of one provider, and how it changed.
#[derive(Debug)]
pub(crate) struct Drift {
    tracks: Vec<Track>,
    changes: VecDeque<DriftChange>,
    /// Changes that no longer fit into the list, so that a track finds its own by number.
    forgotten: u64,
}

/// One field.
#[derive(Debug)]
struct Track {
    current: Option<DriftValue>,
    /// Values seen lately, and when last. Holds `current`.
    known: Vec<(DriftValue, Instant)>,
    /// Number of the change that told that the field goes back and forth, or varies.
    told: Option<u64>,
}

/// What one look at one field says.
enum Look {
    Same,
    Changed { from: DriftValue, kind: DriftKind },
    Repeated,
}

impl Drift {
    /// Nothing was seen yet.
    pub(crate) fn new() -> Self {
        let track = |field: DriftField| Track { current: field.presumed(), known: Vec::new(), told: None };
        Self { tracks: DriftField::ALL.map(track).into(), changes: VecDeque::new(), forgotten: 0 }
    }

    /// Compares a fingerprint with what is known. Returns the changes that are news; `wall` is the time they are
    /// dated with. Fields that the fingerprint does not name stay as they are.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        wall: OffsetDateTime,
        fingerprint: &Fingerprint,
    ) -> Vec<DriftChange> {
        let mut news = Vec::new();
        for (field, value) in fingerprint.values() {
            // The table of tracks is made from all fields, in their order.
            let Some(track) = self.tracks.get_mut(*field as usize) else { continue };
            match track.look(now, *field, value) {
                Look::Same => {}
                Look::Repeated => {
                    let told = track.told;
                    self.repeat(told);
                }
                Look::Changed { from, kind } => {
                    let severity = field.severity(&from, value);
                    let to = value.clone();
                    let change =
                        DriftChange { when: wall, field: *field, from, to, kind, severity, repeats: 0 };
                    if kind != DriftKind::New {
                        track.told = Some(self.forgotten + self.changes.len() as u64);
                    }
                    self.keep(change.clone());
                    news.push(change);
                }
            }
        }
        news
    }

    fn keep(&mut self, change: DriftChange) {
        if self.changes.len() == KEPT {
            self.changes.pop_front();
            self.forgotten += 1;
        }
        self.changes.push_back(change);
    }

    fn repeat(&mut self, told: Option<u64>) {
        let place = told.and_then(|number| usize::try_from(number.checked_sub(self.forgotten)?).ok());
        if let Some(change) = place.and_then(|place| self.changes.get_mut(place)) {
            change.repeats += 1;
        }
    }

    /// The changes kept, newest first.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &DriftChange> {
        self.changes.iter().rev()
    }
}

impl Track {
    fn look(&mut self, now: Instant, field: DriftField, value: &DriftValue) -> Look {
        self.forget(now);
        let Some(current) = self.current.clone() else {
            self.current = Some(value.clone());
            self.known.push((value.clone(), now));
            return Look::Same;
        };
        if field.same(&current, value) {
            self.touch(now, field, &current);
            return Look::Same;
        }
        let look = if self.touch(now, field, value) {
            match self.told {
                // Several addresses are what a provider has, not a change.
                _ if field.is_set() => Look::Same,
                Some(_) => Look::Repeated,
                None => Look::Changed { from: current, kind: DriftKind::Alternates },
            }
        } else if self.known.len() < KNOWN {
            self.known.push((value.clone(), now));
            Look::Changed { from: current, kind: DriftKind::New }
        } else {
            self.replace_oldest(now, value);
            match self.told {
                Some(_) => Look::Repeated,
                None => Look::Changed { from: current, kind: DriftKind::Varies },
            }
        };
        self.current = Some(value.clone());
        look
    }

    /// Forgets what was not seen for long. With one value left, the field is steady again.
    fn forget(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        self.known
            .retain(|(value, seen)| value == current || now.saturating_duration_since(*seen) < REMEMBERED);
        if self.known.len() <= 1 {
            self.told = None;
        }
    }

    /// Notes that this value was seen. Returns whether it was known.
    fn touch(&mut self, now: Instant, field: DriftField, value: &DriftValue) -> bool {
        match self.known.iter_mut().find(|(known, _)| field.same(known, value)) {
            Some((_, seen)) => {
                *seen = now;
                true
            }
            None => false,
        }
    }

    fn replace_oldest(&mut self, now: Instant, value: &DriftValue) {
        if let Some(oldest) = self.known.iter_mut().min_by_key(|(_, seen)| *seen) {
            *oldest = (value.clone(), now);
        }
    }
}

#[cfg(test)]
mod tests;
