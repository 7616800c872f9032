//! One run from plan to report: starts the workers together, measures the window, merges the records.

use std::{sync::Arc, thread, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    error::Error,
    plan::Plan,
    process::{Depth, Watch},
    progress::{Progress, Scale, Visibility},
    record::{Live, Recorder},
    report::{Report, Setup, Usage, Window},
    schedule::{Extent, Share},
    worker::{Command, Event, Worker},
};

/// Between the last connection and the first request: all workers have to hear of it.
const HEAD_START: Duration = Duration::from_millis(20);

/// Between two samples of memory and threads; a sample costs tens of microseconds.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Every how many samples the proportional memory is read too: once a second.
const FULL_SAMPLE_EVERY: u32 = 10;

/// Runs the plan; `pids` are the processes under test.
///
/// # Errors
/// Anything that keeps the run from happening. Lost requests are no error; they are in the report.
pub(crate) fn run(plan: Plan, setup: Setup, pids: &[u32], visibility: Visibility) -> Result<Report, Error> {
    let meter = Meter::new(pids)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::System { action: "start a runtime", source })?;
    runtime.block_on(Runner::start(Arc::new(plan), meter)?.run(setup, visibility))
}

/// The workers and what is measured about them.
struct Runner {
    plan: Arc<Plan>,
    meter: Meter,
    commands: watch::Sender<Command>,
    events: mpsc::Receiver<Event>,
    threads: Vec<thread::JoinHandle<Result<(), Error>>>,
}

impl Runner {
    fn start(plan: Arc<Plan>, meter: Meter) -> Result<Self, Error> {
        let (commands, listening) = watch::channel(Command::Prepare);
        let (telling, events) = mpsc::channel(plan.threads as usize);
        let mut threads = Vec::new();
        for index in 0..plan.threads {
            let worker = Worker {
                plan: plan.clone(),
                share: Share { index: index.into(), workers: plan.threads.into() },
                live: meter.live.clone(),
                commands: listening.clone(),
                events: telling.clone(),
            };
            let thread = thread::Builder::new().name(format!("loadgen-{index}")).spawn(move || worker.run());
            threads.push(thread.map_err(|source| Error::System { action: "start a thread", source })?);
        }
        Ok(Self { plan, meter, commands, events, threads })
    }

    async fn run(mut self, setup: Setup, visibility: Visibility) -> Result<Report, Error> {
        self.wait_until_connected().await?;
        let start = Instant::now() + HEAD_START;
        self.commands.send_replace(Command::Go(start));
        let (record, window) = self.measure(start, visibility).await?;
        for thread in self.threads {
            thread.join().map_err(|_panic| Error::WorkerDied)??;
        }
        Ok(Report::new(setup, &record, window))
    }

    async fn wait_until_connected(&mut self) -> Result<(), Error> {
        for _ in 0..self.plan.threads {
            match self.events.recv().await {
                Some(Event::Ready) => {}
                Some(Event::Unreachable(lost)) => {
                    self.commands.send_replace(Command::Stop);
                    return Err(Error::Connect { address: self.plan.address, cause: lost.detail });
                }
                Some(Event::Done(_)) | None => return Err(Error::WorkerDied),
            }
        }
        Ok(())
    }

    async fn measure(&mut self, start: Instant, visibility: Visibility) -> Result<(Recorder, Window), Error> {
        let from = start + self.plan.warmup;
        let (to, scale) = match self.plan.extent {
            Extent::Time(length) => (Some(from + length), Scale::Time(self.plan.warmup + length)),
            Extent::Requests(requests) => (None, Scale::Requests(requests)),
        };
        let progress = Progress::new(scale, visibility);
        let mut record = Recorder::new(self.meter.live.clone());
        let (mut first, mut last): (Option<Mark>, Option<Mark>) = (None, None);
        let mut interrupted = false;
        let mut missing = self.plan.threads;
        let mut tick = start;
        while missing > 0 {
            let boundary = if first.is_none() { Some(from) } else { to.filter(|_| last.is_none()) };
            let wake = boundary.map_or(tick, |boundary| boundary.min(tick));
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(Event::Done(part)) => {
                        record.merge(&part);
                        missing -= 1;
                    }
                    _ => return Err(Error::WorkerDied),
                },
                _ = tokio::signal::ctrl_c(), if !interrupted => {
                    interrupted = true;
                    last.get_or_insert_with(|| self.meter.mark());
                    self.commands.send_replace(Command::Stop);
                }
                () = tokio::time::sleep_until(wake) => {
                    let now = Instant::now();
                    if boundary.is_some_and(|boundary| now >= boundary) {
                        let mark = self.meter.mark();
                        *(if first.is_none() { &mut first } else { &mut last }) = Some(mark);
                    }
                    if now >= tick {
                        self.meter.sample();
                        progress.show(now.saturating_duration_since(start), &self.meter.live);
                        tick = now + SAMPLE_EVERY;
                    }
                }
            }
        }
        progress.finish();
        let end = last.unwrap_or_else(|| self.meter.mark());
        let window = self.meter.window(first.unwrap_or(end), end);
        Ok((record, Window { interrupted, ..window }))
    }
}

/// Counters and clocks that are read at both ends of the window.
struct Meter {
    live: Arc<Live>,
    process: Option<Watch>,
    own: Watch,
    samples: u32,
}

/// What the counters said at one moment.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    ended: u64,
    process_ns: u64,
    own_ns: u64,
}

impl Meter {
    fn new(pids: &[u32]) -> Result<Self, Error> {
        let process = if pids.is_empty() { None } else { Some(Watch::new(pids)?) };
        let own = Watch::new(&[std::process::id()]).unwrap_or_else(|_| Watch::blind());
        Ok(Self { live: Arc::default(), process, own, samples: 0 })
    }

    fn sample(&mut self) {
        let depth = if self.samples.is_multiple_of(FULL_SAMPLE_EVERY) { Depth::Full } else { Depth::Light };
        self.samples += 1;
        if let Some(process) = &mut self.process {
            process.sample(depth);
        }
        if depth == Depth::Full {
            self.own.sample(depth);
        }
    }

    fn mark(&mut self) -> Mark {
        if let Some(process) = &mut self.process {
            process.sample(Depth::Light);
        }
        self.own.sample(Depth::Light);
        Mark {
            at: Instant::now(),
            ended: self.live.ended(),
            process_ns: self.process.as_ref().map_or(0, Watch::cpu_ns),
            own_ns: self.own.cpu_ns(),
        }
    }

    fn window(&self, first: Mark, last: Mark) -> Window {
        let usage = |watch: &Watch, from: u64, to: u64| Usage {
            cpu_seconds: Duration::from_nanos(to - from).as_secs_f64(),
            cpu_us_per_request: 0.0,
            rss_peak_bytes: watch.rss_peak_bytes(),
            pss_peak_bytes: watch.pss_peak_bytes(),
        };
        Window {
            seconds: last.at.saturating_duration_since(first.at).as_secs_f64(),
            ended: last.ended - first.ended,
            process: self.process.as_ref().map(|watch| usage(watch, first.process_ns, last.process_ns)),
            generator: usage(&self.own, first.own_ns, last.own_ns),
            reconnects: self.live.reconnects(),
            interrupted: false,
        }
    }
}
