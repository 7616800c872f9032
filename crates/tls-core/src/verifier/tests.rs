//! Path, pins, anchors and names, on chains good and crafted.

use rustls::pki_types::CertificateDer;
use time::Duration;

use super::*;
use crate::fault::TlsFault;
use crate::pin::PinSet;
use crate::provider::{KeyExchange, crypto_provider};
use crate::testing::{Authority, HOST, Lab, NOW, pem};

fn verify(trust: &Trust, chain: &[CertificateDer<'static>]) -> Result<VerifiedChain, TlsFault> {
    let verifier = ServerVerifier::new(trust.clone(), &crypto_provider(&KeyExchange::ALL));
    verifier.verify_chain(&chain[0], &chain[1..], NOW).map_err(|error| TlsFault::from_rustls(&error))
}

#[test]
fn s9_a_chain_ends_in_an_intermediate_anchor() {
    let lab = Lab::new();
    let verified = verify(&lab.trust(PinSet::default()), &lab.chain()).unwrap();
    assert_eq!((verified.anchor, verified.pin), (0, None));
    assert_eq!(verified.leaf_not_after, lab.leaf.info().not_after());
    assert_eq!(verified.presented, [lab.leaf.info().fingerprint(), lab.issuing.info().fingerprint()]);
}

#[test]
fn the_server_may_leave_the_anchor_out() {
    let lab = Lab::new();
    assert!(verify(&lab.trust(PinSet::default()), std::slice::from_ref(&lab.leaf.der)).is_ok());
}

#[test]
fn every_key_on_the_path_satisfies_a_pin() {
    let lab = Lab::new();
    let root_file = [pem("root.pem", &lab.root.pem)];
    for pin in [lab.leaf.pin(), lab.issuing.pin(), lab.root.pin()] {
        let trust = lab.trust_in(&root_file, PinSet::from_iter([pin]));
        assert_eq!(verify(&trust, &lab.chain()).unwrap().pin, Some(pin));
    }
}

#[test]
fn a_pin_that_no_key_on_the_path_has_is_a_mismatch_that_shows_the_path() {
    let lab = Lab::new();
    let foreign = Authority::root("Foreign").pin();
    let fault = verify(&lab.trust(PinSet::from_iter([foreign])), &lab.chain()).unwrap_err();
    assert_eq!(fault, TlsFault::PinMismatch { presented: vec![lab.leaf.pin(), lab.issuing.pin()] });
}

#[test]
fn a_pinned_certificate_that_is_only_appended_does_not_count() {
    let lab = Lab::new();
    let pinned = Authority::root("Pinned");
    let mut chain = lab.chain();
    chain.push(pinned.der.clone());
    let fault = verify(&lab.trust(PinSet::from_iter([pinned.pin()])), &chain).unwrap_err();
    assert!(matches!(fault, TlsFault::PinMismatch { .. }), "{fault}");
}

#[test]
fn a_pinned_key_above_the_anchor_does_not_count() {
    // The path ends in the intermediate; that the root stands above it was not verified.
    let lab = Lab::new();
    let mut chain = lab.chain();
    chain.push(lab.root.der.clone());
    let fault = verify(&lab.trust(PinSet::from_iter([lab.root.pin()])), &chain).unwrap_err();
    assert!(matches!(fault, TlsFault::PinMismatch { .. }), "{fault}");
}

#[test]
fn of_two_paths_the_pinned_one_is_found() {
    // One key certified by two CAs, both trusted; only the second is pinned.
    let (one, two) = (Authority::root("CA"), Authority::root("CA"));
    let leaf = two.leaf(HOST);
    let lab = Lab::new();
    let files = [pem("one.pem", &one.pem), pem("two.pem", &two.pem)];
    let trust = lab.trust_in(&files, PinSet::from_iter([two.pin()]));
    let verified = verify(&trust, std::slice::from_ref(&leaf.der)).unwrap();
    assert_eq!(trust.anchors()[verified.anchor].label(), "two.pem");
}

#[test]
fn an_unknown_ca_is_refused() {
    let lab = Lab::new();
    let stranger = Authority::root("Stranger");
    let leaf = stranger.leaf(HOST);
    let chain = [leaf.der.clone(), stranger.der.clone()];
    assert_eq!(verify(&lab.trust(PinSet::default()), &chain), Err(TlsFault::UnknownCa));
}

#[test]
fn a_ca_of_the_same_name_with_another_key_is_refused() {
    let lab = Lab::new();
    let double = lab.root.subordinate("Test Issuing CA");
    let leaf = double.leaf(HOST);
    let fault = verify(&lab.trust(PinSet::default()), std::slice::from_ref(&leaf.der)).unwrap_err();
    assert!(matches!(fault, TlsFault::UnknownCa | TlsFault::ServerCertificateInvalid { .. }), "{fault:?}");
}

#[test]
fn a_wrong_name_is_told_with_the_names_presented() {
    let lab = Lab::new();
    let leaf = lab.issuing.leaf("other.test");
    let fault = verify(&lab.trust(PinSet::default()), std::slice::from_ref(&leaf.der)).unwrap_err();
    assert_eq!(fault, TlsFault::WrongServerName { presented: vec!["other.test".into()] });
}

#[test]
fn a_wrong_name_is_told_before_a_wrong_pin() {
    let lab = Lab::new();
    let leaf = lab.issuing.leaf("other.test");
    let foreign = Authority::root("Foreign").pin();
    let fault =
        verify(&lab.trust(PinSet::from_iter([foreign])), std::slice::from_ref(&leaf.der)).unwrap_err();
    assert!(matches!(fault, TlsFault::WrongServerName { .. }), "{fault}");
}

#[test]
fn the_common_name_is_not_a_server_name() {
    let lab = Lab::new();
    let leaf = lab.issuing.leaf_with(HOST, |params| params.subject_alt_names.clear());
    let fault = verify(&lab.trust(PinSet::default()), std::slice::from_ref(&leaf.der)).unwrap_err();
    assert_eq!(fault, TlsFault::WrongServerName { presented: vec![] });
}

#[test]
fn dates_of_the_leaf_are_enforced() {
    let lab = Lab::new();
    let trust = lab.trust(PinSet::default());
    let expired = lab.issuing.leaf_with(HOST, |params| params.not_after = NOW - Duration::SECOND);
    assert_eq!(verify(&trust, std::slice::from_ref(&expired.der)), Err(TlsFault::ServerCertificateExpired));
    let early = lab.issuing.leaf_with(HOST, |params| params.not_before = NOW + Duration::SECOND);
    assert_eq!(verify(&trust, std::slice::from_ref(&early.der)), Err(TlsFault::ServerCertificateNotYetValid));
}

#[test]
fn an_anchor_that_expired_since_it_was_loaded_is_refused() {
    let lab = Lab::new();
    let short = lab.root.subordinate_with("Short", |params| params.not_after = NOW + Duration::HOUR);
    let leaf = short.leaf(HOST);
    let trust = lab.trust_in(&[pem("short.pem", &short.pem)], PinSet::default());
    let verifier = ServerVerifier::new(trust, &crypto_provider(&KeyExchange::ALL));
    assert!(verifier.verify_chain(&leaf.der, &[], NOW + Duration::HOUR).is_ok());
    let late = verifier.verify_chain(&leaf.der, &[], NOW + Duration::HOUR + Duration::SECOND);
    let fault = TlsFault::from_rustls(&late.unwrap_err());
    let not_after = short.info().not_after();
    assert_eq!(fault, TlsFault::AnchorExpired { label: "short.pem".into(), not_after });
}

#[test]
fn an_anchor_that_is_not_valid_yet_is_refused() {
    let lab = Lab::new();
    let next = lab.root.subordinate_with("Next", |params| params.not_before = NOW + Duration::HOUR);
    let leaf = next.leaf(HOST);
    let files = [pem("current.pem", &lab.issuing.pem), pem("next.pem", &next.pem)];
    let fault =
        verify(&lab.trust_in(&files, PinSet::default()), std::slice::from_ref(&leaf.der)).unwrap_err();
    assert!(matches!(fault, TlsFault::AnchorNotYetValid { .. }), "{fault}");
}

#[test]
fn a_renewed_anchor_with_the_same_key_takes_over_from_the_expired_one() {
    let lab = Lab::new();
    let current = lab.root.subordinate("Issuing");
    let leaf = current.leaf(HOST);
    let past = current.renewed_by(&lab.root, |params| params.not_after = NOW - Duration::SECOND);
    let files = [pem("past.pem", &past), pem("current.pem", &current.pem)];
    let trust = lab.trust_in(&files, PinSet::default());
    assert_eq!(trust.anchors()[0].spki(), trust.anchors()[1].spki());
    let verified = verify(&trust, std::slice::from_ref(&leaf.der)).unwrap();
    assert_eq!(trust.anchors()[verified.anchor].label(), "current.pem");
}

#[test]
fn a_verdict_stands_until_the_first_certificate_of_the_path_expires() {
    let lab = Lab::new();
    let soon = NOW + Duration::days(3);
    let short = lab.root.subordinate_with("Short", |params| params.not_after = soon);
    let leaf = short.leaf(HOST);
    let trust = lab.trust_in(&[pem("root.pem", &lab.root.pem)], PinSet::default());
    let verified = verify(&trust, &[leaf.der.clone(), short.der.clone()]).unwrap();
    assert_eq!(verified.valid_until, soon);
    assert_eq!(verified.leaf_not_after, leaf.info().not_after());
}

#[test]
fn a_client_certificate_is_no_server_certificate() {
    let lab = Lab::new();
    let leaf = lab.issuing.leaf_with(HOST, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let fault = verify(&lab.trust(PinSet::default()), std::slice::from_ref(&leaf.der)).unwrap_err();
    assert!(matches!(fault, TlsFault::ServerCertificateInvalid { .. }), "{fault}");
}

#[test]
fn a_leaf_cannot_issue() {
    // A certificate made with the key of a proper leaf, which is no CA.
    let lab = Lab::new();
    let rogue = lab.issuing.subordinate_with("rogue", |params| params.is_ca = rcgen::IsCa::NoCa);
    let leaf = rogue.leaf(HOST);
    let chain = [leaf.der.clone(), rogue.der.clone(), lab.issuing.der.clone()];
    assert!(verify(&lab.trust(PinSet::default()), &chain).is_err());
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let lab = Lab::new();
    let fault = verify(&lab.trust(PinSet::default()), &[CertificateDer::from(vec![0x30, 0x00])]).unwrap_err();
    assert!(matches!(fault, TlsFault::ServerCertificateInvalid { .. }), "{fault}");
}

#[test]
fn another_name_than_the_generations_is_refused() {
    let lab = Lab::new();
    let verifier = ServerVerifier::new(lab.trust(PinSet::default()), &crypto_provider(&KeyExchange::ALL));
    let name = ServerName::try_from("other.test").unwrap();
    let result = verifier.verify_server_cert(&lab.leaf.der, &[], &name, &[], unix_time(NOW));
    assert!(matches!(result, Err(Error::General(_))));
}
