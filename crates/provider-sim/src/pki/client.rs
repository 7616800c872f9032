//! Owns client certificates as customers bring them: self-signed by default, made to order, so that tests
//! can bring every wrong one too. It does not own who is endorsed; that is the simulator's list.

use std::fmt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::{KeyAlgorithm, Validity, assets, issue, keys};
use crate::{Endorsed, SimError};

/// The extended key usage of a client certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtendedKeyUsage {
    /// `clientAuth`. The default.
    #[default]
    ClientAuth,
    /// `serverAuth` only: wrong for a client.
    ServerAuth,
    /// No such extension.
    Absent,
}

/// What the certificate says about its own signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureLabel {
    /// The truth. The default.
    #[default]
    True,
    /// RSA with SHA-1, written over the label after signing (RSA keys only; others stay as they are). The
    /// signature does not verify any more, which nobody checks on a self-signed leaf that is pinned: it is
    /// what a linter needs to see.
    Sha1,
}

/// An order for a client certificate.
///
/// # Defaults
/// What the provider's rules ask for: P-256, valid for 365 days, `CA:FALSE`, `clientAuth`,
/// `digitalSignature`; Common Name `CUSTOMER-0001-SBX`.
#[derive(Clone, Debug)]
pub struct ClientSpec {
    /// Common Name, exactly as the portal shows it.
    pub common_name: String,
    /// Key type.
    pub key: KeyAlgorithm,
    /// First moment of validity, UTC.
    pub not_before: OffsetDateTime,
    /// Last moment of validity, UTC.
    pub not_after: OffsetDateTime,
    /// `CA:TRUE` (what a plain `openssl req -x509` makes) or `CA:FALSE`.
    pub is_ca: bool,
    /// Extended key usage.
    pub eku: ExtendedKeyUsage,
    /// What the certificate claims as signature algorithm.
    pub signature: SignatureLabel,
}

impl Default for ClientSpec {
    fn default() -> Self {
        let Validity { not_before, not_after } = Validity::days(365);
        Self {
            common_name: "CUSTOMER-0001-SBX".to_owned(),
            key: KeyAlgorithm::EcP256,
            not_before,
            not_after,
            is_ca: false,
            eku: ExtendedKeyUsage::ClientAuth,
            signature: SignatureLabel::True,
        }
    }
}

impl ClientSpec {
    /// The default with this Common Name.
    pub fn named(common_name: impl Into<String>) -> Self {
        Self { common_name: common_name.into(), ..Self::default() }
    }

    /// This order with another validity window.
    pub fn valid(self, validity: Validity) -> Self {
        Self { not_before: validity.not_before, not_after: validity.not_after, ..self }
    }

    /// This order with another key type.
    pub fn keyed(self, key: KeyAlgorithm) -> Self {
        Self { key, ..self }
    }
}

/// A client certificate with its private key. `Debug` leaves the key out.
#[derive(Clone)]
pub struct ClientCredentials {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key, PKCS #8. Secret.
    pub key_pem: String,
    /// The certificate in DER: what gets endorsed.
    pub certificate_der: CertificateDer<'static>,
    /// The Common Name in it.
    pub common_name: String,
    pin: String,
}

impl ClientCredentials {
    pub(super) fn self_signed(spec: &ClientSpec) -> Result<Self, SimError> {
        let key = spec.key.generate(&spec.common_name)?;
        let certificate = params(spec).self_signed(&key).map_err(issue(&spec.common_name))?;
        Ok(Self::assemble(spec, &certificate, &key))
    }

    pub(super) fn signed_by(spec: &ClientSpec, issuer: &Issuer<'_, KeyPair>) -> Result<Self, SimError> {
        let key = spec.key.generate(&spec.common_name)?;
        let certificate = params(spec).signed_by(&key, issuer).map_err(issue(&spec.common_name))?;
        Ok(Self::assemble(spec, &certificate, &key))
    }

    fn assemble(spec: &ClientSpec, certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        let mut der = certificate.der().to_vec();
        if spec.signature == SignatureLabel::Sha1 {
            relabel_sha1(&mut der);
        }
        Self {
            certificate_pem: assets::certificate_pem(&der),
            key_pem: key.serialize_pem(),
            certificate_der: CertificateDer::from(der),
            common_name: spec.common_name.clone(),
            pin: keys::pin(key),
        }
    }

    /// SPKI pin of the client's key, `sha256/<base64>`.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// This certificate as an entry of the provider's list.
    pub fn endorsed(&self) -> Endorsed {
        Endorsed { der: self.certificate_der.clone(), common_name: self.common_name.clone() }
    }

    /// Writes `CUSTOMER_TLS_CLIENT_CERTIFICATE.pem` and `.key` (mode 0600) into `dir`, which must exist.
    ///
    /// # Errors
    /// [`SimError::Write`] with the file that could not be written.
    pub fn write_assets(&self, dir: &Path) -> Result<(), SimError> {
        assets::write_client(dir, self)
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("common_name", &self.common_name)
            .field("key_pem", &"<secret>")
            .finish_non_exhaustive()
    }
}

fn params(spec: &ClientSpec) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, spec.common_name.as_str());
    params.not_before = spec.not_before;
    params.not_after = spec.not_after;
    params.is_ca = if spec.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match spec.eku {
        ExtendedKeyUsage::ClientAuth => vec![ExtendedKeyUsagePurpose::ClientAuth],
        ExtendedKeyUsage::ServerAuth => vec![ExtendedKeyUsagePurpose::ServerAuth],
        ExtendedKeyUsage::Absent => Vec::new(),
    };
    params
}

/// Both places that name the signature algorithm carry the same OID, and the one of SHA-1 has the same length.
fn relabel_sha1(der: &mut [u8]) {
    const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    let places: Vec<usize> = (0..der.len().saturating_sub(SHA256_WITH_RSA.len()))
        .filter(|&at| der[at..].starts_with(SHA256_WITH_RSA))
        .collect();
    for at in places {
        der[at + SHA256_WITH_RSA.len() - 1] = 0x05;
    }
}
