//! Races between requests over HTTP/1.1 and a provider that closes connections: what is lent, what is sent again, what
//! is reported.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use pool::Verdict;

use crate::support::*;

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_lent_and_costs_no_attempt() {
    // Each connection answers once and closes without a word.
    let port = raw("http/1.1", async |mut tls| {
        if let Some(body) = read_request(&mut tls, PATIENT).await {
            answer(&mut tls, &body).await;
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(2, 4), Timeouts::default());
    warm(&pool).await;
    for round in 0..40 {
        let mut journey = Journey::default();
        let sent = pool.send(request("POST", &[], Chunks::of(&["x"])), &options(), &mut journey).await;
        let response = sent.unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        collect(response.into_body()).await;
        assert_eq!(journey.attempts, 1, "round {round}");
    }
    let totals = pool.status().totals;
    assert_eq!((totals.requests, totals.stale_in_doubt), (40, 0), "{totals:?}");
}

#[tokio::test]
async fn a_connection_on_which_something_unasked_arrived_is_not_lent() {
    let connections = Arc::new(AtomicU32::new(0));
    let counter = connections.clone();
    let spoken = Arc::new(AtomicBool::new(false));
    let speaks = spoken.clone();
    let port = raw("http/1.1", move |mut tls| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let speaks = speaks.clone();
        async move {
            while let Some(body) = read_request(&mut tls, PATIENT).await {
                answer(&mut tls, &body).await;
                if number == 0 {
                    let late = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n";
                    tls.write_all(late).await.unwrap();
                    tls.flush().await.unwrap();
                    speaks.store(true, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    exchange(&pool, get()).await.unwrap();
    while !spoken.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    for round in 0..10 {
        let (status, ..) = exchange(&pool, get()).await.unwrap();
        assert_eq!(
            status,
            StatusCode::OK,
            "round {round}: an answer to nobody's question was taken for ours"
        );
    }
}

/// A server whose connection number `n` (from 1) dies when it has read its `fatal(n)`-th request, without an answer.
async fn dying(fatal: impl Fn(u32) -> u32 + Send + Sync + Copy + 'static) -> (u16, Arc<AtomicU32>) {
    let connections = Arc::new(AtomicU32::new(0));
    let read = Arc::new(AtomicU32::new(0));
    let counted = read.clone();
    let port = raw("http/1.1", move |mut tls| {
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        let counted = counted.clone();
        async move {
            for nth in 1.. {
                let Some(body) = read_request(&mut tls, PATIENT).await else { return };
                counted.fetch_add(1, Ordering::Relaxed);
                if nth == fatal(number) {
                    return;
                }
                answer(&mut tls, &body).await;
            }
        }
    })
    .await;
    (port, read)
}

#[tokio::test]
async fn a_request_that_was_written_and_not_answered_is_reported_and_not_repeated() {
    let (port, read) = dying(|_| 2).await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    exchange(&pool, get()).await.unwrap();
    let error = exchange(&pool, request("GET", &[], Chunks::default())).await.unwrap_err();
    assert_eq!(error.verdict, Some(Verdict::MaybeProcessed));
    assert_eq!((error.retry_safe, error.journey.attempts), (RetrySafe::Unknown, 1));
    assert!(error.journey.reused);
    assert_eq!(read.load(Ordering::Relaxed), 2, "sent again although it may have been processed");
    let totals = pool.status().totals;
    assert_eq!((totals.stale_in_doubt, totals.replays), (1, 0));
}

#[tokio::test]
async fn an_idempotent_request_is_repeated_over_http11_with_its_whole_body_where_the_policy_says_so() {
    let (port, read) = dying(|number| if number <= 2 { 1 } else { u32::MAX }).await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    let by_policy = |retry| SendOptions { retry, ..options() };
    let put = || request("PUT", &[("content-length", "11")], Chunks::of(&["pay ", "100 EUR"]));
    let mut journey = Journey::default();
    let response = pool.send(put(), &by_policy(RetryPolicy::Idempotent), &mut journey).await.unwrap();
    assert_eq!(collect(response.into_body()).await, "pay 100 EUR");
    assert_eq!(journey.attempts, 3);
    assert_eq!(read.load(Ordering::Relaxed), 3);
    eventually("nothing is held", || pool.status().replay_bytes == 0).await;
}

#[tokio::test]
async fn over_http11_only_idempotent_methods_are_repeated_and_none_where_the_policy_says_never() {
    for (method, retry) in
        [("POST", RetryPolicy::Idempotent), ("PUT", RetryPolicy::Never), ("PUT", RetryPolicy::Unprocessed)]
    {
        let (port, read) = dying(|number| if number == 1 { 1 } else { u32::MAX }).await;
        let a = client("CUSTOMER-0001-SBX");
        let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
        warm(&pool).await;
        let options = SendOptions { retry, ..options() };
        let ask = request(method, &[("content-length", "1")], Chunks::of(&["x"]));
        let error = send(&pool, ask, &options).await.unwrap_err();
        assert_eq!(error.retry_safe, RetrySafe::Unknown, "{method} {retry:?}");
        assert_eq!(read.load(Ordering::Relaxed), 1, "{method} {retry:?}");
    }
}

#[tokio::test]
async fn a_body_too_large_to_be_held_is_not_repeated_over_http11() {
    let (port, read) = dying(|number| if number == 1 { 1 } else { u32::MAX }).await;
    let a = client("CUSTOMER-0001-SBX");
    let config = PoolConfig { replay_buffer_bytes: 4, ..config(1, 1) };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let options = SendOptions { retry: RetryPolicy::Idempotent, ..options() };
    let ask = request("PUT", &[("content-length", "5")], Chunks::of(&["12345"]));
    assert!(send(&pool, ask, &options).await.is_err());
    assert_eq!(read.load(Ordering::Relaxed), 1);
}

/// A provider that closes at random: before a request, after it was read, in the middle of an answer, between two.
/// It keeps the books.
#[derive(Default)]
struct Books {
    /// Per request, how often it was read whole.
    read: parking_lot::Mutex<HashMap<Vec<u8>, u32>>,
}

async fn closes_at_random(seed: u64, books: Arc<Books>) -> u16 {
    let connections = Arc::new(AtomicU64::new(0));
    raw("http/1.1", move |mut tls| {
        let number = connections.fetch_add(1, Ordering::Relaxed);
        let books = books.clone();
        async move {
            let mut chance = fastrand::Rng::with_seed(seed ^ (number << 8));
            let mut patience = PATIENT;
            loop {
                let Some(body) = read_request(&mut tls, patience).await else { return };
                *books.read.lock().entry(body.clone()).or_default() += 1;
                match chance.u8(..) {
                    0..8 => return,
                    8..16 => {
                        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
                        return;
                    }
                    16..40 => {
                        answer(&mut tls, &body).await;
                        return;
                    }
                    40..60 => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                            body.len()
                        );
                        let _ = tls.write_all(&[head.as_bytes(), &body].concat()).await;
                        let _ = tls.shutdown().await;
                        return;
                    }
                    _ => answer(&mut tls, &body).await,
                }
                patience =
                    if chance.u8(..) < 64 { Duration::from_millis(chance.u64(0..15)) } else { PATIENT };
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_closes_at_random_the_books_balance() {
    const CALLERS: u64 = 8;
    const EACH: u64 = 250;
    let seed = fastrand::u64(..);
    let books = Arc::new(Books::default());
    let port = closes_at_random(seed, books.clone()).await;
    let a = client("CUSTOMER-0001-SBX");
    let config = PoolConfig { http1_max_connections: 16, ..config(4, 8) };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let tasks: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                let mut chance = fastrand::Rng::with_seed(seed ^ caller);
                for n in 0..EACH {
                    let id: &'static str = Box::leak(format!("{caller}/{n}").into_boxed_str());
                    let answer = pool
                        .send(request("POST", &[], Chunks::of(&[id])), &options(), &mut Journey::default())
                        .await;
                    let outcome = match answer {
                        Ok(response) => match timeout(SOON, response.into_body().collect())
                            .await
                            .unwrap_or_else(|_| panic!("seed {seed}: {id} hangs"))
                        {
                            Ok(body) => Ok(body.to_bytes()),
                            Err(_) => Err(None),
                        },
                        Err(e) => Err(Some(e)),
                    };
                    outcomes.push((id, outcome));
                    if chance.u8(..) < 32 {
                        tokio::time::sleep(Duration::from_millis(chance.u64(0..20))).await;
                    }
                }
                outcomes
            })
        })
        .collect();
    let mut answered = 0;
    for task in tasks {
        for (id, outcome) in task.await.unwrap() {
            let chunk = format!("{:x}\r\n{id}\r\n0\r\n\r\n", id.len());
            let read = books.read.lock().get(chunk.as_bytes()).copied().unwrap_or_default();
            assert!(read <= 1, "seed {seed}: {id} was processed {read} times");
            match outcome {
                Ok(body) => {
                    assert_eq!((read, &body[..]), (1, chunk.as_bytes()), "seed {seed}: {id}");
                    answered += 1;
                }
                Err(None) => assert_eq!(read, 1, "seed {seed}: {id} was answered in part"),
                Err(Some(e)) => {
                    let doubt = e.verdict == Some(Verdict::MaybeProcessed);
                    assert!(doubt, "seed {seed}: {id} was provably not processed, and yet lost: {e:?}");
                }
            }
        }
    }
    assert!(answered > CALLERS * EACH * 3 / 4, "seed {seed}: {answered} answered");
    eventually("nothing is left in flight", || pool.status().in_flight == 0).await;
    let status = pool.status();
    assert_eq!((status.queue_depth, status.replay_bytes), (0, 0), "seed {seed}");
}
