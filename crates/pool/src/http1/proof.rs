//! The proof of a connection that has no PING: did the provider take our certificate?
//!
//! TLS 1.2: the handshake itself, which ends only after the server looked. TLS 1.3: a session ticket, which a
//! server sends after its check; else a window without an alert, as long as an answer takes. If there is a health
//! request, `life` makes it after that: a good answer says more than silence does.

use std::{pin::Pin, task::Poll, time::Duration};

use tls_core::{HandshakeKind, TlsFault, TlsVersion};
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    connection::{Proof, fault_of},
    dial::Dialled,
    error::DialError,
    status::DialPhases,
};

/// Shortest window: an alert may be held up by a busy server.
const SHORTEST: Duration = Duration::from_millis(50);

/// How long an alert may take to arrive: two round trips. TCP may end before the provider, at a load balancer, where
/// only the TLS handshake spans the whole way; but that may also have taken long for its signatures, so that it may
/// claim half of the `limit` at most.
fn window(phases: &DialPhases, limit: Duration) -> Duration {
    let tcp = phases.tcp.unwrap_or_default() * 2;
    let tls = phases.tls.unwrap_or_default() * 2;
    tls.min(limit / 2).max(tcp).max(SHORTEST).min(limit)
}

/// Waits for the proof, and says which it was.
pub(super) async fn prove(
    dialled: &mut Dialled,
    phases: &DialPhases,
    limit: Duration,
) -> Result<Proof, DialError> {
    if dialled.facts.version == TlsVersion::Tls12 {
        return Ok(Proof::Handshake);
    }
    let window = window(phases, limit);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quiet_window_spans_the_way_behind_a_balancer_that_terminates_tcp() {
        const LIMIT: Duration = Duration::from_secs(5);
        let ms = Duration::from_millis;
        for (tcp, tls, expected) in [
            // The balancer is near, the provider is not: the alert takes 120 ms.
            (1, 130, ms(260)),
            (120, 125, ms(250)),
            (120, 60, ms(240)),
            (0, 3, SHORTEST),
            // Slow signatures are no round trip.
            (1, 4000, LIMIT / 2),
            (4000, 1, LIMIT),
        ] {
            let phases = DialPhases { tcp: Some(ms(tcp)), tls: Some(ms(tls)), ..DialPhases::default() };
            assert_eq!(window(&phases, LIMIT), expected, "tcp {tcp} ms, tls {tls} ms");
        }
        assert_eq!(window(&DialPhases::default(), LIMIT), SHORTEST);
        assert_eq!(window(&DialPhases::default(), SHORTEST / 2), SHORTEST / 2, "never beyond the limit");
    }
}
