//! Pingora as a forwarding proxy: a peer of the laboratory (loadtest/lab.sh), not part of the product.
//!
//! One thread, callers of HTTP/1.1 and of cleartext HTTP/2 on one port, one provider with a client certificate.
//! Everything that is not named here is Pingora's default. Usage:
//! `lab-pingora LISTEN PROVIDER CA_PEM CERTIFICATE_PEM KEY_PEM h2|http1`; `-` as CA_PEM trusts anybody.

use std::{error::Error, fs, sync::Arc};

use async_trait::async_trait;
use pingora::{
    apps::HttpServerOptions,
    prelude::{HttpPeer, ProxyHttp, Result, Server, Session, http_proxy_service},
    protocols::ALPN,
    server::configuration::ServerConf,
    tls::{pkey::PKey, x509::X509},
    utils::tls::CertKey,
};

/// The gateway's allocator, so that the difference lies elsewhere.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The provider (nginx) allows this many; Pingora's own default is one stream per connection.
const STREAMS_PER_CONNECTION: usize = 128;

/// Forwards everything to one provider.
struct Forward {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, provider, ca, certificate, key, protocol] = arguments.as_slice() else {
        return Err("usage: lab-pingora LISTEN PROVIDER CA_PEM CERTIFICATE_PEM KEY_PEM h2|http1".into());
    };
    let mut peer = HttpPeer::new(provider.as_str(), true, "localhost".to_owned());
    peer.client_cert_key = Some(Arc::new(CertKey::new(
        X509::stack_from_pem(&fs::read(certificate)?)?,
        PKey::private_key_from_pem(&fs::read(key)?)?,
    )));
    if ca == "-" {
        peer.options.verify_cert = false;
        peer.options.verify_hostname = false;
    } else {
        peer.options.ca = Some(Arc::new(X509::stack_from_pem(&fs::read(ca)?)?.into_boxed_slice()));
    }
    peer.options.alpn = if protocol == "h2" { ALPN::H2 } else { ALPN::H1 };
    peer.options.max_h2_streams = STREAMS_PER_CONNECTION;

    let conf = ServerConf { threads: 1, grace_period_seconds: Some(0), ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Forward { peer });
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    service.app_logic_mut().ok_or("the service lost its proxy")?.server_options = Some(options);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}
