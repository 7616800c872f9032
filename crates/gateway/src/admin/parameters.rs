//! Query parameters, strictly: whoever mistypes a filter learns it, and does not read an answer to another question.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use url::form_urlencoded;

/// Most bytes of what was asked that an answer repeats.
const QUOTED: usize = 64;

/// The parameters of one request, each at most once and none that is not allowed.
#[derive(Debug)]
pub(super) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// A parameter that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadParameter {
    name: String,
    detail: String,
    allowed: Vec<String>,
}

impl BadParameter {
    /// The value of `name` is none of `allowed`, which names the values or describes them.
    pub(super) fn value(
        name: &str,
        value: &str,
        allowed: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let allowed: Vec<String> = allowed.into_iter().map(Into::into).collect();
        let detail = format!("`{}` is no value of `{name}`; allowed: {}", quote(value), allowed.join(", "));
        Self { name: name.to_owned(), detail, allowed }
    }

    fn name(name: &str, fault: &str, known: &[&str]) -> Self {
        let name = quote(name);
        let detail = format!("the parameter `{name}` {fault}; there are: {}", known.join(", "));
        Self { name, detail, allowed: known.iter().map(ToString::to_string).collect() }
    }
}

fn quote(text: &str) -> String {
    let end = (0..=QUOTED.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

impl<'a> Parameters<'a> {
    /// Reads a query.
    pub(super) fn parse(query: &'a str, known: &[&str]) -> Result<Self, BadParameter> {
        let mut found: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*name) {
                return Err(BadParameter::name(&name, "is unknown", known));
            }
            if found.iter().any(|(other, _)| *other == name) {
                return Err(BadParameter::name(&name, "is there twice", known));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// The value of a parameter, if it was given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// The value of a parameter, made into something by `read`, which says no by `None`.
    pub(super) fn read<T>(
        &self,
        name: &str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, BadParameter> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| BadParameter::value(name, value, [allowed]))
    }

    /// The value of a parameter that names one of these.
    pub(super) fn choose<T: Copy>(
        &self,
        name: &str,
        choices: impl IntoIterator<Item = (T, &'static str)> + Clone,
    ) -> Result<Option<T>, BadParameter> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match choices.clone().into_iter().find(|(_, word)| *word == value) {
            Some((choice, _)) => Ok(Some(choice)),
            None => Err(BadParameter::value(name, value, choices.into_iter().map(|(_, word)| word))),
        }
    }

    /// The parameter `limit`: how many at most.
    pub(super) fn limit(&self, default: usize, most: usize) -> Result<usize, BadParameter> {
        let within = |value: &str| value.parse().ok().filter(|limit| (1..=most).contains(limit));
        Ok(self.read("limit", &format!("a number from 1 to {most}"), within)?.unwrap_or(default))
    }
}

impl IntoResponse for BadParameter {
    fn into_response(self) -> Response {
        let document = serde_json::json!({
            "type": "urn:tsh-gateway:error:invalid_parameter",
            "title": "Invalid query parameter",
            "status": StatusCode::BAD_REQUEST.as_u16(),
            "detail": self.detail,
            "code": "invalid_parameter",
            "parameter": self.name,
            "allowed": self.allowed,
        });
        let mut response = (StatusCode::BAD_REQUEST, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["state", "limit"];

    #[test]
    fn parameters_are_decoded_and_may_be_left_out() {
        let parameters = Parameters::parse("state=a%20b", KNOWN).unwrap();
        assert_eq!((parameters.get("state"), parameters.get("limit")), (Some("a b"), None));
        assert_eq!(Parameters::parse("", KNOWN).unwrap().limit(100, 10).unwrap(), 100);
    }

    #[test]
    fn an_unknown_parameter_and_one_that_is_there_twice_are_refused() {
        let fault = Parameters::parse("stat=x", KNOWN).unwrap_err();
        assert_eq!((fault.name.as_str(), fault.allowed.len()), ("stat", 2));
        assert!(fault.detail.contains("is unknown; there are: state, limit"), "{}", fault.detail);
        let fault = Parameters::parse("limit=1&limit=2", KNOWN).unwrap_err();
        assert!(fault.detail.contains("twice"), "{}", fault.detail);
    }

    #[test]
    fn a_limit_has_bounds() {
        for bad in ["0", "11", "-1", "ten", "", "99999999999999999999999"] {
            let query = format!("limit={bad}");
            let fault = Parameters::parse(&query, KNOWN).unwrap().limit(5, 10).unwrap_err();
            assert_eq!(fault.allowed, ["a number from 1 to 10"], "{bad}");
        }
    }

    #[test]
    fn what_is_quoted_is_cut_between_characters() {
        let fault = Parameters::parse(&"é".repeat(100), KNOWN).map(|_| ()).unwrap_err();
        assert!(fault.name.len() <= QUOTED && fault.name.chars().all(|c| c == 'é'));
    }
}
