//! Who is let in, what the others see, and when.

use std::sync::Arc;

use provider_sim::{
    Behaviour, ClientAuth, ClientSpec, HttpVersions, KeyAlgorithm, KeyExchange, RefusalAlert, Resumption,
    TlsVersions, Validity,
};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion};
use tokio::io::AsyncReadExt as _;
use tokio_rustls::client::TlsStream;

use crate::support::{Client, World, config};

type Tls = TlsStream<tokio::net::TcpStream>;

fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

async fn alert_on_read(mut tls: Tls) -> Option<AlertDescription> {
    alert(&tls.read_u8().await.unwrap_err())
}

#[tokio::test]
async fn an_endorsed_leaf_is_let_in_and_h2_comes_first() {
    let world = World::new(Behaviour::default()).await;
    let tls = world.tls(world.config()).await.unwrap();
    let (_, session) = tls.get_ref();
    assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(session.peer_certificates().unwrap().len(), 2, "leaf and intermediate");
    Client::over(tls).await.unwrap();
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.handshakes_full, ledger.handshakes_refused, ledger.pings), (1, 0, 1));
}

#[tokio::test]
async fn in_tls13_a_stranger_finishes_its_handshake_and_reads_the_alert() {
    let world = World::new(Behaviour::default()).await;
    let stranger = world.pki.issue_client(ClientSpec::default()).unwrap();
    let tls = world.tls(config(&world.pki, &stranger, &[&TLS13])).await.expect("the client is not told yet");
    assert_eq!(alert_on_read(tls).await, Some(AlertDescription::CertificateUnknown));
    assert_eq!(world.simulator.ledger().handshakes_refused, 1);
}

#[tokio::test]
async fn in_tls12_a_stranger_is_refused_within_the_handshake() {
    let world = World::new(Behaviour::default()).await;
    let stranger = world.pki.issue_client(ClientSpec::default()).unwrap();
    let error = world.tls(config(&world.pki, &stranger, &[&TLS12])).await.unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::CertificateUnknown));
}

#[tokio::test]
async fn the_alert_tells_the_reason() {
    let world = World::new(Behaviour::default()).await;
    let cases = [
        (Validity::expired(), None, AlertDescription::CertificateExpired),
        (Validity::not_yet(), None, AlertDescription::CertificateExpired),
        (Validity::days(30), Some("CUSTOMER-0002-SBX"), AlertDescription::AccessDenied),
    ];
    for (validity, listed_name, expected) in cases {
        let client = world.pki.issue_client(ClientSpec::default().valid(validity)).unwrap();
        let mut entry = client.endorsed();
        entry.common_name = listed_name.map_or(entry.common_name, str::to_owned);
        world.simulator.endorse(entry).unwrap();
        let tls = world.tls(config(&world.pki, &client, &[&TLS13])).await.unwrap();
        assert_eq!(alert_on_read(tls).await, Some(expected), "{validity:?} {listed_name:?}");
    }
}

#[tokio::test]
async fn a_leaf_with_the_ca_flag_is_let_in_if_endorsed() {
    let world = World::new(Behaviour::default()).await;
    let spec = ClientSpec { is_ca: true, ..ClientSpec::default() };
    let client = world.pki.issue_client(spec).unwrap();
    world.simulator.endorse(client.endorsed()).unwrap();
    for version in [&TLS12, &TLS13] {
        Client::over(world.tls(config(&world.pki, &client, &[version])).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn every_key_type_of_the_rules_works_on_both_sides() {
    for key in [KeyAlgorithm::EcP256, KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048] {
        let options = provider_sim::PkiOptions { server_key: key, ..provider_sim::PkiOptions::default() };
        let world = World::new(Behaviour::default()).await;
        world.simulator.set_pki(Arc::new(provider_sim::Pki::generate(options).unwrap())).unwrap();
        let error = world.tls(world.config()).await.unwrap_err();
        assert!(error.to_string().contains("invalid peer certificate"), "the new PKI is used: {error}");

        let client = world.pki.issue_client(ClientSpec::default().keyed(key)).unwrap();
        world.simulator.set_pki(world.pki.clone()).unwrap();
        world.simulator.endorse(client.endorsed()).unwrap();
        for version in [&TLS12, &TLS13] {
            Client::over(world.tls(config(&world.pki, &client, &[version])).await.unwrap()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_rotated_leaf_keeps_the_anchors_and_changes_the_pin() {
    let world = World::new(Behaviour::default()).await;
    let rotated = Arc::new(world.pki.rotated().unwrap());
    assert_ne!(rotated.server_pin(), world.pki.server_pin());
    assert_eq!(rotated.intermediate_pin(), world.pki.intermediate_pin());
    world.simulator.set_pki(rotated.clone()).unwrap();
    let tls = world.tls(world.config()).await.unwrap();
    assert_eq!(&tls.get_ref().1.peer_certificates().unwrap()[0], rotated.server_certificate());
}

#[tokio::test]
async fn a_late_refusal_comes_with_the_alert_asked_for() {
    let cases = [
        (RefusalAlert::AccessDenied, AlertDescription::AccessDenied),
        (RefusalAlert::BadCertificate, AlertDescription::BadCertificate),
        (RefusalAlert::UnsupportedCertificate, AlertDescription::UnsupportedCertificate),
        (RefusalAlert::CertificateRevoked, AlertDescription::CertificateRevoked),
        (RefusalAlert::CertificateExpired, AlertDescription::CertificateExpired),
        (RefusalAlert::CertificateUnknown, AlertDescription::CertificateUnknown),
        (RefusalAlert::UnknownCa, AlertDescription::UnknownCA),
    ];
    let world = World::new(Behaviour::default()).await;
    for (refusal_alert, expected) in cases {
        let behaviour =
            Behaviour { client_auth: ClientAuth::RefuseLate, refusal_alert, ..Behaviour::default() };
        world.simulator.set_behaviour(behaviour).unwrap();
        let tls = world.tls(config(&world.pki, &world.client, &[&TLS13])).await.unwrap();
        assert_eq!(alert_on_read(tls).await, Some(expected));
        let error = world.tls(config(&world.pki, &world.client, &[&TLS12])).await.unwrap_err();
        assert_eq!(alert(&error), Some(expected));
    }
}

#[tokio::test]
async fn an_early_refusal_fails_the_handshake_in_both_versions() {
    let behaviour = Behaviour { client_auth: ClientAuth::RefuseEarly, ..Behaviour::default() };
    let world = World::new(behaviour).await;
    for version in [&TLS12, &TLS13] {
        let error = world.tls(config(&world.pki, &world.client, &[version])).await.unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::AccessDenied));
    }
    assert_eq!(world.simulator.ledger().handshakes_refused, 2);
}

#[tokio::test]
async fn a_refusal_by_http_completes_ping_and_answers_400_unprocessed() {
    let world = World::new(Behaviour { client_auth: ClientAuth::RefuseHttp, ..Behaviour::default() }).await;
    let stranger = world.pki.issue_client(ClientSpec::default()).unwrap();
    let tls = world.tls(config(&world.pki, &stranger, &[&TLS13])).await.unwrap();
    let client = Client::over(tls).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().head.status, 400);
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.requests, ledger.requests_refused), (0, 1));
}

#[tokio::test]
async fn as_many_tickets_come_as_asked_for() {
    for tickets in [0, 1, 2, 20] {
        let world = World::new(Behaviour { tickets, ..Behaviour::default() }).await;
        let mut tls = world.tls(world.config()).await.unwrap();
        // The server's SETTINGS follow its tickets.
        tls.read_u8().await.unwrap();
        assert_eq!(tls.get_ref().1.tls13_tickets_received(), tickets);
    }
}

async fn handshake_kind(world: &World, config: &rustls::ClientConfig) -> HandshakeKind {
    let mut tls = world.tls(config.clone()).await.unwrap();
    tls.read_u8().await.unwrap();
    tls.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test]
async fn a_ticket_resumes_in_both_versions() {
    for version in [&TLS12, &TLS13] {
        let world = World::new(Behaviour::default()).await;
        let config = config(&world.pki, &world.client, &[version]);
        assert_eq!(handshake_kind(&world, &config).await, HandshakeKind::Full);
        assert_eq!(handshake_kind(&world, &config).await, HandshakeKind::Resumed);
        let ledger = world.simulator.ledger();
        assert_eq!((ledger.handshakes_full, ledger.handshakes_resumed), (1, 1));
    }
}

#[tokio::test]
async fn a_server_that_refuses_resumption_gives_tickets_all_the_same() {
    let world = World::new(Behaviour { resumption: Resumption::Refuse, ..Behaviour::default() }).await;
    let config = world.config();
    let mut tls = world.tls(config.clone()).await.unwrap();
    tls.read_u8().await.unwrap();
    assert_eq!(tls.get_ref().1.tls13_tickets_received(), 2);
    assert_eq!(handshake_kind(&world, &config).await, HandshakeKind::Full);
}

#[tokio::test]
async fn a_ticket_outlives_a_change_of_behaviour_but_not_of_endorsement() {
    let world = World::new(Behaviour::default()).await;
    let config = world.config();
    assert_eq!(handshake_kind(&world, &config).await, HandshakeKind::Full);
    world.simulator.set_behaviour(Behaviour { tickets: 3, ..Behaviour::default() }).unwrap();
    assert_eq!(handshake_kind(&world, &config).await, HandshakeKind::Resumed);
    world.simulator.set_endorsed(Vec::new()).unwrap();
    let tls = world.tls(config).await.unwrap();
    assert_eq!(tls.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(alert_on_read(tls).await, Some(AlertDescription::CertificateUnknown));
}

#[tokio::test]
async fn versions_and_alpn_are_as_told() {
    let cases = [
        (TlsVersions::Tls12Only, HttpVersions::H2Only, ProtocolVersion::TLSv1_2, Some(b"h2".as_slice())),
        (
            TlsVersions::Tls13Only,
            HttpVersions::Http11Only,
            ProtocolVersion::TLSv1_3,
            Some(b"http/1.1".as_slice()),
        ),
        (TlsVersions::Both, HttpVersions::NoAlpn, ProtocolVersion::TLSv1_3, None),
    ];
    for (tls, http, version, alpn) in cases {
        let world = World::new(Behaviour { tls, http, ..Behaviour::default() }).await;
        let tls = world.tls(world.config()).await.unwrap();
        assert_eq!(tls.get_ref().1.protocol_version(), Some(version));
        assert_eq!(tls.get_ref().1.alpn_protocol(), alpn);
    }
}

#[tokio::test]
async fn key_exchange_is_as_told_and_changes_live() {
    let world = World::new(Behaviour::default()).await;
    let hybrid = async || {
        // Without tickets of before: what is resumed exchanges keys too, but may be told apart in no other way.
        world.simulator.forget_sessions().unwrap();
        let tls = world.tls(world.config()).await.unwrap();
        let group = tls.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        group == rustls::NamedGroup::X25519MLKEM768
    };
    let any = hybrid().await;
    let classical = Behaviour { key_exchange: KeyExchange::Classical, ..Behaviour::default() };
    world.simulator.set_behaviour(classical).unwrap();
    assert_eq!((any, hybrid().await), (true, false));
}

#[tokio::test]
async fn no_common_alpn_is_an_alert() {
    let world = World::new(Behaviour { http: HttpVersions::H2Only, ..Behaviour::default() }).await;
    let mut config = world.config();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let error = world.tls(config).await.unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::NoApplicationProtocol));
    assert_eq!(world.simulator.ledger().handshakes_failed, 1);
}
