//! Both ends of a TLS handshake in one thread: our generation against a rustls server with the simulator's PKI.
//!
//! Owns the server's configuration and the moving of bytes between the two. The client's half is `tls-core` alone.

use std::sync::Arc;

use provider_sim::{ClientSpec, KeyAlgorithm, Pki, PkiOptions};
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tls_core::{
    Generation, HandshakeFacts, Identity, KeyExchange, PemSource, PinSet, SystemClock, TLS_VERSIONS,
    TlsOptions, Trust, WallClock, crypto_provider,
};

/// The server's name in all benchmarks.
pub const HOST: &str = "tsh.test";

/// Whether the client keeps tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tickets {
    /// It does: every handshake but the first is resumed.
    Kept,
    /// It does not: every handshake is full.
    Refused,
}

/// A client and a server that can shake hands as often as wanted.
pub struct Handshakes {
    generation: Arc<Generation>,
    server: Arc<ServerConfig>,
    wire: Vec<u8>,
}

impl Handshakes {
    /// Makes keys and certificates of this kind for both ends and for the authorities between them. The client
    /// pins the server's key, as a bank would.
    ///
    /// # Panics
    /// If a certificate cannot be made, which would be a fault of the set-up.
    #[must_use]
    pub fn new(key: KeyAlgorithm, tickets: Tickets) -> Self {
        let options = PkiOptions { server_key: key, authority_key: key, ..PkiOptions::default() };
        let pki = Pki::generate(options).expect("a PKI");
        let client = pki.issue_client(ClientSpec::default().keyed(key)).expect("a client certificate");
        let pem = |label: &str, text: &str| PemSource::from_bytes(label, text.as_bytes().to_vec());
        let identity = Identity::from_pem(
            &pem("client.pem", &client.certificate_pem),
            &pem("client.key", &client.key_pem),
        )
        .expect("a certificate and its key");
        let pins: PinSet = std::iter::once(pki.server_pin().parse().expect("a pin")).collect();
        let trust = Trust::new(HOST, &[pem("chain.pem", &pki.anchors_pem())], pins, SystemClock.now())
            .expect("a trust anchor");
        let mut options = TlsOptions::default();
        if tickets == Tickets::Refused {
            options.ticket_capacity = 0;
        }
        let generation = Generation::build(1, identity, trust, options).expect("a generation");
        Self { generation, server: server(&pki, client.certificate_der.clone()), wire: Vec::new() }
    }

    /// The client's half.
    #[must_use]
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The server's half.
    #[must_use]
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// One handshake from the first byte to the last ticket, with the check that the pool makes after it.
    ///
    /// # Panics
    /// If it fails, which would be a fault of the set-up.
    pub fn shake(&mut self) -> HandshakeFacts {
        let config = self.generation.client_config().clone();
        let mut client = ClientConnection::new(config, self.generation.server_name()).expect("a client");
        let mut server = ServerConnection::new(self.server.clone()).expect("a server");
        loop {
            self.wire.clear();
            while client.wants_write() {
                client.write_tls(&mut self.wire).expect("memory");
            }
            let mut unread = self.wire.as_slice();
            while !unread.is_empty() {
                server.read_tls(&mut unread).expect("memory");
                server.process_new_packets().expect("a good client");
            }
            self.wire.clear();
            while server.wants_write() {
                server.write_tls(&mut self.wire).expect("memory");
            }
            if self.wire.is_empty() {
                return self.generation.assert_established(&client).expect("a good server");
            }
            let mut unread = self.wire.as_slice();
            while !unread.is_empty() {
                client.read_tls(&mut unread).expect("memory");
                client.process_new_packets().expect("a good server");
            }
        }
    }
}

fn server(pki: &Pki, endorsed: CertificateDer<'static>) -> Arc<ServerConfig> {
    let provider = crypto_provider(&KeyExchange::ALL);
    let chain = vec![pki.server_certificate().clone(), pki.intermediate_certificate().clone()];
    let key = PrivateKeyDer::from_pem_slice(pki.server_key_pem().as_bytes()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(TLS_VERSIONS)
        .expect("versions of this provider")
        .with_client_cert_verifier(Arc::new(PinnedLeaf { endorsed, provider }))
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Lets one client certificate in, byte for byte, as the provider does (S10).
#[derive(Debug)]
struct PinnedLeaf {
    endorsed: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for PinnedLeaf {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if *leaf == self.endorsed {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
