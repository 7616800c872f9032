//! A small PKI and in-memory handshakes for this crate's tests.
//!
//! Keys are made anew in every run. The `.pem` files beside this one are certificates that no library at
//! hand would make any more (SHA-1, RSA 1024); their keys were thrown away.

mod pki;
mod wire;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::macros::datetime;

use crate::clock::{ManualClock, WallClock};
use crate::generation::{Generation, TlsOptions};
use crate::identity::Identity;
use crate::pem::PemSource;
use crate::pin::PinSet;
use crate::trust::Trust;

pub(crate) use pki::{Authority, Leaf, client_certificate, client_certificate_with};
pub(crate) use wire::{
    Clients, ONLY_TLS12, ONLY_TLS13, ServerOptions, begin, connect, connect_halfway, server,
};

/// The moment at which tests take place.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);

/// The server's name in tests.
pub(crate) const HOST: &str = "tmg.sandbox.test";

/// The Common Name of the client in tests.
pub(crate) const COMMON_NAME: &str = "CUSTOMER-0001-SBX";

/// A certificate signed with RSA 1024 and SHA-256, CA:TRUE, 2026-11-23 to 2027-11-23.
pub(crate) const RSA_1024: &[u8] = include_bytes!("rsa1024.pem");

/// A self-signed RSA 2048 certificate with SHA-1.
pub(crate) const RSA_2048_SHA1: &[u8] = include_bytes!("rsa2048-sha1.pem");

/// A self-signed RSA 2048 certificate with RSA-PSS and SHA-256.
pub(crate) const RSA_2048_PSS: &[u8] = include_bytes!("rsa2048-pss-sha256.pem");

/// PEM under a label.
pub(crate) fn pem(label: &str, text: impl AsRef<[u8]>) -> PemSource {
    PemSource::from_bytes(label, text.as_ref().to_vec())
}

/// The usual cast: a root, the intermediate below it as Thales' CA, a server certificate, our identity.
pub(crate) struct Lab {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) root: Authority,
    pub(crate) issuing: Authority,
    pub(crate) leaf: Leaf,
    pub(crate) identity: Identity,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let root = Authority::root("Test Root CA");
        let issuing = root.subordinate("Test Issuing CA");
        let leaf = issuing.leaf(HOST);
        let client = client_certificate(COMMON_NAME);
        let identity =
            Identity::from_pem(&pem("client.pem", &client.pem), &pem("client.key", client.key_pem()))
                .expect("a good identity");
        Self { clock: Arc::new(ManualClock::at(NOW)), root, issuing, leaf, identity }
    }

    /// Trust in the intermediate alone, with `pins`.
    pub(crate) fn trust(&self, pins: PinSet) -> Trust {
        self.trust_in(&[pem("chain.pem", &self.issuing.pem)], pins)
    }

    pub(crate) fn trust_in(&self, anchors: &[PemSource], pins: PinSet) -> Trust {
        Trust::new(HOST, anchors, pins, self.clock.now()).expect("good trust")
    }

    /// Generation 1 with default options and no pins.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.generation_with(self.trust(PinSet::default()), TlsOptions::default())
    }

    pub(crate) fn generation_with(&self, trust: Trust, options: TlsOptions) -> Arc<Generation> {
        Generation::build_with_clock(1, self.identity.clone(), trust, options, self.clock.clone())
            .expect("a good generation")
    }

    /// The chain that a proper server presents.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.leaf.der.clone(), self.issuing.der.clone()]
    }

    /// A server with default options and the proper chain.
    pub(crate) fn server(&self) -> Arc<rustls::ServerConfig> {
        self.server_with(ServerOptions::default())
    }

    pub(crate) fn server_with(&self, options: ServerOptions) -> Arc<rustls::ServerConfig> {
        server(&self.leaf, self.chain(), self.clock.clone(), options)
    }
}
