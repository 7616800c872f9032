//! The set-up: two simulated providers, a configuration in a temporary folder, the gateway started from it.
//!
//! Owns the folder, which is gone when it is dropped, and the order of start and stop.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use provider_sim::{
    Behaviour, ClientSpec, GoAwayForm, Pki, PkiOptions, Simulator, SimulatorOptions, write_assets,
};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::{args::DemoArgs, error::DemoError, snapshot::Snapshot, summary::Summary};
use crate::{
    config,
    runtime::{Gateway, StartError},
    telemetry::{Condition, PoolView},
};

/// An environment of the demonstration.
pub(super) struct Plan {
    /// Its name; also its stage, the name of its route, and the first segment of its paths.
    pub(super) name: &'static str,
    common_name: &'static str,
    base_path: &'static str,
    goaway_after_requests: Option<u32>,
}

/// The sandbox's provider ends connections after this many requests, so that replacement is seen at work.
pub(super) const GOAWAY_EVERY: u32 = 300;
/// And it turns the last one back, unprocessed. On loopback a request that crosses a GOAWAY on the wire is rare;
/// this way every GOAWAY shows a request that is sent again on another connection.
const GOAWAY_FORM: GoAwayForm = GoAwayForm::Behind { streams: 1 };

/// The environments: one with a restless provider, one with a quiet one.
pub(super) const PLANS: [Plan; 2] = [
    Plan {
        name: "sandbox",
        common_name: "CUSTOMER-0001-SBX",
        base_path: "/1/sandbox-v2/",
        goaway_after_requests: Some(GOAWAY_EVERY),
    },
    Plan {
        name: "production",
        common_name: "CUSTOMER-0001-PRD",
        base_path: "/1/production-v2/",
        goaway_after_requests: None,
    },
];

/// Providers that answer at once would leave nothing in flight to look at, or to lose.
pub(super) const LATENCY: Duration = Duration::from_millis(2);
/// Drawn evenly on top.
pub(super) const LATENCY_JITTER: Duration = Duration::from_millis(3);

/// The ports that a gateway takes by default.
const EGRESS_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9901;
/// Four handshakes on loopback take milliseconds; this is for a machine that is busy with something else.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// A dial under way when the traffic ends takes milliseconds, or fails.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);
const READY_LOOK: Duration = Duration::from_millis(10);

/// Everything that runs.
pub(super) struct Lab {
    providers: Vec<Simulator>,
    gateway: Gateway,
    egress: SocketAddr,
    admin: SocketAddr,
    /// Dropped last: the gateway's files lie in it.
    _folder: TempDir,
}

impl Lab {
    /// Starts providers and gateway, and waits until every floor is met.
    pub(super) async fn start(args: &DemoArgs) -> Result<Self, DemoError> {
        let owner_only = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .prefix("tsh-demo-")
            .permissions(owner_only)
            .tempdir()
            .map_err(|source| DemoError::Folder { path: std::env::temp_dir(), source })?;
        let mut providers = Vec::new();
        let mut environments = String::new();
        for plan in &PLANS {
            let (provider, section) = start_provider(plan, folder.path()).await?;
            providers.push(provider);
            environments.push_str(&section);
        }
        let gateway = start_gateway(args, folder.path(), &environments).await?;
        let addresses = gateway.egress_addresses().first().copied().zip(gateway.admin_address());
        let (egress, admin) = addresses.ok_or(DemoError::NoAddress)?;
        await_readiness(&gateway).await?;
        Ok(Self { providers, gateway, egress, admin, _folder: folder })
    }

    /// Where callers call.
    pub(super) fn egress(&self) -> SocketAddr {
        self.egress
    }

    /// Where operators look.
    pub(super) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The environments as the gateway sees them, in the order of [`PLANS`].
    pub(super) fn views(&self) -> &[Arc<dyn PoolView>] {
        self.gateway.views()
    }

    /// Waits until no connection is being made and no request is under way, so that what the gateway has counted
    /// and what the providers have counted is the same. Not for ever: a provider may be unreachable.
    pub(super) async fn settle(&self) {
        let deadline = Instant::now() + SETTLED_WITHIN;
        let is_busy = |view: &Arc<dyn PoolView>| match view.condition() {
            Condition::Pooled(status) => status.dialling > 0 || status.in_flight > 0,
            Condition::Quarantined(_) => false,
        };
        while self.views().iter().any(is_busy) && Instant::now() < deadline {
            sleep(READY_LOOK).await;
        }
    }

    /// Stops the gateway, then the providers, and sums up.
    pub(super) async fn stop(self, last: Snapshot) -> Summary {
        let stopped = self.gateway.stop().await;
        let mut ledgers = Vec::new();
        let mut duplicated = 0;
        for provider in self.providers {
            ledgers.push(provider.ledger());
            duplicated += provider.duplicated().len();
            provider.stop().await;
        }
        Summary::new(last, &ledgers, duplicated, stopped)
    }
}

async fn start_provider(plan: &Plan, folder: &Path) -> Result<(Simulator, String), DemoError> {
    let host = format!("{}.tsh.test", plan.name);
    let pki = Arc::new(Pki::generate(PkiOptions { hosts: vec![host.clone()], ..PkiOptions::default() })?);
    let client = pki.issue_client(ClientSpec::named(plan.common_name))?;
    let assets = folder.join("assets").join(plan.name);
    fs::create_dir_all(&assets).map_err(|source| DemoError::Folder { path: assets.clone(), source })?;
    write_assets(&assets, &pki, &client)?;
    let behaviour = Behaviour {
        goaway_after_requests: plan.goaway_after_requests,
        goaway_form: GOAWAY_FORM,
        latency: LATENCY,
        latency_jitter: LATENCY_JITTER,
        ..Behaviour::default()
    };
    let options = SimulatorOptions {
        endorsed: vec![client.endorsed()],
        behaviour,
        ..SimulatorOptions::new(pki.clone())
    };
    let provider = Simulator::start(options).await?;
    let Plan { name, common_name, base_path, .. } = plan;
    let section = format!(
        "\n[environments.{name}]\n\
         stage = \"{name}\"\n\
         customer = \"CUSTOMER-0001\"\n\
         assets = \"assets/{name}\"\n\
         endpoint = \"https://{host}{base_path}\"\n\
         connect = \"{}\"\n\
         [environments.{name}.identity]\n\
         common_name = \"{common_name}\"\n\
         [environments.{name}.trust]\n\
         pins = [\"{}\", \"{}\"]\n\
         [[routes]]\n\
         name = \"{name}\"\n\
         path_prefix = \"/{name}\"\n\
         strip_prefix = true\n\
         environment = \"{name}\"\n",
        provider.addr(),
        pki.server_pin(),
        pki.intermediate_pin(),
    );
    Ok((provider, section))
}

async fn start_gateway(args: &DemoArgs, folder: &Path, environments: &str) -> Result<Gateway, DemoError> {
    let usual = |asked: Option<u16>, usual: u16| asked.unwrap_or_else(|| free_or_any(usual));
    let ports = (usual(args.port, EGRESS_PORT), usual(args.admin_port, ADMIN_PORT));
    match gateway_at(args, folder, environments, ports).await {
        // Somebody took a port since we looked; one that was asked for is not exchanged for another.
        Err(DemoError::Gateway(StartError::Listen(_)))
            if args.port.is_none() || args.admin_port.is_none() =>
        {
            let ports = (args.port.unwrap_or(0), args.admin_port.unwrap_or(0));
            gateway_at(args, folder, environments, ports).await
        }
        started => started,
    }
}

/// The port if it is free, else 0, which stands for any that is.
fn free_or_any(port: u16) -> u16 {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() { port } else { 0 }
}

async fn gateway_at(
    args: &DemoArgs,
    folder: &Path,
    environments: &str,
    (egress, admin): (u16, u16),
) -> Result<Gateway, DemoError> {
    let text = format!(
        "[egress]\n\
         listen = [\"127.0.0.1:{egress}\"]\n\
         [admin]\n\
         listen = \"127.0.0.1:{admin}\"\n\
         [log]\n\
         access = {}\n\
         [shutdown]\n\
         drain_s = 3\n\
         {environments}",
        access_log(args),
    );
    let file: PathBuf = folder.join("gateway.toml");
    fs::write(&file, text).map_err(|source| DemoError::Folder { path: file.clone(), source })?;
    let loaded = config::load(&file, OffsetDateTime::now_utc()).map_err(DemoError::Configuration)?;
    Ok(Box::pin(Gateway::start(&loaded.config)).await?)
}

fn access_log(args: &DemoArgs) -> toml::Value {
    let target = match &args.access_log {
        None => "off".to_owned(),
        // The configuration resolves paths against its own folder, which is not where the user stands.
        Some(file) => {
            format!("file:{}", std::path::absolute(file).unwrap_or_else(|_| file.clone()).display())
        }
    };
    toml::Value::from(target)
}

async fn await_readiness(gateway: &Gateway) -> Result<(), DemoError> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let answer = gateway.readiness().overall();
        if answer.ready {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let reasons: Vec<_> =
                answer.reasons.iter().map(|r| format!("{}: {}", r.environment, r.message)).collect();
            return Err(DemoError::NotReady { after: READY_WITHIN, reasons: reasons.join("; ") });
        }
        sleep(READY_LOOK).await;
    }
}
