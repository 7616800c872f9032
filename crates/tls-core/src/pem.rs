//! PEM files as they come from the user: a label for messages and the bytes, nothing decided yet.
//!
//! Owns reading within a bound and finding certificates and private keys among the sections. What a
//! certificate or a key must be is decided by `identity.rs` and `trust.rs`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// The largest PEM file that is read: 1 MiB. A chain of four certificates has 8 KiB; a file beyond this is
/// not one.
pub const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// A PEM file's content with the name that messages call it by. The bytes may be a private key: they are
/// wiped on drop and never shown by `Debug`.
#[derive(Clone)]
pub struct PemSource {
    label: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl PemSource {
    /// Reads a file of at most [`MAX_PEM_BYTES`]; its label is the path as given.
    ///
    /// # Errors
    ///
    /// [`PemReadError`] if the file is missing, unreadable, not a file or too large.
    pub fn read(path: &Path) -> Result<Self, PemReadError> {
        let label = path.display().to_string();
        let unreadable = |source| PemReadError::Io { label: label.clone(), source };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        if metadata.len() > MAX_PEM_BYTES {
            return Err(PemReadError::TooLarge { label });
        }
        // Room for the whole file at once: a growing vector would leave copies of a key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
        file.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_PEM_BYTES {
            return Err(PemReadError::TooLarge { label });
        }
        Ok(Self { label, bytes })
    }

    /// PEM that is already in memory, under a name for messages.
    pub fn from_bytes(label: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { label: label.into(), bytes: Zeroizing::new(bytes) }
    }

    /// What messages call this source: the path as the user wrote it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The certificates in the order of the file. Other sections are passed over. The error says which
    /// section cannot be decoded, and why, without repeating its content.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<_, _>>().map_err(|e| describe(&e))
    }

    /// The private keys in the order of the file, encrypted ones not among them.
    pub(crate) fn private_keys(&self) -> Result<Vec<PrivateKeyDer<'static>>, String> {
        PrivateKeyDer::pem_slice_iter(&self.bytes).collect::<Result<_, _>>().map_err(|e| describe(&e))
    }

    /// Whether a private key here is behind a passphrase: PKCS#8 (`ENCRYPTED PRIVATE KEY`) or the older
    /// OpenSSL form (`Proc-Type: 4,ENCRYPTED`).
    pub(crate) fn has_encrypted_key(&self) -> bool {
        self.contains(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || self.contains(b"Proc-Type: 4,ENCRYPTED")
    }

    /// Whether the bytes look like DER rather than PEM: they begin with a long SEQUENCE.
    pub(crate) fn looks_like_der(&self) -> bool {
        matches!(self.bytes.as_slice(), [0x30, 0x81..=0x83, ..])
    }

    fn contains(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemSource").field("label", &self.label).finish_non_exhaustive()
    }
}

/// Why a PEM file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PemReadError {
    /// Missing, not permitted, or a failure of the disk.
    #[error("{label}: cannot be read: {source}; check the path and that this user may read the file")]
    Io {
        /// The path as the user wrote it.
        label: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Larger than [`MAX_PEM_BYTES`].
    #[error("{label}: larger than 1 MiB, so not a certificate or key; name the PEM file itself")]
    TooLarge {
        /// The path as the user wrote it.
        label: String,
    },
}

/// What is wrong with a PEM section. The library's own text may quote lines of the file, and the file may
/// be a key, so only the kind is passed on.
fn describe(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::MissingSectionEnd { .. } => "a section has no END line".into(),
        Error::IllegalSectionStart { .. } => "a BEGIN line is malformed".into(),
        Error::Base64Decode(_) => "a section is not base64".into(),
        Error::SectionTooLarge => "a section is too large".into(),
        _ => "it cannot be decoded as PEM".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_its_remedy() {
        let error = PemSource::read(Path::new("no/such/file.pem")).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("no/such/file.pem: cannot be read:"), "{text}");
        assert!(text.contains("check the path"), "{text}");
    }

    #[test]
    fn a_directory_is_not_a_pem_file() {
        assert!(matches!(PemSource::read(Path::new(".")), Err(PemReadError::Io { .. })));
    }

    #[test]
    fn a_file_at_the_bound_is_read_and_one_past_it_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big.pem");
        std::fs::write(&path, vec![b'\n'; MAX_PEM_BYTES as usize]).unwrap();
        assert!(PemSource::read(&path).is_ok());
        std::fs::write(&path, vec![b'\n'; MAX_PEM_BYTES as usize + 1]).unwrap();
        assert!(matches!(PemSource::read(&path), Err(PemReadError::TooLarge { .. })));
    }

    #[test]
    fn debug_shows_the_label_and_no_content() {
        let source = PemSource::from_bytes("client.key", b"very secret".to_vec());
        assert_eq!(format!("{source:?}"), "PemSource { label: \"client.key\", .. }");
    }

    #[test]
    fn a_broken_section_is_described_without_its_content() {
        let pem = b"-----BEGIN PRIVATE KEY-----\nc2Vj*cmV0\n-----END PRIVATE KEY-----\n";
        let error = PemSource::from_bytes("k", pem.to_vec()).private_keys().unwrap_err();
        assert_eq!(error, "a section is not base64");
        let open = b"-----BEGIN CERTIFICATE-----\nAAAA\n".to_vec();
        let error = PemSource::from_bytes("c", open).certificates().unwrap_err();
        assert_eq!(error, "a section has no END line");
    }

    #[test]
    fn both_forms_of_encrypted_keys_are_recognised() {
        let pkcs8 = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(PemSource::from_bytes("k", pkcs8.to_vec()).has_encrypted_key());
        let openssl =
            b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n";
        assert!(PemSource::from_bytes("k", openssl.to_vec()).has_encrypted_key());
        assert!(!PemSource::from_bytes("k", b"-----BEGIN PRIVATE KEY-----\n".to_vec()).has_encrypted_key());
    }
}
