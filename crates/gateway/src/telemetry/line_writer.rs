//! A thread that writes finished lines to a file or stream, behind a bounded queue.
//!
//! Owns the queue, the thread and the sink. Nothing here ever blocks whoever pushes: when the sink is slow, stuck
//! or full, lines are dropped and counted, and writing is tried again with the next block.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use metrics::Counter;
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

/// Where lines go.
pub trait Sink: Send + 'static {
    /// Writes whole lines; `lines` always ends in a newline.
    ///
    /// # Errors
    /// Whatever the system says. The lines are lost; the next call may succeed.
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()>;
}

impl<W: Write + Send + 'static> Sink for W {
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        self.write_all(lines)?;
        self.flush()
    }
}

/// Lines that were lost, by reason.
#[derive(Clone)]
pub struct Losses {
    /// The queue was full.
    pub queue_full: Counter,
    /// The sink failed.
    pub write_error: Counter,
}

impl Losses {
    /// Counters that nobody reads.
    #[must_use]
    pub fn uncounted() -> Self {
        Self { queue_full: Counter::noop(), write_error: Counter::noop() }
    }
}

/// Emptied buffers kept for reuse; more than a few are never in use at once.
const SPARE_BUFFERS: usize = 4;

/// Least time between two reports of a failing sink.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// The queue's near end. Clones feed the same queue.
#[derive(Clone)]
pub struct LineQueue {
    shared: Arc<Shared>,
}

/// The thread's owner; ends the thread when dropped or stopped.
pub struct LineWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to do for the thread.
    work: Condvar,
    /// The queue is empty and nothing is being written.
    idle: Condvar,
    most_lines: usize,
    losses: Losses,
}

#[derive(Default)]
struct State {
    blocks: VecDeque<Block>,
    /// Lines in `blocks` and in the thread's hands.
    lines: usize,
    spare: Vec<Vec<u8>>,
    stopping: bool,
    ended: bool,
}

struct Block {
    bytes: Vec<u8>,
    lines: usize,
}

impl LineWriter {
    /// Starts the thread `name`. At most `most_lines` lines wait (at least 1).
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &str, sink: impl Sink, most_lines: usize, losses: Losses) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            idle: Condvar::new(),
            most_lines: most_lines.max(1),
            losses,
        });
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn({
            let (shared, name) = (Arc::clone(&shared), name.to_owned());
            move || write_blocks(&shared, &name, sink)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The near end of the queue.
    #[must_use]
    pub fn queue(&self) -> LineQueue {
        LineQueue { shared: Arc::clone(&self.shared) }
    }

    /// Writes what waits, for at most `within`, and ends the thread. Returns the lines that were not written.
    pub fn stop(mut self, within: Duration) -> usize {
        self.shut(within)
    }

    fn shut(&mut self, within: Duration) -> usize {
        let Some(thread) = self.thread.take() else { return 0 };
        let until = Instant::now() + within;
        let mut state = self.shared.state.lock();
        state.stopping = true;
        self.shared.work.notify_all();
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The sink is stuck: joining would hang the stop. The thread ends with the process.
                return state.lines;
            }
            self.shared.idle.wait_for(&mut state, left);
        }
        let unwritten = state.lines;
        drop(state);
        // A panic of the writer has lost lines at worst; the stop goes on.
        let _ = thread.join();
        unwritten
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.shut(Duration::from_secs(1));
    }
}

impl LineQueue {
    /// Hands over a block of whole lines and returns an empty buffer for the next. Never blocks: without room
    /// the block is dropped and its lines are counted.
    pub fn push(&self, mut bytes: Vec<u8>, lines: usize) -> Vec<u8> {
        let mut state = self.shared.state.lock();
        if state.stopping || state.lines + lines > self.shared.most_lines {
            drop(state);
            self.shared.losses.queue_full.increment(lines as u64);
            bytes.clear();
            return bytes;
        }
        state.lines += lines;
        state.blocks.push_back(Block { bytes, lines });
        let next = state.spare.pop().unwrap_or_default();
        drop(state);
        self.shared.work.notify_one();
        next
    }

    /// Most lines that may wait.
    #[must_use]
    pub fn most_lines(&self) -> usize {
        self.shared.most_lines
    }

    /// Waits until everything pushed so far is written or lost, for at most `within`; `false` if time ran out.
    pub fn wait_written(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut state = self.shared.state.lock();
        while state.lines > 0 && !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.shared.idle.wait_for(&mut state, left);
        }
        true
    }
}

/// Tells waiters that the thread is gone, also when it panicked.
struct Farewell<'a>(&'a Shared);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.idle.notify_all();
    }
}

fn write_blocks(shared: &Shared, name: &str, mut sink: impl Sink) {
    let _farewell = Farewell(shared);
    let mut complaint = Complaint::default();
    while let Some(mut block) = next_block(shared) {
        if complaint.line_is_open {
            // The failed write may have left half a line; keep it apart from what follows.
            block.bytes.insert(0, b'\n');
        }
        match sink.write_lines(&block.bytes) {
            Ok(()) => complaint.settled(name),
            Err(error) => {
                shared.losses.write_error.increment(block.lines as u64);
                complaint.failed(name, &error, block.lines);
            }
        }
        let mut state = shared.state.lock();
        state.lines -= block.lines;
        if state.spare.len() < SPARE_BUFFERS {
            block.bytes.clear();
            state.spare.push(block.bytes);
        }
        if state.lines == 0 {
            shared.idle.notify_all();
        }
    }
}

/// The next block; `None` when stopping and nothing is left.
fn next_block(shared: &Shared) -> Option<Block> {
    let mut state = shared.state.lock();
    loop {
        if let Some(block) = state.blocks.pop_front() {
            return Some(block);
        }
        if state.stopping {
            return None;
        }
        shared.work.wait(&mut state);
    }
}

/// Reports a failing sink now and then, not once per block.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
    lost: usize,
    line_is_open: bool,
}

impl Complaint {
    fn failed(&mut self, name: &str, error: &io::Error, lines: usize) {
        self.lost += lines;
        self.line_is_open = true;
        if self.last.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            tracing::warn!(writer = name, %error, lines_lost = self.lost, "log lines cannot be written; traffic goes on");
            self.last = Some(Instant::now());
            self.lost = 0;
        }
    }

    fn settled(&mut self, name: &str) {
        if std::mem::take(&mut self.line_is_open) {
            tracing::info!(writer = name, lines_lost = self.lost, "log lines can be written again");
            self.lost = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A sink that passes what it gets to the test, after a permit from it.
    struct Gated {
        permits: mpsc::Receiver<io::Result<()>>,
        seen: mpsc::Sender<Vec<u8>>,
    }

    impl Sink for Gated {
        fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
            self.permits.recv().unwrap_or(Ok(()))?;
            self.seen.send(lines.to_vec()).map_err(io::Error::other)
        }
    }

    fn gated(most: usize) -> (LineWriter, mpsc::Sender<io::Result<()>>, mpsc::Receiver<Vec<u8>>) {
        let (permit, permits) = mpsc::channel();
        let (seen, lines) = mpsc::channel();
        let writer = LineWriter::start("test", Gated { permits, seen }, most, Losses::uncounted());
        (writer.expect("a thread"), permit, lines)
    }

    #[test]
    fn lines_arrive_in_order() {
        let (writer, permit, lines) = gated(10);
        writer.queue().push(b"a\n".to_vec(), 1);
        writer.queue().push(b"b\n".to_vec(), 1);
        permit.send(Ok(())).unwrap();
        permit.send(Ok(())).unwrap();
        assert!(writer.queue().wait_written(Duration::from_secs(10)));
        assert_eq!(lines.try_iter().flatten().collect::<Vec<_>>(), b"a\nb\n");
    }

    #[test]
    fn a_stuck_sink_drops_lines_past_the_bound_and_never_blocks() {
        let (writer, permit, lines) = gated(3);
        for _ in 0..5 {
            writer.queue().push(b"x\n".to_vec(), 1);
        }
        drop(permit); // Opens the gate.
        assert_eq!(writer.stop(Duration::from_secs(10)), 0);
        assert_eq!(lines.iter().count(), 3, "exactly the bound was kept");
    }

    #[test]
    fn writing_goes_on_after_an_error_on_a_fresh_line() {
        let (writer, permit, lines) = gated(10);
        permit.send(Err(io::Error::from(io::ErrorKind::StorageFull))).unwrap();
        permit.send(Ok(())).unwrap();
        writer.queue().push(b"lost\n".to_vec(), 1);
        writer.queue().push(b"kept\n".to_vec(), 1);
        assert!(writer.queue().wait_written(Duration::from_secs(10)));
        assert_eq!(lines.try_iter().flatten().collect::<Vec<_>>(), b"\nkept\n");
    }

    #[test]
    fn a_stop_does_not_wait_for_a_stuck_sink_beyond_its_limit() {
        let (writer, permit, _lines) = gated(10);
        writer.queue().push(b"x\n".to_vec(), 1);
        assert_eq!(writer.stop(Duration::from_millis(20)), 1, "says what was cut");
        drop(permit);
    }
}
