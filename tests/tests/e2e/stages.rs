//! Several environments in one process: what belongs to one customer and stage is never used for another (S2, S3).

use std::collections::BTreeSet;

use provider_sim::ClientSpec;
use tsh_tests::{EnvironmentPlan, Load, Plan, Provider, Tally, eventually};

const ROUTES: &str = "[[routes]]\npath_prefix = \"/a\"\nenvironment = \"a\"\n\
                      [[routes]]\npath_prefix = \"/b\"\nenvironment = \"b\"\n";

fn connections(tally: &Tally) -> BTreeSet<String> {
    tally.0.iter().map(|(_, reply)| reply.header("sim-connection").to_owned()).collect()
}

/// A second customer's environment at the same provider.
fn second_customer(provider: &Provider) -> (EnvironmentPlan, provider_sim::ClientCredentials) {
    let other = provider.pki.issue_client(ClientSpec::named("CUSTOMER-0002-SBX")).unwrap();
    let mut plan = EnvironmentPlan::at("b", provider);
    plan.customer = "CUSTOMER-0002".into();
    plan.common_name.clone_from(&other.common_name);
    (plan.certificate, plan.key) = (other.certificate_pem.clone(), other.key_pem.clone());
    (plan, other)
}

#[tokio::test]
async fn two_customers_at_one_provider_never_share_a_connection() {
    let provider = Provider::start().await;
    let (b, other) = second_customer(&provider);
    provider.sim.endorse(other.endorsed()).unwrap();
    let lab = Plan::of(EnvironmentPlan::at("a", &provider)).and(b).routes(ROUTES).ready().await;
    let (load_a, load_b) = (Load::new("a", 4, 30).path("/a"), Load::new("b", 4, 30).path("/b"));
    let (a, b) = tokio::join!(load_a.run(&lab), load_b.run(&lab));
    a.assert_all_answered_once(&provider);
    b.assert_all_answered_once(&provider);
    assert!(connections(&a).is_disjoint(&connections(&b)), "{:?} {:?}", connections(&a), connections(&b));
    // Nor do they share tickets: each environment's first handshake is a full one.
    let ledger = provider.sim.ledger();
    assert!(ledger.handshakes_full >= 2 && ledger.handshakes_refused == 0, "{ledger:?}");
}

#[tokio::test]
async fn no_provider_ever_sees_the_other_identity() {
    // Each endorses its own customer alone: one wrong certificate would be counted as a refusal.
    let (one, two) = (Provider::start().await, Provider::start().await);
    let (mut b, other) = second_customer(&two);
    b.connect = two.sim.addr().to_string();
    two.sim.set_endorsed(vec![other.endorsed()]).unwrap();
    let lab = Plan::of(EnvironmentPlan::at("a", &one)).and(b).routes(ROUTES).ready().await;
    for round in 1..=3 {
        let (load_a, load_b) = (
            Load::new(&format!("a{round}"), 2, 20).path("/a"),
            Load::new(&format!("b{round}"), 2, 20).path("/b"),
        );
        let (a, b) = tokio::join!(load_a.run(&lab), load_b.run(&lab));
        a.assert_all_answered_once(&one);
        b.assert_all_answered_once(&two);
        // Resumed handshakes count too.
        one.sim.goaway_all();
        two.sim.goaway_all();
        eventually("both have successors", async || {
            let (a, b) = (lab.connections("a", "serving").await, lab.connections("b", "serving").await);
            (a >= 2 && b >= 2).then_some(())
        })
        .await;
    }
    for provider in [&one, &two] {
        let ledger = provider.sim.ledger();
        assert_eq!(
            (ledger.handshakes_refused, ledger.handshakes_failed, ledger.requests),
            (0, 0, 120),
            "{ledger:?}"
        );
        assert!(ledger.handshakes_resumed > 0);
    }
}

#[tokio::test]
async fn a_certificate_that_is_refused_in_one_stage_is_no_reason_for_the_other() {
    let (one, two) = (Provider::start().await, Provider::start().await);
    let (mut b, _) = second_customer(&two);
    b.connect = two.sim.addr().to_string();
    b.more = "required = false".into();
    let lab = Plan::of(EnvironmentPlan::at("a", &one)).and(b).routes(ROUTES).ready().await;
    lab.fails(lab.ask("POST", "/b"), "identity_refused", "yes").await;
    assert_eq!(lab.get("/a").await.status, 200);
    assert_eq!((one.sim.ledger().handshakes_refused, two.sim.ledger().requests), (0, 0));
}
