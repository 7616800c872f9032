//! Owns one HTTP/2 connection: taking requests up, the ways to end it, live changes of its limits. It does not
//! own what a stream answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Request};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Connection, Tls, reply, stream};
use crate::behaviour::{Behaviour, GoAwayForm};
use crate::plan::{Intake, Plan};
use crate::simulator::Signals;
use crate::wire::{Wire, WireControl};

/// As hyper and nginx: room for cookies and tokens, not for a flood.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// What a client resets before we took it up. The default of 20 ends connections in honest cancel storms.
const MAX_PENDING_RESETS: usize = 1024;
/// The largest stream id: a GOAWAY with it disowns nothing.
const MAX_STREAM_ID: u32 = (1 << 31) - 1;

type Library = h2::server::Connection<Wire<Tls>, Bytes>;
type Arrival = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves until the connection ends.
pub(super) async fn serve(
    tls: Tls,
    connection: Arc<Connection>,
    signals: watch::Receiver<Signals>,
    behaviour: &Behaviour,
) {
    let books = connection.shared.books.clone();
    let (wire, control) = Wire::new(tls, books, behaviour.pings, behaviour.max_concurrent_streams);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(behaviour.stream_window)
        .initial_connection_window_size(behaviour.connection_window)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        // Thousands of tiny frames from the client are load, not an attack.
        .data_frame_budget(usize::MAX / 2);
    if let Some(limit) = behaviour.max_concurrent_streams {
        builder.max_concurrent_streams(limit);
    }
    let Ok(library) = builder.handshake(wire).await else { return };
    let limit = behaviour.max_concurrent_streams;
    Driver::new(library, control, connection, limit).run(signals, behaviour).await;
}

/// A stream being served.
struct Serving {
    id: u32,
    correlation_id: Option<HeaderValue>,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.future.as_mut().poll(cx)
    }
}

/// What a step of the connection leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    HangUp,
}

struct Driver {
    library: Library,
    control: WireControl,
    connection: Arc<Connection>,
    serving: FuturesUnordered<Serving>,
    /// Streams above the last id. Kept, because dropping them would send RST_STREAM, and a peer that has said
    /// GOAWAY says nothing more about them.
    disowned: Vec<Serving>,
    ignored: Vec<Arrival>,
    limit: Option<u32>,
    newest: u32,
    ordinal: u64,
    ending: bool,
    last_active: Instant,
}

impl Driver {
    fn new(library: Library, control: WireControl, connection: Arc<Connection>, limit: Option<u32>) -> Self {
        Self {
            library,
            control,
            connection,
            serving: FuturesUnordered::new(),
            disowned: Vec::new(),
            ignored: Vec::new(),
            limit,
            newest: 0,
            ordinal: 0,
            ending: false,
            last_active: Instant::now(),
        }
    }

    async fn run(mut self, mut signals: watch::Receiver<Signals>, behaviour: &Behaviour) {
        let mut live = self.connection.shared.live.subscribe();
        let mut goaways = signals.borrow_and_update().goaways;
        // What changed between accept and now.
        self.apply(&live.borrow_and_update().behaviour.clone());
        let old_age = behaviour.goaway_after.map(|age| Instant::now() + age);
        loop {
            let idle = self.idle_deadline();
            let next = tokio::select! {
                biased;
                Ok(()) = signals.changed() => {
                    let now = signals.borrow_and_update().goaways;
                    let form = self.connection.live().behaviour.goaway_form;
                    if std::mem::replace(&mut goaways, now) == now { Next::GoOn } else { self.goaway(form) }
                }
                Ok(()) = live.changed() => {
                    let behaviour = live.borrow_and_update().behaviour.clone();
                    self.apply(&behaviour)
                }
                arrival = self.library.accept() => match arrival {
                    Some(Ok(arrival)) => self.arrived(arrival),
                    Some(Err(_)) | None => Next::HangUp,
                },
                Some(()) = self.serving.next(), if !self.serving.is_empty() => {
                    // All that is ready in one go, so that the answers leave in one write.
                    while let Some(Some(())) = self.serving.next().now_or_never() {}
                    self.last_active = Instant::now();
                    Next::GoOn
                }
                () = at(old_age), if !self.ending => {
                    let form = self.connection.live().behaviour.goaway_form;
                    self.goaway(form)
                }
                () = at(idle) => Next::HangUp,
            };
            if next == Next::HangUp {
                return;
            }
        }
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let limit: Duration = self.connection.shared.live.borrow().behaviour.idle_close?;
        self.serving.is_empty().then(|| self.last_active + limit)
    }

    /// Takes one request up, or does not.
    fn arrived(&mut self, arrival: Arrival) -> Next {
        let books = &self.connection.shared.books;
        let (request, mut respond) = arrival;
        let id = respond.stream_id().as_u32();
        if self.control.last_allowed().is_some_and(|last| id > last) {
            books.requests_ignored.add(1);
            self.ignored.push((request, respond));
            return Next::GoOn;
        }
        self.newest = id;
        self.ordinal += 1;
        self.last_active = Instant::now();
        let live = self.connection.live();
        let (parts, body) = request.into_parts();
        let jitter = self.connection.jitter(&live.behaviour, self.ordinal);
        let plan = Plan::new(&parts, &live.behaviour, self.ordinal, jitter);
        let mut goaway = plan.goaway;
        match plan.intake {
            Intake::Refuse => {
                books.refused_streams.add(1);
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                return Next::GoOn;
            }
            Intake::Reject => books.requests_refused.add(1),
            Intake::Process => books.processed(reply::correlation_id(&parts.headers)),
        }
        let correlation_id = match plan.intake {
            Intake::Process => parts.headers.get(reply::CORRELATION_ID).cloned(),
            Intake::Refuse | Intake::Reject => None,
        };
        let future = Box::pin(stream::serve(self.connection.clone(), parts, body, respond, plan));
        self.serving.push(Serving { id, correlation_id, future });
        if live.behaviour.goaway_after_requests.is_some_and(|limit| self.ordinal >= u64::from(limit)) {
            goaway = goaway.or(Some(live.behaviour.goaway_form));
        }
        goaway.map_or(Next::GoOn, |form| self.goaway(form))
    }

    /// Ends the connection in this form. Only the forms without GOAWAY can follow another one.
    fn goaway(&mut self, form: GoAwayForm) -> Next {
        let books = &self.connection.shared.books;
        match form {
            GoAwayForm::Fin => return Next::HangUp,
            GoAwayForm::Reset => {
                self.connection.reset.arm();
                return Next::HangUp;
            }
            _ if self.ending => return Next::GoOn,
            _ => books.goaways_sent.add(1),
        }
        self.ending = true;
        match form {
            GoAwayForm::Immediate => self.cut(self.newest),
            GoAwayForm::Zero => self.cut(0),
            GoAwayForm::Behind { streams } => {
                self.cut(self.newest.saturating_sub(streams.saturating_mul(2)));
            }
            GoAwayForm::TwoPhase => self.library.graceful_shutdown(),
            GoAwayForm::MaxOnly => self.control.goaway(MAX_STREAM_ID, u32::from(h2::Reason::NO_ERROR)),
            GoAwayForm::Abrupt { reason } => self.library.abrupt_shutdown(reason.code()),
            GoAwayForm::Fin | GoAwayForm::Reset => {}
        }
        Next::GoOn
    }

    /// GOAWAY(`last`): the streams above were never processed, says this server, and so they were not.
    fn cut(&mut self, last: u32) {
        self.control.cut(last, u32::from(h2::Reason::NO_ERROR));
        let books = &self.connection.shared.books;
        for stream in std::mem::take(&mut self.serving) {
            if stream.id <= last {
                self.serving.push(stream);
            } else {
                let id = stream.correlation_id.as_ref().and_then(|id| id.to_str().ok());
                books.disowned(id);
                self.disowned.push(stream);
            }
        }
    }

    /// What of a new behaviour reaches an open connection.
    fn apply(&mut self, behaviour: &Behaviour) -> Next {
        self.control.set_pings(behaviour.pings);
        if behaviour.max_concurrent_streams != self.limit {
            self.limit = behaviour.max_concurrent_streams;
            // No limit is the largest one: a setting cannot be unset.
            self.control.stream_limit(self.limit.unwrap_or(u32::MAX));
        }
        Next::GoOn
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
