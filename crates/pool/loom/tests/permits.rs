//! What holds of permits and of the handshake between waiters and releases, in every order of events.
//!
//! Owns a model of the hub's queue, reduced to a list under a lock; permits and the count of waiters are the
//! product's own.
#![cfg(tsh_loom)]

use loom::{
    sync::{Arc, Mutex},
    thread,
};

use self::permits::{Notice, Permits, Share, Waiters};

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

#[path = "../../src/connection/permits.rs"]
#[allow(dead_code, reason = "compiled for what is tested here; the pool uses the rest")]
mod permits;

fn open(capacity: u32) -> Permits {
    let permits = Permits::new();
    permits.set_capacity(capacity);
    permits.open();
    permits
}

#[test]
fn never_more_permits_than_capacity_and_what_comes_back_balances() {
    loom::model(|| {
        let permits = Arc::new(open(1));
        let worker = || {
            let permits = permits.clone();
            thread::spawn(move || {
                let Some(grant) = permits.try_acquire(Share::Full) else { return 0 };
                assert_eq!(permits.view().in_flight(), 1, "two permits of one");
                assert!(grant.carried < 3);
                permits.release();
                1
            })
        };
        let (a, b) = (worker(), worker());
        let granted = u64::from(permits.try_acquire(Share::OneAtATime).is_some_and(|_| {
            permits.release();
            true
        }));
        let granted = granted + a.join().unwrap() + b.join().unwrap();
        assert_eq!(permits.view().in_flight(), 0);
        assert_eq!(permits.view().carried(), granted, "each grant is counted once");
        assert!(granted >= 1, "somebody wins");
    });
}

#[test]
fn a_capacity_that_shrinks_is_met_by_the_next_permit() {
    loom::model(|| {
        let permits = Arc::new(open(2));
        assert!(permits.try_acquire(Share::Full).is_some());
        let shrinker = {
            let permits = permits.clone();
            thread::spawn(move || {
                permits.set_capacity(1);
                permits.view().carried()
            })
        };
        let granted = permits.try_acquire(Share::Full).is_some();
        let carried = shrinker.join().unwrap();
        // The second permit is either from before the change, and seen by it, or is not granted.
        assert_eq!(granted, carried == 2);
        assert_eq!(permits.view().in_flight(), 1 + u32::from(granted));
    });
}

#[test]
fn after_a_retirement_no_permit_is_granted() {
    loom::model(|| {
        let permits = Arc::new(open(2));
        let retirer = {
            let permits = permits.clone();
            thread::spawn(move || {
                permits.close();
                permits.view().carried()
            })
        };
        let granted = permits.try_acquire(Share::Full).is_some();
        let carried = retirer.join().unwrap();
        assert_eq!(u64::from(granted), carried, "a permit was granted after the count was final");
        assert!(permits.try_acquire(Share::Full).is_none());
    });
}

#[test]
fn a_proof_that_comes_after_the_end_opens_nothing() {
    loom::model(|| {
        let permits = Arc::new(Permits::new());
        permits.set_capacity(1);
        let prover = {
            let permits = permits.clone();
            thread::spawn(move || permits.open())
        };
        permits.close();
        prover.join().unwrap();
        assert!(permits.try_acquire(Share::Full).is_none());
    });
}

#[test]
fn a_wake_mark_is_told_however_late_it_is_set() {
    loom::model(|| {
        let permits = Arc::new(open(2));
        let setter = {
            let permits = permits.clone();
            thread::spawn(move || permits.allot(Some((10, 1))))
        };
        let notice = permits.try_acquire(Share::Full).unwrap().notice;
        let passed = setter.join().unwrap();
        assert!(passed || notice == Notice::WakeMark, "nobody tells the supervisor");
    });
}

/// The hub's queue, without its order: who waits is a number.
struct Desk {
    permits: Permits,
    waiters: Waiters,
    queue: Mutex<Vec<u32>>,
    served: Mutex<u32>,
}

impl Desk {
    fn new(capacity: u32) -> Arc<Self> {
        Arc::new(Self {
            permits: open(capacity),
            waiters: Waiters::new(),
            queue: Mutex::new(Vec::new()),
            served: Mutex::new(0),
        })
    }

    /// As `Hub::try_lease` and, failing that, `Hub::enqueue`.
    fn ask(&self, who: u32) {
        if self.waiters.count() == 0 && self.permits.try_acquire(Share::Full).is_some() {
            *self.served.lock().unwrap() += 1;
            return;
        }
        {
            let mut queue = self.queue.lock().unwrap();
            queue.push(who);
            self.waiters.announce(queue.len() as u32);
        }
        self.dispatch();
    }

    /// As `Hub::dispatch`.
    fn dispatch(&self) {
        if self.waiters.count() == 0 {
            return;
        }
        let mut queue = self.queue.lock().unwrap();
        while !queue.is_empty() {
            let picked = self.permits.try_acquire(Share::Full).or_else(|| {
                let roomy = self.permits.view_as_waiter().has_room(Share::Full);
                if roomy { self.permits.try_acquire(Share::Full) } else { None }
            });
            if picked.is_none() {
                break;
            }
            queue.pop();
            *self.served.lock().unwrap() += 1;
        }
        self.waiters.announce(queue.len() as u32);
    }

    /// As the drop of a lease.
    fn give_back(&self) {
        self.permits.release();
        self.dispatch();
    }

    fn check(&self, served: u32) {
        assert_eq!(*self.served.lock().unwrap(), served, "somebody waits while a stream is free");
        assert_eq!(self.waiters.count(), 0);
    }
}

#[test]
fn a_waiter_and_a_release_cannot_miss_one_another() {
    loom::model(|| {
        let desk = Desk::new(1);
        desk.permits.try_acquire(Share::Full).unwrap();
        let releaser = {
            let desk = desk.clone();
            thread::spawn(move || desk.give_back())
        };
        desk.ask(1);
        releaser.join().unwrap();
        desk.check(1);
    });
}

#[test]
fn two_waiters_and_two_releases_cannot_miss_one_another() {
    let mut model = loom::model::Builder::new();
    // All orders of three threads are too many; few bugs need more than two switches at will.
    model.preemption_bound = Some(2);
    model.check(|| {
        let desk = Desk::new(2);
        desk.permits.try_acquire(Share::Full).unwrap();
        desk.permits.try_acquire(Share::Full).unwrap();
        let threads: Vec<_> = (0..2)
            .map(|who| {
                let desk = desk.clone();
                thread::spawn(move || {
                    if who == 0 {
                        desk.give_back();
                    } else {
                        desk.ask(who);
                    }
                })
            })
            .collect();
        desk.ask(9);
        desk.give_back();
        threads.into_iter().for_each(|t| t.join().unwrap());
        desk.check(2);
    });
}

#[test]
fn a_waiter_and_a_capacity_that_grows_cannot_miss_one_another() {
    loom::model(|| {
        let desk = Desk::new(0);
        let driver = {
            let desk = desk.clone();
            thread::spawn(move || {
                if desk.permits.set_capacity(1) {
                    desk.dispatch();
                }
            })
        };
        desk.ask(1);
        driver.join().unwrap();
        desk.check(1);
    });
}
