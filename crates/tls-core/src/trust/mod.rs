//! What is believed of a server: its name, the anchors its chain must end in, and pins.
//!
//! Owns loading and the choice of anchors from a chain file (`select.rs`). Verification of a presented chain
//! is done by `verifier.rs`. There are no web roots and no way to add them.

mod select;

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor};
use serde::Serialize;
use time::OffsetDateTime;

use crate::certificate::{CertificateError, CertificateInfo, Fingerprint, certificates_of};
use crate::clock::{rfc3339, serialize_rfc3339};
use crate::pem::PemSource;
use crate::pin::{PinSet, SpkiPin};

use select::Choice;

/// Server name, anchors and pins of one environment. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<Inner>);

struct Inner {
    server_name: ServerName<'static>,
    anchors: Vec<AnchorInfo>,
    /// The same anchors in the same order, as webpki wants them.
    webpki: Vec<TrustAnchor<'static>>,
    skipped: Vec<SkippedCertificate>,
    pins: PinSet,
}

/// One trust anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnchorInfo {
    label: String,
    subject: String,
    fingerprint: Fingerprint,
    spki: SpkiPin,
    #[serde(serialize_with = "serialize_rfc3339")]
    not_before: OffsetDateTime,
    #[serde(serialize_with = "serialize_rfc3339")]
    not_after: OffsetDateTime,
}

impl AnchorInfo {
    fn new(label: &str, certificate: &CertificateInfo) -> Self {
        Self {
            label: label.to_owned(),
            subject: certificate.subject().to_owned(),
            fingerprint: certificate.fingerprint(),
            spki: certificate.spki(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        }
    }

    /// The file it came from, as the user wrote it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its subject, for people.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// SHA-256 of its DER encoding.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The pin of its public key.
    pub fn spki(&self) -> SpkiPin {
        self.spki
    }

    /// Start of validity, UTC.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// End of validity, UTC. Enforced by this crate: webpki knows no expired anchor.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether `now` lies within the validity.
    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// A certificate of an anchor file that was not taken as an anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedCertificate {
    /// The file, as the user wrote it.
    pub label: String,
    /// The certificate's subject.
    pub subject: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a certificate of an anchor file is not an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Not a CA certificate: a server's own certificate is pinned, never an anchor.
    Leaf,
    /// It stands above another CA of the same file, or is a root beside an intermediate; trusting it would
    /// trust all it ever issued. To trust it all the same, list it as a file of its own.
    AboveLowest,
    /// The file has a leaf, and this CA did not issue it.
    NotIssuerOfLeaf,
}

impl Trust {
    /// Trust in `server_name`, verified against `anchors` and, if there are any, `pins`.
    ///
    /// From each file the lowest CA certificate is taken: never the leaf, and a root only if no other CA of
    /// the file stands below it. An intermediate is as good an anchor as a root (the seed's is one, S9).
    /// Anchors that are expired or not yet valid at `now` are kept as long as another is valid, so that the
    /// next anchor may be listed beside the current one; no chain is accepted through them.
    ///
    /// # Errors
    ///
    /// [`TrustError`], which names the file, what is wrong and how to mend it.
    pub fn new(
        server_name: &str,
        anchors: &[PemSource],
        pins: PinSet,
        now: OffsetDateTime,
    ) -> Result<Self, TrustError> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TrustError::BadServerName { name: server_name.to_owned() })?;
        let mut inner =
            Inner { server_name: name, anchors: Vec::new(), webpki: Vec::new(), skipped: Vec::new(), pins };
        for source in anchors {
            inner.load(source)?;
        }
        inner.require_a_valid_anchor(now)?;
        Ok(Self(Arc::new(inner)))
    }

    /// The anchors, in the order of the files.
    pub fn anchors(&self) -> &[AnchorInfo] {
        &self.0.anchors
    }

    /// Certificates of the anchor files that are *not* anchors, and why: for `check`.
    pub fn skipped(&self) -> &[SkippedCertificate] {
        &self.0.skipped
    }

    /// The name that the server's certificate must carry. Sent as SNI.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.0.server_name
    }

    /// The pins; empty means that pinning is off.
    pub fn pins(&self) -> &PinSet {
        &self.0.pins
    }

    pub(crate) fn webpki_anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0.webpki
    }

    /// Whether both believe the same: name, anchors in their order, pins.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same_anchors = || self.0.anchors == other.0.anchors;
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.server_name == other.0.server_name && self.0.pins == other.0.pins && same_anchors())
    }
}

impl Inner {
    /// Takes the anchors of one file.
    fn load(&mut self, source: &PemSource) -> Result<(), TrustError> {
        let label = source.label();
        let chain = certificates_of(source)?;
        let read = |der| CertificateInfo::from_der(label, der);
        let certificates = chain.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let choices = select::select(&certificates);
        if choices.iter().all(|choice| *choice == Choice::Skip(SkipReason::Leaf)) {
            return Err(TrustError::OnlyLeaf {
                label: label.to_owned(),
                subject: certificates[0].subject().to_owned(),
            });
        }
        for ((der, certificate), choice) in chain.iter().zip(&certificates).zip(choices) {
            match choice {
                Choice::Anchor => self.add(label, der, certificate)?,
                Choice::Skip(reason) => self.skipped.push(SkippedCertificate {
                    label: label.to_owned(),
                    subject: certificate.subject().to_owned(),
                    reason,
                }),
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        label: &str,
        der: &CertificateDer<'_>,
        certificate: &CertificateInfo,
    ) -> Result<(), TrustError> {
        if self.anchors.iter().any(|held| held.fingerprint == certificate.fingerprint()) {
            return Ok(());
        }
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|error| {
            let detail = format!("it cannot be an anchor: {error}");
            TrustError::MalformedCertificate { label: label.to_owned(), detail }
        })?;
        self.webpki.push(anchor.to_owned());
        self.anchors.push(AnchorInfo::new(label, certificate));
        Ok(())
    }

    fn require_a_valid_anchor(&self, now: OffsetDateTime) -> Result<(), TrustError> {
        let Some(first) = self.anchors.first() else { return Err(TrustError::EmptyAnchors) };
        if self.anchors.iter().any(|anchor| anchor.is_valid_at(now)) {
            return Ok(());
        }
        let (label, subject) = (first.label.clone(), first.subject.clone());
        Err(match now > first.not_after {
            true => TrustError::AnchorExpired { label, subject, not_after: first.not_after },
            false => TrustError::AnchorNotYetValid { label, subject, not_before: first.not_before },
        })
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let anchors: Vec<_> = self.0.anchors.iter().map(AnchorInfo::fingerprint).collect();
        f.debug_struct("Trust")
            .field("server_name", &self.0.server_name)
            .field("anchors", &anchors)
            .field("pins", &self.0.pins)
            .finish_non_exhaustive()
    }
}

/// Why there is nothing to trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No anchor file was named. There is no default: web roots are never used.
    #[error(
        "no anchors: there are no built-in roots; name the file TSH_TLS_SERVER_CERTIFICATE_CHAIN that Thales gave you"
    )]
    EmptyAnchors,
    /// An anchor file holds no PEM certificate.
    #[error("{label}: no certificate in this file; {remedy}")]
    NoCertificate {
        /// The path as the user wrote it.
        label: String,
        /// How to mend it.
        remedy: &'static str,
    },
    /// A certificate in an anchor file cannot be used.
    #[error("{label}: malformed certificate: {detail}; ask for the file again, or remove that certificate")]
    MalformedCertificate {
        /// The path as the user wrote it.
        label: String,
        /// What is wrong.
        detail: String,
    },
    /// An anchor file holds no CA certificate.
    #[error(
        "{label}: only a server certificate ({subject}), no CA certificate; name the file with the issuing CA. To accept one server key alone, add its pin as well"
    )]
    OnlyLeaf {
        /// The path as the user wrote it.
        label: String,
        /// Subject of the first certificate.
        subject: String,
    },
    /// No anchor is valid now, and the first one is expired.
    #[error("{label}: the anchor {subject} expired on {}; get the current TSH_TLS_SERVER_CERTIFICATE_CHAIN from Thales", rfc3339(*.not_after))]
    AnchorExpired {
        /// The path as the user wrote it.
        label: String,
        /// Subject of the anchor.
        subject: String,
        /// When it expired.
        not_after: OffsetDateTime,
    },
    /// No anchor is valid now, and the first one is not valid yet.
    #[error("{label}: the anchor {subject} is not valid before {}; check this machine's clock, or list the current anchor as well", rfc3339(*.not_before))]
    AnchorNotYetValid {
        /// The path as the user wrote it.
        label: String,
        /// Subject of the anchor.
        subject: String,
        /// From when it is valid.
        not_before: OffsetDateTime,
    },
    /// The server name is neither a DNS name nor an IP address.
    #[error("{name:?} is not a DNS name or IP address; write the host alone, without scheme, port or path")]
    BadServerName {
        /// The name that was given.
        name: String,
    },
}

impl From<CertificateError> for TrustError {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::NoCertificate { label, remedy } => Self::NoCertificate { label, remedy },
            CertificateError::Malformed { label, detail } => Self::MalformedCertificate { label, detail },
        }
    }
}

#[cfg(test)]
mod tests;
