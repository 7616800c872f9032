//! Response bodies on HTTP/2 streams while somebody reads them, or ought to.
//!
//! A body holds its stream, and its stream's share of the connection's window, until it ends. The time limit between two
//! pieces is kept where the body is polled; a reader that does not poll at all (an h2c caller who opens no window) would
//! hold them for ever. So each body is registered with its connection, and a sweep, which runs only while there are
//! bodies, ends those that nobody asked anything of for their idle limit. Owns the registry; what a body says is
//! `body`'s.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use h2::RecvStream;
use parking_lot::Mutex;
use slab::Slab;
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle, time::Instant};

use super::{
    abandon::{Half, abandon},
    body::Rest,
};
use crate::{hub::StreamLease, supervisor};

/// A stream whose response is being read.
pub(super) struct Reading {
    pub(super) stream: RecvStream,
    /// The rest of the request body, where the response began before its end.
    pub(super) rest: Option<Rest>,
    pub(super) lease: StreamLease,
    /// Streams that may be reset on the connection within 30 seconds.
    pub(super) resets: u32,
}

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// No byte of what `content-length` promised: only its end.
    Nothing,
    /// Bytes, as far as is known.
    Something,
}

impl Reading {
    /// Lets go of a stream that has not ended.
    pub(super) fn give_up(self, unread: Unread) {
        let Self { stream, rest, lease, resets } = self;
        // A request body that goes on is cut with the response: its task ends, and h2 resets the stream.
        if rest.is_some() || stream.is_end_stream() {
            drop((stream, rest));
            return;
        }
        let half = match unread {
            Unread::Nothing => Half::Tail(stream),
            Unread::Something => Half::Body(stream),
        };
        abandon(half, lease, resets);
    }
}

/// The body as its reader and the sweep share it.
pub(super) struct Slot {
    /// `None` once it ended, or was ended.
    pub(super) reading: Mutex<Option<Reading>>,
    /// Even: it is the reader's turn; grows with each turn. Odd: the reader waits for the provider.
    turn: AtomicU32,
}

impl Slot {
    pub(super) fn new(reading: Reading) -> Arc<Self> {
        Arc::new(Self { reading: Mutex::new(Some(reading)), turn: AtomicU32::new(0) })
    }

    /// The reader got something. Only the reader calls this.
    pub(super) fn served(&self) {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store((turn & !1).wrapping_add(2), Ordering::Relaxed);
    }

    /// The reader waits for the provider. Only the reader calls this.
    pub(super) fn waits(&self) {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn | 1, Ordering::Relaxed);
    }
}

/// The bodies of one connection that are being read.
#[derive(Default)]
pub(crate) struct Readings(Mutex<Slab<Entry>>);

impl std::fmt::Debug for Readings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Readings").field(&self.0.lock().len()).finish()
    }
}

struct Entry {
    slot: Arc<Slot>,
    idle: Duration,
    /// Its turn when last looked at, and since when it has been that.
    seen: Option<(u32, Instant)>,
}

impl Entry {
    /// Whether its reader has not come for its idle limit.
    fn is_forgotten(&mut self, now: Instant) -> bool {
        let turn = self.slot.turn.load(Ordering::Relaxed);
        match self.seen {
            Some((seen, since)) if seen == turn && turn.is_multiple_of(2) => {
                now.saturating_duration_since(since) >= self.idle
            }
            _ => {
                self.seen = Some((turn, now));
                false
            }
        }
    }
}

/// Room for bodies that is kept when none is read.
const KEEP: usize = 64;

impl Readings {
    /// Registers a body; the key takes it out again.
    pub(super) fn insert(&self, slot: Arc<Slot>, idle: Duration) -> usize {
        self.0.lock().insert(Entry { slot, idle, seen: None })
    }

    pub(super) fn remove(&self, key: usize) {
        let mut entries = self.0.lock();
        let _entry = entries.try_remove(key);
        if entries.is_empty() && entries.capacity() > KEEP {
            *entries = Slab::new();
        }
    }

    /// Ends the bodies whose readers have not come. Returns how many are left.
    fn sweep(&self, now: Instant) -> usize {
        let mut forgotten = Vec::new();
        let left = {
            let mut entries = self.0.lock();
            for (_, entry) in entries.iter_mut() {
                if entry.is_forgotten(now) {
                    forgotten.push(entry.slot.clone());
                }
            }
            entries.len()
        };
        for slot in forgotten {
            let reading = slot.reading.lock().take();
            if let Some(reading) = reading {
                reading.give_up(Unread::Something);
            }
        }
        left
    }
}

/// How often is looked for forgotten bodies while there are any.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks after the bodies of all connections of a pool.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    alarm: Arc<Alarm>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Wakes the sweep when there is something to look after.
#[derive(Debug, Default)]
struct Alarm {
    awake: AtomicBool,
    wake: Notify,
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

impl Sweeper {
    /// A body was registered.
    pub(super) fn arm(&self) {
        let alarm = &self.alarm;
        if !alarm.awake.load(Ordering::Relaxed) && !alarm.awake.swap(true, Ordering::SeqCst) {
            alarm.wake.notify_one();
        }
    }

    /// Starts the task that sweeps; it ends with the pool.
    pub(crate) fn start(context: &Arc<supervisor::Context>, runtime: &Handle) {
        let sweeper = &context.sending.sweeper;
        let task = runtime.spawn(sweep(Arc::downgrade(context), sweeper.alarm.clone()));
        *sweeper.task.lock() = Some(task);
    }
}

async fn sweep(context: Weak<supervisor::Context>, alarm: Arc<Alarm>) {
    loop {
        alarm.wake.notified().await;
        loop {
            tokio::time::sleep(PERIOD).await;
            let Some(context) = context.upgrade() else { return };
            // Said first, then looked: a body registered meanwhile is either seen or wakes us.
            alarm.awake.store(false, Ordering::SeqCst);
            let now = Instant::now();
            let left: usize = context.hub.links().iter().map(|link| link.readings().sweep(now)).sum();
            if left == 0 {
                break;
            }
            alarm.awake.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Arc<Slot> {
        Arc::new(Slot { reading: Mutex::new(None), turn: AtomicU32::new(0) })
    }

    #[test]
    fn a_body_is_forgotten_when_its_reader_does_not_come_and_not_while_he_waits() {
        let idle = Duration::from_secs(60);
        let slot = empty();
        let mut entry = Entry { slot: slot.clone(), idle, seen: None };
        let mut now = Instant::now();
        assert!(!entry.is_forgotten(now), "seen for the first time");
        now += idle;
        slot.served();
        assert!(!entry.is_forgotten(now), "it was read since");
        slot.waits();
        for _ in 0..5 {
            now += idle;
            assert!(!entry.is_forgotten(now), "the provider lets him wait: another limit's business");
        }
        slot.served();
        assert!(!entry.is_forgotten(now));
        assert!(entry.is_forgotten(now + idle));
    }

    #[test]
    fn the_registry_gives_its_room_back() {
        let readings = Readings::default();
        let keys: Vec<_> = (0..1000).map(|_| readings.insert(empty(), PERIOD)).collect();
        keys.into_iter().for_each(|key| readings.remove(key));
        assert!(readings.0.lock().capacity() <= KEEP);
    }
}
