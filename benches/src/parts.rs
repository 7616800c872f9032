//! The small operations on a request's way, each alone: lease and return, the verdict, the preparation.

use std::hint::black_box;

use bytes::Bytes;
use gateway::egress::{Core, bench::prepare};
use http::{Method, Request};
use http_body_util::Full;
use pool::{
    BodyHeld, RetryPolicy, Verdict,
    bench::{Lease, Leases},
};
use provider_sim::KeyAlgorithm;

use crate::{
    handshake::{Handshakes, Tickets},
    http::request,
    rig,
};

/// Connections that leases choose among.
pub const CONNECTIONS: usize = 4;
/// Room on each: the default of `max_streams`.
const STREAMS: u32 = 100;

/// A hub with [`CONNECTIONS`] serving connections without a transport.
#[must_use]
pub fn leases() -> Leases {
    let mut handshakes = Handshakes::new(KeyAlgorithm::EcP256, Tickets::Refused);
    let facts = handshakes.shake();
    Leases::serving(handshakes.generation().clone(), &facts, CONNECTIONS, STREAMS)
}

/// Leases a stream and gives it back.
///
/// # Panics
/// If none is free, which cannot be: there are far more streams than threads.
pub fn lease_and_return(leases: &Leases) {
    let lease: Lease = leases.try_lease().expect("a free stream");
    black_box(&lease);
}

/// Everything that a verdict can be asked: 4 verdicts × 3 policies × 2 methods × 2 states of the body.
pub const VERDICT_CASES: u64 = 48;

/// Decides every case of [`VERDICT_CASES`] once.
pub fn verdict_decide() {
    for verdict in Verdict::ALL {
        for policy in [RetryPolicy::Unprocessed, RetryPolicy::Idempotent, RetryPolicy::Never] {
            for method in [&Method::POST, &Method::GET] {
                for body in [BodyHeld::Whole, BodyHeld::Gone] {
                    let verdict = black_box(verdict);
                    black_box(verdict.decide(black_box(policy), black_box(method), black_box(body), 1));
                }
            }
        }
    }
}

/// What requests are prepared against.
#[must_use]
pub fn core() -> Core {
    rig::core(None)
}

/// A caller's request as hyper hands it over.
#[must_use]
pub fn callers_request() -> Request<Full<Bytes>> {
    request("/tokens/v1/provision?trace=1")
}

/// Survey, form, route, target and header fields of one request.
///
/// # Panics
/// If the request is refused.
pub fn prepare_request(core: &Core, mut request: Request<Full<Bytes>>) {
    assert!(prepare(core, &mut request), "the request has a route");
    black_box(&request);
}
