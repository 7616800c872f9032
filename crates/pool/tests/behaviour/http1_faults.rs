//! A provider that fails in the middle of things over HTTP/1.1: closes without a word, cuts, stalls, vanishes, takes its
//! time to say farewell.

use pool::{CauseOfDeath, ObituaryFilter, Verdict};
use tokio::sync::Notify;

use crate::support::*;

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

async fn say(tls: &mut Tls, words: &[u8]) {
    let _ = tls.write_all(words).await;
    let _ = tls.flush().await;
}

#[tokio::test]
async fn a_silent_close_between_requests_costs_neither_a_request_nor_an_attempt() {
    let close = Arc::new(Notify::new());
    let told = close.clone();
    let port = raw("http/1.1", move |mut tls| {
        let told = told.clone();
        async move {
            loop {
                tokio::select! {
                    request = read_request(&mut tls, PATIENT) => match request {
                        Some(body) => answer(&mut tls, &body).await,
                        None => return,
                    },
                    // No close_notify: the socket just ends.
                    () = told.notified() => return,
                }
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    // Those that end before they carried anything make the pool wait.
    let config = PoolConfig { backoff_max: Duration::from_millis(100), ..config(2, 2) };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    for round in 0..5 {
        exchange(&pool, get()).await.unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        let before = pool.status().totals.connections;
        close.notify_waiters();
        let again = || pool.status().totals.connections >= before + 2 && serving(&pool) >= 2;
        eventually("their successors serve", again).await;
    }
    let totals = pool.status().totals;
    assert_eq!((totals.requests, totals.stale_in_doubt, totals.replays), (5, 0, 0), "{totals:?}");
}

#[tokio::test]
async fn a_fin_in_the_middle_of_a_response_is_reported_as_a_cut_and_harms_nobody_else() {
    for half in [&b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf"[..], b"HTTP/1.1 200 OK\r\ncontent-le"] {
        let port = raw("http/1.1", move |mut tls| async move {
            while let Some((head, body)) = read_whole(&mut tls, PATIENT).await {
                if head.contains("cut: me") {
                    // TCP ends behind it, TLS does not.
                    return say(&mut tls, half).await;
                }
                answer(&mut tls, &body).await;
            }
        })
        .await;
        let a = client("CUSTOMER-0001-SBX");
        let pool = start_at(port, generation(1, &a), config(1, 2), Timeouts::default());
        warm(&pool).await;
        let ask = request("GET", &[("cut", "me")], Chunks::default());
        match send(&pool, ask, &options()).await {
            Ok(response) => {
                let body = timeout(SOON, response.into_body().collect()).await.expect("it does not hang");
                assert!(body.is_err(), "half a body was taken for a whole one");
            }
            Err(error) => assert_eq!(error.verdict, Some(Verdict::MaybeProcessed), "{error:?}"),
        }
        exchange(&pool, get()).await.expect("another is served");
        eventually("nothing is in flight", || pool.status().in_flight == 0).await;
    }
}

/// Answers what asks for nothing else; `sim-…` orders are not understood here.
async fn stalls_on_request() -> u16 {
    raw("http/1.1", async |mut tls| {
        while let Some((head, body)) = read_whole(&mut tls, PATIENT).await {
            if head.contains("stall: body") {
                say(&mut tls, b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
            }
            if head.contains("stall: ") {
                // Neither a word nor an end, until the asker leaves.
                let _ = tls.read_u8().await;
                return;
            }
            answer(&mut tls, &body).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_stall_over_http11_ends_by_the_requests_own_limits_and_its_connection_with_it() {
    let port = stalls_on_request().await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    let limit = Duration::from_millis(200);
    let timeouts = Timeouts { response_header: limit, idle: limit, ..Timeouts::default() };
    let hurried = SendOptions { timeouts, ..options() };

    let silent = send(&pool, request("GET", &[("stall", "header")], Chunks::default()), &hurried);
    let error = in_the_end("it gives up", silent).await.unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::ResponseTimeout { .. }), "{error:?}");
    assert_eq!(error.verdict, Some(Verdict::MaybeProcessed));

    let stalled = send(&pool, request("GET", &[("stall", "body")], Chunks::default()), &hurried).await;
    let body = in_the_end("it gives up", stalled.unwrap().into_body().collect()).await;
    assert!(matches!(body, Err(pool::BodyError::Idle(_))), "{body:?}");

    exchange(&pool, get()).await.expect("another is served");
    eventually("nothing is in flight", || pool.status().in_flight == 0).await;
}

/// Passes bytes to and fro until told to swallow them: no FIN, no reset, nothing.
async fn black_hole(to: u16) -> (u16, Arc<std::sync::atomic::AtomicBool>) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let swallows = Arc::new(AtomicBool::new(false));
    let told = swallows.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pass = async |mut from: tokio::net::tcp::OwnedReadHalf,
                      mut to: tokio::net::tcp::OwnedWriteHalf,
                      told: Arc<AtomicBool>| {
        // Those that were open when it began stay holes.
        let mut hole = false;
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            hole |= told.load(Ordering::Relaxed);
            if !hole && to.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
        if hole {
            std::future::pending::<()>().await;
        }
    };
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = TcpStream::connect(("127.0.0.1", to)).await.unwrap().into_split();
            tokio::spawn(pass(near_read, far_write, told.clone()));
            tokio::spawn(pass(far_read, near_write, told.clone()));
        }
    });
    (port, swallows)
}

#[tokio::test]
async fn a_black_hole_over_http11_costs_each_connection_one_request_at_most_and_is_left() {
    use std::sync::atomic::Ordering;
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let (port, swallows) = black_hole(sim.addr().port()).await;
    let pool = start_at(port, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    exchange(&pool, get()).await.unwrap();
    let before: Vec<_> = pool.status().connections.iter().map(|c| c.id).collect();
    swallows.store(true, Ordering::Relaxed);
    let limit = Duration::from_millis(200);
    let hurried =
        SendOptions { timeouts: Timeouts { response_header: limit, ..Timeouts::default() }, ..options() };
    let mut journey = Journey::default();
    let sent = timeout(SOON * 4, pool.send(get(), &hurried, &mut journey)).await;
    let Ok(sent) = sent else { panic!("{journey:?} {:?}", pool.status()) };
    let error = sent.unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::ResponseTimeout { .. }), "{error:?}");
    assert_eq!(error.verdict, Some(Verdict::MaybeProcessed), "nobody knows");
    swallows.store(false, Ordering::Relaxed);
    let recovered = async {
        let mut lost = 1;
        while send(&pool, get(), &hurried).await.is_err() {
            lost += 1;
        }
        lost
    };
    let lost = in_the_end("it is served again", recovered).await;
    assert!(lost <= before.len(), "{lost} requests lost on {} connections", before.len());
}

#[tokio::test]
async fn a_response_that_says_farewell_is_read_to_its_end_however_long_it_takes() {
    const DRAIN: Duration = Duration::from_millis(100);
    for head in ["HTTP/1.1 200 OK\r\nconnection: close\r\n", "HTTP/1.0 200 OK\r\n"] {
        let port = raw("http/1.1", move |mut tls| async move {
            let Some(_) = read_request(&mut tls, PATIENT).await else { return };
            say(&mut tls, format!("{head}content-length: 8\r\n\r\nhalf").as_bytes()).await;
            // Long after any drain has ended.
            tokio::time::sleep(DRAIN * 12).await;
            say(&mut tls, b"half").await;
            let _ = tls.shutdown().await;
        })
        .await;
        let a = client("CUSTOMER-0001-SBX");
        let config = PoolConfig { drain_timeout: DRAIN, ..config(1, 2) };
        let spec = spec(port, generation(1, &a), config, Timeouts::default());
        let dead = spec.obituaries.clone();
        let pool = Pool::start(spec, &Handle::current());
        warm(&pool).await;
        let (status, body, id, _) = exchange(&pool, get()).await.unwrap();
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"halfhalf"[..]), "{head}");
        let ended =
            || dead.find(&ObituaryFilter::default(), 100).into_iter().find(|o| o.id.0 == id).map(|o| o.cause);
        eventually("it has ended", || ended().is_some()).await;
        assert_eq!(ended(), Some(CauseOfDeath::ClosedByProvider), "{head}");
    }
}
