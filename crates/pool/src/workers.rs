//! The worker threads that carry requests: where a connection's driver runs, where it is dialled, and
//! which worker asks.
//!
//! Owns the list of runtime handles and the thread's own index. Starting the threads is the gateway's work.

use std::{cell::Cell, sync::Arc};

use tokio::runtime::Handle;

/// Handles of the runtimes that carry requests, in the order of their index, and of the one that dials.
#[derive(Clone, Debug)]
pub struct Workers {
    handles: Arc<[Handle]>,
    dialler: Option<Handle>,
}

impl Workers {
    /// Workers with these handles; an empty list falls back to the runtime of the caller.
    ///
    /// # Panics
    /// If `handles` is empty and there is no current tokio runtime.
    #[must_use]
    pub fn new(handles: Vec<Handle>) -> Self {
        let handles = if handles.is_empty() { vec![Handle::current()] } else { handles };
        Self { handles: handles.into(), dialler: None }
    }

    /// Names, TCP and TLS handshakes are done on `dialler` from now on, and a connection is handed to its worker when
    /// its handshake is done. Give it a thread on which nothing else has to be prompt: an RSA signature takes a
    /// millisecond or two, one by an HSM far more. Without it each worker dials for itself, which suits one that
    /// carries nothing else.
    #[must_use]
    pub fn dialling_on(mut self, dialler: Handle) -> Self {
        self.dialler = Some(dialler);
        self
    }

    /// Where dials run, if not where the connections do.
    pub(crate) fn dialler(&self) -> Option<&Handle> {
        self.dialler.as_ref()
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
        self.handles.len()
    }

    /// The handle of worker `index`, modulo their number.
    #[must_use]
    pub fn handle(&self, index: usize) -> &Handle {
        &self.handles[index % self.handles.len()]
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
