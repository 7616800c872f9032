//! Between the handshake and the proof: ends without a word, answers that come late or never.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::*;

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
