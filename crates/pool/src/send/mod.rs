//! A request through the pool: lease, attempt, verdict, replay, response.
//!
//! Owns the order of things and the time limits. Leases come from `hub`, one attempt is `exchange`, the request
//! body is `upload`, the response body is `body`, the rule for replays is `verdict`.

mod body;
mod exchange;
mod http1;
mod time_left;
mod upload;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, header, request};
use http_body::Body;
use tokio::time::Instant;

pub use self::{
    body::ResponseBody,
    time_left::{TimeForm, TimeLeft},
};
use self::{
    body::{BodyLimits, Rest},
    exchange::{Answered, Limits, Unanswered, attempt},
    upload::Upload,
};
use crate::{
    config::{RetryPolicy, Timeouts},
    error::{SendError, SendErrorKind},
    http1::Fitness,
    hub::{Preference, StreamLease, Turned, Wanted},
    journey::Journey,
    queue::Caller,
    status::CauseOfDeath,
    supervisor::Context,
    verdict::{Decision, RetrySafe, Verdict},
};

/// What request bodies may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How one request is to be treated.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// Time limits; `connect`, `tls` and `prove` are the pool's own.
    pub timeouts: Timeouts,
    /// What may be sent again.
    pub retry: RetryPolicy,
    /// Largest request body in bytes; `u64::MAX` for no limit.
    pub max_body_bytes: u64,
    /// On whose behalf it is sent, for a fair share of streams when they are scarce.
    pub caller: Caller,
}

/// Carries one request; see [`crate::Pool::send`].
pub(crate) async fn send<B>(
    context: &Arc<Context>,
    request: Request<B>,
    options: &SendOptions,
    journey: &mut Journey,
) -> Result<Response<ResponseBody>, SendError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let head = Head::new(parts);
    let config = &context.config;
    let upload = Upload::new(
        body,
        options.max_body_bytes,
        &context.hub,
        config.replay_buffer_bytes,
        config.replay_buffer_total_bytes,
    );
    let deadline = options.timeouts.total.map(|total| Instant::now() + total);
    let carrier = Carrier { context, options, deadline, journey, may_have_acted: false };
    carrier.carry(head, upload).await
}

/// The header of a request, kept so that it can be sent again.
struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Told anew with each attempt.
    time_left: Option<TimeLeft>,
}

impl Head {
    fn new(mut parts: request::Parts) -> Self {
        let time_left = parts.extensions.remove();
        Self { method: parts.method, uri: parts.uri, headers: parts.headers, time_left }
    }

    fn to_request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        *request.version_mut() = http::Version::HTTP_2;
        if let Some(time_left) = &self.time_left {
            time_left.write(request.headers_mut(), Instant::now());
        }
        request
    }
}

/// One request on its way.
struct Carrier<'a> {
    context: &'a Arc<Context>,
    options: &'a SendOptions,
    deadline: Option<Instant>,
    /// The way so far; it outlives a request that is dropped half way.
    journey: &'a mut Journey,
    /// An earlier attempt may have been processed.
    may_have_acted: bool,
}

impl Carrier<'_> {
    async fn carry<B>(
        mut self,
        head: Head,
        mut upload: Upload<B>,
    ) -> Result<Response<ResponseBody>, SendError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        loop {
            let lease = match self.lease().await {
                Ok(lease) => lease,
                Err(kind) => return Err(self.before_send(kind)),
            };
            if !self.is_fit(&lease).await {
                self.context.hub.take_back(lease);
                continue;
            }
            let began = self.note_lease(&lease);
            let heard = lease.link().vitals().heard();
            let limits = self.limits();
            let unanswered = if let Some(loan) = lease.loan() {
                match http1::attempt(&self.context.hub, &lease, loan, &head, upload, limits).await {
                    Ok(answered) => return Ok(self.deliver_http1(answered, lease, began)),
                    Err((unanswered, back)) => {
                        upload = back;
                        unanswered
                    }
                }
            } else {
                match attempt(&lease, head.to_request(), &mut upload, limits).await {
                    Ok(answered) => {
                        if lease.link().vitals().responded() {
                            self.context.hub.supervisor.notify_one();
                        }
                        self.journey.body_bytes = upload.taken();
                        return Ok(self.deliver(answered, upload, lease, began));
                    }
                    Err(unanswered) => unanswered,
                }
            };
            self.journey.body_bytes = upload.taken();
            self.note_times(began, None);
            self.note_dying(&lease, &unanswered);
            self.note_silence(&lease, heard, began, &unanswered);
            // The permit goes back before the next lease is asked for.
            drop(lease);
            self.judge(&head.method, &upload, unanswered).map_err(|e| *e)?;
        }
    }

    /// Looks at a connection that is lent exclusively before it is used: one that the provider closed while it was
    /// idle costs no attempt.
    async fn is_fit(&self, lease: &StreamLease) -> bool {
        let Some(loan) = lease.loan() else { return true };
        match loan.fitness().await {
            Fitness::Fit => return true,
            // Its own task sees the end and says how it came; bb8 does not lend it again.
            Fitness::Ended => {}
            Fitness::Spoilt => loan.retire(CauseOfDeath::ProtocolError),
        }
        self.context.hub.counters.stale_unsent.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn body_limits(&self) -> BodyLimits {
        BodyLimits { idle: self.options.timeouts.idle, deadline: self.deadline }
    }

    fn limits(&self) -> Limits {
        let timeouts = &self.options.timeouts;
        Limits {
            response_header: timeouts.response_header,
            idle: timeouts.idle,
            deadline: self.deadline,
            header_bytes: self.context.config.max_response_header_bytes,
        }
    }

    /// A stream on a proven connection, at once or after waiting its turn.
    async fn lease(&mut self) -> Result<StreamLease, SendErrorKind> {
        let preference = match (self.journey.attempts, self.journey.connection) {
            (1.., Some(failed)) => Preference::Replay { avoid: failed },
            _ => Preference::Balanced,
        };
        if let Some(lease) = self.context.hub.try_lease(preference) {
            return Ok(lease);
        }
        match self.wait_for_lease(preference).await? {
            Ok(lease) => Ok(lease),
            Err(Turned::Failed(kind)) => Err(kind),
        }
    }

    async fn wait_for_lease(
        &mut self,
        preference: Preference,
    ) -> Result<Result<StreamLease, Turned>, SendErrorKind> {
        let hub = &self.context.hub;
        // Nothing serves and we know why: say so now, not when the queue's time is up.
        if let Some(outage) = hub.outage()
            && hub.links().iter().all(|link| link.state() != crate::connection::State::Serving)
        {
            return Err(SendErrorKind::Unavailable(outage.error.clone()));
        }
        let began = Instant::now();
        let limit = self.queue_limit();
        let caller = self.options.caller;
        let wanted = Wanted { preference, caller, until: began + limit, deadline: self.deadline };
        let mut place = hub.enqueue(wanted)?;
        let waited = tokio::time::timeout(limit, place.turn()).await;
        let after = began.elapsed();
        self.journey.queue += after;
        if !std::mem::replace(&mut self.journey.waited_for_dial, true) {
            hub.counters.waited.fetch_add(1, Ordering::Relaxed);
        }
        match waited {
            Ok(turn) => {
                if let Ok(lease) = &turn
                    && let (took, served_from) = lease.link().dialled()
                    && served_from > began
                {
                    self.journey.connect = took;
                }
                Ok(turn)
            }
            Err(_) => Err(SendErrorKind::QueueTimeout { after }),
        }
    }

    /// How long to wait for a stream: the queue's limit, or what the deadline leaves.
    fn queue_limit(&self) -> Duration {
        let queue = self.options.timeouts.queue;
        self.deadline.map_or(queue, |deadline| queue.min(deadline.saturating_duration_since(Instant::now())))
    }

    fn note_lease(&mut self, lease: &StreamLease) -> Instant {
        let link = lease.link();
        if self.journey.attempts > 0 {
            self.context.hub.counters.further_leases.fetch_add(1, Ordering::Relaxed);
        }
        self.journey.attempts += 1;
        self.journey.connection = Some(link.id());
        self.journey.generation = link.birth.generation;
        self.journey.reused = lease.is_reuse();
        self.journey.resumed = link.birth.facts.kind.is_resumed();
        Instant::now()
    }

    fn note_times(&mut self, began: Instant, sent_at: Option<Instant>) {
        self.journey.ttfb = began.elapsed();
        self.journey.send = sent_at.map_or(self.journey.ttfb, |at| at.saturating_duration_since(began));
    }

    /// A connection that opens no more streams, or said GOAWAY, is not to be picked again: its own driver may not
    /// have come to say so yet.
    fn note_dying(&self, lease: &StreamLease, failed: &Unanswered) {
        let cause = match (failed.verdict, &failed.kind) {
            (Verdict::AboveGoaway, _) => CauseOfDeath::Goaway,
            (Verdict::NotSent, SendErrorKind::ProviderReset { .. }) => CauseOfDeath::ClosedByProvider,
            _ => return,
        };
        lease.link().retire(cause, Instant::now());
        self.context.hub.supervisor.notify_one();
    }

    /// A response that did not come in time, on a connection from which nothing was heard meanwhile, makes the
    /// connection suspect: a PING decides whether it lives.
    fn note_silence(&self, lease: &StreamLease, heard: u64, began: Instant, failed: &Unanswered) {
        use SendErrorKind::{ResponseTimeout, TotalTimeout};
        let timed_out = matches!(failed.kind, ResponseTimeout { .. } | TotalTimeout { .. });
        // A caller in a hurry proves nothing.
        if !timed_out || began.elapsed() < TELLING_SILENCE {
            return;
        }
        let link = lease.link();
        if link.vitals().timed_out(heard, self.context.config.suspect_after) {
            tracing::warn!(environment = %self.context.key.environment, connection = %link.id(),
                "requests time out and nothing is heard: the connection is under suspicion");
            link.wake_driver();
            self.context.hub.supervisor.notify_one();
        }
    }

    /// Replay (`Ok`) or report.
    fn judge<B>(
        &mut self,
        method: &Method,
        upload: &Upload<B>,
        failed: Unanswered,
    ) -> Result<(), Box<SendError>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
    {
        let Unanswered { kind, verdict } = failed;
        let ours = matches!(
            kind,
            SendErrorKind::InvalidRequest { .. }
                | SendErrorKind::CallerGone { .. }
                | SendErrorKind::BodyTooLarge { .. }
        );
        let timed_out = matches!(
            kind,
            SendErrorKind::ResponseTimeout { .. }
                | SendErrorKind::IdleTimeout { .. }
                | SendErrorKind::TotalTimeout { .. }
        );
        let decision = if ours || timed_out {
            Decision::Report(if ours { RetrySafe::No } else { RetrySafe::Unknown })
        } else {
            self.context.observer.retried(verdict);
            verdict.decide(self.options.retry, method, upload.body_held(), self.journey.attempts)
        };
        match decision {
            Decision::Replay => {
                self.may_have_acted |= verdict == Verdict::MaybeProcessed;
                self.context.hub.counters.replays.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Decision::Report(retry_safe) => {
                let (verdict, retry_safe) = self.in_doubt(verdict, retry_safe);
                Err(Box::new(SendError { kind, verdict: Some(verdict), retry_safe, journey: *self.journey }))
            }
        }
    }

    /// A failure before any byte could have been sent, or between two attempts that were not processed.
    fn before_send(&self, kind: SendErrorKind) -> SendError {
        let (verdict, retry_safe) = self.in_doubt(Verdict::NotSent, RetrySafe::Yes);
        SendError { kind, verdict: Some(verdict), retry_safe, journey: *self.journey }
    }

    /// Once an earlier attempt may have been processed, no later one can make a retry safe.
    fn in_doubt(&self, verdict: Verdict, retry_safe: RetrySafe) -> (Verdict, RetrySafe) {
        if self.may_have_acted {
            (Verdict::MaybeProcessed, RetrySafe::Unknown)
        } else {
            (verdict, retry_safe)
        }
    }

    fn deliver_http1(
        mut self,
        answered: http1::Answered,
        lease: StreamLease,
        began: Instant,
    ) -> Response<ResponseBody> {
        let http1::Answered { response, progress, taken } = answered;
        let moved = progress.moved();
        self.note_times(began, moved.ended.then_some(moved.at));
        self.journey.body_bytes = taken;
        response.map(|body| ResponseBody::http11(body, lease, progress, self.body_limits()))
    }

    fn deliver<B>(
        mut self,
        answered: Answered,
        upload: Upload<B>,
        lease: StreamLease,
        began: Instant,
    ) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let Answered { response, unfinished, sent_at } = answered;
        self.note_times(began, sent_at);
        let idle = self.options.timeouts.idle;
        // The response began before the body ended: the rest goes on beside it, as long as anybody reads.
        let rest = unfinished.map(|stream| {
            let caller_left = Arc::new(AtomicBool::new(false));
            let task = tokio::spawn(finish_upload(upload, stream, idle, caller_left.clone()));
            Rest::new(task.abort_handle(), caller_left)
        });
        let (parts, stream) = response.into_parts();
        let length = content_length(&parts.headers);
        let body = ResponseBody::h2(stream, rest, lease, length, self.body_limits());
        Response::from_parts(parts, body)
    }
}

/// Shorter silences than this are no sign of a dead connection, whatever limit a caller set.
const TELLING_SILENCE: Duration = Duration::from_secs(1);

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Sends the rest of a body beside its response. Ends with the body, the stream, or a standstill.
async fn finish_upload<B>(
    mut upload: Upload<B>,
    mut stream: h2::SendStream<Bytes>,
    idle: Duration,
    caller_left: Arc<AtomicBool>,
) where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    upload.let_go();
    loop {
        let mut moved = false;
        let step = std::future::poll_fn(|cx| {
            let mut now = false;
            let step = upload.poll_pump(cx, &mut stream, &mut now);
            moved |= now;
            if step.is_pending() && now { std::task::Poll::Ready(None) } else { step.map(Some) }
        });
        match tokio::time::timeout(idle, step).await {
            Ok(None) => {}
            Ok(Some(Ok(()))) => return,
            // The provider wants no more; the response tells.
            Ok(Some(Err(upload::UploadError::Stream))) => return,
            Ok(Some(Err(_))) => {
                caller_left.store(true, Ordering::Release);
                stream.send_reset(h2::Reason::CANCEL);
                return;
            }
            Err(_) => {
                stream.send_reset(h2::Reason::CANCEL);
                return;
            }
        }
    }
}
