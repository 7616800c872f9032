//! `loadgen floor`: the least that a proxy made of the same libraries can cost.
//!
//! A bare proxy: hyper towards callers, h2 over rustls towards the provider on two connections that are opened once,
//! the same gathering of writes both ways, the same allocator, one thread. No routes, no limits, no health, no replays, no
//! record of anything. What the gateway costs above it is the price of what it does; what a peer costs less is the price of
//! the libraries. Owns nothing that a bank runs: whoever loses a connection here loses its requests.

use std::{convert::Infallible, io, net::SocketAddr, path::Path, pin::pin, sync::Arc};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pool::coalesce::coalesce;
use tls_core::{Generation, Identity, PemSource, PinSet, SystemClock, TlsOptions, Trust, WallClock};
use tokio::net::{TcpListener, TcpStream};

use crate::{args::FloorArgs, error::Error};

/// The name in the provider's certificate; the laboratory's is made for it.
const HOST: &str = "localhost";
/// Connections to the provider: what the gateway keeps by default.
const CONNECTIONS: usize = 2;
/// Windows as the gateway's.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// Serves until the process is ended.
///
/// # Errors
/// [`Error::Lab`] when the assets cannot be read or the provider not be reached, [`Error::System`] when the listener fails.
pub(crate) fn run(args: &FloorArgs) -> Result<Infallible, Error> {
    let system = |action: &'static str| move |source: io::Error| Error::System { action, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start a runtime"))?;
    runtime.block_on(async {
        let generation = generation(&args.assets)?;
        let mut upstreams = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            upstreams.push(connect(&generation, args.to).await?);
        }
        let listener = TcpListener::bind(args.listen).await.map_err(system("listen"))?;
        for turn in 0.. {
            let (caller, _) = listener.accept().await.map_err(system("accept"))?;
            let _ = caller.set_nodelay(true);
            tokio::spawn(serve(caller, upstreams[turn % CONNECTIONS].clone()));
        }
        unreachable!("the numbers of turns do not end")
    })
}

fn lab<E: std::fmt::Display>(action: &'static str) -> impl Fn(E) -> Error {
    move |cause| Error::Lab { action, cause: cause.to_string() }
}

fn generation(assets: &Path) -> Result<Arc<Generation>, Error> {
    let read = |name: &str| PemSource::read(&assets.join(name)).map_err(lab("read the assets"));
    let certificate = read("CUSTOMER_TLS_CLIENT_CERTIFICATE.pem")?;
    let key = read("CUSTOMER_TLS_CLIENT_CERTIFICATE.key")?;
    let identity = Identity::from_pem(&certificate, &key).map_err(lab("use the identity"))?;
    let chain = [read("TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem")?];
    let trust =
        Trust::new(HOST, &chain, PinSet::default(), SystemClock.now()).map_err(lab("use the chain"))?;
    Generation::build(1, identity, trust, TlsOptions::default()).map_err(lab("build a TLS configuration"))
}

async fn connect(generation: &Generation, to: SocketAddr) -> Result<SendRequest<Bytes>, Error> {
    let socket = TcpStream::connect(to).await.map_err(lab("reach the provider"))?;
    socket.set_nodelay(true).map_err(lab("reach the provider"))?;
    let connector = tokio_rustls::TlsConnector::from(generation.client_config().clone());
    let tls = connector.connect(generation.server_name(), socket).await.map_err(lab("shake hands"))?;
    generation.assert_established(tls.get_ref().1).map_err(lab("shake hands"))?;
    let (io, drain) = coalesce(tls);
    let (upstream, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(io)
        .await
        .map_err(lab("speak HTTP/2"))?;
    tokio::spawn(async move {
        std::future::poll_fn(|cx| {
            let ended = pin!(&mut connection).poll(cx);
            let _ = drain.poll_drain(cx);
            ended
        })
        .await
    });
    Ok(upstream)
}

async fn serve(caller: TcpStream, upstream: SendRequest<Bytes>) {
    let mut first = [0; 3];
    let http2 = matches!(caller.peek(&mut first).await, Ok(3)) && &first == b"PRI";
    let service = service_fn(move |request| {
        let upstream = upstream.clone();
        async move { Ok::<_, Infallible>(forward(upstream, request).await.unwrap_or_else(|_| bad_gateway())) }
    });
    // How a caller's connection ends is the load generator's to say.
    if http2 {
        let (io, drain) = coalesce(caller);
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        std::future::poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx).map(|_| ());
            let _ = drain.poll_drain(cx);
            ended
        })
        .await;
    } else {
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(caller), service).await;
    }
}

fn bad_gateway() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

async fn forward(
    upstream: SendRequest<Bytes>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // What HTTP/2 does not carry; load generators send nothing else of this hop.
    parts.headers.remove(http::header::HOST);
    parts.headers.remove(http::header::CONNECTION);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::builder().scheme("https").authority(HOST).path_and_query(path).build()?;
    parts.version = http::Version::HTTP_2;
    let mut upstream = upstream.ready().await?;
    let (response, mut stream) = upstream.send_request(Request::from_parts(parts, ()), body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body, true)?;
    }
    let (mut parts, mut body) = response.await?.into_parts();
    let mut content = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        let _ = body.flow_control().release_capacity(piece.len());
        content.push(piece);
    }
    let content = if content.len() == 1 { content.remove(0) } else { content.concat().into() };
    parts.version = http::Version::HTTP_11;
    Ok(Response::from_parts(parts, Full::new(content)))
}
