//! Owns the client side of these tests: plain rustls, plain h2, nothing of the gateway.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use provider_sim::{Behaviour, ClientCredentials, ClientSpec, Pki, PkiOptions, Simulator, SimulatorOptions};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A provider with one endorsed client.
pub(crate) struct World {
    pub(crate) pki: Arc<Pki>,
    pub(crate) client: ClientCredentials,
    pub(crate) simulator: Simulator,
}

impl World {
    pub(crate) async fn new(behaviour: Behaviour) -> Self {
        Self::with(|options| SimulatorOptions { behaviour, ..options }).await
    }

    pub(crate) async fn with(edit: impl FnOnce(SimulatorOptions) -> SimulatorOptions) -> Self {
        let pki = Arc::new(Pki::generate(PkiOptions::default()).unwrap());
        let client = pki.issue_client(ClientSpec::default()).unwrap();
        let endorsed = vec![client.endorsed()];
        let options = edit(SimulatorOptions { endorsed, ..SimulatorOptions::new(pki.clone()) });
        let simulator = Simulator::start(options).await.unwrap();
        Self { pki, client, simulator }
    }

    /// The configuration of the endorsed client. Its clones share a ticket store.
    pub(crate) fn config(&self) -> ClientConfig {
        config(&self.pki, &self.client, rustls::ALL_VERSIONS)
    }

    pub(crate) async fn tls(&self, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.simulator.addr()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    /// A proven HTTP/2 connection: SETTINGS seen, PING answered.
    pub(crate) async fn http2(&self) -> Client {
        Client::over(self.tls(self.config()).await.unwrap()).await.unwrap()
    }
}

pub(crate) fn config(
    pki: &Pki,
    client: &ClientCredentials,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.anchors_pem().as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(client.certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(client.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(256);
    config
}

/// An HTTP/2 client.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) driver: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn over(tls: TlsStream<TcpStream>) -> Result<Self, h2::Error> {
        let (send, mut connection) =
            h2::client::Builder::new().initial_max_send_streams(100).handshake::<_, Bytes>(tls).await?;
        let mut ping = connection.ping_pong().unwrap();
        let driver = tokio::spawn(connection);
        let pong = ping.ping(h2::Ping::opaque()).await;
        match pong {
            Ok(_) => Ok(Self { send, driver }),
            // The driver knows better why.
            Err(error) => Err(driver.await.unwrap().err().unwrap_or(error)),
        }
    }

    pub(crate) fn start(&self, request: Request<()>, body: Bytes) -> h2::client::ResponseFuture {
        let mut send = self.send.clone();
        let empty = body.is_empty();
        let (response, mut stream) = send.send_request(request, empty).unwrap();
        if !empty {
            stream.send_data(body, true).unwrap();
        }
        response
    }

    pub(crate) async fn call(&self, request: Request<()>, body: &[u8]) -> Result<Reply, h2::Error> {
        self.send.clone().ready().await?;
        read(self.start(request, Bytes::copy_from_slice(body)).await?).await
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Reply, h2::Error> {
        self.call(get(path), b"").await
    }
}

/// A response read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) data_frames: usize,
}

pub(crate) async fn read(response: Response<RecvStream>) -> Result<Reply, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let (mut body, mut data_frames) = (Vec::new(), 0);
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
        data_frames += 1;
    }
    Ok(Reply { head, body, trailers: stream.trailers().await?, data_frames })
}

/// Waits for a condition that others bring about; fails after ten seconds.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), holds).await.expect("the condition holds in the end");
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("https://localhost{path}")).body(()).unwrap()
}

pub(crate) fn post(path: &str) -> http::request::Builder {
    Request::post(format!("https://localhost{path}"))
}

pub(crate) fn reset_reason(error: &h2::Error) -> Option<Reason> {
    error.reason().filter(|_| error.is_reset())
}
