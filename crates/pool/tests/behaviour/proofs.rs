//! Between the handshake and the proof: ends without a word, answers that come late or never.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    frames::{END, HEADERS, PING, Peer, RawFrame, SETTINGS},
    support::*,
};

/// Reads what the client says first and ends the connection with a bare FIN: no alert, no close_notify.
async fn end_without_a_word(mut tls: tokio_rustls::server::TlsStream<TcpStream>) {
    let mut scratch = [0; 1024];
    let _ = tls.read(&mut scratch).await;
    let (mut tcp, _) = tls.into_inner();
    let _ = tcp.shutdown().await;
    // What is left unread would make the end a reset.
    while matches!(tcp.read(&mut scratch).await, Ok(n) if n > 0) {}
}

#[tokio::test]
async fn a_plain_end_of_the_stream_before_the_proof_is_a_suspected_refusal() {
    let a = client("CUSTOMER-0001-SBX");
    let port = raw("h2", end_without_a_word).await;
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    eventually("the dial failed", || pool.status().last_failure.is_some()).await;
    assert_eq!(pool.status().last_failure.unwrap().code, "ended_before_proof");
}

#[tokio::test]
async fn dials_that_end_together_without_a_word_are_one_accident_and_stop_nothing() {
    let a = client("CUSTOMER-0001-SBX");
    let (arrived, both) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Barrier::new(2)));
    let port = raw("h2", move |tls| {
        let (arrived, both) = (arrived.clone(), both.clone());
        async move {
            if arrived.fetch_add(1, Ordering::SeqCst) < 2 {
                both.wait().await;
                return end_without_a_word(tls).await;
            }
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let pool = start_at(port, generation(1, &a), config(2, 4), Timeouts::default());
    // A refused certificate would be probed after fifteen seconds at the earliest.
    warm(&pool).await;
    assert_eq!(pool.status().totals.dials_failed, 2);
}

/// What the provider's end of a connection is told to do with PINGs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pings {
    Kept,
    Answered,
}

/// A provider that acknowledges SETTINGS at once and PINGs only when it is told to; those that came before, too. It
/// answers every request. Counts the SETTINGS that came.
async fn keeps_pings(pings: tokio::sync::watch::Receiver<Pings>, settings: Arc<AtomicUsize>) -> u16 {
    raw("h2", move |tls| {
        let (mut pings, settings) = (pings.clone(), settings.clone());
        async move {
            let Ok(mut peer) = Peer::greet(tls, &[]).await else { return };
            let mut kept = Vec::new();
            loop {
                let frame = tokio::select! {
                    frame = peer.read() => Some(frame),
                    _ = pings.wait_for(|told| *told == Pings::Answered), if !kept.is_empty() => None,
                };
                let Some(frame) = frame else {
                    let _ = peer.write(&std::mem::take(&mut kept)).await;
                    continue;
                };
                let Ok(frame) = frame else { return };
                match frame.kind {
                    _ if frame.is_ack() => {}
                    PING => kept.push(RawFrame::new(PING, END, 0, &frame.payload)),
                    SETTINGS => {
                        settings.fetch_add(1, Ordering::SeqCst);
                        let _ = peer.write(&[RawFrame::new(SETTINGS, END, 0, &[])]).await;
                    }
                    HEADERS => drop(peer.write(&[RawFrame::ok(frame.stream)]).await),
                    _ => {}
                }
            }
        }
    })
    .await
}

/// One connection to a provider that keeps its PINGs.
async fn start_unanswered(deadline: Duration) -> (Pool, tokio::sync::watch::Sender<Pings>, Arc<AtomicUsize>) {
    let a = client("CUSTOMER-0001-SBX");
    let (tell, told) = tokio::sync::watch::channel(Pings::Kept);
    let settings = Arc::new(AtomicUsize::new(0));
    let port = keeps_pings(told, settings.clone()).await;
    let interval = Duration::from_millis(50);
    let config = PoolConfig { ping_interval: interval, ping_timeout: deadline, ..config(1, 1) };
    let timeouts = Timeouts { prove: deadline, ..Timeouts::default() };
    let pool = start_at(port, generation(1, &a), config, timeouts);
    warm(&pool).await;
    (pool, tell, settings)
}

#[tokio::test]
async fn a_pong_that_comes_after_the_proof_counts_and_pings_go_on() {
    // The proof waits for the PING half a second at most; its deadline is far.
    let (pool, tell, settings) = start_unanswered(Duration::from_secs(60)).await;
    let (_, _, first, _) = exchange(&pool, get()).await.unwrap();
    assert!(!pool.status().learned.ignores_pings, "a slow PING is not an ignored one");
    tell.send(Pings::Answered).unwrap();
    eventually("the pong counts", || pool.status().connections.iter().any(|c| c.ping_rtt.is_some())).await;
    eventually("PINGs go on", || {
        pool.status().connections.iter().any(|c| c.passport.ping.is_some_and(|ping| ping.count >= 3))
    })
    .await;
    assert!(!pool.status().learned.ignores_pings);
    assert_eq!(exchange(&pool, get()).await.unwrap().2, first);
    assert_eq!(settings.load(Ordering::SeqCst), 1, "a provider that answers PINGs is not asked otherwise");
}

#[tokio::test]
async fn an_idle_connection_whose_pings_are_ignored_is_kept_alive_by_settings_until_one_is_answered() {
    let (pool, tell, settings) = start_unanswered(Duration::from_millis(400)).await;
    let (_, _, first, _) = exchange(&pool, get()).await.unwrap();
    eventually("the provider is known to ignore PINGs", || pool.status().learned.ignores_pings).await;
    let before = settings.load(Ordering::SeqCst);
    eventually("bytes flow while nothing else does", || settings.load(Ordering::SeqCst) >= before + 3).await;
    assert_eq!(exchange(&pool, get()).await.unwrap().2, first, "it lives");
    tell.send(Pings::Answered).unwrap();
    eventually("the belief is given up", || !pool.status().learned.ignores_pings).await;
    eventually("PINGs measure the round trip", || {
        pool.status().connections.iter().any(|c| c.ping_rtt.is_some())
    })
    .await;
    assert_eq!(exchange(&pool, get()).await.unwrap().2, first);
}
