//! The admin listener's socket: TCP on loopback, or a Unix socket that only its owner may use.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::Path,
};

use tokio::net::{TcpListener, UnixListener};

use super::HostCheck;

/// A bound listener.
#[derive(Debug)]
pub enum AdminListener {
    /// On loopback.
    Tcp(TcpListener),
    /// On a Unix socket.
    Unix(UnixListener),
}

impl AdminListener {
    /// Binds to a loopback address; port 0 takes a free one. To be called inside a runtime.
    ///
    /// # Errors
    /// An address beyond loopback (`InvalidInput`), or what the system says.
    pub async fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let message = format!("the admin listener may be on loopback only, not on {address}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self::Tcp(TcpListener::bind(address).await?))
    }

    /// The address, for TCP.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The host check that this kind of socket needs.
    #[must_use]
    pub fn host_check(&self) -> HostCheck {
        match self {
            Self::Tcp(_) => HostCheck::LoopbackOnly,
            Self::Unix(_) => HostCheck::Off,
        }
    }
}

/// Binds a Unix socket with mode 0600. A socket left behind by a process that is gone is replaced; one that
/// somebody listens on, or another kind of file, is not. To be called inside a runtime.
///
/// # Errors
/// `AddrInUse` when somebody listens there, `AlreadyExists` for a file that is no socket, or what the system says.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let message =
                format!("{} exists and is not a socket: remove it or choose another path", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        if UnixStream::connect(path).is_ok() {
            let message = format!("somebody already listens on {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_beyond_loopback_is_refused() {
        let error = AdminListener::bind_tcp(SocketAddr::from(([0, 0, 0, 0], 0))).await.unwrap_err();
        assert!(error.to_string().contains("loopback"), "{error}");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_or_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(bind_unix(&path).unwrap());
        let live = bind_unix(&path).expect("the stale one is replaced");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind_unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);

        let file = folder.path().join("notes.txt");
        fs::write(&file, "keep me").unwrap();
        assert_eq!(bind_unix(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).unwrap(), "keep me");
    }
}
