//! `loadgen`: an open-loop load generator for the gateway and its peers.
//!
//! Open loop: requests start at a fixed rate whatever the replies do, and latency counts from the intended
//! start, so a stall shows in every request it delayed. Closed loop: callers as fast as they can, to compare
//! CPU per request. Every started request has one outcome; a lost one makes the exit code 1.

mod args;
mod caller;
mod coalesce;
mod error;
mod floor;
mod grpc;
mod h2c;
mod handshakes;
mod html;
mod http1;
mod idle;
mod lab;
mod load;
mod pacer;
mod plan;
mod process;
mod progress;
mod record;
mod redial;
mod relay;
mod report;
mod resumption;
mod run;
mod schedule;
mod scrape;
mod source;
mod storm;
mod summary;
mod table;
mod units;
mod upload;
mod watch;
mod worker;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Parser, ValueEnum};

use crate::{
    args::{
        Cli, Command, FloorArgs, HandshakesArgs, IdleArgs, RedialArgs, RelayArgs, ResumptionArgs, RunArgs,
        StormArgs, SummaryArgs, TableArgs,
    },
    error::Error,
    plan::Plan,
    progress::Visibility,
    report::Setup,
    schedule::Pacing,
};

/// The product's own: in a storm the gateway runs in this process, and its memory is looked at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout();
    let outcome = match (&cli.command, &cli.run) {
        (Some(Command::Table(args)), _) => table(args, &mut out),
        (Some(Command::Summary(args)), _) => summary(args, &mut out),
        (Some(Command::Idle(args)), _) => idle(args, &mut out),
        (Some(Command::Relay(args)), _) => relay(args),
        (Some(Command::Floor(args)), _) => floor(args),
        (Some(Command::Storm(args)), _) => storm(args, &mut out),
        (Some(Command::Resumption(args)), _) => resumption(args, &mut out),
        (Some(Command::Redial(args)), _) => redial(args, &mut out),
        (Some(Command::Handshakes(args)), _) => handshakes(args, &mut out),
        (Some(Command::Watch(args)), _) => watch::run(args, &mut out).map(|()| ExitCode::SUCCESS),
        (Some(Command::Html(args)), _) => html::run(args, &mut out).map(|()| ExitCode::SUCCESS),
        (None, Some(args)) => measure(args, &mut out),
        (None, None) => Err(Error::Usage("give --target http://host:port/path; --help has examples".into())),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Nowhere to complain about a closed standard error.
            let _closed = writeln!(io::stderr(), "loadgen: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn table(args: &TableArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let reports = table::read(&args.reports)?;
    table::write(&reports, out).map_err(not_written)?;
    Ok(code(table::all_good(&reports)))
}

fn summary(args: &SummaryArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let summary = summary::Summary::of(&args.folder)?;
    write_json(&summary, &args.folder.join(summary::FILE), out)?;
    summary.write_text(out).map_err(not_written)?;
    Ok(ExitCode::SUCCESS)
}

fn idle(args: &IdleArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let idle = idle::run(args)?;
    if let Some(file) = &args.json {
        write_json(&idle, file, out)?;
    }
    idle.write_text(out).map_err(not_written)?;
    Ok(ExitCode::SUCCESS)
}

fn require_loopback(addresses: [std::net::SocketAddr; 2]) -> Result<(), Error> {
    match addresses.into_iter().find(|address| !address.ip().is_loopback()) {
        Some(address) => {
            Err(Error::Usage(format!("{address} is not on loopback; this stays on one machine")))
        }
        None => Ok(()),
    }
}

fn relay(args: &RelayArgs) -> Result<ExitCode, Error> {
    require_loopback([args.listen, args.to])?;
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(relay::relay(args.listen, args.to, args.round_trip))
    };
    run().map(|()| ExitCode::SUCCESS).map_err(|source| Error::Relay { address: args.listen, source })
}

fn floor(args: &FloorArgs) -> Result<ExitCode, Error> {
    require_loopback([args.listen, args.to])?;
    match floor::run(args)? {}
}

fn storm(args: &StormArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let report = storm::run(args)?;
    if let Some(file) = &args.out {
        write_json(&report, file, out)?;
    }
    report.write_text(out).map_err(not_written)?;
    Ok(code(report.is_good()))
}

fn resumption(args: &ResumptionArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let report = resumption::run(args)?;
    if let Some(file) = &args.json {
        write_json(&report, file, out)?;
    }
    report.write_text(out).map_err(not_written)?;
    Ok(code(report.is_good()))
}

fn redial(args: &RedialArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let report = redial::run(args)?;
    if let Some(file) = &args.json {
        write_json(&report, file, out)?;
    }
    report.write_text(out).map_err(not_written)?;
    Ok(code(report.is_good()))
}

fn handshakes(args: &HandshakesArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let report = handshakes::run(args)?;
    if let Some(file) = &args.json {
        write_json(&report, file, out)?;
    }
    report.write_text(out).map_err(not_written)?;
    Ok(code(report.is_good()))
}

fn measure(args: &RunArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let plan = Plan::from_args(args)?;
    let setup = setup(args, &plan);
    let visibility = if args.quiet { Visibility::Hidden } else { Visibility::Terminal };
    let report = run::run(plan, setup, &args.pids, visibility)?;
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if let Some(file) = &args.json {
        write_json(&report, file, out)?;
    }
    if !args.quiet && !to_stdout {
        report.write_text(out).map_err(not_written)?;
    }
    Ok(code(report.is_good()))
}

fn setup(args: &RunArgs, plan: &Plan) -> Setup {
    let rate = match plan.pacing {
        Pacing::Open { rate } => Some(rate),
        Pacing::Closed => None,
    };
    Setup {
        scenario: args.scenario.clone(),
        subject: args.subject.clone(),
        target: args.target.clone(),
        protocol: plan
            .protocol
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default(),
        rate,
        connections: plan.connections,
        streams: plan.streams,
        body_bytes: plan.upload_bytes.unwrap_or(plan.body.len() as u64),
        correlation_prefix: plan.correlation.clone(),
    }
}

fn write_json(report: &impl serde::Serialize, file: &Path, out: &mut dyn Write) -> Result<(), Error> {
    // Plain data with string keys always serialises.
    let mut json = serde_json::to_vec_pretty(report).expect("plain data");
    json.push(b'\n');
    if file == Path::new("-") {
        return out.write_all(&json).map_err(not_written);
    }
    fs::write(file, json).map_err(|source| Error::File { action: "write", path: file.to_owned(), source })
}

fn not_written(source: io::Error) -> Error {
    Error::System { action: "write the report", source }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
