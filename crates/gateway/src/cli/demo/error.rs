//! Why a demonstration could not begin or be shown. Lost requests are no errors: they are counted.

use std::{io, path::PathBuf, time::Duration};

use provider_sim::SimError;

use crate::{config::ConfigErrors, runtime::StartError};

/// Why there is no summary.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// No threads.
    #[error("the runtime cannot be started: {0}")]
    Runtime(io::Error),
    /// The temporary folder.
    #[error("cannot write the configuration {}: {source}; TMPDIR names another folder", path.display())]
    Folder {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A provider.
    #[error(transparent)]
    Provider(#[from] SimError),
    /// The configuration that the demonstration wrote.
    #[error("the demonstration's own configuration is not accepted:\n{0}")]
    Configuration(ConfigErrors),
    /// The gateway.
    #[error("the gateway cannot start: {0}")]
    Gateway(#[from] StartError),
    /// The gateway has no TCP listener, which the configuration rules out.
    #[error("the gateway reports no address")]
    NoAddress,
    /// A floor was not met.
    #[error("the gateway is not ready after {after:?}: {reasons}")]
    NotReady {
        /// How long it had.
        after: Duration,
        /// What it waits for.
        reasons: String,
    },
    /// Stopped before it began.
    #[error("interrupted before it began")]
    Interrupted,
    /// Nobody reads the report.
    #[error("cannot write the report: {0}")]
    Report(#[from] io::Error),
}
