//! TLS servers that the simulator cannot play: any chain, any ALPN, or no TLS at all.

use std::{net::SocketAddr, sync::Arc};

use provider_sim::Pki;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{net::TcpListener, net::TcpSocket, net::TcpStream};
use tokio_rustls::TlsAcceptor;

/// A TLS server with this chain (PEM) and ALPN that shakes hands and says nothing more. Ends with the runtime.
///
/// # Panics
/// When chain and key do not fit.
pub async fn server(chain: &str, key: &str, alpn: &[&str]) -> SocketAddr {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a chain that fits its key");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    std::future::pending::<()>().await;
                    drop(tls);
                }
            });
        }
    });
    address
}

/// A server whose chain ends with the certificate of `other`, which the chain does not use.
pub async fn server_with_stray_certificate(pki: &Pki, other: &Pki) -> SocketAddr {
    let chain = format!("{}{}", pki.server_chain_pem(), other.server_chain_pem());
    server(&chain, &pki.server_key_pem(), &["h2"]).await
}

/// A listener that accepts nothing and whose backlog is full; hold the value as long as it must stay so.
pub struct FullBacklog {
    /// Where.
    pub address: SocketAddr,
    _held: (TcpListener, Vec<TcpStream>),
}

impl FullBacklog {
    /// Fills the backlog until connects hang.
    pub async fn make() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let listener = socket.listen(1).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut streams = Vec::new();
        let hang = std::time::Duration::from_millis(150);
        while let Ok(stream) = tokio::time::timeout(hang, TcpStream::connect(address)).await {
            streams.push(stream.expect("a connection"));
            assert!(streams.len() < 100, "the backlog does not fill");
        }
        Self { address, _held: (listener, streams) }
    }
}

/// An address on loopback where nothing listens, and nothing will while the value lives.
pub struct Closed(TcpSocket);

impl Closed {
    /// Binds a port and does not listen.
    pub fn make() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        Self(socket)
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }
}
