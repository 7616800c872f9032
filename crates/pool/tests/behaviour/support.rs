//! What the tests of the pool share: certificates, a simulated provider, requests, waiting.
//!
//! Owns no test; everything is made anew for each.

pub(crate) use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

pub(crate) use bytes::Bytes;
pub(crate) use http::{Request, Response, StatusCode};
pub(crate) use http_body::{Body, Frame};
pub(crate) use http_body_util::BodyExt;
pub(crate) use pool::{
    HostPort, Journey, Obituaries, Pool, PoolConfig, PoolKey, PoolSpec, ResponseBody, RetryPolicy, RetrySafe,
    SendError, SendErrorKind, SendOptions, State, Target, Timeouts, Unobserved, Workers, coalesce,
};
pub(crate) use provider_sim::{
    Behaviour, ClientCredentials, ClientSpec, GoAwayForm, HttpVersions, Pki, PkiOptions, Simulator,
    SimulatorOptions, Stall,
};
pub(crate) use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
pub(crate) use tls_core::{
    Generation, Identity, PemSource, PinSet, SystemClock, TlsOptions, Trust, WallClock,
};
pub(crate) use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::{Instant, timeout},
};

pub(crate) const HOST: &str = "tsh.test";
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) fn pki() -> Arc<Pki> {
    static PKI: OnceLock<Arc<Pki>> = OnceLock::new();
    PKI.get_or_init(|| Arc::new(Pki::generate(PkiOptions::default()).unwrap())).clone()
}

pub(crate) fn pem(label: &str, text: &str) -> PemSource {
    PemSource::from_bytes(label, text.as_bytes().to_vec())
}

pub(crate) fn client(name: &str) -> ClientCredentials {
    pki().issue_client(ClientSpec::named(name)).unwrap()
}

pub(crate) fn pinned(serial: u64, client: &ClientCredentials, pin: &str) -> Arc<Generation> {
    let identity =
        Identity::from_pem(&pem("c.pem", &client.certificate_pem), &pem("c.key", &client.key_pem)).unwrap();
    let pins: PinSet = std::iter::once(pin.parse().unwrap()).collect();
    let chain = [pem("chain.pem", &pki().anchors_pem())];
    let trust = Trust::new(HOST, &chain, pins, SystemClock.now()).unwrap();
    Generation::build(serial, identity, trust, TlsOptions::default()).unwrap()
}

pub(crate) fn generation(serial: u64, client: &ClientCredentials) -> Arc<Generation> {
    pinned(serial, client, &pki().server_pin())
}

pub(crate) async fn provider(behaviour: Behaviour, clients: &[&ClientCredentials]) -> Simulator {
    let endorsed = clients.iter().map(|c| c.endorsed()).collect();
    let options = SimulatorOptions { endorsed, behaviour, ..SimulatorOptions::new(pki()) };
    Simulator::start(options).await.unwrap()
}

pub(crate) fn http11() -> Behaviour {
    Behaviour { http: HttpVersions::Http11Only, ..Behaviour::default() }
}

pub(crate) fn start(
    provider: &Simulator,
    generation: Arc<Generation>,
    config: PoolConfig,
    timeouts: Timeouts,
) -> Pool {
    start_at(provider.addr().port(), generation, config, timeouts)
}

pub(crate) fn start_at(
    port: u16,
    generation: Arc<Generation>,
    config: PoolConfig,
    timeouts: Timeouts,
) -> Pool {
    Pool::start(spec(port, generation, config, timeouts), &Handle::current())
}

/// What such a pool is made from.
pub(crate) fn spec(
    port: u16,
    generation: Arc<Generation>,
    config: PoolConfig,
    timeouts: Timeouts,
) -> PoolSpec {
    PoolSpec {
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
        obituaries: Obituaries::new(Arc::new(SystemClock)),
    }
}

/// Worker threads as the gateway has them: each with a runtime of its own.
pub(crate) struct Threads {
    pub(crate) handles: Vec<Handle>,
    stops: Vec<(tokio::sync::oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Threads {
    pub(crate) fn start(count: usize) -> Self {
        let (mut handles, mut stops) = (Vec::new(), Vec::new());
        for index in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            handles.push(runtime.handle().clone());
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let thread = std::thread::spawn(move || {
                pool::workers::enter(index);
                runtime.block_on(stopped).unwrap();
            });
            stops.push((stop, thread));
        }
        Self { handles, stops }
    }

    pub(crate) fn workers(&self) -> Workers {
        Workers::new(self.handles.clone())
    }

    pub(crate) fn stop(self) {
        for (stop, thread) in self.stops {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }
}

pub(crate) async fn warm(pool: &Pool) {
    timeout(SOON, pool.warm()).await.expect("the floor is met");
}

pub(crate) fn config(min: u32, max: u32) -> PoolConfig {
    PoolConfig { min_connections: min, max_connections: max, ..PoolConfig::default() }
}

pub(crate) fn options() -> SendOptions {
    SendOptions {
        timeouts: Timeouts::default(),
        retry: RetryPolicy::Unprocessed,
        max_body_bytes: u64::MAX,
        caller: pool::Caller::default(),
    }
}

/// A body of unknown length.
#[derive(Clone, Default)]
pub(crate) struct Chunks {
    pub(crate) chunks: VecDeque<Bytes>,
    pub(crate) endless: bool,
}

impl Chunks {
    pub(crate) fn of(chunks: &[&'static str]) -> Self {
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

pub(crate) fn request(method: &str, orders: &[(&str, &str)], body: Chunks) -> Request<Chunks> {
    let mut request = Request::builder().method(method).uri(format!("https://{HOST}/pay"));
    for (name, value) in orders {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

pub(crate) fn get() -> Request<Chunks> {
    request("GET", &[], Chunks::default())
}

pub(crate) async fn collect(body: ResponseBody) -> Bytes {
    timeout(SOON, body.collect()).await.expect("a body in time").expect("a whole body").to_bytes()
}

/// A request whose way nobody asks for.
pub(crate) async fn send(
    pool: &Pool,
    request: Request<Chunks>,
    options: &SendOptions,
) -> Result<Response<ResponseBody>, SendError> {
    pool.send(request, options, &mut Journey::default()).await
}

/// A response read to its end, with the number of its connection and of its generation.
pub(crate) async fn exchange(
    pool: &Pool,
    request: Request<Chunks>,
) -> Result<(StatusCode, Bytes, u64, u64), SendError> {
    let mut journey = Journey::default();
    let response =
        timeout(SOON, pool.send(request, &options(), &mut journey)).await.expect("an answer in time")?;
    let status = response.status();
    let body = collect(response.into_body()).await;
    Ok((status, body, journey.connection.unwrap().0, journey.generation))
}

/// Waits for what must come, however slow the machine.
pub(crate) async fn in_the_end<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON * 4, future).await.unwrap_or_else(|_| panic!("not in {:?}: {what}", SOON * 4))
}

pub(crate) async fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(SOON, what, holds).await;
}

/// As [`eventually`], for what takes its time on a slow machine.
pub(crate) async fn eventually_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not in {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn serving(pool: &Pool) -> usize {
    pool.status().connections.iter().filter(|c| c.state == State::Serving).count()
}

/// What TLS is to the adapter: it takes bytes although the socket is full, and is rid of them only by a flush.
#[derive(Default)]
pub(crate) struct Buffering {
    pub(crate) held: usize,
    pub(crate) sent: usize,
    pub(crate) socket_full: bool,
}

impl AsyncRead for Buffering {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<parking_lot::Mutex<Buffering>>);

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

pub(crate) async fn futures_join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    tokio::join!(a, b)
}

/// A TLS server that asks for no certificate and speaks as `speak` does.
pub(crate) async fn raw<F, Fut>(alpn: &'static str, speak: F) -> u16
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
            // What is written has left when the write is over.
            tcp.set_nodelay(true).unwrap();
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

/// Reads one request to its end; `None` when the connection ended or said nothing for so long.
pub(crate) async fn read_request(
    tls: &mut tokio_rustls::server::TlsStream<TcpStream>,
    patience: Duration,
) -> Option<Vec<u8>> {
    read_whole(tls, patience).await.map(|(_, body)| body)
}

/// The same with its header, in lower case.
pub(crate) async fn read_whole(
    tls: &mut tokio_rustls::server::TlsStream<TcpStream>,
    patience: Duration,
) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(patience, tls.read_u8()).await.ok()?.ok()?);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |n| n.trim().parse().unwrap())];
    tls.read_exact(&mut body).await.ok()?;
    if text.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(tls.read_u8().await.ok()?);
        }
    }
    Some((text, body))
}

pub(crate) async fn answer(tls: &mut tokio_rustls::server::TlsStream<TcpStream>, body: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = tls.write_all(&[head.as_bytes(), body].concat()).await;
    let _ = tls.flush().await;
}

pub(crate) const PATIENT: Duration = Duration::from_secs(3600);
