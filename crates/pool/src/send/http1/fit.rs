//! A connection on loan is looked at before it is used: one that the provider closed while it was idle costs no attempt,
//! and one that is not ready yet is left aside.
//!
//! Owns the choice among those that are free. Waiting in the queue for one that is not is the carrier's.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::note_stale;
use crate::{
    http1::Fitness,
    hub::{Hub, Preference, StreamLease},
    observe::{Observer, Stale},
    status::CauseOfDeath,
};

/// So many are left aside by one request; then it waits for one of them.
const MOST_ASIDE: usize = 4;
/// How often those that were left aside are looked at: their tasks run on other threads, and do not tell.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What a look at a lease showed.
enum Look {
    Fit(StreamLease),
    Unready(StreamLease),
    /// It has been given back.
    Gone,
}

/// A lease that can carry the request: this one, or another that is free. `Ok(None)`: those that were free have gone;
/// lease anew. What it waits is added to `waited`.
///
/// # Errors
/// How long it waited, if none became ready within `limit`.
///
/// # Cancel safety
/// Looks only; what it holds is given back.
pub(in crate::send) async fn fit(
    (hub, observer): (&Hub, &dyn Observer),
    lease: StreamLease,
    preference: Preference,
    limit: Duration,
    waited: &mut Duration,
) -> Result<Option<StreamLease>, Duration> {
    // As nearly always.
    let mut aside = match look(hub, observer, lease) {
        Look::Fit(lease) => return Ok(Some(lease)),
        Look::Unready(lease) => vec![lease],
        Look::Gone => Vec::new(),
    };
    let began = Instant::now();
    let mut found = None;
    loop {
        if let Some(lease) = found.or_else(|| another((hub, observer), preference, &mut aside)) {
            give_back(hub, aside);
            return Ok(Some(lease));
        }
        let Some(loan) = aside.first().and_then(StreamLease::loan) else { return Ok(None) };
        if began.elapsed() >= limit {
            give_back(hub, aside);
            return Err(began.elapsed());
        }
        let looked = Instant::now();
        let _ = timeout(LOOK_AGAIN, loan.let_go()).await;
        *waited += looked.elapsed();
        found = None;
        for lease in std::mem::take(&mut aside) {
            match look(hub, observer, lease) {
                Look::Fit(lease) if found.is_none() => found = Some(lease),
                // It is ready as well: given back with the others.
                Look::Fit(lease) => aside.push(lease),
                Look::Unready(lease) => aside.push(lease),
                Look::Gone => {}
            }
        }
    }
}

/// One that is free and fit; those that are not ready are put to the others.
fn another(
    (hub, observer): (&Hub, &dyn Observer),
    preference: Preference,
    aside: &mut Vec<StreamLease>,
) -> Option<StreamLease> {
    while aside.len() < MOST_ASIDE {
        match look(hub, observer, hub.try_lease(preference)?) {
            Look::Fit(lease) => return Some(lease),
            Look::Unready(lease) => aside.push(lease),
            Look::Gone => {}
        }
    }
    None
}

fn look(hub: &Hub, observer: &dyn Observer, lease: StreamLease) -> Look {
    let Some(loan) = lease.loan() else { return Look::Fit(lease) };
    match loan.fitness() {
        Fitness::Fit => return Look::Fit(lease),
        Fitness::Unready => return Look::Unready(lease),
        // Its own task sees the end and says how it came; bb8 does not lend it again.
        Fitness::Ended => note_stale(hub, observer, Stale::Unsent),
        Fitness::Lingering => loan.retire(CauseOfDeath::Abandoned),
        Fitness::Retired => {}
    }
    hub.take_back(lease);
    Look::Gone
}

fn give_back(hub: &Hub, leases: impl IntoIterator<Item = StreamLease>) {
    leases.into_iter().for_each(|lease| hub.take_back(lease));
}

#[cfg(test)]
mod tests;
