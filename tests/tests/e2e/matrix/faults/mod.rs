//! The rows: what the provider does, when, and what each kind of request must see.
//!
//! Owns what a row says and the list of all; the rows themselves are by theme in the modules beside.

mod dials;
mod frames;
mod goaways;
mod http1;
mod settings;
mod stalls;
mod streams;
mod transport;

use std::{fmt, ops::RangeInclusive, pin::Pin, time::Duration};

use provider_sim::{Behaviour, Stall};

use super::{
    cell::Column,
    stage::{Short, Stage},
};

/// What the caller sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// The provider's whole response, processed once.
    Answer,
    /// The same, after more than one attempt.
    Replayed,
    /// A failure with one of these codes and this word about a retry.
    Fails(&'static [&'static str], &'static str),
    /// Three attempts, each of them met by the fault and none processed; a retry is safe.
    UsedUp(&'static [&'static str]),
    /// The same of a body that is streamed: whether it is still held for the next attempt is a matter of timing.
    PerhapsUsedUp(&'static [&'static str]),
    /// A response that ends early; the log names one of these codes.
    Cut(&'static [&'static str]),
    /// Whether the fault is known before the request is sent, or the body still held when it strikes, is a matter of
    /// timing: either, and nothing else.
    AnswerOrFails(&'static [&'static str], &'static str),
}

impl Sees {
    /// How much `tsh_unprocessed_lost_total` may have grown.
    pub(super) fn lost(self) -> RangeInclusive<u64> {
        match self {
            Self::UsedUp(_) => 1..=1,
            Self::PerhapsUsedUp(_) => 0..=1,
            _ => 0..=0,
        }
    }
}

impl fmt::Display for Sees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes =
            |codes: &[&str]| codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(" or ");
        match self {
            Self::Answer => f.write_str("answer"),
            Self::Replayed => f.write_str("answer by replay"),
            Self::Fails(c, safe) => write!(f, "{}, {safe}", codes(c)),
            Self::UsedUp(c) => write!(f, "{}, yes, after three attempts", codes(c)),
            Self::PerhapsUsedUp(c) => write!(f, "{}, yes, after one to three attempts", codes(c)),
            Self::Cut(c) => write!(f, "cut, {}", codes(c)),
            Self::AnswerOrFails(c, safe) => write!(f, "answer, or {}, {safe}", codes(c)),
        }
    }
}

/// When the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// It is how the provider is.
    Always(Start),
    /// Just before the request.
    Before,
    /// While the provider has the request, and of a large body more than is held.
    During,
}

/// Whether a gateway in front of it becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Ready,
    NeverReady,
}

/// How the gateway finds the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// By address.
    Address,
    /// By a name that a name server of the test's own resolves, and that can move.
    Name,
}

type Act = fn(&Stage) -> Pin<Box<dyn Future<Output = ()> + '_>>;

/// One row.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// How the provider is from the start.
    pub(super) behaviour: fn() -> Behaviour,
    pub(super) site: Site,
    /// The limits that the fault runs into.
    pub(super) short: &'static [Short],
    /// Further lines of the environment's `pool`.
    pub(super) pool: &'static str,
    /// Orders of the request itself.
    pub(super) orders: &'static [(&'static str, &'static str)],
    /// Requests that go before.
    pub(super) warm_up: u32,
    pub(super) when: When,
    pub(super) act: Act,
    /// GET, small POST, large POST, gRPC.
    pub(super) sees: [Sees; 4],
    /// The next request is answered.
    pub(super) heals: bool,
    /// Streams that the provider holds open for ever, because it fell silent with them.
    pub(super) keeps: u64,
}

impl Fault {
    /// Whether a cell of it spends its time waiting.
    pub(super) fn waits(&self) -> bool {
        let slow = (self.behaviour)().latency >= Duration::from_secs(1);
        slow || !self.short.is_empty() || self.site == Site::Name
    }

    pub(super) fn expected(&self, column: Column) -> Sees {
        self.sees[column as usize]
    }
}

/// Nothing strikes.
const NOTHING: Act = |_| Box::pin(async {});

/// Every connection ends as the behaviour says. Requests that come later are answered, whatever became of those under
/// way.
const END: Act = |s| {
    s.behave(|b| b.stall = Stall::None);
    s.provider.sim.goaway_all();
    Box::pin(async {})
};

/// Every connection is reset; later requests are answered.
const KILL: Act = |s| {
    s.behave(|b| b.stall = Stall::None);
    s.provider.sim.kill_connections();
    Box::pin(async {})
};

/// Codes of a connection that ended under a request.
const RESET: &[&str] = &["provider_reset"];
const LOST: Sees = Sees::Fails(RESET, "unknown");
const UNPROCESSED: Sees = Sees::Fails(RESET, "yes");
const USED_UP: [Sees; 4] =
    [Sees::UsedUp(RESET), Sees::UsedUp(RESET), Sees::PerhapsUsedUp(RESET), Sees::UsedUp(RESET)];
const RESPONSE_CUT: Sees = Sees::Cut(&["response_cut"]);
const TIMEOUT: Sees = Sees::Fails(&["response_timeout"], "unknown");
const IDLE_CUT: Sees = Sees::Cut(&["idle_timeout"]);

/// What every row is made from.
const PLAIN: Fault = Fault {
    name: "",
    behaviour: Behaviour::default,
    site: Site::Address,
    short: &[],
    pool: "",
    orders: &[],
    warm_up: 0,
    when: When::Always(Start::Ready),
    act: NOTHING,
    sees: [Sees::Answer; 4],
    heals: true,
    keeps: 0,
};

/// A provider that takes a while: whether it answers before or after the fault strikes is all the same.
fn slow() -> Behaviour {
    Behaviour { latency: Duration::from_millis(300), ..Behaviour::default() }
}

/// A provider that has the request and does not answer it before the fault strikes.
fn holding() -> Behaviour {
    Behaviour { stall: Stall::BeforeResponse, ..Behaviour::default() }
}

macro_rules! made {
    ($base:expr; $($field:ident: $value:expr),* $(,)?) => {
        || provider_sim::Behaviour { $($field: $value,)* ..$base }
    };
}
use made;

/// A row in which connections end so while the provider holds the request.
fn ends_with(name: &'static str, behaviour: fn() -> Behaviour, sees: Sees) -> Fault {
    Fault { name, behaviour, sees: [sees; 4], when: When::During, act: END, ..PLAIN }
}

/// All rows.
pub(super) fn all() -> Vec<Fault> {
    [
        goaways::while_it_runs(),
        goaways::at_each_phase(),
        streams::all(),
        settings::all(),
        transport::all(),
        transport::moves(),
        stalls::all(),
        frames::all(),
        dials::all(),
        http1::while_it_runs(),
        http1::others(),
    ]
    .concat()
}
