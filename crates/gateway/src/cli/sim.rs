//! `tsh-gateway sim`: the simulated provider on its own, for load tests and for trying a configuration.
//!
//! Owns the flags, the assets it hands out and what it reports. The server is `provider-sim`'s.

mod flags;
mod script;

use std::{
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    sync::Arc,
};

use futures_util::FutureExt as _;
use provider_sim::{
    Behaviour, ClientCredentials, ClientSpec, Ledger, Pki, PkiOptions, Script, SimError, Simulator,
    SimulatorOptions, write_assets,
};
use serde::Serialize;

use super::{FAILED, GOOD};
use crate::runtime::{raise_descriptor_limit, stop_requested};
pub use flags::BehaviourArgs;
pub use script::ScriptArgs;

/// The server's certificate is for this name: what it is dialled as, and no name of anybody's.
const HOST: &str = "localhost";

/// Runs a simulated provider until SIGTERM or SIGINT, then prints what it saw.
///
/// It makes its own certificates at every start. Exit code 0: it ran until a signal; 1: it could
/// not start, or a step of the script failed; 2: wrong usage.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tsh-gateway sim --out /tmp/sandbox-assets\n  tsh-gateway sim --out /tmp/assets --listen 127.0.0.1:9443 --goaway-after-requests 200 --latency-ms 40\n  tsh-gateway sim --out /tmp/assets --client-auth refuse-late --json | jq .\n  tsh-gateway sim --out /tmp/assets --script storm.toml --script-seed 7\n\nA script (TOML, or JSON if it begins with `{`), here storm.toml:\n  seed = 1\n  [[step]]                      # ten resets of a random connection within the first minute\n  between_ms = [0, 60000]\n  times = 10\n  action = { end = { target = \"random\", form = \"reset\" } }\n  [[step]]                      # slow for two seconds\n  at_ms = 10000\n  for_ms = 2000\n  action = { behaviour = { latency_ms = 200 } }"
)]
pub struct SimArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Folder for the customer's assets, under their seed names. Made if missing; files in it are replaced.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Common name of the client certificate that is made and let in.
    #[arg(long, value_name = "NAME", default_value = "CUSTOMER-0001-SBX")]
    pub common_name: String,
    /// How to behave.
    #[command(flatten)]
    pub behaviour: BehaviourArgs,
    /// Seed of the latency's jitter.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// What it does when: a script, played from the start. The example below shows one.
    #[command(flatten)]
    pub script: ScriptArgs,
    /// Threads that serve.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// Report as JSON: one line at the start, one with the ledger at the end.
    #[arg(long)]
    pub json: bool,
}

/// Why it did not run.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("cannot make the folder {}: {source}; name another with --out", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Script(#[from] script::ScriptFailed),
    #[error(transparent)]
    Simulator(#[from] SimError),
    #[error("cannot write the report: {0}")]
    Report(#[from] io::Error),
}

/// What is said at the start.
#[derive(Debug, Serialize)]
struct Started<'s> {
    listening: SocketAddr,
    common_name: &'s str,
    assets: &'s PathBuf,
    host: &'static str,
    pins: [String; 2],
    behaviour: &'s Behaviour,
    #[serde(skip_serializing_if = "Option::is_none")]
    script: Option<script::Chosen<'s>>,
    configuration: String,
}

/// Runs the command: the report goes to `out`, complaints to `err`.
pub fn sim(args: &SimArgs, out: &mut (dyn Write + Send), err: &mut (dyn Write + Send)) -> ExitCode {
    raise_descriptor_limit();
    let mut builder = if args.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.worker_threads(args.threads.into()).thread_name("tsh-sim").enable_all().build();
    let ran = runtime.map_err(Failed::Report).and_then(|runtime| {
        runtime.block_on(async {
            let mut signal = pin!(stop_requested());
            // Polled once, so that the handlers stand before the first line is written: whoever reads it may
            // send the signal at once. One that is here already is not asked again.
            let arrived = signal.as_mut().now_or_never();
            run(args, out, async {
                let arrived = match arrived {
                    Some(arrived) => arrived,
                    None => signal.await,
                };
                // Without handlers a signal ends the process all the same.
                if arrived.is_err() {
                    std::future::pending().await
                }
            })
            .await
        })
    });
    match ran {
        Ok(()) => ExitCode::from(GOOD),
        Err(failed) => {
            // Nobody is left to tell if this cannot be written.
            let _ = writeln!(err, "sim: {failed}");
            ExitCode::from(FAILED)
        }
    }
}

/// Serves until `stop`.
async fn run(
    args: &SimArgs,
    out: &mut (dyn Write + Send),
    stop: impl Future<Output = ()>,
) -> Result<(), Failed> {
    // First of all: a script that cannot be played leaves nothing behind.
    let script = args.script.load()?;
    let (pki, client) = issue(&args.common_name)?;
    // Before listening: whoever waits for the port may read the files at once.
    std::fs::create_dir_all(&args.out).map_err(|source| Failed::Folder { path: args.out.clone(), source })?;
    write_assets(&args.out, &pki, &client)?;
    let simulator = Simulator::start(SimulatorOptions {
        listen: args.listen,
        endorsed: vec![client.endorsed()],
        behaviour: args.behaviour.behaviour(),
        seed: args.seed,
        ..SimulatorOptions::new(pki.clone())
    })
    .await?;
    announce(args, &pki, &simulator, script.as_ref(), out)?;
    args.script.play(&simulator, script.as_ref(), stop).await?;
    let ledger = simulator.ledger();
    let duplicated = simulator.duplicated().len();
    simulator.stop().await;
    if args.json {
        serde_json::to_writer(&mut *out, &ledger).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        report(&ledger, duplicated, out)?;
    }
    out.flush()?;
    Ok(())
}

fn issue(common_name: &str) -> Result<(Arc<Pki>, ClientCredentials), SimError> {
    let pki = Pki::generate(PkiOptions { hosts: vec![HOST.to_owned()], ..PkiOptions::default() })?;
    let client = pki.issue_client(ClientSpec::named(common_name))?;
    Ok((Arc::new(pki), client))
}

fn announce(
    args: &SimArgs,
    pki: &Pki,
    simulator: &Simulator,
    script: Option<&Script>,
    out: &mut (dyn Write + Send),
) -> Result<(), Failed> {
    let assets = std::path::absolute(&args.out).unwrap_or_else(|_| args.out.clone());
    let behaviour = simulator.behaviour();
    let started = Started {
        listening: simulator.addr(),
        common_name: &args.common_name,
        assets: &assets,
        host: HOST,
        pins: [pki.server_pin(), pki.intermediate_pin()],
        behaviour: &behaviour,
        script: script.and_then(|script| args.script.chosen(script)),
        configuration: snippet(&assets, &args.common_name, simulator.addr(), &pki.server_pin()),
    };
    if args.json {
        serde_json::to_writer(&mut *out, &started).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "simulated provider on {}, as {HOST}", started.listening)?;
        writeln!(out, "assets in {} (the client {} is let in)", assets.display(), args.common_name)?;
        if let Some(script) = &started.script {
            let script::Chosen { file, seed, events } = script;
            writeln!(out, "plays {}: {events} events, seed {seed}", file.display())?;
        }
        writeln!(out, "\nto paste into a gateway's configuration:\n\n{}", started.configuration)?;
        writeln!(out, "Ctrl-C ends it and prints what it saw.")?;
    }
    out.flush()?;
    Ok(())
}

/// One environment and a route to it, as `run --config` takes them.
fn snippet(assets: &std::path::Path, common_name: &str, listening: SocketAddr, pin: &str) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    format!(
        "[environments.sandbox]\n\
         stage = \"sandbox\"\n\
         customer = \"CUSTOMER-0001\"\n\
         assets = {}\n\
         endpoint = \"https://{HOST}/1/sandbox-v2/\"\n\
         connect = \"{listening}\"\n\
         [environments.sandbox.identity]\n\
         common_name = {}\n\
         [environments.sandbox.trust]\n\
         pins = [\"{pin}\"]\n\
         \n\
         [[routes]]\n\
         path_prefix = \"/\"\n\
         environment = \"sandbox\"\n",
        quoted(&assets.display().to_string()),
        quoted(common_name),
    )
}

fn report(ledger: &Ledger, duplicated: usize, out: &mut (dyn Write + Send)) -> io::Result<()> {
    let rows: [(&str, u64); 16] = [
        ("connections accepted", ledger.connections_accepted),
        ("  HTTP/2", ledger.connections_http2),
        ("  HTTP/1.1", ledger.connections_http11),
        ("handshakes full", ledger.handshakes_full),
        ("handshakes resumed", ledger.handshakes_resumed),
        ("handshakes refused", ledger.handshakes_refused),
        ("handshakes failed", ledger.handshakes_failed),
        ("requests", ledger.requests),
        ("  disowned by GOAWAY", ledger.requests_disowned),
        ("  ignored after GOAWAY", ledger.requests_ignored),
        ("  processed twice", duplicated as u64),
        ("responses", ledger.responses),
        ("GOAWAY sent", ledger.goaways_sent),
        ("streams refused", ledger.refused_streams),
        ("streams reset", ledger.resets),
        ("most streams at once", ledger.peak_streams),
    ];
    writeln!(out)?;
    for (name, value) in rows {
        writeln!(out, "{name:<24}{value:>12}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
