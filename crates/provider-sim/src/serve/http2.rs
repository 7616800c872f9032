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
use http::Request;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::{Connection, Tls, reply, stream};
use crate::behaviour::{Behaviour, GoAwayForm, GoAwayPoint};
use crate::ending::Ending;
use crate::plan::{Intake, Plan};
use crate::socket::Thrown;
use crate::wire::{Opening, Wire, WireControl};

/// As hyper and nginx: room for cookies and tokens, not for a flood.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// What a client resets before we took it up. The default of 20 ends connections in honest cancel storms.
const MAX_PENDING_RESETS: usize = 1024;
/// The largest stream id: a GOAWAY with it disowns nothing.
const MAX_STREAM_ID: u32 = (1 << 31) - 1;
/// RFC 9113 §6.5.2: the header table of a peer that was told nothing.
const DEFAULT_HEADER_TABLE: u32 = 4096;
/// Streams that may report at once that they have reached the point where the connection ends.
const NOTICES: usize = 16;

type Library = h2::server::Connection<Wire<Tls>, Bytes>;
type Arrival = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves until the connection ends.
pub(super) async fn serve(
    tls: Tls,
    connection: Arc<Connection>,
    orders: mpsc::Receiver<Ending>,
    behaviour: &Behaviour,
) {
    let books = connection.shared.books.clone();
    let opening = Opening {
        pings: behaviour.pings,
        stream_limit: behaviour.max_concurrent_streams,
        header_table: behaviour.header_table_size,
    };
    let (wire, control) = Wire::new(tls, books, opening);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(behaviour.stream_window)
        .initial_connection_window_size(behaviour.connection_window)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        // Thousands of tiny frames from the client are load, not an attack.
        .data_frame_budget(usize::MAX / 2);
    let Ok(library) = builder.handshake(wire).await else { return };
    Driver::new(library, control, connection, behaviour).run(orders, behaviour).await;
}

/// A stream has reached the point where the connection is to end. It goes on once that has been ordered.
pub(super) struct Notice {
    pub(super) ending: Ending,
    pub(super) ordered: oneshot::Sender<()>,
}

/// A stream being served.
struct Serving {
    id: u32,
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

/// The settings as they were sent last.
#[derive(Clone, Copy)]
struct Sent {
    stream_limit: Option<u32>,
    header_table: Option<u32>,
    stream_window: u32,
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
    sent: Sent,
    acknowledged: Arc<Notify>,
    notices: (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
    newest: u32,
    ordinal: u64,
    ending: bool,
    /// When the second GOAWAY of two is due, and what it says.
    second_phase: Option<(Instant, Ending)>,
    last_active: Instant,
}

impl Driver {
    fn new(
        library: Library,
        control: WireControl,
        connection: Arc<Connection>,
        behaviour: &Behaviour,
    ) -> Self {
        let sent = Sent {
            stream_limit: behaviour.max_concurrent_streams,
            header_table: behaviour.header_table_size,
            stream_window: behaviour.stream_window,
        };
        Self {
            library,
            acknowledged: control.acknowledgements(),
            control,
            connection,
            serving: FuturesUnordered::new(),
            disowned: Vec::new(),
            ignored: Vec::new(),
            sent,
            notices: mpsc::channel(NOTICES),
            newest: 0,
            ordinal: 0,
            ending: false,
            second_phase: None,
            last_active: Instant::now(),
        }
    }

    async fn run(mut self, mut orders: mpsc::Receiver<Ending>, behaviour: &Behaviour) {
        let mut live = self.connection.shared.live.subscribe();
        // What changed between accept and now.
        self.apply(&live.borrow_and_update().behaviour.clone());
        let old_age = behaviour.goaway_after.map(|age| Instant::now() + age);
        loop {
            let (idle, idle_goaway) = self.idle_deadlines();
            let second = self.second_phase.as_ref().map(|(due, _)| *due);
            let window_due = self.window_due();
            let next = tokio::select! {
                biased;
                Some(ending) = orders.recv() => self.end(&ending),
                Ok(()) = live.changed() => {
                    let behaviour = live.borrow_and_update().behaviour.clone();
                    self.apply(&behaviour)
                }
                arrival = self.library.accept() => match arrival {
                    Some(Ok(arrival)) => self.arrived(arrival),
                    Some(Err(_)) | None => Next::HangUp,
                },
                () = self.acknowledged.notified(), if window_due => self.send_window(),
                Some(notice) = self.notices.1.recv() => {
                    let next = self.end(&notice.ending);
                    // A stream that was disowned meanwhile does not wait for it.
                    let _ = notice.ordered.send(());
                    next
                }
                Some(()) = self.serving.next(), if !self.serving.is_empty() => {
                    // All that is ready in one go, so that the answers leave in one write.
                    while let Some(Some(())) = self.serving.next().now_or_never() {}
                    self.last_active = Instant::now();
                    Next::GoOn
                }
                () = at(second) => self.second_goaway(),
                () = at(old_age), if !self.is_ending() => self.end_as_told(),
                () = at(idle_goaway), if !self.is_ending() => self.end_as_told(),
                () = at(idle), if !self.connection.switch.is_lame() => Next::HangUp,
            };
            if next == Next::HangUp {
                return;
            }
        }
    }

    fn is_ending(&self) -> bool {
        self.ending || self.connection.switch.is_lame()
    }

    /// When to hang up, and when to say GOAWAY, for want of requests.
    fn idle_deadlines(&self) -> (Option<Instant>, Option<Instant>) {
        if !self.serving.is_empty() {
            return (None, None);
        }
        let live = self.connection.shared.live.borrow();
        let after = |limit: Option<Duration>| limit.map(|limit| self.last_active + limit);
        (after(live.behaviour.idle_close), after(live.behaviour.goaway_after_idle))
    }

    /// Takes one request up, or does not.
    fn arrived(&mut self, arrival: Arrival) -> Next {
        let books = &self.connection.shared.books;
        let (request, mut respond) = arrival;
        let id = respond.stream_id().as_u32();
        books.arrived(reply::correlation_id(request.headers()));
        if self.control.last_allowed().is_some_and(|last| id > last) {
            books.requests_ignored.add(1);
            self.ignored.push((request, respond));
            return Next::GoOn;
        }
        if self.control.is_above_limit(id) {
            books.refused_streams.add(1);
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            return Next::GoOn;
        }
        self.newest = id;
        self.ordinal += 1;
        self.last_active = Instant::now();
        let live = self.connection.live();
        let (parts, body) = request.into_parts();
        let jitter = self.connection.jitter(&live.behaviour, self.ordinal);
        let plan = Plan::new(&parts, &live.behaviour, self.ordinal, jitter);
        match plan.intake {
            Intake::Refuse => {
                books.refused_streams.add(1);
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                return Next::GoOn;
            }
            Intake::Reject => books.requests_refused.add(1),
            Intake::Process => {
                self.connection.processed(reply::correlation_id(&parts.headers));
                self.control.taken_up(id, parts.headers.get(reply::CORRELATION_ID).cloned());
            }
        }
        let ending = plan.ends_at(GoAwayPoint::Headers).cloned();
        let notices = self.notices.0.clone();
        let future = Box::pin(stream::serve(self.connection.clone(), parts, body, respond, plan, notices));
        self.serving.push(Serving { id, future });
        ending.map_or(Next::GoOn, |ending| self.end(&ending))
    }

    fn end_as_told(&mut self) -> Next {
        let ending = Ending::of(&self.connection.live().behaviour);
        self.end(&ending)
    }

    /// Ends the connection so. Only the forms without GOAWAY can follow another one.
    fn end(&mut self, ending: &Ending) -> Next {
        match self.connection.switch.throw(ending.form) {
            Thrown::HangUp => return Next::HangUp,
            Thrown::Lamed => return Next::GoOn,
            Thrown::NotOurs => {}
        }
        if ending.form == GoAwayForm::CloseNotify {
            self.ending = true;
            self.control.end_now();
            return Next::GoOn;
        }
        if self.is_ending() {
            return Next::GoOn;
        }
        self.ending = true;
        self.connection.shared.books.goaways_sent.add(1);
        self.say_goaway(ending);
        Next::GoOn
    }

    fn say_goaway(&mut self, ending: &Ending) {
        let (code, debug) = (u32::from(ending.code.code()), ending.debug.as_bytes());
        match ending.form {
            GoAwayForm::Immediate => self.cut(self.newest, ending),
            GoAwayForm::Zero => self.cut(0, ending),
            GoAwayForm::Exact { last } => self.cut(last, ending),
            GoAwayForm::Behind { streams } => {
                self.cut(self.newest.saturating_sub(streams.saturating_mul(2)), ending);
            }
            GoAwayForm::TwoPhase if ending.wait.is_zero() => self.library.graceful_shutdown(),
            GoAwayForm::TwoPhase => {
                self.control.goaway(MAX_STREAM_ID, u32::from(h2::Reason::NO_ERROR), b"");
                self.second_phase = Some((Instant::now() + ending.wait, ending.clone()));
            }
            GoAwayForm::MaxOnly => self.control.goaway(MAX_STREAM_ID, code, debug),
            GoAwayForm::Abrupt { reason } if debug.is_empty() => self.library.abrupt_shutdown(reason.code()),
            GoAwayForm::Abrupt { reason } => {
                self.control.goaway(self.newest, u32::from(reason.code()), debug);
                self.control.end_now();
            }
            // Seen to before.
            GoAwayForm::Fin
            | GoAwayForm::Reset
            | GoAwayForm::CloseNotify
            | GoAwayForm::HalfClose
            | GoAwayForm::BlackHole => {}
        }
    }

    fn second_goaway(&mut self) -> Next {
        if let Some((_, ending)) = self.second_phase.take() {
            self.cut(self.newest, &ending);
        }
        Next::GoOn
    }

    /// GOAWAY with this last id. The client takes those above as never seen by the server, and so they were not.
    fn cut(&mut self, last: u32, ending: &Ending) {
        let code = u32::from(ending.code.code());
        for id in self.control.cut(last, code, ending.debug.as_bytes()) {
            let id = id.as_ref().and_then(|id| id.to_str().ok());
            self.connection.shared.books.disowned(id);
        }
        for stream in std::mem::take(&mut self.serving) {
            if stream.id <= last {
                self.serving.push(stream);
            } else {
                self.disowned.push(stream);
            }
        }
    }

    /// What of a new behaviour reaches an open connection.
    fn apply(&mut self, behaviour: &Behaviour) -> Next {
        self.control.set_pings(behaviour.pings);
        if behaviour.max_concurrent_streams != self.sent.stream_limit {
            self.sent.stream_limit = behaviour.max_concurrent_streams;
            // No limit is the largest one: a setting cannot be unset.
            self.control.stream_limit(self.sent.stream_limit.unwrap_or(u32::MAX));
        }
        if behaviour.header_table_size != self.sent.header_table {
            self.sent.header_table = behaviour.header_table_size;
            self.control.header_table(self.sent.header_table.unwrap_or(DEFAULT_HEADER_TABLE));
        }
        if self.window_due() { self.send_window() } else { Next::GoOn }
    }

    /// Is the window per stream another than the client was told?
    fn window_due(&self) -> bool {
        self.connection.shared.live.borrow().behaviour.stream_window != self.sent.stream_window
    }

    /// The library does the sums of windows, and has one SETTINGS frame under way at a time: while one waits for
    /// its ACK this does nothing, and is called again after it.
    fn send_window(&mut self) -> Next {
        let window = self.connection.shared.live.borrow().behaviour.stream_window;
        if self.library.set_initial_window_size(window).is_ok() {
            self.sent.stream_window = window;
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
