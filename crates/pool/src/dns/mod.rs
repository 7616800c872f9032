//! The addresses of the place that a pool dials: asked for off the request path, shared by all dials, kept fresh.
//!
//! Owns one task per pool that asks when a TTL ends or a dial needs an answer, and the count of sockets per address.
//! What answers mean is `answers`, which is pure; how a question is asked is `resolver`.

mod answers;
mod resolver;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot, watch},
    task::AbortHandle,
    time::{Instant, error::Elapsed},
};

pub(crate) use self::answers::{Answer, ResolveError};
use self::answers::{Answers, Change, Demand, Family, Health};
#[cfg(test)]
pub(crate) use self::resolver::Early;
pub(crate) use self::resolver::{Resolve, SystemResolver};
use crate::{
    dial::HostPort,
    error::DialError,
    status::{AddressStatus, ResolutionStatus},
};

/// How long a dial waits for a fresh answer while it has an old one. RFC 8767 §5 names 1.8 s for resolvers that serve
/// stale data; a dial is in more of a hurry.
const PATIENCE: Duration = Duration::from_secs(1);

/// The addresses of one place. Dropping it ends its task.
pub(crate) struct Directory {
    shared: Arc<Shared>,
    task: Option<AbortHandle>,
}

struct Shared {
    place: HostPort,
    /// The place is an address already: nothing is ever asked.
    literal: Option<IpAddr>,
    state: Mutex<State>,
    /// A dial wants an answer.
    wanted: Notify,
    /// Counts answers, good and bad.
    answered: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    answers: Answers,
    /// Sockets per address: being connected, serving, draining.
    in_use: HashMap<IpAddr, u32>,
}

/// Where a dial may go, best first; the first is claimed already.
#[derive(Debug)]
pub(crate) struct Candidates {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) claim: Claim,
}

/// One socket's use of an address, counted while it lives.
pub(crate) struct Claim {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Directory {
    /// Begins to ask for the addresses of `place` on `handle`, each question bounded by `limit`. `changed` is called
    /// when addresses came or went and when resolution began to fail or to work again.
    pub(crate) fn start(
        place: HostPort,
        limit: Duration,
        resolver: impl Resolve,
        handle: &Handle,
        changed: impl Fn() + Send + 'static,
    ) -> Self {
        let shared = Shared::new(place);
        let task = shared
            .literal
            .is_none()
            .then(|| handle.spawn(keep(shared.clone(), limit, resolver, changed)).abort_handle());
        Self { shared, task }
    }

    /// One that asks nothing: for a place that is an address, or is never dialled.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn silent(place: HostPort) -> Self {
        Self { shared: Shared::new(place), task: None }
    }

    /// The place.
    pub(crate) fn place(&self) -> &HostPort {
        &self.shared.place
    }

    /// Where to dial now, best first. Never empty.
    ///
    /// # Errors
    /// [`DialError::Dns`] when no address is known.
    ///
    /// # Cancel safety
    /// Waits only; the question goes on for the others.
    pub(crate) async fn candidates(&self) -> Result<Candidates, DialError> {
        let shared = &self.shared;
        let mut answered = shared.answered.subscribe();
        let demand = match shared.literal {
            Some(_) => Demand::Use,
            None => shared.state.lock().answers.demand(Instant::now()),
        };
        match demand {
            Demand::Use => {}
            Demand::Refuse(detail) => return Err(self.no_address(detail)),
            Demand::WaitBriefly => {
                shared.wanted.notify_one();
                // Whatever comes of it, the old answer is better than none.
                let _ = tokio::time::timeout(PATIENCE, answered.changed()).await;
            }
            Demand::Wait => {
                shared.wanted.notify_one();
                // The sender lives in `shared`: the wait cannot fail.
                let _ = answered.changed().await;
            }
        }
        self.choose()
    }

    fn choose(&self) -> Result<Candidates, DialError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let addresses = match shared.literal {
            Some(address) => vec![address],
            None => {
                let in_use = |address| state.in_use.get(&address).copied().unwrap_or(0);
                state.answers.candidates(Instant::now(), in_use)
            }
        };
        let Some(&first) = addresses.first() else {
            let detail = state
                .answers
                .failing()
                .map_or_else(|| "the answer holds no address".to_owned(), |(_, error)| error.to_string());
            return Err(self.no_address(detail));
        };
        let claim = shared.claim(&mut state, first);
        let port = shared.place.port;
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        Ok(Candidates { addresses, claim })
    }

    fn no_address(&self, detail: String) -> DialError {
        DialError::Dns { host: self.shared.place.host.clone(), detail }
    }

    /// Whether this address has left the name: absent from three answers in a row over two TTLs. Connections to it
    /// should be replaced.
    pub(crate) fn is_gone(&self, address: SocketAddr) -> bool {
        self.shared.literal.is_none() && self.shared.state.lock().answers.is_gone(address.ip())
    }

    /// A dial to this address failed: others go first for a while.
    pub(crate) fn note_failure(&self, address: SocketAddr) {
        self.shared.state.lock().answers.struck(address.ip(), Instant::now());
    }

    /// A connection to this address came to serve.
    pub(crate) fn note_success(&self, address: SocketAddr) {
        self.shared.state.lock().answers.forgiven(address.ip());
    }

    /// Asks no more.
    pub(crate) fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }

    /// What is known now; `None` where nothing is ever asked.
    pub(crate) fn status(&self, now: Instant) -> Option<ResolutionStatus> {
        let shared = &self.shared;
        if shared.literal.is_some() {
            return None;
        }
        let state = shared.state.lock();
        let failing = state.answers.failing();
        Some(ResolutionStatus {
            host: shared.place.host.clone(),
            valid_for: state.answers.valid_for(now),
            failing_for: failing.map(|(since, _)| now.saturating_duration_since(since)),
            failure: failing.map(|(_, error)| error.to_string()),
            addresses: state
                .answers
                .known()
                .iter()
                .map(|known| AddressStatus {
                    address: known.address,
                    connections: state.in_use.get(&known.address).copied().unwrap_or(0),
                    absent_answers: known.absent_answers(),
                    failed_lately: known.is_penalised(now),
                })
                .collect(),
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn new(place: HostPort) -> Arc<Self> {
        Arc::new(Self {
            literal: place.host.parse().ok(),
            place,
            state: Mutex::default(),
            wanted: Notify::new(),
            answered: watch::Sender::new(0),
        })
    }

    fn claim(self: &Arc<Self>, state: &mut State, address: IpAddr) -> Claim {
        *state.in_use.entry(address).or_insert(0) += 1;
        Claim { shared: self.clone(), address }
    }

    fn note(&self, result: Result<Answer, ResolveError>) -> Change {
        let now = Instant::now();
        let mut state = self.state.lock();
        let change = state.answers.note(now, result);
        let host = &self.place.host;
        match (change.health, state.answers.failing()) {
            (Health::Lost, Some((_, error))) => {
                let kept = state.answers.known().len();
                tracing::warn!(
                    host,
                    kept,
                    "the name cannot be resolved: {error}; the last good answer stays in use"
                );
            }
            (Health::Regained, _) => tracing::info!(host, "the name is resolved again"),
            _ => {}
        }
        self.log_moves(&change);
        change
    }

    /// The rest of an answer of which the half of family `counted` was noted.
    fn note_rest(&self, rest: &Answer, counted: Family) -> Change {
        let change = self.state.lock().answers.note_rest(Instant::now(), rest, counted);
        self.log_moves(&change);
        change
    }

    fn log_moves(&self, change: &Change) {
        if !change.came.is_empty() || !change.gone.is_empty() {
            tracing::info!(host = &self.place.host, came = ?change.came, gone = ?change.gone,
                "the addresses of the name changed");
        }
    }
}

impl Claim {
    /// The socket went to another address than the one claimed.
    pub(crate) fn move_to(&mut self, address: SocketAddr) {
        if address.ip() != self.address {
            let shared = self.shared.clone();
            let new = shared.claim(&mut shared.state.lock(), address.ip());
            // The old one is given back by its drop, outside the lock.
            *self = new;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let in_use = &mut self.shared.state.lock().in_use;
        if let Some(count) = in_use.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                in_use.remove(&self.address);
            }
        }
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Asks at once, when an answer's time is over, and when a dial wants it; one question at a time.
async fn keep(shared: Arc<Shared>, limit: Duration, resolver: impl Resolve, changed: impl Fn()) {
    let answered = shared.clone();
    let tell = move |change: Change| {
        answered.answered.send_modify(|count| *count += 1);
        if change != Change::default() {
            changed();
        }
    };
    loop {
        let (early, half) = oneshot::channel();
        let question = tokio::time::timeout(limit, resolver.resolve(&shared.place.host, early));
        let mut question = pin!(question);
        let first = tokio::select! {
            biased;
            whole = &mut question => First::Whole(whole),
            // Dropped unsent with the question only, which has ended then.
            Ok(half) = half => First::Half(half),
        };
        match first {
            First::Whole(whole) => {
                let result = whole.unwrap_or_else(|_| {
                    Err(ResolveError::Failed { detail: format!("no name server answered within {limit:?}") })
                });
                tell(shared.note(result));
            }
            First::Half(half) => {
                let silent = half.silent;
                tell(shared.note(Ok(half)));
                // The other half joins if it comes before the next question; it holds nothing up.
                let rest = tokio::select! {
                    biased;
                    rest = &mut question => rest,
                    () = until_due(&shared) => continue,
                };
                if let (Ok(Ok(rest)), Some(silent)) = (rest, silent)
                    && rest.silent.is_none()
                {
                    tell(shared.note_rest(&rest, silent.other()));
                }
            }
        }
        until_due(&shared).await;
    }
}

/// What came first of an answer.
enum First {
    /// All of it, or the lack of it.
    Whole(Result<Result<Answer, ResolveError>, Elapsed>),
    /// The half of one family; the other is slow.
    Half(Answer),
}

async fn until_due(shared: &Shared) {
    loop {
        let at = shared.state.lock().answers.ask_at().unwrap_or_else(Instant::now);
        tokio::select! {
            () = tokio::time::sleep_until(at) => return,
            () = shared.wanted.notified() => {
                // A wish from before the last answer may be granted already.
                let demand = shared.state.lock().answers.demand(Instant::now());
                if matches!(demand, Demand::Wait | Demand::WaitBriefly) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
