//! What holds of the gate through which streams are opened, in every order of events: once the driver has lowered the
//! limit and found nobody inside, h2 may read the SETTINGS, for no stream is opened by the old limit any more.
//!
//! Owns a model of h2, reduced to what it has read and how many streams it has open; the gate and the permits are the
//! product's own.
#![cfg(tsh_loom)]

use loom::{
    sync::{Arc, Mutex},
    thread,
};

use self::{
    opening::Opening,
    permits::{Permits, Share},
};

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

/// What left is not looked at here.
mod outbound {
    #[derive(Debug)]
    pub(super) struct Departed;

    impl Departed {
        pub(super) fn includes(&self, _: u32) -> bool {
            true
        }
    }
}

#[path = "../../src/connection/opening.rs"]
#[allow(dead_code, reason = "compiled for what is tested here; the pool uses the rest")]
mod opening;

#[path = "../../src/connection/permits.rs"]
#[allow(dead_code, reason = "compiled for what is tested here; the pool uses the rest")]
mod permits;

/// h2, behind its lock.
#[derive(Default)]
struct H2 {
    /// It has read the SETTINGS that allow one stream.
    lowered: bool,
    open: u32,
}

/// A connection whose provider allows two streams, and then one.
struct Connection {
    permits: Permits,
    gate: Opening,
    h2: Mutex<H2>,
}

impl Connection {
    fn new() -> Arc<Self> {
        let connection =
            Self { permits: Permits::new(), gate: Opening::default(), h2: Mutex::new(H2::default()) };
        connection.permits.set_capacity(2);
        connection.gate.set_limit(2);
        connection.permits.open();
        Arc::new(connection)
    }

    /// As a request does: a lease, the gate, h2, and later the end of the stream.
    fn ask(&self) {
        if self.permits.try_acquire(Share::Full).is_none() {
            return;
        }
        if self.open() {
            self.h2.lock().unwrap().open -= 1;
        }
        self.permits.release();
    }

    fn open(&self) -> bool {
        let Some(_entered) = self.gate.enter(|| self.permits.view().in_flight()) else { return false };
        let mut h2 = self.h2.lock().unwrap();
        h2.open += 1;
        assert!(!h2.lowered || h2.open <= 1, "h2 parks it");
        true
    }

    /// As the driver does in one turn: where somebody is inside it comes again.
    fn lower(&self) {
        self.permits.set_capacity(1);
        self.gate.set_limit(1);
        if self.gate.is_quiet() {
            self.h2.lock().unwrap().lowered = true;
        }
    }
}

fn spawn(connection: &Arc<Connection>, does: fn(&Connection)) -> thread::JoinHandle<()> {
    let connection = connection.clone();
    thread::spawn(move || does(&connection))
}

#[test]
fn whoever_enters_by_the_old_limit_is_seen_by_the_driver() {
    loom::model(|| {
        let gate = Arc::new(Opening::default());
        let lowered = Arc::new(Mutex::new(false));
        let request = {
            let (gate, lowered) = (gate.clone(), lowered.clone());
            thread::spawn(move || {
                if let Some(_entered) = gate.enter(|| 2) {
                    assert!(!*lowered.lock().unwrap(), "opened behind the driver's back");
                }
            })
        };
        gate.set_limit(1);
        if gate.is_quiet() {
            *lowered.lock().unwrap() = true;
        }
        request.join().unwrap();
        assert!(gate.is_quiet(), "whoever entered has left");
    });
}

#[test]
fn no_stream_is_parked_when_the_limit_falls_under_two_requests() {
    let mut model = loom::model::Builder::new();
    // All orders of three threads are too many; few bugs need more than three switches at will.
    model.preemption_bound = Some(3);
    model.check(|| {
        let connection = Connection::new();
        let requests = [spawn(&connection, Connection::ask), spawn(&connection, Connection::ask)];
        connection.lower();
        requests.into_iter().for_each(|request| request.join().unwrap());
        assert_eq!((connection.permits.view().in_flight(), connection.h2.lock().unwrap().open), (0, 0));
        // Nobody is inside now: the next turn of the driver lets h2 read.
        connection.lower();
        assert!(connection.h2.lock().unwrap().lowered);
    });
}
