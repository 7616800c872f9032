//! Owns the memory of correlation ids: how often each was processed. Bounded; the oldest are forgotten first,
//! those processed twice never.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Twice the requests of the longest test; about 30 MB when full.
const CAPACITY: usize = 200_000;
/// A test that has this many duplicates has failed long before.
const MAX_DUPLICATES: usize = 10_000;

#[derive(Default)]
pub(super) struct Seen {
    counts: HashMap<Arc<str>, u32>,
    order: VecDeque<Arc<str>>,
    duplicated: BTreeSet<Arc<str>>,
}

impl Seen {
    pub(super) fn mark(&mut self, id: &str) {
        if let Some(count) = self.counts.get_mut(id) {
            *count += 1;
            if *count == 2 && self.duplicated.len() < MAX_DUPLICATES {
                self.duplicated.insert(id.into());
            }
            return;
        }
        if self.order.len() == CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.counts.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.order.push_back(id.clone());
        self.counts.insert(id, 1);
    }

    /// The id stays in the order of forgetting, with a count of zero if need be.
    pub(super) fn unmark(&mut self, id: &str) {
        if let Some(count) = self.counts.get_mut(id) {
            *count = count.saturating_sub(1);
            if *count < 2 {
                self.duplicated.remove(id);
            }
        }
    }

    pub(super) fn count(&self, id: &str) -> u32 {
        self.counts.get(id).copied().unwrap_or(0)
    }

    pub(super) fn duplicated(&self) -> Vec<String> {
        self.duplicated.iter().map(|id| id.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_processed_twice_is_a_duplicate_until_one_is_disowned() {
        let mut seen = Seen::default();
        seen.mark("a");
        assert!(seen.duplicated().is_empty());
        seen.mark("a");
        assert_eq!((seen.count("a"), seen.duplicated()), (2, vec!["a".to_owned()]));
        seen.unmark("a");
        assert_eq!((seen.count("a"), seen.duplicated()), (1, Vec::new()));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let mut seen = Seen::default();
        for n in 0..=CAPACITY {
            seen.mark(&n.to_string());
        }
        assert_eq!(seen.counts.len(), CAPACITY);
        assert_eq!((seen.count("0"), seen.count("1"), seen.count(&CAPACITY.to_string())), (0, 1, 1));
    }
}
