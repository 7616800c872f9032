//! The memory that all requests of a pool together may hold for replays.
//!
//! Owns the bound. It is divided evenly between the workers, so that requests of different workers write nothing in
//! common: a counter that all of them share would travel from core to core with every request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::workers;

/// What a pool's requests may hold.
#[derive(Debug)]
pub(crate) struct ReplayMemory(Box<[Arc<Share>]>);

/// One worker's share. Aligned to what processors pass between them, so that no other counter moves with it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Share {
    held: AtomicUsize,
    limit: usize,
}

impl ReplayMemory {
    /// `total` bytes for so many workers; a share is never less than what one request may hold.
    pub(crate) fn new(total: usize, one_request: usize, workers: usize) -> Self {
        let workers = workers.max(1);
        let limit = (total / workers).max(one_request.min(total));
        let share = || Arc::new(Share { held: AtomicUsize::new(0), limit });
        Self((0..workers).map(|_| share()).collect())
    }

    /// The share of the current thread's worker.
    pub(crate) fn share(&self) -> Arc<Share> {
        self.0[workers::index() % self.0.len()].clone()
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> usize {
        self.0.iter().map(|share| share.held.load(Ordering::Relaxed)).sum()
    }
}

impl Share {
    /// Takes so many bytes, if the share allows.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        if self.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.limit {
            return true;
        }
        self.give_back(bytes);
        false
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_its_share_and_all_together_keep_to_the_total() {
        let memory = Arc::new(ReplayMemory::new(1000, 100, 3));
        let takers: Vec<_> = (0..3)
            .map(|worker| {
                let memory = memory.clone();
                std::thread::spawn(move || {
                    workers::enter(worker);
                    let share = memory.share();
                    let taken = (0..100).filter(|_| share.try_take(10)).count() * 10;
                    (share, taken)
                })
            })
            .collect();
        let taken: Vec<_> = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
        assert_eq!(taken.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), [330; 3]);
        assert_eq!(memory.held(), 990);
        taken.into_iter().for_each(|(share, bytes)| share.give_back(bytes));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn a_share_has_room_for_one_request_but_not_for_more_than_the_total() {
        for (total, one_request, want) in [(1000, 600, 600), (500, 600, 500), (0, 600, 0), (9000, 600, 2250)]
        {
            let share = ReplayMemory::new(total, one_request, 4).share();
            assert!(share.try_take(want), "{total} {one_request}");
            assert!(!share.try_take(1), "{total} {one_request}");
        }
    }
}
