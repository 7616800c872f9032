//! Identities, trust, pins, generations, tickets and certificate rules for mutual TLS with Thales.
//!
//! This crate owns everything about *who is who* on a TLS connection: our client certificate and key
//! ([`Identity`]), what is believed of the server ([`Trust`], [`PinSet`]), the rustls configuration made
//! from both ([`Generation`]), the tickets that belong to it ([`TicketStore`]), what a finished handshake
//! established ([`HandshakeFacts`]), what went wrong ([`TlsFault`]) and what Thales demands of a certificate
//! ([`rules`]). It owns no socket, no file watcher and no async runtime: bytes come in from the caller.
//!
//! # Invariants
//!
//! * A [`Generation`] never changes. Any change of identity, trust, pins or options makes a new one, with a
//!   new rustls configuration **and** a new ticket store: a resumed handshake does not run the verifier, so
//!   a ticket must not outlive what it was verified against.
//! * Pins match public keys on the *verified* path only, never on what a server merely presents.
//! * No setting turns verification off, and there are no web roots.
//! * The crypto provider is passed explicitly; nothing is installed process-wide.
//! * No key, ticket or other secret appears in `Debug` output or in an error.
//!
//! # Example
//!
//! ```no_run
//! use std::path::Path;
//! use tls_core::{Generation, Identity, PemSource, PinSet, SystemClock, TlsOptions, Trust, WallClock};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let certificate = PemSource::read(Path::new("CUSTOMER_TLS_CLIENT_CERTIFICATE.pem"))?;
//! let key = PemSource::read(Path::new("CUSTOMER_TLS_CLIENT_CERTIFICATE.key"))?;
//! let identity = Identity::from_pem(&certificate, &key)?;
//!
//! let chain = PemSource::read(Path::new("TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem"))?;
//! let now = SystemClock.now();
//! let trust = Trust::new("tmg.dbp-stg.thalescloud.io", &[chain], PinSet::default(), now)?;
//!
//! let generation = Generation::build(1, identity, trust, TlsOptions::default())?;
//! let config = generation.client_config().clone(); // dial with this, then `assert_established`
//! # let _ = config;
//! # Ok(())
//! # }
//! ```

mod certificate;
mod clock;
mod facts;
mod fault;
mod generation;
mod identity;
mod pem;
mod pin;
mod provider;
pub mod rules;
mod tickets;
mod trust;
mod verifier;

#[cfg(test)]
mod testing;

pub use certificate::{
    CertificateError, CertificateInfo, ExtendedKeyUsage, Fingerprint, HashKind, KeyKind, SignatureKind,
};
pub use clock::{ManualClock, SystemClock, WallClock};
pub use facts::{HandshakeFacts, HandshakeKind, TlsVersion};
pub use fault::TlsFault;
pub use generation::{Alpn, Generation, GenerationError, TlsOptions};
pub use identity::{Identity, IdentityError};
pub use pem::{MAX_PEM_BYTES, PemReadError, PemSource};
pub use pin::{PinParseError, PinSet, SpkiPin};
pub use provider::{KeyExchange, TLS_VERSIONS, UnknownKeyExchange, crypto_provider};
pub use rules::{Finding, Regime, RuleSet, Severity, Stage, lint_identity, lint_pair_across_stages};
pub use tickets::{TicketStats, TicketStore};
pub use trust::{AnchorInfo, SkipReason, SkippedCertificate, Trust, TrustError};
pub use verifier::{ServerVerifier, VerifyFault};
