//! The renewal of an identity over HTTP/2, under load: make-before-break, and new streams on the new generation.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::*;

/// Sends requests one after another until told to stop. None may fail, and none may start on the old generation once
/// somebody was answered on the new one.
async fn send_until(pool: Pool, stop: Arc<AtomicBool>, renewed: Arc<AtomicBool>) -> u64 {
    let mut answered = 0;
    while !stop.load(Ordering::SeqCst) {
        let was_renewed = renewed.load(Ordering::SeqCst);
        let (status, _, _, generation) = exchange(&pool, get()).await.expect("an answer");
        assert_eq!(status, StatusCode::OK);
        assert!(generation == 2 || !was_renewed, "a stream started on the old generation");
        if generation == 2 {
            renewed.store(true, Ordering::SeqCst);
        }
        answered += 1;
    }
    answered
}

fn generations(pool: &Pool) -> Vec<u64> {
    pool.status().connections.iter().map(|c| c.generation).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_under_load_fails_nobody_makes_nobody_wait_and_the_old_generation_ends() {
    let (a, b) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    let behaviour = Behaviour { latency: Duration::from_millis(1), ..Behaviour::default() };
    let sim = provider(behaviour, &[&a, &b]).await;
    let pool = start(&sim, generation(1, &a), config(4, 8), Timeouts::default());
    warm(&pool).await;
    let (stop, renewed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> =
        (0..8).map(|_| tokio::spawn(send_until(pool.clone(), stop.clone(), renewed.clone()))).collect();
    let before = pool.status().totals;
    pool.activate(generation(2, &b));
    eventually("somebody is answered on the new generation", || renewed.load(Ordering::SeqCst)).await;
    eventually("the old one is gone", || generations(&pool).iter().all(|g| *g == 2)).await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    let after = pool.status().totals;
    assert_eq!(after.waited_for_dial, before.waited_for_dial, "somebody waited for a handshake");
    assert_eq!((after.replays, after.dials_failed), (before.replays, before.dials_failed));
    assert!(serving(&pool) >= 4);
}

/// A provider whose connections from the `nth` on are held before they prove themselves, until it is told otherwise.
async fn held_from(nth: usize, free: tokio::sync::watch::Receiver<bool>) -> u16 {
    let arrived = Arc::new(AtomicUsize::new(0));
    raw("h2", move |tls| {
        let (arrived, mut free) = (arrived.clone(), free.clone());
        async move {
            if arrived.fetch_add(1, Ordering::SeqCst) + 1 >= nth {
                let _ = free.wait_for(|free| *free).await;
            }
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            let mut unanswered = Vec::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if request.headers().contains_key("hold") {
                    unanswered.push(respond);
                } else {
                    let _ = respond.send_response(Response::new(()), true);
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn new_streams_start_on_the_new_generation_at_once_and_on_the_old_one_rather_than_wait() {
    let (a, b) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    let (release, free) = tokio::sync::watch::channel(false);
    // The floor of the old generation, and one of the new: its floor does not stand.
    let port = held_from(4, free).await;
    let config = PoolConfig { max_streams: 1, ..config(2, 4) };
    let timeouts = Timeouts { prove: Duration::from_secs(60), ..Timeouts::default() };
    let pool = start_at(port, generation(1, &a), config, timeouts);
    warm(&pool).await;
    pool.activate(generation(2, &b));
    eventually("one of the new generation serves", || generations(&pool).contains(&2)).await;
    let began = Instant::now();
    while exchange(&pool, get()).await.unwrap().3 == 1 {
        assert!(began.elapsed() < SOON, "new streams still start on the old generation");
    }
    for _ in 0..20 {
        assert_eq!(exchange(&pool, get()).await.unwrap().3, 2, "a stream started on the old generation");
    }
    let waited = pool.status().totals.waited_for_dial;
    let holder = tokio::spawn({
        let (pool, hold) = (pool.clone(), request("GET", &[("hold", "1")], Chunks::default()));
        async move { send(&pool, hold, &options()).await.map(|_| ()) }
    });
    eventually("the only new stream is taken", || pool.status().in_flight == 1).await;
    assert_eq!(exchange(&pool, get()).await.unwrap().3, 1, "better than a wait for a handshake");
    assert_eq!(pool.status().totals.waited_for_dial, waited);
    release.send(true).unwrap();
    eventually("the old generation is gone once the new floor stands", || {
        generations(&pool).iter().all(|g| *g == 2) && serving(&pool) >= 2
    })
    .await;
    holder.abort();
}
