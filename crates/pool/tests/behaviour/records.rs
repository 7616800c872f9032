//! The write path on the wire: how many TLS records a turn of requests makes.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::*;

/// Passes a connection on, and counts the TLS records that the client sends.
async fn counting(provider: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let records = Arc::new(AtomicUsize::new(0));
    let counted = records.clone();
    tokio::spawn(async move {
        loop {
            let near = listener.accept().await.unwrap().0;
            let far = TcpStream::connect(("127.0.0.1", provider)).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (mut from_pool, mut to_pool) = near.into_split();
            let (mut from_provider, mut to_provider) = far.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_provider, &mut to_pool).await });
            let records = counted.clone();
            tokio::spawn(async move {
                while let Ok(record) = next_record(&mut from_pool).await {
                    records.fetch_add(1, Ordering::Relaxed);
                    if to_provider.write_all(&record).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, records)
}

/// A record with its header (RFC 8446 §5.1).
async fn next_record(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).await?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..]).await?;
    Ok(record)
}

/// Bodies of 600 bytes: left alone, h2 flushes after each that has 256 or more, which makes at least one record of each.
#[tokio::test]
async fn the_frames_of_all_requests_of_a_turn_share_a_record() {
    const AT_ONCE: usize = 20;
    static BODY: [u8; 600] = [7; 600];
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let (port, records) = counting(sim.addr().port()).await;
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    exchange(&pool, get()).await.unwrap();
    let before = records.load(Ordering::Relaxed);
    let asks = (0..AT_ONCE).map(|_| {
        let chunks = VecDeque::from([Bytes::from_static(&BODY)]);
        exchange(&pool, request("POST", &[], Chunks { chunks, endless: false }))
    });
    // One task: all of them are with h2 before the driver runs.
    for answer in futures_util::future::join_all(asks).await {
        answer.expect("an answer");
    }
    let sent = records.load(Ordering::Relaxed) - before;
    // Some 13 KB are one record; acknowledgements and credit for the replies make a few more, however the replies come.
    assert!(sent <= AT_ONCE / 2, "{sent} records for {AT_ONCE} requests");
}
