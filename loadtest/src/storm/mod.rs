//! `loadgen storm`: a gateway, a provider that does everything it may not, callers at a fixed rate, and at the end
//! the ledger: every request has one outcome, none that was provably unprocessed is lost, none is processed twice.
//!
//! Owns the order of a storm and its judgement. All in one process, over real sockets of loopback.

mod away;
mod books;
mod director;
mod lanes;
mod log;
mod memory;
mod names;
mod report;
mod stage;
mod weather;

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    thread,
    time::Duration,
};

use provider_sim::Behaviour;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep},
};

use self::{
    away::Absence,
    books::{Books, Outcome},
    director::Director,
    lanes::Callers,
    log::LogReader,
    memory::Sample,
    names::NameServer,
    report::{Facts, Rest},
    stage::Stage,
    weather::Weather,
};
pub(crate) use self::{report::Report, weather::Steering};
use crate::{
    args::StormArgs,
    error::Error,
    lab::{AccessLog, Lab, Provider, Setup, lab},
    scrape::Metrics,
};

/// Of a short storm, as in CI.
const SHORT: Duration = Duration::from_secs(30);
/// Of a storm when `--for` is not given.
const LONG: Duration = Duration::from_secs(600);
/// One request in so many ends the connection it arrives on.
const STEERED_ONE_IN: u64 = 1500;
/// The provider's answers take this long in calm weather: enough to have something in flight.
const LATENCY: Duration = Duration::from_millis(2);
/// The provider listens here too, on the same port; its name moves between the two addresses.
const OTHER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// PINGs as often as the configuration allows, so that a fault of seconds meets some; and limits that were learned from
/// a cadence of GOAWAYs are put to the test soon after, or the smallest of them would rule the rest of the storm.
const POOL: &str = "ping_interval_s = 1\nping_timeout_ms = 1000\nretest_after_ms = 1000";
/// The time limit of the proof is the least patience with a PING. Two workers on any machine, so that requests,
/// connections and the supervisor meet across threads.
const SECTIONS: &str = "[environments.sandbox.timeouts]\nprove_ms = 1000\n[runtime]\nworkers = 2";
/// Faults end this long before the last request starts.
const CALM_END: Duration = Duration::from_secs(2);
/// After the last outcome everything must come to rest within this.
const REST_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at memory.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Runs a storm on a runtime of its own.
///
/// # Errors
/// Anything that keeps it from happening. What it finds is in the report.
pub(crate) fn run(args: &StormArgs) -> Result<Report, Error> {
    if !(args.rate.is_finite() && args.rate > 0.0) {
        return Err(Error::Usage("--rate must be above zero".into()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::System { action: "start a runtime", source })?;
    runtime.block_on(storm(args))
}

async fn storm(args: &StormArgs) -> Result<Report, Error> {
    let lasts = args.lasts.unwrap_or(if args.short { SHORT } else { LONG });
    if lanes::requests(args.rate, lasts) > stage::MAX_REQUESTS {
        let most = stage::MAX_REQUESTS;
        return Err(Error::Usage(format!(
            "--rate times --for is more than {most} requests, of which the provider can keep books; lower one"
        )));
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    tell(format_args!("storm: {} s at {}/s, seed {seed}", lasts.as_secs_f64(), args.rate));

    let behaviour = Behaviour { latency: LATENCY, latency_jitter: LATENCY, ..Behaviour::default() };
    let provider = Provider::start_at(behaviour, seed, &[OTHER_ADDRESS]).await?;
    let names = NameServer::start(provider.sim.addr().ip()).await?;
    let setup = Setup {
        pool: POOL.to_owned(),
        sections: format!("{SECTIONS}\n[dns]\nservers = [\"{}\"]", names.address()),
        access_log: AccessLog::File,
    };
    let connect = format!("provider.test:{}", provider.sim.addr().port());
    let lab = Lab::start(&setup, &provider, connect).await?;
    let absence = Arc::new(Absence::new(Instant::now()));
    let books = Arc::new(Books::new(lanes::requests(args.rate, lasts)));
    let prefix = format!("storm-{seed:016x}");
    let (stop, stopping) = watch::channel(false);
    let callers = Callers {
        egress: lab.egress(),
        rate: args.rate,
        lasts,
        prefix: prefix.clone(),
        steering: Steering { seed, one_in: STEERED_ONE_IN },
        books: books.clone(),
        absence: absence.clone(),
        stop: stopping,
    };
    let log = LogReader::new(lab.access_log(), &prefix, books.clone());
    let stage = Stage::new(provider, names, &prefix);
    let scene = Scene { lab, absence, books, log, lasts, stop };
    let facts = scene.play(stage, callers, Weather::new(seed)).await?;
    Ok(Report::new(seed, args.rate, facts))
}

/// Everything of one storm.
struct Scene {
    lab: Lab,
    absence: Arc<Absence>,
    books: Arc<Books>,
    log: LogReader,
    lasts: Duration,
    stop: watch::Sender<bool>,
}

type CallersThread = thread::JoinHandle<Result<(), Error>>;

impl Scene {
    async fn play(self, mut stage: Stage, callers: Callers, weather: Weather) -> Result<Facts, Error> {
        let (thread, start) = set_off(callers).await?;
        let mut samples = Vec::new();
        let mut director = Director::new(&self.lab, &mut stage, self.absence.clone());
        let interrupted = self.blow(&mut director, weather, start, &thread, &mut samples).await?;
        let faults = std::mem::take(&mut director.done);
        self.stop.send_replace(true);
        until_ended(&thread).await;
        thread.join().map_err(|_panic| Error::WorkerDied)??;
        let rest = self.come_to_rest(&stage).await;
        let metrics = Metrics::scrape(self.lab.admin()).await.map_err(lab("read the metrics"))?;
        let (stopped, _folder) = self.lab.stop().await;
        self.log.finish().map_err(lab("read the access log"))?;
        let settled = self.books.settle(|sequence| stage.account(sequence));
        Ok(Facts {
            seconds: self.lasts.as_secs_f64(),
            interrupted,
            faults,
            rest,
            deaths: metrics.by("tsh_connections_closed_total", "cause"),
            stopped,
            samples,
            provider: stage.sim().ledger(),
            settled,
            books: self.books,
        })
    }

    /// The storm itself, until the last caller has its outcome or somebody interrupts.
    async fn blow(
        &self,
        director: &mut Director<'_>,
        weather: Weather,
        start: Instant,
        thread: &CallersThread,
        samples: &mut Vec<Sample>,
    ) -> Result<bool, Error> {
        let end = start + self.lasts;
        let mut interrupted = false;
        tokio::select! {
            played = async {
                director.play(weather, start, end - CALM_END.min(self.lasts / 4)).await?;
                tokio::time::sleep_until(end).await;
                until_ended(thread).await;
                Ok::<(), Error>(())
            } => played?,
            followed = self.log.follow() => followed.map_err(lab("follow the access log"))?,
            _ = tokio::signal::ctrl_c() => interrupted = true,
            () = self.look(start, samples) => {}
        }
        Ok(interrupted)
    }

    /// Samples memory and says how it goes. Never ends.
    async fn look(&self, start: Instant, samples: &mut Vec<Sample>) {
        let mut told = start;
        let mut ended_then = 0;
        for second in 1.. {
            tokio::time::sleep_until(start + SAMPLE_EVERY * second).await;
            let resident = memory::resident().unwrap_or_default();
            samples.push(Sample { at: start.elapsed().as_secs_f64(), resident });
            if told.elapsed() >= TELL_EVERY {
                let ended = self.books.ended();
                let rate = (ended - ended_then) as f64 / told.elapsed().as_secs_f64();
                self.tell(start.elapsed(), rate, resident);
                (told, ended_then) = (Instant::now(), ended);
            }
        }
    }

    fn tell(&self, elapsed: Duration, rate: f64, resident: u64) {
        let status = self.lab.status();
        let count = |outcome| self.books.total(outcome);
        tell(format_args!(
            "{:4} s  {rate:6.0}/s  offered {}  answered {}  away {}  ambiguous {}  cut {}  other {}  connections {} (dialling {})  \
             replays {}  RSS {:.1} MiB",
            elapsed.as_secs(),
            self.books.offered(),
            count(Outcome::Answered),
            count(Outcome::Away),
            count(Outcome::Ambiguous),
            count(Outcome::Cut),
            self.books.ended()
                - [Outcome::Answered, Outcome::Away, Outcome::Ambiguous, Outcome::Cut]
                    .map(count)
                    .iter()
                    .sum::<u64>(),
            status.connections.iter().filter(|c| c.state == pool::State::Serving).count(),
            status.dialling,
            status.totals.replays,
            resident as f64 / f64::from(1 << 20),
        ));
    }

    /// Waits until every count is back at zero, not for ever.
    async fn come_to_rest(&self, stage: &Stage) -> Rest {
        let deadline = Instant::now() + REST_WITHIN;
        loop {
            let rest = Rest::of(&self.lab.status(), stage.sim().ledger().streams_open);
            if rest.is_quiet() || Instant::now() > deadline {
                return rest;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Starts the callers' thread; the instant of the first request is known once all of them are connected.
async fn set_off(callers: Callers) -> Result<(CallersThread, Instant), Error> {
    let (started, start) = oneshot::channel();
    let thread = thread::Builder::new().name("storm-callers".into()).spawn(move || callers.run(started));
    let thread = thread.map_err(|source| Error::System { action: "start a thread", source })?;
    match start.await {
        Ok(start) => Ok((thread, start)),
        Err(_ended_before) => {
            thread.join().map_err(|_panic| Error::WorkerDied)??;
            Err(Error::WorkerDied)
        }
    }
}

/// Until all callers have their outcomes; each gives up after a while, so this ends.
async fn until_ended(thread: &CallersThread) {
    while !thread.is_finished() {
        sleep(Duration::from_millis(20)).await;
    }
}

fn tell(text: std::fmt::Arguments<'_>) {
    // Nowhere to complain about a closed standard error.
    let _closed = writeln!(std::io::stderr(), "{text}");
}
