//! One record per call of `Egress`, whatever becomes of it: answered, refused by tonic, or abandoned.
//!
//! A wrapper around the service: it opens a record before anything is read, the method fills it in, and it is
//! recorded when the answer is there or the call is dropped.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, Response, Version};
use parking_lot::Mutex;
use pool::{Journey, RetrySafe};
use tokio::time::Instant;
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{
    core::{CallerIdentity, Failure, Placed},
    error,
};
use crate::{
    egress::Share,
    outcome::ErrorCode,
    telemetry::{CallerProtocol, Ended, Outcome, RecorderHandle},
};

/// The record of a call in progress, shared by the wrapper and the method through the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct OpenRecord {
    draft: Arc<Mutex<Draft>>,
    share: Option<Share>,
}

#[derive(Debug)]
pub(super) struct Draft {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) correlation_id: Option<HeaderValue>,
    pub(super) placed: Option<Placed>,
    pub(super) bytes_in: u64,
    result: Drafted,
}

/// What became of the call.
#[derive(Debug)]
enum Drafted {
    /// Nothing yet: if it stays so, the caller went away.
    Open,
    Response {
        status: u16,
        bytes_out: u64,
        journey: Journey,
    },
    Failed {
        code: ErrorCode,
        retry_safe: RetrySafe,
        journey: Journey,
    },
}

impl OpenRecord {
    /// Fills in what is known of the request.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut Draft)) {
        edit(&mut self.draft.lock());
    }

    /// Whose share of the queue the call takes.
    pub(super) fn share(&self) -> Option<Share> {
        self.share
    }

    /// The provider's response is there.
    pub(super) fn responded(&self, status: u16, bytes_out: u64, journey: Journey) {
        self.draft.lock().result = Drafted::Response { status, bytes_out, journey };
    }

    /// There is none.
    pub(super) fn failed(&self, failure: &Failure) {
        let Failure { code, retry_safe, journey, .. } = *failure;
        self.draft.lock().result = Drafted::Failed { code, retry_safe, journey };
    }
}

/// Records the call when dropped.
struct Ticket {
    record: OpenRecord,
    recorder: RecorderHandle,
    started: Instant,
    peer: Option<SocketAddr>,
}

impl Ticket {
    fn open<B>(request: &mut Request<B>, recorder: RecorderHandle) -> Self {
        let draft = Arc::new(Mutex::new(Draft {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            correlation_id: None,
            placed: None,
            bytes_in: 0,
            result: Drafted::Open,
        }));
        let caller = request.extensions().get::<CallerIdentity>();
        let peer = caller.and_then(|caller| caller.address);
        let record = OpenRecord { draft, share: caller.map(|caller| caller.share) };
        request.extensions_mut().insert(record.clone());
        Self { record, recorder, started: Instant::now(), peer }
    }

    /// Looks at the answer: one that the method did not make is tonic's refusal of what it could not read.
    fn answer(&self, response: Response<Body>) -> Response<Body> {
        if !matches!(self.record.draft.lock().result, Drafted::Open) {
            return response;
        }
        let Some(refusal) = Status::from_header_map(response.headers()) else { return response };
        let failure = Failure::before_send(error::code_of_refusal(refusal.code()), refusal.message());
        self.record.failed(&failure);
        error::status(&failure, None).into_http()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let draft = self.record.draft.lock();
        let gone = ErrorCode::CallerGone;
        let (status, code, retry_safe, journey, bytes_out, ended) = match draft.result {
            Drafted::Open => (gone.row().status, Some(gone), None, Journey::default(), 0, Ended::CallerGone),
            Drafted::Response { status, bytes_out, journey } => {
                (status, None, None, journey, bytes_out, Ended::Complete)
            }
            Drafted::Failed { code, retry_safe, journey } => {
                (code.row().status, Some(code), Some(retry_safe), journey, 0, Ended::GatewayReply)
            }
        };
        self.recorder.record(&Outcome {
            started: self.started,
            total: self.started.elapsed(),
            method: &draft.method,
            path: &draft.path,
            correlation_id: draft.correlation_id.as_ref().map_or(b"", HeaderValue::as_bytes),
            route: draft.placed.and_then(|placed| placed.route),
            environment: draft.placed.map(|placed| placed.environment),
            protocol: CallerProtocol::Grpc,
            peer: self.peer,
            caller: self.record.share.and_then(|share| share.name),
            status,
            code,
            retry_safe,
            journey,
            bytes_in: draft.bytes_in,
            bytes_out,
            ended,
        });
    }
}

const NOT_GRPC: &str = "this path is reserved for gRPC: send content-type application/grpc over HTTP/2";

/// A service whose calls are recorded.
#[derive(Clone)]
pub(super) struct Recorded<S> {
    inner: S,
    recorder: RecorderHandle,
}

impl<S> Recorded<S> {
    pub(super) fn new(inner: S, recorder: RecorderHandle) -> Self {
        Self { inner, recorder }
    }
}

impl<S: NamedService> NamedService for Recorded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Recorded<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let ticket = Ticket::open(&mut request, self.recorder.clone());
        if request.version() < Version::HTTP_2 || !super::is_grpc(request.headers()) {
            let failure = Failure::before_send(ErrorCode::BadRequest, NOT_GRPC);
            ticket.record.failed(&failure);
            return Box::pin(std::future::ready(Ok(error::problem(&failure))));
        }
        let answering = self.inner.call(request);
        Box::pin(async move {
            let response = answering.await?;
            Ok(ticket.answer(response))
        })
    }
}
