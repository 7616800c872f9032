//! The provider of a storm: the simulator, its name, its certificates as they change, and what it says of each request.

use std::{sync::Arc, time::Duration};

use provider_sim::{Account, Behaviour, Endorsed, GoAwayForm, Listening, Pki, Simulator, Target};

use super::names::NameServer;
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
    names: NameServer,
    prefix: String,
}

impl Stage {
    /// `provider`, found through `names`, asked for requests whose correlation ids are `prefix-N`.
    pub(super) fn new(provider: Provider, names: NameServer, prefix: &str) -> Self {
        let Provider { sim, pki, .. } = provider;
        Self { sim, pki, names, prefix: prefix.to_owned() }
    }

    /// Its name stands for another of its addresses from now on.
    pub(super) fn move_name(&self) {
        let now = self.names.answer();
        let mut others = self.sim.addrs().into_iter().map(|address| address.ip());
        if let Some(other) = others.find(|other| *other != now) {
            self.names.say(other);
        }
    }

    /// For `lasts` nothing is read or written on any connection, and new ones get no byte; then all of them are reset
    /// and new ones are served.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) async fn swallow_all(&self, lasts: Duration) -> Result<(), Error> {
        let listen = |how| self.sim.set_listening(how).map_err(lab("change how the provider listens"));
        listen(Listening::Backlogged)?;
        self.sim.end(Target::All, GoAwayForm::BlackHole);
        tokio::time::sleep(lasts).await;
        self.sim.end(Target::All, GoAwayForm::Reset);
        listen(Listening::Accepting)
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
