//! Which route a request takes: the first in the file whose every condition holds.

use http::{HeaderMap, Method, Request};

use crate::config::Route;

/// What of a request decides its route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    /// Host with port, as asked; lower case is not assumed.
    pub(super) host: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    /// The authority of an absolute-form or HTTP/2 request, else the `host` field.
    pub(super) fn of<B>(request: &'a Request<B>) -> Self {
        let host = match request.uri().authority() {
            Some(authority) => Some(authority.as_str()),
            None => request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()),
        };
        Self { method: request.method(), path: request.uri().path(), host, headers: request.headers() }
    }
}

/// The index of the first route that matches.
pub(super) fn find(routes: &[Route], asked: Asked<'_>) -> Option<usize> {
    routes.iter().position(|route| matches(route, asked))
}

/// Whether a route that was named takes the request. A condition on the host holds for requests that have one.
pub(super) fn takes(route: &Route, asked: Asked<'_>) -> bool {
    match (&route.host, asked.host) {
        (Some(host), None) => matches(route, Asked { host: Some(host), ..asked }),
        _ => matches(route, asked),
    }
}

fn matches(route: &Route, asked: Asked<'_>) -> bool {
    route.path_prefix.as_deref().is_none_or(|prefix| has_prefix(asked.path, prefix))
        && route.host.as_deref().is_none_or(|host| asked.host.is_some_and(|asked| is_host(asked, host)))
        && route.method.as_ref().is_none_or(|methods| methods.contains(asked.method))
        && route.header.iter().all(|(name, value)| match value {
            None => asked.headers.contains_key(name),
            Some(value) => asked.headers.get_all(name).iter().any(|given| given == value),
        })
}

/// `/a` covers `/a` and `/a/b` but not `/ab`; `/a/` covers what is below it.
fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

/// A route's host without a port holds for every port.
fn is_host(asked: &str, wanted: &str) -> bool {
    if asked.eq_ignore_ascii_case(wanted) {
        return true;
    }
    match asked.rsplit_once(':') {
        Some((name, port)) => port.bytes().all(|b| b.is_ascii_digit()) && name.eq_ignore_ascii_case(wanted),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(edit: impl FnOnce(&mut Route)) -> Route {
        let mut route = Route {
            name: "r".into(),
            path_prefix: None,
            host: None,
            method: None,
            header: Vec::new(),
            environment: 0,
            strip_prefix: None,
            timeouts: pool::Timeouts::default(),
            retry: pool::RetryPolicy::default(),
        };
        edit(&mut route);
        route
    }

    fn takes(route: &Route, method: Method, uri: &str, fields: &[(&str, &str)]) -> bool {
        let mut builder = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let request = builder.body(()).unwrap();
        find(std::slice::from_ref(route), Asked::of(&request)).is_some()
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let r = route(|r| r.path_prefix = Some("/mg".into()));
        assert!(takes(&r, Method::GET, "/mg", &[]) && takes(&r, Method::GET, "/mg/tokens", &[]));
        assert!(!takes(&r, Method::GET, "/mgx", &[]));
        let r = route(|r| r.path_prefix = Some("/".into()));
        assert!(takes(&r, Method::GET, "/anything", &[]));
    }

    #[test]
    fn the_host_is_the_authority_or_the_field_with_any_port() {
        let r = route(|r| r.host = Some("sandbox.bank".into()));
        assert!(takes(&r, Method::GET, "/", &[("host", "Sandbox.bank:8080")]));
        assert!(takes(&r, Method::GET, "http://sandbox.bank/x", &[("host", "other")]));
        assert!(!takes(&r, Method::GET, "/", &[("host", "production.bank")]));
        assert!(!takes(&r, Method::GET, "/", &[]));
    }

    #[test]
    fn a_named_route_keeps_its_conditions_but_a_missing_host_breaks_none() {
        let r = route(|r| {
            r.host = Some("sandbox.bank".into());
            r.method = Some(vec![Method::POST]);
        });
        let asked = |method: &'static str, host: Option<&'static str>| {
            let mut builder = Request::builder().method(method).uri("/a");
            if let Some(host) = host {
                builder = builder.header("host", host);
            }
            super::takes(&r, Asked::of(&builder.body(()).unwrap()))
        };
        assert!(asked("POST", None) && asked("POST", Some("sandbox.bank:1")));
        assert!(!asked("POST", Some("other.bank")) && !asked("GET", None));
    }

    #[test]
    fn methods_and_headers_must_all_hold() {
        let r = route(|r| {
            r.method = Some(vec![Method::POST]);
            r.header = vec![
                ("x-pod".parse().unwrap(), Some("a".parse().unwrap())),
                ("x-any".parse().unwrap(), None),
            ];
        });
        assert!(takes(&r, Method::POST, "/", &[("x-pod", "a"), ("x-any", "1")]));
        assert!(!takes(&r, Method::GET, "/", &[("x-pod", "a"), ("x-any", "1")]));
        assert!(!takes(&r, Method::POST, "/", &[("x-pod", "b"), ("x-any", "1")]));
        assert!(!takes(&r, Method::POST, "/", &[("x-pod", "a")]));
    }
}
