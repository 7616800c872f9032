//! Where a provider is: its public URL, and the ways to dial it differently.
//!
//! Owns [`Endpoint`], [`ConnectTo`] and [`Via`] and their text forms. Dialling is the pool's work.

use std::fmt;
use std::net::SocketAddr;

use http::uri::Authority;
use url::{Host, Url};

use super::finding::Complaint;

/// The provider's public URL: `TSH_INBOUND_HOST` (S22) with the API's base path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name in lower case, or an IP address without brackets. Checked against the server's certificate.
    pub host: String,
    /// Port. Default 443.
    pub port: u16,
    /// Base path without a trailing slash: `""` or `"/1/sandbox-v2"`. Byte for byte as written.
    pub base_path: String,
    /// What requests carry as `Host` or `:authority`; the port is left out when it is 443.
    pub authority: Authority,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}/", self.authority, self.base_path)
    }
}

/// Where to dial instead of the endpoint's own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectTo {
    /// An address.
    Address(SocketAddr),
    /// A name to resolve.
    Host {
        /// Host name.
        host: String,
        /// Port.
        port: u16,
    },
}

impl fmt::Display for ConnectTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// An HTTP proxy that opens a tunnel with CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// Host name, or an IP address without brackets.
    pub host: String,
    /// Port. Default 80, as in any `http:` URL.
    pub port: u16,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

/// Whether a path has a segment `.` or `..`, encoded or not: what it means depends on who reads it.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
}

/// Reads `endpoint`.
pub(crate) fn parse_endpoint(text: &str) -> Result<Endpoint, Complaint> {
    const REMEDY: &str = "write it as https://host/base/path/: TSH_INBOUND_HOST as given by Thales, joined with the API's base path";
    let bad = |what: String| Complaint::new("bad_endpoint", what, REMEDY);
    let url = Url::parse(text).map_err(|e| bad(format!("`{}` is not a URL: {e}", shown(text))))?;
    // `Url` mends what it reads (dots, spaces, backslashes); the path must go out as it was written.
    let uri: http::Uri =
        text.parse().map_err(|e| bad(format!("`{}` is not a URL that can be sent: {e}", shown(text))))?;
    if url.scheme() != "https" {
        return Err(bad(format!(
            "the scheme is `{}`, but every call to Thales uses mutual TLS (S1)",
            url.scheme()
        )));
    }
    if has_user(&url) {
        return Err(bad("the URL holds a user name or password, which has no meaning here".into()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad(format!("`{}` has a query or fragment; a base path has none", shown(text))));
    }
    if has_dot_segments(uri.path()) {
        return Err(bad(format!("the base path `{}` has dot segments", uri.path())));
    }
    let host = plain_host(&url).ok_or_else(|| bad(format!("`{}` has no host", shown(text))))?;
    let port = url.port().unwrap_or(443);
    if port == 0 {
        return Err(bad("port 0 cannot be dialled".into()));
    }
    let shown_host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let authority = if port == 443 { shown_host } else { format!("{shown_host}:{port}") };
    let authority =
        authority.parse().map_err(|e| bad(format!("`{authority}` cannot stand in a request: {e}")))?;
    Ok(Endpoint { host, port, base_path: uri.path().trim_end_matches('/').to_owned(), authority })
}

/// Reads `connect`.
pub(crate) fn parse_connect(text: &str) -> Result<ConnectTo, Complaint> {
    let bad = |what: &str| {
        Complaint::new(
            "bad_connect",
            format!("`{}` {what}", shown(text)),
            "write an address or a host with its port: 127.0.0.1:9443, [::1]:9443 or host.internal:9443",
        )
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            return Err(bad("has port 0, which cannot be dialled"));
        }
        return Ok(ConnectTo::Address(address));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("has no port"))?;
    let port =
        port.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(|| bad("has no port from 1 to 65535"))?;
    match Host::parse(host) {
        Ok(Host::Domain(host)) => Ok(ConnectTo::Host { host, port }),
        _ => Err(bad("is neither an address nor a host with its port")),
    }
}

/// Reads `via`.
pub(crate) fn parse_via(text: &str) -> Result<Via, Complaint> {
    const REMEDY: &str = "write it as http://proxy.internal:3128";
    let bad = |what: String| Complaint::new("bad_via", what, REMEDY);
    let url = Url::parse(text).map_err(|e| bad(format!("`{}` is not a URL: {e}", shown(text))))?;
    if url.scheme() != "http" {
        return Err(bad(format!("the scheme is `{}`; the proxy is spoken to in plain HTTP", url.scheme())));
    }
    if has_user(&url) {
        return Err(Complaint::new(
            "bad_via",
            "the URL holds a user name or password; proxy credentials are not supported in this version",
            "let the proxy admit this host, and write the URL without credentials",
        ));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(bad("a proxy has no path, query or fragment".into()));
    }
    let host = plain_host(&url).ok_or_else(|| bad(format!("`{}` has no host", shown(text))))?;
    match url.port_or_known_default() {
        Some(port) if port != 0 => Ok(Via { host, port }),
        _ => Err(bad("port 0 cannot be dialled".into())),
    }
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn plain_host(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Domain("") => None,
        Host::Domain(name) => Some(name.to_owned()),
        Host::Ipv4(address) => Some(address.to_string()),
        Host::Ipv6(address) => Some(address.to_string()),
    }
}

/// A URL as it may stand in a message: a password in it is not repeated.
fn shown(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) if rest.contains('@') => {
            format!("{scheme}://…@{}", rest.rsplit('@').next().unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_keeps_its_base_path_and_drops_the_usual_port() {
        let e = parse_endpoint("https://tmg.dbp-stg.thalescloud.io:443/1/sandbox-v2/").unwrap();
        assert_eq!((e.host.as_str(), e.port), ("tmg.dbp-stg.thalescloud.io", 443));
        assert_eq!(e.base_path, "/1/sandbox-v2");
        assert_eq!(e.authority.as_str(), "tmg.dbp-stg.thalescloud.io");
        assert_eq!(e.to_string(), "https://tmg.dbp-stg.thalescloud.io/1/sandbox-v2/");
    }

    #[test]
    fn an_endpoint_names_another_port_in_its_authority() {
        let e = parse_endpoint("https://LOCALHOST:9443").unwrap();
        assert_eq!(
            (e.host.as_str(), e.base_path.as_str(), e.authority.as_str()),
            ("localhost", "", "localhost:9443")
        );
        let e = parse_endpoint("https://[::1]:9443/a%2Fb/").unwrap();
        assert_eq!(
            (e.host.as_str(), e.base_path.as_str(), e.authority.as_str()),
            ("::1", "/a%2Fb", "[::1]:9443")
        );
    }

    #[test]
    fn a_bad_url_is_refused_with_its_fault_and_remedy() {
        for (text, fault) in [
            ("tmg.dbp.thalescloud.io/1/", "not a URL"),
            ("http://h/", "mutual TLS (S1)"),
            ("https://", "not a URL"),
            ("https://h/?a=b", "query or fragment"),
            ("https://h/a/../b", "dot segments"),
            ("https://h/a/%2E%2e/b", "dot segments"),
            ("https://h:0/", "port 0"),
            ("https://h:99999/", "not a URL"),
            ("https://h/a b", "not a URL that can be sent"),
            (" https://h/", "not a URL that can be sent"),
        ] {
            let complaint = parse_endpoint(text).unwrap_err();
            assert!(complaint.message.contains(fault), "{text}: {}", complaint.message);
            assert!(complaint.remedy.contains("TSH_INBOUND_HOST"), "{}", complaint.remedy);
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let endpoint = parse_endpoint("https://user:hunter2@h/").unwrap_err();
        let via = parse_via("http://user:hunter2@h:3128").unwrap_err();
        let broken = parse_via("http://user:hunter2@h:port").unwrap_err();
        for complaint in [endpoint, via, broken] {
            assert!(!format!("{complaint:?}").contains("hunter2"), "{complaint:?}");
        }
    }

    #[test]
    fn connect_takes_addresses_and_names() {
        assert_eq!(
            parse_connect("127.0.0.1:9443"),
            Ok(ConnectTo::Address("127.0.0.1:9443".parse().unwrap()))
        );
        assert_eq!(parse_connect("a.b:1"), Ok(ConnectTo::Host { host: "a.b".into(), port: 1 }));
        for text in ["127.0.0.1", "a.b", "a.b:0", "127.0.0.1:0", "a.b:port", "https://a.b:1", "[::1]"] {
            assert_eq!(parse_connect(text).unwrap_err().code, "bad_connect", "{text}");
        }
    }

    #[test]
    fn via_is_a_plain_http_proxy() {
        assert_eq!(
            parse_via("http://proxy.internal:3128"),
            Ok(Via { host: "proxy.internal".into(), port: 3128 })
        );
        assert_eq!(parse_via("http://p/").unwrap().port, 80);
        for text in ["https://p:3128", "socks5://p:1", "p:3128", "http://p/path"] {
            assert_eq!(parse_via(text).unwrap_err().code, "bad_via", "{text}");
        }
    }
}
