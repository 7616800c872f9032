//! Nothing is sent to a server that is not verified and pinned. Every case here is on loopback: no address is
//! trusted for being near.

use provider_sim::{ClientSpec, Pki, PkiOptions, Validity};
use tsh_tests::{Plan, Provider, caller::ask, full, tls};

/// The plan's server is refused with `code`, and has not seen one byte of a request.
async fn refused(plan: Plan, code: &str, provider: &Provider) {
    let lab = plan.start().await;
    let reply = lab.fails(lab.ask("POST", "/secret"), code, "yes").await;
    assert!(!reply.json()["detail"].as_str().unwrap().is_empty());
    lab.fails(lab.ask("GET", "/secret"), code, "yes").await;
    let metrics = lab.metrics().await;
    assert!(metrics.count("tsh_handshakes_total", &[("result", code)]) > 0);
    assert_eq!(metrics.count("tsh_handshakes_total", &[("result", "ok")]), 0);
    let ledger = provider.sim.ledger();
    assert_eq!((ledger.requests, ledger.handshakes_full), (0, 0), "{ledger:?}");
}

async fn with_pki(options: PkiOptions) -> Provider {
    Provider::made(options, ClientSpec::default(), Default::default()).await
}

#[tokio::test]
async fn a_server_of_another_name() {
    let provider = Provider::start().await;
    let plan = Plan::at(&provider).with(|e| e.endpoint = "https://other.test/".into());
    refused(plan, "wrong_server_name", &provider).await;
}

#[tokio::test]
async fn a_server_of_an_unknown_authority() {
    let provider = Provider::start().await;
    let plan = Plan::at(&provider).with(|e| e.anchors = foreign_authority());
    refused(plan, "unknown_ca", &provider).await;
}

#[tokio::test]
async fn a_server_of_a_namesake_of_our_authority() {
    let provider = Provider::start().await;
    // The same names, other keys: what an anchor file from before a re-keying looks like.
    let other = Pki::generate(PkiOptions::default()).unwrap();
    refused(Plan::at(&provider).with(|e| e.anchors = other.anchors_pem()), "unknown_ca", &provider).await;
}

/// A CA that has nothing to do with the provider.
fn foreign_authority() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Another Authority");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

#[tokio::test]
async fn a_server_whose_key_is_not_pinned() {
    let provider = Provider::start().await;
    let other = Pki::generate(PkiOptions::default()).unwrap();
    refused(Plan::at(&provider).with(|e| e.pins = vec![other.server_pin()]), "pin_mismatch", &provider).await;
}

#[tokio::test]
async fn a_pinned_certificate_appended_to_a_chain_that_does_not_use_it() {
    let provider = Provider::start().await;
    let pinned = Pki::generate(PkiOptions::default()).unwrap();
    let address = tls::server_with_stray_certificate(&provider.pki, &pinned).await;
    for pin in [pinned.server_pin(), pinned.intermediate_pin()] {
        let plan = Plan::at(&provider).with(|e| {
            e.connect = address.to_string();
            e.pins = vec![pin];
        });
        refused(plan, "pin_mismatch", &provider).await;
    }
}

#[tokio::test]
async fn any_pin_on_the_verified_path_is_enough() {
    let provider = Provider::start().await;
    let other = Pki::generate(PkiOptions::default()).unwrap();
    for pin in [provider.pki.server_pin(), provider.pki.intermediate_pin()] {
        let lab = Plan::at(&provider).with(|e| e.pins = vec![other.server_pin(), pin]).ready().await;
        assert_eq!(lab.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn a_server_certificate_out_of_its_time() {
    let provider =
        with_pki(PkiOptions { server_validity: Validity::expired(), ..PkiOptions::default() }).await;
    refused(Plan::at(&provider), "server_certificate_expired", &provider).await;
    let provider =
        with_pki(PkiOptions { server_validity: Validity::not_yet(), ..PkiOptions::default() }).await;
    refused(Plan::at(&provider), "server_certificate_not_yet_valid", &provider).await;
}

#[tokio::test]
async fn an_anchor_out_of_its_time_quarantines_its_environment() {
    for (validity, code) in
        [(Validity::expired(), "anchor_expired"), (Validity::not_yet(), "anchor_not_yet_valid")]
    {
        let provider =
            with_pki(PkiOptions { intermediate_validity: validity, ..PkiOptions::default() }).await;
        let lab = Plan::at(&provider).start().await;
        let request = ask("POST", "/", "anchor-1").body(full("x")).unwrap();
        lab.fails(request, code, "yes").await;
        assert_eq!(provider.sim.ledger().connections_accepted, 0, "{code}");
    }
}

#[tokio::test]
async fn our_own_certificate_out_of_its_time_quarantines_its_environment() {
    for (validity, code) in
        [(Validity::expired(), "certificate_expired"), (Validity::not_yet(), "certificate_not_yet_valid")]
    {
        let spec = ClientSpec::default().valid(validity);
        let provider = Provider::made(PkiOptions::default(), spec, Default::default()).await;
        let lab = Plan::at(&provider).start().await;
        let request = ask("POST", "/", "own-1").body(full("x")).unwrap();
        lab.fails(request, code, "yes").await;
        let metrics = lab.metrics().await;
        assert_eq!(metrics.sum("tsh_quarantined", &[("environment", "sandbox")]), 1.0);
        assert_eq!(provider.sim.ledger().connections_accepted, 0);
        assert_eq!(lab.admin_get("/readyz").await.json()["reasons"][0]["code"], code);
    }
}

#[tokio::test]
async fn pins_hold_on_resumed_handshakes_too() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).with(|e| e.pins = vec![provider.pki.server_pin()]).ready().await;
    for n in 1..=4 {
        provider.sim.goaway_all();
        tsh_tests::eventually("successors serve", async || {
            (lab.total("sandbox", "connections").await >= 2 + n * 2
                && lab.connections("sandbox", "serving").await >= 2)
                .then_some(())
        })
        .await;
    }
    assert!(provider.sim.ledger().handshakes_resumed > 0);
    assert_eq!(lab.get("/").await.status, 200);
    let mismatches = lab.metrics().await.count("tsh_handshakes_total", &[("result", "pin_mismatch")]);
    assert_eq!(mismatches, 0);
}
