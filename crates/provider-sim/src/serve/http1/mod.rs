//! Owns one HTTP/1.1 connection. What a request gets is planned as for HTTP/2; what HTTP/1.1 cannot express (a
//! reset of one stream) breaks the connection. It does not own pipelining: the library answers in order.

mod body;
mod watched;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::{Connection, Tls, reply};
use crate::behaviour::{Behaviour, EarlyResponse, GoAwayForm, GoAwayPoint, Http1Close, ResetPoint, Stall};
use crate::ending::Ending;
use crate::plan::{Content, Intake, Plan};
use crate::socket::Thrown;
use body::{Reply, Source};
use watched::{Flushed, Watched};

type Library<S> = hyper::server::conn::http1::Connection<TokioIo<Watched>, S>;

/// Serves until the connection ends.
pub(super) async fn serve(
    tls: Tls,
    connection: Arc<Connection>,
    mut orders: mpsc::Receiver<Ending>,
    behaviour: &Behaviour,
) {
    // Room for one: the first order to hang up ends the connection.
    let (hang_up, mut hung_up) = mpsc::channel(1);
    let idle_since = Mutex::new(Some(Instant::now()));
    let state = Arc::new(State {
        connection,
        ordinal: AtomicU64::new(0),
        hang_up,
        idle_since,
        idle_again: Notify::new(),
    });
    let service = {
        let state = state.clone();
        service_fn(move |request| state.clone().respond(request))
    };
    let (io, flushed) = Watched::new(tls);
    let mut library = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(true)
        .serve_connection(TokioIo::new(io), service);
    let old_age = behaviour.goaway_after.map(|age| Instant::now() + age);
    let mut closing = false;
    let mut live = state.connection.shared.live.subscribe();
    loop {
        let idle = state.idle_deadline();
        let form = tokio::select! {
            biased;
            Some(form) = hung_up.recv() => match leave(&mut library, &flushed).await {
                Left::Over => return,
                Left::Open => form,
            },
            Some(ending) = orders.recv() => ending.form,
            Ok(()) = live.changed() => continue,
            () = state.idle_again.notified() => continue,
            () = at(old_age), if !closing => GoAwayForm::Immediate,
            // However it ended, it is over, and the books have what happened.
            _ = &mut library => return,
            () = at(idle), if !state.connection.switch.is_lame() => match state.idle_deadline() {
                // A request came and went meanwhile.
                Some(due) if due <= Instant::now() => return,
                _ => continue,
            },
        };
        match state.connection.switch.throw(form) {
            Thrown::HangUp => return,
            Thrown::Lamed => return lie_lame(library.into_parts().io.into_inner()).await,
            Thrown::NotOurs if form == GoAwayForm::CloseNotify => {
                // Whether the goodbye arrives is the client's affair.
                let _ = library.into_parts().io.into_inner().shutdown().await;
                return;
            }
            Thrown::NotOurs => {
                closing = true;
                Pin::new(&mut library).graceful_shutdown();
            }
        }
    }
}

/// Keeps a socket that is no good any more until the client has done with it. The library would not look at it while a
/// request body waits to be read.
async fn lie_lame(mut io: Watched) {
    let mut scratch = [0; 1024];
    while matches!(io.read(&mut scratch).await, Ok(n) if n > 0) {}
}

/// Is there a connection left to end?
enum Left {
    Open,
    Over,
}

/// Runs until everything that the library has written has left.
async fn leave<S>(library: &mut Library<S>, flushed: &Flushed) -> Left
where
    S: hyper::service::HttpService<Incoming, ResBody = Reply> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    tokio::select! {
        biased;
        _ = &mut *library => Left::Over,
        () = flushed.wait() => Left::Open,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

struct State {
    connection: Arc<Connection>,
    ordinal: AtomicU64,
    hang_up: mpsc::Sender<GoAwayForm>,
    /// None while a request is served.
    idle_since: Mutex<Option<Instant>>,
    idle_again: Notify,
}

impl State {
    /// When to close for want of requests, silently as a server does.
    fn idle_deadline(&self) -> Option<Instant> {
        let behaviour = &self.connection.shared.live.borrow().behaviour;
        let limit = match (behaviour.idle_close, behaviour.goaway_after_idle) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        self.idle_since.lock().map(|since| since + limit)
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Reply>> {
        let busy = Busy::new(self.clone());
        let ordinal = self.ordinal.fetch_add(1, Ordering::Relaxed) + 1;
        let live = self.connection.live();
        let (parts, body) = request.into_parts();
        let books = &self.connection.shared.books;
        books.arrived(reply::correlation_id(&parts.headers));
        let plan =
            Plan::new(&parts, &live.behaviour, ordinal, self.connection.jitter(&live.behaviour, ordinal));
        match plan.intake {
            Intake::Refuse => {
                books.refused_streams.add(1);
                return Err(io::Error::other("refused by plan"));
            }
            Intake::Reject => books.requests_refused.add(1),
            Intake::Process => self.connection.processed(reply::correlation_id(&parts.headers)),
        }
        if matches!(plan.stall, Stall::BeforeResponse | Stall::ReadNothing) {
            return std::future::pending().await;
        }
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        if let Some((ResetPoint::BeforeHeaders, _)) = plan.reset {
            books.resets.add(1);
            return Err(io::Error::other("reset by plan"));
        }
        self.reach(&plan, GoAwayPoint::Headers).await;
        let announced = live.behaviour.http1_close == Http1Close::Announced
            && plan.ending.as_ref().is_some_and(|ending| !ends_at_once(ending.form));
        let mut response = self.answer(&parts, body, plan, busy).await?;
        if announced {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    /// The response is complete, as far as the library asks.
    fn answered(&self, plan: &Plan) {
        let behaviour = &self.connection.shared.live.borrow().behaviour;
        let Some(ending) = &plan.ending else { return };
        let form = match ending.form {
            form if ends_at_once(form) && plan.ending_at == GoAwayPoint::AfterResponse => form,
            form if !ends_at_once(form) && behaviour.http1_close == Http1Close::Silent => {
                GoAwayForm::CloseNotify
            }
            _ => return,
        };
        let _ = self.hang_up.try_send(form);
    }

    /// Ends the connection here if that is the plan and the form is one without a last response.
    async fn reach(&self, plan: &Plan, point: GoAwayPoint) {
        if let Some(ending) = plan.ends_at(point)
            && ends_at_once(ending.form)
        {
            // A full channel means that the connection is being hung up already.
            let _ = self.hang_up.try_send(ending.form);
            std::future::pending().await
        }
    }

    async fn answer(
        self: &Arc<Self>,
        parts: &Parts,
        mut body: Incoming,
        plan: Plan,
        busy: Busy,
    ) -> io::Result<Response<Reply>> {
        let early = plan.early == EarlyResponse::On;
        let (source, length) = match &plan.content {
            Content::Echo if early => (Source::Empty, Some(0)),
            Content::Echo => {
                let length = body.size_hint().exact();
                (Source::Echo(body), length)
            }
            Content::Filler(bytes) => {
                if !early {
                    self.read_all(&mut body, &plan).await?;
                }
                (Source::Filler { left: *bytes }, Some(*bytes))
            }
            Content::Text(text) => Source::text(text.clone()),
            Content::Sink => {
                let (received, _) = if early { (0, None) } else { self.read_all(&mut body, &plan).await? };
                Source::text(reply::received(received))
            }
            Content::Describe => {
                let (received, trailers) =
                    if early { (0, None) } else { self.read_all(&mut body, &plan).await? };
                Source::text(reply::description(parts, trailers.as_ref(), received))
            }
        };
        // Of a body of known length the library never asks for the end.
        let length = length.filter(|_| plan.trailers.is_empty() && !plan.acts_before_end());
        let head = reply::head(parts, &plan, self.connection.number, length);
        Ok(head.map(|()| Reply::new(source, plan, length, busy)))
    }

    async fn read_all(&self, body: &mut Incoming, plan: &Plan) -> io::Result<(u64, Option<HeaderMap>)> {
        let (mut total, mut trailers) = (0, None);
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => {
                    if total == 0 {
                        self.request_data(plan).await?;
                    }
                    total += data.len() as u64;
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        self.connection.shared.books.body_bytes_received.add(total);
        Ok((total, trailers))
    }
}

impl State {
    /// What happens after the first bytes of a request body.
    async fn request_data(&self, plan: &Plan) -> io::Result<()> {
        self.reach(plan, GoAwayPoint::RequestData).await;
        if let Some((ResetPoint::MidRequest, _)) = plan.reset {
            self.connection.shared.books.resets.add(1);
            return Err(io::Error::other("reset by plan"));
        }
        Ok(())
    }
}

/// The forms that do not wait for the response at hand.
fn ends_at_once(form: GoAwayForm) -> bool {
    matches!(
        form,
        GoAwayForm::Fin
            | GoAwayForm::Reset
            | GoAwayForm::CloseNotify
            | GoAwayForm::HalfClose
            | GoAwayForm::BlackHole
    )
}

/// While it lives the connection is not idle.
struct Busy(Arc<State>);

impl Busy {
    fn new(state: Arc<State>) -> Self {
        *state.idle_since.lock() = None;
        Self(state)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.idle_since.lock() = Some(Instant::now());
        self.0.idle_again.notify_one();
    }
}
