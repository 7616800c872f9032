//! Calls to a customer: a small rustls listener that demands and checks the provider's client certificate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use provider_sim::{
    Behaviour, HttpVersions, IngressCall, IngressError, IngressPhase, Pki, PkiOptions, TlsVersions,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, CertificateError, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::World;

/// A customer's listener and the PKI of its server certificate.
struct Customer {
    address: SocketAddr,
    pki: Pki,
}

impl Customer {
    /// Lets in whom this client CA has signed.
    async fn trusting(client_ca_pem: &str, alpn: &[&[u8]]) -> Self {
        let pki = Pki::generate(PkiOptions::default()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(client_ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let chain = pki.server_chain_pem();
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pki.server_key_pem().as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), tcp));
            }
        });
        Self { address, pki }
    }

    fn call(&self) -> IngressCall {
        let request = Request::post("/callback?n=1").body(Bytes::from_static(b"payload")).unwrap();
        IngressCall::new(self.address, "localhost", self.pki.anchors_pem(), request)
    }
}

const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

async fn serve(acceptor: TlsAcceptor, tcp: TcpStream) {
    // A refusal is what some tests are for.
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let session = tls.get_ref().1;
    let leaf = session.peer_certificates().unwrap()[0].clone();
    let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
    let name = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let tls_version = format!("{:?}", session.protocol_version().unwrap());
    let service = service_fn(move |request| answer(request, name.clone(), tls_version.clone()));
    let io = TokioIo::new(tls);
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
}

/// Tells the caller what it saw of it.
async fn answer(
    request: Request<Incoming>,
    name: String,
    tls: String,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    let authority = head.uri.authority().map(ToString::to_string).or(host).unwrap();
    let text =
        format!("{} {authority}{} {:?} {tls} {name} {body}", head.method, head.uri.path(), head.version);
    Ok(Response::builder().status(202).body(Full::from(text)).unwrap())
}

fn calls(world: &World) -> (u64, u64) {
    let ledger = world.simulator.ledger();
    (ledger.customer_calls, ledger.customer_calls_refused)
}

#[tokio::test]
async fn a_customer_is_called_with_the_client_certificate_over_each_version() {
    let world = World::new(Behaviour::default()).await;
    let customer = Customer::trusting(&world.pki.client_ca_pem(), BOTH).await;
    let cases = [
        (HttpVersions::H2AndHttp11, TlsVersions::Both, "HTTP/2.0 TLSv1_3"),
        (HttpVersions::H2Only, TlsVersions::Tls12Only, "HTTP/2.0 TLSv1_2"),
        (HttpVersions::Http11Only, TlsVersions::Tls13Only, "HTTP/1.1 TLSv1_3"),
        (HttpVersions::NoAlpn, TlsVersions::Tls12Only, "HTTP/1.1 TLSv1_2"),
    ];
    for (http, tls, spoken) in cases {
        let call = IngressCall { http, tls, ..customer.call() };
        let response = world.simulator.call_customer(call).await.unwrap();
        assert_eq!(response.status(), 202);
        let expected = format!("POST localhost/callback {spoken} TSH-SIMULATED-CLIENT payload");
        assert_eq!(String::from_utf8_lossy(response.body()), expected);
    }
    assert_eq!(calls(&world), (4, 0));
}

#[tokio::test]
async fn the_common_name_is_exactly_the_one_asked_for_and_survives_a_rotation_of_the_server() {
    let options = PkiOptions { outgoing_common_name: "TSH/CLIENT-7".to_owned(), ..PkiOptions::default() };
    let pki = Arc::new(Pki::generate(options).unwrap());
    let world = World::with(|options| provider_sim::SimulatorOptions { pki: pki.clone(), ..options }).await;
    let customer = Customer::trusting(&pki.client_ca_pem(), BOTH).await;
    world.simulator.rotate_certificate(provider_sim::Rotation::Leaf).unwrap();
    let response = world.simulator.call_customer(customer.call()).await.unwrap();
    assert!(String::from_utf8_lossy(response.body()).contains(" TSH/CLIENT-7 payload"), "{response:?}");
}

#[tokio::test]
async fn a_customer_that_trusts_another_client_ca_refuses_with_an_alert() {
    let world = World::new(Behaviour::default()).await;
    let other = Pki::generate(PkiOptions::default()).unwrap();
    let customer = Customer::trusting(&other.client_ca_pem(), BOTH).await;
    let mut made = 0;
    for tls in [TlsVersions::Tls12Only, TlsVersions::Tls13Only] {
        for http in [HttpVersions::H2Only, HttpVersions::Http11Only] {
            let call = IngressCall { http, tls, ..customer.call() };
            let error = world.simulator.call_customer(call).await.unwrap_err();
            made += 1;
            let IngressError::Refused { address, alert } = &error else {
                panic!("{tls:?} {http:?}: {error}")
            };
            assert_eq!((*address, *alert), (customer.address, AlertDescription::DecryptError));
            assert!(error.to_string().contains("alert DecryptError (51)"), "{error}");
            assert_eq!(calls(&world), (made, made));
        }
    }
}

#[tokio::test]
async fn a_server_chain_that_is_not_the_customers_is_not_trusted() {
    let world = World::new(Behaviour::default()).await;
    let customer = Customer::trusting(&world.pki.client_ca_pem(), BOTH).await;
    // The provider's own anchors: of the same names, with another key.
    let call = IngressCall { anchors_pem: world.pki.anchors_pem(), ..customer.call() };
    let error = world.simulator.call_customer(call).await.unwrap_err();
    assert!(matches!(error, IngressError::Distrusted { .. }), "{error}");
    let call = IngressCall { server_name: "elsewhere.test".to_owned(), ..customer.call() };
    let error = world.simulator.call_customer(call).await.unwrap_err();
    let IngressError::Distrusted { reason, .. } = &error else { panic!("{error}") };
    assert!(matches!(reason, CertificateError::NotValidForNameContext { .. }), "{error}");
    assert_eq!(calls(&world), (2, 0), "it was the provider who refused");
}

#[tokio::test]
async fn a_response_above_the_limit_is_an_error() {
    let world = World::new(Behaviour::default()).await;
    let customer = Customer::trusting(&world.pki.client_ca_pem(), BOTH).await;
    for http in [HttpVersions::H2Only, HttpVersions::Http11Only] {
        let whole = world.simulator.call_customer(IngressCall { http, ..customer.call() }).await.unwrap();
        let length = whole.body().len();
        let just = IngressCall { http, max_body_bytes: length, ..customer.call() };
        assert_eq!(world.simulator.call_customer(just).await.unwrap().body(), whole.body());
        let less = IngressCall { http, max_body_bytes: length - 1, ..customer.call() };
        let error = world.simulator.call_customer(less).await.unwrap_err();
        assert!(matches!(error, IngressError::TooLarge { limit, .. } if limit == length - 1), "{error}");
    }
}

#[tokio::test]
async fn a_silent_customer_is_given_up_in_time() {
    let world = World::new(Behaviour::default()).await;
    // Its backlog takes the connection; nobody speaks.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let customer = Customer {
        address: silent.local_addr().unwrap(),
        pki: Pki::generate(PkiOptions::default()).unwrap(),
    };
    let call = IngressCall { timeout: Duration::from_millis(50), ..customer.call() };
    let error = world.simulator.call_customer(call).await.unwrap_err();
    assert!(matches!(error, IngressError::Timeout { phase: IngressPhase::Handshake, .. }), "{error}");
}

#[tokio::test]
async fn what_cannot_be_called_is_said() {
    let world = World::new(Behaviour::default()).await;
    let customer = Customer::trusting(&world.pki.client_ca_pem(), &[]).await;
    for (call, hint) in [
        (IngressCall { anchors_pem: String::new(), ..customer.call() }, "hold no certificate"),
        (IngressCall { server_name: "a b".to_owned(), ..customer.call() }, "`a b` is neither"),
    ] {
        let error = world.simulator.call_customer(call).await.unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
    }
    assert_eq!(calls(&world), (0, 0), "nothing was dialled");
    let call = IngressCall { http: HttpVersions::H2Only, ..customer.call() };
    let error = world.simulator.call_customer(call).await.unwrap_err();
    assert!(matches!(error, IngressError::NotHttp2 { .. }), "{error}");
    let shown = format!("{:?}", customer.call());
    assert!(!shown.contains("payload") && !shown.contains("CERTIFICATE"), "{shown}");
}
