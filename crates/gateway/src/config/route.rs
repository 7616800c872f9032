//! `[[routes]]`: reading them and the rules between them.
//!
//! Owns the meaning of the keys. Matching requests against routes is the work of `egress`.

use http::Method;
use http::header::{HeaderName, HeaderValue};
use pool::{RetryPolicy, Timeouts};

use super::endpoint::has_dot_segments;
use super::environment::Slot;
use super::finding::{Complaint, Severity};
use super::keys;
use super::model::Route;
use super::nearest::nearest;
use super::report::At;
use super::settings::change_request_timeouts;
use super::tree::{Section, Text};

/// A route with its place.
struct Drafted {
    route: Route,
    at: At,
}

/// Reads all routes. Those with faults are left out; the faults are reported.
pub(crate) fn read(root: &Section<'_>, environments: &[Slot], global: &Timeouts) -> Vec<Route> {
    let mut drafts: Vec<Drafted> = Vec::new();
    let sections = root.listed_sections("routes", keys::ROUTE);
    for (index, section) in sections.iter().enumerate() {
        if let Some(route) = read_route(section, index, environments, global) {
            judge_against_earlier(section, &route, &drafts);
            drafts.push(Drafted { route, at: section.at().clone() });
        }
    }
    // A route with faults may have been meant for any environment.
    if drafts.len() == sections.len() && !root.report().is_broken() {
        judge_coverage(root, environments, &drafts);
    }
    drafts.into_iter().map(|draft| draft.route).collect()
}

fn read_route(
    section: &Section<'_>,
    index: usize,
    environments: &[Slot],
    global: &Timeouts,
) -> Option<Route> {
    let path_prefix = section.text("path_prefix").and_then(|text| read_path(section, &text));
    let strip_prefix = read_strip_prefix(section, path_prefix.as_deref());
    let environment = read_environment(section, environments);
    let mut timeouts = environment.map_or(*global, |index| environments[index].timeouts);
    read_timeouts(section, &mut timeouts);
    let policies = [
        ("unprocessed", RetryPolicy::Unprocessed),
        ("idempotent", RetryPolicy::Idempotent),
        ("never", RetryPolicy::Never),
    ];
    Some(Route {
        name: section.text("name").map_or_else(|| format!("route-{}", index + 1), |t| t.value.to_owned()),
        host: section.text("host").and_then(|text| read_host(section, &text)),
        method: read_methods(section),
        header: read_headers(section),
        retry: section.choice("retry", &policies).unwrap_or_default(),
        path_prefix,
        strip_prefix,
        timeouts,
        environment: environment?,
    })
}

fn read_environment(section: &Section<'_>, environments: &[Slot]) -> Option<usize> {
    let text = section.required_text("environment", "name one of the environments of this file")?;
    let found = environments.iter().position(|slot| slot.name == text.value);
    if found.is_none() {
        let names = environments.iter().map(|slot| slot.name.as_str());
        let remedy = match nearest(text.value, names.clone()) {
            Some(name) => format!("the nearest environment is \"{name}\""),
            None if environments.is_empty() => format!("add [environments.{}]", text.value),
            None => format!("the environments of this file are {}", names.collect::<Vec<_>>().join(", ")),
        };
        let what = format!("there is no environment \"{}\"", text.value);
        section.report().error(&text.at, Complaint::new("unknown_environment", what, remedy));
    }
    found
}

fn read_timeouts(section: &Section<'_>, timeouts: &mut Timeouts) {
    let table = section.section("timeouts", keys::ROUTE_TIMEOUTS);
    change_request_timeouts(&table, timeouts);
    if section.has("timeout_ms") && table.has("response_header_ms") {
        let complaint = Complaint::new(
            "conflicting_keys",
            "`timeout_ms` and `timeouts.response_header_ms` both set the time-out for the response's header",
            "leave one of them out",
        );
        section.report().error(&section.at_key("timeout_ms"), complaint);
    }
    section.set_duration("timeout_ms", &mut timeouts.response_header);
}

fn read_path(section: &Section<'_>, text: &Text<'_>) -> Option<String> {
    let fault = if !text.value.starts_with('/') {
        "does not begin with `/`"
    } else if has_dot_segments(text.value) {
        "has dot segments, which are refused in requests"
    } else if text.value.contains(['?', '#']) {
        "has a query or fragment, which are no part of the path"
    } else if text.value.parse::<http::uri::PathAndQuery>().is_err() || !text.value.is_ascii() {
        "has characters that no request path can have"
    } else {
        return Some(text.value.to_owned());
    };
    let what = format!("the path \"{}\" {fault}", text.value);
    section
        .report()
        .error(&text.at, Complaint::new("bad_path", what, "write it as in requests: \"/sandbox/\""));
    None
}

fn read_strip_prefix(section: &Section<'_>, path_prefix: Option<&str>) -> Option<String> {
    let strip = if section.is_boolean("strip_prefix") {
        if !section.boolean("strip_prefix")? {
            return None;
        }
        path_prefix.map(str::to_owned)
    } else {
        let text = section.text("strip_prefix")?;
        Some(read_path(section, &text)?)
    };
    match (strip, path_prefix) {
        (Some(strip), Some(path)) if path.starts_with(strip.as_str()) => Some(strip),
        // The path itself was refused above; one fault is enough.
        (_, None) if section.has("path_prefix") => None,
        _ => {
            let complaint = Complaint::new(
                "strip_prefix_outside_route",
                "`path_prefix` does not begin with `strip_prefix`, so there would be requests with nothing to strip",
                "set `path_prefix` to a path that begins with `strip_prefix`",
            );
            section.report().error(&section.at_key("strip_prefix"), complaint);
            None
        }
    }
}

fn read_host(section: &Section<'_>, text: &Text<'_>) -> Option<String> {
    match text.value.parse::<http::uri::Authority>() {
        Ok(authority) if !authority.as_str().contains(['@', '*']) && !authority.host().is_empty() => {
            Some(text.value.to_ascii_lowercase())
        }
        _ => {
            let what = format!("\"{}\" is not a host", text.value);
            let remedy = "write the host of the request, with a port only if it matters: \"tsh.internal\"";
            section.report().error(&text.at, Complaint::new("bad_host", what, remedy));
            None
        }
    }
}

fn read_methods(section: &Section<'_>) -> Option<Vec<Method>> {
    let texts = section.texts("method")?;
    let mut methods = Vec::with_capacity(texts.len());
    for text in &texts {
        let fault = match Method::from_bytes(text.value.as_bytes()) {
            Err(_) => "is not a method",
            Ok(Method::CONNECT | Method::TRACE) => "is never forwarded",
            Ok(_) if text.value.bytes().any(|b| b.is_ascii_lowercase()) => {
                "is in lower case, but methods are told apart by case"
            }
            Ok(method) => {
                methods.push(method);
                continue;
            }
        };
        let what = format!("\"{}\" {fault}", text.value);
        section.report().error(
            &text.at,
            Complaint::new("bad_method", what, "write methods as in requests: [\"GET\", \"POST\"]"),
        );
    }
    if texts.is_empty() {
        let complaint = Complaint::new(
            "empty_value",
            "`method` is an empty list, so the route matches nothing",
            "name a method or leave the key out",
        );
        section.report().error(&section.at_key("method"), complaint);
    }
    Some(methods)
}

fn read_headers(section: &Section<'_>) -> Vec<(HeaderName, Option<HeaderValue>)> {
    let mut headers = Vec::new();
    for (name, text) in section.text_entries("header") {
        let value = if text.value == "*" { Ok(None) } else { HeaderValue::from_str(text.value).map(Some) };
        match (HeaderName::from_bytes(name.as_bytes()), value) {
            (Ok(name), Ok(value)) => headers.push((name, value)),
            (Err(_), _) => section.report().error(
                &text.at,
                Complaint::new(
                    "bad_header",
                    format!("\"{name}\" is not a header name"),
                    "write it as in requests: { \"x-pod\" = \"a\" }",
                ),
            ),
            (_, Err(_)) => section.report().error(
                &text.at,
                Complaint::new(
                    "bad_header",
                    format!("the value of \"{name}\" cannot stand in a header"),
                    "use visible ASCII characters, or \"*\" for any value",
                ),
            ),
        }
    }
    headers
}

fn judge_against_earlier(section: &Section<'_>, route: &Route, earlier: &[Drafted]) {
    if let Some(first) = earlier.iter().find(|draft| draft.route.name == route.name) {
        let what = format!("the name \"{}\" is already taken by {}", route.name, first.at.key_path);
        let complaint = Complaint::new(
            "duplicate_route",
            what,
            "give each route a name of its own: metrics are told apart by it",
        );
        section.report().error(&section.at_key("name"), complaint);
    }
    if let Some(first) = earlier.iter().find(|draft| covers(&draft.route, route)) {
        let what = format!(
            "{} (\"{}\") takes every request that this route could match",
            first.at.key_path, first.route.name
        );
        let complaint = Complaint::new(
            "route_unreachable",
            what,
            "put the more particular route first; the first match wins",
        );
        section.report().add(Severity::Warning, section.at(), complaint);
    }
}

/// Whether `first` matches whatever `second` matches. May miss a case, never claims a false one.
fn covers(first: &Route, second: &Route) -> bool {
    let path = match (&first.path_prefix, &second.path_prefix) {
        (None, _) => true,
        (Some(first), _) if first == "/" => true,
        (Some(first), Some(second)) => first == second,
        (Some(_), None) => false,
    };
    let host = first.host.is_none() || first.host == second.host;
    let method = match (&first.method, &second.method) {
        (None, _) => true,
        (Some(first), Some(second)) => second.iter().all(|method| first.contains(method)),
        (Some(_), None) => false,
    };
    path && host && method && first.header.iter().all(|header| second.header.contains(header))
}

fn judge_coverage(root: &Section<'_>, environments: &[Slot], drafts: &[Drafted]) {
    for (index, slot) in environments.iter().enumerate() {
        if !drafts.iter().any(|draft| draft.route.environment == index) {
            let complaint = Complaint::new(
                "environment_without_route",
                format!("no route leads to \"{}\": only gRPC calls that name it reach it", slot.name),
                format!("add [[routes]] with environment = \"{}\"", slot.name),
            );
            root.report().add(Severity::Warning, &slot.at, complaint);
        }
    }
}
