//! The recorder: takes the outcome of each request from the workers and turns it into metrics and log lines.
//!
//! Owns the shards (one per worker), the thread `tsh-recorder` and the access log's writer. A worker pays for a
//! lock that only the recorder shares, a copy of some hundred bytes, and nothing else: no allocation, no system
//! call. Counters are exact: a record for which a shard has no room is counted at once, and only its log line and
//! its samples are lost, which is counted too.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    access_log::{self, AccessLogTarget, WallTime},
    line_writer::{LineQueue, LineWriter, Sink},
    metrics::{Metrics, Series},
    record::{Batch, Outcome},
};

/// How to record.
///
/// # Defaults
/// One worker, log on standard output, 8,192 lines, 2,048 records.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    /// Workers that record; each gets a shard. At least 1.
    pub workers: usize,
    /// Where the access log goes.
    pub access_log: AccessLogTarget,
    /// Most log lines waiting to be written.
    pub queue_lines: usize,
    /// Most records waiting per worker. The default holds 100,000 requests per second for one wake-up of 20 ms.
    pub batch: usize,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self { workers: 1, access_log: AccessLogTarget::default(), queue_lines: 8_192, batch: 2_048 }
    }
}

/// Time between wake-ups under load: short enough that a shard is far from full.
const SHORT_NAP: Duration = Duration::from_millis(20);

/// Time between wake-ups at rest, reached by doubling: an idle gateway should hardly wake.
const LONG_NAP: Duration = Duration::from_millis(320);

/// Time between looks at the wall clock.
const UPKEEP: Duration = Duration::from_secs(1);

/// A block of lines is handed to the writer from this size on.
const BLOCK_BYTES: usize = 32 * 1024;

/// Owner of the recorder's threads.
pub struct Recorder {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
    writer: Option<LineWriter>,
}

/// What one worker records through. Clones share the shard.
#[derive(Clone)]
pub struct RecorderHandle {
    core: Arc<Core>,
    shard: usize,
    thread: Thread,
}

/// Makes everything recorded so far visible; for scrapes and tests.
#[derive(Clone)]
pub struct Flusher {
    core: Arc<Core>,
}

/// What a stop had to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Log lines that were not written in time.
    pub lines_cut: usize,
}

struct Core {
    metrics: Arc<Metrics>,
    shards: Vec<Mutex<Batch>>,
    drain: Mutex<Drain>,
    stopping: AtomicBool,
}

/// What the draining thread works with.
struct Drain {
    /// Changes places with a shard's batch, so that a shard is locked for a swap only.
    spare: Batch,
    wall: WallTime,
    log: Option<Log>,
}

struct Log {
    queue: LineQueue,
    block: Vec<u8>,
    lines: usize,
    lines_per_block: usize,
}

impl Recorder {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the access log cannot be opened, or the system gives no thread.
    pub fn start(options: &RecorderOptions, metrics: Arc<Metrics>) -> io::Result<Self> {
        Self::start_on(options.access_log.open()?, options, metrics)
    }

    /// As [`start`](Self::start), with the access log written to `sink`; `None` for no log.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_on(
        sink: Option<Box<dyn Sink>>,
        options: &RecorderOptions,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let writer = match sink {
            Some(sink) => {
                let losses = metrics.losses().clone();
                Some(LineWriter::start("tsh-access-log", sink, options.queue_lines, losses)?)
            }
            None => None,
        };
        let core = Arc::new(Core {
            shards: (0..options.workers.max(1))
                .map(|_| Mutex::new(Batch::with_room(options.batch)))
                .collect(),
            drain: Mutex::new(Drain {
                spare: Batch::with_room(options.batch),
                wall: WallTime::now(),
                log: writer.as_ref().map(|writer| Log::new(writer.queue())),
            }),
            stopping: AtomicBool::new(false),
            metrics,
        });
        let thread = std::thread::Builder::new().name("tsh-recorder".to_owned()).spawn({
            let core = Arc::clone(&core);
            move || core.run()
        })?;
        Ok(Self { core, thread: Some(thread), writer })
    }

    /// What worker number `worker` records through; numbers beyond the last share shards.
    ///
    /// # Panics
    /// Never: the thread is taken by [`stop`](Self::stop) only, which consumes the recorder.
    #[must_use]
    pub fn handle(&self, worker: usize) -> RecorderHandle {
        let thread = self.thread.as_ref().expect("taken by stop and drop only").thread().clone();
        RecorderHandle { core: Arc::clone(&self.core), shard: worker % self.core.shards.len(), thread }
    }

    /// A handle that makes what was recorded visible.
    #[must_use]
    pub fn flusher(&self) -> Flusher {
        Flusher { core: Arc::clone(&self.core) }
    }

    /// Records what waits, writes the log out for at most `within`, and ends the threads.
    pub fn stop(mut self, within: Duration) -> StopReport {
        self.end_thread();
        StopReport { lines_cut: self.writer.take().map_or(0, |writer| writer.stop(within)) }
    }

    fn end_thread(&mut self) {
        self.core.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has been reported by the runtime; the stop goes on.
            let _ = thread.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end_thread();
    }
}

impl RecorderHandle {
    /// Records a request. Call exactly once per request, when its exchange has ended.
    pub fn record(&self, outcome: &Outcome<'_>) {
        let mut shard = self.core.shards[self.shard].lock();
        let was_half_full = shard.is_half_full();
        if shard.push(outcome).is_ok() {
            let wake = !was_half_full && shard.is_half_full();
            drop(shard);
            if wake {
                self.thread.unpark();
            }
            return;
        }
        drop(shard);
        let metrics = &self.core.metrics;
        metrics.requests().count(&Series {
            route: outcome.route,
            environment: outcome.environment,
            status: outcome.status,
            code: outcome.code,
            waited_for_dial: outcome.journey.waited_for_dial,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
        });
        metrics.records_dropped().increment(1);
    }

    /// The names that indexes in an outcome stand for.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.core.metrics
    }
}

impl Flusher {
    /// Counts everything recorded before the call. May take a millisecond: not for a worker that carries traffic.
    pub fn flush(&self) {
        self.core.drain();
    }

    /// As [`flush`](Self::flush), and waits until the log lines are written, for at most `within`; `false` if
    /// time ran out.
    pub fn flush_log(&self, within: Duration) -> bool {
        self.core.drain();
        let queue = self.core.drain.lock().log.as_ref().map(|log| log.queue.clone());
        queue.is_none_or(|queue| queue.wait_written(within))
    }

    /// The metrics that the records end up in.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.core.metrics
    }
}

impl Core {
    fn run(&self) {
        let mut nap = SHORT_NAP;
        let mut upkeep = Instant::now();
        loop {
            let stopping = self.stopping.load(Ordering::Acquire);
            let found = self.drain();
            if upkeep.elapsed() >= UPKEEP {
                upkeep = Instant::now();
                self.drain.lock().wall = WallTime::now();
            }
            if stopping {
                return;
            }
            nap = if found { SHORT_NAP } else { (nap * 2).min(LONG_NAP) };
            std::thread::park_timeout(nap);
        }
    }

    /// Takes every shard's records; whether there were any.
    fn drain(&self) -> bool {
        let mut drain = self.drain.lock();
        let drain = &mut *drain;
        let mut found = false;
        for shard in &self.shards {
            std::mem::swap(&mut *shard.lock(), &mut drain.spare);
            found |= !drain.spare.is_empty();
            self.process(&drain.spare, &mut drain.wall, drain.log.as_mut());
            drain.spare.clear();
        }
        if let Some(log) = &mut drain.log {
            log.hand_over();
        }
        found
    }

    fn process(&self, batch: &Batch, wall: &mut WallTime, mut log: Option<&mut Log>) {
        let requests = self.metrics.requests();
        for (entry, text) in batch.iter() {
            requests.count(&Series {
                route: entry.route,
                environment: entry.environment,
                status: entry.status,
                code: entry.code,
                waited_for_dial: entry.journey.waited_for_dial,
                bytes_in: entry.bytes_in,
                bytes_out: entry.bytes_out,
            });
            requests.time(entry);
            if let Some(log) = &mut log {
                access_log::write_line(&mut log.block, wall, self.metrics.catalog(), entry, text);
                log.line_written();
            }
        }
    }
}

impl Log {
    fn new(queue: LineQueue) -> Self {
        // A block must fit into the queue beside others, or a short queue would take none.
        let lines_per_block = (queue.most_lines() / 4).clamp(1, 256);
        Self { queue, block: Vec::with_capacity(BLOCK_BYTES), lines: 0, lines_per_block }
    }

    fn line_written(&mut self) {
        self.lines += 1;
        if self.lines >= self.lines_per_block || self.block.len() >= BLOCK_BYTES {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if self.lines > 0 {
            let block = std::mem::take(&mut self.block);
            self.block = self.queue.push(block, std::mem::take(&mut self.lines));
        }
    }
}

#[cfg(test)]
mod tests;
