//! A small PKI, asset folders and configuration files for tests.
//!
//! Keys are made anew in every run. The moment of every test is [`NOW`].

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::{Finding, Inspection, Severity, inspect};

/// The moment at which tests take place.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

/// Certificates that no library at hand would make any more; their keys were thrown away.
pub(crate) const RSA_1024: &str = include_str!("../../../tls-core/src/testing/rsa1024.pem");
/// Signed with SHA-1.
pub(crate) const RSA_2048_SHA1: &str = include_str!("../../../tls-core/src/testing/rsa2048-sha1.pem");

/// A client certificate in the making; what [`Client::new`] gives passes the linter without a warning.
pub(crate) struct Client {
    params: CertificateParams,
    key: KeyPair,
}

impl Client {
    pub(crate) fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a P-256 key");
        Self { params, key }.valid(NOW - Duration::days(30), NOW + Duration::days(365))
    }

    pub(crate) fn valid(mut self, from: OffsetDateTime, to: OffsetDateTime) -> Self {
        (self.params.not_before, self.params.not_after) = (from, to);
        self
    }

    pub(crate) fn key(mut self, key: KeyPair) -> Self {
        self.key = key;
        self
    }

    pub(crate) fn certificate_pem(&self) -> String {
        self.params.self_signed(&self.key).expect("a certificate").pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Writes certificate and key under their seed names.
    pub(crate) fn write(&self, folder: &Path) {
        write(&folder.join("CUSTOMER_TLS_CLIENT_CERTIFICATE.pem"), &self.certificate_pem());
        write(&folder.join("CUSTOMER_TLS_CLIENT_CERTIFICATE.key"), &self.key_pem());
    }
}

/// A CA certificate on its own, valid in this span.
pub(crate) fn authority_pem(from: OffsetDateTime, to: OffsetDateTime) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Test Issuing CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = (from, to);
    params.self_signed(&KeyPair::generate().expect("a P-256 key")).expect("a certificate").pem()
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Writes a file that this user alone may read.
pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    fs::write(path, text).expect("a writable file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("rights");
}

/// A folder with good assets for a sandbox and a production environment.
pub(crate) struct Fixture {
    folder: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        for (environment, common_name) in
            [("sandbox", "CUSTOMER-0001-SBX"), ("production", "CUSTOMER-0001-PRD")]
        {
            Client::new(common_name).write(&fixture.assets(environment));
            let anchors = authority_pem(NOW - Duration::days(365), NOW + Duration::days(3650));
            write(&fixture.assets(environment).join("TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem"), &anchors);
        }
        fixture
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn assets(&self, environment: &str) -> PathBuf {
        self.folder.path().join("assets").join(environment)
    }

    /// The file under a seed name in the sandbox's folder.
    pub(crate) fn sandbox(&self, name: &str) -> PathBuf {
        self.assets("sandbox").join(name)
    }

    pub(crate) fn write_config(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("gateway.toml");
        fs::write(&path, text).expect("a writable file");
        path
    }

    pub(crate) fn inspect(&self, text: &str) -> Inspection {
        inspect(&self.write_config(text), NOW)
    }

    pub(crate) fn findings(&self, text: &str) -> Vec<Finding> {
        self.inspect(text).findings
    }

    /// The one finding with this code; anything else with it is a failure of the test.
    #[track_caller]
    pub(crate) fn only(&self, text: &str, code: &str) -> Finding {
        let findings = self.findings(text);
        let matching: Vec<_> = findings.iter().filter(|finding| finding.code == code).collect();
        assert_eq!(matching.len(), 1, "{code} should be there once: {findings:#?}");
        let others: Vec<_> =
            findings.iter().filter(|f| f.code != code && f.severity == Severity::Error).collect();
        assert!(others.is_empty(), "other errors beside {code}: {others:#?}");
        matching[0].clone()
    }
}

/// A good file with one sandbox environment; the comments are places to put more in ([`with`]).
pub(crate) const GOOD: &str = r#"
[egress]
listen = ["127.0.0.1:0"]
# egress
[admin]
listen = "127.0.0.1:0"
[environments.sandbox]
stage = "sandbox"
customer = "CUSTOMER-0001"
assets = "assets/sandbox"
endpoint = "https://tmg.dbp-stg.thalescloud.io/1/sandbox-v2/"
# environment
[environments.sandbox.identity]
common_name = "CUSTOMER-0001-SBX"
# identity
[environments.sandbox.trust]
# trust
[[routes]]
environment = "sandbox"
# route
"#;

/// A production environment with its route, to go behind [`GOOD`].
pub(crate) const PRODUCTION: &str = r#"
[environments.production]
stage = "production"
customer = "CUSTOMER-0001"
assets = "assets/production"
endpoint = "https://tmg.dbp.thalescloud.io/1/mg/"
[environments.production.identity]
common_name = "CUSTOMER-0001-PRD"
"#;

/// [`GOOD`] with `line` at the place of that name.
pub(crate) fn with(place: &str, line: &str) -> String {
    let mark = format!("# {place}\n");
    assert!(GOOD.contains(&mark), "no place {place}");
    GOOD.replace(&mark, &format!("{line}\n"))
}
