//! Between the handshake and the proof: ends without a word, answers that come late or never.

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
