//! The worker threads: one current-thread runtime each, so that a request's tasks wake each other without a system
//! call and a connection's driver shares the thread with the requests it carries. Beside them one thread that dials:
//! handshakes sign and verify, which would hold up requests, or whatever else has to be prompt.

use std::{io, num::NonZeroUsize, thread::JoinHandle};

use pool::{Workers, workers};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Running worker threads. Dropping the owner stops them.
pub struct WorkerThreads {
    workers: Workers,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl WorkerThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system gives no thread or no reactor.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut threads = Vec::new();
        let mut handles = Vec::new();
        for index in 0..count.get() {
            let enter = move || workers::enter(index);
            handles.push(start(&mut threads, format!("tsh-worker-{index}"), stop.clone(), enter)?);
        }
        let dialler = start(&mut threads, "tsh-dial".to_owned(), stop.clone(), || ())?;
        Ok(Self { workers: Workers::new(handles).dialling_on(dialler), stop, threads })
    }

    /// Handles to the workers.
    #[must_use]
    pub fn workers(&self) -> &Workers {
        &self.workers
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

/// Starts a thread with a runtime that turns until `stop`.
fn start(
    threads: &mut Vec<JoinHandle<()>>,
    name: String,
    stop: CancellationToken,
    enter: impl FnOnce() + Send + 'static,
) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    threads.push(std::thread::Builder::new().name(name).spawn(move || {
        enter();
        runtime.block_on(stop.cancelled());
        // Whatever still runs has been given its time.
        runtime.shutdown_background();
    })?);
    Ok(handle)
}
