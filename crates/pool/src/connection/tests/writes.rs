//! What a turn of requests costs in writes, and a burst of replies in reads.
//!
//! Owns a stream that counts both. How many TLS records that makes is counted on the wire, in `tests/behaviour`.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
};

use super::options;
use crate::{
    Journey, PoolConfig, Timeouts,
    testing::{Feed, Frame, Lab},
};

/// Calls that moved bytes.
#[derive(Debug, Default)]
struct Calls {
    reads: AtomicUsize,
    writes: AtomicUsize,
}

impl Calls {
    /// Reads and writes since this was last asked.
    fn take(&self) -> (usize, usize) {
        (self.reads.swap(0, Ordering::Relaxed), self.writes.swap(0, Ordering::Relaxed))
    }
}

/// A stream that counts.
struct Counting(DuplexStream, Arc<Calls>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        self.1.reads.fetch_add(usize::from(buf.filled().len() > before), Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.1.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

const AT_ONCE: usize = 40;

/// Bodies of 600 bytes: left alone, h2 flushes after each that has 256 or more.
#[tokio::test(start_paused = true)]
async fn the_frames_of_all_requests_of_a_turn_leave_in_one_write_and_their_replies_come_in_few_reads() {
    let mut lab = Lab::new(PoolConfig::default(), Timeouts::default());
    let calls = Arc::new(Calls::default());
    let (near, far) = duplex(256 * 1024);
    lab.birth_over(Counting(near, calls.clone()), far, 100).await;
    lab.settle().await;
    calls.take();
    let asks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (feed, pieces) = mpsc::unbounded_channel();
            feed.send(Bytes::from_static(&[7; 600])).unwrap();
            let pool = lab.pool.clone();
            tokio::spawn(async move {
                let options = options(Timeouts::default());
                let request = Lab::request(Feed(Some(pieces)));
                let response =
                    pool.send(request, &options, &mut Journey::default()).await.expect("a response");
                response.into_body().collect().await.expect("a body").to_bytes().len()
            })
        })
        .collect();
    lab.settle().await;
    let peer = &mut lab.wires[0].1;
    assert!(peer.open().len() == AT_ONCE && peer.open().values().all(|open| open.asked), "all of it arrived");
    let (_, writes) = calls.take();
    // The tasks run in one turn of the runtime or, where that looks at the driver in between, in two or three.
    assert!(writes <= 3, "{writes} writes for {AT_ONCE} requests");

    let open: Vec<_> = peer.open().keys().copied().collect();
    for id in open {
        peer.say(Frame::Data(id, 300));
        peer.say(Frame::End(id));
    }
    lab.settle().await;
    for ask in asks {
        assert_eq!(ask.await.unwrap(), 300);
    }
    let (reads, writes) = calls.take();
    // 40 × (10 + 309 + 9) bytes, by the 8 KiB that h2's codec has room for.
    assert!(reads <= 4, "{reads} reads for {AT_ONCE} replies");
    assert!(writes <= 2, "{writes} writes of credit for {AT_ONCE} replies");
}
