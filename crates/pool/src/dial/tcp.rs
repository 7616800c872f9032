//! TCP to the first address that answers, with the socket options a long-lived flow needs.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::Progress;
use crate::{
    dns::{Candidates, Claim, Directory},
    error::DialError,
};

/// Idle time before the kernel probes a silent peer; load balancers forget flows after 60–350 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(45);
/// Between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between the starts of two attempts (RFC 8305 §5, "Connection Attempt Delay").
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried in one dial.
const MAX_ADDRESSES: usize = 4;

/// A connected socket, where to, and its use of the address.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) tcp: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) claim: Claim,
}

/// Takes the directory's addresses and connects to the first that answers.
///
/// # Errors
/// Why there is no address, or why the last one did not answer.
///
/// # Cancel safety
/// Dropping it closes whatever was opened.
pub(super) async fn connect(
    directory: &Directory,
    limit: Duration,
    progress: &mut Progress,
) -> Result<Connected, DialError> {
    let began = Instant::now();
    let candidates = timeout_at(began + limit, directory.candidates()).await;
    progress.phases.dns = Some(began.elapsed());
    let Candidates { mut addresses, mut claim } = candidates.unwrap_or_else(|_| {
        let detail = format!("no answer within {limit:?}");
        Err(DialError::Dns { host: directory.place().host.clone(), detail })
    })?;
    addresses.truncate(MAX_ADDRESSES);
    // `candidates` is never empty.
    progress.address = addresses.first().map(ToString::to_string).unwrap_or_default();
    let mut race = Race::new(addresses);
    match timeout_at(began + limit, race.run(directory)).await {
        Err(_) => {
            race.under_way.iter().for_each(|slow| directory.note_failure(*slow));
            Err(DialError::ConnectTimeout { address: progress.address.clone(), after: limit })
        }
        Ok(Ok((tcp, address))) => {
            // Those that were started before and have not answered yet are slow, or dead.
            race.under_way.iter().filter(|a| **a != address).for_each(|slow| directory.note_failure(*slow));
            progress.address = address.to_string();
            claim.move_to(address);
            Ok(Connected { tcp, address, claim })
        }
        Ok(Err((address, e))) => {
            progress.address = address.to_string();
            Err(connect_error(address, &e))
        }
    }
}

/// Attempts a quarter of a second apart, the next at once when one fails; the first that answers wins
/// (RFC 8305 §5), so that a dead address costs little.
struct Race {
    waiting: VecDeque<SocketAddr>,
    under_way: Vec<SocketAddr>,
}

impl Race {
    fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { waiting: addresses.into(), under_way: Vec::new() }
    }

    async fn run(
        &mut self,
        directory: &Directory,
    ) -> Result<(TcpStream, SocketAddr), (SocketAddr, io::Error)> {
        let mut attempts = FuturesUnordered::new();
        loop {
            if let Some(address) = self.waiting.pop_front() {
                self.under_way.push(address);
                attempts.push(attempt(address));
            }
            let stagger = tokio::time::sleep(STAGGER);
            tokio::pin!(stagger);
            // One attempt at least is under way: only the last to fail leaves none, and returns.
            let ended = tokio::select! {
                Some(ended) = attempts.next() => Some(ended),
                () = &mut stagger, if !self.waiting.is_empty() => None,
            };
            match ended {
                Some((address, Ok(tcp))) => return Ok((tcp, address)),
                Some((address, Err(e))) => {
                    self.under_way.retain(|other| *other != address);
                    directory.note_failure(address);
                    if attempts.is_empty() && self.waiting.is_empty() {
                        return Err((address, e));
                    }
                }
                None => {}
            }
        }
    }
}

async fn attempt(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        set_options(&tcp)?;
        Ok(tcp)
    };
    (address, connect.await)
}

fn connect_error(address: SocketAddr, e: &io::Error) -> DialError {
    let (address, detail) = (address.to_string(), e.to_string());
    match e.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            DialError::Refused { address, detail }
        }
        _ => DialError::Connect { address, detail },
    }
}

fn set_options(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

#[cfg(test)]
mod tests;
