//! Where the gateway listens: addresses, the loopback rule, and whether a listener can be bound.
//!
//! Owns [`ListenAddress`] and its rules. Accepting connections is the work of `egress` and `admin`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use http::header::HeaderName;

use super::finding::{Complaint, Severity};
use super::keys;
use super::model::{Admin, Egress};
use super::report::At;
use super::tree::{Section, Text};

/// The longest path of a Unix socket that Linux takes (`sun_path`, with its closing zero byte).
const MAX_UNIX_PATH: usize = 107;

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP. Port 0 takes a free port.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only this host can reach it: a loopback address or a Unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listener with its place in the file, for faults that only show on binding.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) address: ListenAddress,
    pub(crate) at: At,
}

/// Reads `[egress]`. The listeners come back with their places.
pub(crate) fn read_egress(root: &Section<'_>) -> (Egress, Vec<Placed>) {
    let section = root.section("egress", keys::EGRESS);
    let allow_unauthenticated = section.boolean("allow_unauthenticated").unwrap_or(false);
    let forward_client_headers = section.boolean("forward_client_headers").unwrap_or(false);
    let deadline_header =
        section.text("deadline_header").and_then(|text| read_deadline_header(&section, &text));
    let listeners = match section.texts("listen") {
        None => vec![Placed { address: default_egress(), at: section.at_key("listen") }],
        Some(texts) if texts.is_empty() => {
            let complaint = Complaint::new(
                "no_listener",
                "`listen` is empty, so no caller could reach the gateway",
                "name an address, as in listen = [\"127.0.0.1:8080\"], or leave the key out for that default",
            );
            section.report().add(Severity::Error, &section.at_key("listen"), complaint);
            Vec::new()
        }
        Some(texts) => texts.iter().filter_map(|text| read_address(&section, text)).collect(),
    };
    for placed in listeners.iter().filter(|p| !p.address.is_local()) {
        judge_open_listener(&section, placed, allow_unauthenticated);
    }
    let listen = listeners.iter().map(|p| p.address.clone()).collect();
    (Egress { listen, allow_unauthenticated, forward_client_headers, deadline_header }, listeners)
}

/// Fields that have a meaning of their own, which a time to wait would break.
const TAKEN: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "grpc-timeout",
    "host",
    "authorization",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-correlation-id",
];

fn read_deadline_header(section: &Section<'_>, text: &Text<'_>) -> Option<HeaderName> {
    let fault = match HeaderName::from_bytes(text.value.as_bytes()) {
        Err(_) => "is not a header name",
        Ok(name) if TAKEN.contains(&name.as_str()) || name.as_str().starts_with("gw-") => {
            "has a meaning of its own"
        }
        Ok(name) => return Some(name),
    };
    let complaint = Complaint::new(
        "bad_header",
        format!("\"{}\" {fault}", text.value),
        "choose a header that callers use for this alone, such as \"x-request-timeout-ms\"",
    );
    section.report().error(&text.at, complaint);
    None
}

/// Reads `[admin]`.
pub(crate) fn read_admin(root: &Section<'_>) -> (Admin, Option<Placed>) {
    let section = root.section("admin", keys::ADMIN);
    let default = ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 9901)));
    let placed = match section.text("listen") {
        Some(text) => read_address(&section, &text),
        None => Some(Placed { address: default.clone(), at: section.at_key("listen") }),
    };
    if let Some(placed) = placed.as_ref().filter(|p| !p.address.is_local()) {
        let complaint = Complaint::new(
            "admin_not_loopback",
            format!("the admin listener {} can be reached from other hosts", placed.address),
            "bind it to 127.0.0.1, [::1] or unix:/path; to look from elsewhere, forward the port over SSH",
        );
        section.report().add(Severity::Error, &placed.at, complaint);
    }
    let listen = placed.as_ref().map_or(default, |p| p.address.clone());
    (Admin { listen }, placed)
}

/// Two listeners on one address: the second could never be bound.
pub(crate) fn judge_duplicates(root: &Section<'_>, listeners: &[Placed]) {
    for (index, placed) in listeners.iter().enumerate() {
        if matches!(placed.address, ListenAddress::Tcp(address) if address.port() == 0) {
            continue;
        }
        if let Some(first) = listeners[..index].iter().find(|p| p.address == placed.address) {
            let complaint = Complaint::new(
                "duplicate_listener",
                format!("{} is already taken by {}", placed.address, first.at.key_path),
                "give each listener its own address or port",
            );
            root.report().add(Severity::Error, &placed.at, complaint);
        }
    }
}

fn default_egress() -> ListenAddress {
    ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))
}

fn judge_open_listener(section: &Section<'_>, placed: &Placed, allow_unauthenticated: bool) {
    let (severity, complaint) = if allow_unauthenticated {
        let complaint = Complaint::new(
            "unauthenticated_callers",
            format!("whoever reaches {} can call Thales in this bank's name", placed.address),
            "make sure that only the bank's own services can reach this address",
        );
        (Severity::Warning, complaint)
    } else {
        let complaint = Complaint::new(
            "listener_not_loopback",
            format!(
                "{} can be reached from other hosts, and callers are not authenticated: whoever reaches it could call Thales in this bank's name",
                placed.address
            ),
            "bind to 127.0.0.1, [::1] or unix:/path; or, where the network itself keeps strangers out, set allow_unauthenticated = true in [egress]",
        );
        (Severity::Error, complaint)
    };
    section.report().add(severity, &placed.at, complaint);
}

fn read_address(section: &Section<'_>, text: &Text<'_>) -> Option<Placed> {
    match parse(text.value, section.report().folder()) {
        Ok(address) => Some(Placed { address, at: text.at.clone() }),
        Err(complaint) => {
            section.report().add(Severity::Error, &text.at, complaint);
            None
        }
    }
}

/// Reads one address; a relative socket path resolves against `folder`.
fn parse(text: &str, folder: &Path) -> Result<ListenAddress, Complaint> {
    let bad = |what: String| {
        Complaint::new(
            "bad_listen_address",
            what,
            "write 127.0.0.1:8080, [::1]:8080 or unix:/run/tsh-gateway/egress.sock",
        )
    };
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(bad("`unix:` names no path".into()));
        }
        let path = folder.join(path);
        let length = path.as_os_str().len();
        if length > MAX_UNIX_PATH {
            return Err(bad(format!(
                "the socket path {} has {length} bytes; the system takes {MAX_UNIX_PATH}",
                path.display()
            )));
        }
        return Ok(ListenAddress::Unix(path));
    }
    text.parse()
        .map(ListenAddress::Tcp)
        .map_err(|_| bad(format!("`{text}` is not an IP address with a port")))
}

/// Whether the listener could be bound now. Binds and lets go at once; a Unix socket is only looked at.
pub(crate) fn try_bind(address: &ListenAddress) -> Result<(), Complaint> {
    let outcome = match address {
        ListenAddress::Tcp(address) => TcpListener::bind(address).map(drop),
        ListenAddress::Unix(path) => try_unix(path),
    };
    outcome.map_err(|error| bind_complaint(address, &error))
}

/// What a failure to bind `address` means and how to mend it, as one line.
#[must_use]
pub fn bind_fault(address: &ListenAddress, error: &io::Error) -> String {
    let Complaint { message, remedy, .. } = bind_complaint(address, error);
    format!("{message}; {remedy}")
}

fn bind_complaint(address: &ListenAddress, error: &io::Error) -> Complaint {
    match error.kind() {
        io::ErrorKind::AddrInUse => Complaint::new(
            "address_in_use",
            format!("{address} is in use by another process"),
            "stop that process or choose another port (`ss -ltnp` shows who listens; this gateway itself, if it runs already)",
        ),
        io::ErrorKind::AddrNotAvailable => Complaint::new(
            "address_not_local",
            format!("{address} is not an address of this host"),
            "use an address that `ip address` shows, or 127.0.0.1",
        ),
        io::ErrorKind::PermissionDenied => Complaint::new(
            "listen_not_permitted",
            format!("this user may not listen on {address}"),
            "use a port from 1024 up, or a folder this user may write to",
        ),
        _ => Complaint::new(
            "listen_failed",
            format!("cannot listen on {address}: {error}"),
            "mend what the system says, or choose another address",
        ),
    }
}

fn try_unix(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("the folder {} does not exist", folder.display()),
        ));
    }
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket stands there"))
        }
        // A socket that nobody answers is left over from a crash; the gateway replaces it.
        Ok(_) if UnixStream::connect(path).is_ok() => Err(io::Error::from(io::ErrorKind::AddrInUse)),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_three_forms() {
        let folder = Path::new("/etc/tsh");
        assert_eq!(parse("127.0.0.1:8080", folder).unwrap().to_string(), "127.0.0.1:8080");
        assert_eq!(parse("[::1]:0", folder).unwrap().to_string(), "[::1]:0");
        assert_eq!(parse("unix:/run/e.sock", folder).unwrap().to_string(), "unix:/run/e.sock");
        assert_eq!(parse("unix:e.sock", folder).unwrap().to_string(), "unix:/etc/tsh/e.sock");
        for text in ["8080", "localhost:8080", "127.0.0.1", "unix:", "127.0.0.1:65536"] {
            assert_eq!(parse(text, folder).unwrap_err().code, "bad_listen_address", "{text}");
        }
    }

    #[test]
    fn a_socket_path_is_taken_up_to_what_the_system_takes() {
        let fits = format!("unix:/{}", "a".repeat(MAX_UNIX_PATH - 1));
        assert!(parse(&fits, Path::new("/")).is_ok());
        assert!(parse(&format!("{fits}a"), Path::new("/")).unwrap_err().message.contains("108 bytes"));
    }

    #[test]
    fn loopback_is_told_in_every_form() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/a", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
        ] {
            assert_eq!(parse(text, Path::new("/")).unwrap().is_local(), local, "{text}");
        }
    }

    #[test]
    fn a_port_in_use_is_reported_with_its_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::Tcp(taken.local_addr().unwrap());
        let complaint = try_bind(&address).unwrap_err();
        assert_eq!(complaint.code, "address_in_use");
        assert!(complaint.message.contains(&address.to_string()));
        assert!(complaint.remedy.contains("another port"));
        drop(taken);
        assert_eq!(try_bind(&address), Ok(()));
    }

    #[test]
    fn a_socket_is_in_use_only_while_somebody_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.sock");
        let address = ListenAddress::Unix(path.clone());
        assert_eq!(try_bind(&address), Ok(()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(try_bind(&address).unwrap_err().code, "address_in_use");
        drop(listener);
        assert_eq!(try_bind(&address), Ok(()), "a socket left over from a crash is no hindrance");
        let missing = ListenAddress::Unix(folder.path().join("no/such.sock"));
        assert!(try_bind(&missing).unwrap_err().message.contains("does not exist"));
    }
}
