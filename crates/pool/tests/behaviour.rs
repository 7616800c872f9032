//! The rules of the pool, each as a test against a simulated provider on loopback: what must hold when things go wrong.
//!
//! Owns nothing but the tests; the simulated provider and its certificates are made anew for each.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use pool::{
    HostPort, Journey, Pool, PoolConfig, PoolKey, PoolSpec, ResponseBody, RetryPolicy, RetrySafe, SendError,
    SendErrorKind, SendOptions, State, Target, Timeouts, Unobserved, Workers, coalesce,
};
use provider_sim::{
    Behaviour, ClientCredentials, ClientSpec, GoAwayForm, HttpVersions, Pki, PkiOptions, Simulator,
    SimulatorOptions, Stall,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tls_core::{Generation, Identity, PemSource, PinSet, SystemClock, TlsOptions, Trust, WallClock};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::{Instant, timeout},
};

const HOST: &str = "tsh.test";
const SOON: Duration = Duration::from_secs(5);

fn pki() -> Arc<Pki> {
    static PKI: OnceLock<Arc<Pki>> = OnceLock::new();
    PKI.get_or_init(|| Arc::new(Pki::generate(PkiOptions::default()).unwrap())).clone()
}

fn pem(label: &str, text: &str) -> PemSource {
    PemSource::from_bytes(label, text.as_bytes().to_vec())
}

fn client(name: &str) -> ClientCredentials {
    pki().issue_client(ClientSpec::named(name)).unwrap()
}

fn pinned(serial: u64, client: &ClientCredentials, pin: &str) -> Arc<Generation> {
    let identity =
        Identity::from_pem(&pem("c.pem", &client.certificate_pem), &pem("c.key", &client.key_pem)).unwrap();
    let pins: PinSet = std::iter::once(pin.parse().unwrap()).collect();
    let chain = [pem("chain.pem", &pki().anchors_pem())];
    let trust = Trust::new(HOST, &chain, pins, SystemClock.now()).unwrap();
    Generation::build(serial, identity, trust, TlsOptions::default()).unwrap()
}

fn generation(serial: u64, client: &ClientCredentials) -> Arc<Generation> {
    pinned(serial, client, &pki().server_pin())
}

async fn provider(behaviour: Behaviour, clients: &[&ClientCredentials]) -> Simulator {
    let endorsed = clients.iter().map(|c| c.endorsed()).collect();
    let options = SimulatorOptions { endorsed, behaviour, ..SimulatorOptions::new(pki()) };
    Simulator::start(options).await.unwrap()
}

fn http11() -> Behaviour {
    Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() }
}

fn start(provider: &Simulator, generation: Arc<Generation>, config: PoolConfig, timeouts: Timeouts) -> Pool {
    start_at(provider.addr().port(), generation, config, timeouts)
}

fn start_at(port: u16, generation: Arc<Generation>, config: PoolConfig, timeouts: Timeouts) -> Pool {
    let spec = PoolSpec {
        key: PoolKey {
            customer: "CUSTOMER-0001".to_owned(),
            environment: "sandbox".to_owned(),
            authority: HOST.to_owned(),
        },
        target: Target {
            host: HOST.to_owned(),
            port: 443,
            connect: Some(HostPort { host: "127.0.0.1".to_owned(), port }),
            via: None,
        },
        generation,
        config,
        timeouts,
        seed: 7,
        workers: Workers::current(),
        observer: Arc::new(Unobserved),
    };
    Pool::start(spec, &Handle::current())
}

async fn warm(pool: &Pool) {
    timeout(SOON, pool.warm()).await.expect("the floor is met");
}

fn config(min: u32, max: u32) -> PoolConfig {
    PoolConfig { min_connections: min, max_connections: max, ..PoolConfig::default() }
}

fn options() -> SendOptions {
    SendOptions { timeouts: Timeouts::default(), retry: RetryPolicy::Unprocessed, max_body_bytes: u64::MAX }
}

/// A body of unknown length.
#[derive(Clone, Default)]
struct Chunks {
    chunks: VecDeque<Bytes>,
    endless: bool,
}

impl Chunks {
    fn of(chunks: &[&'static str]) -> Self {
        Self { chunks: chunks.iter().map(|c| Bytes::from_static(c.as_bytes())).collect(), endless: false }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.chunks.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None if self.endless => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

fn request(method: &str, orders: &[(&str, &str)], body: Chunks) -> Request<Chunks> {
    let mut request = Request::builder().method(method).uri(format!("https://{HOST}/pay"));
    for (name, value) in orders {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

fn get() -> Request<Chunks> {
    request("GET", &[], Chunks::default())
}

async fn collect(body: ResponseBody) -> Bytes {
    timeout(SOON, body.collect()).await.expect("a body in time").expect("a whole body").to_bytes()
}

/// A request whose way nobody asks for.
async fn send(
    pool: &Pool,
    request: Request<Chunks>,
    options: &SendOptions,
) -> Result<Response<ResponseBody>, SendError> {
    pool.send(request, options, &mut Journey::default()).await
}

/// A response read to its end, with the number of its connection and of its generation.
async fn exchange(pool: &Pool, request: Request<Chunks>) -> Result<(StatusCode, Bytes, u64, u64), SendError> {
    let mut journey = Journey::default();
    let response =
        timeout(SOON, pool.send(request, &options(), &mut journey)).await.expect("an answer in time")?;
    let status = response.status();
    let body = collect(response.into_body()).await;
    Ok((status, body, journey.connection.unwrap().0, journey.generation))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not in {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn serving(pool: &Pool) -> usize {
    pool.status().connections.iter().filter(|c| c.state == State::Serving).count()
}

/// What TLS is to the adapter: it takes bytes although the socket is full, and is rid of them only by a flush.
#[derive(Default)]
struct Buffering {
    held: usize,
    sent: usize,
    socket_full: bool,
}

impl AsyncRead for Buffering {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<parking_lot::Mutex<Buffering>>);

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().held += data.len();
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if inner.socket_full {
            return Poll::Pending;
        }
        inner.sent += std::mem::take(&mut inner.held);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_flush_that_was_pending_is_resumed_at_the_next_turn() {
    let transport = Shared::default();
    transport.0.lock().socket_full = true;
    let (mut stream, drain) = coalesce::coalesce(transport.clone());
    stream.write_all(b"the end of a payment").await.unwrap();
    let turn = || std::future::poll_fn(|cx| Poll::Ready(drain.poll_drain(cx).is_ready()));
    assert!(!turn().await, "the socket is full");
    transport.0.lock().socket_full = false;
    assert!(turn().await);
    assert_eq!(transport.0.lock().sent, 20, "bytes stay in the TLS layer until something else is written");
}

#[tokio::test]
async fn a_replay_over_http11_carries_the_whole_body() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    sim.set_behaviour(http11()).unwrap();
    let body = Chunks::of(&["pay ", "100 EUR"]);
    let (status, echoed, ..) =
        exchange(&pool, request("POST", &[("sim-goaway", "zero")], body)).await.unwrap();
    assert_eq!((status, echoed), (StatusCode::OK, Bytes::from_static(b"pay 100 EUR")));
}

/// R3a
#[tokio::test]
async fn after_a_switch_no_idle_http11_connection_of_the_old_generation_carries_a_request() {
    let (a, b) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    let sim = provider(http11(), &[&a, &b]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    pool.activate(generation(2, &b));
    for _ in 0..4 {
        let (.., generation) = exchange(&pool, get()).await.unwrap();
        assert_eq!(generation, 2);
    }
}

/// R3c
#[tokio::test]
async fn http11_connections_that_were_closed_while_idle_cost_no_request() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(6, 6), Timeouts::default());
    warm(&pool).await;
    sim.kill_connections();
    eventually("all are seen to be closed", || serving(&pool) == 0).await;
    let answer = exchange(&pool, get()).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// R3d
#[tokio::test]
async fn the_floor_of_http11_stands_again_after_the_provider_closed_idle_connections() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    sim.kill_connections();
    // Seen to be closed, and mended, may be one moment: the provider counts both.
    let again = || sim.ledger().connections_accepted >= 4 && serving(&pool) >= 2;
    eventually("the floor stands again without any request", again).await;
}

#[tokio::test]
async fn an_http11_connection_belongs_to_the_generation_it_was_dialled_with() {
    let (a, b) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    // Without tickets the proof is a window of silence: time enough for a switch.
    let sim = provider(Behaviour { tickets: 0, ..http11() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    eventually("a handshake", || sim.ledger().connections_http11 > 0).await;
    pool.activate(generation(2, &b));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let wrong = pool.status().connections.iter().any(|c| c.generation == 2);
        assert!(!wrong, "the provider never let the second identity in");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_chunked_response_leaves_its_http11_connection_fit_for_the_next() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    for _ in 0..20 {
        exchange(&pool, request("POST", &[], Chunks::of(&["a", "b"]))).await.unwrap();
    }
    let accepted = sim.ledger().connections_accepted;
    assert!(accepted <= 4, "{accepted} connections for 20 requests one after another");
}

#[tokio::test]
async fn a_removed_pin_stops_new_streams_at_once() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    pool.activate(pinned(2, &a, &pki().rotated().unwrap().server_pin()));
    let answer = exchange(&pool, get()).await;
    assert!(answer.is_err(), "carried by a connection whose pin was taken away: {answer:?}");
}

#[tokio::test]
async fn an_old_failure_does_not_refuse_requests_while_a_good_dial_is_under_way() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }, &[&a]).await;
    let timeouts = Timeouts { tls: Duration::from_millis(300), ..Timeouts::default() };
    let pool = start(&sim, generation(1, &a), config(1, 2), timeouts);
    warm(&pool).await;
    // A dial for growth fails, while the first connection serves on and nobody waits any more.
    sim.set_behaviour(Behaviour { stall: Stall::AtHandshake, ..sim.behaviour() }).unwrap();
    exchange(&pool, get()).await.unwrap();
    eventually("the dial for growth failed", || pool.status().last_failure.is_some()).await;
    sim.set_behaviour(Behaviour { stall: Stall::None, ..sim.behaviour() }).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((serving(&pool), pool.status().dialling), (1, 0));
    sim.kill_connections();
    while serving(&pool) > 0 {
        tokio::task::yield_now().await;
    }
    let answer = exchange(&pool, get()).await;
    assert!(answer.is_ok(), "no dial has failed since the last connection ended: {answer:?}");
}

#[test]
fn goaways_under_load_on_many_workers_lose_no_request() {
    const WORKERS: usize = 3;
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let threads: Vec<_> = (0..WORKERS)
        .map(|index| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let handle = runtime.handle().clone();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let thread = std::thread::spawn(move || {
                pool::workers::enter(index);
                runtime.block_on(stopped).unwrap();
            });
            (handle, stop, thread)
        })
        .collect();
    let handles: Vec<_> = threads.iter().map(|(handle, ..)| handle.clone()).collect();
    let a = client("CUSTOMER-0001-SBX");
    let failures = control.block_on(async {
        let behaviour = Behaviour {
            goaway_after_requests: Some(150),
            goaway_form: GoAwayForm::Immediate,
            ..Behaviour::default()
        };
        let sim = provider(behaviour, &[&a]).await;
        let spec = PoolSpec {
            key: PoolKey { customer: "C".into(), environment: "sandbox".into(), authority: HOST.into() },
            target: Target {
                host: HOST.into(),
                port: 443,
                connect: Some(HostPort { host: "127.0.0.1".into(), port: sim.addr().port() }),
                via: None,
            },
            generation: generation(1, &a),
            config: config(3, 8),
            timeouts: Timeouts::default(),
            seed: 7,
            workers: Workers::new(handles.clone()),
            observer: Arc::new(Unobserved),
        };
        let pool = Pool::start(spec, &Handle::current());
        warm(&pool).await;
        let load: Vec<_> = handles
            .iter()
            .flat_map(|handle| {
                (0..12).map(|_| {
                    let pool = pool.clone();
                    handle.spawn(async move {
                        let mut failures = Vec::new();
                        for _ in 0..300 {
                            match send(&pool, request("POST", &[], Chunks::of(&["x"])), &options()).await {
                                Ok(response) => {
                                    if let Err(e) = response.into_body().collect().await {
                                        failures.push(format!("body: {e}"));
                                    }
                                }
                                Err(e) => {
                                    failures.push(format!("{e} {:?} {:?}", e.verdict, e.journey.attempts))
                                }
                            }
                        }
                        failures
                    })
                })
            })
            .collect();
        let mut failures = Vec::new();
        for task in load {
            failures.extend(task.await.unwrap());
        }
        pool.stop(SOON).await;
        failures
    });
    for (_, stop, thread) in threads {
        let _ = stop.send(());
        thread.join().unwrap();
    }
    assert!(failures.is_empty(), "{} failed, e.g. {:?}", failures.len(), &failures[..failures.len().min(5)]);
}

#[tokio::test]
async fn a_provider_that_ends_every_connection_at_once_is_not_stormed_with_dials() {
    let a = client("CUSTOMER-0001-SBX");
    let behaviour = Behaviour { goaway_after: Some(Duration::from_millis(20)), ..Behaviour::default() };
    let sim = provider(behaviour, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 8), Timeouts::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let accepted = sim.ledger().connections_accepted;
    pool.stop(SOON).await;
    assert!(accepted <= 40, "{accepted} connections in two seconds, and not one request");
}

#[tokio::test]
async fn an_http11_provider_that_is_gone_is_reported_at_once() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    sim.stop().await;
    eventually("it is seen to be closed", || serving(&pool) == 0).await;
    for round in 0..3 {
        let began = Instant::now();
        let error = exchange(&pool, get()).await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::Unavailable(_)), "round {round}: {:?}", error.kind);
        assert!(began.elapsed() < Duration::from_millis(500), "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn the_queue_of_http11_is_bounded() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { queue_capacity: 1, http1_max_connections: 1, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let pool = pool.clone();
            let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
            tokio::spawn(async move { send(&pool, ask, &options()).await.map(|_| ()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let turned_away = tasks.iter().filter(|task| task.is_finished()).count();
    // One more than the queue holds may be on its way from the queue to its connection.
    assert!(turned_away >= 2, "{turned_away} of 5 were turned away; one is carried and one may wait");
}

#[tokio::test]
async fn the_deadline_of_the_exchange_holds_while_an_http11_connection_is_waited_for() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { http1_max_connections: 1, ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    let busy = pool.clone();
    let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
    tokio::spawn(async move { send(&busy, ask, &options()).await.map(|_| ()) });
    eventually("it is carried", || sim.ledger().requests == 1).await;
    let total = Some(Duration::from_millis(200));
    let hurried = SendOptions { timeouts: Timeouts { total, ..Timeouts::default() }, ..options() };
    let began = Instant::now();
    let answer = send(&pool, get(), &hurried).await;
    assert!(answer.is_err());
    assert!(began.elapsed() < Duration::from_secs(1), "after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_stop_waits_for_exchanges_over_http11() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    let carrier = pool.clone();
    let ask = request("GET", &[("sim-delay-ms", "700")], Chunks::default());
    let carried = tokio::spawn(async move { exchange(&carrier, ask).await.map(|_| ()) });
    eventually("it is carried", || sim.ledger().requests == 1).await;
    assert_eq!(pool.status().in_flight, 1, "a request over HTTP/1.1 is in flight");
    pool.stop(SOON).await;
    tokio::task::yield_now().await;
    assert!(carried.is_finished(), "the stop ended before the exchange did");
}

#[tokio::test]
async fn a_new_identity_does_not_wait_out_the_pause_of_the_refused_one() {
    let (a, b) = (client("CUSTOMER-0001-SBX"), client("CUSTOMER-0001-SBX"));
    let sim = provider(Behaviour::default(), &[&b]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    eventually("the first is refused", || pool.status().last_failure.is_some()).await;
    pool.activate(generation(2, &b));
    warm(&pool).await;
}

#[tokio::test]
async fn what_one_attempt_may_have_done_is_not_forgotten_when_the_next_gets_no_stream() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    sim.set_endorsed(Vec::new()).unwrap();
    let ask =
        request("DELETE", &[("sim-goaway", "fin"), ("sim-stall", "before_response")], Chunks::default());
    let patient = SendOptions { retry: RetryPolicy::Idempotent, ..options() };
    let Err(error) = timeout(SOON, send(&pool, ask, &patient)).await.expect("an outcome") else {
        panic!("nothing serves");
    };
    assert_eq!(sim.ledger().requests, 1, "the first attempt was processed");
    assert_eq!(error.retry_safe, RetrySafe::Unknown, "{error:?}");
}

#[tokio::test]
async fn callers_that_do_not_read_stall_nobody_else() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour::default(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let mut unread = Vec::new();
    for _ in 0..9 {
        let ask = request("GET", &[("sim-body-bytes", "4000000")], Chunks::default());
        unread.push(timeout(SOON, send(&pool, ask, &options())).await.expect("a header").unwrap());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let response =
        send(&pool, request("POST", &[], Chunks::of(&["quick"])), &options()).await.expect("a header");
    let body = timeout(Duration::from_secs(3), response.into_body().collect()).await;
    assert!(body.is_ok(), "nine callers that do not read hold up everybody on the connection");
}

/// A request that its caller gives up leaves nothing behind that the next one meets.
#[tokio::test]
async fn an_http11_request_that_is_given_up_harms_nobody() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let config = PoolConfig { http1_max_connections: 2, ..config(2, 2) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    for round in 0..20u32 {
        let ask = |id: &'static str| request("POST", &[("sim-delay-ms", "50")], Chunks::of(&[id]));
        let options = options();
        let (first, second) = (send(&pool, ask("first"), &options), send(&pool, ask("second"), &options));
        let given_up = async {
            tokio::select! {
                biased;
                _ = futures_join(first, second) => {}
                () = tokio::time::sleep(Duration::from_millis(u64::from(round) * 3)) => {}
            }
        };
        Box::pin(given_up).await;
        let (_, body, ..) = exchange(&pool, request("POST", &[], Chunks::of(&["mine"]))).await.unwrap();
        assert_eq!(body, "mine", "round {round}");
    }
    eventually("nothing is held", || pool.status().replay_bytes == 0 && pool.status().in_flight == 0).await;
}

async fn futures_join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    tokio::join!(a, b)
}

/// A TLS server that asks for no certificate and speaks as `speak` does.
async fn raw<F, Fut>(alpn: &'static str, speak: F) -> u16
where
    F: Fn(tokio_rustls::server::TlsStream<TcpStream>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let pki = pki();
    let chain =
        CertificateDer::pem_slice_iter(pki.server_chain_pem().as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(pki.server_key_pem().as_bytes()).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(tls_core::crypto_provider(&tls_core::KeyExchange::ALL))
            .with_protocol_versions(tls_core::TLS_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let speak = Arc::new(speak);
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, speak) = (acceptor.clone(), speak.clone());
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    speak(tls).await;
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn an_early_http11_response_does_not_lend_a_connection_that_still_sends_a_body() {
    let port = raw("http/1.1", async |mut tls| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = tls.read_u8().await else { return };
            head.push(byte);
        }
        // As nginx: the answer at once, the rest of the body is read and thrown away.
        tls.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy(&mut tls, &mut tokio::io::sink()).await;
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    warm(&pool).await;
    let slow = Chunks { endless: true, ..Chunks::of(&["a body without end"]) };
    let (status, ..) = exchange(&pool, request("POST", &[], slow)).await.unwrap();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, ..) = exchange(&pool, request("POST", &[], Chunks::of(&["b"]))).await.unwrap();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_dials() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { stall: Stall::AtHandshake, ..Behaviour::default() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(2, 2), Timeouts::default());
    eventually("dials are under way", || sim.ledger().connections_accepted == 2).await;
    let began = Instant::now();
    pool.stop(SOON).await;
    assert!(began.elapsed() < Duration::from_secs(1), "after {:?}", began.elapsed());
}

#[tokio::test]
async fn waiters_learn_the_known_cause_when_the_last_connection_ends_under_them() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 2), Timeouts::default());
    warm(&pool).await;
    // The certificate is refused from now on; what serves goes on. Growth fails, and pauses for long.
    sim.set_endorsed(Vec::new()).unwrap();
    let first = pool.clone();
    let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
    tokio::spawn(async move { send(&first, ask, &options()).await.map(|_| ()) });
    eventually("the dial for growth is refused", || pool.status().last_failure.is_some()).await;
    let second = pool.clone();
    let waiting = tokio::spawn(async move { send(&second, get(), &options()).await.map(|_| ()) });
    eventually("it waits", || pool.status().queue_depth == 1).await;
    sim.kill_connections();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error.kind, SendErrorKind::Unavailable(_)), "{:?}", error.kind);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_on_another_connection() {
    let refusing = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let numbers = refusing.clone();
    let port = raw("h2", move |tls| {
        let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move {
            let mut connection = h2::server::handshake(tls).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                drop(request);
                if number == 0 {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    let _ = respond.send_response(Response::new(()), true);
                }
            }
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(2, 2), Timeouts::default());
    warm(&pool).await;
    for _ in 0..8 {
        let answer = exchange(&pool, get()).await;
        assert!(answer.is_ok(), "the other connection refuses nothing: {answer:?}");
    }
}

#[tokio::test]
async fn a_refused_certificate_is_not_dialled_at_every_turn_while_an_older_connection_serves() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }, &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 4), Timeouts::default());
    warm(&pool).await;
    sim.set_endorsed(Vec::new()).unwrap();
    for _ in 0..20 {
        let wait = || request("GET", &[("sim-delay-ms", "20")], Chunks::default());
        let (one, two) = tokio::join!(exchange(&pool, wait()), exchange(&pool, wait()));
        drop((one, two));
    }
    let refused = sim.ledger().handshakes_refused;
    assert!(refused <= 2, "{refused} dials in 20 short turns with a certificate that the provider refuses");
}

#[tokio::test]
async fn a_dial_under_way_when_its_pin_was_taken_away_carries_nothing() {
    let port = raw("h2", async |tls| {
        // A slow proof: time enough for the pin to go.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut connection = h2::server::handshake(tls).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let _ = respond.send_response(Response::new(()), true);
        }
    })
    .await;
    let a = client("CUSTOMER-0001-SBX");
    let pool = start_at(port, generation(1, &a), config(1, 1), Timeouts::default());
    tokio::time::sleep(Duration::from_millis(150)).await;
    pool.activate(pinned(2, &a, &pki().rotated().unwrap().server_pin()));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let answer = exchange(&pool, get()).await;
        assert!(answer.is_err(), "carried by a connection whose pin was taken away: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn requests_wait_for_a_busy_http11_connection_although_no_other_can_be_dialled() {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(http11(), &[&a]).await;
    let pool = start(&sim, generation(1, &a), config(1, 4), Timeouts::default());
    warm(&pool).await;
    sim.set_endorsed(Vec::new()).unwrap();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let pool = pool.clone();
            let ask = request("GET", &[("sim-delay-ms", "100")], Chunks::default());
            tokio::spawn(async move { exchange(&pool, ask).await.map(|_| ()) })
        })
        .collect();
    for task in tasks {
        let answer = task.await.unwrap();
        assert!(answer.is_ok(), "a connection serves and comes free in time: {answer:?}");
    }
}
