//! Name resolution and TCP: the first address that answers, with the socket options a long-lived flow needs.
//!
//! Names are resolved anew for every dial, so an answer is never kept beyond its TTL (Thales forbids that).

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::Instant};

use super::{HostPort, Progress};
use crate::error::DialError;

/// Idle time before the kernel probes a silent peer; load balancers forget flows after 60–350 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(45);
/// Between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between the starts of two attempts.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried in one dial.
const MAX_ADDRESSES: usize = 4;

/// Resolves and connects: addresses are tried a quarter of a second apart, the first that answers wins
/// (RFC 8305 §5), so that a dead one costs little.
pub(super) async fn connect(to: &HostPort, progress: &mut Progress) -> Result<TcpStream, DialError> {
    let addresses = resolve(to, progress).await?;
    let Some(first) = addresses.first() else { return Err(no_address(to, "the answer holds no address")) };
    progress.address = first.to_string();
    let mut attempts: FuturesUnordered<_> =
        addresses.iter().take(MAX_ADDRESSES).enumerate().map(|(n, address)| attempt(*address, n)).collect();
    let mut last = None;
    while let Some((address, result)) = attempts.next().await {
        match result {
            Ok(tcp) => {
                progress.address = address.to_string();
                return Ok(tcp);
            }
            Err(e) => last = Some(connect_error(address, &e)),
        }
    }
    Err(last.unwrap_or_else(|| no_address(to, "the answer holds no address")))
}

async fn attempt(address: SocketAddr, place: usize) -> (SocketAddr, io::Result<TcpStream>) {
    let connect = async {
        tokio::time::sleep(STAGGER * u32::try_from(place).unwrap_or(u32::MAX)).await;
        let tcp = TcpStream::connect(address).await?;
        set_options(&tcp)?;
        Ok(tcp)
    };
    (address, connect.await)
}

async fn resolve(to: &HostPort, progress: &mut Progress) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(ip) = to.host.parse() {
        progress.phases.dns = Some(Duration::ZERO);
        return Ok(vec![SocketAddr::new(ip, to.port)]);
    }
    let began = Instant::now();
    let answer = tokio::net::lookup_host((to.host.as_str(), to.port)).await;
    progress.phases.dns = Some(began.elapsed());
    Ok(answer.map_err(|e| no_address(to, &e.to_string()))?.collect())
}

fn no_address(to: &HostPort, detail: &str) -> DialError {
    DialError::Dns { host: to.host.clone(), detail: detail.to_owned() }
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
