//! A provider that falls silent: what is left unanswered opens the breaker, and a trial that is answered closes it.

use pool::BreakerState;
use tokio::sync::watch;

use crate::{
    frames::{END, HEADERS, PING, Peer, RawFrame, SETTINGS},
    support::*,
};

/// A provider that lets connections prove themselves and answers nothing else while it is silent.
async fn falls_silent(silent: watch::Receiver<bool>) -> u16 {
    raw("h2", move |tls| {
        let silent = silent.clone();
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
                let is_proof = frame.kind == SETTINGS || (frame.kind == PING && pings == 1);
                if is_proof || !*silent.borrow() {
                    let _ = peer.write(&[answer]).await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_provider_that_leaves_requests_unanswered_is_left_alone_until_a_trial_is_answered() {
    let a = client("CUSTOMER-0001-SBX");
    let (tell, told) = watch::channel(true);
    let port = falls_silent(told).await;
    let config = PoolConfig { ping_timeout: PATIENT, suspect_after: 1, ..config(1, 4) };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let hurried = SendOptions {
        timeouts: Timeouts { response_header: Duration::from_millis(1100), ..Timeouts::default() },
        ..options()
    };
    for _ in 0..3 {
        let error = send(&pool, get(), &hurried).await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::ResponseTimeout { .. }), "{error}");
    }
    eventually("a trial may be made", || pool.status().breaker.state == BreakerState::HalfOpen).await;
    let breaker = pool.status().breaker;
    assert_eq!((breaker.code, breaker.refuses_requests), (Some("provider_unhealthy"), true));
    let trial = tokio::spawn({
        let (pool, patient) = (pool.clone(), options());
        async move { send(&pool, get(), &patient).await.map(|response| response.status()) }
    });
    eventually("the trial is on its way", || pool.status().in_flight > 0).await;
    let error = send(&pool, get(), &options()).await.unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::Unavailable(_)), "everybody else is kept from it: {error}");
    assert_eq!(error.retry_safe, RetrySafe::Yes);
    trial.abort();
    tell.send(false).unwrap();
    let began = Instant::now();
    while send(&pool, get(), &hurried).await.is_err() {
        assert!(began.elapsed() < SOON, "no trial is answered: {:?}", pool.status().breaker);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eventually("an answer closes it", || pool.status().breaker.state == BreakerState::Closed).await;
    exchange(&pool, get()).await.expect("everybody is served");
}
