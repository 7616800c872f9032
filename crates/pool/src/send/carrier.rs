//! One request on its way: lease, attempt, verdict, and again where that is right.
//!
//! Owns the order of things, the time limits and what is written to the journey. It decides nothing about replays: that
//! is `ledger`'s.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, header};
use http_body::Body;
use tokio::time::Instant;

use super::{
    BoxError, Head, ResponseBody, SendOptions,
    body::{Beside, BodyLimits, Rest},
    exchange::{Answered, Connection, Limits, Unanswered, attempt},
    http1,
    ledger::{Cause, Denied, Failed, Ledger, Loss, Report, Ruling, Starved, Terms},
    upload::{Upload, UploadError, WaitsFor},
};
use crate::{
    config::RetryPolicy,
    connection::State,
    error::{BodyError, SendError, SendErrorKind},
    hub::{Patience, Preference, StreamLease, Turned, Wanted},
    journey::{Journey, Phase},
    status::CauseOfDeath,
    supervisor::Context,
    verdict::{MAX_ATTEMPTS, Verdict},
};

/// One request on its way.
pub(super) struct Carrier<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) options: &'a SendOptions,
    deadline: Option<Instant>,
    /// The way so far; it outlives a request that is dropped half way.
    pub(super) journey: &'a mut Journey,
    ledger: Ledger,
    /// It is among the pool's requests.
    counted: bool,
    /// When a GOAWAY last disowned it.
    disowned_at: Option<Instant>,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(context: &'a Arc<Context>, options: &'a SendOptions, journey: &'a mut Journey) -> Self {
        let deadline = options.timeouts.total.map(|total| Instant::now() + total);
        Self {
            context,
            options,
            deadline,
            journey,
            ledger: Ledger::default(),
            counted: false,
            disowned_at: None,
        }
    }
}

impl Carrier<'_> {
    pub(super) async fn carry<B>(
        mut self,
        head: Head,
        mut upload: Upload<B>,
    ) -> Result<Response<ResponseBody>, SendError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        loop {
            let mut lease = match self.lease().await {
                Ok(lease) => lease,
                Err(kind) => return Err(self.before_send(kind)),
            };
            if lease.loan().is_some() {
                // Boxed, like whatever else is rare: a request's future is moved several times before it runs.
                match Box::pin(self.fit(lease)).await {
                    Ok(Some(fit)) => lease = fit,
                    Ok(None) => continue,
                    Err(kind) => return Err(self.before_send(kind)),
                }
            }
            let began = self.note_lease(&lease);
            let heard = lease.link().vitals().heard();
            let limits = self.limits();
            // The lease goes back, or stays with its stream, before the next one is asked for.
            let unanswered = if lease.loan().is_some() {
                match Box::pin(http1::attempt(self.context, lease, &head, upload, limits)).await {
                    Ok(answered) => return Ok(self.deliver_http1(answered, began)),
                    Err((unanswered, back)) => {
                        upload = back;
                        unanswered
                    }
                }
            } else {
                match attempt(lease, head.to_request(), &mut upload, limits).await {
                    Ok(answered) => return Ok(self.deliver(answered, upload, began)),
                    Err(unanswered) => unanswered,
                }
            };
            self.journey.body_bytes = upload.taken();
            self.note_times(began, None);
            self.journey.phase = unanswered.phase;
            self.note_dying(&unanswered);
            self.note_silence(heard, began, &unanswered);
            self.judge(&head.method, &upload, unanswered).map_err(|e| *e)?;
        }
    }

    /// This lease or another, of a connection that is fit to carry the request; `None`: lease anew.
    async fn fit(&mut self, lease: StreamLease) -> Result<Option<StreamLease>, SendErrorKind> {
        let (preference, limit) = (self.preference(), self.queue_limit());
        let Context { hub, observer, .. } = &**self.context;
        let fit = http1::fit((hub, &**observer), lease, preference, limit, &mut self.journey.queue).await;
        fit.map_err(|after| SendErrorKind::QueueTimeout { after })
    }

    fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            idle: self.options.timeouts.idle,
            deadline: self.deadline,
            resets: self.context.config.resets_per_30s,
        }
    }

    fn limits(&self) -> Limits {
        let timeouts = &self.options.timeouts;
        Limits {
            response_header: timeouts.response_header,
            idle: timeouts.idle,
            deadline: self.deadline,
            resets: self.context.config.resets_per_30s,
            header_bytes: self.context.config.max_response_header_bytes,
        }
    }

    /// A stream on a proven connection, at once or after waiting its turn.
    async fn lease(&mut self) -> Result<StreamLease, SendErrorKind> {
        let preference = self.preference();
        if let Some(moment) = self.disowned_at.filter(|_| self.ledger.attempts() + 1 == MAX_ATTEMPTS) {
            // The last attempt is worth a wait: not another connection that is about to end as well.
            if let Some(lease) = Box::pin(self.wait_for_young(moment)).await {
                return Ok(lease);
            }
        }
        if let Some(lease) = self.context.hub.try_lease(preference) {
            return Ok(lease);
        }
        match Box::pin(self.wait_for_lease(preference)).await? {
            Ok(lease) => Ok(lease),
            Err(Turned::Failed(kind)) => Err(kind),
        }
    }

    fn preference(&self) -> Preference {
        match self.journey.connection {
            // Set by an earlier lease of this request: it came to nothing there.
            Some(failed) => Preference::Replay { avoid: failed },
            None => Preference::Balanced,
        }
    }

    async fn wait_for_young(&mut self, moment: Instant) -> Option<StreamLease> {
        let hub = &self.context.hub;
        let began = Instant::now();
        if let Some(lease) = hub.lease_born_after(moment, began).await {
            return Some(lease);
        }
        let lease = hub.lease_born_after(moment, began + self.queue_limit().min(WAIT_FOR_YOUNG)).await;
        self.note_wait(began.elapsed());
        lease
    }

    fn note_wait(&mut self, after: Duration) {
        self.journey.queue += after;
        if !std::mem::replace(&mut self.journey.waited_for_dial, true) {
            self.context.hub.counters.waited.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn wait_for_lease(
        &mut self,
        preference: Preference,
    ) -> Result<Result<StreamLease, Turned>, SendErrorKind> {
        let hub = &self.context.hub;
        // What the provider took and handed back is not failed while a connection may yet come.
        let patience = if self.ledger.is_owed() { Patience::ThroughOutage } else { Patience::WhileServed };
        // Nothing serves and we know why: say so now, not when the queue's time is up.
        if patience == Patience::WhileServed
            && let Some(why) = self.why_nothing_serves()
        {
            return Err(why);
        }
        let began = Instant::now();
        let limit = self.queue_limit();
        let caller = self.options.caller;
        let wanted = Wanted { preference, caller, until: began + limit, patience, deadline: self.deadline };
        let mut place = hub.enqueue(wanted)?;
        let waited = tokio::time::timeout(limit, place.turn()).await;
        drop(place);
        let after = began.elapsed();
        self.note_wait(after);
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
            Err(_) => Err(self.why_nothing_serves().unwrap_or(SendErrorKind::QueueTimeout { after })),
        }
    }

    /// Why the last dial failed, if nothing serves.
    fn why_nothing_serves(&self) -> Option<SendErrorKind> {
        let hub = &self.context.hub;
        let outage = hub.outage()?;
        let serves = hub.links().iter().any(|link| link.state() == State::Serving);
        (!serves).then(|| SendErrorKind::Unavailable(outage.error.clone()))
    }

    /// How long to wait for a stream: the queue's limit, or what the deadline leaves.
    fn queue_limit(&self) -> Duration {
        let queue = self.options.timeouts.queue;
        self.deadline.map_or(queue, |deadline| queue.min(deadline.saturating_duration_since(Instant::now())))
    }

    fn note_lease(&mut self, lease: &StreamLease) -> Instant {
        self.journey.reused = lease.is_reuse();
        if self.counted {
            self.context.hub.counters.further_leases.fetch_add(1, Ordering::Relaxed);
        }
        let link = lease.link();
        if !std::mem::replace(&mut self.counted, true) && self.options.retry == RetryPolicy::Idempotent {
            let sending = &self.context.sending;
            sending.retries.note_request(sending.since_begin());
        }
        self.ledger.begin();
        self.journey.attempts = self.ledger.attempts();
        self.journey.phase = Phase::Headers;
        self.journey.connection = Some(link.id());
        self.journey.generation = link.birth.generation;
        self.journey.resumed = link.birth.facts.kind.is_resumed();
        Instant::now()
    }

    fn note_times(&mut self, began: Instant, sent_at: Option<Instant>) {
        self.journey.ttfb = began.elapsed();
        self.journey.send = sent_at.map_or(self.journey.ttfb, |at| at.saturating_duration_since(began));
    }

    /// A connection that opens no more streams, or said GOAWAY, is not to be picked again: its own driver may not
    /// have come to say so yet.
    fn note_dying(&mut self, failed: &Unanswered) {
        if failed.connection == Connection::Goes {
            return;
        }
        let goaway = failed.verdict == Verdict::AboveGoaway;
        self.disowned_at = goaway.then(Instant::now).or(self.disowned_at);
        let cause = if goaway { CauseOfDeath::Goaway } else { CauseOfDeath::ClosedByProvider };
        failed.link.retire(cause, Instant::now());
        self.context.hub.supervisor.notify_one();
    }

    /// A response that did not come in time, on a connection from which nothing was heard meanwhile, makes the
    /// connection suspect: a PING decides whether it lives.
    fn note_silence(&self, heard: u64, began: Instant, failed: &Unanswered) {
        use SendErrorKind::{ResponseTimeout, TotalTimeout};
        let timed_out = matches!(failed.kind, ResponseTimeout { .. } | TotalTimeout { .. });
        // A caller in a hurry proves nothing.
        if !timed_out || began.elapsed() < TELLING_SILENCE {
            return;
        }
        let link = &failed.link;
        if link.vitals().timed_out(heard, self.context.config.suspect_after) {
            tracing::warn!(environment = %self.context.key.environment, connection = %link.id(),
                "requests time out and nothing is heard: the connection is under suspicion");
            link.wake_driver();
            self.context.hub.note_silence();
        }
    }

    /// Another attempt (`Ok`) or the report.
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
        let Context { config, sending, hub, observer, .. } = &**self.context;
        let Unanswered { kind, verdict, .. } = failed;
        let cause = cause_of(&kind);
        let policy = self.options.retry;
        let terms = Terms { policy, last_stream_id: config.last_stream_id, method };
        let failed = Failed { verdict, cause, body: upload.body_held() };
        let affordable = || sending.retries.try_charge(sending.since_begin());
        let ruling = self.ledger.rule(failed, terms, affordable);
        if cause == Cause::Provider {
            observer.retried(verdict.under(config.last_stream_id, method));
        }
        match ruling {
            Ruling::Replay | Ruling::LeaseAnew => {
                self.journey.attempts = self.ledger.attempts();
                self.journey.phase = Phase::Waiting;
                hub.counters.replays.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ruling::Report(report) => Err(Box::new(self.fail(kind, report))),
        }
    }

    /// A failure before any byte could have been sent, or between two attempts.
    fn before_send(&self, kind: SendErrorKind) -> SendError {
        let ours = matches!(kind, SendErrorKind::QueueFull { .. } | SendErrorKind::QueueTimeout { .. });
        let caller_is_out_of_time = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let starved = if ours && !caller_is_out_of_time { Starved::Queue } else { Starved::Beyond };
        self.fail(kind, self.ledger.starve(starved))
    }

    fn fail(&self, kind: SendErrorKind, report: Report) -> SendError {
        let Context { hub, observer, .. } = &**self.context;
        if report.denied == Denied::ByBudget {
            hub.counters.retries_denied.fetch_add(1, Ordering::Relaxed);
            observer.retry_denied();
        }
        if report.loss == Loss::Unprocessed {
            hub.counters.unprocessed_lost.fetch_add(1, Ordering::Relaxed);
            observer.unprocessed_lost();
        }
        let Report { verdict, retry_safe, .. } = report;
        SendError { kind, verdict: Some(verdict), retry_safe, journey: *self.journey }
    }

    fn deliver_http1(mut self, answered: http1::Answered, began: Instant) -> Response<ResponseBody> {
        let http1::Answered { response, progress, taken, lease } = answered;
        let moved = progress.moved();
        self.note_times(began, moved.ended.then_some(moved.at));
        self.context.hub.note_answer();
        self.journey.body_bytes = taken;
        self.journey.phase = Phase::ResponseBody;
        response.map(|body| ResponseBody::http11(body, lease, progress, self.body_limits()))
    }

    fn deliver<B>(mut self, answered: Answered, upload: Upload<B>, began: Instant) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let Answered { response, unfinished, sent_at, lease } = answered;
        if lease.link().vitals().responded() {
            self.context.hub.supervisor.notify_one();
        }
        self.journey.body_bytes = upload.taken();
        self.note_times(began, sent_at);
        self.context.hub.note_answer();
        self.journey.phase = Phase::ResponseBody;
        // The response began before the body ended: the rest goes on beside it, as long as anybody reads.
        let rest = unfinished.map(|stream| {
            let beside = Beside::new(Instant::now());
            let task = tokio::spawn(finish_upload(upload, stream, beside.clone()));
            Rest::new(task.abort_handle(), beside)
        });
        let (parts, stream) = response.into_parts();
        let length = content_length(&parts.headers);
        let sweeper = &self.context.sending.sweeper;
        let body = ResponseBody::h2(stream, rest, lease, length, self.body_limits(), sweeper);
        Response::from_parts(parts, body)
    }
}

/// Shorter silences than this are no sign of a dead connection, whatever limit a caller set.
const TELLING_SILENCE: Duration = Duration::from_secs(1);

/// How long the last attempt waits for a connection that is younger than the GOAWAY before it.
const WAIT_FOR_YOUNG: Duration = Duration::from_secs(1);

fn cause_of(kind: &SendErrorKind) -> Cause {
    use SendErrorKind as Kind;
    match kind {
        Kind::InvalidRequest { .. } | Kind::CallerGone { .. } | Kind::BodyTooLarge { .. } => Cause::Caller,
        Kind::ResponseTimeout { .. } | Kind::IdleTimeout { .. } | Kind::TotalTimeout { .. } => Cause::Clock,
        Kind::Unavailable(_)
        | Kind::QueueFull { .. }
        | Kind::QueueTimeout { .. }
        | Kind::DeadlineUnreachable { .. }
        | Kind::ProviderReset { .. }
        | Kind::Stopping => Cause::Provider,
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Sends the rest of a body beside its response. Ends with the body, the stream, or the response; the time limits are
/// kept where that is read.
async fn finish_upload<B>(mut upload: Upload<B>, mut stream: h2::SendStream<Bytes>, beside: Arc<Beside>)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    upload.let_go();
    let end = std::future::poll_fn(|cx| {
        let mut moved = false;
        let end = upload.poll_pump(cx, &mut stream, &mut moved);
        if moved {
            beside.moved(Instant::now());
        }
        beside.waits_for(upload.waits_for());
        end
    })
    .await;
    // Said before the reset: who reads the response finds the reason when the stream ends.
    beside.ends(match end {
        Ok(()) => return beside.waits_for(WaitsFor::Provider),
        // The provider wants no more; the response tells.
        Err(UploadError::Stream) => return beside.waits_for(WaitsFor::Provider),
        Err(UploadError::Caller(_)) => BodyError::CallerGone,
        Err(UploadError::TooLarge { limit }) => BodyError::BodyTooLarge { limit },
    });
    stream.send_reset(h2::Reason::CANCEL);
}
