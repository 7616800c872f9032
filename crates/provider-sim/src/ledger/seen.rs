//! Owns the memory of correlation ids: how often each arrived and how often it was processed. Eight bytes per
//! id, bounded: the older half is forgotten at once when there are too many. The ids themselves are kept only of
//! those processed twice.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};

/// Slots of one generation; 16 MiB when touched. A power of two.
const SLOTS: usize = 1 << 21;
/// A test that has this many duplicates has failed long before.
const MAX_DUPLICATES: usize = 10_000;
/// Above the two counts of eight bits each.
const TAG_SHIFT: u32 = 16;
/// What an arrival and a processing add to a slot.
const ARRIVED: u64 = 1;
const PROCESSED: u64 = 1 << 8;
const COUNT: u64 = 0xff;

/// How often a request with one correlation id came. Each count stops at 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its header block arrived complete.
    pub arrived: u32,
    /// It was taken up, and not disowned later.
    pub processed: u32,
}

pub(super) struct Seen {
    hasher: RandomState,
    current: Generation,
    previous: Generation,
    duplicated: BTreeSet<String>,
}

impl Default for Seen {
    fn default() -> Self {
        Self::holding(SLOTS)
    }
}

impl Seen {
    fn holding(slots: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            current: Generation::new(slots),
            previous: Generation::new(0),
            duplicated: BTreeSet::new(),
        }
    }

    pub(super) fn arrive(&mut self, id: &str) {
        let slot = self.slot(id);
        if *slot & COUNT < COUNT {
            *slot += ARRIVED;
        }
    }

    pub(super) fn mark(&mut self, id: &str) {
        let slot = self.slot(id);
        let count = (*slot >> 8) & COUNT;
        if count < COUNT {
            *slot += PROCESSED;
        }
        if count >= 1 && self.duplicated.len() < MAX_DUPLICATES {
            self.duplicated.insert(id.to_owned());
        }
    }

    /// Takes one processing back.
    pub(super) fn unmark(&mut self, id: &str) {
        let slot = self.slot(id);
        let count = (*slot >> 8) & COUNT;
        if count > 0 {
            *slot -= PROCESSED;
        }
        if count <= 2 {
            self.duplicated.remove(id);
        }
    }

    pub(super) fn account(&self, id: &str) -> Account {
        let hash = self.hasher.hash_one(id);
        let found = self.current.find(hash).or_else(|| self.previous.find(hash));
        let value = found.map_or(0, |(generation, at)| generation.slots[at]);
        // Eight bits each.
        Account { arrived: (value & COUNT) as u32, processed: ((value >> 8) & COUNT) as u32 }
    }

    pub(super) fn duplicated(&self) -> Vec<String> {
        self.duplicated.iter().cloned().collect()
    }

    /// The slot of this id, where it is or newly made.
    fn slot(&mut self, id: &str) -> &mut u64 {
        let hash = self.hasher.hash_one(id);
        if let Some((_, at)) = self.previous.find(hash)
            && self.current.find(hash).is_none()
        {
            return &mut self.previous.slots[at];
        }
        // Half full at most, so that a look-up stays short.
        if self.current.used == self.current.slots.len() / 2 {
            let fresh = Generation::new(self.current.slots.len());
            self.previous = std::mem::replace(&mut self.current, fresh);
        }
        self.current.claim(hash)
    }
}

/// A table with open addressing. A slot is zero or the upper bits of the hash above the two counts; together with
/// the place they tell ids apart as well as the whole hash does.
struct Generation {
    slots: Vec<u64>,
    used: usize,
}

impl Generation {
    /// `slots` is a power of two, or zero for one that holds nothing.
    fn new(slots: usize) -> Self {
        // Zeroed memory costs nothing before it is touched.
        Self { slots: vec![0; slots], used: 0 }
    }

    /// Never zero, so that a used slot is never zero.
    fn tag(hash: u64) -> u64 {
        (hash >> TAG_SHIFT).max(1)
    }

    /// The slot of this id, or the free one where it belongs.
    fn probe(&self, hash: u64) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        // Ends: at least half of the slots are free.
        while self.slots[at] != 0 && self.slots[at] >> TAG_SHIFT != Self::tag(hash) {
            at = (at + 1) & mask;
        }
        Some(at)
    }

    fn find(&self, hash: u64) -> Option<(&Self, usize)> {
        self.probe(hash).filter(|&at| self.slots[at] != 0).map(|at| (self, at))
    }

    fn claim(&mut self, hash: u64) -> &mut u64 {
        // The current generation has slots.
        let at = self.probe(hash).unwrap_or(0);
        if self.slots[at] == 0 {
            self.used += 1;
            self.slots[at] = Self::tag(hash) << TAG_SHIFT;
        }
        &mut self.slots[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_processed_twice_is_a_duplicate_until_one_is_disowned() {
        let mut seen = Seen::holding(16);
        seen.mark("a");
        assert!(seen.duplicated().is_empty());
        seen.mark("a");
        assert_eq!((seen.account("a").processed, seen.duplicated()), (2, vec!["a".to_owned()]));
        seen.unmark("a");
        assert_eq!((seen.account("a").processed, seen.duplicated()), (1, Vec::new()));
    }

    #[test]
    fn arrivals_and_processings_are_counted_apart_and_stop_at_255() {
        let mut seen = Seen::holding(16);
        for _ in 0..300 {
            seen.arrive("a");
        }
        seen.mark("b");
        assert_eq!(seen.account("a"), Account { arrived: 255, processed: 0 });
        assert_eq!(seen.account("b"), Account { arrived: 0, processed: 1 });
        for _ in 0..300 {
            seen.mark("a");
        }
        assert_eq!(seen.account("a"), Account { arrived: 255, processed: 255 });
        seen.unmark("nowhere");
        assert_eq!(seen.account("nowhere"), Account::default());
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_older_half() {
        const SMALL: usize = 64;
        let mut seen = Seen::holding(SMALL);
        let total = SMALL / 2 * 5;
        for n in 0..total {
            seen.mark(&n.to_string());
            let remembered = (0..=n).filter(|m| seen.account(&m.to_string()).processed == 1).count();
            assert!(remembered >= (n + 1).min(SMALL / 2), "{remembered} after {n}");
            assert!(remembered <= SMALL, "{remembered} after {n}");
        }
        assert_eq!(seen.account("0"), Account::default());
        assert_eq!(seen.account(&(total - 1).to_string()).processed, 1);
        // One of the older generation is still counted where it is.
        let older = (total - SMALL / 2 - 1).to_string();
        seen.mark(&older);
        assert_eq!(seen.account(&older).processed, 2);
    }

    #[test]
    fn a_storm_of_ids_is_told_apart() {
        let mut seen = Seen::default();
        for n in 0..700_000 {
            seen.mark(&format!("storm-{n}"));
        }
        assert!(seen.duplicated().is_empty());
        assert!((0..700_000).all(|n| seen.account(&format!("storm-{n}")).processed == 1));
        assert_eq!(seen.account("storm-700000"), Account::default());
    }
}
