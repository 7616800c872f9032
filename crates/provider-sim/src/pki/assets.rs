//! Owns the files of the asset exchange, named as the provider names them. It does not read any.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ClientCredentials, Pki};
use crate::SimError;

/// Writes a customer's folder: `TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem` (the intermediate) and
/// `CUSTOMER_TLS_CLIENT_CERTIFICATE.pem` and `.key` (mode 0600). `dir` must exist; files are replaced.
///
/// # Errors
/// [`SimError::Write`] with the file that could not be written.
pub fn write_assets(dir: &Path, pki: &Pki, client: &ClientCredentials) -> Result<(), SimError> {
    write(&dir.join("TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem"), &pki.anchors_pem(), Access::Public)?;
    write_client(dir, client)
}

pub(super) fn write_client(dir: &Path, client: &ClientCredentials) -> Result<(), SimError> {
    write(&dir.join("CUSTOMER_TLS_CLIENT_CERTIFICATE.pem"), &client.certificate_pem, Access::Public)?;
    write(&dir.join("CUSTOMER_TLS_CLIENT_CERTIFICATE.key"), &client.key_pem, Access::Secret)
}

pub(super) fn certificate_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII, so any index is a character boundary.
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[derive(Clone, Copy)]
enum Access {
    Public,
    Secret,
}

fn write(path: &Path, text: &str, access: Access) -> Result<(), SimError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    if let Access::Secret = access {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A file left by an earlier run may have another mode, and `mode` only applies to new files.
        let _ = std::fs::remove_file(path);
        options.mode(0o600);
    }
    let _ = access;
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| SimError::Write { path: path.to_owned(), source })
}
