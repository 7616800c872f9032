//! `loadgen redial`: every connection ends at once, under load, over a long way; how many round trips until one
//! serves again and until the first reply, and how many dials were made for it.
//!
//! Two ways: the connections are reset while the provider goes on listening, and the provider is away for a while.
//! A round trip here is that of the relay: TCP's handshake, TLS 1.3 and the proof take one each, TLS 1.2 two.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use pool::{ConnectionStatus, State};
use provider_sim::{Behaviour, Resumption, TlsVersions};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    args::RedialArgs,
    error::Error,
    lab::{Lab, Provider, Setup, lab},
    load::{Ended, Load},
    relay::{self, Gate},
};

/// Connections kept, and most: room to see a herd.
const POOL: &str = "min_connections = 4\nmax_connections = 8";
const FLOOR: u64 = 4;
const CEILING: u64 = 8;

/// After an absence the pool may be in its pause between two single trials: never longer than this.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);
/// And never shorter.
const SHORTEST_PAUSE: Duration = Duration::from_micros(12_500);
/// Dials at once that the pool makes where it knows of no failure yet; all of them fail when nobody listens.
const FIRST_VOLLEY: u64 = 4;
/// What the first volley may take to fail.
const VOLLEY_FAILS_WITHIN: Duration = Duration::from_millis(50);
/// Dials beyond the floor that are no herd: the spare for a provider that ends connections, and one for the requests
/// that piled up meanwhile.
const BEYOND_FLOOR: u64 = 2;

/// Between two looks at the pool.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// Load before each end, and after it before the dials are counted.
const SETTLE: Duration = Duration::from_secs(2);
/// How long one recovery may take; used up by a failure only.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// How the connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// Reset, all at once; the provider goes on listening.
    Reset,
    /// The provider is away, and comes back.
    Away,
}

/// One recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Recovery {
    /// From the news of the end until the first dial had begun, milliseconds. Of no meaning after an absence.
    dialled_after_ms: f64,
    /// From the news of the end (or from the return) until a connection served, in round trips.
    served_after: f64,
    /// From the same moment until a request that started after it had its reply, in round trips.
    replied_after: f64,
    /// How long the provider was away, milliseconds.
    away_ms: f64,
    /// Dials that failed while it was away.
    trials: u64,
    /// Most dials under way at once while it was away, the first volley aside.
    trials_at_once: u64,
    /// Dials made after the news (or the return) until the pool had settled, failed ones included.
    dials: u64,
    /// Requests that failed meanwhile.
    requests_failed: u64,
}

/// All recoveries of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Series {
    way: Way,
    tls12: bool,
    round_trip_ms: f64,
    slack_ms: f64,
    recoveries: Vec<Recovery>,
}

impl Series {
    /// Round trips in which a connection must serve.
    fn round_trips(&self) -> f64 {
        if self.tls12 { 4.0 } else { 3.0 }
    }

    /// What may come on top of them, in round trips: the pause between trials, and the slack of the machine.
    fn allowance(&self) -> f64 {
        let pause = if self.way == Way::Away { LONGEST_PAUSE } else { Duration::ZERO };
        (millis(pause) + self.slack_ms) / self.round_trip_ms
    }

    /// Most dials that are no herd. After an absence the requests that queued meanwhile may want the pool at its
    /// ceiling, and at the very return one more trial may find nobody.
    fn most_dials(&self) -> u64 {
        match self.way {
            Way::Reset => FLOOR + BEYOND_FLOOR,
            Way::Away => CEILING + BEYOND_FLOOR + 1,
        }
    }

    /// Most trials in the time that the provider was away: a first volley, then one at a time with a pause after each.
    fn most_trials(recovery: &Recovery) -> u64 {
        // Small and not negative.
        FIRST_VOLLEY + (recovery.away_ms / millis(SHORTEST_PAUSE)) as u64 + 1
    }

    fn worst(&self, figure: impl Fn(&Recovery) -> f64) -> f64 {
        self.recoveries.iter().map(figure).fold(0.0, f64::max)
    }

    fn is_good(&self) -> bool {
        let bound = self.round_trips() + self.allowance();
        let soon = |r: &Recovery| {
            // After an absence it is a trial in its turn that finds the provider back.
            let at_once = self.way == Way::Away || r.dialled_after_ms <= self.slack_ms;
            at_once && r.served_after <= bound && r.replied_after <= bound + 1.0
        };
        let no_herd = |r: &Recovery| {
            r.dials <= self.most_dials() && r.trials_at_once <= 1 && r.trials <= Self::most_trials(r)
        };
        !self.recoveries.is_empty() && self.recoveries.iter().all(|r| soon(r) && no_herd(r))
    }

    /// Writes its line.
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mean = |figure: fn(&Recovery) -> f64| {
            self.recoveries.iter().map(figure).sum::<f64>() / self.recoveries.len().max(1) as f64
        };
        let trips = self.round_trips();
        let (way, pause) = match self.way {
            Way::Reset => ("reset, provider listening".to_owned(), String::new()),
            Way::Away => (
                format!("provider away for {:.0} ms", mean(|r| r.away_ms)),
                format!(" + {} ms of pause", millis(LONGEST_PAUSE)),
            ),
        };
        let judgement = if self.is_good() { "good" } else { "FAILED" };
        write!(
            out,
            "  {way}, TLS {}: serves after {:.2} round trips (worst {:.2}; bound {trips}{pause} + {} ms of slack = \
             {:.2}), first reply after {:.2} (worst {:.2}, one more), dials {:.1} (worst {}, bound {})",
            if self.tls12 { "1.2" } else { "1.3" },
            mean(|r| r.served_after),
            self.worst(|r| r.served_after),
            self.slack_ms,
            trips + self.allowance(),
            mean(|r| r.replied_after),
            self.worst(|r| r.replied_after),
            mean(|r| r.dials as f64),
            self.worst(|r| r.dials as f64),
            self.most_dials(),
        )?;
        match self.way {
            Way::Reset => write!(
                out,
                ", first dial within {:.1} ms (bound {})",
                self.worst(|r| r.dialled_after_ms),
                self.slack_ms
            )?,
            Way::Away => write!(
                out,
                ", trials meanwhile {:.1} (worst {}, bound about {}), at once {} (bound 1)",
                mean(|r| r.trials as f64),
                self.worst(|r| r.trials as f64),
                self.recoveries.iter().map(Self::most_trials).max().unwrap_or_default(),
                self.worst(|r| r.trials_at_once as f64),
            )?,
        }
        writeln!(out, ", requests failed {:.1}  {judgement}", mean(|r| r.requests_failed as f64))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// All series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    round_trip_ms: f64,
    rate: f64,
    series: Vec<Series>,
}

impl Report {
    /// Whether each recovery kept its bounds.
    pub(crate) fn is_good(&self) -> bool {
        self.series.iter().all(Series::is_good)
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "redial: all connections end at once, {} requests/s, round trip {} ms, floor {FLOOR}, at most {CEILING}",
            self.rate, self.round_trip_ms
        )?;
        self.series.iter().try_for_each(|series| series.write_text(out))
    }
}

/// Measures on a runtime of its own.
///
/// # Errors
/// What keeps gateway, relay or provider from running, or the pool from standing again.
pub(crate) fn run(args: &RedialArgs) -> Result<Report, Error> {
    if !(args.rate.is_finite() && args.rate > 0.0) || args.round_trip.is_zero() {
        return Err(Error::Usage("--rate and --round-trip must be above zero".into()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::System { action: "start a runtime", source })?;
    let mut series = Vec::new();
    for (way, tls) in [
        (Way::Reset, TlsVersions::Both),
        // Resumed, TLS 1.2 would need no more than 1.3 does: its full handshake is the one with a bound of its own.
        (Way::Reset, TlsVersions::Tls12Only),
        (Way::Away, TlsVersions::Both),
    ] {
        series.push(runtime.block_on(measure(args, way, tls))?);
    }
    Ok(Report { round_trip_ms: millis(args.round_trip), rate: args.rate, series })
}

async fn measure(args: &RedialArgs, way: Way, tls: TlsVersions) -> Result<Series, Error> {
    let resumption = if tls == TlsVersions::Tls12Only { Resumption::Refuse } else { Resumption::default() };
    let provider = Provider::start(Behaviour { tls, resumption, ..Behaviour::default() }, 0).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(lab("start the relay"))?;
    let address = listener.local_addr().map_err(lab("start the relay"))?;
    let (gate, watched) = watch::channel(Gate::Open);
    let mut tasks = JoinSet::new();
    tasks.spawn(relay::serve(listener, provider.sim.addr(), args.round_trip, watched));
    let setup = Setup { pool: POOL.to_owned(), ..Setup::default() };
    let gateway = Lab::start(&setup, &provider, address).await?;
    let ends = Arc::new(Mutex::new(Vec::new()));
    let load = Load::start(gateway.egress(), args.rate, ends.clone()).await?;
    let stand = Stand { args, way, provider: &provider, gateway: &gateway, gate, ends };
    let mut recoveries = Vec::new();
    for _ in 0..args.times {
        recoveries.push(stand.end_and_recover().await?);
    }
    load.stop().await;
    gateway.stop().await;
    provider.sim.stop().await;
    let (round_trip_ms, slack_ms) = (millis(args.round_trip), millis(args.slack));
    Ok(Series { way, tls12: tls == TlsVersions::Tls12Only, round_trip_ms, slack_ms, recoveries })
}

/// What one recovery needs.
struct Stand<'a> {
    args: &'a RedialArgs,
    way: Way,
    provider: &'a Provider,
    gateway: &'a Lab,
    gate: watch::Sender<Gate>,
    ends: Arc<Mutex<Vec<Ended>>>,
}

impl Stand<'_> {
    async fn end_and_recover(&self) -> Result<Recovery, Error> {
        sleep(SETTLE).await;
        self.ends.lock().clear();
        let before = self.gateway.status();
        let newest = before.connections.iter().map(|c| c.id).max();
        let mut recovery = Recovery::default();
        let news = match self.way {
            Way::Reset => {
                self.provider.sim.kill_connections();
                // The gateway cannot know before half a round trip has passed.
                Instant::now() + self.args.round_trip / 2
            }
            Way::Away => self.go_away(&mut recovery).await,
        };
        let failed_before = self.gateway.status().totals.dials_failed;
        recovery.trials = failed_before - before.totals.dials_failed;
        let mut dialled = None;
        let served = loop {
            let status = self.gateway.status();
            let young = |c: &&ConnectionStatus| Some(c.id) > newest;
            let serves = status.connections.iter().filter(young).any(|c| c.state == State::Serving);
            if status.dialling > 0 || serves {
                dialled.get_or_insert_with(|| news.elapsed());
            }
            if serves {
                break news.elapsed();
            }
            if news.elapsed() > BACK_WITHIN {
                return Err(lab("bring the pool back")("no connection serves"));
            }
            sleep(LOOK_EVERY).await;
        };
        sleep(SETTLE).await;
        let (after, ends) = (self.gateway.status().totals, self.ends.lock().clone());
        let first_reply = ends.iter().filter(|e| e.answered && e.intended >= news).map(|e| e.at).min();
        let replied = first_reply.ok_or("no reply").map_err(lab("bring the pool back"))?;
        let trips = |time: Duration| time.as_secs_f64() / self.args.round_trip.as_secs_f64();
        Ok(Recovery {
            dialled_after_ms: millis(dialled.unwrap_or_default()),
            served_after: trips(served),
            replied_after: trips(replied - news),
            dials: after.connections - before.totals.connections + after.dials_failed - failed_before,
            requests_failed: ends.iter().filter(|e| !e.answered).count() as u64,
            ..recovery
        })
    }

    /// The provider goes, and comes back at the moment that is returned.
    async fn go_away(&self, recovery: &mut Recovery) -> Instant {
        let gone = Instant::now();
        self.gate.send_replace(Gate::Closed);
        sleep(VOLLEY_FAILS_WITHIN.min(self.args.away)).await;
        while gone.elapsed() < self.args.away {
            let dialling = self.gateway.status().dialling as u64;
            recovery.trials_at_once = recovery.trials_at_once.max(dialling);
            sleep(LOOK_EVERY).await;
        }
        self.gate.send_replace(Gate::Open);
        recovery.away_ms = millis(gone.elapsed());
        Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(way: Way, tls12: bool, recovery: Recovery) -> Series {
        Series { way, tls12, round_trip_ms: 40.0, slack_ms: 20.0, recoveries: vec![recovery] }
    }

    fn recovery(served_after: f64) -> Recovery {
        Recovery { served_after, replied_after: served_after + 1.0, dials: FLOOR, ..Recovery::default() }
    }

    #[test]
    fn three_round_trips_are_soon_enough_and_four_with_tls_12() {
        assert!(series(Way::Reset, false, recovery(3.5)).is_good());
        assert!(!series(Way::Reset, false, recovery(3.6)).is_good());
        assert!(series(Way::Reset, true, recovery(4.5)).is_good());
        assert!(!series(Way::Reset, true, recovery(4.6)).is_good());
        let late = Recovery { replied_after: 4.6, ..recovery(3.5) };
        assert!(!series(Way::Reset, false, late).is_good(), "the reply comes one later");
    }

    #[test]
    fn after_an_absence_one_pause_comes_on_top() {
        // 25 ms of pause and 20 of slack are 1.125 round trips.
        assert!(series(Way::Away, false, recovery(4.12)).is_good());
        assert!(!series(Way::Away, false, recovery(4.13)).is_good());
    }

    #[test]
    fn the_first_dial_waits_for_nothing() {
        let late = Recovery { dialled_after_ms: 21.0, ..recovery(3.0) };
        assert!(!series(Way::Reset, false, late).is_good());
        assert!(series(Way::Away, false, late).is_good());
    }

    #[test]
    fn a_few_dials_beyond_the_floor_are_no_herd_and_more_are() {
        let dials = |dials| Recovery { dials, ..recovery(3.0) };
        assert!(series(Way::Reset, false, dials(FLOOR + 2)).is_good());
        assert!(!series(Way::Reset, false, dials(FLOOR + 3)).is_good());
        assert!(series(Way::Away, false, dials(CEILING + 3)).is_good());
        assert!(!series(Way::Away, false, dials(CEILING + 4)).is_good());
    }

    #[test]
    fn while_the_provider_is_away_there_is_one_trial_at_a_time_and_a_pause_after_it() {
        let away =
            |trials, trials_at_once| Recovery { away_ms: 500.0, trials, trials_at_once, ..recovery(3.0) };
        assert!(series(Way::Away, false, away(45, 1)).is_good());
        assert!(!series(Way::Away, false, away(46, 1)).is_good());
        assert!(!series(Way::Away, false, away(45, 2)).is_good());
    }

    #[test]
    fn nothing_measured_proves_nothing() {
        assert!(!Series { recoveries: Vec::new(), ..series(Way::Reset, false, recovery(3.0)) }.is_good());
    }
}
