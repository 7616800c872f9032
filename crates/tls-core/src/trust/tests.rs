//! Which anchors a file yields, and every way in which it can be wrong.

use time::Duration;

use super::*;
use crate::testing::{Authority, HOST, NOW, pem};

fn trust(files: &[&str]) -> Result<Trust, TrustError> {
    let sources: Vec<_> =
        files.iter().enumerate().map(|(index, text)| pem(&format!("chain{index}.pem"), text)).collect();
    Trust::new(HOST, &sources, PinSet::default(), NOW)
}

fn subjects(trust: &Trust) -> Vec<&str> {
    trust.anchors().iter().map(AnchorInfo::subject).collect()
}

fn skipped(trust: &Trust) -> Vec<(&str, SkipReason)> {
    trust.skipped().iter().map(|skipped| (skipped.subject.as_str(), skipped.reason)).collect()
}

#[test]
fn s9_an_intermediate_alone_is_an_anchor() {
    let issuing = Authority::root("Root").subordinate("Issuing");
    let trust = trust(&[&issuing.pem]).unwrap();
    let [anchor] = trust.anchors() else { panic!("one anchor") };
    assert_eq!(anchor.subject(), "CN=Issuing");
    assert_eq!(anchor.label(), "chain0.pem");
    assert_eq!(anchor.fingerprint(), issuing.info().fingerprint());
    assert_eq!(anchor.spki(), issuing.pin());
    assert!(anchor.is_valid_at(NOW));
    assert_eq!(trust.webpki_anchors().len(), 1);
}

#[test]
fn from_a_chain_only_the_lowest_ca_is_taken() {
    let root = Authority::root("Root");
    let middle = root.subordinate("Middle");
    let issuing = middle.subordinate("Issuing");
    let leaf = issuing.leaf(HOST);
    let upwards = [&leaf.pem, &issuing.pem, &middle.pem, &root.pem].map(String::as_str);
    let mut downwards = upwards;
    downwards.reverse();
    for order in [upwards, downwards] {
        let trust = trust(&[&order.concat()]).unwrap();
        assert_eq!(subjects(&trust), ["CN=Issuing"]);
        let mut left_out = skipped(&trust);
        left_out.sort_by_key(|(subject, _)| *subject);
        assert_eq!(
            left_out,
            [
                ("CN=Middle", SkipReason::AboveLowest),
                ("CN=Root", SkipReason::AboveLowest),
                ("CN=tmg.sandbox.test", SkipReason::Leaf)
            ]
        );
    }
}

#[test]
fn a_root_is_taken_where_it_stands_alone_or_is_listed_as_a_file() {
    let root = Authority::root("Root");
    let issuing = root.subordinate("Issuing");
    assert_eq!(subjects(&trust(&[&root.pem]).unwrap()), ["CN=Root"]);
    let both = trust(&[&format!("{}{}", issuing.pem, root.pem), &root.pem]).unwrap();
    assert_eq!(subjects(&both), ["CN=Issuing", "CN=Root"]);
    assert_eq!(both.anchors()[1].label(), "chain1.pem");
}

#[test]
fn a_root_that_issued_the_leaf_itself_is_the_lowest_ca() {
    let root = Authority::root("Root");
    let leaf = root.leaf(HOST);
    let trust = trust(&[&format!("{}{}", leaf.pem, root.pem)]).unwrap();
    assert_eq!(subjects(&trust), ["CN=Root"]);
}

#[test]
fn a_bundle_of_roots_is_a_list_of_anchors() {
    let (one, two) = (Authority::root("One"), Authority::root("Two"));
    let trust = trust(&[&format!("{}{}", one.pem, two.pem)]).unwrap();
    assert_eq!(subjects(&trust), ["CN=One", "CN=Two"]);
}

#[test]
fn a_foreign_root_beside_an_intermediate_is_left_out() {
    let issuing = Authority::root("Root").subordinate("Issuing");
    let foreign = Authority::root("Foreign");
    let trust = trust(&[&format!("{}{}", issuing.pem, foreign.pem)]).unwrap();
    assert_eq!(subjects(&trust), ["CN=Issuing"]);
    assert_eq!(skipped(&trust), [("CN=Foreign", SkipReason::AboveLowest)]);
}

#[test]
fn with_a_leaf_in_the_file_only_its_issuer_is_taken() {
    let root = Authority::root("Root");
    let (issuing, sibling) = (root.subordinate("Issuing"), root.subordinate("Sibling"));
    let leaf = issuing.leaf(HOST);
    let trust = trust(&[&[leaf.pem.as_str(), &sibling.pem, &issuing.pem].concat()]).unwrap();
    assert_eq!(subjects(&trust), ["CN=Issuing"]);
    assert!(skipped(&trust).contains(&("CN=Sibling", SkipReason::NotIssuerOfLeaf)));
}

#[test]
fn the_same_anchor_in_two_files_counts_once() {
    let issuing = Authority::root("Root").subordinate("Issuing");
    let trust = trust(&[&issuing.pem, &issuing.pem]).unwrap();
    assert_eq!(trust.anchors().len(), 1);
    assert_eq!(trust.webpki_anchors().len(), 1);
}

#[test]
fn a_leaf_is_never_an_anchor() {
    let leaf = Authority::root("Root").leaf(HOST);
    let error = trust(&[&leaf.pem]).unwrap_err();
    assert!(matches!(&error, TrustError::OnlyLeaf { label, .. } if label == "chain0.pem"), "{error}");
    assert!(error.to_string().contains("no CA certificate"), "{error}");
}

#[test]
fn no_anchors_means_no_trust_at_all() {
    let error = trust(&[]).unwrap_err();
    assert_eq!(error, TrustError::EmptyAnchors);
    assert!(error.to_string().contains("TSH_TLS_SERVER_CERTIFICATE_CHAIN"), "{error}");
}

#[test]
fn an_empty_or_broken_file_is_named_even_beside_a_good_one() {
    let issuing = Authority::root("Root").subordinate("Issuing");
    let error = trust(&[&issuing.pem, "# nothing\n"]).unwrap_err();
    assert!(error.to_string().starts_with("chain1.pem: no certificate in this file"), "{error}");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = trust(&[&issuing.pem, broken]).unwrap_err();
    assert!(error.to_string().starts_with("chain1.pem: malformed certificate"), "{error}");
}

#[test]
fn an_expired_anchor_is_refused_with_its_date() {
    let expired = Authority::root_with("Old", |params| params.not_after = NOW - Duration::SECOND);
    let error = trust(&[&expired.pem]).unwrap_err();
    assert!(matches!(error, TrustError::AnchorExpired { .. }));
    assert!(error.to_string().contains("CN=Old expired on 2026-06-01T11:59:59Z"), "{error}");
    // At the very end it still counts.
    let ending = Authority::root_with("Ending", |params| params.not_after = NOW);
    assert!(trust(&[&ending.pem]).is_ok());
}

#[test]
fn an_anchor_of_the_future_is_refused_with_its_date() {
    let future = Authority::root_with("Next", |params| params.not_before = NOW + Duration::SECOND);
    let error = trust(&[&future.pem]).unwrap_err();
    assert!(matches!(error, TrustError::AnchorNotYetValid { .. }));
    assert!(error.to_string().contains("not valid before 2026-06-01T12:00:01Z"), "{error}");
}

#[test]
fn past_and_next_anchors_may_stand_beside_a_valid_one() {
    let past = Authority::root_with("Past", |params| params.not_after = NOW - Duration::DAY);
    let next = Authority::root_with("Next", |params| params.not_before = NOW + Duration::DAY);
    let current = Authority::root("Current");
    let trust = trust(&[&past.pem, &current.pem, &next.pem]).unwrap();
    let valid: Vec<_> = trust.anchors().iter().map(|anchor| anchor.is_valid_at(NOW)).collect();
    assert_eq!(valid, [false, true, false]);
}

#[test]
fn server_names_are_hosts_without_decoration() {
    let root = Authority::root("Root");
    let named = |name: &str| Trust::new(name, &[pem("r", &root.pem)], PinSet::default(), NOW);
    assert!(named("host.test").is_ok());
    assert!(named("127.0.0.1").is_ok());
    for bad in ["", "https://host.test", "host.test:443", "host.test/1/", "*.host.test", "ho st"] {
        let error = named(bad).unwrap_err();
        assert_eq!(error, TrustError::BadServerName { name: bad.into() });
    }
}

#[test]
fn trust_is_the_same_only_if_name_anchors_and_pins_are() {
    let (one, two) = (Authority::root("One"), Authority::root("Two"));
    let pins = || PinSet::from_iter([one.pin()]);
    let make =
        |name: &str, anchor: &Authority, pins| Trust::new(name, &[pem("r", &anchor.pem)], pins, NOW).unwrap();
    let base = make(HOST, &one, pins());
    assert!(base.is_same(&make(HOST, &one, pins())));
    assert!(!base.is_same(&make("other.test", &one, pins())));
    assert!(!base.is_same(&make(HOST, &two, pins())));
    assert!(!base.is_same(&make(HOST, &one, PinSet::default())));
}
