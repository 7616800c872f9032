//! Where a cell plays: a gateway, a provider, and how long the gateway waits for what.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use provider_sim::Behaviour;
use tsh_tests::{Lab, NameServer, Plan, Provider, eventually, names::PROVIDER_NAME};

use super::faults::{Fault, Site, Start, When};

/// The limits that a fault runs into. Only these are short: where nothing is waited for, a machine that stands still
/// for a while changes no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// Response header.
    Header,
    /// Between two pieces of a body.
    Idle,
    /// TLS handshake.
    Tls,
    /// Proof of a connection.
    Prove,
    /// Wait for a stream.
    Queue,
    /// PINGs: how often, and how long one may stay unanswered.
    Ping,
}

/// In milliseconds. The long ones are below what a test waits for anything, so that they are told when they are met.
const SHORT: u32 = 900;
const LONG: u32 = 12_000;

/// The provider's addresses: the second one is used only where it has a name and moves.
pub(super) const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(super) const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Gateway and provider of one cell.
pub(super) struct Stage {
    pub(super) provider: Provider,
    pub(super) lab: Lab,
    names: Option<NameServer>,
    begun: AtomicBool,
}

impl Stage {
    pub(super) async fn set(fault: &Fault) -> Self {
        let behaviour = (fault.behaviour)();
        let (provider, names) = match fault.site {
            Site::Address => (Provider::with(behaviour).await, None),
            Site::Name => {
                (Provider::also_at(&[AWAY], behaviour).await, Some(NameServer::start(&[HOME]).await))
            }
        };
        let plan = plan(fault, &provider, names.as_ref());
        let lab = if fault.when == When::Always(Start::NeverReady) {
            plan.start().await
        } else {
            plan.ready().await
        };
        Self { provider, lab, names, begun: AtomicBool::new(false) }
    }

    /// Changes how the provider behaves from now on.
    pub(super) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.provider.behave(change);
    }

    /// The caller has the header of the response.
    pub(super) fn note_begun(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Waits until the caller has the header of the response: what ends it from then on cuts it.
    pub(super) async fn until_begun(&self) {
        let begun = async || self.begun.load(Ordering::Relaxed).then_some(());
        eventually("the response has begun", begun).await;
    }

    /// The provider's name stands for its second address from now on.
    pub(super) fn move_away(&self) {
        self.names.as_ref().expect("a provider with a name").say(&[AWAY]);
    }

    /// Waits until every connection that serves is at this address, and there is one.
    pub(super) async fn until_serving_at(&self, address: IpAddr) {
        eventually(&format!("all connections are at {address}"), async || {
            let at = self.serving_at().await;
            (!at.is_empty() && at.iter().all(|a| *a == address)).then_some(())
        })
        .await;
    }

    /// The addresses of the connections that serve.
    pub(super) async fn serving_at(&self) -> Vec<IpAddr> {
        let pool = self.lab.pool("sandbox").await;
        let all = pool["connections"].as_array().expect("a list").iter();
        let serving = all.filter(|c| c["state"] == "serving");
        serving.map(|c| ip(c["address"].as_str().expect("an address"))).collect()
    }
}

fn ip(address: &str) -> IpAddr {
    address.parse::<std::net::SocketAddr>().expect("an address with a port").ip()
}

fn plan(fault: &Fault, provider: &Provider, names: Option<&NameServer>) -> Plan {
    let limit = |which| if fault.short.contains(&which) { SHORT } else { LONG };
    let (header, idle) = (limit(Short::Header), limit(Short::Idle));
    let (tls, prove, queue) = (limit(Short::Tls), limit(Short::Prove), limit(Short::Queue));
    let mut plan = Plan::at(provider).with(|e| {
        e.timeouts = format!(
            "connect_ms = {LONG}\ntls_ms = {tls}\nprove_ms = {prove}\nqueue_ms = {queue}\n\
             response_header_ms = {header}\nidle_ms = {idle}"
        );
        e.pool = format!("min_connections = 2\nmax_connections = 4\n{}", fault.pool);
        if names.is_some() {
            e.connect = format!("{PROVIDER_NAME}:{}", provider.sim.addr().port());
        }
    });
    if let Some(names) = names {
        plan = plan.section(&format!("[dns]\nservers = [\"{}\"]", names.address()));
    }
    if !fault.short.contains(&Short::Ping) {
        return plan;
    }
    plan.edit(|config| {
        // Oftener than a file may ask for, so that a cell takes no longer than it must.
        for environment in &mut config.environments {
            environment.pool.ping_timeout = Duration::from_millis(SHORT.into());
            environment.pool.ping_interval = Duration::from_millis(400);
            // A PING's deadline is never shorter than that of the proof.
            environment.timeouts.prove = Duration::from_millis(SHORT.into());
        }
    })
}
