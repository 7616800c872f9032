//! `[environments.NAME.health]`: the application health request.
//!
//! Owns reading it. Asking, and what follows, is the pool's work.

use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use pool::{Expected, HealthCheck};

use super::endpoint::{Endpoint, has_dot_segments};
use super::finding::Complaint;
use super::keys;
use super::tree::{Section, Text};

/// Reads the section; `None` without one, or with faults, which are reported.
pub(crate) fn read(environment: &Section<'_>, endpoint: Option<&Endpoint>) -> Option<HealthCheck> {
    let section = environment.section("health", keys::HEALTH);
    if !environment.has("health") {
        return None;
    }
    let path = section
        .required_text("path", "name a path that changes nothing at the provider, as in path = \"/health\"")
        .and_then(|text| read_path(&section, &text, endpoint));
    // An endpoint with faults is reported elsewhere; the rest of the section is judged all the same.
    let mut check = HealthCheck::get(path.clone().unwrap_or(PathAndQuery::from_static("/")));
    let methods = [("GET", Method::GET), ("HEAD", Method::HEAD), ("OPTIONS", Method::OPTIONS)];
    let words = [("GET", 0), ("HEAD", 1), ("OPTIONS", 2)];
    if let Some(chosen) = section.choice("method", &words) {
        check.method = methods[chosen].1.clone();
    }
    if let Some(expected) = read_expected(&section) {
        check.expect = expected;
    }
    section.set_duration("interval_ms", &mut check.interval);
    section.set_duration("timeout_ms", &mut check.timeout);
    section.set_whole("unhealthy_after", &mut check.unhealthy_after);
    section.set_whole("healthy_after", &mut check.healthy_after);
    path.map(|_| check)
}

/// As callers write paths: the endpoint's base path goes in front.
fn read_path(section: &Section<'_>, text: &Text<'_>, endpoint: Option<&Endpoint>) -> Option<PathAndQuery> {
    let joined = format!("{}{}", endpoint.map_or("", |e| e.base_path.as_str()), text.value);
    let fault = if !text.value.starts_with('/') {
        "does not begin with `/`"
    } else if text.value.contains('#') {
        "has a fragment, which never goes over the wire"
    } else if has_dot_segments(text.value) {
        "has dot segments"
    } else {
        match PathAndQuery::try_from(joined) {
            Ok(path) if text.value.is_ascii() => return Some(path),
            _ => "has characters that no request path can have",
        }
    };
    let what = format!("the path \"{}\" {fault}", text.value);
    let remedy = "write it as callers do, without the endpoint's base path: \"/health\"";
    section.report().error(&text.at, Complaint::new("bad_path", what, remedy));
    None
}

fn read_expected(section: &Section<'_>) -> Option<Expected> {
    if !section.is_list("expect") {
        return section.choice("expect", &[("2xx", ())]).map(|()| Expected::Success);
    }
    let numbers = section.numbers("expect", 200..=599)?;
    if numbers.is_empty() {
        let complaint = Complaint::new(
            "empty_value",
            "`expect` is an empty list, so no answer could be good",
            "name a status, as in [200], or leave the key out for any 2xx",
        );
        section.report().error(&section.at_key("expect"), complaint);
    }
    let code = |(number, _)| StatusCode::from_u16(u16::try_from(number).ok()?).ok();
    Some(Expected::Codes(numbers.into_iter().filter_map(code).collect()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::testing::{Fixture, GOOD};

    fn with_health(lines: &str) -> String {
        format!("{GOOD}[environments.sandbox.health]\n{lines}\n")
    }

    fn check(lines: &str) -> HealthCheck {
        let inspection = Fixture::new().inspect(&with_health(lines));
        assert_eq!(inspection.findings, [], "{lines}");
        inspection.config.unwrap().environments.remove(0).pool.health.unwrap()
    }

    #[test]
    fn a_health_request_needs_a_path_alone_which_the_base_path_goes_before() {
        let read = check("path = \"/health?deep=1\"");
        assert_eq!(read, HealthCheck::get(PathAndQuery::from_static("/1/sandbox-v2/health?deep=1")));
        let read = check(
            "path = \"/h\"\nmethod = \"HEAD\"\nexpect = [200, 404]\ninterval_ms = 1000\ntimeout_ms = 100\n\
             unhealthy_after = 1\nhealthy_after = 100",
        );
        assert_eq!(read.method, Method::HEAD);
        assert_eq!(read.expect, Expected::Codes(vec![StatusCode::OK, StatusCode::NOT_FOUND]));
        assert_eq!((read.interval, read.timeout), (Duration::from_secs(1), Duration::from_millis(100)));
        assert_eq!((read.unhealthy_after, read.healthy_after), (1, 100));
        let inspection = Fixture::new().inspect(GOOD);
        assert_eq!(inspection.config.unwrap().environments[0].pool.health, None, "none by default");
    }

    #[test]
    fn every_wrong_health_request_is_told_how_to_mend_it() {
        let fixture = Fixture::new();
        for (lines, code, remedy) in [
            ("method = \"GET\"", "missing_key", "path = \"/health\""),
            ("path = \"health\"", "bad_path", "\"/health\""),
            ("path = \"/a#b\"", "bad_path", "\"/health\""),
            ("path = \"/a/../b\"", "bad_path", "\"/health\""),
            ("path = \"/a b\"", "bad_path", "\"/health\""),
            ("path = \"/h\"\nmethod = \"POST\"", "unknown_value", "\"GET\", \"HEAD\", \"OPTIONS\""),
            ("path = \"/h\"\nexpect = \"3xx\"", "unknown_value", "\"2xx\""),
            ("path = \"/h\"\nexpect = [99]", "out_of_range", "200 to 599"),
            ("path = \"/h\"\nexpect = []", "empty_value", "[200]"),
            ("path = \"/h\"\nexpect = 200", "wrong_type", "quotes"),
        ] {
            let finding = fixture.only(&with_health(lines), code);
            assert!(finding.remedy.contains(remedy), "{lines}: {finding}");
        }
    }
}
