//! The last ten thousand dead connections of the process, and the last thousand dials that made none.
//!
//! Owns their bounds and the search. Dials that failed are kept apart: an outage of a weekend, with a dial every few
//! seconds, must not push out what happened before it. Memory grows with what is kept, up to 2.8 MB.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use time::OffsetDateTime;
use tls_core::WallClock;

use super::Obituary;
use crate::{
    journey::ConnectionId,
    status::{CauseOfDeath, Protocol},
};

/// Dead connections kept.
const SERVED: usize = 10_000;
/// Failed dials kept.
const NEVER_SERVED: usize = 1_000;
/// Room is made for so many at a time: doubling would take up to twice the memory that is used.
const STEP: usize = 512;

/// Which obituaries are wanted. The default wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObituaryFilter {
    /// Of this environment.
    pub environment: Option<String>,
    /// Of this cause.
    pub cause: Option<CauseOfDeath>,
    /// Of this HTTP version.
    pub protocol: Option<Protocol>,
    /// Of the generation with this serial.
    pub generation: Option<u64>,
    /// Of this remote address.
    pub ip: Option<IpAddr>,
    /// Of this remote port.
    pub port: Option<u16>,
    /// Ended then or later.
    pub since: Option<OffsetDateTime>,
    /// This one.
    pub id: Option<ConnectionId>,
}

impl ObituaryFilter {
    /// Whether this one is wanted.
    #[must_use]
    pub fn wants(&self, obituary: &Obituary) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        let address = obituary.address;
        fits(self.id.as_ref(), Some(&obituary.id))
            && self.environment.as_deref().is_none_or(|name| *name == *obituary.environment)
            && fits(self.cause.as_ref(), Some(&obituary.cause))
            && fits(self.protocol.as_ref(), obituary.protocol.as_ref())
            && fits(self.generation.as_ref(), Some(&obituary.generation))
            && fits(self.ip.as_ref(), address.map(|a| a.ip).as_ref())
            && fits(self.port.as_ref(), address.map(|a| a.port).as_ref())
            && self.since.is_none_or(|since| obituary.ended.get() >= since)
    }
}

/// The store; one for all pools of a process.
pub struct Obituaries {
    clock: Arc<dyn WallClock>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    served: VecDeque<Obituary>,
    never_served: VecDeque<Obituary>,
}

impl Obituaries {
    /// An empty store; `clock` tells when connections end.
    #[must_use]
    pub fn new(clock: Arc<dyn WallClock>) -> Arc<Self> {
        Arc::new(Self { clock, kept: Mutex::default() })
    }

    /// The time now, by the store's clock.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Keeps one; the oldest goes when there is no room.
    pub fn push(&self, obituary: Obituary) {
        let mut kept = self.kept.lock();
        match obituary.cause {
            CauseOfDeath::NeverServed => push(&mut kept.never_served, NEVER_SERVED, obituary),
            _ => push(&mut kept.served, SERVED, obituary),
        }
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        let kept = self.kept.lock();
        kept.served.len() + kept.never_served.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that the filter wants, the last to end first, at most `limit`.
    #[must_use]
    pub fn find(&self, filter: &ObituaryFilter, limit: usize) -> Vec<Obituary> {
        let kept = self.kept.lock();
        let mut served = kept.served.iter().rev().filter(|o| filter.wants(o)).peekable();
        let mut never = kept.never_served.iter().rev().filter(|o| filter.wants(o)).peekable();
        let mut found = Vec::new();
        while found.len() < limit {
            let next = match (served.peek(), never.peek()) {
                (Some(a), Some(b)) if a.ended < b.ended => never.next(),
                (Some(_), _) => served.next(),
                (None, _) => never.next(),
            };
            match next {
                Some(obituary) => found.push(obituary.clone()),
                None => break,
            }
        }
        found
    }
}

fn push(ring: &mut VecDeque<Obituary>, most: usize, obituary: Obituary) {
    if ring.len() == most {
        ring.pop_front();
    } else if ring.len() == ring.capacity() {
        ring.reserve_exact(STEP.min(most - ring.len()));
    }
    ring.push_back(obituary);
}

impl std::fmt::Debug for Obituaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Obituaries").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;
    use tls_core::ManualClock;

    use super::*;
    use crate::passport::{DialTimes, PingMicros, ShortText, UnixMicros};

    const START: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn obituary(id: u64, cause: CauseOfDeath) -> Obituary {
        Obituary {
            id: ConnectionId(id),
            environment: if id.is_multiple_of(2) { "even" } else { "odd" }.into(),
            generation: id / 10,
            ended: UnixMicros::of(START + Duration::from_secs(id)),
            age_us: 1_000_000,
            idle_us: u64::MAX,
            requests: id,
            address: format!("127.0.0.{}:{}", id % 3 + 1, 8000 + id % 2).parse().ok(),
            phases: DialTimes::from(&crate::DialPhases::default()),
            ping: PingMicros::from(None),
            cipher_suite: None,
            key_exchange: None,
            code: None,
            goaway: None,
            peak_in_flight: 1,
            tickets_received: 2,
            leaf: None,
            anchor: None,
            pin: None,
            protocol: (!id.is_multiple_of(5)).then_some(Protocol::H2),
            handshake: None,
            tls: None,
            proof: None,
            cause,
            detail: ShortText::of("gone"),
        }
    }

    fn store() -> Arc<Obituaries> {
        Obituaries::new(Arc::new(ManualClock::at(START)))
    }

    fn ids(found: &[Obituary]) -> Vec<u64> {
        found.iter().map(|o| o.id.0).collect()
    }

    #[test]
    fn the_last_ten_thousand_are_kept_in_at_most_the_memory_promised() {
        let store = store();
        for id in 0..12_000 {
            store.push(obituary(id, CauseOfDeath::Goaway));
        }
        assert_eq!(store.len(), SERVED);
        let all = store.find(&ObituaryFilter::default(), usize::MAX);
        assert_eq!((all[0].id.0, all[SERVED - 1].id.0), (11_999, 2_000));
        let room = store.kept.lock().served.capacity() * size_of::<Obituary>();
        assert!(room <= 2_600_000, "{room} bytes");
    }

    #[test]
    fn memory_grows_with_what_is_kept() {
        let store = store();
        assert_eq!(store.kept.lock().served.capacity(), 0);
        store.push(obituary(1, CauseOfDeath::Age));
        assert!(store.kept.lock().served.capacity() <= STEP + STEP / 2);
    }

    #[test]
    fn an_outage_does_not_push_out_what_served() {
        let store = store();
        store.push(obituary(1, CauseOfDeath::ClosedByProvider));
        for id in 2..30_000 {
            store.push(obituary(id, CauseOfDeath::NeverServed));
        }
        assert_eq!(store.len(), NEVER_SERVED + 1);
        let all = store.find(&ObituaryFilter::default(), usize::MAX);
        assert_eq!(ids(&all).last(), Some(&1));
    }

    #[test]
    fn the_last_to_end_comes_first_whether_it_served_or_not() {
        let store = store();
        for id in 1..=6 {
            let cause = if id % 3 == 0 { CauseOfDeath::NeverServed } else { CauseOfDeath::Idle };
            store.push(obituary(id, cause));
        }
        assert_eq!(ids(&store.find(&ObituaryFilter::default(), 10)), [6, 5, 4, 3, 2, 1]);
        assert_eq!(ids(&store.find(&ObituaryFilter::default(), 2)), [6, 5]);
        assert!(store.find(&ObituaryFilter::default(), 0).is_empty());
    }

    #[test]
    fn each_filter_narrows_and_all_of_them_hold_at_once() {
        let store = store();
        for id in 0..100 {
            let cause = if id < 50 { CauseOfDeath::Age } else { CauseOfDeath::Goaway };
            store.push(obituary(id, cause));
        }
        let find = |filter: ObituaryFilter| ids(&store.find(&filter, usize::MAX));
        let all = ObituaryFilter::default;
        assert_eq!(find(ObituaryFilter { environment: Some("odd".into()), ..all() }).len(), 50);
        assert_eq!(find(ObituaryFilter { cause: Some(CauseOfDeath::Age), ..all() })[0], 49);
        assert_eq!(find(ObituaryFilter { protocol: Some(Protocol::H2), ..all() }).len(), 80);
        assert_eq!(find(ObituaryFilter { generation: Some(4), ..all() }).len(), 10);
        assert_eq!(find(ObituaryFilter { ip: "127.0.0.3".parse().ok(), ..all() }).len(), 33);
        assert_eq!(find(ObituaryFilter { port: Some(8001), ..all() }).len(), 50);
        assert_eq!(find(ObituaryFilter { id: Some(ConnectionId(7)), ..all() }), [7]);
        let since = Some(START + Duration::from_secs(97));
        assert_eq!(find(ObituaryFilter { since, ..all() }), [99, 98, 97]);
        let both = ObituaryFilter {
            environment: Some("odd".into()),
            ip: "127.0.0.2".parse().ok(),
            generation: Some(9),
            ..all()
        };
        assert_eq!(find(both), [97, 91]);
    }
}
