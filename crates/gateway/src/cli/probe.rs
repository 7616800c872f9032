//! `tsh-gateway probe`: dials each environment as the gateway would and reports what came of it.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use pool::{
    CauseOfDeath, ConnectionId, ConnectionStatus, DialReport, DriftField, Obituaries, Observer, Pool,
    Verdict, Workers,
};
use serde::Serialize;
use time::OffsetDateTime;
use tls_core::Generation;

use super::{FAILED, GOOD, control_runtime};
use crate::{
    config::{self, Environment},
    runtime::pool_spec,
};

/// Dials every environment (or one), twice: a full handshake, then one that may resume.
///
/// Nothing but a PING is sent. Exit code 0: every environment probed serves; 1: one does not.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tsh-gateway probe --config gateway.toml\n  tsh-gateway probe --config gateway.toml --environment sandbox --json"
)]
pub struct ProbeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only this environment.
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
    /// Report as one JSON array.
    #[arg(long)]
    pub json: bool,
}

/// What a probe found of one environment.
#[derive(Debug, Serialize)]
struct Found {
    environment: String,
    endpoint: String,
    serves: bool,
    code: Option<&'static str>,
    message: Option<String>,
    certificate: Option<String>,
    connections: Vec<ConnectionStatus>,
}

/// Runs the command.
pub fn probe(args: &ProbeArgs, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let code = match run(args, out, err) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(err, "{error}");
            FAILED
        }
    };
    ExitCode::from(code)
}

fn run(args: &ProbeArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let loaded = match config::load(&args.config, OffsetDateTime::now_utc()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            writeln!(err, "{errors}")?;
            return Ok(FAILED);
        }
    };
    let wanted = |e: &&Environment| args.environment.as_ref().is_none_or(|name| *name == e.name);
    let environments: Vec<_> = loaded.config.environments.iter().filter(wanted).collect();
    if environments.is_empty() {
        let known: Vec<_> = loaded.config.environments.iter().map(|e| e.name.as_str()).collect();
        writeln!(err, "no such environment; the file has: {}", known.join(", "))?;
        return Ok(FAILED);
    }
    let found = control_runtime()?.block_on(async {
        let mut found = Vec::new();
        for environment in environments {
            found.push(probe_one(environment).await);
        }
        found
    });
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &found)?;
        writeln!(out)?;
    } else {
        for one in &found {
            report(one, out)?;
        }
    }
    Ok(if found.iter().all(|f| f.serves) { GOOD } else { FAILED })
}

async fn probe_one(environment: &Environment) -> Found {
    let mut found = Found {
        environment: environment.name.clone(),
        endpoint: environment.endpoint.to_string(),
        serves: false,
        code: None,
        message: None,
        certificate: None,
        connections: Vec::new(),
    };
    let credentials = match &environment.credentials {
        Ok(credentials) => credentials,
        Err(quarantine) => {
            found.code = Some(quarantine.code);
            found.message = Some(format!("{}; {}", quarantine.message, quarantine.remedy));
            return found;
        }
    };
    found.certificate = Some(credentials.identity.certificate().fingerprint().to_string());
    let (identity, trust) = (credentials.identity.clone(), credentials.trust.clone());
    let generation = match Generation::build(1, identity, trust, environment.tls.clone()) {
        Ok(generation) => generation,
        Err(error) => {
            found.code = Some("tls_configuration");
            found.message = Some(error.to_string());
            return found;
        }
    };
    // Two dials in turn on one generation: the second may use a ticket of the first.
    for _ in 0..2 {
        match dial_once(environment, generation.clone()).await {
            Ok(connection) => found.connections.push(connection),
            Err((code, message)) => {
                found.code = Some(code);
                found.message = Some(message);
                return found;
            }
        }
    }
    found.serves = true;
    found
}

/// One connection through a pool of one, so that the probe does exactly what the gateway does.
async fn dial_once(
    environment: &Environment,
    generation: Arc<Generation>,
) -> Result<ConnectionStatus, (&'static str, String)> {
    let failed = Arc::new(FirstFailure::default());
    let obituaries = Obituaries::new(Arc::new(tls_core::SystemClock));
    let mut spec = pool_spec(environment, generation, Workers::current(), failed.clone(), obituaries);
    spec.config.min_connections = 1;
    spec.config.max_connections = 1;
    let pool = Pool::start(spec, &tokio::runtime::Handle::current());
    let warm = tokio::select! {
        () = pool.warm() => true,
        () = failed.told.notified() => false,
    };
    // TLS 1.3 tickets arrive after the handshake; the PING's answer comes behind them.
    let status = pool.status();
    pool.stop(STOP).await;
    match (warm, status.connections.into_iter().next()) {
        (true, Some(connection)) => Ok(connection),
        _ => {
            let code = failed.code.lock().unwrap_or("connect_failure");
            Err((code, status.last_failure.map_or_else(|| code.to_owned(), |f| f.message)))
        }
    }
}

/// Time for the connection to say goodbye.
const STOP: Duration = Duration::from_secs(1);

/// Remembers the code of the first dial that failed.
#[derive(Default)]
struct FirstFailure {
    code: Mutex<Option<&'static str>>,
    told: tokio::sync::Notify,
}

impl Observer for FirstFailure {
    fn dialled(&self, report: &DialReport) {
        if let Some(code) = report.failure {
            self.code.lock().get_or_insert(code);
            self.told.notify_one();
        }
    }
    fn closed(&self, _: ConnectionId, _: CauseOfDeath, _: u64) {}
    fn goaway(&self, _: ConnectionId, _: u32) {}
    fn retried(&self, _: Verdict) {}
    fn drifted(&self, _: DriftField) {}
}

fn report(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}  {}", found.environment, found.endpoint)?;
    if let Some(certificate) = &found.certificate {
        writeln!(out, "  our certificate  sha256 {certificate}")?;
    }
    for connection in &found.connections {
        let facts = &connection.handshake;
        let ms =
            |d: Option<Duration>| d.map_or("-".to_owned(), |d| format!("{:.1} ms", d.as_secs_f64() * 1e3));
        let phases = &connection.phases;
        writeln!(
            out,
            "  {:<9} {} {} {} {}  dns {}  tcp {}  tls {}  prove {}  from {}",
            facts.kind.as_label(),
            facts.version.as_str(),
            facts.cipher_suite,
            facts.key_exchange.unwrap_or("-"),
            facts.alpn.map_or("no ALPN", |a| if a == tls_core::Alpn::H2 { "h2" } else { "http/1.1" }),
            ms(phases.dns),
            ms(phases.tcp),
            ms(phases.tls),
            ms(phases.prove),
            connection.address,
        )?;
    }
    match (&found.code, &found.message) {
        (Some(code), Some(message)) => writeln!(out, "  FAILED  {code}: {message}"),
        _ => writeln!(out, "  serves; server certificate until {}", until(found)),
    }
}

fn until(found: &Found) -> String {
    found.connections.first().map_or_else(String::new, |c| c.handshake.peer_not_after.date().to_string())
}
