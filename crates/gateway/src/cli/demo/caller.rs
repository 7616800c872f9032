//! One way to call the gateway: HTTP/1.1 on a connection of one's own, or h2c on a connection shared by many.
//!
//! Owns connections to the egress listener and the judgement of answers. A request that was not handed to a
//! connection is handed to another; one that was is never sent again here: whether it is lost is the question.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tokio_util::task::TaskTracker;

/// A request with a small body, as these services send them.
pub(super) type Call = Request<Full<Bytes>>;

/// The gateway gives up earlier by its own time-outs; this is for the case that it does not.
const PATIENCE: Duration = Duration::from_secs(40);
/// Connections tried for a request that none of them has been given yet.
const UNSENT_ATTEMPTS: u32 = 3;

/// How a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, one request at a time.
    Http11,
    /// HTTP/2 cleartext by prior knowledge.
    H2c,
}

/// A way to the gateway. Shared by callers where the protocol allows it.
pub(super) struct Link {
    address: SocketAddr,
    protocol: Protocol,
    /// Drives the connections.
    tasks: TaskTracker,
    held: Mutex<Option<Sender>>,
}

enum Sender {
    Http11(http1::SendRequest<Full<Bytes>>),
    H2c(http2::SendRequest<Full<Bytes>>),
}

impl Link {
    pub(super) fn new(address: SocketAddr, protocol: Protocol, tasks: TaskTracker) -> Self {
        Self { address, protocol, tasks, held: Mutex::new(None) }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sends a request and reads the whole answer. The error is the reason why it is lost.
    pub(super) async fn call(&self, call: Call, expected_bytes: usize) -> Result<(), String> {
        match timeout(PATIENCE, self.exchange(call, expected_bytes)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn exchange(&self, mut call: Call, expected_bytes: usize) -> Result<(), String> {
        for _ in 0..UNSENT_ATTEMPTS {
            let mut sender = self.sender().await.map_err(|e| format!("connect: {e}"))?;
            match sender.send(call).await {
                Ok(response) => {
                    judge(response, expected_bytes).await?;
                    self.give_back(sender).await;
                    return Ok(());
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => call = unsent,
                    None => return Err(format!("transport: {}", cause(error.error()))),
                },
            }
        }
        Err("no connection took it".to_owned())
    }

    /// The connection there is, or a new one.
    async fn sender(&self) -> Result<Sender, String> {
        let mut held = self.held.lock().await;
        match held.take() {
            // The next caller finds it there too.
            Some(Sender::H2c(sender)) if !sender.is_closed() => {
                *held = Some(Sender::H2c(sender.clone()));
                return Ok(Sender::H2c(sender));
            }
            Some(Sender::Http11(mut sender)) => {
                if sender.ready().await.is_ok() {
                    return Ok(Sender::Http11(sender));
                }
            }
            Some(Sender::H2c(_)) | None => {}
        }
        // Dialled under the lock: the callers of a shared link wait for one connection, not for many.
        let sender = self.dial().await?;
        if let Sender::H2c(shared) = &sender {
            *held = Some(Sender::H2c(shared.clone()));
        }
        Ok(sender)
    }

    async fn give_back(&self, sender: Sender) {
        if let Sender::Http11(_) = sender {
            *self.held.lock().await = Some(sender);
        }
    }

    async fn dial(&self) -> Result<Sender, String> {
        let tcp = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let io = TokioIo::new(tcp);
        // What ends a connection is told to the requests on it.
        match self.protocol {
            Protocol::Http11 => {
                let (sender, connection) = http1::handshake(io).await.map_err(|e| cause(&e))?;
                self.tasks.spawn(async { drop(connection.await) });
                Ok(Sender::Http11(sender))
            }
            Protocol::H2c => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.map_err(|e| cause(&e))?;
                self.tasks.spawn(async { drop(connection.await) });
                Ok(Sender::H2c(sender))
            }
        }
    }
}

impl Sender {
    async fn send(&mut self, call: Call) -> Result<Response<Incoming>, TrySendError<Call>> {
        match self {
            Self::Http11(sender) => sender.try_send_request(call).await,
            Self::H2c(sender) => sender.try_send_request(call).await,
        }
    }
}

/// Answered is: 2xx, and the whole body that was sent, for these providers echo.
async fn judge(response: Response<Incoming>, expected_bytes: usize) -> Result<(), String> {
    let status = response.status();
    let code =
        response.headers().get("gw-error").and_then(|code| code.to_str().ok()).unwrap_or("").to_owned();
    let body = response.into_body().collect().await.map_err(|e| format!("body: {}", cause(&e)))?;
    if !status.is_success() {
        return Err(format!("{} {code}", status.as_u16()).trim_end().to_owned());
    }
    let received = body.to_bytes().len();
    if received == expected_bytes { Ok(()) } else { Err("another body than was sent".to_owned()) }
}

/// The last of the errors: the one that says what happened.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
