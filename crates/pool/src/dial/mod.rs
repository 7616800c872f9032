//! From a target to a transport: name, TCP, the outbound proxy, TLS. One dial, each phase timed and bounded.
//!
//! Owns how a transport comes to be and the durations of its phases. The proof that the provider serves belongs
//! to `connection` (HTTP/2) and `http1`; when to dial is the supervisor's decision.

mod tcp;
mod via;

use std::time::Duration;

use tls_core::{Generation, HandshakeFacts};
use tokio::{io::BufReader, net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{config::Timeouts, connection::fault_of, error::DialError, status::DialPhases};

/// Where a dial goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host of the endpoint (S22), resolved by name unless `connect` says otherwise.
    pub host: String,
    /// Port of the endpoint. 443 for Thales.
    pub port: u16,
    /// Dial this host and port instead of the endpoint's; TLS still asks for the endpoint's name.
    pub connect: Option<HostPort>,
    /// An HTTP proxy that is asked to CONNECT.
    pub via: Option<HostPort>,
}

/// A host (name or address) and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Target {
    /// Where the provider is dialled: `connect` if given, else the endpoint.
    fn provider(&self) -> HostPort {
        self.connect.clone().unwrap_or_else(|| HostPort { host: self.host.clone(), port: self.port })
    }
}

/// The stream under HTTP. Reads are gathered below TLS: rustls asks for 4 KiB at a time, the kernel has more.
pub(crate) type Transport = TlsStream<BufReader<TcpStream>>;

/// One `recv` fetches up to this much.
const READ_BUFFER: usize = 32 * 1024;

/// A transport whose handshake is done and whose pins hold.
pub(crate) struct Dialled {
    pub(crate) transport: Transport,
    pub(crate) facts: HandshakeFacts,
    pub(crate) address: String,
    /// Serial of the generation it was dialled with, whichever is active by now.
    pub(crate) generation: u64,
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The time and place of a dial under way; also what is known when it fails.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) began: Instant,
    pub(crate) phases: DialPhases,
    pub(crate) address: String,
}

impl Progress {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), phases: DialPhases::default(), address: String::new() }
    }

    /// The phases with the total up to now.
    pub(crate) fn phases_now(&self) -> DialPhases {
        DialPhases { total: self.began.elapsed(), ..self.phases }
    }
}

/// Dials: resolves, connects, shakes hands, asserts the pins. `progress` is filled in phase by phase.
///
/// # Errors
/// The phase that failed and why.
///
/// # Cancel safety
/// Dropping it closes whatever was opened.
pub(crate) async fn dial(
    target: &Target,
    generation: &Generation,
    timeouts: &Timeouts,
    progress: &mut Progress,
) -> Result<Dialled, DialError> {
    let tcp = connect(target, timeouts.connect, progress).await?;
    let began = Instant::now();
    let transport = shake_hands(tcp, generation, timeouts.tls).await?;
    progress.phases.tls = Some(began.elapsed());
    // The pins are asserted here for every handshake: a resumed one does not run the verifier.
    let facts = generation.assert_established(transport.get_ref().1).map_err(DialError::Tls)?;
    Ok(Dialled { transport, facts, address: progress.address.clone(), generation: generation.serial() })
}

async fn connect(target: &Target, limit: Duration, progress: &mut Progress) -> Result<TcpStream, DialError> {
    let provider = target.provider();
    let began = Instant::now();
    let attempt = async {
        match &target.via {
            None => tcp::connect(&provider, progress).await,
            Some(proxy) => {
                let tcp = tcp::connect(proxy, progress).await?;
                via::open_tunnel(tcp, proxy, &provider).await
            }
        }
    };
    let result = tokio::time::timeout(limit, attempt).await;
    let dns = progress.phases.dns.unwrap_or_default();
    match result {
        Ok(Ok(tcp)) => {
            progress.phases.tcp = Some(began.elapsed().saturating_sub(dns));
            Ok(tcp)
        }
        Ok(Err(e)) => Err(e),
        Err(_) => Err(DialError::ConnectTimeout {
            address: target.via.as_ref().unwrap_or(&provider).to_string(),
            after: limit,
        }),
    }
}

async fn shake_hands(
    tcp: TcpStream,
    generation: &Generation,
    limit: Duration,
) -> Result<Transport, DialError> {
    let connector = TlsConnector::from(generation.client_config().clone());
    let stream = BufReader::with_capacity(READ_BUFFER, tcp);
    match tokio::time::timeout(limit, connector.connect(generation.server_name(), stream)).await {
        Err(_) => Err(DialError::TlsTimeout { after: limit }),
        Ok(Ok(transport)) => Ok(transport),
        Ok(Err(e)) => Err(DialError::Tls(fault_of(&e).unwrap_or(tls_core::TlsFault::Closed))),
    }
}
