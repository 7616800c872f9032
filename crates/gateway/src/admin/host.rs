//! The guard against DNS rebinding: a web page whose name was made to resolve to loopback must not read us.
//!
//! A browser sends the page's own name as `Host`; only loopback names are answered.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::HOST, uri::Authority};

/// Whether the name that a request was sent to is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCheck {
    /// On TCP: only `localhost`, `127.0.0.0/8` and `[::1]`, with any port.
    LoopbackOnly,
    /// On a Unix socket, which no browser reaches.
    Off,
}

/// Answers 421 to a request for a name that is not a loopback name, or for none.
pub(super) async fn check(State(check): State<HostCheck>, request: Request, next: Next) -> Response {
    match check {
        HostCheck::LoopbackOnly if !names_loopback(&request) => (
            StatusCode::MISDIRECTED_REQUEST,
            "the admin listener answers to loopback names only: use localhost, 127.0.0.1 or [::1]\n",
        )
            .into_response(),
        HostCheck::LoopbackOnly | HostCheck::Off => next.run(request).await,
    }
}

fn names_loopback(request: &Request) -> bool {
    let hosts = request.headers().get_all(HOST);
    let mut named = hosts.iter().map(|value| Authority::try_from(value.as_bytes()).ok());
    // HTTP/2 and absolute-form requests carry the name in the target; where both are there, both must do.
    let target = request.uri().authority().cloned();
    let mut all = target.into_iter().map(Some).chain(named.by_ref()).peekable();
    all.peek().is_some() && all.all(|authority| authority.is_some_and(|a| is_loopback_name(a.host())))
}

fn is_loopback_name(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Request {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn loopback_names_pass() {
        for host in ["localhost", "LOCALHOST:9901", "127.0.0.1:9901", "127.1.2.3", "[::1]", "[::1]:9901"] {
            assert!(names_loopback(&request("/metrics", &[host])), "{host}");
        }
        assert!(names_loopback(&request("http://127.0.0.1:9901/metrics", &[])), "HTTP/2 has no Host");
    }

    #[test]
    fn other_names_and_none_are_refused() {
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "0.0.0.0"]
        {
            assert!(!names_loopback(&request("/metrics", &[host])), "{host:?}");
        }
        assert!(!names_loopback(&request("/metrics", &[])));
        assert!(!names_loopback(&request("/metrics", &["localhost", "evil.example"])));
        assert!(!names_loopback(&request("http://evil.example/", &["localhost"])));
    }
}
