//! What a request is told, and what the pool does for it: verdicts by phase, budgets, blame, bodies that nobody reads.

use std::sync::atomic::{AtomicU32, Ordering};

use pool::{BodyError, LastStreamId, Phase, Verdict};
use provider_sim::{EarlyResponse, ResetPoint, ResetReason, ResetRule};
use tokio::sync::watch;

use crate::{frames::*, support::*};

/// The first connection takes a large body until its socket is full and then ends, by FIN or by RST; the others answer.
async fn stuck_then_gone(end: fn(Tls)) -> (u16, watch::Sender<bool>) {
    let (leave, leaving) = watch::channel(false);
    let accepted = AtomicU32::new(0);
    let port = raw("h2", move |tls| {
        let number = accepted.fetch_add(1, Ordering::Relaxed);
        let mut leaving = leaving.clone();
        async move {
            let wide = [(MAX_CONCURRENT_STREAMS, 100), (INITIAL_WINDOW_SIZE, (1 << 31) - 1)];
            let mut peer = Peer::greet(tls, &wide).await.unwrap();
            peer.write(&[RawFrame::window(0, (1 << 30) - 1)]).await.unwrap();
            while let Ok(frame) = peer.next().await {
                if number == 0 && frame.kind == HEADERS {
                    leaving.wait_for(|now| *now).await.unwrap();
                    return end(peer.into_inner());
                }
                if frame.ends_stream() {
                    peer.write(&[RawFrame::ok(frame.stream)]).await.unwrap();
                }
            }
        }
    })
    .await;
    (port, leave)
}

/// A body that is always there, and counts what was taken of it.
struct Endless(Arc<AtomicU32>);

impl Body for Endless {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 64 * 1024])))))
    }
}

/// Until the socket is full: nothing of the body is taken any more. Provider, pool and this test share one thread, so
/// that a slow machine, which slows the one, slows the others: each look comes after many turns of all of them.
async fn until_still(taken: &AtomicU32) {
    let (mut before, mut still) = (0, 0);
    while still < 5 {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = taken.load(Ordering::Relaxed);
        still = if now > 0 && now == before { still + 1 } else { 0 };
        before = now;
    }
}

/// A body of one piece that says when it was taken.
struct OnePiece(Option<Bytes>, Arc<AtomicU32>);

impl Body for OnePiece {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = self.0.take();
        // Asked for more: the piece is held by now, or was found too much to hold.
        self.1.store(u32::from(piece.is_none()), Ordering::Relaxed);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

async fn a_call_behind_a_full_socket_is_not_in_doubt(end: fn(Tls)) {
    let (port, leave) = stuck_then_gone(end).await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let taken = Arc::new(AtomicU32::new(0));
    let (filler, body) = (pool.clone(), Endless(taken.clone()));
    let filling = tokio::spawn(async move {
        let ask = Request::post(format!("https://{HOST}/pay")).body(body).unwrap();
        filler.send(ask, &options(), &mut Journey::default()).await.map(|_| ())
    });
    until_still(&taken).await;
    let behind = pool.clone();
    let payment = tokio::spawn(async move {
        let mut journey = Journey::default();
        let ask = request("POST", &[], Chunks::of(&["a payment"]));
        let answer = behind.send(ask, &options(), &mut journey).await;
        (answer.map(|_| ()), journey)
    });
    eventually("the payment is with h2", || pool.status().in_flight == 2).await;
    leave.send_replace(true);
    let (answer, journey) = timeout(SOON, payment).await.expect("an outcome").unwrap();
    answer.expect("its header never left: it was carried by the next connection");
    assert_eq!(journey.attempts, 1, "what was not sent is no attempt");
    let filled = timeout(SOON, filling).await.expect("an outcome").unwrap().unwrap_err();
    assert_eq!((filled.verdict, filled.journey.phase), (Some(Verdict::MaybeProcessed), Phase::RequestBody));
}

#[tokio::test]
async fn a_call_whose_header_never_left_is_sent_elsewhere_when_the_connection_is_reset() {
    a_call_behind_a_full_socket_is_not_in_doubt(|tls| {
        let (tcp, _) = tls.into_inner();
        tcp.set_zero_linger().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_call_whose_header_never_left_is_sent_elsewhere_when_the_provider_hangs_up() {
    a_call_behind_a_full_socket_is_not_in_doubt(|mut tls| {
        tokio::spawn(async move {
            // Half-closed, and reading on: what leaves now would be taken.
            let _ = tls.shutdown().await;
            let mut sink = vec![0; 64 * 1024];
            while tls.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        });
    })
    .await;
}

fn resetting(at: ResetPoint, reason: ResetReason) -> Behaviour {
    Behaviour { reset: Some(ResetRule { every_nth: 1, reason, at }), ..Behaviour::default() }
}

#[tokio::test]
async fn a_failure_names_its_phase() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let quick = SendOptions {
        timeouts: Timeouts {
            idle: Duration::from_millis(100),
            response_header: Duration::from_millis(100),
            ..Timeouts::default()
        },
        ..options()
    };
    let stalled = [("sim-stall", "before_response")];
    for (body, phase) in [
        (Chunks { chunks: VecDeque::new(), endless: true }, Phase::Headers),
        (Chunks { endless: true, ..Chunks::of(&["half"]) }, Phase::RequestBody),
        (Chunks::of(&["whole"]), Phase::ResponseHeader),
        (Chunks::default(), Phase::ResponseHeader),
    ] {
        let error = send(&pool, request("POST", &stalled, body), &quick).await.expect_err("a time-out");
        assert_eq!(error.journey.phase, phase, "{error:?}");
    }
    sim.set_behaviour(resetting(ResetPoint::BeforeHeaders, ResetReason::InternalError)).unwrap();
    let error = send(&pool, get(), &options()).await.expect_err("a reset");
    assert_eq!((error.journey.phase, error.verdict), (Phase::ResponseHeader, Some(Verdict::MaybeProcessed)));
    sim.set_behaviour(resetting(ResetPoint::MidBody, ResetReason::InternalError)).unwrap();
    let ask = request("GET", &[("sim-body-bytes", "1000")], Chunks::default());
    let response = send(&pool, ask, &options()).await.expect("a header");
    let BodyError::Cut(cut) = response.into_body().collect().await.expect_err("a cut") else {
        panic!("the provider cut it");
    };
    assert_eq!(cut.phase, Phase::ResponseBody);
}

#[tokio::test]
async fn a_body_that_is_whole_is_cut_before_its_trailers() {
    let (read, reading) = watch::channel(false);
    let port = raw("h2", move |tls| {
        let mut reading = reading.clone();
        async move {
            let mut peer = Peer::greet(tls, &[]).await.unwrap();
            while let Ok(frame) = peer.next().await {
                if frame.ends_stream() {
                    // `:status: 200` and `content-length: 4` (indexed name 28, literal, not indexed).
                    let block = [0x88, 0x0f, 0x0d, 0x01, b'4'];
                    let frames = [
                        RawFrame::new(HEADERS, END_HEADERS, frame.stream, &block),
                        RawFrame::new(DATA, 0, frame.stream, b"four"),
                    ];
                    peer.write(&frames).await.unwrap();
                    // Read before the reset: h2 throws unread data away with it.
                    reading.wait_for(|done| *done).await.unwrap();
                    let reset = RawFrame::new(RST_STREAM, 0, frame.stream, &2u32.to_be_bytes());
                    peer.write(&[reset]).await.unwrap();
                }
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let mut body = send(&pool, get(), &options()).await.expect("a header").into_body();
    assert_eq!(&body.frame().await.unwrap().unwrap().into_data().unwrap()[..], b"four");
    read.send_replace(true);
    let Some(Err(BodyError::Cut(cut))) = timeout(SOON, body.frame()).await.expect("an end") else {
        panic!("it was reset");
    };
    assert_eq!(cut.phase, Phase::Trailers);
}

#[tokio::test]
async fn an_early_response_and_a_reset_without_error_is_a_response() {
    let a = client("CUSTOMER-0001-SBX");
    let early = Behaviour { early_response: EarlyResponse::On, ..Behaviour::default() };
    let sim = provider(early, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    for _ in 0..20 {
        let body = Chunks { endless: true, ..Chunks::of(&["the first half of a large body"]) };
        let answer = exchange(&pool, request("POST", &[("sim-body-bytes", "10")], body)).await;
        assert_eq!(answer.expect("a response").1.len(), 10);
    }
    eventually("all leases are back", || pool.status().in_flight == 0).await;
}

#[tokio::test]
async fn a_last_stream_id_is_believed_for_a_payment_only_where_it_is_trusted() {
    use LastStreamId::{DistrustedUnlessIdempotent, Trusted};
    let doubt = Some(Verdict::MaybeProcessed);
    let cases = [
        (Trusted, "POST", None),
        (Trusted, "PUT", None),
        (DistrustedUnlessIdempotent, "POST", doubt),
        (DistrustedUnlessIdempotent, "PUT", None),
    ];
    for (trust, method, expected) in cases {
        let a = client("CUSTOMER-0001-SBX");
        let sim = provider(Behaviour { goaway_form: GoAwayForm::Zero, ..Behaviour::default() }, &[&a]).await;
        let pool_config = PoolConfig { last_stream_id: trust, ..config(2, 4) };
        let pool = start(&sim, generation(1, &a), pool_config, Timeouts::default());
        warm(&pool).await;
        let asking = pool.clone();
        let ask = request(method, &[("sim-delay-ms", "100")], Chunks::of(&["x"]));
        let call = tokio::spawn(async move { send(&asking, ask, &options()).await.map(|_| ()) });
        eventually("it is with the provider", || sim.ledger().streams_open == 1).await;
        sim.goaway_all();
        let told = timeout(SOON, call).await.expect("an outcome").unwrap().err().and_then(|e| e.verdict);
        assert_eq!(told, expected, "{trust:?} {method}");
    }
}

#[tokio::test]
async fn replays_of_what_may_have_been_processed_end_with_the_budget() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(resetting(ResetPoint::BeforeHeaders, ResetReason::InternalError), &[&a]).await;
    let frugal = PoolConfig { retry_budget_percent: 0, retry_budget_min_per_second: 1, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), frugal, Timeouts::default());
    warm(&pool).await;
    let again = SendOptions { retry: RetryPolicy::Idempotent, ..options() };
    for _ in 0..12 {
        let ask = request("DELETE", &[], Chunks::default());
        let error = send(&pool, ask, &again).await.expect_err("it is reset each time");
        assert_eq!(error.retry_safe, RetrySafe::Unknown);
    }
    // Ten replays in ten seconds: five requests of three attempts, seven of one.
    assert_eq!(sim.ledger().requests, 5 * 3 + 7);
    let totals = pool.status().totals;
    assert_eq!((totals.replays, totals.retries_denied, totals.unprocessed_lost), (10, 7, 0));
}

#[tokio::test]
async fn bodies_are_held_for_a_replay_up_to_the_total_of_all_requests_and_no_further() {
    const BODY: usize = 10 * 1024;
    // Two bodies, and what a piece costs beside its bytes.
    let total = 2 * (BODY + 512);
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { stall: Stall::BeforeResponse, ..Behaviour::default() }, &[&a]).await;
    let config = PoolConfig { replay_buffer_total_bytes: total, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let mut calls = Vec::new();
    for n in 1..=3 {
        let (p, taken) = (pool.clone(), Arc::new(AtomicU32::new(0)));
        let ask = get().map(|_| OnePiece(Some(Bytes::from(vec![7; BODY])), taken.clone()));
        calls.push(tokio::spawn(async move {
            p.send(ask, &options(), &mut Journey::default()).await.map(|r| r.status())
        }));
        let sent = || taken.load(Ordering::Relaxed) == 1 && sim.ledger().requests_arrived == n;
        eventually("its body is taken, and it is with the provider", sent).await;
    }
    let held = pool.status().replay_bytes;
    assert!((2 * BODY..=total).contains(&(held as usize)), "{held} of {total}");
    sim.set_behaviour(Behaviour::default()).unwrap();
    sim.end(provider_sim::Target::All, GoAwayForm::Zero);
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(timeout(SOON, call).await.expect("an outcome").unwrap());
    }
    let safe = outcomes.pop().unwrap().expect_err("its body is no longer there");
    assert_eq!(safe.retry_safe, RetrySafe::Yes, "the provider disowned it: {safe}");
    assert!(outcomes.iter().all(|o| matches!(o, Ok(StatusCode::OK))), "{outcomes:?}");
    let status = pool.status();
    assert_eq!((status.replay_bytes, status.totals.replays, status.totals.unprocessed_lost), (0, 2, 0));
}

#[tokio::test]
async fn only_requests_that_may_be_replayed_earn_replays() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(resetting(ResetPoint::BeforeHeaders, ResetReason::InternalError), &[&a]).await;
    let config = PoolConfig { retry_budget_percent: 100, retry_budget_min_per_second: 0, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    for _ in 0..6 {
        send(&pool, get(), &options()).await.expect_err("it is reset");
    }
    let again = SendOptions { retry: RetryPolicy::Idempotent, ..options() };
    send(&pool, get(), &again).await.expect_err("it is reset each time");
    // One such request, a hundred percent of it: one replay, although three attempts are allowed.
    let totals = pool.status().totals;
    assert_eq!((sim.ledger().requests, totals.replays, totals.retries_denied), (6 + 2, 1, 1));
}

#[tokio::test]
async fn three_refusals_are_a_loss_and_told_as_safe() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { refuse_every: Some(1), ..Behaviour::default() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    let error = send(&pool, request("POST", &[], Chunks::of(&["x"])), &options()).await.err().unwrap();
    assert_eq!((error.retry_safe, error.journey.attempts), (RetrySafe::Yes, 3));
    assert_eq!(pool.status().totals.unprocessed_lost, 1);
}

#[tokio::test]
async fn a_response_that_nobody_reads_gives_its_stream_back() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let impatient = SendOptions {
        timeouts: Timeouts { idle: Duration::from_millis(300), ..Timeouts::default() },
        ..options()
    };
    let ask = || request("GET", &[("sim-body-bytes", "4000000")], Chunks::default());
    let mut unread = send(&pool, ask(), &impatient).await.expect("a header").into_body();
    let mut begun = send(&pool, ask(), &impatient).await.expect("a header").into_body();
    timeout(SOON, begun.frame()).await.expect("a frame").unwrap().unwrap();
    assert_eq!(pool.status().in_flight, 2);
    eventually("both were ended although nobody polls them", || pool.status().in_flight == 0).await;
    for body in [&mut unread, &mut begun] {
        let end = timeout(SOON, body.frame()).await.expect("an end");
        assert!(matches!(end, Some(Err(BodyError::Unread(_)))), "{end:?}");
    }
    eventually("the provider knows", || sim.ledger().streams_open == 0).await;
    exchange(&pool, get()).await.expect("the connection lives");
}

/// A provider that answers at once and reads the body on, as long as it likes.
async fn answers_before_the_body(windows: u32) -> u16 {
    raw("h2", move |tls| async move {
        let mut peer = Peer::greet(tls, &[(INITIAL_WINDOW_SIZE, windows)]).await.unwrap();
        while let Ok(frame) = peer.next().await {
            if frame.kind == HEADERS {
                peer.write(&[RawFrame::header(frame.stream)]).await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn who_stalls_an_upload_behind_an_early_response_is_named() {
    let a = client("CUSTOMER-0001-SBX");
    let quick = SendOptions {
        timeouts: Timeouts { idle: Duration::from_millis(400), ..Timeouts::default() },
        max_body_bytes: 200_000,
        ..options()
    };
    let chunk = |size: usize| VecDeque::from([Bytes::from_static(b"first"), Bytes::from(vec![1; size])]);
    let cases = [
        ("the caller", 1_000_000, Chunks { chunks: chunk(10), endless: true }),
        ("the provider", 100, Chunks { chunks: chunk(100_000), endless: false }),
        ("its size", 1_000_000, Chunks { chunks: chunk(300_000), endless: false }),
    ];
    for (blamed, window, body) in cases {
        let port = answers_before_the_body(window).await;
        let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
        warm(&pool).await;
        let (answered, wait) = tokio::sync::oneshot::channel();
        let slow = Later { wait: Some(wait), body };
        let ask = Request::post(format!("https://{HOST}/pay")).body(slow).unwrap();
        let response = pool.send(ask, &quick, &mut Journey::default()).await.expect("an early response");
        answered.send(()).unwrap();
        let end = timeout(SOON, response.into_body().collect()).await.expect("an end").expect_err(blamed);
        let named = match end {
            BodyError::CallerStalled(_) => "the caller",
            BodyError::Idle(_) => "the provider",
            BodyError::BodyTooLarge { limit: 200_000 } => "its size",
            other => panic!("{blamed}: {other:?}"),
        };
        assert_eq!(named, blamed);
    }
}

/// A body that comes after its response.
struct Later {
    wait: Option<tokio::sync::oneshot::Receiver<()>>,
    body: Chunks,
}

impl Body for Later {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(wait) = &mut self.wait {
            let _ = std::task::ready!(Pin::new(wait).poll(cx));
            self.wait = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

#[tokio::test]
async fn small_pieces_held_for_a_replay_pin_no_large_buffer_and_are_counted_in_full() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let buffer = Bytes::from(vec![7u8; 64 * 1024]);
    let chunks = (0..100).map(|i| buffer.slice(i * 600..i * 600 + 10)).collect();
    let asking = pool.clone();
    let ask = request("POST", &[("sim-stall", "before_response")], Chunks { chunks, endless: false });
    let call = tokio::spawn(async move { send(&asking, ask, &options()).await.map(|_| ()) });
    eventually("all of it is held", || pool.status().replay_bytes == 100 * (10 + 96)).await;
    eventually("no held piece keeps the read buffer alive", || buffer.is_unique()).await;
    call.abort();
    eventually("nothing is held for nobody", || pool.status().replay_bytes == 0).await;
}
#[tokio::test]
async fn the_future_of_a_request_is_small() {
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(1, generation(1, &a), config(1, 1), Timeouts::default());
    let (options, mut journey) = (options(), Journey::default());
    let future = pool.send(get(), &options, &mut journey);
    let size = std::mem::size_of_val(&future);
    // It is moved about a dozen times on its way into a task; beyond 4 KiB that costs more than the request's frames.
    assert!(size <= 3072, "{size} bytes");
}
