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
    lab::{Lab, Provider, Setup, lab},
    load::Load,
    scrape::Metrics,
};

/// Requests per second meanwhile. Connections that carried something are no sign of a sick provider: without load
/// the pool would back off between ends, as it should.
const RATE: f64 = 200.0;

/// How long connections live before they are ended: some twenty requests.
const LIVES_FOR: Duration = Duration::from_millis(100);

/// Ends before those that count. The first ones make the pool grow by a spare, as it does for a provider that ends
/// connections; that one has no ticket of an elder to resume with, and is no re-dial.
const FIRST_ENDS: u32 = 3;

/// How long all is left alone after the last end, to see that requests are answered again.
const AFTERWARDS: Duration = Duration::from_millis(250);

/// Tickets per handshake that are tried.
const TICKETS: [u32; 3] = [0, 1, 20];

/// Share of re-dials that must resume where there are tickets.
const LEAST_SHARE: f64 = 0.95;

/// How long metrics and pool may differ; used up by a failure only.
const AGREED_WITHIN: Duration = Duration::from_secs(5);

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
    /// Requests that were not answered after the last end.
    unanswered: u64,
    /// What `/metrics` says in the end.
    metrics: Told,
    /// What the pool itself counted.
    counted: Told,
}

/// Handshakes and tickets, as two sources tell them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Told {
    /// Full handshakes that came to serve.
    full: u64,
    /// Resumed ones.
    resumed: u64,
    /// Tickets held now.
    tickets_held: u64,
    /// Tickets ever stored.
    tickets_stored: u64,
    /// Dials that found none.
    tickets_missing: u64,
}

impl Told {
    /// As the pool counted.
    fn by_pool(status: &PoolStatus) -> Self {
        Self {
            full: status.totals.handshakes_full,
            resumed: status.totals.handshakes_resumed,
            tickets_held: status.tickets.held,
            tickets_stored: status.tickets.stored,
            tickets_missing: status.tickets.missing,
        }
    }

    /// As an operator sees it.
    fn by_metrics(metrics: &Metrics) -> Self {
        let handshakes =
            |kind| metrics.sum("tsh_handshakes_total", &[&format!("kind=\"{kind}\""), "result=\"ok\""]);
        let tickets = |state| metrics.sum("tsh_tickets", &[&format!("state=\"{state}\"")]);
        Self {
            full: handshakes("full"),
            resumed: handshakes("resumed"),
            tickets_held: tickets("held"),
            tickets_stored: tickets("stored"),
            tickets_missing: tickets("missing"),
        }
    }

    /// Nothing was resumed, nothing could have been, and it says so.
    fn says_that_there_are_none(&self) -> bool {
        self.resumed + self.tickets_held + self.tickets_stored == 0
            && self.full > 0
            && self.tickets_missing >= self.full
    }
}

impl Series {
    fn share(&self) -> f64 {
        self.resumed as f64 / self.redials.max(1) as f64
    }

    fn is_good(&self) -> bool {
        let right = if self.tickets == 0 {
            self.resumed == 0 && self.metrics.says_that_there_are_none()
        } else {
            self.share() > LEAST_SHARE
        };
        let sound = self.failed + self.unanswered == 0 && self.metrics == self.counted;
        right && sound && self.redials > 0
    }
}

/// All series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    times: u32,
    series: Vec<Series>,
}

impl Report {
    /// Whether enough resumed where there were tickets, none where there were none, the metrics say so, and nothing
    /// failed that had to go well.
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
            let Series { tickets, redials, resumed, failed, without_ticket, unanswered, metrics, .. } =
                series;
            writeln!(
                out,
                "  {tickets:2} tickets  {redials} re-dials, {resumed} resumed ({:.1} %), {failed} failed, \
                 {without_ticket} handshakes without a ticket at hand, {unanswered} requests unanswered in the end; \
                 metrics: {} full, {} resumed, {} tickets held{}  {}",
                series.share() * 100.0,
                metrics.full,
                metrics.resumed,
                metrics.tickets_held,
                if *metrics == series.counted { "" } else { " (NOT what the pool counted)" },
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
    let gateway = Lab::start(&Setup::default(), &provider, provider.sim.addr()).await?;
    let ends = Arc::default();
    let load = Load::start(gateway.egress(), RATE, Arc::clone(&ends)).await?;
    for _ in 0..FIRST_ENDS {
        end_all(&gateway, &provider).await?;
    }
    let first = gateway.status();
    for _ in 0..times {
        ends.lock().clear();
        end_all(&gateway, &provider).await?;
    }
    // What began before the last end may have met it.
    let stands = Instant::now();
    sleep(AFTERWARDS).await;
    load.stop().await;
    let unanswered = ends.lock().iter().filter(|end| end.intended >= stands && !end.answered).count() as u64;
    let (metrics, counted, status) = agreed(&gateway).await?;
    let series = Series {
        tickets,
        redials: status.totals.connections - first.totals.connections,
        resumed: status.totals.handshakes_resumed - first.totals.handshakes_resumed,
        resumed_by_provider: provider.sim.ledger().handshakes_resumed,
        failed: status.totals.dials_failed,
        without_ticket: status.tickets.missing - first.tickets.missing,
        unanswered,
        metrics,
        counted,
    };
    gateway.stop().await;
    provider.sim.stop().await;
    Ok(series)
}

/// Ends every connection after a while, and waits until the pool stands again.
async fn end_all(gateway: &Lab, provider: &Provider) -> Result<(), Error> {
    sleep(LIVES_FOR).await;
    let newest = gateway.status().connections.iter().map(|c| c.id).max();
    provider.sim.kill_connections();
    let deadline = Instant::now() + BACK_WITHIN;
    while !stands_again(&gateway.status(), newest) {
        if Instant::now() > deadline {
            return Err(lab("bring the pool back")("its floor is not met again"));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// What metrics and pool say at one moment: read again while a dial changes one after the other was read.
async fn agreed(gateway: &Lab) -> Result<(Told, Told, PoolStatus), Error> {
    let deadline = Instant::now() + AGREED_WITHIN;
    loop {
        let metrics = Metrics::scrape(gateway.admin()).await.map_err(lab("read the metrics"))?;
        let status = gateway.status();
        let (told, counted) = (Told::by_metrics(&metrics), Told::by_pool(&status));
        if told == counted || Instant::now() > deadline {
            return Ok((told, counted, status));
        }
        sleep(Duration::from_millis(20)).await;
    }
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
        let told = Told {
            full: 4 + redials - resumed,
            resumed,
            tickets_stored: u64::from(tickets) * redials,
            tickets_missing: 4 + redials - resumed,
            tickets_held: u64::from(tickets),
        };
        Series {
            tickets,
            redials,
            resumed,
            resumed_by_provider: resumed,
            failed: 0,
            without_ticket: 0,
            unanswered: 0,
            metrics: told,
            counted: told,
        }
    }

    #[test]
    fn more_than_95_percent_must_resume_where_there_are_tickets_and_none_where_there_are_none() {
        assert!(series(20, 100, 96).is_good());
        assert!(!series(20, 100, 95).is_good());
        assert!(series(0, 100, 0).is_good());
        assert!(!series(0, 100, 1).is_good());
        assert!(!series(0, 0, 0).is_good(), "nothing dialled proves nothing");
        assert!(!Series { failed: 1, ..series(20, 100, 100) }.is_good());
        assert!(!Series { unanswered: 1, ..series(0, 100, 0) }.is_good(), "nothing may break");
    }

    #[test]
    fn the_metrics_must_say_that_there_are_no_tickets() {
        let good = series(0, 100, 0);
        let silent = Told { tickets_missing: 0, ..good.metrics };
        assert!(!Series { metrics: silent, counted: silent, ..good }.is_good());
        assert!(!Series { metrics: silent, ..good }.is_good(), "nor may they differ from the pool");
    }
}
