//! Owns the one error type of this crate. It does not own what goes wrong on single connections:
//! that is counted in the ledger, because misbehaving is what this server is for.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the simulator could not be set up. Every message says where, what, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// A certificate or key could not be made.
    #[error(
        "cannot issue the certificate of `{subject}`: {source}; check the names and the key type asked for"
    )]
    Issue {
        /// Whose certificate.
        subject: String,
        /// What the certificate library said.
        source: rcgen::Error,
    },
    /// The TLS library refused the server's own certificate or versions.
    #[error(
        "cannot build the server's TLS configuration: {0}; the server key must be one that TLS can sign with"
    )]
    Tls(#[from] rustls::Error),
    /// The listening socket could not be opened.
    #[error("cannot listen on {addr}: {source}; choose another address, or port 0 for a free one")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// An asset file could not be written.
    #[error("cannot write {}: {source}; the folder must exist and be writable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A value of [`Behaviour`](crate::Behaviour) is out of its range.
    #[error("behaviour.{key}: {problem}")]
    Behaviour {
        /// The field, as serde names it.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// A step of a script does not fit the behaviour of the moment.
    #[error("a step of the script cannot be done: {problem}")]
    Script {
        /// What is wrong and what would be right.
        problem: String,
    },
}
