//! Which paths are forwarded, and what becomes of them: byte for byte, with the environment's base path in front.

use bytes::BytesMut;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};

/// A path holds `.` or `..` as a segment, plain or percent-encoded, between slashes of any kind (encoded ones and
/// backslashes too): what the provider would make of it is not what the route was chosen by.
pub(super) fn has_dot_segment(path: &str) -> bool {
    let bytes = path.as_bytes();
    // Most paths hold neither a dot nor an encoded one: one look at the bytes settles it.
    if !bytes.iter().any(|b| matches!(b, b'.' | b'%')) {
        return false;
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let (segment, after) = split_segment(rest);
        if is_dots(segment) {
            return true;
        }
        rest = after;
    }
    false
}

/// What stands before the next slash, and what follows it.
fn split_segment(path: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < path.len() {
        let slash = match &path[at..] {
            [b'/' | b'\\', ..] => 1,
            [b'%', b'2', b'f' | b'F', ..] | [b'%', b'5', b'c' | b'C', ..] => 3,
            _ => 0,
        };
        if slash > 0 {
            return (&path[..at], &path[at + slash..]);
        }
        at += 1;
    }
    (path, &[])
}

/// The segment is one or two dots, each plain or as `%2e`; matrix parameters (`..;x`) do not hide them.
fn is_dots(segment: &[u8]) -> bool {
    let mut rest = segment.split(|b| *b == b';').next().unwrap_or(segment);
    let mut dots = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
    }
    dots == 1 || dots == 2
}

/// The URI at the provider: `https`, its authority, base path and what is left of the caller's path. `None` if
/// that is no valid URI (nothing a caller sent through hyper leads there).
pub(super) fn target(authority: &Authority, base: &str, stripped: usize, path: &PathAndQuery) -> Option<Uri> {
    let path = if base.is_empty() && stripped == 0 { path.clone() } else { join(base, stripped, path)? };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

fn join(base: &str, stripped: usize, path: &PathAndQuery) -> Option<PathAndQuery> {
    let rest = path.as_str().get(stripped..)?;
    let mut joined = BytesMut::with_capacity(base.len() + rest.len() + 1);
    joined.extend_from_slice(base.as_bytes());
    if !rest.starts_with('/') {
        joined.extend_from_slice(b"/");
    }
    joined.extend_from_slice(rest.as_bytes());
    PathAndQuery::from_maybe_shared(joined.freeze()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_found_however_they_are_written() {
        for bad in [
            "/a/../b",
            "/..",
            "/.",
            "/a/.",
            "/%2e%2e/b",
            "/a/.%2E",
            "/%2E/x",
            "/a/..;x=1/b",
            "/a/%2e;y",
            "/a/..%2fb",
            "/a%2F..%2fb",
            "/..%5cb",
            "/a\\..",
            "/a/%2e%2e%5C",
        ] {
            assert!(has_dot_segment(bad), "{bad}");
        }
        for good in [
            "/",
            "/a/b",
            "/a/...",
            "/a/.well-known",
            "/a..b",
            "/%2e%2e%2e",
            "/a/%2f..b",
            "/a%2fb",
            "/v1.2/x%2Fy.json",
            "/a;..",
        ] {
            assert!(!has_dot_segment(good), "{good}");
        }
    }

    fn to(base: &str, stripped: usize, path: &str) -> String {
        let authority = Authority::from_static("tsh.test");
        target(&authority, base, stripped, &path.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_base_path_is_joined_and_the_rest_stays_byte_for_byte() {
        assert_eq!(to("", 0, "/a%20b?x=%2F"), "https://tsh.test/a%20b?x=%2F");
        assert_eq!(to("/1/sandbox-v2", 0, "/tokens?a=b"), "https://tsh.test/1/sandbox-v2/tokens?a=b");
        assert_eq!(to("/1/mg", 3, "/mg/tokens"), "https://tsh.test/1/mg/tokens");
        assert_eq!(to("/1/mg", 4, "/mg/tokens"), "https://tsh.test/1/mg/tokens");
        assert_eq!(to("", 3, "/mg?x"), "https://tsh.test/?x");
    }
}
