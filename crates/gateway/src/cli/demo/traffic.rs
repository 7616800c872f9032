//! The callers: light, even traffic to both environments, HTTP/1.1 and h2c, through the egress listener.
//!
//! Owns pace and payload. It shows the gateway at work; it does not measure its limits, `loadtest` does.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Version, header};
use http_body_util::Full;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    caller::{Call, Link, Protocol},
    lab::PLANS,
    tally::Tally,
};

/// One lane is one environment in one protocol.
const PROTOCOLS: [Protocol; 2] = [Protocol::Http11, Protocol::H2c];
const LANES: u32 = (PLANS.len() * PROTOCOLS.len()) as u32;
/// Requests per second that one caller of a lane manages with ease: 40 ms each.
const RATE_PER_CALLER: u32 = 25;
const LEAST_CALLERS: u32 = 4;
const MOST_CALLERS: u32 = 64;
/// A lane that is later than this does not catch up: the process was suspended, or the rate is beyond the machine.
const LATEST: Duration = Duration::from_secs(1);
/// Requests in flight at the end get this long; the gateway's own time-outs for a response are longer, and a
/// request cut here is lost.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// Bodies have up to this many bytes: a payment or a card order, not a file.
const LARGEST_BODY: usize = 2048;

/// Running callers.
pub(super) struct Traffic {
    tallies: Vec<Arc<Tally>>,
    stop: CancellationToken,
    callers: TaskTracker,
    connections: TaskTracker,
    unfinished: Vec<Arc<AtomicU64>>,
}

impl Traffic {
    /// Starts callers that make `rate` requests per second together.
    pub(super) fn start(egress: SocketAddr, rate: u32) -> Self {
        let traffic = Self {
            tallies: PLANS.iter().map(|_| Arc::new(Tally::new())).collect(),
            stop: CancellationToken::new(),
            callers: TaskTracker::new(),
            connections: TaskTracker::new(),
            unfinished: PLANS.iter().map(|_| Arc::default()).collect(),
        };
        let start = Instant::now();
        let payload = Bytes::from(vec![b'x'; LARGEST_BODY]);
        for (environment, plan) in PLANS.iter().enumerate() {
            for (number, protocol) in PROTOCOLS.into_iter().enumerate() {
                let lane = Arc::new(Lane {
                    name: plan.name,
                    egress,
                    payload: payload.clone(),
                    pace: Pace::new(start, rate, environment * PROTOCOLS.len() + number),
                    tally: traffic.tallies[environment].clone(),
                    unfinished: traffic.unfinished[environment].clone(),
                });
                traffic.start_lane(&lane, protocol, rate);
            }
        }
        traffic.callers.close();
        traffic
    }

    /// The books, in the order of the environments.
    pub(super) fn tallies(&self) -> &[Arc<Tally>] {
        &self.tallies
    }

    /// Starts no more requests and waits for those in flight. One that does not end in time is lost.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        if timeout(FINISH_WITHIN, self.callers.wait()).await.is_err() {
            for (tally, unfinished) in self.tallies.iter().zip(&self.unfinished) {
                for _ in 0..unfinished.load(Ordering::Relaxed) {
                    tally.lost("still in flight at the end".to_owned());
                }
            }
        }
        // The callers' ends are gone, so the connections end by themselves.
        self.connections.close();
        let _ = timeout(FINISH_WITHIN, self.connections.wait()).await;
    }

    fn start_lane(&self, lane: &Arc<Lane>, protocol: Protocol, rate: u32) {
        let link = || Arc::new(Link::new(lane.egress, protocol, self.connections.clone()));
        let shared = link();
        let callers = (rate / LANES / RATE_PER_CALLER).clamp(LEAST_CALLERS, MOST_CALLERS);
        for _ in 0..callers {
            let link = match protocol {
                Protocol::Http11 => link(),
                Protocol::H2c => shared.clone(),
            };
            self.callers.spawn(lane.clone().run(link, self.stop.clone()));
        }
    }
}

/// One environment in one protocol: callers that share a pace.
struct Lane {
    name: &'static str,
    egress: SocketAddr,
    payload: Bytes,
    pace: Pace,
    tally: Arc<Tally>,
    unfinished: Arc<AtomicU64>,
}

impl Lane {
    /// One caller: the next request of the lane, when its time has come, until the stop.
    async fn run(self: Arc<Self>, link: Arc<Link>, stop: CancellationToken) {
        loop {
            let (number, due) = self.pace.next(Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep_until(due) => {}
            }
            let (call, bytes) = self.call(number, link.protocol());
            let began = Instant::now();
            self.unfinished.fetch_add(1, Ordering::Relaxed);
            let outcome = link.call(call, bytes).await;
            match outcome {
                Ok(()) => self.tally.answered(began.elapsed()),
                Err(reason) => self.tally.lost(reason),
            }
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Request `number` of this lane, and the bytes that its answer must have.
    fn call(&self, number: u64, protocol: Protocol) -> (Call, usize) {
        // Every third is a GET; the others grow from nothing to the largest body and begin again.
        let (method, bytes) = if number.is_multiple_of(3) {
            (Method::GET, 0)
        } else {
            (Method::POST, (number as usize).wrapping_mul(37) % (LARGEST_BODY + 1))
        };
        let path = format!("/{}/payments/{number}", self.name);
        let mut request = Request::new(Full::new(self.payload.slice(..bytes)));
        *request.method_mut() = method;
        let (uri, label) = match protocol {
            Protocol::Http11 => (path, "h1"),
            Protocol::H2c => {
                *request.version_mut() = Version::HTTP_2;
                (format!("http://{}{path}", self.egress), "h2c")
            }
        };
        // Made of a name, a number and an address, these are always well formed.
        *request.uri_mut() = uri.parse().expect("a well-formed URI");
        let value = |text: String| text.parse().expect("a visible ASCII value");
        if protocol == Protocol::Http11 {
            request.headers_mut().insert(header::HOST, value(self.egress.to_string()));
        }
        let id = value(format!("demo-{}-{label}-{number}", self.name));
        request.headers_mut().insert("x-correlation-id", id);
        (request, bytes)
    }
}

/// When each request of a lane is due: evenly, lanes apart from each other.
struct Pace {
    start: Instant,
    interval: Duration,
    next: AtomicU64,
}

impl Pace {
    fn new(start: Instant, rate: u32, lane: usize) -> Self {
        let interval = Duration::from_secs(1) * LANES / rate;
        let offset = interval * u32::try_from(lane).unwrap_or(0) / LANES;
        Self { start: start + offset, interval, next: AtomicU64::new(0) }
    }

    /// Number and due time of the next request.
    fn next(&self, now: Instant) -> (u64, Instant) {
        let late_from = now.saturating_duration_since(self.start).saturating_sub(LATEST);
        let earliest = (late_from.as_nanos() / self.interval.as_nanos().max(1)) as u64;
        self.next.fetch_max(earliest, Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let nanos = (self.interval.as_nanos() as u64).saturating_mul(number);
        (number, self.start + Duration::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_are_even_and_lanes_apart() {
        let start = Instant::now();
        let (first, second) = (Pace::new(start, 400, 0), Pace::new(start, 400, 1));
        let due = |pace: &Pace| pace.next(start).1 - start;
        assert_eq!(due(&first), Duration::ZERO);
        assert_eq!(due(&first), Duration::from_millis(10));
        assert_eq!(due(&second), Duration::from_micros(2500));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_during_a_suspension_is_not_sent_at_once() {
        let start = Instant::now();
        let pace = Pace::new(start, 400, 0);
        let (number, due) = pace.next(start + Duration::from_secs(60));
        assert_eq!(number, 5_900, "a second's worth is caught up");
        assert_eq!(due, start + Duration::from_secs(59));
    }

    #[tokio::test(start_paused = true)]
    async fn a_little_late_is_caught_up() {
        let start = Instant::now();
        let pace = Pace::new(start, 400, 0);
        assert_eq!(pace.next(start + Duration::from_millis(900)).0, 0);
    }
}
