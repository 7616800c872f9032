//! `loadgen resumption`: all connections end, again and again; how many of the new ones resume a session, by the
//! number of tickets that the provider issues per handshake.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use pool::{PoolStatus, State};
use provider_sim::Behaviour;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    args::ResumptionArgs,
    error::Error,
    lab::{AccessLog, Lab, Provider, Setup, lab},
    load::Load,
};

/// Requests per second meanwhile. Connections that carried something are no sign of a sick provider: without load
/// the pool would back off between ends, as it should.
const RATE: f64 = 200.0;

/// How long connections live before they are ended.
const LIVES_FOR: Duration = Duration::from_millis(250);

/// Tickets per handshake that are tried.
const TICKETS: [u32; 3] = [0, 1, 20];

/// Share of re-dials that must resume where there are tickets.
const LEAST_SHARE: f64 = 0.95;

/// How long the pool may take to stand again; used up by a failure only.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// What one number of tickets came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Series {
    tickets: u32,
    /// Connections that came to serve after the first ones ended.
    redials: u64,
    /// Of those, resumed.
    resumed: u64,
    /// As the provider counts them, first handshakes included.
    resumed_by_provider: u64,
    /// Dials that failed.
    failed: u64,
    /// Handshakes that found no ticket, as the pool says.
    without_ticket: u64,
}

impl Series {
    fn share(&self) -> f64 {
        self.resumed as f64 / self.redials.max(1) as f64
    }

    fn is_good(&self) -> bool {
        let right = if self.tickets == 0 { self.resumed == 0 } else { self.share() > LEAST_SHARE };
        right && self.redials > 0 && self.failed == 0
    }
}

/// All series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    times: u32,
    series: Vec<Series>,
}

impl Report {
    /// Whether enough resumed where there were tickets, none where there were none, and no dial failed.
    pub(crate) fn is_good(&self) -> bool {
        self.series.iter().all(Series::is_good)
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "resumption: all connections ended {} times", self.times)?;
        for series in &self.series {
            let Series { tickets, redials, resumed, failed, without_ticket, .. } = series;
            writeln!(
                out,
                "  {tickets:2} tickets  {redials} re-dials, {resumed} resumed ({:.1} %), {failed} failed, \
                 {without_ticket} handshakes without a ticket at hand  {}",
                series.share() * 100.0,
                if series.is_good() { "good" } else { "FAILED" },
            )?;
        }
        Ok(())
    }
}

/// Measures on a runtime of its own.
///
/// # Errors
/// What keeps the gateway or the provider from running, or the pool from standing again.
pub(crate) fn run(args: &ResumptionArgs) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::System { action: "start a runtime", source })?;
    let mut series = Vec::new();
    for tickets in TICKETS {
        series.push(runtime.block_on(measure(tickets, args.times))?);
    }
    Ok(Report { times: args.times, series })
}

async fn measure(tickets: u32, times: u32) -> Result<Series, Error> {
    let provider = Provider::start(Behaviour { tickets, ..Behaviour::default() }, 0).await?;
    let setup = Setup { pool: String::new(), access_log: AccessLog::Off };
    let gateway = Lab::start(&setup, &provider, provider.sim.addr()).await?;
    let ends = Arc::default();
    let load = Load::start(gateway.egress(), RATE, Arc::clone(&ends)).await?;
    let first = gateway.status().totals;
    for _ in 0..times {
        sleep(LIVES_FOR).await;
        ends.lock().clear();
        let newest = gateway.status().connections.iter().map(|c| c.id).max();
        provider.sim.kill_connections();
        let deadline = Instant::now() + BACK_WITHIN;
        while !stands_again(&gateway.status(), newest) {
            if Instant::now() > deadline {
                return Err(lab("bring the pool back")("its floor is not met again"));
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
    load.stop().await;
    let status = gateway.status();
    let series = Series {
        tickets,
        redials: status.totals.connections - first.connections,
        resumed: status.totals.handshakes_resumed - first.handshakes_resumed,
        resumed_by_provider: provider.sim.ledger().handshakes_resumed,
        failed: status.totals.dials_failed,
        without_ticket: status.tickets.missing,
    };
    gateway.stop().await;
    provider.sim.stop().await;
    Ok(series)
}

/// The floor is met by connections that are all younger than `newest`, and no dial is under way that the next end
/// would cut.
fn stands_again(status: &PoolStatus, newest: Option<pool::ConnectionId>) -> bool {
    let young = |c: &&pool::ConnectionStatus| c.state == State::Serving && Some(c.id) > newest;
    let serving = status.connections.iter().filter(young).count();
    status.dialling == 0 && serving >= status.min_connections as usize && serving == status.connections.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(tickets: u32, redials: u64, resumed: u64) -> Series {
        Series { tickets, redials, resumed, resumed_by_provider: resumed, failed: 0, without_ticket: 0 }
    }

    #[test]
    fn more_than_95_percent_must_resume_where_there_are_tickets_and_none_where_there_are_none() {
        assert!(series(20, 100, 96).is_good());
        assert!(!series(20, 100, 95).is_good());
        assert!(series(0, 100, 0).is_good());
        assert!(!series(0, 100, 1).is_good());
        assert!(!series(0, 0, 0).is_good(), "nothing dialled proves nothing");
        assert!(!Series { failed: 1, ..series(20, 100, 100) }.is_good());
    }
}
