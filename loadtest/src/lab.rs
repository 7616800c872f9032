//! A gateway and a simulated provider in this process, as an operator would set them up: a configuration file,
//! assets in a folder, sockets of loopback.
//!
//! Owns the folder and the order of start and stop. What the provider does is told to it by those who test.

use std::{
    fmt::Display,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use gateway::{
    config::{self, Config},
    runtime::{Gateway, Stopped},
};
use pool::{Pool, PoolStatus};
use provider_sim::{
    Behaviour, ClientCredentials, ClientSpec, Pki, PkiOptions, Simulator, SimulatorOptions, write_assets,
};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::error::Error;

/// The name that the certificate of the customer must carry.
pub(crate) const COMMON_NAME: &str = "CUSTOMER-0001-SBX";

/// Four handshakes take milliseconds; this is for a machine that is busy with something else.
const WARM_WITHIN: Duration = Duration::from_secs(20);

/// What a laboratory is made of.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// Lines of `[environments.sandbox.pool]`. Default: none, so that the gateway's defaults hold.
    pub pool: String,
    /// Further sections of the configuration file. Default: none.
    pub sections: String,
    /// Whether the gateway writes an access log. Default: off.
    pub access_log: AccessLog,
}

/// Whether the gateway writes an access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// Not at all.
    #[default]
    Off,
    /// To [`Lab::access_log`].
    File,
}

/// A provider that is running.
pub(crate) struct Provider {
    /// The server.
    pub sim: Simulator,
    /// Its certificates.
    pub pki: Arc<Pki>,
    /// Its one customer's certificate.
    pub client: ClientCredentials,
}

impl Provider {
    /// Starts it on a free port of loopback, with a new PKI and one endorsed customer.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(crate) async fn start(behaviour: Behaviour, seed: u64) -> Result<Self, Error> {
        Self::start_at(behaviour, seed, &[]).await
    }

    /// The same, listening at these further addresses too, on the same port.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(crate) async fn start_at(
        behaviour: Behaviour,
        seed: u64,
        also_listen: &[IpAddr],
    ) -> Result<Self, Error> {
        let pki = Arc::new(Pki::generate(PkiOptions::default()).map_err(lab("make certificates"))?);
        let client =
            pki.issue_client(ClientSpec::named(COMMON_NAME)).map_err(lab("make a client certificate"))?;
        let options = SimulatorOptions {
            also_listen: also_listen.to_vec(),
            endorsed: vec![client.endorsed()],
            behaviour,
            seed,
            ..SimulatorOptions::new(pki.clone())
        };
        let sim = Simulator::start(options).await.map_err(lab("start the provider"))?;
        Ok(Self { sim, pki, client })
    }
}

/// A running gateway.
pub(crate) struct Lab {
    folder: TempDir,
    gateway: Gateway,
    egress: SocketAddr,
    config: Config,
}

impl Lab {
    /// Starts a gateway whose one environment dials `connect` (host and port), and waits until its floor is met.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(crate) async fn start(
        setup: &Setup,
        provider: &Provider,
        connect: impl Display,
    ) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("tsh-loadtest-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(lab("make a temporary folder"))?;
        let assets = folder.path().join("assets");
        fs::create_dir(&assets).map_err(lab("make a temporary folder"))?;
        write_assets(&assets, &provider.pki, &provider.client).map_err(lab("write the assets"))?;
        let access = match setup.access_log {
            AccessLog::Off => "off".to_owned(),
            AccessLog::File => format!("file:{}", log_file(&folder).display()),
        };
        let text = format!(
            "[egress]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"{access}\"\n\
             [environments.sandbox]\nstage = \"sandbox\"\ncustomer = \"CUSTOMER-0001\"\nassets = \"assets\"\n\
             endpoint = \"https://tsh.test/\"\nconnect = \"{connect}\"\n\
             [environments.sandbox.identity]\ncommon_name = \"{COMMON_NAME}\"\n\
             [environments.sandbox.pool]\n{}\n\
             {}\n\
             [[routes]]\nname = \"all\"\nenvironment = \"sandbox\"\n",
            setup.pool, setup.sections
        );
        let file = folder.path().join("gateway.toml");
        fs::write(&file, text).map_err(lab("write the configuration"))?;
        let config =
            config::load(&file, OffsetDateTime::now_utc()).map_err(lab("load the configuration"))?.config;
        let gateway = Gateway::start(&config).await.map_err(lab("start the gateway"))?;
        // The configuration has one TCP listener and one sound environment.
        let egress = *gateway.egress_addresses().first().expect("a TCP listener");
        let this = Self { folder, gateway, egress, config };
        if tokio::time::timeout(WARM_WITHIN, this.pool().warm()).await.is_err() {
            let why = this.status().last_failure.map(|failure| failure.message).unwrap_or_default();
            return Err(lab("warm the pool")(format!(
                "no floor of connections within {WARM_WITHIN:?}: {why}"
            )));
        }
        Ok(this)
    }

    /// Where callers call.
    pub(crate) fn egress(&self) -> SocketAddr {
        self.egress
    }

    /// The one pool.
    pub(crate) fn pool(&self) -> &Pool {
        // Its certificates were made a moment ago: the environment is not quarantined.
        self.gateway.pools().first().expect("one environment with a pool")
    }

    /// The pool as it stands now.
    pub(crate) fn status(&self) -> PoolStatus {
        self.pool().status()
    }

    /// The file that the access log goes to.
    pub(crate) fn access_log(&self) -> PathBuf {
        log_file(&self.folder)
    }

    /// The admin listener, where the metrics are.
    pub(crate) fn admin(&self) -> SocketAddr {
        // The configuration has one.
        self.gateway.admin_address().expect("an admin listener")
    }

    /// What the environment's generations are made of.
    pub(crate) fn environment(&self) -> &config::Environment {
        &self.config.environments[0]
    }

    /// Stops the gateway; the folder stays until this value is dropped.
    pub(crate) async fn stop(self) -> (Stopped, TempDir) {
        (self.gateway.stop().await, self.folder)
    }
}

fn log_file(folder: &TempDir) -> PathBuf {
    folder.path().join("access.log")
}

/// An error of setting up, with what was tried.
pub(crate) fn lab<E: Display>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |cause| Error::Lab { action, cause: cause.to_string() }
}
