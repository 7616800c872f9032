//! Does to provider and gateway what the weather says, one fault after the other, and puts things right again
//! after each.

use std::{sync::Arc, time::Duration};

use provider_sim::{Behaviour, ClientSpec, GoAwayForm, HttpVersions, Pings, ResetRule, Target};
use serde::Serialize;
use tls_core::{Generation, Identity, PemSource};
use tokio::time::{Instant, sleep};

use super::{
    away::Absence,
    stage::Stage,
    weather::{Fault, Weather},
};
use crate::{
    error::Error,
    lab::{COMMON_NAME, Lab, lab},
};

/// A fault that was done.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Done {
    /// When, in seconds since the start.
    pub at: f64,
    /// What.
    pub fault: Fault,
}

/// Plays the weather.
pub(super) struct Director<'a> {
    lab: &'a Lab,
    stage: &'a mut Stage,
    absence: Arc<Absence>,
    calm: Behaviour,
    /// Serial of the active generation.
    serial: u64,
    /// What has been done so far.
    pub(super) done: Vec<Done>,
}

impl<'a> Director<'a> {
    /// A director of this provider; its behaviour now is what it goes back to.
    pub(super) fn new(lab: &'a Lab, stage: &'a mut Stage, absence: Arc<Absence>) -> Self {
        let calm = stage.sim().behaviour();
        let serial = lab.status().generation;
        Self { lab, stage, absence, calm, serial, done: Vec::new() }
    }

    /// Plays until `end`; a fault that has begun is brought to its end.
    ///
    /// # Errors
    /// When the provider or the gateway cannot be told something.
    pub(super) async fn play(
        &mut self,
        mut weather: Weather,
        start: Instant,
        end: Instant,
    ) -> Result<(), Error> {
        tokio::time::sleep_until(start).await;
        loop {
            let (pause, fault) = weather.next();
            if Instant::now() + pause >= end {
                return Ok(());
            }
            sleep(pause).await;
            self.done.push(Done { at: start.elapsed().as_secs_f64(), fault: fault.clone() });
            self.perform(fault).await?;
        }
    }

    async fn perform(&mut self, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::GoAway { form } => self.goaway(form).await,
            Fault::Cadence { requests, lasts } => {
                self.spell(lasts, |behaviour| behaviour.goaway_after_requests = Some(requests)).await
            }
            Fault::Refusals { every, lasts } => {
                self.spell(lasts, |behaviour| behaviour.refuse_every = Some(every)).await
            }
            Fault::Resets { every, at, reason, lasts } => {
                let rule = ResetRule { every_nth: every, reason, at };
                self.spell(lasts, |behaviour| behaviour.reset = Some(rule)).await
            }
            Fault::StreamLimit { streams, lasts } => {
                self.spell(lasts, |behaviour| behaviour.max_concurrent_streams = Some(streams)).await
            }
            Fault::Latency { by, lasts } => {
                let late = |behaviour: &mut Behaviour| {
                    behaviour.latency = by;
                    behaviour.latency_jitter = by;
                };
                self.spell(lasts, late).await
            }
            Fault::One { form } => {
                // None is open only in the moment after another fault.
                let _told = self.stage.sim().end(Target::Random, form);
                Ok(())
            }
            Fault::Kill => {
                self.absence.shakes(Instant::now());
                self.stage.sim().kill_connections();
                Ok(())
            }
            Fault::Restart { away } => {
                self.absence.begins();
                let restarted = self.stage.restart(away).await;
                self.absence.ends(Instant::now());
                restarted
            }
            Fault::Silence { lasts } => {
                self.silence(lasts).await;
                Ok(())
            }
            Fault::BlackHole { lasts } => {
                self.absence.begins();
                let swallowed = self.stage.swallow_all(lasts).await;
                self.absence.ends(Instant::now());
                swallowed
            }
            Fault::PingsIgnored { lasts } => {
                self.spell(lasts, |behaviour| behaviour.pings = Pings::Ignore).await
            }
            fault @ Fault::Http11 { .. } => self.http11(fault).await,
            Fault::NameMoves => {
                self.stage.move_name();
                Ok(())
            }
            Fault::ClientCertificate => self.client_certificate(),
            Fault::ServerCertificate => self.stage.rotate(),
        }
    }

    /// GOAWAY of this form on every connection.
    async fn goaway(&mut self, form: GoAwayForm) -> Result<(), Error> {
        self.behave(|behaviour| behaviour.goaway_form = form)?;
        self.absence.shakes(Instant::now());
        self.stage.sim().goaway_all();
        // Connections read the form when they hear of it.
        sleep(HEARD).await;
        self.behave(|_| {})
    }

    /// The eldest connection is a black hole for a while, and is then reset.
    async fn silence(&mut self, lasts: Duration) {
        // The eldest stays the eldest while it is silent, so that it is found again.
        let _told = self.stage.sim().end(Target::Oldest, GoAwayForm::BlackHole);
        sleep(lasts).await;
        let _told = self.stage.sim().end(Target::Oldest, GoAwayForm::Reset);
    }

    /// HTTP/1.1 alone for a while, with faults of its own; see [`Fault::Http11`].
    async fn http11(&mut self, fault: Fault) -> Result<(), Error> {
        let Fault::Http11 { form, requests, close, lasts } = fault else { return Ok(()) };
        self.behave(|behaviour| behaviour.http = HttpVersions::Http11Only)?;
        self.absence.shakes(Instant::now());
        self.stage.sim().goaway_all();
        sleep(lasts / 3).await;
        let _told = self.stage.sim().end(Target::Random, form);
        self.client_certificate()?;
        sleep(lasts / 3).await;
        self.behave(|behaviour| {
            behaviour.http = HttpVersions::Http11Only;
            behaviour.http1_close = close;
            behaviour.goaway_after_requests = Some(requests);
        })?;
        sleep(lasts / 3).await;
        self.behave(|_| {})?;
        self.absence.shakes(Instant::now());
        self.stage.sim().goaway_all();
        Ok(())
    }

    /// Endorsed first, used next: no moment without a certificate that the provider lets in.
    fn client_certificate(&mut self) -> Result<(), Error> {
        let spec = ClientSpec::named(COMMON_NAME);
        let client = self.stage.pki().issue_client(spec).map_err(lab("make a client certificate"))?;
        self.stage.endorse(client.endorsed())?;
        let certificate = PemSource::from_bytes("new certificate", client.certificate_pem.into_bytes());
        let key = PemSource::from_bytes("new key", client.key_pem.into_bytes());
        let identity = Identity::from_pem(&certificate, &key).map_err(lab("read a client certificate"))?;
        let environment = self.lab.environment();
        // The environment serves, so its credentials are sound.
        let credentials = environment.credentials.as_ref().expect("sound credentials");
        self.serial += 1;
        let generation =
            Generation::build(self.serial, identity, credentials.trust.clone(), environment.tls.clone())
                .map_err(lab("build a generation"))?;
        self.lab.pool().activate(generation);
        Ok(())
    }

    /// Behaves otherwise for a while.
    async fn spell(&self, lasts: Duration, change: impl FnOnce(&mut Behaviour)) -> Result<(), Error> {
        self.behave(change)?;
        sleep(lasts).await;
        self.behave(|_| {})
    }

    /// The calm behaviour, but for this change.
    fn behave(&self, change: impl FnOnce(&mut Behaviour)) -> Result<(), Error> {
        let mut behaviour = self.calm.clone();
        change(&mut behaviour);
        self.stage.behave(behaviour)
    }
}

/// Until every connection of the provider has heard of a GOAWAY and done it, its round trip included.
const HEARD: Duration = Duration::from_millis(200);
