//! Wall time: the trait through which it enters this crate, the system's clock and one for tests.
//!
//! Certificates and tickets live by the calendar, so they need wall time; durations belong to
//! `tokio::time` and are no business of this file.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use serde::{Serializer, ser};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where wall time comes from.
pub trait WallClock: fmt::Debug + Send + Sync {
    /// The time now, in UTC.
    fn now(&self) -> OffsetDateTime;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// A clock that stands still until it is moved: for tests of expiry and of ticket age.
#[derive(Debug)]
pub struct ManualClock(Mutex<OffsetDateTime>);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: OffsetDateTime) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves the clock, backwards too if `by` is negative.
    pub fn advance(&self, by: time::Duration) {
        let mut now = self.0.lock();
        *now += by;
    }

    /// Sets the clock to `now`.
    pub fn set(&self, now: OffsetDateTime) {
        *self.0.lock() = now;
    }
}

impl WallClock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock()
    }
}

/// Hands a [`WallClock`] to rustls, so that verification and tickets read the same time.
#[derive(Debug)]
pub(crate) struct RustlsClock(pub(crate) Arc<dyn WallClock>);

impl TimeProvider for RustlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

/// Wall time as webpki wants it. Times before 1970 become 1970.
pub(crate) fn unix_time(at: OffsetDateTime) -> UnixTime {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// A date as people and logs read it: RFC 3339, whole seconds, UTC.
pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    // A year above 9999 is the only date that RFC 3339 cannot write.
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
}

/// Serde helper: a date as an RFC 3339 string.
pub(crate) fn serialize_rfc3339<S: Serializer>(at: &OffsetDateTime, out: S) -> Result<S::Ok, S::Error> {
    let text = at.format(&Rfc3339).map_err(ser::Error::custom)?;
    out.serialize_str(&text)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_moved() {
        let clock = ManualClock::at(datetime!(2026-03-01 12:00 UTC));
        assert_eq!(clock.now(), clock.now());
        clock.advance(time::Duration::hours(-13));
        assert_eq!(clock.now(), datetime!(2026-02-28 23:00 UTC));
        clock.set(datetime!(2028-02-29 00:00 UTC));
        assert_eq!(clock.now(), datetime!(2028-02-29 00:00 UTC));
    }

    #[test]
    fn dates_are_written_in_whole_seconds() {
        assert_eq!(rfc3339(datetime!(2026-03-01 12:00:00.5 UTC)), "2026-03-01T12:00:00Z");
    }

    #[test]
    fn times_before_1970_do_not_wrap() {
        assert_eq!(unix_time(datetime!(1950-01-01 00:00 UTC)).as_secs(), 0);
    }
}
