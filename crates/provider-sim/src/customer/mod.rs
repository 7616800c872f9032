//! Owns a call of the provider to a customer's ingress: one connection, one request, one response. It does not
//! own the certificates ([`Pki`]) nor anything that listens.

mod error;
mod watched;

use std::error::Error as _;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{IngressError, IngressPhase};
use watched::{Watched, alert_of};

use crate::Pki;
use crate::behaviour::{HttpVersions, TlsVersions};
use crate::ledger::Books;
use crate::tls::{ALPN_H2, alpn, provider, versions};

/// After the response, for the connection's orderly end.
const FAREWELL: Duration = Duration::from_millis(500);

/// An order for [`Simulator::call_customer`](crate::Simulator::call_customer). `Debug` leaves the request out.
#[derive(Clone)]
pub struct IngressCall {
    /// The customer's listener.
    pub address: SocketAddr,
    /// What the server's certificate must be for, and the SNI: a DNS name, or an IP address (no SNI then).
    pub server_name: String,
    /// The CA certificates that the customer's server chain must lead to: asset
    /// `CUSTOMER_TLS_SERVER_CERTIFICATE_CHAIN`. Nothing else is trusted.
    pub anchors_pem: String,
    /// The request. A URI without authority gets that of the `host` header, else the server name; the HTTP
    /// version is the one agreed on.
    pub request: Request<Bytes>,
    /// TLS versions offered. Default: 1.2 and 1.3.
    pub tls: TlsVersions,
    /// HTTP versions offered by ALPN. Default: `h2`, then `http/1.1`. Without agreement HTTP/1.1 is spoken.
    pub http: HttpVersions,
    /// For the whole call. Default 10 s.
    pub timeout: Duration,
    /// Longest body of a response, in bytes. Default 1 MiB. Headers are bounded by the HTTP library.
    pub max_body_bytes: usize,
}

impl IngressCall {
    /// The defaults with these.
    pub fn new(
        address: SocketAddr,
        server_name: impl Into<String>,
        anchors_pem: impl Into<String>,
        request: Request<Bytes>,
    ) -> Self {
        Self {
            address,
            server_name: server_name.into(),
            anchors_pem: anchors_pem.into(),
            request,
            tls: TlsVersions::default(),
            http: HttpVersions::default(),
            timeout: Duration::from_secs(10),
            max_body_bytes: 1024 * 1024,
        }
    }
}

impl fmt::Debug for IngressCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngressCall")
            .field("address", &self.address)
            .field("server_name", &self.server_name)
            .field("tls", &self.tls)
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

pub(crate) async fn call(
    pki: &Pki,
    books: &Books,
    call: IngressCall,
) -> Result<Response<Bytes>, IngressError> {
    let invalid = |problem| IngressError::Invalid { address: call.address, problem };
    let config = client_config(pki, &call).map_err(invalid)?;
    let name = ServerName::try_from(call.server_name.clone())
        .map_err(|_| invalid(format!("`{}` is neither a DNS name nor an IP address", call.server_name)))?;
    let target = Target::of(&call).map_err(invalid)?;
    books.customer_calls.add(1);
    let result = attempt(&call, config, name, target).await;
    if let Err(IngressError::Refused { .. }) = result {
        books.customer_calls_refused.add(1);
    }
    result
}

async fn attempt(
    call: &IngressCall,
    config: ClientConfig,
    name: ServerName<'static>,
    target: Target,
) -> Result<Response<Bytes>, IngressError> {
    let address = call.address;
    let deadline = Instant::now() + call.timeout;
    let late = |phase| move |_| IngressError::Timeout { address, phase, after: call.timeout };
    let tcp = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(late(IngressPhase::Connect))?
        .map_err(|source| IngressError::Connect { address, source })?;
    // Best effort: without it the call is only slower.
    let _ = tcp.set_nodelay(true);
    let tls = timeout_at(deadline, TlsConnector::from(Arc::new(config)).connect(name, tcp))
        .await
        .map_err(late(IngressPhase::Handshake))?
        .map_err(|error| handshake_failed(address, error))?;
    timeout_at(deadline, exchange(call, tls, target)).await.map_err(late(IngressPhase::Exchange))?
}

fn handshake_failed(address: SocketAddr, source: std::io::Error) -> IngressError {
    if let Some(alert) = alert_of(&source) {
        return IngressError::Refused { address, alert };
    }
    match source.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            IngressError::Distrusted { address, reason: reason.clone() }
        }
        _ => IngressError::Handshake { address, source },
    }
}

/// No word of the key in the error: only which part is wrong.
fn client_config(pki: &Pki, call: &IngressCall) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(call.anchors_pem.as_bytes()) {
        let anchor = anchor.map_err(|error| format!("the anchors are no PEM: {error}"))?;
        roots.add(anchor).map_err(|error| format!("an anchor is no CA certificate: {error}"))?;
    }
    if roots.is_empty() {
        return Err("the anchors hold no certificate; give the customer's server CA chain as PEM".to_owned());
    }
    let client = pki.outgoing_client();
    let key = PrivateKeyDer::from_pem_slice(client.key_pem.as_bytes())
        .map_err(|_| "the provider's client key cannot be read; make the PKI anew".to_owned())?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(call.tls))
        .map_err(|error| format!("TLS versions: {error}"))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.certificate_der.clone()], key)
        .map_err(|error| format!("the provider's client certificate: {error}; make the PKI anew"))?;
    config.alpn_protocols = alpn(call.http);
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What the request is for, in the parts that each HTTP version writes in its own way.
struct Target {
    authority: Authority,
    path: PathAndQuery,
}

impl Target {
    fn of(call: &IngressCall) -> Result<Self, String> {
        let (uri, host) = (call.request.uri(), call.request.headers().get(HOST));
        let authority = match (uri.authority(), host) {
            (Some(authority), _) => authority.clone(),
            (None, Some(host)) => Authority::try_from(host.as_bytes())
                .map_err(|_| "the `host` header is no authority; write it as name:port".to_owned())?,
            (None, None) => authority_of(&call.server_name)?,
        };
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { authority, path })
    }

    fn over_http2(self, request: &mut Request<Full<Bytes>>) -> Result<(), http::Error> {
        let uri = Uri::builder().scheme(Scheme::HTTPS).authority(self.authority).path_and_query(self.path);
        *request.uri_mut() = uri.build()?;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        Ok(())
    }

    fn over_http11(self, request: &mut Request<Full<Bytes>>) -> Result<(), http::Error> {
        *request.uri_mut() = Uri::from(self.path);
        *request.version_mut() = Version::HTTP_11;
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, HeaderValue::from_str(self.authority.as_str())?);
        }
        Ok(())
    }
}

/// An IPv6 address stands in brackets there (RFC 3986 section 3.2.2).
fn authority_of(server_name: &str) -> Result<Authority, String> {
    let text = if server_name.contains(':') { format!("[{server_name}]") } else { server_name.to_owned() };
    Authority::try_from(text).map_err(|_| format!("`{server_name}` cannot stand in a URI"))
}

/// Tasks of one connection; none outlives the call.
#[derive(Clone, Debug)]
struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let cancel = self.cancel.clone();
        self.tracker.spawn(async move { cancel.run_until_cancelled(future).await.map(drop) });
    }
}

async fn exchange(
    call: &IngressCall,
    tls: TlsStream<TcpStream>,
    target: Target,
) -> Result<Response<Bytes>, IngressError> {
    let address = call.address;
    let agreed_http2 = tls.get_ref().1.alpn_protocol() == Some(ALPN_H2);
    if call.http == HttpVersions::H2Only && !agreed_http2 {
        return Err(IngressError::NotHttp2 { address });
    }
    let (watched, seen) = Watched::new(tls);
    let tasks = Tasks { tracker: TaskTracker::new(), cancel: CancellationToken::new() };
    let _none_outlives_this = tasks.cancel.clone().drop_guard();
    let sent = async {
        let request = call.request.clone().map(Full::new);
        let response = if agreed_http2 {
            over_http2(watched, request, target, &tasks).await?
        } else {
            over_http11(watched, request, target, &tasks).await?
        };
        whole(response, call.max_body_bytes).await
    };
    let result = sent.await;
    if result.is_ok() {
        // The sender is gone, so the connection ends by itself, with close_notify.
        tasks.tracker.close();
        let _ = timeout(FAREWELL, tasks.tracker.wait()).await;
    }
    result.map_err(|failed| match (failed, seen.alert()) {
        (_, Some(alert)) => IngressError::Refused { address, alert },
        (Failed::TooLarge, None) => IngressError::TooLarge { address, limit: call.max_body_bytes },
        (Failed::Http(problem), None) => IngressError::Http { address, problem },
    })
}

/// What became of an exchange, before it is known whether an alert was behind it.
enum Failed {
    TooLarge,
    Http(String),
}

impl From<hyper::Error> for Failed {
    fn from(error: hyper::Error) -> Self {
        // The library leaves its cause out of its text.
        Self::Http(error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
    }
}

impl From<http::Error> for Failed {
    fn from(error: http::Error) -> Self {
        Self::Http(error.to_string())
    }
}

/// The response's body lives on without the sender: its connection ends after it.
async fn over_http2(
    watched: Watched,
    mut request: Request<Full<Bytes>>,
    target: Target,
    tasks: &Tasks,
) -> Result<Response<Incoming>, Failed> {
    target.over_http2(&mut request)?;
    let (mut sender, connection) = http2::handshake(tasks.clone(), TokioIo::new(watched)).await?;
    hyper::rt::Executor::execute(tasks, connection);
    sender.ready().await?;
    Ok(sender.send_request(request).await?)
}

async fn over_http11(
    watched: Watched,
    mut request: Request<Full<Bytes>>,
    target: Target,
    tasks: &Tasks,
) -> Result<Response<Incoming>, Failed> {
    target.over_http11(&mut request)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(watched)).await?;
    hyper::rt::Executor::execute(tasks, connection);
    sender.ready().await?;
    Ok(sender.send_request(request).await?)
}

async fn whole(response: Response<Incoming>, limit: usize) -> Result<Response<Bytes>, Failed> {
    let (head, body) = response.into_parts();
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(Response::from_parts(head, collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(Failed::TooLarge),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => Failed::from(*error),
            Err(error) => Failed::Http(error.to_string()),
        }),
    }
}
