//! What the unit tests of the pool share: random cases with a seed that is told, connections without a transport, and
//! ([`Lab`]) a pool over connections in memory whose other ends the test plays frame by frame ([`Peer`]).
//!
//! Owns no test.

mod lab;
mod peer;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestCaseResult, TestRunner},
};
use provider_sim::{ClientCredentials, ClientSpec, Pki, PkiOptions};
use tls_core::{
    Alpn, Fingerprint, Generation, HandshakeFacts, HandshakeKind, Identity, PemSource, PinSet, SystemClock,
    TlsOptions, TlsVersion, Trust, WallClock,
};
use tokio::time::Instant;

use crate::{
    connection::{Birth, Link},
    status::{DialPhases, Protocol},
    supervisor::next_id,
};

pub(crate) use self::{
    lab::{Feed, Lab},
    peer::{Frame, GOAWAY_SOON, Peer},
};

/// Tries `cases` random inputs. A failure names the least input that fails and the seed; `PROPTEST_RNG_SEED` set to
/// that seed repeats the run.
pub(crate) fn for_all<S: Strategy>(cases: u32, inputs: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let given = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    let config =
        Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    if let Err(e) = TestRunner::new(config).run(&inputs, test) {
        panic!("PROPTEST_RNG_SEED={seed}: {e}");
    }
}

/// Keys and certificates of a provider and its client, one for all tests: making keys takes long.
pub(crate) fn papers() -> &'static (Arc<Pki>, ClientCredentials) {
    static PAPERS: OnceLock<(Arc<Pki>, ClientCredentials)> = OnceLock::new();
    PAPERS.get_or_init(|| {
        let pki = Pki::generate(PkiOptions::default()).unwrap();
        let client = pki.issue_client(ClientSpec::named("CUSTOMER-0001-SBX")).unwrap();
        (Arc::new(pki), client)
    })
}

/// One generation for all tests, which that provider takes.
pub(crate) fn generation() -> Arc<Generation> {
    static GENERATION: OnceLock<Arc<Generation>> = OnceLock::new();
    let make = || {
        let (pki, client) = papers();
        let pem = |label: &str, text: &str| PemSource::from_bytes(label, text.as_bytes().to_vec());
        let identity =
            Identity::from_pem(&pem("c.pem", &client.certificate_pem), &pem("c.key", &client.key_pem))
                .unwrap();
        let chain = [pem("chain.pem", &pki.anchors_pem())];
        let trust = Trust::new("tsh.test", &chain, PinSet::default(), SystemClock.now()).unwrap();
        Generation::build(1, identity, trust, TlsOptions::default()).unwrap()
    };
    GENERATION.get_or_init(make).clone()
}

/// A connection that has shaken hands, without a transport: proving.
pub(crate) fn link(generation: u64, capacity: u32) -> Arc<Link> {
    link_on(0, generation, capacity)
}

/// As [`link`], on this worker.
pub(crate) fn link_on(worker: usize, generation: u64, capacity: u32) -> Arc<Link> {
    let now = Instant::now();
    let birth = Birth {
        id: next_id(),
        protocol: Protocol::H2,
        generation,
        worker,
        address: std::net::SocketAddr::from(([127, 0, 0, 1], 443)),
        born: now,
        retire_at: now + Duration::from_secs(3600),
        facts: facts(),
    };
    let link = Link::new(birth, None);
    link.set_capacity(capacity);
    link
}

/// What a full handshake establishes.
pub(crate) fn facts() -> HandshakeFacts {
    HandshakeFacts {
        version: TlsVersion::Tls13,
        cipher_suite: "TLS13_AES_256_GCM_SHA384",
        key_exchange: Some("X25519MLKEM768"),
        kind: HandshakeKind::Full,
        alpn: Some(Alpn::H2),
        peer_chain: vec![Fingerprint::of(b"leaf")],
        peer_not_after: time::OffsetDateTime::UNIX_EPOCH,
        anchor: Fingerprint::of(b"anchor"),
        anchor_label: "chain.pem".to_owned(),
        pin: None,
    }
}

/// A connection that serves, without a transport.
pub(crate) fn serving(generation: u64, capacity: u32) -> Arc<Link> {
    let link = link(generation, capacity);
    link.proved(DialPhases::default());
    link
}
