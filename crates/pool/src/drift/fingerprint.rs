//! What one connection shows of its provider.

use std::time::Duration;

use tls_core::{Alpn, HandshakeFacts};

use super::{DriftField, DriftValue, field::REFUSED};
use crate::{
    connection::Announced,
    passport::{Prefix, RemoteAddress},
};

/// Some of a provider's traits, as seen at one moment. A field that is not named says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fingerprint(Vec<(DriftField, DriftValue)>);

/// How a provider ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// Without a word.
    Close,
    /// `connection: close` with its last response (RFC 9112 §9.6).
    LastResponse,
    /// One GOAWAY (RFC 9113 §6.8).
    GoAway,
    /// A GOAWAY that announced another one.
    GoAwayTwice,
}

/// Certificates beyond the first two that are compared one by one; of more only the number is.
const CHAIN: usize = 6;

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
            self.set(DriftField::Chain, chain(facts.peer_chain.get(2..).unwrap_or_default()));
            self.set(DriftField::Anchor, DriftValue::Text(facts.anchor.to_string()));
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
    pub(crate) fn with_farewell(mut self, goodbye: Goodbye) -> Self {
        let word = match goodbye {
            Goodbye::Close => "close",
            Goodbye::LastResponse => "connection: close",
            Goodbye::GoAway => "goaway",
            Goodbye::GoAwayTwice => "goaway twice",
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

/// The rest of a chain, bounded.
fn chain(rest: &[tls_core::Fingerprint]) -> DriftValue {
    let mut words: Vec<_> = rest.iter().take(CHAIN).map(|f| Prefix::of(f).to_string()).collect();
    if rest.len() > CHAIN {
        words.push(format!("and {} more", rest.len() - CHAIN));
    }
    if words.is_empty() { DriftValue::Absent } else { DriftValue::Text(words.join(" ")) }
}

#[cfg(test)]
mod tests {
    use tls_core::{Fingerprint as Certificate, HandshakeKind};

    use super::*;
    use crate::testing::facts;

    fn seen(facts: &HandshakeFacts, field: DriftField) -> Option<DriftValue> {
        let fingerprint = Fingerprint::default().with_handshake(facts);
        fingerprint.values().iter().find(|(named, _)| *named == field).map(|(_, value)| value.clone())
    }

    fn sends(certificates: usize) -> HandshakeFacts {
        let peer_chain = (0..certificates).map(|n| Certificate::of(&[n as u8])).collect();
        HandshakeFacts { peer_chain, ..facts() }
    }

    #[test]
    fn every_certificate_of_the_chain_and_the_anchor_are_compared() {
        for changed in 0..8 {
            let (before, mut after) = (sends(8), sends(8));
            after.peer_chain[changed] = Certificate::of(b"another");
            let fields = [DriftField::Leaf, DriftField::Issuer, DriftField::Chain];
            let differ = fields.map(|field| seen(&before, field) != seen(&after, field));
            assert_eq!(differ, [changed == 0, changed == 1, changed > 1], "certificate {changed}");
        }
        let moved = HandshakeFacts { anchor: Certificate::of(b"another"), ..facts() };
        assert_ne!(seen(&facts(), DriftField::Anchor), seen(&moved, DriftField::Anchor));
    }

    #[test]
    fn a_long_chain_is_told_in_a_bounded_text_and_a_short_one_as_absent() {
        assert_eq!(seen(&sends(2), DriftField::Chain), Some(DriftValue::Absent));
        let Some(DriftValue::Text(text)) = seen(&sends(100), DriftField::Chain) else { panic!("it is told") };
        assert!(text.ends_with(" and 92 more") && text.len() < 128, "{text}");
    }

    #[test]
    fn a_resumed_handshake_says_nothing_of_certificates() {
        let resumed = HandshakeFacts { kind: HandshakeKind::Resumed, ..sends(3) };
        let fields = [DriftField::Leaf, DriftField::Issuer, DriftField::Chain, DriftField::Anchor];
        assert_eq!(fields.map(|field| seen(&resumed, field)), [const { None }; 4]);
    }
}
