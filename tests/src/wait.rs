//! Waiting for things that happen soon: polled with a deadline, never slept for.

use std::time::Duration;

/// How long a test waits for what should happen at once. Long: it is only ever used up by a failure.
pub const SOON: Duration = Duration::from_secs(15);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until there is something to see.
///
/// # Panics
/// With `what` when nothing has been seen for [`SOON`].
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let polled = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(SOON, polled).await {
        Ok(seen) => seen,
        Err(_) => panic!("waited {SOON:?} in vain: {what}"),
    }
}

/// Awaits `future` for at most [`SOON`].
///
/// # Panics
/// With `what` when it takes longer.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("took longer than {SOON:?}: {what}"),
    }
}
