//! What goes wrong and when: pure, drawn from the seed, so that a storm can be repeated.
//!
//! Owns the kinds of fault and their order. Doing them to the provider is `stage.rs` and `director.rs`.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use fastrand::Rng;
use http::{HeaderName, HeaderValue};
use provider_sim::{GoAwayForm, Http1Close, ResetPoint, ResetReason};
use serde::Serialize;

/// One thing done to the provider or to the gateway's identity.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(super) enum Fault {
    /// GOAWAY on every connection, in this form.
    GoAway {
        /// The form.
        form: GoAwayForm,
    },
    /// For a while each connection is ended after this many requests.
    Cadence {
        /// Requests per connection.
        requests: u32,
        /// For how long.
        lasts: Duration,
    },
    /// For a while every n-th stream of a connection is refused, unprocessed.
    Refusals {
        /// Every n-th.
        every: u32,
        /// For how long.
        lasts: Duration,
    },
    /// For a while every n-th stream of a connection is reset after it was processed.
    Resets {
        /// Every n-th.
        every: u32,
        /// At which point.
        at: ResetPoint,
        /// With which code.
        reason: ResetReason,
        /// For how long.
        lasts: Duration,
    },
    /// The end of one connection, drawn by the seed, in this form.
    One {
        /// The form.
        form: GoAwayForm,
    },
    /// TCP reset of every connection at once; the provider goes on listening.
    Kill,
    /// The provider is gone, with every connection, and comes back on the same port.
    Restart {
        /// How long nobody listens.
        away: Duration,
    },
    /// One connection falls silent: the provider neither reads nor writes on it, and resets it after a while.
    Silence {
        /// For how long.
        lasts: Duration,
    },
    /// Everything falls silent, new connections too: TCP connects, and no byte comes. Then all is reset.
    BlackHole {
        /// For how long.
        lasts: Duration,
    },
    /// For a while no PING is answered.
    PingsIgnored {
        /// For how long: longer than the gateway's interval and patience together.
        lasts: Duration,
    },
    /// For a while the provider offers HTTP/1.1 alone: all connections end, their successors speak it, and at the end
    /// it is the same the other way round. After a third one connection ends and the gateway's identity is renewed;
    /// in the last third each connection is ended after so many requests.
    Http11 {
        /// How the one connection ends.
        form: GoAwayForm,
        /// Requests per connection in the last third.
        requests: u32,
        /// Whether those ends are announced.
        close: Http1Close,
        /// For how long.
        lasts: Duration,
    },
    /// The provider's name stands for its other address; it goes on listening at both.
    NameMoves,
    /// For a while SETTINGS allow this many streams, on running connections too.
    StreamLimit {
        /// The limit.
        streams: u32,
        /// For how long.
        lasts: Duration,
    },
    /// For a while each response is late.
    Latency {
        /// By how much at least; up to as much again is drawn for each.
        by: Duration,
        /// For how long.
        lasts: Duration,
    },
    /// The gateway gets a new client key and certificate, which the provider endorses first.
    ClientCertificate,
    /// The provider gets a new leaf of the same CA.
    ServerCertificate,
}

impl Fault {
    /// A word for the table.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::GoAway { form } => match form {
                GoAwayForm::TwoPhase => "goaway two-phase",
                GoAwayForm::Zero => "goaway last-id 0",
                GoAwayForm::Behind { .. } => "goaway last-id middle",
                _ => "goaway",
            },
            Self::Cadence { .. } => "goaway cadence",
            Self::Refusals { .. } => "refused streams",
            Self::Resets { .. } => "stream resets",
            Self::One { form } => match form {
                GoAwayForm::Reset => "one connection: tcp reset",
                GoAwayForm::Fin => "one connection: fin without alert",
                GoAwayForm::CloseNotify => "one connection: close_notify",
                GoAwayForm::HalfClose => "one connection: half-close",
                _ => "one connection: goaway",
            },
            Self::Silence { .. } => "one connection: black hole",
            Self::BlackHole { .. } => "black hole",
            Self::PingsIgnored { .. } => "pings ignored",
            Self::Http11 { .. } => "http/1.1 alone",
            Self::NameMoves => "dns move",
            Self::Kill => "tcp reset of all",
            Self::Restart { .. } => "provider restart",
            Self::StreamLimit { .. } => "stream limit",
            Self::Latency { .. } => "latency spike",
            Self::ClientCertificate => "client certificate",
            Self::ServerCertificate => "server certificate",
        }
    }
}

impl Fault {
    /// How long it takes, about.
    #[cfg(test)]
    fn lasts(&self) -> Duration {
        match *self {
            Self::Cadence { lasts, .. }
            | Self::Refusals { lasts, .. }
            | Self::Resets { lasts, .. }
            | Self::StreamLimit { lasts, .. }
            | Self::Latency { lasts, .. }
            | Self::Silence { lasts }
            | Self::BlackHole { lasts }
            | Self::PingsIgnored { lasts }
            | Self::Http11 { lasts, .. } => lasts,
            Self::Restart { away } => away,
            Self::GoAway { .. } => Duration::from_millis(200),
            _ => Duration::ZERO,
        }
    }
}

/// Between the end of one fault and the next. With the lengths below all kinds come once within 28 s.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 150..=650;

/// Faults without end, each after a pause. All kinds come once before any comes twice.
#[derive(Debug)]
pub(super) struct Weather {
    rng: Rng,
    deck: VecDeque<Fault>,
}

impl Weather {
    /// The weather of this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), deck: VecDeque::new() }
    }

    /// The next fault and the pause before it.
    pub(super) fn next(&mut self) -> (Duration, Fault) {
        if self.deck.is_empty() {
            let mut kinds = deal(&mut self.rng);
            self.rng.shuffle(&mut kinds);
            self.deck.extend(kinds);
        }
        let pause = Duration::from_millis(self.rng.u64(PAUSE_MS));
        // Filled just above.
        (pause, self.deck.pop_front().expect("a deck"))
    }
}

/// The names of all kinds.
pub(super) fn kinds() -> BTreeSet<&'static str> {
    deal(&mut Rng::with_seed(0)).iter().map(Fault::name).collect()
}

/// One fault of each kind.
fn deal(rng: &mut Rng) -> Vec<Fault> {
    let ms = |rng: &mut Rng, range| Duration::from_millis(rng.u64(range));
    let points = [
        ResetPoint::BeforeHeaders,
        ResetPoint::MidRequest,
        ResetPoint::AfterHeaders,
        ResetPoint::MidBody,
        ResetPoint::BeforeTrailers,
    ];
    let at = *rng.choice(&points).expect("five");
    let reason = *rng
        .choice(&[ResetReason::InternalError, ResetReason::Cancel, ResetReason::EnhanceYourCalm])
        .expect("three");
    let form = *rng.choice(&[GoAwayForm::Fin, GoAwayForm::Reset, GoAwayForm::CloseNotify]).expect("three");
    let close = *rng.choice(&[Http1Close::Announced, Http1Close::Silent]).expect("two");
    vec![
        Fault::GoAway { form: GoAwayForm::Immediate },
        Fault::GoAway { form: GoAwayForm::TwoPhase },
        Fault::GoAway { form: GoAwayForm::Zero },
        Fault::GoAway { form: GoAwayForm::Behind { streams: rng.u32(1..=8) } },
        Fault::Cadence { requests: rng.u32(100..=400), lasts: ms(rng, 1000..=2000) },
        // Rare enough that three in a row for one request, the end of its attempts, will not be drawn.
        Fault::Refusals { every: rng.u32(150..=400), lasts: ms(rng, 500..=2000) },
        Fault::Resets { every: rng.u32(50..=200), at, reason, lasts: ms(rng, 500..=2000) },
        Fault::One { form: GoAwayForm::Zero },
        Fault::One { form: GoAwayForm::Reset },
        Fault::One { form: GoAwayForm::Fin },
        Fault::One { form: GoAwayForm::CloseNotify },
        Fault::One { form: GoAwayForm::HalfClose },
        Fault::Kill,
        Fault::Restart { away: ms(rng, 50..=500) },
        Fault::StreamLimit { streams: rng.u32(4..=64), lasts: ms(rng, 300..=1500) },
        Fault::Latency { by: ms(rng, 5..=60), lasts: ms(rng, 200..=800) },
        Fault::Silence { lasts: ms(rng, 500..=2500) },
        Fault::BlackHole { lasts: ms(rng, 200..=1000) },
        Fault::PingsIgnored { lasts: ms(rng, 2100..=3000) },
        Fault::Http11 { form, requests: rng.u32(50..=200), close, lasts: ms(rng, 2000..=3000) },
        Fault::NameMoves,
        Fault::ClientCertificate,
        Fault::ServerCertificate,
    ]
}

/// Orders that single requests carry: the end of the one connection that they arrive on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steering {
    /// Seed of the choice.
    pub seed: u64,
    /// One request in this many, at least 1.
    pub one_in: u64,
}

impl Steering {
    /// The order of request `sequence`, if it carries one.
    pub(crate) fn header(self, sequence: u64) -> Option<(HeaderName, HeaderValue)> {
        // A generator of its own for each request: which one carries what does not depend on who asks first.
        let mut rng = Rng::with_seed(self.seed ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if rng.u64(0..self.one_in) != 0 {
            return None;
        }
        let form = *rng.choice(&["immediate", "two_phase", "fin", "reset"]).expect("four");
        Some((HeaderName::from_static("sim-goaway"), HeaderValue::from_static(form)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_storm() {
        let faults = |seed| {
            let mut weather = Weather::new(seed);
            (0..100).map(|_| weather.next()).collect::<Vec<_>>()
        };
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }

    #[test]
    fn every_kind_comes_once_before_any_comes_twice() {
        let mut weather = Weather::new(3);
        let cards = deal(&mut Rng::with_seed(0)).len();
        for _ in 0..5 {
            let round: BTreeSet<_> = (0..cards).map(|_| weather.next().1.name()).collect();
            assert_eq!(round, kinds());
            assert_eq!(round.len(), cards, "no two kinds have one name");
        }
    }

    #[test]
    fn every_kind_comes_within_a_short_storm() {
        for seed in 0..1000 {
            let mut weather = Weather::new(seed);
            let took: Duration =
                kinds().iter().map(|_| weather.next()).map(|(pause, f)| pause + f.lasts()).sum();
            assert!(took < Duration::from_secs(28), "seed {seed}: {took:?}");
        }
    }

    #[test]
    fn about_one_request_in_so_many_carries_an_order_and_always_the_same_one() {
        let steering = Steering { seed: 5, one_in: 100 };
        let orders: Vec<_> = (0..100_000).filter_map(|sequence| steering.header(sequence)).collect();
        assert!((800..1200).contains(&orders.len()), "{}", orders.len());
        assert_eq!(orders, (0..100_000).filter_map(|n| steering.header(n)).collect::<Vec<_>>());
    }
}
