//! `loadgen handshakes`: what a handshake costs the client in CPU time, full and resumed, for the keys that the
//! provider allows (S12), with and without the post-quantum group. Scenario (j).
//!
//! Owns the order of rounds and the figures. One thread; no socket: no kernel work is in it but the clock's.

mod pair;

use std::{
    io::{self, Write},
    time::Duration,
};

use provider_sim::KeyAlgorithm;
use serde::{Deserialize, Serialize};
use tls_core::{HandshakeFacts, HandshakeKind, KeyExchange, TlsVersion};

use self::pair::{Meter, Pair, Shaken};
use crate::{args::HandshakesArgs, error::Error, html::Spread, lab::lab, progress};

/// Keys, by their names in the report.
const KEYS: [(KeyAlgorithm, &str); 3] =
    [(KeyAlgorithm::EcP256, "P-256"), (KeyAlgorithm::EcP384, "P-384"), (KeyAlgorithm::Rsa2048, "RSA 2048")];

/// Offers: the default, and the default without the hybrid. With the group that must come out of each.
const OFFERS: [(&[KeyExchange], &str); 2] =
    [(&KeyExchange::ALL, "X25519MLKEM768"), (KeyExchange::ALL.split_at(1).1, "X25519")];

/// The key whose resumed handshake must be cheaper than its full one by [`WANTED_RATIO`].
const BOUND_KEY: &str = "RSA 2048";

/// How many times cheaper.
const WANTED_RATIO: f64 = 2.5;

/// Handshakes before the first that counts: code and allocator warm, tickets at hand.
const WARM_UP: u32 = 10;

/// Looks at the clock from which its own cost is taken.
const CLOCK_LOOKS: u32 = 10_000;

/// One kind of handshake of one case.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// CPU time of the client per handshake, µs, over the rounds.
    pub cpu_us: Spread,
    /// Handshakes that a second of CPU time is enough for, by the median.
    pub per_cpu_second: f64,
}

impl Cost {
    fn of(rounds: &[f64]) -> Self {
        // A command line of one round at least was checked by the parser.
        let cpu_us = Spread::of(rounds).unwrap_or_default();
        Self { cpu_us, per_cpu_second: 1e6 / cpu_us.median }
    }
}

/// One kind of key with one key exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Kind of the client's key and of the server's chain.
    pub key: String,
    /// The group that was agreed on.
    pub key_exchange: String,
    /// Certificates exchanged and verified.
    pub full: Cost,
    /// From a ticket.
    pub resumed: Cost,
    /// Full by resumed, over the rounds: how many times cheaper a resumed one is.
    pub ratio: Spread,
    /// The least that the median of `ratio` must be, if anything is asked of this case.
    pub wanted_ratio: Option<f64>,
}

impl Case {
    /// Whether what is asked holds.
    pub(crate) fn is_good(&self) -> bool {
        self.wanted_ratio.is_none_or(|wanted| self.ratio.median >= wanted)
    }
}

/// All cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Handshakes of each kind in a round.
    pub count: u32,
    /// Rounds.
    pub rounds: u32,
    /// What the clock itself adds to each measured handshake, µs; not subtracted.
    pub clock_us: f64,
    /// Every key with every key exchange.
    pub cases: Vec<Case>,
}

impl Report {
    /// Whether everything that is asked holds.
    pub(crate) fn is_good(&self) -> bool {
        self.cases.iter().all(Case::is_good)
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "handshakes, client side: medians of {} rounds of {}, the clock's own {:.1} µs included",
            self.rounds, self.count, self.clock_us
        )?;
        writeln!(
            out,
            "  {:<9} {:<15} {:>8} {:>8}  {:>8} {:>8}  {:>6} {:>13}",
            "key", "key exchange", "full µs", "per s", "resumed", "per s", "ratio", "min..max"
        )?;
        for case in &self.cases {
            let Case { key, key_exchange, full, resumed, ratio, .. } = case;
            write!(
                out,
                "  {key:<9} {key_exchange:<15} {:>8.1} {:>8.0}  {:>8.1} {:>8.0}  {:>6.2} {:>6.2}..{:<5.2}",
                full.cpu_us.median,
                full.per_cpu_second,
                resumed.cpu_us.median,
                resumed.per_cpu_second,
                ratio.median,
                ratio.min,
                ratio.max,
            )?;
            match case.wanted_ratio {
                Some(wanted) => writeln!(
                    out,
                    "  wanted: at least {wanted}: {}",
                    if case.is_good() { "good" } else { "FAILED" }
                )?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }
}

/// Measures all cases; rounds alternate between them, so that a change of the machine's speed meets all.
///
/// # Errors
/// What keeps a handshake from being made, or one of the wrong kind.
pub(crate) fn run(args: &HandshakesArgs) -> Result<Report, Error> {
    let mut series = Vec::new();
    for (key, name) in KEYS {
        for (offer, group) in OFFERS {
            series.push(Series::new(key, name, offer, group)?);
        }
    }
    let bar = progress::steps(u64::from(args.rounds) * series.len() as u64);
    for round in 0..args.rounds {
        for series in &mut series {
            bar.set_message(format!("round {}: {}, {}", round + 1, series.key, series.key_exchange));
            series.round(args.count)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let cases = series.iter().map(Series::case).collect();
    Ok(Report { count: args.count, rounds: args.rounds, clock_us: clock_us(), cases })
}

/// The rounds of one case.
struct Series {
    key: &'static str,
    key_exchange: &'static str,
    pair: Pair,
    /// Mean of each round, µs.
    full: Vec<f64>,
    resumed: Vec<f64>,
}

impl Series {
    fn new(
        key: KeyAlgorithm,
        name: &'static str,
        offer: &[KeyExchange],
        key_exchange: &'static str,
    ) -> Result<Self, Error> {
        let pair = Pair::new(key, offer)?;
        Ok(Self { key: name, key_exchange, pair, full: Vec::new(), resumed: Vec::new() })
    }

    /// Full ones first; the last of them leaves the tickets for the resumed ones.
    fn round(&mut self, count: u32) -> Result<(), Error> {
        self.shake(HandshakeKind::Full, WARM_UP)?;
        let full = self.shake(HandshakeKind::Full, count)?;
        self.shake(HandshakeKind::Resumed, WARM_UP)?;
        let resumed = self.shake(HandshakeKind::Resumed, count)?;
        let mean = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
        self.full.push(mean(full));
        self.resumed.push(mean(resumed));
        Ok(())
    }

    fn shake(&mut self, kind: HandshakeKind, count: u32) -> Result<Duration, Error> {
        let mut total = Duration::ZERO;
        for _ in 0..count {
            if kind == HandshakeKind::Full {
                self.pair.forget();
            }
            let Shaken { facts, client } = self.pair.shake()?;
            assert_what_is_measured(&facts, kind, self.key_exchange)?;
            total += client;
        }
        Ok(total)
    }

    fn case(&self) -> Case {
        let ratios: Vec<f64> =
            self.full.iter().zip(&self.resumed).map(|(full, cheap)| full / cheap).collect();
        Case {
            key: self.key.to_owned(),
            key_exchange: self.key_exchange.to_owned(),
            full: Cost::of(&self.full),
            resumed: Cost::of(&self.resumed),
            ratio: Spread::of(&ratios).unwrap_or_default(),
            wanted_ratio: (self.key == BOUND_KEY).then_some(WANTED_RATIO),
        }
    }
}

/// A figure of something else than it says is worse than none.
fn assert_what_is_measured(facts: &HandshakeFacts, kind: HandshakeKind, group: &str) -> Result<(), Error> {
    if facts.kind == kind && facts.key_exchange == Some(group) && facts.version == TlsVersion::Tls13 {
        return Ok(());
    }
    Err(lab("measure handshakes")(format!(
        "wanted TLS 1.3, {kind}, {group}; got {}, {}, {}",
        facts.version,
        facts.kind,
        facts.key_exchange.unwrap_or("none")
    )))
}

/// A handshake has five measured steps: the first, two flights written, one read, the check (a second read of
/// tickets makes six at most).
const STEPS: f64 = 6.0;

fn clock_us() -> f64 {
    let mut meter = Meter::default();
    for _ in 0..CLOCK_LOOKS {
        meter.measured(|| ());
    }
    meter.total().as_secs_f64() * 1e6 / f64::from(CLOCK_LOOKS) * STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_key_exchange_is_measured_full_and_resumed() {
        let report = run(&HandshakesArgs { count: 2, rounds: 2, json: None }).unwrap();
        let cases: Vec<_> =
            report.cases.iter().map(|case| (case.key.as_str(), case.key_exchange.as_str())).collect();
        let expected = ["P-256", "P-384", "RSA 2048"].map(|key| [(key, "X25519MLKEM768"), (key, "X25519")]);
        assert_eq!(cases, expected.concat());
        for case in &report.cases {
            assert!(case.full.cpu_us.min > 0.0 && case.resumed.cpu_us.min > 0.0, "{case:?}");
            assert!((case.full.per_cpu_second * case.full.cpu_us.median - 1e6).abs() < 1.0, "{case:?}");
            assert_eq!(case.wanted_ratio.is_some(), case.key == "RSA 2048", "{case:?}");
        }
        let mut text = Vec::new();
        report.write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.matches("wanted: at least 2.5").count(), 2, "{text}");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap().cases.len(), 6);
    }

    #[test]
    fn a_handshake_of_another_kind_is_not_counted_as_the_wanted_one() {
        let mut pair = Pair::new(KeyAlgorithm::EcP256, &KeyExchange::ALL).unwrap();
        let first = pair.shake().unwrap().facts;
        assert!(assert_what_is_measured(&first, HandshakeKind::Full, "X25519MLKEM768").is_ok());
        assert!(assert_what_is_measured(&first, HandshakeKind::Full, "X25519").is_err());
        assert!(assert_what_is_measured(&first, HandshakeKind::Resumed, "X25519MLKEM768").is_err());
        assert_eq!(pair.shake().unwrap().facts.kind, HandshakeKind::Resumed, "it left tickets");
        pair.forget();
        assert_eq!(pair.shake().unwrap().facts.kind, HandshakeKind::Full, "they were forgotten");
    }

    #[test]
    fn the_bound_is_on_the_median_of_the_ratio() {
        let cost = |us| Cost::of(&[us]);
        let case = |ratios: &[f64], wanted_ratio| Case {
            key: "k".into(),
            key_exchange: "g".into(),
            full: cost(250.0),
            resumed: cost(100.0),
            ratio: Spread::of(ratios).unwrap(),
            wanted_ratio,
        };
        assert!(case(&[2.5, 2.0, 3.0], Some(2.5)).is_good());
        assert!(!case(&[2.4, 2.0, 3.0], Some(2.5)).is_good());
        assert!(case(&[1.0], None).is_good());
    }
}
