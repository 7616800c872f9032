//! Owns what others may ask of a running server. It does not own how it is done, nor what happens on a
//! connection.

mod shared;

pub(crate) use shared::{Live, Shared};

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use crate::behaviour::{Behaviour, GoAwayForm};
use crate::customer::{IngressCall, IngressError};
use crate::door::{AddressLedger, Listening};
use crate::ledger::{Account, Ledger};
use crate::registry::Target;
use crate::script::{Playing, Rotation, Script};
use crate::tls::{Endorsed, Sessions};
use crate::{Pki, SimError, customer, script};

/// What [`Simulator::start`] needs.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// Where to listen. Default `127.0.0.1:0`: loopback, a free port.
    pub listen: SocketAddr,
    /// Further addresses to listen on, with the same port, such as 127.0.0.2 and 127.0.0.3. Default: none.
    pub also_listen: Vec<IpAddr>,
    /// The server's certificates.
    pub pki: Arc<Pki>,
    /// The client certificates that are let in. Default: none.
    pub endorsed: Vec<Endorsed>,
    /// How to behave. Default: [`Behaviour::default`].
    pub behaviour: Behaviour,
    /// Makes jitter, spikes and random targets repeatable. Default 0.
    pub seed: u64,
}

impl SimulatorOptions {
    /// The defaults with these certificates.
    pub fn new(pki: Arc<Pki>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            also_listen: Vec::new(),
            pki,
            endorsed: Vec::new(),
            behaviour: Behaviour::default(),
            seed: 0,
        }
    }
}

/// A running provider. Dropping it stops it without waiting; [`stop`](Self::stop) waits.
pub struct Simulator {
    shared: Arc<Shared>,
}

impl Simulator {
    /// Listens and serves on the current tokio runtime.
    ///
    /// # Errors
    /// [`SimError::Listen`] if the address is taken, [`SimError::Tls`] if the server's key cannot sign,
    /// [`SimError::Behaviour`] if a value is out of range.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO and time enabled.
    pub async fn start(options: SimulatorOptions) -> Result<Self, SimError> {
        options.behaviour.validate()?;
        Ok(Self { shared: Shared::start(options)? })
    }

    /// Where it listens; with several addresses the first.
    pub fn addr(&self) -> SocketAddr {
        self.shared.doors()[0].addr
    }

    /// All addresses that it listens on, in the order of [`SimulatorOptions`]. The port is the same.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.shared.doors().iter().map(|door| door.addr).collect()
    }

    /// The behaviour now.
    pub fn behaviour(&self) -> Behaviour {
        self.shared.live.borrow().behaviour.clone()
    }

    /// Replaces the behaviour. What applies to whom is said at [`Behaviour`].
    ///
    /// # Errors
    /// [`SimError::Behaviour`] if a value is out of range; nothing has changed then.
    pub fn set_behaviour(&self, behaviour: Behaviour) -> Result<(), SimError> {
        behaviour.validate()?;
        self.shared.change(|live| live.behaviour = behaviour)
    }

    /// Endorses one more client certificate. Open connections and tickets stay.
    ///
    /// # Errors
    /// [`SimError::Tls`], which a running server has already proven not to happen.
    pub fn endorse(&self, endorsed: Endorsed) -> Result<(), SimError> {
        self.shared.change(|live| Arc::make_mut(&mut live.endorsed).push(endorsed))
    }

    /// Replaces the list of endorsed client certificates. Tickets of before are worth nothing any more; open
    /// connections stay, as they do at the provider.
    ///
    /// # Errors
    /// As [`endorse`](Self::endorse).
    pub fn set_endorsed(&self, endorsed: Vec<Endorsed>) -> Result<(), SimError> {
        self.shared.change(|live| {
            live.endorsed = Arc::new(endorsed);
            live.sessions = Sessions::new();
        })
    }

    /// Serves new connections with other certificates: the provider's own rotation. Tickets of before are worth
    /// nothing any more.
    ///
    /// # Errors
    /// [`SimError::Tls`] if the new server key cannot sign.
    pub fn set_pki(&self, pki: Arc<Pki>) -> Result<(), SimError> {
        self.shared.change(|live| {
            live.pki = pki;
            live.sessions = Sessions::new();
        })
    }

    /// Forgets all sessions: the next handshakes are full.
    ///
    /// # Errors
    /// As [`endorse`](Self::endorse).
    pub fn forget_sessions(&self) -> Result<(), SimError> {
        self.shared.forget_sessions()
    }

    /// Replaces the server's certificate by a newly made one, for new connections, and returns the new PKI.
    /// Tickets of before are worth nothing any more. Makes keys, which takes a while with RSA: not for a worker
    /// that carries requests.
    ///
    /// # Errors
    /// [`SimError::Issue`], which the present certificate has already proven not to happen.
    pub fn rotate_certificate(&self, rotation: Rotation) -> Result<Arc<Pki>, SimError> {
        self.shared.rotate(rotation)
    }

    /// The certificates now.
    pub fn pki(&self) -> Arc<Pki> {
        self.shared.live.borrow().pki.clone()
    }

    /// Plays a script from its beginning, beside whatever else is asked of the simulator.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn play(&self, script: &Script) -> Playing {
        script::play(self.shared.clone(), script)
    }

    /// Calls a customer's ingress, as the provider does: TLS with the client certificate of the present
    /// [`Pki`] ([`Pki::outgoing_client`]), one request on a connection of its own, the whole response. No
    /// session is resumed, so that each call is judged anew. Behaviour and scripts do not touch it.
    ///
    /// # Errors
    /// [`IngressError`]; a status such as 403 is a response and no error.
    ///
    /// # Cancel safety
    /// Dropping the future breaks the connection off; the customer may have processed the request.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO and time enabled.
    pub async fn call_customer(&self, call: IngressCall) -> Result<Response<Bytes>, IngressError> {
        customer::call(&self.pki(), &self.shared.books, call).await
    }

    /// The books now.
    pub fn ledger(&self) -> Ledger {
        self.shared.books.snapshot()
    }

    /// What one address has seen; nothing for an address that it does not listen on.
    pub fn address_ledger(&self, address: IpAddr) -> AddressLedger {
        self.shared.door(address).map(|door| door.ledger()).unwrap_or_default()
    }

    /// How often a request with this `x-correlation-id` was processed. The last million ids are remembered.
    pub fn seen(&self, correlation_id: &str) -> u32 {
        self.account(correlation_id).processed
    }

    /// How often a request with this `x-correlation-id` arrived, and how often it was processed. One that was
    /// refused, ignored or disowned by GOAWAY arrived, and was not processed. The last million ids are
    /// remembered, in at most 32 MiB.
    pub fn account(&self, correlation_id: &str) -> Account {
        self.shared.books.account(correlation_id)
    }

    /// Correlation ids that were processed more than once, sorted; at most 10,000.
    pub fn duplicated(&self) -> Vec<String> {
        self.shared.books.duplicated()
    }

    /// Resets every open TCP connection, handshakes too. The listener stays.
    pub fn kill_connections(&self) {
        self.end(Target::All, GoAwayForm::Reset);
    }

    /// Sends GOAWAY on every open HTTP/2 connection, in the form that the behaviour says; HTTP/1.1 connections
    /// end after the response at hand.
    pub fn goaway_all(&self) {
        self.end(Target::All, self.behaviour().goaway_form);
    }

    /// Ends connections in this form, with the code and debug data of the behaviour. Returns how many were
    /// told. The forms without GOAWAY reach handshakes too, and connections that are ending already.
    pub fn end(&self, target: Target, form: GoAwayForm) -> usize {
        self.shared.end(target, form)
    }

    /// Accepts, or not, or refuses new connections, at all addresses. Open ones stay. Takes effect before it
    /// returns; the port stays reserved while connections are refused.
    ///
    /// # Errors
    /// [`SimError::Listen`] if the port cannot be listened on again.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO enabled.
    pub fn set_listening(&self, listening: Listening) -> Result<(), SimError> {
        self.shared.set_listening(None, listening)
    }

    /// The same at one address. Does nothing for an address that it does not listen on.
    ///
    /// # Errors
    /// As [`set_listening`](Self::set_listening).
    ///
    /// # Panics
    /// As [`set_listening`](Self::set_listening).
    pub fn set_listening_at(&self, address: IpAddr, listening: Listening) -> Result<(), SimError> {
        self.shared.set_listening(Some(address), listening)
    }

    /// What becomes of new connections now, at the first address.
    pub fn listening(&self) -> Listening {
        self.shared.doors()[0].listening()
    }

    /// Goes away and comes back on the same port: refuses new connections, resets all open ones, waits, and
    /// accepts again with empty session memory, as a new process would.
    ///
    /// # Errors
    /// As [`set_listening`](Self::set_listening).
    ///
    /// # Cancel safety
    /// Dropping the future leaves it away.
    pub async fn restart(&self, down: Duration) -> Result<(), SimError> {
        self.shared.restart(down).await
    }

    /// Closes the listener and all connections, and waits until they are gone. The address is free afterwards.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the server stopping.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("addr", &self.addr())
            .field("ledger", &self.ledger())
            .finish_non_exhaustive()
    }
}
