//! Why nothing serves: the failure of the last dial, and who must hear of it.
//!
//! Owns what is remembered of failed dials. How often is dialled is the supervisor's decision.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Hub, Turned};
use crate::{
    connection::State,
    error::{DialError, SendErrorKind},
};

/// The failure of the last dial, and when.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) error: Arc<DialError>,
    pub(crate) at: Instant,
}

impl Hub {
    pub(crate) fn outage(&self) -> Option<Arc<Outage>> {
        self.outage.load_full()
    }

    /// A dial failed: if nothing serves, waiters learn the cause at once.
    pub(crate) fn dial_failed(&self, error: Arc<DialError>, now: Instant) {
        let outage = Arc::new(Outage { error: error.clone(), at: now });
        self.last_failure.store(Some(outage.clone()));
        if !self.links().iter().any(|link| link.state() == State::Serving) {
            self.outage.store(Some(outage));
            self.turn_away(&Turned::Failed(SendErrorKind::Unavailable(error)));
        }
    }

    /// Nothing serves and no dial is made for a while: waiters learn why.
    pub(crate) fn report_outage(&self) {
        let Some(failure) = self.last_failure() else { return };
        self.outage.store(Some(failure.clone()));
        if self.waiting() > 0 {
            self.turn_away(&Turned::Failed(SendErrorKind::Unavailable(failure.error.clone())));
        }
    }

    /// A connection serves, or is about to be dialled in another way: what failed before says nothing any more.
    pub(crate) fn forget_failures(&self) {
        self.outage.store(None);
        self.last_failure.store(None);
    }

    /// The last failure of a dial, if nothing succeeded since.
    pub(crate) fn last_failure(&self) -> Option<Arc<Outage>> {
        self.last_failure.load_full()
    }

    /// Why a waiter would be turned away if it were in the queue already.
    pub(super) fn turned_before(&self) -> Option<Turned> {
        let outage = self.outage()?;
        let serves = self.links().iter().any(|link| link.state() == State::Serving);
        (!serves).then(|| Turned::Failed(SendErrorKind::Unavailable(outage.error.clone())))
    }
}
