//! The provider and the product's own TLS meet: what one issues and sends, the other reads and judges.

use std::sync::Arc;

use provider_sim::{
    Behaviour, ClientAuth, ClientSpec, ExtendedKeyUsage, KeyAlgorithm, Pki, SignatureLabel, Validity,
};
use time::OffsetDateTime;
use tls_core::{
    CertificateInfo, Generation, Identity, PemSource, PinSet, Regime, TlsFault, TlsOptions, Trust,
    lint_identity,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::World;

fn pem(label: &str, text: String) -> PemSource {
    PemSource::from_bytes(label, text.into_bytes())
}

fn generation(world: &World, pki: &Pki, pins: &[String]) -> Arc<Generation> {
    let certificate = pem("client.pem", world.client.certificate_pem.clone());
    let identity =
        Identity::from_pem(&certificate, &pem("client.key", world.client.key_pem.clone())).unwrap();
    let pins: PinSet = pins.iter().map(|pin| pin.parse().unwrap()).collect();
    let anchors = [pem("anchors.pem", pki.anchors_pem())];
    let trust = Trust::new("localhost", &anchors, pins, OffsetDateTime::now_utc()).unwrap();
    Generation::build(1, identity, trust, TlsOptions::default()).unwrap()
}

async fn connect(world: &World, generation: &Generation) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(world.simulator.addr()).await?;
    TlsConnector::from(generation.client_config().clone()).connect(generation.server_name(), tcp).await
}

#[tokio::test]
async fn a_pinned_generation_connects_fully_and_then_resumes() {
    let world = World::new(Behaviour::default()).await;
    for pin in [world.pki.server_pin(), world.pki.intermediate_pin()] {
        let generation = generation(&world, &world.pki, &[pin]);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut tls = connect(&world, &generation).await.unwrap();
            let facts = generation.assert_established(tls.get_ref().1).unwrap();
            kinds.push(facts.kind.is_resumed());
            // The server's SETTINGS follow its tickets.
            tls.read_u8().await.unwrap();
        }
        assert_eq!(kinds, [false, true]);
    }
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.handshakes_full, ledger.handshakes_resumed), (2, 2));
}

#[tokio::test]
async fn a_rotated_server_leaf_fails_its_old_pin() {
    let world = World::new(Behaviour::default()).await;
    let generation = generation(&world, &world.pki, &[world.pki.server_pin()]);
    world.simulator.set_pki(Arc::new(world.pki.rotated().unwrap())).unwrap();
    let error = connect(&world, &generation).await.unwrap_err();
    assert!(matches!(TlsFault::from_io(&error), Some(TlsFault::PinMismatch { .. })), "{error}");
    // The client's alert reaches the server after its own last flight.
    while world.simulator.ledger().handshakes_failed == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn late_and_early_refusals_are_faults_of_the_identity() {
    let world = World::new(Behaviour { client_auth: ClientAuth::RefuseLate, ..Behaviour::default() }).await;
    let generation = generation(&world, &world.pki, &[]);
    let mut tls = connect(&world, &generation).await.expect("TLS 1.3 tells the client later");
    let error = tls.read_u8().await.unwrap_err();
    assert!(TlsFault::from_io(&error).unwrap().is_identity_fault(), "{error}");

    let early = Behaviour { client_auth: ClientAuth::RefuseEarly, ..Behaviour::default() };
    world.simulator.set_behaviour(early).unwrap();
    let error = connect(&world, &generation).await.unwrap_err();
    assert!(TlsFault::from_io(&error).unwrap().is_identity_fault(), "{error}");
}

#[test]
fn the_default_client_passes_the_linter_and_each_wrong_one_is_found() {
    let pki = Pki::generate(provider_sim::PkiOptions::default()).unwrap();
    let sha1 = SignatureLabel::Sha1;
    let cases = [
        (ClientSpec::default(), None),
        (ClientSpec::default().keyed(KeyAlgorithm::EcP384), None),
        (ClientSpec::default().valid(Validity::expired()), Some("certificate_expired")),
        (ClientSpec::default().valid(Validity::not_yet()), Some("certificate_not_yet_valid")),
        (ClientSpec::default().valid(Validity::days(1000)), Some("validity_too_long")),
        (ClientSpec::default().keyed(KeyAlgorithm::Rsa4096), Some("key_type_not_allowed")),
        (ClientSpec::default().keyed(KeyAlgorithm::EcP521), Some("key_type_not_allowed")),
        (ClientSpec::named("CUSTOMER-0002-SBX"), Some("wrong_common_name")),
        (ClientSpec { is_ca: true, ..ClientSpec::default() }, Some("ca_flag_set")),
        (ClientSpec { eku: ExtendedKeyUsage::Absent, ..ClientSpec::default() }, Some("no_client_auth_eku")),
        (
            ClientSpec { signature: sha1, ..ClientSpec::default().keyed(KeyAlgorithm::Rsa2048) },
            Some("signature_hash_not_allowed"),
        ),
    ];
    for (spec, expected) in cases {
        let client = pki.issue_client(spec.clone()).unwrap();
        let info = CertificateInfo::from_pem(&pem("client.pem", client.certificate_pem.clone())).unwrap();
        let now = OffsetDateTime::now_utc();
        let found = lint_identity(Regime::Tsh.rules(), &info, "CUSTOMER-0001-SBX", now);
        let codes: Vec<_> = found.iter().map(|finding| finding.code).collect();
        match expected {
            None => assert!(codes.is_empty(), "{spec:?}: {codes:?}"),
            Some(code) => assert!(codes.contains(&code), "{spec:?}: {codes:?}"),
        }
        assert_eq!(info.spki().to_string(), client.pin());
    }
}
