//! The worker threads: one current-thread runtime each, so that a request's tasks wake each other without a system
//! call and a connection's driver shares the thread with the requests it carries.

use std::{io, num::NonZeroUsize, thread::JoinHandle};

use pool::{Workers, workers};
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
        let mut handles = Vec::new();
        let mut threads = Vec::new();
        for index in 0..count.get() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let stop = stop.clone();
            threads.push(std::thread::Builder::new().name(format!("tsh-worker-{index}")).spawn(
                move || {
                    workers::enter(index);
                    runtime.block_on(stop.cancelled());
                    // Whatever still runs has been given its time.
                    runtime.shutdown_background();
                },
            )?);
        }
        Ok(Self { workers: Workers::new(handles), stop, threads })
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
