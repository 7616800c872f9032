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
use pool::{PoolStatus, State};
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
    lab::{AccessLog, Lab, Provider, Setup, lab},
    load::{Ended, Load},
    relay::{self, Gate},
};

/// Connections kept, and most: room to see a herd.
const POOL: &str = "min_connections = 4\nmax_connections = 8";
const FLOOR: u64 = 4;
const CEILING: u64 = 8;

/// Single trials, 12 ms apart at least, in the two seconds for which the pool is eager.
const MOST_TRIALS: u64 = 2000 / 12;

/// Between two looks at the pool.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// Load before each end, and after it before the dials are counted.
const SETTLE: Duration = Duration::from_secs(2);
/// How long one recovery may take; used up by a failure only.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// What the machine may add to a figure in round trips: timers in steps of a millisecond, two busy cores.
const SLACK: f64 = 0.5;

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
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Recovery {
    /// From the news of the end (or from the return) until a connection served, in round trips.
    served_after: f64,
    /// From the same moment until a request that started after it had its reply, in round trips.
    replied_after: f64,
    /// Dials made, failed ones included, until the pool had settled.
    dials: u64,
    /// Of those, failed.
    failed: u64,
    /// Requests that failed meanwhile.
    requests_failed: u64,
}

/// All recoveries of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Series {
    way: Way,
    tls12: bool,
    recoveries: Vec<Recovery>,
}

impl Series {
    /// Round trips in which a connection must serve.
    fn bound(&self) -> f64 {
        if self.tls12 { 4.0 } else { 3.0 }
    }

    /// Most dials that are no herd: the ceiling once, and in an absence those that were under way when it began and
    /// single trials after them, at most one every 12 ms while nothing listens.
    fn most_dials(&self, recovery: &Recovery) -> u64 {
        match self.way {
            Way::Reset => CEILING,
            Way::Away => CEILING + recovery.failed.min(FLOOR + MOST_TRIALS),
        }
    }

    fn worst(&self, figure: impl Fn(&Recovery) -> f64) -> f64 {
        self.recoveries.iter().map(figure).fold(0.0, f64::max)
    }

    fn is_good(&self) -> bool {
        // After an absence the pause before the next trial comes first: 12 to 25 ms, less than one round trip.
        let pause = if self.way == Way::Away { 1.0 } else { 0.0 };
        let soon = self.worst(|r| r.served_after) <= self.bound() + pause + SLACK
            && self.worst(|r| r.replied_after) <= self.bound() + 1.0 + pause + 2.0 * SLACK;
        soon && self.recoveries.iter().all(|recovery| recovery.dials <= self.most_dials(recovery))
    }
}

/// All series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    round_trip_ms: f64,
    rate: f64,
    away_ms: f64,
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
        for series in &self.series {
            let way = match series.way {
                Way::Reset => "reset, provider listening".to_owned(),
                Way::Away => format!("provider away for {} ms", self.away_ms),
            };
            let mean = |figure: fn(&Recovery) -> f64| {
                series.recoveries.iter().map(figure).sum::<f64>() / series.recoveries.len().max(1) as f64
            };
            writeln!(
                out,
                "  {way}, TLS {}: serves after {:.2} round trips (worst {:.2}, bound {}), first reply after {:.2} \
                 (worst {:.2}), dials {:.1} (most {}), of them failed {:.1}, requests failed {:.1}  {}",
                if series.tls12 { "1.2" } else { "1.3" },
                mean(|r| r.served_after),
                series.worst(|r| r.served_after),
                series.bound(),
                mean(|r| r.replied_after),
                series.worst(|r| r.replied_after),
                mean(|r| r.dials as f64),
                series.worst(|r| r.dials as f64),
                mean(|r| r.failed as f64),
                mean(|r| r.requests_failed as f64),
                if series.is_good() { "good" } else { "FAILED" },
            )?;
        }
        Ok(())
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
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Ok(Report { round_trip_ms: ms(args.round_trip), rate: args.rate, away_ms: ms(args.away), series })
}

async fn measure(args: &RedialArgs, way: Way, tls: TlsVersions) -> Result<Series, Error> {
    let resumption = if tls == TlsVersions::Tls12Only { Resumption::Refuse } else { Resumption::default() };
    let provider = Provider::start(Behaviour { tls, resumption, ..Behaviour::default() }, 0).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(lab("start the relay"))?;
    let address = listener.local_addr().map_err(lab("start the relay"))?;
    let (gate, watched) = watch::channel(Gate::Open);
    let mut tasks = JoinSet::new();
    tasks.spawn(relay::serve(listener, provider.sim.addr(), args.round_trip, watched));
    let setup = Setup { pool: POOL.to_owned(), access_log: AccessLog::Off };
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
    Ok(Series { way, tls12: tls == TlsVersions::Tls12Only, recoveries })
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
        let news = match self.way {
            Way::Reset => {
                self.provider.sim.kill_connections();
                // The gateway cannot know before half a round trip has passed.
                Instant::now() + self.args.round_trip / 2
            }
            Way::Away => {
                self.gate.send_replace(Gate::Closed);
                sleep(self.args.away).await;
                self.gate.send_replace(Gate::Open);
                Instant::now()
            }
        };
        let serves = |status: &PoolStatus| {
            status.connections.iter().any(|c| c.state == State::Serving && Some(c.id) > newest)
        };
        while !serves(&self.gateway.status()) {
            if news.elapsed() > BACK_WITHIN {
                return Err(lab("bring the pool back")("no connection serves"));
            }
            sleep(LOOK_EVERY).await;
        }
        let served = news.elapsed();
        sleep(SETTLE).await;
        let (after, ends) = (self.gateway.status(), self.ends.lock().clone());
        let first_reply = ends.iter().filter(|e| e.answered && e.intended >= news).map(|e| e.at).min();
        let replied = first_reply.ok_or("no reply").map_err(lab("bring the pool back"))?;
        let failed = after.totals.dials_failed - before.totals.dials_failed;
        let trips = |time: Duration| time.as_secs_f64() / self.args.round_trip.as_secs_f64();
        Ok(Recovery {
            served_after: trips(served),
            replied_after: trips(replied - news),
            dials: after.totals.connections - before.totals.connections + failed,
            failed,
            requests_failed: ends.iter().filter(|e| !e.answered).count() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(way: Way, tls12: bool, served_after: f64, dials: u64) -> Series {
        let replied_after = served_after + 1.0;
        let recovery = Recovery { served_after, replied_after, dials, failed: 0, requests_failed: 0 };
        Series { way, tls12, recoveries: vec![recovery] }
    }

    #[test]
    fn three_round_trips_are_soon_enough_and_four_with_tls_12() {
        assert!(series(Way::Reset, false, 3.1, 4).is_good());
        assert!(!series(Way::Reset, false, 4.0, 4).is_good());
        assert!(series(Way::Reset, true, 4.0, 4).is_good());
        assert!(!series(Way::Reset, true, 5.0, 4).is_good());
    }

    #[test]
    fn more_dials_than_connections_are_a_herd() {
        assert!(series(Way::Reset, false, 3.0, CEILING).is_good());
        assert!(!series(Way::Reset, false, 3.0, CEILING + 1).is_good());
        assert!(!series(Way::Away, false, 3.0, CEILING + 1).is_good());
    }
}
