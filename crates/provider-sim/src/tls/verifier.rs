//! Owns the answer to "may this client in?": exact-leaf pinning, as the provider does it. WebPKI's own client
//! verifier cannot: it refuses self-signed leaves with CA:TRUE, which may be endorsed all the same.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::behaviour::{Behaviour, ClientAuth, RefusalAlert};

/// A client certificate that the provider has endorsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsed {
    /// The leaf, byte for byte.
    pub der: CertificateDer<'static>,
    /// The Common Name that the portal shows for this customer and environment.
    pub common_name: String,
}

/// Lets in exactly the endorsed leaves, or nobody, or anybody, as told.
#[derive(Debug)]
pub(crate) struct PinnedLeafVerifier {
    provider: Arc<CryptoProvider>,
    endorsed: Arc<Vec<Endorsed>>,
    mode: ClientAuth,
    alert: RefusalAlert,
}

impl PinnedLeafVerifier {
    pub(crate) fn new(
        provider: Arc<CryptoProvider>,
        behaviour: &Behaviour,
        endorsed: Arc<Vec<Endorsed>>,
    ) -> Self {
        Self { provider, endorsed, mode: behaviour.client_auth, alert: behaviour.refusal_alert }
    }
}

impl ClientCertVerifier for PinnedLeafVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verdict = match self.mode {
            ClientAuth::PinnedLeaf => leaf_fault(&self.endorsed, end_entity, now),
            ClientAuth::RefuseLate | ClientAuth::RefuseEarly => Some(refusal(self.alert)),
            ClientAuth::RefuseHttp => None,
        };
        match verdict {
            Some(fault) => Err(Error::InvalidCertificate(fault)),
            None => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with this leaf, if anything. The library turns each word into its alert: not endorsed is
/// `certificate_unknown`, a wrong CN `access_denied`, out of its time `certificate_expired`.
pub(crate) fn leaf_fault(
    endorsed: &[Endorsed],
    leaf: &CertificateDer<'_>,
    now: UnixTime,
) -> Option<CertificateError> {
    let Some(entry) = endorsed.iter().find(|entry| entry.der.as_ref() == leaf.as_ref()) else {
        return Some(CertificateError::Other(OtherError(Arc::new(NotEndorsed))));
    };
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return Some(CertificateError::BadEncoding);
    };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Some(CertificateError::NotValidYet);
    }
    if now > parsed.validity().not_after.timestamp() {
        return Some(CertificateError::Expired);
    }
    let mut names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    if names.next() == Some(entry.common_name.as_str()) {
        None
    } else {
        Some(CertificateError::ApplicationVerificationFailure)
    }
}

/// The error that makes the library send this alert.
fn refusal(alert: RefusalAlert) -> CertificateError {
    match alert {
        RefusalAlert::AccessDenied => CertificateError::ApplicationVerificationFailure,
        RefusalAlert::BadCertificate => CertificateError::BadEncoding,
        RefusalAlert::UnsupportedCertificate => CertificateError::InvalidPurpose,
        RefusalAlert::CertificateRevoked => CertificateError::Revoked,
        RefusalAlert::CertificateExpired => CertificateError::Expired,
        RefusalAlert::CertificateUnknown => CertificateError::Other(OtherError(Arc::new(NotEndorsed))),
        RefusalAlert::UnknownCa => CertificateError::UnknownIssuer,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("this client certificate is not endorsed")]
struct NotEndorsed;
