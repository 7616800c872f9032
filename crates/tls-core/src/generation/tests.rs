//! What is offered, what handshakes come to, and what is asserted after them.

use std::io;

use time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::pin::PinSet;
use crate::testing::{
    Authority, COMMON_NAME, Clients, HOST, Lab, NOW, ONLY_TLS12, ONLY_TLS13, RSA_1024, ServerOptions,
    client_certificate, connect, connect_halfway, pem, server,
};

const X25519MLKEM768: [u8; 2] = [0x11, 0xec];

/// The first flight of a new connection.
fn client_hello(generation: &Generation) -> Vec<u8> {
    let mut client =
        ClientConnection::new(generation.client_config().clone(), generation.server_name()).unwrap();
    let mut hello = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut hello).unwrap();
    }
    hello
}

/// The content of an extension in a ClientHello (RFC 8446 §4.1.2).
fn extension(hello: &[u8], wanted: u16) -> Option<Vec<u8>> {
    fn take<'a>(from: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (head, rest) = from.split_at(count);
        *from = rest;
        head
    }
    fn number(from: &mut &[u8], bytes: usize) -> usize {
        take(from, bytes).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }
    let mut rest = hello;
    take(&mut rest, 5 + 4 + 2 + 32); // record, handshake header, version, random
    for width in [1, 2, 1] {
        let length = number(&mut rest, width); // session id, suites, compression
        take(&mut rest, length);
    }
    let length = number(&mut rest, 2);
    let mut extensions = take(&mut rest, length);
    while !extensions.is_empty() {
        let id = number(&mut extensions, 2);
        let length = number(&mut extensions, 2);
        let content = take(&mut extensions, length);
        if id == usize::from(wanted) {
            return Some(content.to_vec());
        }
    }
    None
}

#[test]
fn s7_tls_1_3_and_1_2_are_offered_and_nothing_older() {
    let hello = client_hello(&Lab::new().generation());
    assert_eq!(extension(&hello, 43).unwrap(), [4, 3, 4, 3, 3]);
}

#[test]
fn the_hybrid_group_is_offered_first_with_its_key_share() {
    let hello = client_hello(&Lab::new().generation());
    let groups = extension(&hello, 10).unwrap();
    assert_eq!(groups, [0, 8, 0x11, 0xec, 0, 0x1d, 0, 0x17, 0, 0x18]);
    let shares = extension(&hello, 51).unwrap();
    assert_eq!(shares[2..4], X25519MLKEM768);
}

#[test]
fn the_list_of_groups_is_the_environments() {
    let lab = Lab::new();
    let options = TlsOptions { key_exchange: vec![KeyExchange::Secp384r1], ..TlsOptions::default() };
    let hello = client_hello(&lab.generation_with(lab.trust(PinSet::default()), options));
    assert_eq!(extension(&hello, 10).unwrap(), [0, 2, 0, 0x18]);
    assert_eq!(extension(&hello, 51).unwrap()[2..4], [0, 0x18]);
}

#[test]
fn h2_is_offered_before_http_1_1_and_the_name_is_sent() {
    let hello = client_hello(&Lab::new().generation());
    assert_eq!(extension(&hello, 16).unwrap(), b"\0\x0c\x02h2\x08http/1.1");
    let name = extension(&hello, 0).unwrap();
    assert!(name.ends_with(HOST.as_bytes()));
}

#[test]
fn early_data_is_never_offered_not_even_on_resumption() {
    let lab = Lab::new();
    let generation = lab.generation();
    connect(&generation, &lab.server()).facts(&generation).unwrap();
    assert_eq!(generation.tickets().stats().held, 2);
    let hello = client_hello(&generation);
    assert!(extension(&hello, 41).is_some(), "a ticket is offered");
    assert_eq!(extension(&hello, 42), None);
}

#[test]
fn defaults_of_the_library_that_this_crate_relies_on() {
    let config = Lab::new().generation().client_config().clone();
    assert!(config.enable_sni);
    assert!(config.check_selected_alpn);
    assert!(!config.enable_early_data);
    assert!(!config.enable_secret_extraction);
    assert!(config.send_ticket_request.is_none());
    assert!(config.cert_decompressors.is_empty());
    assert!(!config.key_log.will_log("CLIENT_TRAFFIC_SECRET_0"));
    assert_eq!(config.max_fragment_size, None);
}

#[test]
fn a_full_handshake_yields_its_facts() {
    let lab = Lab::new();
    let generation = lab.generation();
    let facts = connect(&generation, &lab.server()).facts(&generation).unwrap();
    assert_eq!(
        facts,
        HandshakeFacts {
            version: TlsVersion::Tls13,
            cipher_suite: "TLS13_AES_256_GCM_SHA384",
            key_exchange: Some("X25519MLKEM768"),
            kind: HandshakeKind::Full,
            alpn: Some(Alpn::H2),
            peer_chain: vec![lab.leaf.info().fingerprint(), lab.issuing.info().fingerprint()],
            peer_not_after: lab.leaf.info().not_after(),
            anchor: lab.issuing.info().fingerprint(),
            anchor_label: "chain.pem".into(),
            pin: None,
        }
    );
    let json = serde_json::to_value(&facts).unwrap();
    assert_eq!(json["version"], "1.3");
    assert_eq!(json["kind"], "full");
    assert_eq!(json["alpn"], "h2");
    assert_eq!(json["peer_not_after"], "2027-03-28T12:00:00Z");
}

#[test]
fn a_resumed_handshake_yields_the_same_chain_and_anchor() {
    let lab = Lab::new();
    for (versions, version) in [(ONLY_TLS13, TlsVersion::Tls13), (ONLY_TLS12, TlsVersion::Tls12)] {
        let server = lab.server_with(ServerOptions { versions, ..ServerOptions::default() });
        let generation = lab.generation();
        let full = connect(&generation, &server).facts(&generation).unwrap();
        let resumed = connect(&generation, &server).facts(&generation).unwrap();
        assert_eq!((full.version, full.kind), (version, HandshakeKind::Full));
        assert_eq!((resumed.version, resumed.kind), (version, HandshakeKind::Resumed));
        assert_eq!(
            (resumed.peer_chain, resumed.peer_not_after, resumed.anchor),
            (full.peer_chain, full.peer_not_after, full.anchor)
        );
        let has_group = version == TlsVersion::Tls13;
        assert_eq!(resumed.key_exchange.is_some(), has_group);
    }
}

#[test]
fn a_server_that_wants_another_group_costs_a_retry_once() {
    let lab = Lab::new();
    let server = lab.server_with(ServerOptions {
        key_exchange: vec![KeyExchange::Secp384r1],
        tickets: 0,
        ..ServerOptions::default()
    });
    let generation = lab.generation();
    let first = connect(&generation, &server).facts(&generation).unwrap();
    assert_eq!(first.kind, HandshakeKind::FullWithHelloRetryRequest);
    assert_eq!(first.key_exchange, Some("secp384r1"));
    // The store remembers the group, so the next dial sends the right share at once.
    let second = connect(&generation, &server).facts(&generation).unwrap();
    assert_eq!(second.kind, HandshakeKind::Full);
}

#[test]
fn http_1_1_and_no_alpn_at_all_are_told_apart() {
    let lab = Lab::new();
    let alpn = |alpn: Vec<Alpn>| {
        let generation = lab.generation();
        let server = lab.server_with(ServerOptions { alpn, ..ServerOptions::default() });
        connect(&generation, &server).facts(&generation).map(|facts| facts.alpn)
    };
    assert_eq!(alpn(vec![Alpn::Http11]), Ok(Some(Alpn::Http11)));
    assert_eq!(alpn(vec![]), Ok(None));
}

#[test]
fn a_server_with_no_common_application_protocol_is_named() {
    let lab = Lab::new();
    let options = TlsOptions { alpn: vec![Alpn::H2], ..TlsOptions::default() };
    let generation = lab.generation_with(lab.trust(PinSet::default()), options);
    let server = lab.server_with(ServerOptions { alpn: vec![Alpn::Http11], ..ServerOptions::default() });
    let fault = connect(&generation, &server).facts(&generation).unwrap_err();
    assert_eq!(fault, TlsFault::NoCommonAlpn);
}

#[test]
fn a_protocol_that_this_generation_did_not_offer_is_not_accepted() {
    let lab = Lab::new();
    let generation = lab.generation();
    let connection = connect(&generation, &lab.server());
    assert_eq!(connection.facts(&generation).unwrap().alpn, Some(Alpn::H2));
    let options = TlsOptions { alpn: vec![Alpn::Http11], ..TlsOptions::default() };
    let other = lab.generation_with(lab.trust(PinSet::default()), options);
    assert_eq!(other.assert_established(&connection.client), Err(TlsFault::NoCommonAlpn));
}

#[test]
fn pins_are_enforced_on_full_and_resumed_handshakes() {
    let lab = Lab::new();
    for versions in [ONLY_TLS13, ONLY_TLS12] {
        let server = lab.server_with(ServerOptions { versions, ..ServerOptions::default() });
        let pinned =
            lab.generation_with(lab.trust(PinSet::from_iter([lab.leaf.pin()])), TlsOptions::default());
        assert!(connect(&pinned, &server).facts(&pinned).is_ok());
        let resumed = connect(&pinned, &server);
        assert_eq!(resumed.facts(&pinned).unwrap().kind, HandshakeKind::Resumed);

        // The same connection, held against a generation that pins another key: the assertion does not rely
        // on what the handshake verified.
        let foreign = PinSet::from_iter([Authority::root("Foreign").pin()]);
        let other = lab.generation_with(lab.trust(foreign), TlsOptions::default());
        assert!(matches!(other.assert_established(&resumed.client), Err(TlsFault::PinMismatch { .. })));
        let refused = connect(&other, &server);
        assert!(matches!(refused.facts(&other), Err(TlsFault::PinMismatch { .. })));
    }
}

#[test]
fn a_pinned_certificate_appended_to_the_chain_does_not_count() {
    let lab = Lab::new();
    let pinned = Authority::root("Pinned");
    let mut chain = lab.chain();
    chain.push(pinned.der.clone());
    let server = server(&lab.leaf, chain, lab.clock.clone(), ServerOptions::default());
    let generation = lab.generation_with(lab.trust(PinSet::from_iter([pinned.pin()])), TlsOptions::default());
    let fault = connect(&generation, &server).facts(&generation).unwrap_err();
    assert!(matches!(fault, TlsFault::PinMismatch { .. }), "{fault}");
    assert_eq!(generation.tickets().stats().stored, 0);
}

#[test]
fn wrong_name_unknown_ca_and_expiry_fail_the_handshake() {
    let lab = Lab::new();
    let stranger = Authority::root("Stranger");
    let cases = [
        (lab.issuing.leaf("other.test"), "wrong_server_name"),
        (stranger.leaf(HOST), "unknown_ca"),
        (lab.issuing.leaf_with(HOST, |p| p.not_after = NOW - Duration::SECOND), "server_certificate_expired"),
        (
            lab.issuing.leaf_with(HOST, |p| p.not_before = NOW + Duration::SECOND),
            "server_certificate_not_yet_valid",
        ),
    ];
    for (leaf, code) in cases {
        for versions in [ONLY_TLS13, ONLY_TLS12] {
            let options = ServerOptions { versions, ..ServerOptions::default() };
            let server = server(&leaf, vec![leaf.der.clone()], lab.clock.clone(), options);
            let generation = lab.generation();
            let fault = connect(&generation, &server).facts(&generation).unwrap_err();
            assert_eq!(fault.code(), code);
            assert!(!fault.is_identity_fault());
        }
    }
}

#[test]
fn a_resumed_connection_whose_chain_expired_is_refused_and_its_tickets_thrown_away() {
    let lab = Lab::new();
    let (generation, server) = (lab.generation(), lab.server());
    connect(&generation, &server).facts(&generation).unwrap();
    let resumed = connect(&generation, &server);
    assert_eq!(resumed.facts(&generation).unwrap().kind, HandshakeKind::Resumed);
    lab.clock.set(lab.leaf.info().not_after() + Duration::SECOND);
    assert_eq!(generation.assert_established(&resumed.client), Err(TlsFault::ServerCertificateExpired));
    assert_eq!(generation.tickets().stats().held, 0);
}

#[test]
fn a_failed_assertion_throws_all_tickets_away() {
    let lab = Lab::new();
    let (generation, server) = (lab.generation(), lab.server());
    connect(&generation, &server).facts(&generation).unwrap();
    let resumed = connect(&generation, &server);
    // A generation with tickets that it would not accept: cannot come about, which is what the check is for.
    let foreign = PinSet::from_iter([Authority::root("Foreign").pin()]);
    let other = lab.generation_with(lab.trust(foreign), TlsOptions::default());
    let name = other.server_name();
    other.tickets().note_full_handshake(NOW, NOW + Duration::DAY);
    let ticket = generation.tickets().take_tls13_ticket(&name).unwrap();
    other.tickets().insert_tls13_ticket(name, ticket);
    assert_eq!(other.tickets().stats().held, 1);
    assert!(other.assert_established(&resumed.client).is_err());
    assert_eq!(other.tickets().stats().held, 0);
}

#[test]
fn a_refused_certificate_is_an_identity_fault_early_and_late() {
    let lab = Lab::new();
    let refusing =
        |versions| ServerOptions { versions, clients: Clients::Refused, ..ServerOptions::default() };

    // TLS 1.2: the alert comes before the handshake is complete.
    let generation = lab.generation();
    let early = connect_halfway(&generation, &lab.server_with(refusing(ONLY_TLS12)));
    assert!(early.client.is_handshaking());
    assert!(early.facts(&generation).unwrap_err().is_identity_fault());

    // TLS 1.3: the handshake is complete for us, and then comes the alert.
    let mut late = connect_halfway(&generation, &lab.server_with(refusing(ONLY_TLS13)));
    assert!(!late.client.is_handshaking());
    assert_eq!(late.facts(&generation).unwrap().kind, HandshakeKind::Full);
    late.settle();
    assert_eq!(late.facts(&generation), Err(TlsFault::IdentityRefused { alert: "unknown_ca" }));
}

#[test]
fn the_certificate_is_presented_whatever_cas_the_server_names() {
    let lab = Lab::new();
    let generation = lab.generation();
    let resolver = &generation.client_config().client_auth_cert_resolver;
    assert!(resolver.has_certs());
    let presented = resolver.resolve(&[b"another CA"], &[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    assert_eq!(presented.cert, lab.identity.chain());
}

#[test]
fn s7_a_server_that_answers_with_tls_1_1_is_refused() {
    let generation = Lab::new().generation();
    let mut client =
        ClientConnection::new(generation.client_config().clone(), generation.server_name()).unwrap();
    let mut sink = Vec::new();
    client.write_tls(&mut sink).unwrap();
    // A ServerHello of TLS 1.1: version 3.2, random, no session id, a suite, no compression.
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0xc0, 0x2f, 0]);
    let mut flight = vec![22, 3, 2, 0, body.len() as u8 + 4, 2, 0, 0, body.len() as u8];
    flight.extend(body);
    client.read_tls(&mut flight.as_slice()).unwrap();
    let error = client.process_new_packets().unwrap_err();
    assert_eq!(TlsFault::from_rustls(&error), TlsFault::NoCommonVersion);
}

#[test]
fn a_server_that_does_not_speak_tls_is_a_protocol_fault() {
    let generation = Lab::new().generation();
    let mut client =
        ClientConnection::new(generation.client_config().clone(), generation.server_name()).unwrap();
    client.read_tls(&mut b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice()).unwrap();
    let error = client.process_new_packets().unwrap_err();
    assert_eq!(TlsFault::from_rustls(&error).code(), "tls_protocol_error");
}

#[test]
fn an_unfinished_handshake_is_not_established() {
    let lab = Lab::new();
    let generation = lab.generation();
    let client = ClientConnection::new(generation.client_config().clone(), generation.server_name()).unwrap();
    connect(&generation, &lab.server()).facts(&generation).unwrap();
    assert!(matches!(generation.assert_established(&client), Err(TlsFault::Protocol { .. })));
    assert_eq!(generation.tickets().stats().held, 2, "which says nothing about the tickets");
    let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::HandshakeNotComplete);
    assert_eq!(TlsFault::from_io(&error).unwrap().code(), "tls_protocol_error");
}

#[test]
fn the_same_material_needs_no_new_generation() {
    let lab = Lab::new();
    let generation = lab.generation();
    let (trust, options) = (lab.trust(PinSet::default()), TlsOptions::default());
    assert!(generation.is_same_material(&lab.identity, &trust, &options));

    let pinned = lab.trust(PinSet::from_iter([lab.leaf.pin()]));
    assert!(!generation.is_same_material(&lab.identity, &pinned, &options));
    let root = lab.trust_in(&[pem("root.pem", &lab.root.pem)], PinSet::default());
    assert!(!generation.is_same_material(&lab.identity, &root, &options));
    let fewer = TlsOptions { alpn: vec![Alpn::H2], ..TlsOptions::default() };
    assert!(!generation.is_same_material(&lab.identity, &trust, &fewer));
    let client = client_certificate(COMMON_NAME);
    let renewed = Identity::from_pem(&pem("c", &client.pem), &pem("k", client.key_pem())).unwrap();
    assert!(!generation.is_same_material(&renewed, &trust, &options));
}

#[test]
fn a_key_that_cannot_sign_is_refused_here() {
    let lab = Lab::new();
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let weak = Identity::from_pem(&pem("c", RSA_1024), &pem("k", key)).unwrap();
    let error = Generation::build(1, weak, lab.trust(PinSet::default()), TlsOptions::default()).unwrap_err();
    assert_eq!(error, GenerationError::UnusableKey { kind: "RSA 1024".into() });
}

#[test]
fn options_that_could_never_connect_are_refused() {
    let lab = Lab::new();
    let build = |key_exchange: Vec<KeyExchange>| {
        let options = TlsOptions { key_exchange, ..TlsOptions::default() };
        Generation::build(1, lab.identity.clone(), lab.trust(PinSet::default()), options).map(|_| ())
    };
    assert_eq!(build(vec![]), Err(GenerationError::NoKeyExchange));
    assert_eq!(build(vec![KeyExchange::X25519]), Ok(()));
    // The hybrid exists in TLS 1.3 only; a provider that speaks 1.2 would be lost.
    assert_eq!(build(vec![KeyExchange::X25519MlKem768]), Err(GenerationError::NoGroupForTls12));
}

#[test]
fn debug_shows_who_and_whom_and_no_secret() {
    let lab = Lab::new();
    let client = client_certificate(COMMON_NAME);
    let key = client.key_pem();
    let identity = Identity::from_pem(&pem("c", &client.pem), &pem("k", &key)).unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let trust = lab.trust(PinSet::default());
    let generation = Generation::build_with_clock(7, identity, trust, TlsOptions::default(), clock).unwrap();
    connect(&generation, &lab.server()).facts(&generation).unwrap();
    let shown = format!("{generation:?}");
    for expected in ["serial: 7", COMMON_NAME, HOST, "held: 2"] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!shown.contains(line));
    }
}
