//! One environment of the configuration, brought to life: generation, pool, and how it is seen from outside.

use std::sync::Arc;

use pool::{DriftChange, HostPort, Obituaries, Pool, PoolKey, PoolSpec, Target, Workers};
use tls_core::{Generation, GenerationError};

use crate::{
    config::{self, ConnectTo, Environment},
    egress::{Refusal, Upstream},
    outcome::ErrorCode,
    telemetry::{CertificateExpiry, CertificateRole, Condition, PoolView, Quarantined, Requirement},
};

/// Serial of the first generation of an environment.
const FIRST_SERIAL: u64 = 1;

/// Starts the pool of an environment, or says why it is quarantined.
pub(super) fn start(
    environment: &Environment,
    workers: Workers,
    observer: Arc<dyn pool::Observer>,
    obituaries: Arc<Obituaries>,
) -> Result<Upstream, GenerationError> {
    let pool = match &environment.credentials {
        Ok(credentials) => {
            let generation = Generation::build(
                FIRST_SERIAL,
                credentials.identity.clone(),
                credentials.trust.clone(),
                environment.tls.clone(),
            )?;
            let spec = spec(environment, generation, workers, observer, obituaries);
            Ok(Pool::start(spec, &tokio::runtime::Handle::current()))
        }
        Err(quarantine) => {
            tracing::error!(environment = %environment.name, code = quarantine.code,
                "the environment is quarantined: {}; {}", quarantine.message, quarantine.remedy);
            Err(refusal(quarantine))
        }
    };
    Ok(Upstream {
        name: environment.name.clone(),
        authority: environment.endpoint.authority.clone(),
        base_path: environment.endpoint.base_path.clone(),
        pool,
        timeouts: environment.timeouts,
    })
}

fn refusal(quarantine: &config::Quarantine) -> Refusal {
    Refusal {
        code: ErrorCode::from_code(quarantine.code).unwrap_or(ErrorCode::Quarantined),
        message: format!("{}; {}", quarantine.message, quarantine.remedy),
    }
}

/// The specification of an environment's pool; also what `probe` dials with.
pub(crate) fn spec(
    environment: &Environment,
    generation: Arc<Generation>,
    workers: Workers,
    observer: Arc<dyn pool::Observer>,
    obituaries: Arc<Obituaries>,
) -> PoolSpec {
    PoolSpec {
        key: PoolKey {
            customer: environment.customer.clone(),
            environment: environment.name.clone(),
            authority: environment.endpoint.authority.to_string(),
        },
        target: target(environment),
        generation,
        config: environment.pool.clone(),
        timeouts: environment.timeouts,
        seed: fastrand::u64(..),
        workers,
        observer,
        obituaries,
    }
}

fn target(environment: &Environment) -> Target {
    Target {
        host: environment.endpoint.host.clone(),
        port: environment.endpoint.port,
        connect: environment.connect.as_ref().map(|to| match to {
            ConnectTo::Address(address) => HostPort { host: address.ip().to_string(), port: address.port() },
            ConnectTo::Host { host, port } => HostPort { host: host.clone(), port: *port },
        }),
        via: environment.via.as_ref().map(|via| HostPort { host: via.host.clone(), port: via.port }),
    }
}

/// An environment as telemetry, admin and health see it.
pub(super) struct View {
    name: String,
    requirement: Requirement,
    pool: Result<Pool, Refusal>,
    certificates: Vec<CertificateExpiry>,
}

impl View {
    pub(super) fn new(environment: &Environment, upstream: &Upstream) -> Self {
        let requirement = if environment.required { Requirement::Required } else { Requirement::Optional };
        Self {
            name: environment.name.clone(),
            requirement,
            pool: upstream.pool.clone(),
            certificates: certificates(environment),
        }
    }
}

fn certificates(environment: &Environment) -> Vec<CertificateExpiry> {
    let client = |identity: &tls_core::Identity| CertificateExpiry {
        role: CertificateRole::Client,
        not_after: identity.certificate().not_after(),
    };
    match &environment.credentials {
        Ok(credentials) => {
            let anchor = credentials.trust.anchors().iter().map(tls_core::AnchorInfo::not_after).min();
            let anchor =
                anchor.map(|not_after| CertificateExpiry { role: CertificateRole::Anchor, not_after });
            std::iter::once(client(&credentials.identity)).chain(anchor).collect()
        }
        Err(quarantine) => quarantine.identity.iter().map(client).collect(),
    }
}

impl PoolView for View {
    fn environment(&self) -> &str {
        &self.name
    }

    fn requirement(&self) -> Requirement {
        self.requirement
    }

    fn condition(&self) -> Condition {
        match &self.pool {
            Ok(pool) => Condition::Pooled(Box::new(pool.status())),
            Err(refusal) => {
                Condition::Quarantined(Quarantined { code: refusal.code, message: refusal.message.clone() })
            }
        }
    }

    fn floor_met(&self) -> bool {
        self.pool.as_ref().is_ok_and(|pool| *pool.floor().borrow())
    }

    fn drift(&self) -> Vec<DriftChange> {
        self.pool.as_ref().map(Pool::drift).unwrap_or_default()
    }

    fn certificates(&self) -> Vec<CertificateExpiry> {
        self.certificates.clone()
    }
}
