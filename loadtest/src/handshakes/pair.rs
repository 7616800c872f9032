//! Both ends of a TLS handshake in one thread, with a meter on the client's steps only.
//!
//! Owns the server's configuration, the moving of bytes and the meter. The client's half is `tls-core` alone: what
//! the pool runs. `benches/src/handshake.rs` does the same for the time of both ends together.

use std::{sync::Arc, time::Duration};

use provider_sim::{ClientSpec, KeyAlgorithm, Pki, PkiOptions};
use rustix::time::{ClockId, clock_gettime};
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, DistinguishedName, ServerConfig,
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

use crate::{error::Error, lab::lab};

/// The server's name.
const HOST: &str = "tsh.test";

/// Steps in which a handshake cannot be complete are a fault of the set-up: TLS takes three.
const MOST_FLIGHTS: u32 = 16;

/// A client and a server that can shake hands as often as wanted.
pub(super) struct Pair {
    generation: Arc<Generation>,
    server: Arc<ServerConfig>,
    wire: Vec<u8>,
}

/// One handshake of a [`Pair`].
#[derive(Clone, Debug)]
pub(super) struct Shaken {
    /// What `assert_established` said.
    pub facts: HandshakeFacts,
    /// CPU time of the client's steps: making the connection, every flight read and written, the check, the drop.
    pub client: Duration,
}

impl Pair {
    /// Keys and certificates of this kind for both ends and for the authorities between them; the client offers
    /// `key_exchange` and pins the server's key.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) fn new(key: KeyAlgorithm, key_exchange: &[KeyExchange]) -> Result<Self, Error> {
        let options = PkiOptions { server_key: key, authority_key: key, ..PkiOptions::default() };
        let pki = Pki::generate(options).map_err(lab("make certificates"))?;
        let client =
            pki.issue_client(ClientSpec::default().keyed(key)).map_err(lab("make a client certificate"))?;
        let pem = |label: &str, text: &str| PemSource::from_bytes(label, text.as_bytes().to_vec());
        let identity = Identity::from_pem(
            &pem("client.pem", &client.certificate_pem),
            &pem("client.key", &client.key_pem),
        )
        .map_err(lab("read the client certificate"))?;
        let pin = pki.server_pin().parse().map_err(lab("read the pin"))?;
        let pins: PinSet = std::iter::once(pin).collect();
        let trust = Trust::new(HOST, &[pem("chain.pem", &pki.anchors_pem())], pins, SystemClock.now())
            .map_err(lab("read the trust anchor"))?;
        let options = TlsOptions { key_exchange: key_exchange.to_vec(), ..TlsOptions::default() };
        let generation = Generation::build(1, identity, trust, options).map_err(lab("build a generation"))?;
        Ok(Self { generation, server: server(&pki, client.certificate_der.clone())?, wire: Vec::new() })
    }

    /// Throws away the client's tickets: the next handshake is full.
    pub(super) fn forget(&self) {
        self.generation.tickets().flush();
    }

    /// One handshake from the first byte to the last ticket, with the check that the pool makes after it.
    ///
    /// # Errors
    /// [`Error::Lab`] if it fails.
    pub(super) fn shake(&mut self) -> Result<Shaken, Error> {
        let mut meter = Meter::default();
        let generation = &self.generation;
        let mut server =
            ServerConnection::new(self.server.clone()).map_err(lab("start a server's handshake"))?;
        let mut client = meter.measured(|| {
            let config = generation.client_config().clone();
            ClientConnection::new(config, generation.server_name()).map_err(lab("start a handshake"))
        })?;
        for _ in 0..MOST_FLIGHTS {
            self.wire.clear();
            meter.measured(|| -> Result<(), Error> {
                while client.wants_write() {
                    client.write_tls(&mut self.wire).map_err(lab("write a flight"))?;
                }
                Ok(())
            })?;
            let mut unread = self.wire.as_slice();
            while !unread.is_empty() {
                server.read_tls(&mut unread).map_err(lab("read the client's flight"))?;
                server.process_new_packets().map_err(lab("accept the client"))?;
            }
            self.wire.clear();
            while server.wants_write() {
                server.write_tls(&mut self.wire).map_err(lab("write the server's flight"))?;
            }
            if self.wire.is_empty() {
                let facts = meter.measured(|| {
                    let facts = generation.assert_established(&client);
                    drop(client);
                    facts
                });
                return Ok(Shaken {
                    facts: facts.map_err(lab("establish a handshake"))?,
                    client: meter.total,
                });
            }
            let mut unread = self.wire.as_slice();
            meter.measured(|| -> Result<(), Error> {
                while !unread.is_empty() {
                    client.read_tls(&mut unread).map_err(lab("read the server's flight"))?;
                    client.process_new_packets().map_err(lab("accept the server"))?;
                }
                Ok(())
            })?;
        }
        Err(lab("complete a handshake")("it does not end"))
    }
}

/// CPU time of this thread in the parts that are measured.
#[derive(Debug, Default)]
pub(super) struct Meter {
    total: Duration,
}

impl Meter {
    /// Runs `step` and adds its CPU time.
    pub(super) fn measured<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let done = step();
        self.total += thread_time().saturating_sub(before);
        done
    }

    /// What was added so far.
    pub(super) fn total(&self) -> Duration {
        self.total
    }
}

/// CPU time that this thread has had.
fn thread_time() -> Duration {
    // The kernel counts up from zero, and the nanoseconds are below a second.
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

fn server(pki: &Pki, endorsed: CertificateDer<'static>) -> Result<Arc<ServerConfig>, Error> {
    let provider = crypto_provider(&KeyExchange::ALL);
    let chain = vec![pki.server_certificate().clone(), pki.intermediate_certificate().clone()];
    let key = PrivateKeyDer::from_pem_slice(pki.server_key_pem().as_bytes())
        .map_err(lab("read the server's key"))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(TLS_VERSIONS)
        .map_err(lab("configure a server"))?
        .with_client_cert_verifier(Arc::new(PinnedLeaf { endorsed, provider }))
        .with_single_cert(chain, key)
        .map_err(lab("configure a server"))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
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
    ) -> Result<ClientCertVerified, rustls::Error> {
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
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
