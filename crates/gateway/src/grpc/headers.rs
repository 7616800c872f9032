//! Header fields between messages and HTTP.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{GrpcLimits, core::Failure, proto};
use crate::outcome::ErrorCode;

/// Carried through untouched; made if absent.
pub(super) const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The fields of a request message. Names of wrong fields are named in the failure, values never.
pub(super) fn into_http(fields: Vec<proto::Header>, limits: &GrpcLimits) -> Result<HeaderMap, Box<Failure>> {
    if fields.len() > limits.max_headers {
        let message = format!("{} header fields, at most {} are taken", fields.len(), limits.max_headers);
        return Err(Failure::before_send(ErrorCode::HeadersTooLarge, message));
    }
    let size: usize = fields.iter().map(|f| f.name.len() + f.value.len().max(f.raw_value.len())).sum();
    if size > limits.max_header_bytes {
        let message = format!("{size} bytes of header fields, at most {} are taken", limits.max_header_bytes);
        return Err(Failure::before_send(ErrorCode::HeadersTooLarge, message));
    }
    let mut headers = HeaderMap::with_capacity(fields.len() + 1);
    for field in fields {
        let invalid = |what| {
            let message = format!("the {what} of header field {:?} is not valid", field.name);
            Failure::before_send(ErrorCode::BadRequest, message)
        };
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| invalid("name"))?;
        let value = match field.raw_value.is_empty() {
            true => HeaderValue::from_str(&field.value)
                .or_else(|_| HeaderValue::from_bytes(field.value.as_bytes())),
            false => HeaderValue::from_bytes(&field.raw_value),
        };
        headers.append(name, value.map_err(|_| invalid("value"))?);
    }
    Ok(headers)
}

/// The fields of a response, repeated names included, in order.
pub(super) fn from_http(headers: &HeaderMap) -> Vec<proto::Header> {
    headers
        .iter()
        .map(|(name, value)| {
            let name = name.as_str().to_owned();
            match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => proto::Header { name, value: text.to_owned(), raw_value: Bytes::new() },
                Err(_) => {
                    let raw_value = Bytes::copy_from_slice(value.as_bytes());
                    proto::Header { name, value: String::new(), raw_value }
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> proto::Header {
        proto::Header { name: name.to_owned(), value: value.to_owned(), raw_value: Bytes::new() }
    }

    #[test]
    fn repeated_fields_and_bytes_that_are_not_utf_8_survive_both_ways() {
        let mut fields = vec![field("x-a", "1"), field("x-a", "2"), field("x-b", "grüße")];
        fields.push(proto::Header { raw_value: Bytes::from_static(b"\xff\xfe"), ..field("x-c", "") });
        let headers = into_http(fields.clone(), &GrpcLimits::default()).unwrap();
        assert_eq!(from_http(&headers), fields);
    }

    #[test]
    fn invalid_fields_are_refused_by_name_without_their_value() {
        for (name, value) in [(":path", "/"), ("a b", "x"), ("", "x"), ("authorization", "secret\nx: y")] {
            let failure = into_http(vec![field(name, value)], &GrpcLimits::default()).unwrap_err();
            assert_eq!(failure.code, ErrorCode::BadRequest);
            assert!(failure.message.contains(&format!("{name:?}")), "{}", failure.message);
            assert!(!failure.message.contains("secret"), "{}", failure.message);
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_not_one_past_it() {
        let limits = GrpcLimits { max_headers: 2, max_header_bytes: 8, ..GrpcLimits::default() };
        assert!(into_http(vec![field("a", "123"), field("b", "123")], &limits).is_ok());
        for fields in [vec![field("a", "123"), field("b", "1234")], vec![field("a", ""); 3]] {
            assert_eq!(into_http(fields, &limits).unwrap_err().code, ErrorCode::HeadersTooLarge);
        }
    }
}
