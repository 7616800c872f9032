//! Which certificates of a chain file become anchors.
//!
//! Thales hands over a chain: leaf, intermediate, perhaps the root. Trusting the leaf would break at its
//! next renewal; trusting the root would trust every CA below it, far beyond S9. So the lowest CA is taken.

use super::SkipReason;
use crate::certificate::CertificateInfo;

/// What becomes of one certificate of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Anchor,
    Skip(SkipReason),
}

/// One choice per certificate, in the order of the file.
///
/// The lowest CAs are those that issued no other CA of the file, roots only if there is nothing but roots
/// among them. If the file has leaves, and one of these CAs issued one, only such are taken. Issuing is told
/// by name: the file is the user's own, and verification checks signatures anyway.
pub(super) fn select(certificates: &[CertificateInfo]) -> Vec<Choice> {
    let is_ca = |certificate: &CertificateInfo| certificate.is_ca() == Some(true);
    let cas: Vec<_> = certificates.iter().filter(|certificate| is_ca(certificate)).collect();
    let stands_above = |candidate: &CertificateInfo| {
        cas.iter().any(|ca| candidate.is_named_issuer_of(ca) && !ca.is_self_issued())
    };
    let mut lowest: Vec<_> = cas.iter().copied().filter(|ca| !stands_above(ca)).collect();
    if lowest.iter().any(|ca| !ca.is_self_issued()) {
        lowest.retain(|ca| !ca.is_self_issued());
    }
    let issued_a_leaf =
        |ca: &CertificateInfo| certificates.iter().any(|leaf| !is_ca(leaf) && ca.is_named_issuer_of(leaf));
    let leaf_decides = lowest.iter().any(|ca| issued_a_leaf(ca));
    certificates
        .iter()
        .map(|certificate| {
            if !is_ca(certificate) {
                Choice::Skip(SkipReason::Leaf)
            } else if !lowest.contains(&certificate) {
                Choice::Skip(SkipReason::AboveLowest)
            } else if leaf_decides && !issued_a_leaf(certificate) {
                Choice::Skip(SkipReason::NotIssuerOfLeaf)
            } else {
                Choice::Anchor
            }
        })
        .collect()
}
