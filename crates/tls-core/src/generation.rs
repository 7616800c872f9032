//! One generation: everything that decides who we are and whom we believe, frozen together.
//!
//! Owns the rustls `ClientConfig` and the ticket store made for it, and the check after every handshake.
//! Which generation carries new connections is the pool's matter.

use std::fmt;
use std::sync::Arc;

use rustls::client::{ClientSessionStore, ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SignatureScheme};
use serde::{Deserialize, Serialize};

use crate::clock::{RustlsClock, SystemClock, WallClock};
use crate::facts::{HandshakeFacts, HandshakeKind, TlsVersion};
use crate::fault::TlsFault;
use crate::identity::Identity;
use crate::provider::{KeyExchange, TLS_VERSIONS, crypto_provider};
use crate::tickets::TicketStore;
use crate::trust::Trust;
use crate::verifier::ServerVerifier;

/// An application protocol that may be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Alpn {
    /// HTTP/2, `h2`.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1, `http/1.1`.
    #[serde(rename = "http/1.1")]
    Http11,
}

impl Alpn {
    /// The protocol's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }

    fn from_wire(name: &[u8]) -> Option<Self> {
        [Self::H2, Self::Http11].into_iter().find(|alpn| alpn.as_str().as_bytes() == name)
    }
}

impl fmt::Display for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is offered in a handshake.
///
/// # Defaults
///
/// All of [`KeyExchange::ALL`], the post-quantum hybrid first; `h2` before `http/1.1`; 64 tickets, which lets
/// a pool of 8 connections reconnect at once several times over, at about 2 KiB each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsOptions {
    /// Key exchange groups, the preferred first. At least one; at least one but the hybrid for TLS 1.2.
    pub key_exchange: Vec<KeyExchange>,
    /// Application protocols, the preferred first. Empty offers none, and the server then speaks HTTP/1.1.
    pub alpn: Vec<Alpn>,
    /// TLS 1.3 tickets held at most; 0 turns resumption off.
    pub ticket_capacity: usize,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            key_exchange: KeyExchange::ALL.to_vec(),
            alpn: vec![Alpn::H2, Alpn::Http11],
            ticket_capacity: 64,
        }
    }
}

/// Identity, trust and options, with the rustls configuration and the tickets that belong to them.
///
/// Immutable. A change of any part is a new generation with a new configuration and a new ticket store; where
/// [`is_same_material`](Self::is_same_material) holds, keep the old `Arc`, and its tickets with it.
pub struct Generation {
    serial: u64,
    identity: Identity,
    trust: Trust,
    options: TlsOptions,
    clock: Arc<dyn WallClock>,
    verifier: Arc<ServerVerifier>,
    tickets: Arc<TicketStore>,
    client_config: Arc<ClientConfig>,
}

impl Generation {
    /// Builds generation number `serial` on the system's clock.
    ///
    /// # Errors
    ///
    /// [`GenerationError`] if no handshake could ever succeed with these parts.
    pub fn build(
        serial: u64,
        identity: Identity,
        trust: Trust,
        options: TlsOptions,
    ) -> Result<Arc<Self>, GenerationError> {
        Self::build_with_clock(serial, identity, trust, options, Arc::new(SystemClock))
    }

    /// As [`build`](Self::build), with verification and tickets reading `clock`.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with_clock(
        serial: u64,
        identity: Identity,
        trust: Trust,
        options: TlsOptions,
        clock: Arc<dyn WallClock>,
    ) -> Result<Arc<Self>, GenerationError> {
        let certified = identity
            .certified_key()
            .ok_or_else(|| GenerationError::UnusableKey { kind: identity.certificate().key().to_string() })?;
        require_groups(&options.key_exchange)?;
        let provider = crypto_provider(&options.key_exchange);
        let tickets =
            Arc::new(TicketStore::new(trust.server_name().clone(), options.ticket_capacity, clock.clone()));
        let verifier = Arc::new(ServerVerifier::new(trust.clone(), &provider).telling(tickets.clone()));
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(RustlsClock(clock.clone())))
            .with_protocol_versions(TLS_VERSIONS)
            .map_err(|error| GenerationError::Refused { detail: error.to_string() })?
            .dangerous() // rustls' word for any verifier but its own; ours is stricter
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(OneCertificate(certified.clone())));
        config.alpn_protocols = options.alpn.iter().map(|alpn| alpn.as_str().as_bytes().to_vec()).collect();
        config.resumption = Resumption::store(tickets.clone() as Arc<dyn ClientSessionStore>);
        // Early data can be replayed by whoever records it: a payment must not be.
        config.enable_early_data = false;
        let client_config = Arc::new(config);
        Ok(Arc::new(Self { serial, identity, trust, options, clock, verifier, tickets, client_config }))
    }

    /// The serial number it was built with.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The rustls configuration to dial with, under [`server_name`](Self::server_name).
    pub fn client_config(&self) -> &Arc<ClientConfig> {
        &self.client_config
    }

    /// The name to dial under: it is sent as SNI and must be in the server's certificate.
    pub fn server_name(&self) -> ServerName<'static> {
        self.trust.server_name().clone()
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whom we believe.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The tickets of this generation and no other.
    pub fn tickets(&self) -> &TicketStore {
        &self.tickets
    }

    /// What is offered.
    pub fn options(&self) -> &TlsOptions {
        &self.options
    }

    /// Whether a generation of these parts would be the same as this one. Then this one may stay, and a
    /// needless reload costs no tickets.
    pub fn is_same_material(&self, identity: &Identity, trust: &Trust, options: &TlsOptions) -> bool {
        self.identity.is_same(identity) && self.trust.is_same(trust) && self.options == *options
    }

    /// Checks an established connection and says what it is. To be called after **every** handshake and
    /// before the first byte of a request.
    ///
    /// On a resumed handshake rustls verified nothing, so path, anchor, pins and name are checked again here,
    /// now, on the chain kept with the session. If that fails, all tickets are thrown away: they carry the
    /// same chain.
    ///
    /// # Errors
    ///
    /// [`TlsFault`]: the connection must be closed, nothing may be sent on it.
    pub fn assert_established(&self, connection: &ClientConnection) -> Result<HandshakeFacts, TlsFault> {
        let incomplete = || TlsFault::Protocol { detail: "the handshake is not complete".into() };
        let kind = HandshakeKind::from(connection.handshake_kind().ok_or_else(incomplete)?);
        let version =
            connection.protocol_version().and_then(TlsVersion::from_rustls).ok_or_else(incomplete)?;
        let suite = connection.negotiated_cipher_suite().ok_or_else(incomplete)?;
        let chain = connection.peer_certificates().unwrap_or_default();
        let (leaf, intermediates) = chain.split_first().ok_or_else(|| {
            TlsFault::ServerCertificateInvalid { detail: "the server presented no certificate".into() }
        })?;
        let verified =
            self.verifier.verify_chain(leaf, intermediates, self.clock.now()).map_err(|error| {
                self.tickets.flush();
                TlsFault::from_rustls(&error)
            })?;
        let alpn = self.negotiated_alpn(connection)?;
        let anchor = &self.trust.anchors()[verified.anchor];
        Ok(HandshakeFacts {
            version,
            cipher_suite: suite.suite().as_str().unwrap_or("unknown"),
            key_exchange: connection
                .negotiated_key_exchange_group()
                .map(|group| group.name().as_str().unwrap_or("unknown")),
            kind,
            alpn,
            peer_chain: verified.presented,
            peer_not_after: verified.leaf_not_after,
            anchor: anchor.fingerprint(),
            anchor_label: anchor.label().to_owned(),
            pin: verified.pin,
        })
    }

    /// The protocol the server chose, which must be one that was offered.
    fn negotiated_alpn(&self, connection: &ClientConnection) -> Result<Option<Alpn>, TlsFault> {
        let Some(name) = connection.alpn_protocol() else { return Ok(None) };
        match Alpn::from_wire(name) {
            Some(alpn) if self.options.alpn.contains(&alpn) => Ok(Some(alpn)),
            _ => Err(TlsFault::NoCommonAlpn),
        }
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("serial", &self.serial)
            .field("identity", &self.identity)
            .field("trust", &self.trust)
            .field("options", &self.options)
            .field("tickets", &self.tickets)
            .finish_non_exhaustive()
    }
}

/// Why no configuration can be made of these parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// The private key is of a kind that cannot sign a handshake.
    #[error("a key of kind {kind} cannot sign a TLS handshake; make a new key (ECDSA P-256) and certificate")]
    UnusableKey {
        /// The kind of the certificate's key.
        kind: String,
    },
    /// No key exchange group is offered.
    #[error("no key exchange group is offered; leave the list out for the default, or name at least one")]
    NoKeyExchange,
    /// Only the hybrid group is offered, which TLS 1.2 does not have.
    #[error("x25519mlkem768 alone leaves TLS 1.2 without a key exchange; add another group, such as x25519")]
    NoGroupForTls12,
    /// rustls refused the combination.
    #[error("the TLS library refuses these options: {detail}; leave key exchange at its default")]
    Refused {
        /// What it said.
        detail: String,
    },
}

fn require_groups(groups: &[KeyExchange]) -> Result<(), GenerationError> {
    if groups.is_empty() {
        return Err(GenerationError::NoKeyExchange);
    }
    if groups.iter().all(|group| *group == KeyExchange::X25519MlKem768) {
        return Err(GenerationError::NoGroupForTls12);
    }
    Ok(())
}

/// Presents one certificate whatever CAs the server names: a pinned self-signed certificate has none of
/// them as issuer (S10).
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OneCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for OneCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneCertificate")
    }
}

#[cfg(test)]
mod tests;
