//! What a test wants of a gateway, written as the configuration file that an operator would write.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use gateway::config::{self, Config, ConfigErrors, Loaded};
use gateway::runtime::Gateway;
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::{lab::Lab, provider::Provider};

/// One environment of the file.
#[derive(Clone, Debug)]
pub struct EnvironmentPlan {
    /// Name.
    pub name: String,
    /// `sandbox` or `production`.
    pub stage: &'static str,
    /// Customer identifier.
    pub customer: String,
    /// Declared common name.
    pub common_name: String,
    /// Endpoint.
    pub endpoint: String,
    /// Where to dial.
    pub connect: String,
    /// Content of `TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem`.
    pub anchors: String,
    /// Content of `CUSTOMER_TLS_CLIENT_CERTIFICATE.pem`.
    pub certificate: String,
    /// Content of `CUSTOMER_TLS_CLIENT_CERTIFICATE.key`.
    pub key: String,
    /// SPKI pins.
    pub pins: Vec<String>,
    /// Further lines of `[environments.NAME]`.
    pub more: String,
    /// Lines of `[environments.NAME.pool]`.
    pub pool: String,
    /// Lines of `[environments.NAME.timeouts]`.
    pub timeouts: String,
}

impl EnvironmentPlan {
    /// A sandbox at this provider.
    pub fn at(name: &str, provider: &Provider) -> Self {
        Self {
            name: name.to_owned(),
            stage: "sandbox",
            customer: "CUSTOMER-0001".to_owned(),
            common_name: provider.client.common_name.clone(),
            endpoint: "https://tsh.test/".to_owned(),
            connect: provider.sim.addr().to_string(),
            anchors: provider.pki.anchors_pem(),
            certificate: provider.client.certificate_pem.clone(),
            key: provider.client.key_pem.clone(),
            pins: Vec::new(),
            more: String::new(),
            pool: String::new(),
            timeouts: String::new(),
        }
    }

    /// Lines for the pool.
    #[must_use]
    pub fn pool(mut self, lines: &str) -> Self {
        self.pool = lines.to_owned();
        self
    }

    /// Lines for the time-outs.
    #[must_use]
    pub fn timeouts(mut self, lines: &str) -> Self {
        self.timeouts = lines.to_owned();
        self
    }

    fn write(&self, out: &mut String, folder: &Path) {
        let assets = folder.join(&self.name);
        fs::create_dir_all(&assets).expect("a folder");
        for (name, text) in [
            ("TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem", &self.anchors),
            ("CUSTOMER_TLS_CLIENT_CERTIFICATE.pem", &self.certificate),
            ("CUSTOMER_TLS_CLIENT_CERTIFICATE.key", &self.key),
        ] {
            let path = assets.join(name);
            fs::write(&path, text).expect("a writable file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("rights");
        }
        let Self {
            name, stage, customer, common_name, endpoint, connect, pins, more, pool, timeouts, ..
        } = self;
        let _ = write!(
            out,
            "[environments.{name}]\nstage = \"{stage}\"\ncustomer = \"{customer}\"\nassets = \"{name}\"\n\
             endpoint = \"{endpoint}\"\nconnect = \"{connect}\"\n{more}\n\
             [environments.{name}.identity]\ncommon_name = \"{common_name}\"\n\
             [environments.{name}.trust]\npins = {pins:?}\n\
             [environments.{name}.pool]\n{pool}\n[environments.{name}.timeouts]\n{timeouts}\n"
        );
    }
}

type Edit = Box<dyn FnOnce(&mut Config)>;

/// A whole configuration.
#[derive(Default)]
pub struct Plan {
    environments: Vec<EnvironmentPlan>,
    routes: String,
    egress: String,
    more: String,
    unix: bool,
    edits: Vec<Edit>,
}

impl Plan {
    /// One environment named `sandbox` at this provider, one route `all` to it, everything else by default.
    pub fn at(provider: &Provider) -> Self {
        Self::of(EnvironmentPlan::at("sandbox", provider))
    }

    /// This environment alone, one route `all` to it.
    pub fn of(environment: EnvironmentPlan) -> Self {
        let routes = format!("[[routes]]\nname = \"all\"\nenvironment = \"{}\"\n", environment.name);
        Self { environments: vec![environment], routes, ..Self::default() }
    }

    /// One more environment.
    #[must_use]
    pub fn and(mut self, environment: EnvironmentPlan) -> Self {
        self.environments.push(environment);
        self
    }

    /// Changes the first environment.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut EnvironmentPlan)) -> Self {
        change(&mut self.environments[0]);
        self
    }

    /// These routes instead of the one.
    #[must_use]
    pub fn routes(mut self, routes: &str) -> Self {
        self.routes = routes.to_owned();
        self
    }

    /// Lines for the route that is there.
    #[must_use]
    pub fn route(mut self, lines: &str) -> Self {
        self.routes.push_str(lines);
        self.routes.push('\n');
        self
    }

    /// Lines of `[egress]`.
    #[must_use]
    pub fn egress(mut self, lines: &str) -> Self {
        self.egress = lines.to_owned();
        self
    }

    /// Further sections, such as `[limits]`.
    #[must_use]
    pub fn section(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// A Unix socket beside the TCP listener.
    #[must_use]
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Changes the loaded configuration: values that a file may not have, such as an age of half a second.
    #[must_use]
    pub fn edit(mut self, edit: impl FnOnce(&mut Config) + 'static) -> Self {
        self.edits.push(Box::new(edit));
        self
    }

    fn write(&self, folder: &Path) -> PathBuf {
        let mut text = String::new();
        let unix = if self.unix { format!(", \"unix:{}\"", socket(folder).display()) } else { String::new() };
        let _ = write!(
            text,
            "[egress]\nlisten = [\"127.0.0.1:0\"{unix}]\n{}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [log]\naccess = \"file:{}\"\n{}\n",
            self.egress,
            folder.join("access.log").display(),
            self.more
        );
        for environment in &self.environments {
            environment.write(&mut text, folder);
        }
        text.push_str(&self.routes);
        let path = folder.join("gateway.toml");
        fs::write(&path, text).expect("a writable file");
        path
    }

    /// Loads the file without starting anything.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        config::load(&self.write(folder.path()), OffsetDateTime::now_utc())
    }

    /// Starts the gateway.
    ///
    /// # Panics
    /// When the configuration is not sound or the start fails.
    pub async fn start(self) -> Lab {
        let folder: TempDir = tempfile::tempdir().expect("a temporary folder");
        let path = self.write(folder.path());
        let mut config = match config::load(&path, OffsetDateTime::now_utc()) {
            Ok(loaded) => loaded.config,
            Err(errors) => panic!("the test's configuration is not sound:\n{errors}"),
        };
        for edit in self.edits {
            edit(&mut config);
        }
        let socket = self.unix.then(|| socket(folder.path()));
        let gateway = Gateway::start(&config).await.expect("a gateway");
        Lab::new(folder, gateway, socket)
    }

    /// Starts the gateway and waits until it is ready.
    ///
    /// # Panics
    /// As [`start`](Self::start), and when it does not become ready.
    pub async fn ready(self) -> Lab {
        let lab = self.start().await;
        lab.until_ready().await;
        lab
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("egress.sock")
}
