//! Owns the server side of TLS: configuration from behaviour and PKI, whose certificate is let in, sessions.
//! It does not own sockets.

mod sessions;
mod verifier;

pub(crate) use sessions::Sessions;
pub use verifier::Endorsed;
pub(crate) use verifier::{PinnedLeafVerifier, leaf_fault};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{NamedGroup, ServerConfig, SupportedProtocolVersion};

use crate::behaviour::{Behaviour, HttpVersions, KeyExchange, Resumption, TlsVersions};
use crate::{Pki, SimError};

pub(crate) const ALPN_H2: &[u8] = b"h2";
pub(crate) const ALPN_HTTP11: &[u8] = b"http/1.1";

/// A fresh configuration. Sessions outlive it as long as `sessions` does.
pub(crate) fn server_config(
    pki: &Pki,
    behaviour: &Behaviour,
    endorsed: &Arc<Vec<Endorsed>>,
    sessions: &Arc<Sessions>,
) -> Result<Arc<ServerConfig>, SimError> {
    let provider = exchanging(behaviour.key_exchange);
    let (chain, key) = pki.server_material();
    let verifier = PinnedLeafVerifier::new(provider.clone(), behaviour, endorsed.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(behaviour.tls))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = alpn(behaviour.http);
    config.send_tls13_tickets = behaviour.tickets as usize;
    config.session_storage = match behaviour.resumption {
        Resumption::Enabled => sessions.clone(),
        Resumption::Refuse => Arc::new(sessions::Amnesia),
    };
    Ok(Arc::new(config))
}

pub(crate) fn alpn(choice: HttpVersions) -> Vec<Vec<u8>> {
    match choice {
        HttpVersions::H2AndHttp11 => vec![ALPN_H2.to_vec(), ALPN_HTTP11.to_vec()],
        HttpVersions::H2Only => vec![ALPN_H2.to_vec()],
        HttpVersions::Http11Only => vec![ALPN_HTTP11.to_vec()],
        HttpVersions::NoAlpn => Vec::new(),
    }
}

pub(crate) fn versions(choice: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    match choice {
        TlsVersions::Both => rustls::ALL_VERSIONS,
        TlsVersions::Tls12Only => TLS12,
        TlsVersions::Tls13Only => TLS13,
    }
}

/// The provider with these groups alone.
fn exchanging(choice: KeyExchange) -> Arc<CryptoProvider> {
    match choice {
        KeyExchange::Any => provider(),
        KeyExchange::Classical => {
            let mut provider = CryptoProvider::clone(&provider());
            let classical = [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];
            provider.kx_groups.retain(|group| classical.contains(&group.name()));
            Arc::new(provider)
        }
    }
}

/// Passed explicitly: a process that has two providers compiled in has no default one.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
