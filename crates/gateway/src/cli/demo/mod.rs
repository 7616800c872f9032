//! `tsh-gateway demo`: two simulated providers, the gateway in front of both, light traffic, a live table.
//!
//! Owns the flags and the order of things: start, watch, stop, sum up. The gateway is the real one, started from a
//! real configuration file; nothing here takes a short cut into it.

mod args;
mod caller;
mod error;
mod lab;
mod screen;
mod snapshot;
mod summary;
mod table;
mod tally;
mod text;
mod traffic;

use std::{
    future::Future,
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::{FAILED, GOOD};
use crate::runtime::{raise_descriptor_limit, stop_requested};
pub use args::DemoArgs;
use error::DemoError;
use lab::Lab;
use screen::{Paint, Presentation, Screen};
use snapshot::{Observed, Snapshot};
use summary::Summary;
use traffic::Traffic;

/// Five looks per second: quick enough to see a connection being replaced, slow enough to read.
const LOOK: Duration = Duration::from_millis(200);
/// Without a terminal one line per this many looks, that is per second.
const LOOKS_PER_LINE: u64 = 5;
/// Threads for providers, callers and the gateway's control tasks. Its workers have threads of their own.
const THREADS: usize = 2;

/// Runs the command: table, lines and summary go to `out`, complaints to `err`.
pub fn demo(args: &DemoArgs, out: &mut (dyn Write + Send), err: &mut (dyn Write + Send)) -> ExitCode {
    raise_descriptor_limit();
    let presentation = presentation(args);
    // The main thread only draws: a terminal that blocks must not hold up the gateway's control tasks.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("tsh-demo")
        .enable_all()
        .build();
    let ran = runtime.map_err(DemoError::Runtime).and_then(|runtime| {
        let summary = runtime.block_on(run(args, presentation, out, err, signal()))?;
        // A caller that hangs has been counted; it must not keep the process.
        runtime.shutdown_background();
        Ok(summary)
    });
    match ran {
        Ok(summary) if summary.is_good() => ExitCode::from(GOOD),
        Ok(_) => ExitCode::from(FAILED),
        Err(error) => {
            // Nobody is left to tell if this cannot be written.
            let _ = writeln!(err, "demo: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Ends with SIGINT or SIGTERM.
async fn signal() {
    // Without handlers a signal ends the process all the same.
    if stop_requested().await.is_err() {
        std::future::pending().await
    }
}

fn presentation(args: &DemoArgs) -> Presentation {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if args.json {
        Presentation::Json
    } else if args.plain || !io::stdout().is_terminal() || variable("TERM").is_some_and(|term| term == "dumb")
    {
        Presentation::Lines
    } else if variable("NO_COLOR").is_some() {
        Presentation::Table(Paint::Plain)
    } else {
        Presentation::Table(Paint::Colored)
    }
}

/// The whole demonstration, until its time is over or `stop`.
async fn run(
    args: &DemoArgs,
    presentation: Presentation,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
    stop: impl Future<Output = ()>,
) -> Result<Summary, DemoError> {
    tokio::pin!(stop);
    let lab = tokio::select! {
        biased;
        () = &mut stop => return Err(DemoError::Interrupted),
        lab = Lab::start(args) => lab?,
    };
    let introduction = text::introduction(args, lab.egress(), lab.admin());
    match presentation {
        Presentation::Json => err.write_all(introduction.as_bytes())?,
        Presentation::Lines | Presentation::Table(_) => out.write_all(introduction.as_bytes())?,
    }
    out.flush()?;
    let traffic = Traffic::start(lab.egress(), args.rate);
    let mut observed = Observed::new(args.run_for);
    let screen = Screen::new(out, presentation, &introduction);
    let watched = watch(presentation, &lab, &traffic, &mut observed, screen, stop).await;
    traffic.stop().await;
    lab.settle().await;
    let last = observed.look(&lab, &traffic);
    let summary = lab.stop(last).await;
    // The summary is made, and everything stopped, before a broken pipe is reported.
    watched?;
    match presentation {
        Presentation::Json => {
            serde_json::to_writer_pretty(&mut *out, &summary).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Presentation::Lines => write!(out, "\n{}", summary.text(Paint::Plain))?,
        Presentation::Table(paint) => write!(out, "{}", summary.text(paint))?,
    }
    out.flush()?;
    Ok(summary)
}

/// Looks and shows, until the time is over or `stop`.
async fn watch(
    presentation: Presentation,
    lab: &Lab,
    traffic: &Traffic,
    observed: &mut Observed,
    mut screen: Screen<'_>,
    mut stop: impl Future<Output = ()> + Unpin,
) -> io::Result<()> {
    let end = observed.end();
    let over = async {
        match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut looks = interval(LOOK);
    // After the process was suspended one look is enough.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 0_u64.. {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = &mut over => break,
            _ = looks.tick() => {}
        }
        let snapshot = observed.look(lab, traffic);
        show(&mut screen, presentation, &snapshot, look)?;
    }
    // The summary repeats the table, whole and final.
    screen.finish()
}

fn show(
    screen: &mut Screen<'_>,
    presentation: Presentation,
    snapshot: &Snapshot,
    look: u64,
) -> io::Result<()> {
    match presentation {
        Presentation::Json => Ok(()),
        Presentation::Lines if look > 0 && look.is_multiple_of(LOOKS_PER_LINE) => {
            screen.line(&table::line(snapshot))
        }
        Presentation::Lines => Ok(()),
        Presentation::Table(paint) => {
            let size = screen::terminal_size();
            screen.frame(&table::frame(snapshot, size, paint), size)
        }
    }
}

#[cfg(test)]
mod tests;
