//! The provider of a storm, through its restarts: each life is a simulator of its own on the same port, and its
//! books are taken over before it ends.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use provider_sim::{Behaviour, Endorsed, Ledger, Pki, Simulator, SimulatorOptions, Stall};
use tokio::time::{Instant, sleep};

use super::books::Books;
use crate::{
    error::Error,
    lab::{Provider, lab},
};

/// Most requests of one life: half of the correlation ids that a simulator remembers.
const MAX_PER_LIFE: u64 = 100_000;

/// How long streams that were cut may take to be gone from the provider's books.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// The provider and what it processed in all its lives.
pub(super) struct Stage {
    /// Taken only while it restarts.
    sim: Option<Simulator>,
    address: SocketAddr,
    provider_pki: Arc<Pki>,
    endorsed: Vec<Endorsed>,
    seed: u64,
    prefix: String,
    books: Arc<Books>,
    past: BTreeMap<String, u64>,
    processed: Vec<u8>,
    /// The first request that this life may have seen.
    life_from: u64,
}

impl Stage {
    /// The first life of `provider`; `prefix` is that of the correlation ids.
    pub(super) fn new(provider: Provider, prefix: &str, books: Arc<Books>, seed: u64) -> Self {
        let Provider { sim, pki, client } = provider;
        // Written, not only reserved, as the books.
        let mut processed = vec![0xff; books.capacity()];
        processed.fill(0);
        Self {
            address: sim.addr(),
            sim: Some(sim),
            provider_pki: pki,
            endorsed: vec![client.endorsed()],
            seed,
            prefix: prefix.to_owned(),
            books,
            past: BTreeMap::new(),
            processed,
            life_from: 0,
        }
    }

    /// The running simulator.
    pub(super) fn sim(&self) -> &Simulator {
        // `restart` is the only one to take it, and puts another there.
        self.sim.as_ref().expect("a life")
    }

    /// Its certificates now.
    pub(super) fn pki(&self) -> &Arc<Pki> {
        &self.provider_pki
    }

    /// Endorses one more client, for this life and the next ones.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) fn endorse(&mut self, client: Endorsed) -> Result<(), Error> {
        self.endorsed.push(client.clone());
        self.sim().endorse(client).map_err(lab("endorse a client certificate"))
    }

    /// Changes its own leaf for another one of the same CA.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) fn rotate(&mut self) -> Result<(), Error> {
        self.provider_pki = Arc::new(self.provider_pki.rotated().map_err(lab("make a server certificate"))?);
        self.sim().set_pki(self.provider_pki.clone()).map_err(lab("change the server's certificate"))
    }

    /// Ends every connection, is away for `away` (connections are refused), and listens again on the same port.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) async fn restart(&mut self, away: Duration, calm: &Behaviour) -> Result<(), Error> {
        // Nobody gets past the handshake any more: what its books say now is what they will say at its end.
        self.behave(Behaviour { stall: Stall::AtHandshake, ..calm.clone() })?;
        self.sim().kill_connections();
        self.until_cut().await?;
        self.take_over()?;
        let sim = self.sim.take().expect("a life");
        sim.stop().await;
        sleep(away).await;
        let options = SimulatorOptions {
            listen: self.address,
            endorsed: self.endorsed.clone(),
            behaviour: calm.clone(),
            seed: self.seed,
            ..SimulatorOptions::new(self.provider_pki.clone())
        };
        self.sim = Some(Simulator::start(options).await.map_err(lab("start the provider again"))?);
        Ok(())
    }

    /// Behaves like this from now on.
    ///
    /// # Errors
    /// [`Error::Lab`].
    pub(super) fn behave(&self, behaviour: Behaviour) -> Result<(), Error> {
        self.sim().set_behaviour(behaviour).map_err(lab("change the provider's behaviour"))
    }

    /// Adds the books of this life to those of the lives before it.
    ///
    /// # Errors
    /// [`Error::Lab`] if this life was too long for the simulator's memory.
    pub(super) fn take_over(&mut self) -> Result<(), Error> {
        let upto = self.books.upto();
        if upto - self.life_from > MAX_PER_LIFE {
            let cause = "more requests between two restarts than it remembers; lower --rate";
            return Err(lab("trust the provider's books")(cause));
        }
        let sim = self.sim();
        let seen =
            |sequence| u8::try_from(sim.seen(&format!("{}-{sequence}", self.prefix))).unwrap_or(u8::MAX);
        let seen: Vec<u8> = (self.life_from..upto).map(seen).collect();
        let ledger = sim.ledger();
        for (total, seen) in self.processed[self.life_from as usize..].iter_mut().zip(seen) {
            *total = total.saturating_add(seen);
        }
        add(&mut self.past, &ledger);
        self.life_from = self.books.first_open(self.life_from);
        Ok(())
    }

    /// How often request `sequence` was processed in the lives that were taken over.
    pub(super) fn processed(&self, sequence: u64) -> u32 {
        self.processed[sequence as usize].into()
    }

    /// The counters of the lives that were taken over.
    pub(super) fn totals(&self) -> &BTreeMap<String, u64> {
        &self.past
    }

    async fn until_cut(&self) -> Result<(), Error> {
        let deadline = Instant::now() + GONE_WITHIN;
        while self.sim().ledger().streams_open > 0 {
            if Instant::now() > deadline {
                return Err(lab("restart the provider")("its streams do not end"));
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// Adds what a ledger counts; gauges are left out, peaks are kept.
fn add(totals: &mut BTreeMap<String, u64>, ledger: &Ledger) {
    // A ledger is a flat record of numbers.
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(ledger) else { return };
    for (name, value) in fields {
        let (Some(value), false) = (value.as_u64(), name.ends_with("_open")) else { continue };
        let total = totals.entry(name.clone()).or_default();
        *total = if name.starts_with("peak_") { value.max(*total) } else { *total + value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_over_lives_and_gauges_do_not() {
        let mut totals = BTreeMap::new();
        let life =
            |requests, peak_streams| Ledger { requests, peak_streams, streams_open: 7, ..Ledger::default() };
        add(&mut totals, &life(10, 5));
        add(&mut totals, &life(1, 3));
        assert_eq!((totals["requests"], totals["peak_streams"]), (11, 5));
        assert!(!totals.contains_key("streams_open"));
    }
}
