//! The commands of `tsh-gateway`: what they take and what they report.
//!
//! Owns the command line and the exit codes: 0 good, 1 findings or failure, 2 wrong usage. Each command writes to
//! the handle it is given; none prints by itself.

pub mod check;
#[cfg(feature = "demo")]
pub mod demo;
pub mod probe;
pub mod run;
#[cfg(feature = "demo")]
pub mod sim;

use std::{io::Write, process::ExitCode};

/// The shared mutual-TLS gateway between a bank's services and the Thales TSH backend.
#[derive(Debug, clap::Parser)]
#[command(name = "tsh-gateway", version, propagate_version = true)]
#[command(
    after_help = "Start here:\n  tsh-gateway demo --for 10s\n  tsh-gateway check --config gateway.toml\n  tsh-gateway run --config gateway.toml"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the gateway.
    Run(run::RunArgs),
    /// Check a configuration and every file it names.
    Check(check::CheckArgs),
    /// Dial each environment and report what its handshakes negotiate.
    Probe(probe::ProbeArgs),
    /// See it work: simulated providers, the gateway, traffic and a live table.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Run a simulated provider on its own.
    #[cfg(feature = "demo")]
    Sim(sim::SimArgs),
}

/// Runs a command; reports go to `out`, complaints to `err`.
pub fn execute(cli: &Cli, out: &mut (dyn Write + Send), err: &mut (dyn Write + Send)) -> ExitCode {
    match &cli.command {
        Command::Run(args) => run::run(args, err),
        Command::Check(args) => check::check(args, out),
        Command::Probe(args) => probe::probe(args, out, err),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::demo(args, out, err),
        #[cfg(feature = "demo")]
        Command::Sim(args) => sim::sim(args, out, err),
    }
}

/// Good.
pub(crate) const GOOD: u8 = 0;
/// Findings or failure.
pub(crate) const FAILED: u8 = 1;

/// The control runtime: one thread for supervisors, admin, accept loops and commands.
///
/// # Errors
/// When the system gives no reactor.
pub(crate) fn control_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().thread_name("tsh-control").build()
}
