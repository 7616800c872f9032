//! The provider of a storm: the simulator, its certificates as they change, and what it says of each request.

use std::{sync::Arc, time::Duration};

use provider_sim::{Account, Behaviour, Endorsed, Pki, Simulator};

use crate::{
    error::Error,
    lab::{Provider, lab},
};

/// Most requests of a storm: the correlation ids that the simulator remembers.
pub(super) const MAX_REQUESTS: usize = 1_000_000;

/// The provider.
pub(super) struct Stage {
    sim: Simulator,
    pki: Arc<Pki>,
    prefix: String,
}

impl Stage {
    /// `provider`, asked for requests whose correlation ids are `prefix-N`.
    pub(super) fn new(provider: Provider, prefix: &str) -> Self {
        let Provider { sim, pki, .. } = provider;
        Self { sim, pki, prefix: prefix.to_owned() }
    }

    /// The simulator.
    pub(super) fn sim(&self) -> &Simulator {
        &self.sim
    }

    /// Its certificates now.
    pub(super) fn pki(&self) -> &Arc<Pki> {
        &self.pki
    }

    /// Endorses one more client.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) fn endorse(&self, client: Endorsed) -> Result<(), Error> {
        self.sim.endorse(client).map_err(lab("endorse a client certificate"))
    }

    /// Changes its own leaf for another one of the same CA.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) fn rotate(&mut self) -> Result<(), Error> {
        self.pki = Arc::new(self.pki.rotated().map_err(lab("make a server certificate"))?);
        self.sim.set_pki(self.pki.clone()).map_err(lab("change the server's certificate"))
    }

    /// Ends every connection, is away for `away` (connections are refused), and listens again on the same port.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) async fn restart(&self, away: Duration) -> Result<(), Error> {
        self.sim.restart(away).await.map_err(lab("restart the provider"))
    }

    /// Behaves like this from now on.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) fn behave(&self, behaviour: Behaviour) -> Result<(), Error> {
        self.sim.set_behaviour(behaviour).map_err(lab("change the provider's behaviour"))
    }

    /// How often request `sequence` arrived, and how often it was processed.
    pub(super) fn account(&self, sequence: u64) -> Account {
        self.sim.account(&format!("{}-{sequence}", self.prefix))
    }
}
