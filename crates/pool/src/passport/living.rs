//! The passport of a living connection: particulars that are kept for whoever looks, and decide nothing.
//!
//! Owns PING times, tickets, the provider's SETTINGS and GOAWAY as seen, and since when the connection is idle.
//! What decides something (state, counts, capacity) is in [`crate::connection::Link`].

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;

use super::{PingSeries, ShortText};
use crate::connection::{Announced, Proof, Seen};

/// Round trips of the PINGs of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PingTimes {
    /// The first, which was the proof on HTTP/2.
    pub first: Duration,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// The last.
    pub last: Duration,
    /// How many were answered.
    pub count: u32,
    /// The last eight of them.
    pub recent: PingSeries,
}

impl PingTimes {
    fn after(before: Option<Self>, rtt: Duration) -> Self {
        let mut times = before.unwrap_or(Self {
            first: rtt,
            min: rtt,
            max: rtt,
            last: rtt,
            count: 0,
            recent: PingSeries::default(),
        });
        times.min = times.min.min(rtt);
        times.max = times.max.max(rtt);
        times.last = rtt;
        times.count = times.count.saturating_add(1);
        times.recent.push(rtt);
        times
    }
}

/// The last GOAWAY that a provider sent on a connection (RFC 9113 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GoAwaySeen {
    /// The error code; 0 is an orderly end.
    pub error_code: u32,
    /// The highest stream of ours that the provider may have processed; 2^31 − 1 announces a second GOAWAY.
    pub last_stream_id: u32,
}

/// The particulars of a connection at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PassportStatus {
    /// TLS 1.3 session tickets received on it; `None` where nobody counts.
    pub tickets_received: Option<u32>,
    /// Round trips of its PINGs; `None` before the first, and always on HTTP/1.1.
    pub ping: Option<PingTimes>,
    /// How long it has carried nothing; `None` while it carries something.
    pub idle: Option<Duration>,
    /// The SETTINGS that the provider announced; `None` before they arrived, and always on HTTP/1.1.
    pub settings: Option<Announced>,
    /// GOAWAY frames that the provider sent.
    pub goaways: u32,
    /// The last of them.
    pub goaway: Option<GoAwaySeen>,
    /// PINGs that the provider sent of its own accord.
    pub provider_pings: u32,
}

/// The passport. All of it is written off the requests' way but for [`Passport::fell_idle`], which is one store.
#[derive(Debug, Default)]
pub(crate) struct Passport {
    pages: Mutex<Pages>,
    /// SETTINGS came after the first.
    settings_changed: AtomicBool,
    tickets: OnceLock<Arc<AtomicU32>>,
    /// Age in microseconds at which it last fell idle. It is born idle.
    idle_since: AtomicU64,
}

#[derive(Debug, Default)]
struct Pages {
    proof: Option<Proof>,
    ping: Option<PingTimes>,
    seen: Seen,
}

impl Passport {
    /// A PING was acknowledged after `rtt`.
    pub(crate) fn note_ping(&self, rtt: Duration) {
        let mut pages = self.pages.lock();
        pages.ping = Some(PingTimes::after(pages.ping, rtt));
    }

    /// It was proven by this.
    pub(crate) fn note_proof(&self, proof: Proof) {
        self.pages.lock().proof = Some(proof);
    }

    /// Its tickets are counted here.
    pub(crate) fn note_tickets(&self, count: Arc<AtomicU32>) {
        let _ = self.tickets.set(count);
    }

    /// The provider's frames up to now. Returns whether SETTINGS came anew.
    pub(crate) fn note_frames(&self, seen: &Seen) -> bool {
        let before = std::mem::replace(&mut self.pages.lock().seen, *seen);
        let changed = before.settings_frames > 0 && before.settings_frames != seen.settings_frames;
        if changed {
            self.settings_changed.store(true, Ordering::Relaxed);
        }
        changed
    }

    /// Whether SETTINGS came anew since this was last asked.
    pub(crate) fn take_settings_changed(&self) -> bool {
        self.settings_changed.swap(false, Ordering::Relaxed)
    }

    /// The last of its streams ended when it was this old.
    pub(crate) fn fell_idle(&self, age: Duration) {
        self.idle_since.store(u64::try_from(age.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long it had been idle at this age, if nothing runs on it.
    pub(crate) fn idle_for(&self, age: Duration) -> Duration {
        age.saturating_sub(Duration::from_micros(self.idle_since.load(Ordering::Relaxed)))
    }

    /// What showed that it serves.
    pub(crate) fn proof(&self) -> Option<Proof> {
        self.pages.lock().proof
    }

    /// The words that came with the last GOAWAY, if there were any.
    pub(crate) fn parting_words(&self) -> Option<ShortText> {
        let goaway = self.pages.lock().seen.goaway?;
        let words = goaway.debug_data();
        (!words.is_empty()).then(|| ShortText::of(words))
    }

    /// All of it, at this age and with so many streams in flight.
    pub(crate) fn status(&self, age: Duration, in_flight: u32) -> PassportStatus {
        let pages = self.pages.lock();
        let seen = &pages.seen;
        PassportStatus {
            tickets_received: self.tickets.get().map(|count| count.load(Ordering::Relaxed)),
            ping: pages.ping,
            idle: (in_flight == 0).then(|| self.idle_for(age)),
            settings: (seen.settings_frames > 0).then_some(seen.settings),
            goaways: seen.goaways,
            goaway: seen.goaway.map(|goaway| GoAwaySeen {
                error_code: goaway.error_code,
                last_stream_id: goaway.last_stream_id,
            }),
            provider_pings: seen.pings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn ping_times_keep_first_shortest_longest_and_the_last_eight() {
        let passport = Passport::default();
        assert_eq!(passport.status(MS, 0).ping, None);
        for ms in [5, 2, 9, 4] {
            passport.note_ping(MS * ms);
        }
        let times = passport.status(MS, 0).ping.unwrap();
        assert_eq!((times.first, times.min, times.max), (MS * 5, MS * 2, MS * 9));
        assert_eq!((times.last, times.count), (MS * 4, 4));
        assert_eq!(times.recent.iter().collect::<Vec<_>>(), [5, 2, 9, 4].map(|ms| MS * ms));
    }

    #[test]
    fn it_is_born_idle_and_idle_only_while_nothing_runs() {
        let passport = Passport::default();
        assert_eq!(passport.status(MS * 7, 0).idle, Some(MS * 7));
        assert_eq!(passport.status(MS * 7, 1).idle, None);
        passport.fell_idle(MS * 10);
        assert_eq!(passport.status(MS * 14, 0).idle, Some(MS * 4));
    }

    #[test]
    fn settings_are_unknown_before_they_arrive() {
        let passport = Passport::default();
        let mut seen = Seen::default();
        passport.note_frames(&seen);
        assert_eq!(passport.status(MS, 0).settings, None);
        seen.settings_frames = 1;
        seen.settings.max_concurrent_streams = Some(7);
        passport.note_frames(&seen);
        let settings = passport.status(MS, 0).settings.unwrap();
        assert_eq!(settings.max_concurrent_streams, Some(7));
        assert!(!passport.take_settings_changed(), "the first are not news");
        seen.settings_frames = 2;
        assert!(passport.note_frames(&seen) && !passport.note_frames(&seen));
        assert!(passport.take_settings_changed() && !passport.take_settings_changed());
        assert!(passport.parting_words().is_none());
    }
}
