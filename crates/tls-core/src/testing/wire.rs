//! Handshakes between a generation and a rustls server, in memory.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
};

use super::Leaf;
use crate::clock::{RustlsClock, WallClock};
use crate::facts::HandshakeFacts;
use crate::fault::TlsFault;
use crate::generation::{Alpn, Generation};
use crate::provider::{KeyExchange, TLS_VERSIONS, crypto_provider};

/// TLS 1.2 alone.
pub(crate) static ONLY_TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// TLS 1.3 alone.
pub(crate) static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What the server thinks of client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Any is welcome, but one is required.
    Welcome,
    /// Refused with alert `unknown_ca`.
    Refused,
}

/// How the server is set up.
pub(crate) struct ServerOptions {
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) key_exchange: Vec<KeyExchange>,
    pub(crate) alpn: Vec<Alpn>,
    pub(crate) tickets: usize,
    pub(crate) clients: Clients,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            versions: TLS_VERSIONS,
            key_exchange: KeyExchange::ALL.to_vec(),
            alpn: vec![Alpn::H2, Alpn::Http11],
            tickets: 2,
            clients: Clients::Welcome,
        }
    }
}

/// A server that presents `chain` with `leaf`'s key.
pub(crate) fn server(
    leaf: &Leaf,
    chain: Vec<CertificateDer<'static>>,
    clock: Arc<dyn WallClock>,
    options: ServerOptions,
) -> Arc<ServerConfig> {
    let provider = crypto_provider(&options.key_exchange);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.key.serialize_der()));
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(RustlsClock(clock)))
        .with_protocol_versions(options.versions)
        .expect("usable versions")
        .with_client_cert_verifier(Arc::new(Doorman(options.clients)))
        .with_single_cert(chain, key)
        .expect("a good certificate");
    config.alpn_protocols = options.alpn.iter().map(|alpn| alpn.as_str().as_bytes().to_vec()).collect();
    config.send_tls13_tickets = options.tickets;
    Arc::new(config)
}

/// Both ends after the bytes stopped flowing.
pub(crate) struct Connection {
    pub(crate) client: ClientConnection,
    server: ServerConnection,
    /// What the client's side of the handshake came to.
    pub(crate) result: Result<(), Error>,
}

impl Connection {
    fn new(generation: &Generation, server: &Arc<ServerConfig>) -> Self {
        let config = generation.client_config().clone();
        let client = ClientConnection::new(config, generation.server_name()).expect("a client connection");
        let server = ServerConnection::new(server.clone()).expect("a server connection");
        Self { client, server, result: Ok(()) }
    }

    /// Lets bytes flow until there are no more.
    pub(crate) fn settle(&mut self) {
        while self.exchange() {}
    }

    /// One flight each way, the client's first; false if there was none.
    fn exchange(&mut self) -> bool {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).expect("memory");
        }
        let mut moved = !wire.is_empty();
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            self.server.read_tls(&mut unread).expect("memory");
            // A refusal becomes an alert on the wire; that is what the client's result is about.
            if self.server.process_new_packets().is_err() {
                break;
            }
        }
        let mut wire = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut wire).expect("memory");
        }
        moved |= !wire.is_empty();
        let mut unread = wire.as_slice();
        while !unread.is_empty() && self.result.is_ok() {
            self.client.read_tls(&mut unread).expect("memory");
            self.result = self.client.process_new_packets().map(|_| ());
        }
        moved
    }

    /// The facts, as the pool would get them.
    pub(crate) fn facts(&self, generation: &Generation) -> Result<HandshakeFacts, TlsFault> {
        self.result.as_ref().map_err(TlsFault::from_rustls)?;
        generation.assert_established(&self.client)
    }
}

/// Connects and lets bytes flow until there are no more, tickets and late alerts included.
pub(crate) fn connect(generation: &Generation, server: &Arc<ServerConfig>) -> Connection {
    let mut connection = Connection::new(generation, server);
    connection.settle();
    connection
}

/// Prepares a connection: the client has chosen a ticket, and no byte has moved.
pub(crate) fn begin(generation: &Generation, server: &Arc<ServerConfig>) -> Connection {
    Connection::new(generation, server)
}

/// Connects and stops when the client's side of the handshake is complete: what the server sent after it
/// is still on its way.
pub(crate) fn connect_halfway(generation: &Generation, server: &Arc<ServerConfig>) -> Connection {
    let mut connection = Connection::new(generation, server);
    while connection.client.is_handshaking() && connection.exchange() {}
    connection
}

#[derive(Debug)]
struct Doorman(Clients);

impl ClientCertVerifier for Doorman {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.0 {
            Clients::Welcome => Ok(ClientCertVerified::assertion()),
            Clients::Refused => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = crypto_provider(&KeyExchange::ALL).signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = crypto_provider(&KeyExchange::ALL).signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto_provider(&KeyExchange::ALL).signature_verification_algorithms.supported_schemes()
    }
}
