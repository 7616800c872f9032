//! What can keep a run from starting or its report from being written.
//!
//! Lost requests are no errors of the program: they are counted in `record.rs` and decide the exit code.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why `loadgen` could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The flags contradict each other or a value is impossible.
    #[error("{0}")]
    Usage(String),
    /// The name in `--target` has no address.
    #[error("cannot resolve {host} of --target: {source}; check the name or give an address")]
    Resolve {
        /// The host as given.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No connection could be opened before the clock started.
    #[error("cannot connect to {address}: {cause}; is the program under test listening there?")]
    Connect {
        /// The address dialled.
        address: SocketAddr,
        /// What the dial ended with.
        cause: String,
    },
    /// The relay cannot listen.
    #[error("the relay cannot listen on {address}: {source}")]
    Relay {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A report file is not one of ours.
    #[error("{} is not a loadgen report: {source}; give files written with --json", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The operating system refused a runtime, thread, timer or the output.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The gateway or the provider in this process could not be set up or told something.
    #[error("cannot {action}: {cause}")]
    Lab {
        /// What was tried.
        action: &'static str,
        /// What it ended with.
        cause: String,
    },
    /// A worker thread panicked; its counts are gone, so no ledger can be printed.
    #[error("a worker thread of the generator died; its counts are lost, run again")]
    WorkerDied,
}

impl Error {
    /// The exit code: 2 for wrong usage, 1 for the rest.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}
