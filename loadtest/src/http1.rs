//! HTTP/1.1 callers: one keep-alive connection each, on hyper's client.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    caller::{Exchange, judge},
    plan::Plan,
    record::{Live, Lost, LostKind, Reply},
    schedule::Ticket,
    upload::Zeros,
};

/// Pause after a failed dial, so that a closed loop against a dead target is no busy loop.
pub(crate) const DIAL_PAUSE: Duration = Duration::from_millis(50);

type Body = Either<Full<Bytes>, Zeros>;

/// One HTTP/1.1 caller.
#[derive(Debug)]
pub(crate) struct Caller {
    plan: Arc<Plan>,
    sender: Option<http1::SendRequest<Body>>,
    live: Arc<Live>,
}

impl Caller {
    /// Opens the caller's connection.
    ///
    /// # Errors
    /// A loss of kind `Connect` with the cause.
    pub(crate) async fn connect(plan: Arc<Plan>, live: Arc<Live>) -> Result<Self, Lost> {
        let sender = Some(dial(&plan).await?);
        Ok(Self { plan, sender, live })
    }

    /// The connection to use next: the one held if it still takes requests, else a new one.
    async fn ready(&mut self) -> Result<http1::SendRequest<Body>, Lost> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        self.live.reconnected();
        let dialled = dial(&self.plan).await;
        if dialled.is_err() {
            tokio::time::sleep(DIAL_PAUSE).await;
        }
        dialled
    }

    fn request(&self, ticket: &Ticket) -> Request<Body> {
        let plan = &self.plan;
        let body = match plan.upload_bytes {
            Some(size) => Either::Right(Zeros::new(size)),
            None => Either::Left(Full::new(plan.body.clone())),
        };
        let mut request = Request::new(body);
        *request.method_mut() = plan.method.clone();
        *request.uri_mut() = plan.path.clone().into();
        *request.headers_mut() = plan.headers_of(ticket.sequence);
        // An authority parsed from a URL is a valid header value.
        let host = HeaderValue::from_str(&plan.authority).expect("authority");
        request.headers_mut().insert(header::HOST, host);
        request
    }
}

impl Exchange for Caller {
    async fn exchange(&mut self, ticket: &Ticket) -> Result<Reply, Lost> {
        let mut sender = self.ready().await?;
        let request = self.request(ticket);
        // Held here, not in `self`: a request cut off by its time-out takes its connection with it.
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failed) => {
                // Given back unsent: the server closed the idle connection first. Any client dials again.
                let Some(request) = failed.take_message() else { return Err(lost(&failed.into_error())) };
                sender = self.ready().await?;
                sender.send_request(request).await.map_err(|error| lost(&error))?
            }
        };
        let (head, body) = response.into_parts();
        let body_bytes = read_to_end(body).await?;
        self.sender = Some(sender);
        judge(&self.plan, head.status, &head.headers, body_bytes)
    }
}

async fn dial(plan: &Plan) -> Result<http1::SendRequest<Body>, Lost> {
    let refused = |error: std::io::Error| Lost::new(LostKind::Connect, error);
    let stream = TcpStream::connect(plan.address).await.map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
    // Ends when the sender is dropped or the peer closes; its error reaches the request in flight.
    tokio::spawn(async move {
        let _seen_by_request = connection.await;
    });
    Ok(sender)
}

async fn read_to_end(mut body: Incoming) -> Result<u64, Lost> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| lost(&error))?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

fn lost(error: &hyper::Error) -> Lost {
    let kind = if error.is_parse() { LostKind::Protocol } else { LostKind::Closed };
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Lost::new(kind, format_args!("{error}{cause}"))
}
