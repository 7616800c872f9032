//! A simulated provider with its PKI and one endorsed customer.

use std::{net::IpAddr, sync::Arc};

use provider_sim::{Behaviour, ClientCredentials, ClientSpec, Pki, PkiOptions, Simulator, SimulatorOptions};

/// A running provider and what its customer needs.
pub struct Provider {
    /// The server.
    pub sim: Simulator,
    /// Its certificates.
    pub pki: Arc<Pki>,
    /// The customer's certificate, endorsed.
    pub client: ClientCredentials,
}

impl Provider {
    /// A well-behaved one for the sandbox.
    pub async fn start() -> Self {
        Self::with(Behaviour::default()).await
    }

    /// One that behaves like this.
    pub async fn with(behaviour: Behaviour) -> Self {
        Self::made(PkiOptions::default(), ClientSpec::default(), behaviour).await
    }

    /// One that behaves like this and listens at further addresses too, with the same port.
    pub async fn also_at(further: &[IpAddr], behaviour: Behaviour) -> Self {
        let options = (PkiOptions::default(), ClientSpec::default());
        Self::listening(options, further.to_vec(), behaviour).await
    }

    /// Everything made to order.
    pub async fn made(pki: PkiOptions, client: ClientSpec, behaviour: Behaviour) -> Self {
        Self::listening((pki, client), Vec::new(), behaviour).await
    }

    async fn listening(
        (pki, client): (PkiOptions, ClientSpec),
        also_listen: Vec<IpAddr>,
        behaviour: Behaviour,
    ) -> Self {
        let pki = Arc::new(Pki::generate(pki).expect("a PKI"));
        let client = pki.issue_client(client).expect("a client certificate");
        let options = SimulatorOptions {
            endorsed: vec![client.endorsed()],
            behaviour,
            also_listen,
            ..SimulatorOptions::new(pki.clone())
        };
        let sim = Simulator::start(options).await.expect("a simulator on a free port");
        Self { sim, pki, client }
    }

    /// Changes how it behaves from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.sim.behaviour();
        change(&mut behaviour);
        self.sim.set_behaviour(behaviour).expect("a valid behaviour");
    }
}
