//! Waiting for an instant to within tens of microseconds.
//!
//! Tokio's timer wheel has steps of one millisecond: at 1500 requests per second arrivals would come in
//! clumps and every latency would carry up to a millisecond of the generator's own making. On Linux a
//! timerfd keeps them apart; elsewhere tokio's timer has to do, and the report's `lag` shows its coarseness.

use std::io;

use tokio::time::Instant;

/// A timer for one task.
#[derive(Debug)]
pub(crate) struct Pacer {
    #[cfg(target_os = "linux")]
    timer: std::os::fd::OwnedFd,
    /// A duplicate of `timer`, registered with the runtime. Tokio's `AsyncFd` would be the natural type but
    /// has become unsafe to make; its pipe reader polls and reads any descriptor.
    #[cfg(target_os = "linux")]
    expirations: tokio::net::unix::pipe::Receiver,
}

#[cfg(target_os = "linux")]
impl Pacer {
    /// Makes the timer.
    ///
    /// # Errors
    /// When the system refuses a timerfd (out of file descriptors).
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let expirations = tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(timer.try_clone()?)?;
        Ok(Self { timer, expirations })
    }

    /// Waits until `due`; at once if it has passed.
    ///
    /// # Errors
    /// When the timer cannot be set or read.
    ///
    /// # Cancel safety
    /// May be dropped at any point; the next call sets the timer anew.
    pub(crate) async fn wait_until(&self, due: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        // Setting the timer again forgets an expiration of an earlier, dropped wait.
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            let once = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() },
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.expirations.readable().await?;
            let mut count = [0; 8];
            match self.expirations.try_read(&mut count) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Pacer {
    /// Makes the timer.
    ///
    /// # Errors
    /// Never, on this system.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits until `due`; at once if it has passed.
    ///
    /// # Errors
    /// Never, on this system.
    pub(crate) async fn wait_until(&self, due: Instant) -> io::Result<()> {
        tokio::time::sleep_until(due).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn never_returns_before_the_instant() {
        let pacer = Pacer::new().unwrap();
        for micros in [0, 50, 300, 1700, 900] {
            let due = Instant::now() + Duration::from_micros(micros);
            pacer.wait_until(due).await.unwrap();
            assert!(Instant::now() >= due, "woke before {micros} µs were over");
        }
    }

    #[tokio::test]
    async fn a_dropped_wait_does_not_disturb_the_next() {
        let pacer = Pacer::new().unwrap();
        let far = Instant::now() + Duration::from_millis(2);
        tokio::select! {
            biased;
            _ = pacer.wait_until(far) => {}
            () = tokio::task::yield_now() => {}
        }
        let due = Instant::now() + Duration::from_millis(5);
        pacer.wait_until(due).await.unwrap();
        assert!(Instant::now() >= due);
    }
}
