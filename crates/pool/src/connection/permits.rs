//! The permits of one connection: how many streams it may carry, how many it carries, how many it has carried.
//!
//! Owns the atomics and the rules between them; free of tokio, so that loom can walk through every interleaving
//! (package `pool-loom`). Which connection is asked is the hub's choice; why a limit is set is the supervisor's.
//!
//! All that decides whether a stream may start is one word, changed by compare-and-swap: a permit is granted, counted
//! and bounded in one step, and after [`Permits::close`] there is no moment at which one more is granted.

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// Bits of a count of streams: in flight, and capacity. Our own cap on streams is at most 1000.
const COUNT_BITS: u32 = 14;
/// Most streams that a connection may carry at once.
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const CAPACITY_SHIFT: u32 = COUNT_BITS;
/// Proven: permits may be granted.
const OPEN: u64 = 1 << 28;
/// Retired or ended: no permit is ever granted again.
const CLOSED: u64 = 1 << 29;
const CARRIED_SHIFT: u32 = 32;
const ONE_CARRIED: u64 = 1 << CARRIED_SHIFT;

/// Requests that a connection is meant to carry in its life, whatever else is known: half of the 2^30 odd stream
/// numbers that HTTP/2 has for a client (RFC 9113 §5.1.1). Beyond it a successor takes over in peace.
pub(crate) const STREAM_ROOM: u64 = 1 << 29;
/// The last request that a connection may carry: shortly before its stream numbers end.
const STREAM_END: u64 = (1 << 30) - (1 << 10);
/// How many requests before [`STREAM_ROOM`] the supervisor is told.
pub(crate) const STREAM_WARNING: u64 = 1 << 20;

/// How many streams at once a connection may carry of those that its capacity allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// As many as its capacity.
    Full,
    /// One: while a learned limit is tested anew or after suspicion, so that an end hurts one request at most.
    OneAtATime,
}

/// What the supervisor should hear of after a permit was granted. Each is reported by one permit only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Nothing.
    Nothing,
    /// The wake mark was reached: it is time to dial the successor.
    WakeMark,
    /// The budget is used up by this request.
    BudgetSpent,
    /// The stream numbers end here: the connection must carry no further request.
    Exhausted,
}

/// A permit was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Requests that the connection had carried before this one.
    pub(crate) carried: u64,
    /// What the supervisor should hear of.
    pub(crate) notice: Notice,
}

/// The word at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct View(u64);

impl View {
    /// Streams in flight.
    pub(crate) fn in_flight(self) -> u32 {
        // At most COUNT_MAX by the mask.
        (self.0 & COUNT_MAX) as u32
    }

    /// Streams that it may carry at once by our cap and the provider's SETTINGS, whatever its share.
    pub(crate) fn capacity(self) -> u32 {
        ((self.0 >> CAPACITY_SHIFT) & COUNT_MAX) as u32
    }

    /// Requests that permits were granted for.
    pub(crate) fn carried(self) -> u64 {
        self.0 >> CARRIED_SHIFT
    }

    /// Whether permits are granted at all: it is proven, and not retired.
    pub(crate) fn is_open(self) -> bool {
        self.0 & (OPEN | CLOSED) == OPEN
    }

    /// Whether a permit would be granted now.
    pub(crate) fn has_room(self, share: Share) -> bool {
        let allowed = match share {
            Share::Full => self.capacity(),
            Share::OneAtATime => self.capacity().min(1),
        };
        self.is_open() && self.in_flight() < allowed && self.carried() < STREAM_END
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("in_flight", &self.in_flight())
            .field("capacity", &self.capacity())
            .field("carried", &self.carried())
            .field("open", &self.is_open())
            .finish()
    }
}

/// The permits of one connection.
// On cache lines of their own: what else is known of a connection is read by workers that do not use it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Permits {
    word: AtomicU64,
    budget: AtomicU64,
    wake_mark: AtomicU64,
    unused: AtomicU64,
    peak: AtomicU32,
}

impl Permits {
    /// None is granted before [`Self::open`] and [`Self::set_capacity`].
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            budget: AtomicU64::new(STREAM_ROOM),
            wake_mark: AtomicU64::new(STREAM_ROOM - STREAM_WARNING),
            unused: AtomicU64::new(0),
            peak: AtomicU32::new(0),
        }
    }

    /// From now on permits are granted, unless the connection was closed before.
    pub(crate) fn open(&self) {
        self.word.fetch_or(OPEN, Ordering::AcqRel);
    }

    /// From now on no permit is granted; those that were are still to be released.
    pub(crate) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// The counts now.
    pub(crate) fn view(&self) -> View {
        View(self.word.load(Ordering::Acquire))
    }

    /// The counts after every release so far, for somebody who has announced that he waits: a release that this look
    /// does not see comes later and sees the announcement. A plain load could miss the one while the release misses
    /// the other.
    pub(crate) fn view_as_waiter(&self) -> View {
        View(self.word.fetch_or(0, Ordering::AcqRel))
    }

    /// Takes a permit if the connection is open and has room for this share.
    pub(crate) fn try_acquire(&self, share: Share) -> Option<Grant> {
        let room = |word: u64| View(word).has_room(share).then(|| word + 1 + ONE_CARRIED);
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok().map(View)?;
        self.note_peak(before.in_flight() + 1);
        let carried = before.carried();
        Some(Grant { carried, notice: self.notice(carried + 1) })
    }

    fn notice(&self, nth: u64) -> Notice {
        if nth == STREAM_END {
            Notice::Exhausted
        } else if nth == self.budget.load(Ordering::Acquire) {
            Notice::BudgetSpent
        } else if nth == self.wake_mark.load(Ordering::Acquire) {
            Notice::WakeMark
        } else {
            Notice::Nothing
        }
    }

    /// Gives a permit back. Returns how many remain out.
    pub(crate) fn release(&self) -> u32 {
        let before = View(self.word.fetch_sub(1, Ordering::AcqRel));
        debug_assert!(before.in_flight() > 0, "a permit was given back twice");
        before.in_flight() - 1
    }

    /// A permit goes back whose request was given up before a stream was opened.
    pub(crate) fn note_unused(&self) {
        self.unused.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests carried: those that permits were granted for, less those that were given up before they began.
    pub(crate) fn requests(&self) -> u64 {
        self.view().carried().saturating_sub(self.unused.load(Ordering::Relaxed))
    }

    /// Most streams at once so far.
    pub(crate) fn peak(&self) -> u32 {
        self.peak.load(Ordering::Relaxed)
    }

    fn note_peak(&self, in_flight: u32) {
        if in_flight > self.peak() {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// Sets the streams it may carry at once, at most 16 383. Whether that is more than before: then waiters are to
    /// be served.
    pub(crate) fn set_capacity(&self, streams: u32) -> bool {
        let streams = u64::from(streams).min(COUNT_MAX);
        // Called after every frame: writing what stands there already would take the word from the other workers.
        if u64::from(self.view().capacity()) == streams {
            return false;
        }
        let put = |word: u64| (word & !(COUNT_MAX << CAPACITY_SHIFT)) | (streams << CAPACITY_SHIFT);
        u64::from(self.change(put).capacity()) < streams
    }

    /// Sets how many requests it is meant to carry in its life, and at which of them, counted from 1, the supervisor
    /// is told; without a budget those of [`STREAM_ROOM`]. Beyond the budget it is taken only when no other
    /// connection has room: better a GOAWAY and a replay than a wait for a handshake.
    ///
    /// Returns whether this moved the mark to where it has been passed already: then nobody else tells.
    pub(crate) fn allot(&self, budget: Option<(u64, u64)>) -> bool {
        let room = (STREAM_ROOM, STREAM_ROOM - STREAM_WARNING);
        let (requests, wake_at) =
            budget.map_or(room, |(requests, wake_at)| (requests.min(room.0), wake_at.min(room.1)));
        self.budget.store(requests, Ordering::Release);
        let before = self.wake_mark.swap(wake_at, Ordering::AcqRel);
        // A permit that this look does not count is granted later and sees the mark.
        before != wake_at && (wake_at..before).contains(&self.view_as_waiter().carried())
    }

    /// Whether the budget is used up.
    pub(crate) fn is_spent(&self) -> bool {
        self.view().carried() >= self.budget.load(Ordering::Acquire)
    }

    fn change(&self, put: impl Fn(u64) -> u64) -> View {
        let put = |word: u64| Some(put(word));
        match self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, put) {
            Ok(before) | Err(before) => View(before),
        }
    }
}

/// How many requests wait for a permit of any connection of a pool. Written under the queue's lock only; read after
/// every release, which is the whole cost of the queue while nobody waits.
#[derive(Debug)]
pub(crate) struct Waiters(AtomicU32);

impl Waiters {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Announces how many wait. Whoever announces himself looks at the permits afterwards, by
    /// [`Permits::view_as_waiter`].
    pub(crate) fn announce(&self, waiting: u32) {
        self.0.store(waiting, Ordering::Release);
    }

    /// How many wait.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}
