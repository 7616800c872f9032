//! `tsh-gateway run`: the gateway itself, until a signal.

use std::{io::Write, path::PathBuf, process::ExitCode};

use time::OffsetDateTime;

use super::{FAILED, GOOD, control_runtime};
use crate::{
    config::{self, Config, LogFormat},
    runtime::{Gateway, raise_descriptor_limit, stop_requested},
    telemetry::log::{self, LogForm},
};

/// Runs the gateway until SIGTERM or SIGINT.
///
/// Exit code 0: stopped and nothing was cut; 1: it could not start, or something was cut at the stop.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  tsh-gateway run --config /etc/tsh-gateway/gateway.toml")]
pub struct RunArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs the command; complaints about the configuration go to `err`.
pub fn run(args: &RunArgs, err: &mut dyn Write) -> ExitCode {
    let loaded = match config::load(&args.config, OffsetDateTime::now_utc()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            // Nobody is left to tell if this cannot be written.
            let _ = writeln!(err, "{errors}");
            return ExitCode::from(FAILED);
        }
    };
    let form = match loaded.config.log.format {
        LogFormat::Text => LogForm::Text,
        LogFormat::Json => LogForm::Json,
    };
    let _diagnostics = match log::install(form, loaded.config.log.level) {
        Ok(diagnostics) => diagnostics,
        Err(error) => {
            let _ = writeln!(err, "the diagnostics' writer cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    for finding in &loaded.findings {
        tracing::warn!(code = finding.code, key = %finding.key_path, "{}; {}", finding.message, finding.remedy);
    }
    match control_runtime() {
        Ok(runtime) => ExitCode::from(runtime.block_on(serve(&loaded.config))),
        Err(error) => {
            tracing::error!(%error, "the runtime cannot be started");
            ExitCode::from(FAILED)
        }
    }
}

async fn serve(config: &Config) -> u8 {
    let descriptors = raise_descriptor_limit();
    let gateway = match Gateway::start(config).await {
        Ok(gateway) => gateway,
        Err(error) => {
            tracing::error!("{error}");
            return FAILED;
        }
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        egress = ?gateway.egress_addresses(),
        admin = ?gateway.admin_address(),
        environments = config.environments.len(),
        workers = config.runtime.workers,
        open_files = descriptors,
        "serving"
    );
    match stop_requested().await {
        Ok(signal) => tracing::info!(signal, drain = ?config.shutdown.drain, "stopping"),
        Err(error) => tracing::error!(%error, "no signal can be received; stopping"),
    }
    let stopped = tokio::select! {
        stopped = gateway.stop() => stopped,
        signal = stop_requested() => {
            tracing::warn!(signal = signal.unwrap_or("none"), "asked again; stopping at once, without a drain");
            return FAILED;
        }
    };
    if stopped.is_clean() {
        tracing::info!("stopped; nothing was cut");
        GOOD
    } else {
        tracing::warn!(
            callers = stopped.callers,
            streams = stopped.streams,
            log_lines = stopped.log_lines,
            "stopped; the drain deadline cut what is counted here"
        );
        FAILED
    }
}
