//! The program `tsh-gateway`.

use std::{io, process::ExitCode};

use clap::Parser;
use gateway::cli::{Cli, execute};

/// Smaller and faster than the system's under many short-lived buffers; measured in `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    execute(&cli, &mut io::stdout(), &mut io::stderr())
}
