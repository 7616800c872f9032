//! Cleartext HTTP/2 by prior knowledge: one connection shared by many callers, on the `h2` crate.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Request, Response, Uri, Version, header, uri::PathAndQuery};
use tokio::{net::TcpStream, sync::Mutex};

use crate::{
    caller::{Exchange, judge},
    coalesce::coalesce,
    http1::DIAL_PAUSE,
    plan::Plan,
    record::{Live, Lost, LostKind, Reply},
    schedule::Ticket,
    upload,
};

/// Receive windows: large enough that the target never waits for the generator, 4 MiB per stream.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Connections tried for a request that none of them has been given yet.
const UNSENT_ATTEMPTS: u32 = 3;

/// One connection, dialled anew when it ends, and the callers' way to its current sender.
#[derive(Debug)]
pub(crate) struct Link {
    plan: Arc<Plan>,
    live: Arc<Live>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    generation: u64,
    sender: Option<SendRequest<Bytes>>,
}

/// A sender and the connection it belongs to.
#[derive(Clone, Debug)]
struct Handle {
    generation: u64,
    sender: SendRequest<Bytes>,
}

impl Link {
    /// Opens the connection.
    ///
    /// # Errors
    /// A loss of kind `Connect` with the cause.
    pub(crate) async fn connect(plan: Arc<Plan>, live: Arc<Live>) -> Result<Arc<Self>, Lost> {
        let sender = Some(dial(&plan).await?);
        let current = Mutex::new(Current { generation: 0, sender });
        Ok(Arc::new(Self { plan, live, current }))
    }

    /// The current sender; dials if `broken` says that the current connection has ended.
    async fn handle(&self, broken: Option<u64>) -> Result<Handle, Lost> {
        let mut current = self.current.lock().await;
        if broken == Some(current.generation) {
            current.sender = None;
        }
        if current.sender.is_none() {
            self.live.reconnected();
            match dial(&self.plan).await {
                Ok(sender) => {
                    current.sender = Some(sender);
                    current.generation += 1;
                }
                Err(lost) => {
                    // Under the lock: callers of a dead target take turns instead of storming it.
                    tokio::time::sleep(DIAL_PAUSE).await;
                    return Err(lost);
                }
            }
        }
        // Set just above where it was missing.
        let sender = current.sender.clone().expect("dialled");
        Ok(Handle { generation: current.generation, sender })
    }
}

/// One caller: one stream at a time on a shared connection. Also carries the gRPC callers.
#[derive(Debug)]
pub(crate) struct Caller {
    plan: Arc<Plan>,
    link: Arc<Link>,
    handle: Option<Handle>,
    uri: Uri,
}

impl Caller {
    /// A caller on `link` whose requests go to `path`.
    pub(crate) fn new(plan: Arc<Plan>, link: Arc<Link>, path: PathAndQuery) -> Self {
        let uri =
            Uri::builder().scheme("http").authority(plan.authority.as_str()).path_and_query(path).build();
        // Scheme, authority and path were each taken from a valid URL.
        Self { plan, link, handle: None, uri: uri.expect("parts of a valid URL") }
    }

    /// A request to this caller's path with the given headers.
    pub(crate) fn request(&self, method: http::Method, headers: HeaderMap) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        request
    }

    /// Sends a request whose body is in memory.
    ///
    /// # Errors
    /// The loss, by how far the request came.
    pub(crate) async fn send(
        &mut self,
        request: Request<()>,
        body: Bytes,
    ) -> Result<Response<RecvStream>, Lost> {
        let end = body.is_empty();
        let (response, mut stream) = self.open(request, end).await?;
        if !end {
            // Refused only if the stream is reset already; the response then says why.
            let _told_by_response = stream.send_data(body, true);
        }
        let response = response.await;
        drop(stream);
        response.map_err(|error| lost(&error))
    }

    async fn upload(&mut self, request: Request<()>, size: u64) -> Result<Response<RecvStream>, Lost> {
        let (response, stream) = self.open(request, size == 0).await?;
        // On its own: the reply is read while the body still goes up.
        tokio::spawn(stream_zeros(stream, size));
        response.await.map_err(|error| lost(&error))
    }

    /// Opens a stream. A connection that ended before it got the request is replaced: nothing was sent.
    async fn open(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), Lost> {
        let mut broken = None;
        let mut cause = None;
        for _ in 0..UNSENT_ATTEMPTS {
            let mut handle = match self.handle.take() {
                Some(handle) if broken.is_none() => handle,
                _ => self.link.handle(broken).await?,
            };
            let attempt = match poll_fn(|cx| handle.sender.poll_ready(cx)).await {
                Ok(()) => handle.sender.send_request(request.clone(), end),
                Err(error) => Err(error),
            };
            match attempt {
                Ok(opened) => {
                    self.handle = Some(handle);
                    return Ok(opened);
                }
                Err(error) => {
                    broken = Some(handle.generation);
                    cause = Some(error);
                }
            }
        }
        let cause = cause.map(|error| error.to_string()).unwrap_or_default();
        Err(Lost::new(LostKind::Connect, format_args!("{UNSENT_ATTEMPTS} connections ended unused: {cause}")))
    }

    /// The request's own headers and the length of its body.
    fn headers(&self, ticket: &Ticket) -> HeaderMap {
        let mut headers = self.plan.headers_of(ticket.sequence);
        let length = self.plan.upload_bytes.unwrap_or(self.plan.body.len() as u64);
        if length > 0 {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        headers
    }
}

impl Exchange for Caller {
    async fn exchange(&mut self, ticket: &Ticket) -> Result<Reply, Lost> {
        let request = self.request(self.plan.method.clone(), self.headers(ticket));
        let response = match self.plan.upload_bytes {
            Some(size) => self.upload(request, size).await?,
            None => self.send(request, self.plan.body.clone()).await?,
        };
        let (head, mut body) = response.into_parts();
        let mut body_bytes = 0;
        while let Some(data) = next_data(&mut body).await? {
            body_bytes += data.len() as u64;
        }
        judge(&self.plan, head.status, &head.headers, body_bytes)
    }
}

/// The next piece of a body, its window already given back.
///
/// # Errors
/// The loss, when the stream or connection fails before the end of the body.
pub(crate) async fn next_data(body: &mut RecvStream) -> Result<Option<Bytes>, Lost> {
    let Some(data) = body.data().await else { return Ok(None) };
    let data = data.map_err(|error| lost(&error))?;
    // Fails only for more than was received.
    body.flow_control().release_capacity(data.len()).map_err(|error| lost(&error))?;
    Ok(Some(data))
}

/// Names a failure of h2.
pub(crate) fn lost(error: &h2::Error) -> Lost {
    let kind = if error.is_go_away() && error.is_remote() {
        LostKind::Goaway
    } else if error.is_reset() && error.is_remote() {
        LostKind::Reset
    } else if error.is_io() {
        LostKind::Closed
    } else {
        LostKind::Protocol
    };
    Lost::new(kind, error)
}

async fn dial(plan: &Plan) -> Result<SendRequest<Bytes>, Lost> {
    let refused = |error: std::io::Error| Lost::new(LostKind::Connect, error);
    let stream = TcpStream::connect(plan.address).await.map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    let (io, drain) = coalesce(stream);
    let (sender, mut connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(io)
        .await
        .map_err(|error| Lost::new(LostKind::Connect, error))?;
    // Ends when the last sender is dropped or the peer closes; its error reaches the streams in flight.
    tokio::spawn(async move {
        let _seen_by_streams = poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx);
            // A failed write shows as a failed read at the next poll; pending is woken by the socket.
            let _drained = drain.poll_drain(cx);
            ended
        })
        .await;
    });
    Ok(sender)
}

/// Sends `size` zero bytes as the peer's window opens; ends early when the stream is reset.
async fn stream_zeros(mut stream: SendStream<Bytes>, size: u64) {
    let block = upload::block();
    let mut left = size;
    while left > 0 {
        stream.reserve_capacity(left.min(upload::BLOCK_BYTES as u64) as usize);
        let Some(Ok(granted)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let length = (granted as u64).min(left).min(upload::BLOCK_BYTES as u64);
        left -= length;
        if stream.send_data(block.slice(..length as usize), left == 0).is_err() {
            return;
        }
    }
}
