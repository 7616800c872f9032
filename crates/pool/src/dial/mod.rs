//! From a target to a transport: name, TCP, the outbound proxy, TLS. One dial, each phase timed and bounded.
//!
//! Owns how a transport comes to be, the durations of its phases, and on which runtime that happens. Addresses come
//! from `dns`. The proof that the provider serves belongs to `connection` (HTTP/2) and `http1`; when to dial is the
//! supervisor's decision.

mod read_ahead;
mod socket;
mod tcp;
mod via;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tls_core::{Generation, HandshakeFacts};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::{read_ahead::ReadAhead, socket::Socket};
use crate::{connection::fault_of, error::DialError, status::DialPhases, supervisor::Context};

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

    /// The place that sockets are opened to: the proxy if there is one, whose business the provider's address is then.
    pub(crate) fn place(&self) -> HostPort {
        self.via.clone().unwrap_or_else(|| self.provider())
    }
}

/// What fits into one TLS record (RFC 8446 §5.1): a write of at most this much that fails left no whole record, and of
/// less than a whole record the provider can read nothing. A larger one may fail after records of it have left: TLS
/// writes in several steps and reports the step that failed.
pub(crate) const RECORD: usize = 16 * 1024;

/// The stream under HTTP. Reads are gathered below TLS: rustls asks for 4 KiB at a time, the kernel has more.
pub(crate) type Transport = TlsStream<ReadAhead<Socket>>;

/// A transport whose handshake is done and whose pins hold.
pub(crate) struct Dialled {
    pub(crate) transport: Transport,
    pub(crate) facts: HandshakeFacts,
    /// The other end of the socket: the provider's, or the proxy's.
    pub(crate) address: SocketAddr,
    /// Serial of the generation it was dialled with, whichever is active by now.
    pub(crate) generation: u64,
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The time and place of a dial under way; also what is known when it fails.
#[derive(Clone, Debug)]
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

/// Dials on the thread that is for it, if there is one ([`crate::Workers::dialling_on`]), and brings the transport to
/// the current runtime: signatures and chains of certificates hold up no request. Only with that is `progress` known
/// of a dial that was given up.
///
/// # Errors
/// The phase that failed and why.
///
/// # Cancel safety
/// Dropping it ends the dial and closes whatever was opened.
pub(crate) async fn dial_off_worker(
    context: &Arc<Context>,
    generation: &Arc<Generation>,
    progress: &mut Progress,
) -> Result<Dialled, DialError> {
    let Some(dialler) = context.workers.dialler() else {
        return dial(context, generation, progress).await;
    };
    let (context, generation, mut theirs) = (context.clone(), generation.clone(), progress.clone());
    let task = dialler.spawn(async move {
        let result = dial(&context, &generation, &mut theirs).await;
        (result, theirs)
    });
    let (result, theirs) = Guarded(task)
        .ended()
        .await
        .map_err(|e| DialError::Protocol { detail: format!("the dial's task ended: {e}") })?;
    *progress = theirs;
    let mut dialled = result?;
    dialled.transport.get_mut().0.get_mut().settle().map_err(|e| DialError::Connect {
        address: dialled.address.to_string(),
        detail: format!("its socket cannot be registered with the worker: {e}"),
    })?;
    Ok(dialled)
}

/// A task that ends with whoever waits for it.
struct Guarded<T>(JoinHandle<T>);

impl<T> Guarded<T> {
    async fn ended(mut self) -> Result<T, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        self.0.abort();
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
    context: &Context,
    generation: &Generation,
    progress: &mut Progress,
) -> Result<Dialled, DialError> {
    let (socket, address) = connect(context, progress).await?;
    let began = Instant::now();
    let shaken = shake_hands(socket, generation, context.timeouts.tls).await.and_then(|transport| {
        // The pins are asserted here for every handshake: a resumed one does not run the verifier.
        let facts = generation.assert_established(transport.get_ref().1).map_err(DialError::Tls)?;
        Ok((transport, facts))
    });
    match shaken {
        Ok((transport, facts)) => {
            // No success yet: some addresses shake hands and then serve nobody.
            progress.phases.tls = Some(began.elapsed());
            Ok(Dialled { transport, facts, address, generation: generation.serial() })
        }
        Err(e) => {
            context.directory.note_failure(address);
            Err(e)
        }
    }
}

async fn connect(context: &Context, progress: &mut Progress) -> Result<(Socket, SocketAddr), DialError> {
    let limit = context.timeouts.connect;
    let began = Instant::now();
    let tcp::Connected { mut tcp, address, claim } =
        tcp::connect(&context.directory, limit, progress).await?;
    if let Some(proxy) = &context.target.via {
        let provider = context.target.provider();
        let tunnel = via::open_tunnel(tcp, proxy, &provider);
        tcp = timeout_at(began + limit, tunnel).await.unwrap_or_else(|_| {
            Err(DialError::ConnectTimeout { address: proxy.to_string(), after: limit })
        })?;
    }
    let dns = progress.phases.dns.unwrap_or_default();
    progress.phases.tcp = Some(began.elapsed().saturating_sub(dns));
    Ok((Socket::new(tcp, claim), address))
}

async fn shake_hands(
    socket: Socket,
    generation: &Generation,
    limit: Duration,
) -> Result<Transport, DialError> {
    let connector = TlsConnector::from(generation.client_config().clone());
    let stream = ReadAhead::new(socket);
    match tokio::time::timeout(limit, connector.connect(generation.server_name(), stream)).await {
        Err(_) => Err(DialError::TlsTimeout { after: limit }),
        Ok(Ok(transport)) => Ok(transport),
        Ok(Err(e)) => Err(DialError::Tls(fault_of(&e).unwrap_or(tls_core::TlsFault::Closed))),
    }
}
