//! The seed's points, each where it can be seen from outside. Points that are decided before anything is dialled
//! (S11, S12, S13, S14, S20 and on) have their finer tests beside the configuration and in tls-core; S15, S16, S18
//! and S19 are about calls from Thales, which this version does not carry and says so.

use provider_sim::{Behaviour, ClientAuth, ClientSpec, KeyAlgorithm, Pki, PkiOptions, TlsVersions, Validity};
use tsh_tests::{EnvironmentPlan, Load, Plan, Provider, eventually, tls};

/// The file is refused with a finding of this code.
fn unsound(plan: &Plan, source: &str) -> String {
    let errors = plan.load().expect_err("the file must be refused");
    let finding = errors.findings.iter().find(|f| f.source.is_some_and(|s| s.contains(source)));
    finding.unwrap_or_else(|| panic!("no finding names {source}: {errors}")).to_string()
}

async fn made(spec: ClientSpec, behaviour: Behaviour) -> Provider {
    Provider::made(PkiOptions::default(), spec, behaviour).await
}

#[tokio::test]
async fn s01_all_traffic_is_mutual_tls() {
    let provider = Provider::start().await;
    let plain = Plan::at(&provider).with(|e| e.endpoint = "http://tsh.test/".into());
    assert!(plain.load().is_err(), "no plain endpoint");
    // Every connection showed a certificate that the provider looked at.
    let lab = Plan::at(&provider).ready().await;
    assert_eq!(lab.get("/").await.status, 200);
    let ledger = provider.sim.ledger();
    assert_eq!(ledger.handshakes_full + ledger.handshakes_resumed, ledger.connections_accepted);
}

#[tokio::test]
async fn s02_and_s03_every_pool_belongs_to_one_customer_and_environment() {
    let provider = Provider::start().await;
    let mut production = EnvironmentPlan::at("production", &provider);
    let client = provider.pki.issue_client(ClientSpec::named("CUSTOMER-0001-PRD")).unwrap();
    provider.sim.endorse(client.endorsed()).unwrap();
    production.stage = "production";
    production.common_name.clone_from(&client.common_name);
    (production.certificate, production.key) = (client.certificate_pem.clone(), client.key_pem.clone());
    let lab = Plan::at(&provider).and(production).ready().await;
    let pools = lab.admin_get("/api/v1/pools").await.json()["pools"].clone();
    assert_eq!(pools.as_array().unwrap().len(), 2);
    for (n, name) in ["sandbox", "production"].iter().enumerate() {
        assert_eq!(
            (&pools[n]["environment"], &pools[n]["customer"]),
            (&(*name).into(), &"CUSTOMER-0001".into())
        );
        assert_eq!(pools[n]["totals"]["handshakes_full"], 2, "no ticket of the other environment was used");
    }
}

#[tokio::test]
async fn s04_no_request_byte_before_the_proof() {
    // TLS 1.3 lets the handshake succeed although the server is about to refuse our certificate.
    let behaviour = Behaviour {
        client_auth: ClientAuth::RefuseLate,
        tls: TlsVersions::Tls13Only,
        ..Behaviour::default()
    };
    let provider = made(ClientSpec::default(), behaviour).await;
    let lab = Plan::at(&provider).start().await;
    let tally = Load::new("s4", 4, 10).run(&lab).await;
    assert!(tally.0.iter().all(|(_, reply)| reply.header("gw-error") == "identity_refused"), "{tally:?}");
    let ledger = provider.sim.ledger();
    assert_eq!(
        (ledger.requests, ledger.requests_refused, ledger.body_bytes_received),
        (0, 0, 0),
        "{ledger:?}"
    );
}

#[tokio::test]
async fn s05_and_s06_keys_and_names_never_cross_stages() {
    let provider = Provider::start().await;
    let mut production = EnvironmentPlan::at("production", &provider);
    production.stage = "production";
    let text = unsound(&Plan::at(&provider).and(production), "S6");
    assert!(text.contains("production") && text.contains("sandbox") && text.contains("remedy"), "{text}");
}

#[tokio::test]
async fn s07_tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    for tls in [TlsVersions::Tls12Only, TlsVersions::Tls13Only] {
        let provider = made(ClientSpec::default(), Behaviour { tls, ..Behaviour::default() }).await;
        let lab = Plan::at(&provider).ready().await;
        assert_eq!(lab.get("/").await.status, 200, "{tls:?}");
        let version = lab.pool("sandbox").await["connections"][0]["handshake"]["version"].clone();
        assert_eq!(version, if tls == TlsVersions::Tls12Only { "1.2" } else { "1.3" });
    }
    let provider = Provider::start().await;
    let older = Plan::at(&provider).section("[environments.sandbox.tls]\nmin_version = \"1.1\"\n");
    assert!(older.load().is_err(), "no key lowers the version");
}

#[tokio::test]
async fn s08_and_s17_being_near_is_no_reason_for_trust() {
    // Loopback, the right name, the right port; the wrong authority.
    let provider = Provider::start().await;
    let other =
        Pki::generate(PkiOptions { hosts: vec!["tsh.test".into()], ..PkiOptions::default() }).unwrap();
    let address = tls::server(&other.server_chain_pem(), &other.server_key_pem(), &["h2"]).await;
    let plan = Plan::at(&provider).with(|e| {
        e.connect = address.to_string();
        e.pins = vec![provider.pki.server_pin()];
    });
    let lab = plan.start().await;
    let reply = lab.get("/").await;
    assert_eq!(reply.status, 503);
    assert!(["unknown_ca", "server_certificate_invalid"].contains(&reply.header("gw-error")), "{reply:?}");
    for key in ["insecure", "trusted_addresses", "verify", "allow_ips"] {
        let plan = Plan::at(&provider).with(|e| e.more = format!("{key} = true"));
        assert!(plan.load().is_err(), "{key}");
    }
}

#[tokio::test]
async fn s09_the_intermediate_alone_is_the_anchor() {
    let provider = Provider::start().await;
    // A chain file with leaf, intermediate and root: the lowest CA counts, and it is named in the evidence.
    let chain = format!("{}{}", provider.pki.server_chain_pem(), provider.pki.root_pem());
    let lab = Plan::at(&provider).with(|e| e.anchors = chain).ready().await;
    assert_eq!(lab.get("/").await.status, 200);
    let handshake = lab.pool("sandbox").await["connections"][0]["handshake"].clone();
    assert!(
        handshake["anchor_label"].as_str().unwrap().contains("TSH_TLS_SERVER_CERTIFICATE_CHAIN"),
        "{handshake}"
    );
    assert_eq!(handshake["anchor"], handshake["peer_chain"][1], "the intermediate, not the root");
    // The provider's leaf may change under it.
    let rotated = std::sync::Arc::new(provider.pki.rotated().unwrap());
    let options = provider_sim::SimulatorOptions {
        endorsed: vec![provider.client.endorsed()],
        ..provider_sim::SimulatorOptions::new(rotated)
    };
    let sim = provider_sim::Simulator::start(options).await.unwrap();
    let lab = Plan::at(&provider).with(|e| e.connect = sim.addr().to_string()).ready().await;
    assert_eq!(lab.get("/").await.status, 200);
}

#[tokio::test]
async fn s10_a_certificate_works_once_it_is_endorsed() {
    let provider = Provider::start().await;
    provider.sim.set_endorsed(Vec::new()).unwrap();
    let pause = std::time::Duration::from_millis(200);
    let plan = Plan::at(&provider).edit(move |c| c.environments[0].pool.identity_fault_pause = pause);
    let lab = plan.start().await;
    lab.fails(lab.ask("GET", "/"), "identity_refused", "yes").await;
    provider.sim.endorse(provider.client.endorsed()).unwrap();
    lab.until_ready().await;
    assert_eq!(lab.get("/").await.status, 200);
    // What openssl makes by default is CA:TRUE; endorsed, it is as good.
    let spec = ClientSpec { is_ca: true, ..ClientSpec::default() };
    let provider = made(spec, Behaviour::default()).await;
    assert_eq!(Plan::at(&provider).ready().await.get("/").await.status, 200);
}

#[tokio::test]
async fn s10_connections_that_serve_outlive_a_withdrawn_endorsement() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    provider.sim.set_endorsed(Vec::new()).unwrap();
    assert_eq!(lab.get("/").await.status, 200);
    provider.sim.kill_connections();
    eventually("the refusal is known", async || {
        (lab.get("/").await.header("gw-error") == "identity_refused").then_some(())
    })
    .await;
}

#[tokio::test]
async fn s11_no_more_than_two_years() {
    let spec = ClientSpec::default().valid(Validity::days(740));
    let provider = made(spec, Behaviour::default()).await;
    let text = unsound(&Plan::at(&provider), "S11");
    assert!(text.contains("CUSTOMER_TLS_CLIENT_CERTIFICATE.pem"), "{text}");
}

#[tokio::test]
async fn s12_the_allowed_keys_work_and_others_are_refused() {
    for key in [KeyAlgorithm::EcP256, KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048] {
        for tls in [TlsVersions::Tls12Only, TlsVersions::Tls13Only] {
            let provider =
                made(ClientSpec::default().keyed(key), Behaviour { tls, ..Behaviour::default() }).await;
            let lab = Plan::at(&provider).ready().await;
            assert_eq!(lab.get("/").await.status, 200, "{key:?} {tls:?}");
        }
    }
    for key in [KeyAlgorithm::EcP521, KeyAlgorithm::Ed25519] {
        let provider = made(ClientSpec::default().keyed(key), Behaviour::default()).await;
        unsound(&Plan::at(&provider), "S12");
    }
}

#[tokio::test]
async fn s14_the_common_name_is_exactly_the_portal_s() {
    for name in ["customer-0001-sbx", "CUSTOMER-0001-SBX ", "CUSTOMER-0001"] {
        let provider = made(ClientSpec::named(name), Behaviour::default()).await;
        let plan = Plan::at(&provider).with(|e| e.common_name = "CUSTOMER-0001-SBX".into());
        let text = unsound(&plan, "S14");
        assert!(text.contains("CUSTOMER-0001-SBX"), "{text}");
    }
}

#[tokio::test]
async fn s16_calls_from_thales_are_not_carried_yet_and_the_file_says_so() {
    let provider = Provider::start().await;
    let errors =
        Plan::at(&provider).section("[ingress.main]\nlisten = \"127.0.0.1:0\"\n").load().unwrap_err();
    assert!(errors.to_string().contains("not carried yet"), "{errors}");
}
