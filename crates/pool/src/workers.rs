//! The worker threads that carry requests: where a connection's driver runs, and which worker asks.
//!
//! Owns the list of runtime handles and the thread's own index. Starting the threads is the gateway's work.

use std::{cell::Cell, sync::Arc};

use tokio::runtime::Handle;

/// Handles of the runtimes that carry requests, in the order of their index.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Handle]>);

impl Workers {
    /// Workers with these handles; an empty list falls back to the runtime of the caller.
    ///
    /// # Panics
    /// If `handles` is empty and there is no current tokio runtime.
    #[must_use]
    pub fn new(handles: Vec<Handle>) -> Self {
        if handles.is_empty() { Self(Arc::new([Handle::current()])) } else { Self(handles.into()) }
    }

    /// One worker: the current runtime.
    ///
    /// # Panics
    /// If there is no current tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self::new(Vec::new())
    }

    /// How many there are; at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty by construction")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The handle of worker `index`, modulo their number.
    #[must_use]
    pub fn handle(&self, index: usize) -> &Handle {
        &self.0[index % self.0.len()]
    }
}

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Declares the current thread to be worker `index`. Called once when a worker thread starts.
pub fn enter(index: usize) {
    INDEX.set(index);
}

/// The index of the current thread's worker; 0 for threads that are none.
#[must_use]
pub fn index() -> usize {
    INDEX.get()
}
