//! What one connection shows of its provider.

use std::time::Duration;

use tls_core::{Alpn, HandshakeFacts};

use super::{DriftField, DriftValue, field::REFUSED};
use crate::{connection::Announced, passport::RemoteAddress};

/// Some of a provider's traits, as seen at one moment. A field that is not named says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fingerprint(Vec<(DriftField, DriftValue)>);

/// Tickets after a handshake are told apart up to two; three means more.
const MANY_TICKETS: u32 = 3;

impl Fingerprint {
    /// Names a field.
    pub(crate) fn set(&mut self, field: DriftField, value: DriftValue) {
        self.0.push((field, value));
    }

    pub(super) fn values(&self) -> &[(DriftField, DriftValue)] {
        &self.0
    }

    /// What the handshake showed.
    pub(crate) fn with_handshake(mut self, facts: &HandshakeFacts) -> Self {
        let text = |text: &str| DriftValue::Text(text.to_owned());
        let certificate = |place: usize| {
            facts.peer_chain.get(place).map_or(DriftValue::Absent, |f| DriftValue::Text(f.to_string()))
        };
        self.set(DriftField::TlsVersion, text(facts.version.as_str()));
        self.set(DriftField::CipherSuite, text(facts.cipher_suite));
        let alpn = match facts.alpn {
            Some(Alpn::H2) => text("h2"),
            Some(Alpn::Http11) => text("http/1.1"),
            None => DriftValue::Absent,
        };
        self.set(DriftField::Alpn, alpn);
        // On a resumed handshake the chain is the one kept with the session, and TLS 1.2 has no group.
        if !facts.kind.is_resumed() {
            self.set(DriftField::KeyExchange, facts.key_exchange.map_or(DriftValue::Absent, text));
            self.set(DriftField::Leaf, certificate(0));
            self.set(DriftField::Issuer, certificate(1));
        }
        self
    }

    /// The tickets that followed a full handshake.
    pub(crate) fn with_tickets(mut self, tickets: u32) -> Self {
        self.set(DriftField::Tickets, DriftValue::Number(tickets.min(MANY_TICKETS).into()));
        self
    }

    /// Whether a ticket that was certainly offered was accepted.
    pub(crate) fn with_resumption(mut self, accepted: bool) -> Self {
        let word = if accepted { "accepted" } else { REFUSED };
        self.set(DriftField::Resumption, DriftValue::Text(word.to_owned()));
        self
    }

    /// The SETTINGS announced.
    pub(crate) fn with_settings(mut self, settings: &Announced) -> Self {
        self.set(DriftField::MaxConcurrentStreams, settings.max_concurrent_streams.into());
        self.set(DriftField::InitialWindowSize, settings.initial_window_size.into());
        self.set(DriftField::MaxFrameSize, settings.max_frame_size.into());
        self.set(DriftField::MaxHeaderListSize, settings.max_header_list_size.into());
        self.set(DriftField::HeaderTableSize, settings.header_table_size.into());
        let others: Vec<_> =
            settings.others.iter().flatten().map(|s| format!("{:#x}={}", s.id, s.value)).collect();
        let others = if others.is_empty() { DriftValue::Absent } else { DriftValue::Text(others.join(" ")) };
        self.set(DriftField::OtherSettings, others);
        self
    }

    /// Where it was. The port is ours to choose.
    pub(crate) fn with_address(mut self, address: RemoteAddress) -> Self {
        self.set(DriftField::Address, DriftValue::Text(address.ip.to_string()));
        self
    }

    /// How it ended the connection.
    pub(crate) fn with_farewell(mut self, goaways: u32) -> Self {
        let word = match goaways {
            0 => "close",
            1 => "goaway",
            _ => "goaway twice",
        };
        self.set(DriftField::Farewell, DriftValue::Text(word.to_owned()));
        self
    }

    /// The limits that it enforces without saying so, as learned.
    pub(crate) fn with_limits(
        mut self,
        requests: Option<u64>,
        age: Option<Duration>,
        idle: Option<Duration>,
    ) -> Self {
        let time = |time: Option<Duration>| time.map_or(DriftValue::Absent, DriftValue::Time);
        self.set(DriftField::EnforcedRequests, requests.map_or(DriftValue::Absent, DriftValue::Number));
        self.set(DriftField::EnforcedAge, time(age));
        self.set(DriftField::EnforcedIdle, time(idle));
        self
    }
}
