//! Certificates for tests.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::CertificateDer;
use time::Duration;

use super::NOW;
use crate::certificate::CertificateInfo;
use crate::pin::SpkiPin;

/// A CA.
pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    pub(crate) fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = (ca_params(name, change), new_key());
        let certificate = params.self_signed(&key).expect("self-signed");
        Self::new(&certificate, params, key)
    }

    pub(crate) fn subordinate(&self, name: &str) -> Self {
        self.subordinate_with(name, |_| {})
    }

    pub(crate) fn subordinate_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = (ca_params(name, change), new_key());
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Self::new(&certificate, params, key)
    }

    pub(crate) fn leaf(&self, host: &str) -> Leaf {
        self.leaf_with(host, |_| {})
    }

    pub(crate) fn leaf_with(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = named(host);
        params.subject_alt_names = vec![host.try_into().map(rcgen::SanType::DnsName).expect("a DNS name")];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Leaf::new(&certificate, key)
    }

    /// Another certificate of the same name and key, in PEM.
    pub(crate) fn renewed_by(&self, above: &Self, change: impl FnOnce(&mut CertificateParams)) -> String {
        let name = self.info().common_name().expect("a name").to_owned();
        let params = ca_params(&name, change);
        params.signed_by(self.issuer.key(), &above.issuer).expect("signed").pem()
    }

    pub(crate) fn info(&self) -> CertificateInfo {
        CertificateInfo::from_der("test", &self.der).expect("well-formed")
    }

    pub(crate) fn pin(&self) -> SpkiPin {
        self.info().spki()
    }

    fn new(certificate: &rcgen::Certificate, params: CertificateParams, key: KeyPair) -> Self {
        Self { der: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }
}

/// A certificate that signs nothing, and its key.
pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) key: KeyPair,
}

impl Leaf {
    pub(crate) fn info(&self) -> CertificateInfo {
        CertificateInfo::from_der("test", &self.der).expect("well-formed")
    }

    pub(crate) fn pin(&self) -> SpkiPin {
        self.info().spki()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn new(certificate: &rcgen::Certificate, key: KeyPair) -> Self {
        Self { der: certificate.der().clone(), pem: certificate.pem(), key }
    }
}

/// A self-signed client certificate that the `tsh` linter has nothing to say about at [`NOW`].
pub(crate) fn client_certificate(common_name: &str) -> Leaf {
    client_certificate_with(common_name, new_key(), |_| {})
}

pub(crate) fn client_certificate_with(
    common_name: &str,
    key: KeyPair,
    change: impl FnOnce(&mut CertificateParams),
) -> Leaf {
    let mut params = named(common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let certificate = params.self_signed(&key).expect("self-signed");
    Leaf::new(&certificate, key)
}

fn ca_params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    change(&mut params);
    params
}

/// Valid from 30 days before [`NOW`] to 300 days after it.
fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = NOW - Duration::days(30);
    params.not_after = NOW + Duration::days(300);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}
