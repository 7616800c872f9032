//! Verification of a server's chain, with the verified path known.
//!
//! rustls' own verifier says yes or no; which certificates it went through it does not say. Pins must match
//! keys on *that* path (a server may present anything beside it), anchors must not be expired (webpki knows
//! no expired anchor), and operators want to know which anchor matched. So this file calls webpki's path
//! building itself. The same check runs in the handshake and, on the chain kept with the session, after
//! every handshake.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::certificate::{self, Fingerprint};
use crate::clock::{rfc3339, unix_time};
use crate::pin::SpkiPin;
use crate::tickets::TicketStore;
use crate::trust::Trust;

/// Faults that webpki has no word for. Carried through rustls inside `CertificateError::Other`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyFault {
    /// The chain is good, but no key on the verified path is pinned.
    #[error("no public key on the verified path is pinned")]
    PinMismatch {
        /// The keys on the verified path: leaf first, anchor last.
        presented: Vec<SpkiPin>,
    },
    /// The chain ends in an anchor that has expired.
    #[error("the anchor in {label} expired on {}", rfc3339(*.not_after))]
    AnchorExpired {
        /// The anchor's file, as the user wrote it.
        label: String,
        /// When it expired.
        not_after: OffsetDateTime,
    },
    /// The chain ends in an anchor that is not valid yet.
    #[error("the anchor in {label} is not valid before {}", rfc3339(*.not_before))]
    AnchorNotYetValid {
        /// The anchor's file, as the user wrote it.
        label: String,
        /// From when it is valid.
        not_before: OffsetDateTime,
    },
}

impl From<VerifyFault> for Error {
    fn from(fault: VerifyFault) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

/// Verifies a server against one [`Trust`]. Cannot be switched off.
pub struct ServerVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
    /// Told of every chain verified in a handshake: from then on its tickets count their age.
    tickets: Option<Arc<TicketStore>>,
}

/// What a successful verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedChain {
    /// Index into [`Trust::anchors`].
    pub(crate) anchor: usize,
    /// The leaf's `notAfter`.
    pub(crate) leaf_not_after: OffsetDateTime,
    /// The earliest `notAfter` on the path, anchor included: until then the verdict may stand.
    pub(crate) valid_until: OffsetDateTime,
    /// Every presented certificate, leaf first.
    pub(crate) presented: Vec<Fingerprint>,
    /// The pinned key on the path, nearest to the leaf; `None` where pinning is off.
    pub(crate) pin: Option<SpkiPin>,
}

impl ServerVerifier {
    /// A verifier for `trust` with the signature algorithms of `provider`.
    pub fn new(trust: Trust, provider: &CryptoProvider) -> Self {
        Self { trust, algorithms: provider.signature_verification_algorithms, tickets: None }
    }

    /// Lets `tickets` know when a full handshake verified a chain, and until when that may stand. This is
    /// the one moment that precedes the first ticket in every protocol version.
    pub(crate) fn telling(self, tickets: Arc<TicketStore>) -> Self {
        Self { tickets: Some(tickets), ..self }
    }

    /// Path, anchor, pins and name, at `now`.
    pub(crate) fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: OffsetDateTime,
    ) -> Result<VerifiedChain, Error> {
        let end_entity = EndEntityCert::try_from(leaf).map_err(from_webpki)?;
        let judge = PathJudge::new(&self.trust, now);
        let path = end_entity.verify_for_usage(
            self.algorithms.all,
            self.trust.webpki_anchors(),
            intermediates,
            unix_time(now),
            KeyUsage::server_auth(),
            None,
            Some(&|candidate| judge.accepts(candidate)),
        );
        // A wrong name is told before a wrong pin: whoever dials another host has both, and the name is
        // the cause. A broken chain is told before either.
        let name = end_entity.verify_is_valid_for_subject_name(self.trust.server_name()).map_err(from_webpki);
        let path = match (path, judge.into_fault()) {
            (Ok(path), _) => {
                name?;
                path
            }
            (Err(_), Some(fault)) => {
                name?;
                return Err(fault.into());
            }
            (Err(error), None) => return Err(from_webpki(error)),
        };
        self.describe(leaf, intermediates, &path)
    }

    fn describe(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        path: &VerifiedPath<'_>,
    ) -> Result<VerifiedChain, Error> {
        let not_after = |der: &CertificateDer<'_>| {
            certificate::not_after(der).ok_or_else(|| Error::from(CertificateError::BadEncoding))
        };
        let anchor =
            anchor_index(&self.trust, path).ok_or_else(|| Error::from(CertificateError::UnknownIssuer))?;
        let leaf_not_after = not_after(leaf)?;
        let mut valid_until = leaf_not_after.min(self.trust.anchors()[anchor].not_after());
        for intermediate in path.intermediate_certificates() {
            valid_until = valid_until.min(not_after(&intermediate.der())?);
        }
        let presented = std::iter::once(leaf).chain(intermediates).map(|der| Fingerprint::of(der)).collect();
        let keys = keys_on(path, self.trust.anchors()[anchor].spki());
        let pin = keys.into_iter().find(|key| self.trust.pins().contains(key));
        Ok(VerifiedChain { anchor, leaf_not_after, valid_until, presented, pin })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if server_name != self.trust.server_name() {
            return Err(Error::General("dialled under another name than this generation's".into()));
        }
        let now = i64::try_from(now.as_secs())
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or(Error::FailedToGetCurrentTime)?;
        let verified = self.verify_chain(end_entity, intermediates, now)?;
        if let Some(tickets) = &self.tickets {
            tickets.note_full_handshake(now, verified.valid_until);
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("trust", &self.trust).finish_non_exhaustive()
    }
}

/// Judges paths that webpki found good, and remembers why it refused one: webpki's own error would only say
/// that no other path was left.
struct PathJudge<'a> {
    trust: &'a Trust,
    now: OffsetDateTime,
    fault: RefCell<Option<VerifyFault>>,
}

impl<'a> PathJudge<'a> {
    fn new(trust: &'a Trust, now: OffsetDateTime) -> Self {
        Self { trust, now, fault: RefCell::new(None) }
    }

    fn accepts(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        self.judge(path).map_err(|fault| {
            if let Some(fault) = fault {
                // The first refusal is of the most direct path: the one to tell.
                self.fault.borrow_mut().get_or_insert(fault);
            }
            webpki::Error::UnknownIssuer
        })
    }

    fn judge(&self, path: &VerifiedPath<'_>) -> Result<(), Option<VerifyFault>> {
        let index = anchor_index(self.trust, path).ok_or(None)?;
        let anchor = &self.trust.anchors()[index];
        let label = || anchor.label().to_owned();
        if self.now > anchor.not_after() {
            return Err(Some(VerifyFault::AnchorExpired { label: label(), not_after: anchor.not_after() }));
        }
        if self.now < anchor.not_before() {
            let not_before = anchor.not_before();
            return Err(Some(VerifyFault::AnchorNotYetValid { label: label(), not_before }));
        }
        if self.trust.pins().is_empty() {
            return Ok(());
        }
        let presented = keys_on(path, anchor.spki());
        match presented.iter().any(|spki| self.trust.pins().contains(spki)) {
            true => Ok(()),
            false => Err(Some(VerifyFault::PinMismatch { presented })),
        }
    }

    fn into_fault(self) -> Option<VerifyFault> {
        self.fault.into_inner()
    }
}

/// The public keys on a path: leaf first, anchor last.
fn keys_on(path: &VerifiedPath<'_>, anchor: SpkiPin) -> Vec<SpkiPin> {
    let leaf = SpkiPin::of_spki(&path.end_entity().subject_public_key_info());
    let used = path.intermediate_certificates().map(|ca| SpkiPin::of_spki(&ca.subject_public_key_info()));
    std::iter::once(leaf).chain(used).chain([anchor]).collect()
}

/// Which of the trust's anchors a path ends in. By address: webpki hands back a reference into our own
/// slice, and two anchors may share name and key (a CA renewed with its key).
fn anchor_index(trust: &Trust, path: &VerifiedPath<'_>) -> Option<usize> {
    trust.webpki_anchors().iter().position(|anchor| std::ptr::addr_eq(anchor, path.anchor()))
}

/// webpki's errors in rustls' words, so that the alert sent to the server is the fitting one.
fn from_webpki(error: webpki::Error) -> Error {
    use webpki::Error as W;
    let certificate = match error {
        W::BadDer | W::BadDerTime | W::TrailingData(_) => CertificateError::BadEncoding,
        W::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        W::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        W::InvalidCertValidity => CertificateError::Expired,
        W::UnknownIssuer => CertificateError::UnknownIssuer,
        W::CertNotValidForName(name) => {
            CertificateError::NotValidForNameContext { expected: name.expected, presented: name.presented }
        }
        // A namesake of our anchor with another key: from where we stand, an authority we do not know.
        W::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        W::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(certificate)
}

#[cfg(test)]
mod tests;
