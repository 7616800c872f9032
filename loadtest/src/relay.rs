//! `loadgen relay`: a long way between two sockets of this machine. Bytes of each direction arrive half a round
//! trip after they were sent, however many are on the way; the first bytes of a connection wait a round trip
//! more, as TCP's own handshake would make them.
//!
//! A delay in user space: it needs no rights, models no loss, and adds its own scheduling on top.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Most pieces on the way per direction; beyond it the sender waits, as with a full window.
const ON_THE_WAY: usize = 4096;
/// Most bytes of one piece.
const PIECE: usize = 16 * 1024;
/// Most connections at once.
const MAX_CONNECTIONS: usize = 1024;

/// Whether the far end can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Connections are carried.
    Open,
    /// Nobody listens, and what was carried is cut.
    Closed,
}

/// Relays until the process is ended.
///
/// # Errors
/// When the listener cannot be bound or fails.
pub(crate) async fn relay(listen: SocketAddr, to: SocketAddr, round_trip: Duration) -> io::Result<()> {
    let (_always_open, gate) = watch::channel(Gate::Open);
    serve(TcpListener::bind(listen).await?, to, round_trip, gate).await
}

/// Relays what `listener` accepts while the gate is open; listens on the same port again when it opens again.
///
/// # Errors
/// When the listener fails or its port is taken while the gate is closed.
///
/// # Cancel safety
/// Dropping it cuts every connection.
pub(crate) async fn serve(
    mut listener: TcpListener,
    to: SocketAddr,
    round_trip: Duration,
    mut gate: watch::Receiver<Gate>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    loop {
        tokio::select! {
            failed = accept(&listener, to, round_trip) => return failed,
            // Without a sender the gate stays as it is.
            true = async { gate.wait_for(|gate| *gate == Gate::Closed).await.is_ok() } => {}
        }
        drop(listener);
        if gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
            return Ok(());
        }
        listener = TcpListener::bind(address).await?;
    }
}

/// Carries whatever comes; never ends well.
async fn accept(listener: &TcpListener, to: SocketAddr, round_trip: Duration) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        if connections.len() < MAX_CONNECTIONS {
            connections.spawn(carry(near, to, round_trip));
        }
    }
}

async fn carry(near: TcpStream, to: SocketAddr, round_trip: Duration) -> io::Result<()> {
    let handshake_done = Instant::now() + round_trip;
    let far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let one_way = round_trip / 2;
    tokio::join!(
        way(near_read, far_write, one_way, handshake_done),
        way(far_read, near_write, one_way, handshake_done)
    );
    Ok(())
}

/// One direction. Its end is passed on like a byte: after the same delay.
async fn way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, not_before: Instant) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Bytes)>(ON_THE_WAY);
    let read = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            // A reset is news like any other, and takes as long to arrive; what follows it is an end.
            let n = from.read(&mut buffer).await.unwrap_or(0);
            let sent = Instant::now().max(not_before);
            let piece = Bytes::copy_from_slice(&buffer[..n]);
            if sender.send((sent + delay, piece)).await.is_err() || n == 0 {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            // Where nobody takes it any more, only this direction is over: the news of that come the other way, and
            // take as long as any.
            let taken = if piece.is_empty() { to.shutdown().await } else { to.write_all(&piece).await };
            if piece.is_empty() || taken.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_echo_takes_a_round_trip_and_the_first_one_two() {
        let round_trip = Duration::from_millis(60);
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = echo.local_addr().unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = front.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = echo.accept().await.unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).await.unwrap() == 1 {
                stream.write_all(&byte).await.unwrap();
            }
        });
        tokio::spawn(async move { carry(front.accept().await.unwrap().0, to, round_trip).await });
        let mut stream = TcpStream::connect(at).await.unwrap();
        for round_trips in [2, 1, 1] {
            let began = Instant::now();
            stream.write_all(b"x").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            // Never earlier than the delay; how much later is the machine's affair.
            assert!(began.elapsed() >= round_trip * round_trips, "{:?}", began.elapsed());
        }
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_end_of_the_far_side_takes_half_a_round_trip_however_much_is_sent_to_it() {
        let round_trip = Duration::from_millis(200);
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = far.local_addr().unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = front.local_addr().unwrap();
        tokio::spawn(async move { carry(front.accept().await.unwrap().0, to, round_trip).await });
        let (mut from_near, mut to_far) = TcpStream::connect(at).await.unwrap().into_split();
        let (far, _) = far.accept().await.unwrap();
        let sending = tokio::spawn(async move {
            while to_far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        // Until there is something on the way that the far side will not take.
        tokio::time::sleep(round_trip * 3).await;
        let cut = Instant::now();
        far.set_zero_linger().unwrap();
        drop(far);
        // An end or a reset.
        assert!(matches!(from_near.read(&mut [0]).await, Ok(0) | Err(_)));
        assert!(cut.elapsed() >= round_trip / 2, "{:?}", cut.elapsed());
        sending.abort();
    }

    #[tokio::test]
    async fn a_closed_gate_cuts_and_refuses_until_it_opens() {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = far.local_addr().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = far.accept().await {
                kept.push(stream);
            }
        });
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = front.local_addr().unwrap();
        let (gate, watched) = watch::channel(Gate::Open);
        tokio::spawn(serve(front, to, Duration::ZERO, watched));
        let mut stream = TcpStream::connect(at).await.unwrap();
        gate.send_replace(Gate::Closed);
        // An end or a reset, whichever the cut makes of it.
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        assert!(TcpStream::connect(at).await.is_err(), "nobody listens");
        gate.send_replace(Gate::Open);
        let again = async {
            while TcpStream::connect(at).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
    }
}
