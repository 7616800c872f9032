//! The proof of a connection that has no PING: did the provider take our certificate?
//!
//! TLS 1.2: the handshake itself, which ends only after the server looked. TLS 1.3: a session ticket, which a
//! server sends after its check; else a window without an alert, as long as an answer takes. Where there is a health
//! request its answer is the proof, and `life` asks for it instead of waiting for a window.

use std::{pin::Pin, task::Poll, time::Duration};

use tls_core::{HandshakeKind, TlsFault, TlsVersion};
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    connection::{Proof, fault_of},
    dial::Dialled,
    error::DialError,
};

/// Shortest window: an alert may be held up by a busy server.
const SHORTEST: Duration = Duration::from_millis(50);

/// Waits for the proof, and says which it was.
pub(super) async fn prove(
    dialled: &mut Dialled,
    round_trip: Duration,
    limit: Duration,
) -> Result<Proof, DialError> {
    if dialled.facts.version == TlsVersion::Tls12 {
        return Ok(Proof::Handshake);
    }
    let window = (round_trip * 2).max(SHORTEST).min(limit);
    let kind = dialled.facts.kind;
    let watch = std::future::poll_fn(|cx| {
        let mut scratch = [0u8; 1];
        let mut buf = ReadBuf::new(&mut scratch);
        let read = Pin::new(&mut dialled.transport).poll_read(cx, &mut buf);
        if buf.filled().is_empty() && dialled.transport.get_ref().1.tls13_tickets_received() > 0 {
            // Whatever ends it now, it is not our certificate.
            return Poll::Ready(Ok(Proof::Ticket));
        }
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(e)) => Poll::Ready(Err(ended(fault_of(&e), &e.to_string(), kind))),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => Poll::Ready(Err(ended(None, "closed", kind))),
            Poll::Ready(Ok(())) => {
                let detail = "the provider sent a response before any request".to_owned();
                Poll::Ready(Err(DialError::Protocol { detail }))
            }
        }
    });
    // Silence for a whole window is the proof.
    tokio::time::timeout(window, watch).await.unwrap_or(Ok(Proof::QuietWindow))
}

/// Why it never came to serve. A resumed handshake cannot have been refused for our certificate.
pub(super) fn ended(fault: Option<TlsFault>, detail: &str, kind: HandshakeKind) -> DialError {
    let detail = detail.to_owned();
    match fault {
        Some(fault) => DialError::Tls(fault),
        None if kind.is_resumed() => DialError::Protocol { detail },
        None => DialError::EndedBeforeProof { detail },
    }
}
