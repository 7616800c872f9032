//! What a caller is told whose request never became one: whole replies as bytes, after which it is left.
//!
//! Owns the replies, and which of hyper's they replace. Failures of requests are told by `reply`.

use pool::Journey;

use super::reply::{GW_ERROR, GW_RETRY_SAFE, SERVER_TIMING, document, server_timing};
use crate::outcome::ErrorCode;

/// Said to a caller whose header does not end, before it is left.
pub(super) fn too_slow() -> Vec<u8> {
    last_words(ErrorCode::RequestTimeout, "the request's header did not end in time (timeouts.header_ms)")
}

/// How hyper's own reply to a header that it cannot read begins and ends, and how many lines it has. It says nothing
/// of what went wrong, so ours goes out instead.
const HYPERS_OWN: [(&[u8], ErrorCode); 3] = [
    (b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n", ErrorCode::BadRequest),
    (b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n", ErrorCode::HeadersTooLarge),
    (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n",
        ErrorCode::HeadersTooLarge,
    ),
];
const HYPERS_LINES: usize = 5;

/// Our reply in place of hyper's, if `data` is that and nothing more.
pub(super) fn in_our_words(data: &[u8]) -> Option<Vec<u8>> {
    let (_, code) = HYPERS_OWN.iter().find(|(begin, _)| data.starts_with(begin))?;
    let lines = data.split(|byte| *byte == b'\n').count() - 1;
    // A date and the empty line follow. Replies that were carried have more: a correlation identifier at least.
    (lines == HYPERS_LINES && data.ends_with(b"\r\n\r\n")).then(|| match code {
        ErrorCode::HeadersTooLarge => last_words(*code, "the request's header is too large to be read"),
        _ => last_words(*code, "the request's header is not valid HTTP/1.1"),
    })
}

/// A whole HTTP/1.1 reply for a caller whose request never became one, after which its connection is closed.
fn last_words(code: ErrorCode, detail: &str) -> Vec<u8> {
    let retry_safe = code.retry_safe_before_send();
    let document = document(code, retry_safe, None, detail, None, None);
    let status = code.status();
    let mut reply = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\n{GW_ERROR}: {}\r\n{GW_RETRY_SAFE}: {}\r\n\
         {SERVER_TIMING}: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or("Error"),
        code.as_str(),
        retry_safe.as_str(),
        server_timing(&Journey::default()),
        document.len(),
    )
    .into_bytes();
    reply.extend_from_slice(&document);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_refusal_is_said_in_our_words() {
        let own = |status: &str| {
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n")
        };
        for (status, code) in [
            ("400 Bad Request", "bad_request"),
            ("414 URI Too Long", "headers_too_large"),
            ("431 Request Header Fields Too Large", "headers_too_large"),
        ] {
            let words = String::from_utf8(in_our_words(own(status).as_bytes()).unwrap()).unwrap();
            let (head, body) = words.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("gw-error: {code}\r\ngw-retry-safe: no\r\nserver-timing: ")),
                "{head}"
            );
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], code);
        }
        let carried = own("400 Bad Request").replace("date: x", "x-correlation-id: 1\r\ndate: x");
        for other in [carried, own("500 Internal Server Error"), own("400 Bad Request") + "HTTP/1.1 "] {
            assert_eq!(in_our_words(other.as_bytes()), None, "{other}");
        }
    }
}
