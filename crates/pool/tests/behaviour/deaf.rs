//! One connection that goes deaf while the provider is well: a late PING and unheard time-outs bring a successor before
//! the connection is found dead.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::{
    frames::{END, HEADERS, PING, Peer, RawFrame, SETTINGS},
    support::*,
};

/// What the provider's first connection leaves unanswered once it is proven; all others answer everything.
#[derive(Clone, Copy)]
enum Deaf {
    ToPings,
    ToEverything,
}

async fn first_goes_deaf(deaf: Deaf) -> u16 {
    let born = Arc::new(AtomicU32::new(0));
    raw("h2", move |tls| {
        let first = born.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let Ok(mut peer) = Peer::greet(tls, &[]).await else { return };
            let mut pings = 0;
            while let Ok(frame) = peer.read().await {
                let answer = match frame.kind {
                    _ if frame.is_ack() => continue,
                    SETTINGS => RawFrame::new(SETTINGS, END, 0, &[]),
                    PING => RawFrame::new(PING, END, 0, &frame.payload),
                    HEADERS => RawFrame::ok(frame.stream),
                    _ => continue,
                };
                pings += u32::from(frame.kind == PING);
                let heard = match (frame.kind, deaf) {
                    (PING, _) => pings == 1,
                    (HEADERS, Deaf::ToEverything) => false,
                    _ => true,
                };
                if (!first || heard) && peer.write(&[answer]).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_late_ping_brings_a_successor_before_the_connection_is_found_dead() {
    let a = client("CUSTOMER-0001-SBX");
    let port = first_goes_deaf(Deaf::ToPings).await;
    let config = PoolConfig {
        ping_interval: Duration::from_secs(1),
        // Late after a quarter of it.
        ping_timeout: Duration::from_secs(12),
        ..config(1, 1)
    };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let (_, _, first, _) = exchange(&pool, get()).await.unwrap();
    eventually_within(SOON * 4, "a successor serves beside it", || serving(&pool) == 2).await;
    let (_, _, second, _) = exchange(&pool, get()).await.unwrap();
    assert_ne!(first, second, "the one in doubt is the last resort");
    let gone = || pool.status().connections.iter().all(|c| c.id.0 != first);
    eventually_within(SOON * 8, "it is found dead", gone).await;
    let totals = pool.status().totals;
    assert_eq!(totals.waited_for_dial, 0, "nobody waited for a handshake");
}

#[tokio::test]
async fn a_connection_on_which_requests_time_out_unheard_is_doubted_and_ended_by_its_ping() {
    let a = client("CUSTOMER-0001-SBX");
    let port = first_goes_deaf(Deaf::ToEverything).await;
    // Its keep-alive PING is far away; doubt sends one at once.
    let config = PoolConfig {
        ping_interval: Duration::from_secs(600),
        ping_timeout: Duration::from_secs(6),
        suspect_after: 1,
        ..config(1, 4)
    };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let first = pool.status().connections[0].id.0;
    let hurried = SendOptions {
        timeouts: Timeouts { response_header: Duration::from_millis(1100), ..Timeouts::default() },
        ..options()
    };
    let error = send(&pool, get(), &hurried).await.unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::ResponseTimeout { .. }), "{error}");
    eventually("a successor serves", || serving(&pool) >= 2).await;
    let (_, _, second, _) = exchange(&pool, get()).await.unwrap();
    assert_ne!(first, second, "the one in doubt is the last resort");
    let gone = || pool.status().connections.iter().all(|c| c.id.0 != first);
    eventually_within(SOON * 4, "its PING is overdue", gone).await;
}
