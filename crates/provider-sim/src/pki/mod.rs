//! Owns the provider's own PKI, made anew at every start: root CA, intermediate CA, server leaf; and for its calls
//! to customers a client CA and a client leaf.
//! It does not own any stored key: nothing secret comes from or goes to the repository.

mod assets;
mod client;
mod keys;

pub use assets::write_assets;
pub use client::{ClientCredentials, ClientSpec, ExtendedKeyUsage, SignatureLabel};
pub use keys::KeyAlgorithm;

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::SimError;

/// Common Name of the intermediate that signs server leaves, like the CA that the real provider names.
pub const INTERMEDIATE_COMMON_NAME: &str = "Simulated SHA2 High Assurance Server CA";

/// Common Name of the CA that signs the provider's own client certificate: the one that customers trust for calls
/// to them (S18).
pub const CLIENT_CA_COMMON_NAME: &str = "Simulated Thales Client CA";

/// A validity window, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment of validity, UTC.
    pub not_before: OffsetDateTime,
    /// Last moment of validity, UTC.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From one hour ago, for `days` days. The hour forgives clocks that disagree.
    pub fn days(days: i64) -> Self {
        let not_before = OffsetDateTime::now_utc() - Duration::HOUR;
        Self { not_before, not_after: not_before + Duration::days(days) }
    }

    /// A window that closed an hour ago.
    pub fn expired() -> Self {
        let not_after = OffsetDateTime::now_utc() - Duration::HOUR;
        Self { not_before: not_after - Duration::days(30), not_after }
    }

    /// A window that opens tomorrow.
    pub fn not_yet() -> Self {
        let not_before = OffsetDateTime::now_utc() + Duration::DAY;
        Self { not_before, not_after: not_before + Duration::days(30) }
    }
}

/// What [`Pki::generate`] makes.
///
/// # Defaults
/// Names `localhost`, `tsh.test` and `127.0.0.1`; P-256 everywhere; leaf valid for 90 days, intermediate
/// for 5 years; own client certificate `TSH-SIMULATED-CLIENT`, valid for 90 days.
#[derive(Clone, Debug)]
pub struct PkiOptions {
    /// Subject alternative names of the server leaf: DNS names or IP addresses. 127.0.0.1 is always added.
    pub hosts: Vec<String>,
    /// Key of the server leaf.
    pub server_key: KeyAlgorithm,
    /// Key of the root and the intermediate.
    pub authority_key: KeyAlgorithm,
    /// Validity of the server leaf.
    pub server_validity: Validity,
    /// Validity of the intermediate, which is the trust anchor handed to customers.
    pub intermediate_validity: Validity,
    /// Common Name, exactly, of the certificate that the provider shows when it calls a customer.
    pub outgoing_common_name: String,
    /// Validity of that certificate.
    pub outgoing_validity: Validity,
}

impl Default for PkiOptions {
    fn default() -> Self {
        Self {
            hosts: vec!["localhost".to_owned(), "tsh.test".to_owned()],
            server_key: KeyAlgorithm::EcP256,
            authority_key: KeyAlgorithm::EcP256,
            server_validity: Validity::days(90),
            intermediate_validity: Validity::days(5 * 365),
            outgoing_common_name: "TSH-SIMULATED-CLIENT".to_owned(),
            outgoing_validity: Validity::days(90),
        }
    }
}

/// Root CA, intermediate CA and server leaf; client CA and client leaf of the calls to customers. Clones of an `Arc<Pki>` may be shared by several simulators.
pub struct Pki {
    options: PkiOptions,
    root: Arc<CertifiedIssuer<'static, KeyPair>>,
    intermediate: Arc<CertifiedIssuer<'static, KeyPair>>,
    server: rcgen::Certificate,
    server_key: KeyPair,
    client_ca: Arc<CertifiedIssuer<'static, KeyPair>>,
    outgoing: Arc<ClientCredentials>,
}

impl Pki {
    /// Makes a new root, intermediate and server leaf, and a new client CA and client leaf.
    ///
    /// # Errors
    /// [`SimError::Issue`] if a host name is not an IA5 name or the key type cannot be made.
    pub fn generate(options: PkiOptions) -> Result<Self, SimError> {
        let long = Validity::days(20 * 365);
        let root_params = authority("Simulated High Assurance Root CA", long, 1);
        let root = CertifiedIssuer::self_signed(root_params, options.authority_key.generate("root CA")?)
            .map_err(issue("root CA"))?;
        let params = authority(INTERMEDIATE_COMMON_NAME, options.intermediate_validity, 0);
        let key = options.authority_key.generate(INTERMEDIATE_COMMON_NAME)?;
        let intermediate =
            CertifiedIssuer::signed_by(params, key, &root).map_err(issue(INTERMEDIATE_COMMON_NAME))?;
        let (server, server_key) = server_leaf(&options, &intermediate)?;
        // P-256 whatever the options say of the others: their key types are for tests of what customers trust.
        let key = KeyAlgorithm::EcP256.generate(CLIENT_CA_COMMON_NAME)?;
        let client_ca = CertifiedIssuer::self_signed(authority(CLIENT_CA_COMMON_NAME, long, 0), key)
            .map_err(issue(CLIENT_CA_COMMON_NAME))?;
        let spec = ClientSpec::named(&options.outgoing_common_name).valid(options.outgoing_validity);
        let outgoing = ClientCredentials::signed_by(&spec, &client_ca)?;
        Ok(Self {
            options,
            root: Arc::new(root),
            intermediate: Arc::new(intermediate),
            server,
            server_key,
            client_ca: Arc::new(client_ca),
            outgoing: Arc::new(outgoing),
        })
    }

    /// The same authorities with a new server leaf and a new server key: the provider's own rotation. Its client
    /// certificate stays.
    ///
    /// # Errors
    /// [`SimError::Issue`], as [`Pki::generate`].
    pub fn rotated(&self) -> Result<Self, SimError> {
        let (server, server_key) = server_leaf(&self.options, &self.intermediate)?;
        Ok(Self {
            options: self.options.clone(),
            root: self.root.clone(),
            intermediate: self.intermediate.clone(),
            server,
            server_key,
            client_ca: self.client_ca.clone(),
            outgoing: self.outgoing.clone(),
        })
    }

    /// New authorities and a new leaf with the same names: whoever trusts the present ones does not trust these.
    ///
    /// # Errors
    /// [`SimError::Issue`], as [`Pki::generate`].
    pub fn replaced(&self) -> Result<Self, SimError> {
        Self::generate(self.options.clone())
    }

    /// Leaf and intermediate, as the server sends them.
    pub fn server_chain_pem(&self) -> String {
        format!("{}{}", self.server.pem(), self.intermediate.pem())
    }

    /// The server's private key (PKCS #8). Secret in form only: it dies with the process.
    pub fn server_key_pem(&self) -> String {
        self.server_key.serialize_pem()
    }

    /// The trust anchor for customers, that is the intermediate: asset `TSH_TLS_SERVER_CERTIFICATE_CHAIN`.
    pub fn anchors_pem(&self) -> String {
        self.intermediate.pem()
    }

    /// The root CA. Trusting it would be wider than the provider asks for; tests do it on purpose.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The CA that customers trust to validate the provider's client certificate.
    pub fn client_ca_pem(&self) -> String {
        self.client_ca.pem()
    }

    /// The client certificate that the provider shows when it calls a customer, signed by the client CA.
    pub fn outgoing_client(&self) -> &ClientCredentials {
        &self.outgoing
    }

    /// The server leaf.
    pub fn server_certificate(&self) -> &CertificateDer<'static> {
        self.server.der()
    }

    /// The intermediate CA.
    pub fn intermediate_certificate(&self) -> &CertificateDer<'static> {
        self.intermediate.der()
    }

    /// SPKI pin of the server leaf, `sha256/<base64>`.
    pub fn server_pin(&self) -> String {
        keys::pin(&self.server_key)
    }

    /// SPKI pin of the intermediate, `sha256/<base64>`.
    pub fn intermediate_pin(&self) -> String {
        keys::pin(self.intermediate.key())
    }

    /// SPKI pin of the root, `sha256/<base64>`. The server does not send the root.
    pub fn root_pin(&self) -> String {
        keys::pin(self.root.key())
    }

    /// A self-signed client certificate with its key, ready to be endorsed.
    ///
    /// # Errors
    /// [`SimError::Issue`] if the key type cannot be made.
    pub fn issue_client(&self, spec: ClientSpec) -> Result<ClientCredentials, SimError> {
        ClientCredentials::self_signed(&spec)
    }

    /// A client certificate signed by this PKI's intermediate, as the second regime (`d1`) has it.
    ///
    /// # Errors
    /// [`SimError::Issue`] if the key type cannot be made.
    pub fn sign_client(&self, spec: ClientSpec) -> Result<ClientCredentials, SimError> {
        ClientCredentials::signed_by(&spec, &self.intermediate)
    }

    /// Chain and key in the form that rustls takes.
    pub(crate) fn server_material(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = vec![self.server.der().clone(), self.intermediate.der().clone()];
        let key = PrivatePkcs8KeyDer::from(self.server_key.serialize_der());
        (chain, PrivateKeyDer::from(key))
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").field("options", &self.options).finish_non_exhaustive()
    }
}

fn server_leaf(
    options: &PkiOptions,
    issuer: &CertifiedIssuer<'static, KeyPair>,
) -> Result<(rcgen::Certificate, KeyPair), SimError> {
    let subject = options.hosts.first().map_or("127.0.0.1", String::as_str);
    let mut names = options.hosts.clone();
    if !names.iter().any(|name| name == "127.0.0.1") {
        names.push("127.0.0.1".to_owned());
    }
    let mut params = CertificateParams::new(names).map_err(issue(subject))?;
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = options.server_validity.not_before;
    params.not_after = options.server_validity.not_after;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = options.server_key.generate(subject)?;
    let certificate = params.signed_by(&key, issuer).map_err(issue(subject))?;
    Ok((certificate, key))
}

fn authority(common_name: &str, validity: Validity, path_length: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Simulated Provider");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.use_authority_key_identifier_extension = true;
    params
}

/// Turns a library error into ours, naming whose certificate it was.
fn issue(subject: &str) -> impl FnOnce(rcgen::Error) -> SimError {
    let subject = subject.to_owned();
    move |source| SimError::Issue { subject, source }
}
