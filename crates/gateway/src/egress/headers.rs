//! What is taken out of headers on the way through: what belongs to one hop, and what would tell too much.
//!
//! One pass over the names; nothing is allocated for a header that needs no change.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The support handle of every Thales API, passed through untouched.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Whether callers' `Forwarded`-style headers reach the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHeaders {
    /// They are taken out: they tell the provider about the bank's inner network.
    Strip,
    /// They pass.
    Forward,
}

/// What one look at a request's header showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Bytes of all names and values.
    pub(super) bytes: usize,
    /// Fields.
    pub(super) fields: usize,
    /// An upgrade other than to `h2c` is asked for.
    pub(super) upgrade: bool,
    /// What the content type says.
    pub(super) content: Content,
    /// There is a `grpc-timeout`.
    pub(super) grpc_timeout: bool,
    hop_by_hop: bool,
    client: bool,
    te: bool,
    correlation: bool,
}

/// What a content type says about the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing that concerns us.
    #[default]
    Plain,
    /// A gRPC call: its failures are gRPC statuses.
    Grpc,
    /// A form of gRPC for browsers (`application/grpc-web`), whose failures are HTTP's.
    GrpcWeb,
}

impl Content {
    fn of(value: &HeaderValue) -> Self {
        const GRPC: &[u8] = b"application/grpc";
        match value.as_bytes().split_at_checked(GRPC.len()) {
            Some((start, rest)) if start.eq_ignore_ascii_case(GRPC) => match rest.first() {
                None | Some(b'+' | b';') => Self::Grpc,
                Some(_) => Self::GrpcWeb,
            },
            _ => Self::Plain,
        }
    }
}

/// Looks at a request's header once.
pub(super) fn survey(headers: &HeaderMap) -> Survey {
    let mut found = Survey::default();
    for (name, value) in headers {
        found.fields += 1;
        found.bytes += name.as_str().len() + value.len() + 4;
        match class(name.as_str()) {
            Class::HopByHop => found.hop_by_hop = true,
            Class::Upgrade => {
                found.hop_by_hop = true;
                // Java's client offers h2c with every first request and takes HTTP/1.1 for an answer.
                found.upgrade |= !value.as_bytes().eq_ignore_ascii_case(b"h2c");
            }
            Class::Te => found.te = true,
            Class::Client => found.client = true,
            Class::Correlation => found.correlation = true,
            Class::ContentType => found.content = Content::of(value),
            Class::GrpcTimeout => found.grpc_timeout = true,
            Class::EndToEnd => {}
        }
    }
    found
}

/// Makes a caller's header fit for the provider. Returns the correlation identifier, made if there was none.
pub(super) fn to_provider(headers: &mut HeaderMap, found: Survey, client: ClientHeaders) -> HeaderValue {
    if found.hop_by_hop {
        remove_hop_by_hop(headers);
    }
    if found.te && !headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"))
    {
        headers.remove(header::TE);
    }
    if found.client && client == ClientHeaders::Strip {
        remove_class(headers, Class::Client);
    }
    headers.remove(header::HOST);
    if found.correlation
        && let Some(id) = headers.get_mut(CORRELATION_ID)
    {
        let told = id.clone();
        keep_out_of_tables(id);
        return told;
    }
    let id = new_correlation_id();
    let mut sent = id.clone();
    keep_out_of_tables(&mut sent);
    headers.insert(CORRELATION_ID, sent);
    id
}

/// A value that never comes again only drives others out of the compression tables of both sides (RFC 7541 §7.1.3:
/// a literal that is never indexed).
pub(super) fn keep_out_of_tables(value: &mut HeaderValue) {
    value.set_sensitive(true);
}

/// Makes a provider's header fit for the caller: no hop-by-hop fields, and none that only we may set.
pub(super) fn to_caller(headers: &mut HeaderMap) {
    let mut hop_by_hop = false;
    let mut ours = false;
    for name in headers.keys() {
        let name = name.as_str();
        hop_by_hop |= matches!(class(name), Class::HopByHop | Class::Upgrade);
        ours |= name.starts_with(OURS);
    }
    if hop_by_hop {
        remove_hop_by_hop(headers);
    }
    if ours {
        let forged: Vec<_> = headers.keys().filter(|n| n.as_str().starts_with(OURS)).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
}

/// Headers with this prefix are the gateway's word.
const OURS: &str = "gw-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    EndToEnd,
    HopByHop,
    Upgrade,
    Te,
    Client,
    Correlation,
    ContentType,
    GrpcTimeout,
}

/// Hop-by-hop fields: RFC 9110 §7.6.1 and what HTTP/2 forbids (RFC 9113 §8.2.2). `expect` was answered by us.
fn class(name: &str) -> Class {
    match name {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "transfer-encoding"
        | "http2-settings"
        | "expect"
        | "proxy-authorization"
        | "proxy-authenticate" => Class::HopByHop,
        "upgrade" => Class::Upgrade,
        "te" => Class::Te,
        "x-correlation-id" => Class::Correlation,
        "content-type" => Class::ContentType,
        "grpc-timeout" => Class::GrpcTimeout,
        "forwarded" | "via" | "x-real-ip" => Class::Client,
        _ if name.starts_with("x-forwarded-") => Class::Client,
        _ => Class::EndToEnd,
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Fields that `connection` names belong to this hop too, unless they carry what the message needs.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .filter(|name| {
            *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE && *name != CORRELATION_ID
        })
        .collect();
    for name in named {
        headers.remove(name);
    }
    remove_class(headers, Class::HopByHop);
    headers.remove(header::UPGRADE);
}

fn remove_class(headers: &mut HeaderMap, unwanted: Class) {
    let names: Vec<_> = headers.keys().filter(|name| class(name.as_str()) == unwanted).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// 32 hexadecimal digits: fits every pattern that Thales documents for the header.
pub(super) fn new_correlation_id() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let number = fastrand::u128(..);
    let mut text = [0u8; 32];
    for (i, digit) in text.iter_mut().enumerate() {
        *digit = HEX[(number >> (4 * i) & 0xf) as usize];
    }
    // Hexadecimal digits are visible ASCII, so this never takes the other way.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn forwarded(fields: &[(&'static str, &'static str)], client: ClientHeaders) -> Vec<String> {
        let mut headers = map(fields);
        let found = survey(&headers);
        to_provider(&mut headers, found, client);
        let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_are_taken_out() {
        let names = forwarded(
            &[
                ("connection", "close, x-private, content-length"),
                ("x-private", "1"),
                ("keep-alive", "5"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip"),
                ("expect", "100-continue"),
                ("host", "caller"),
                ("content-length", "3"),
                ("accept", "*/*"),
                ("x-correlation-id", "abc"),
            ],
            ClientHeaders::Strip,
        );
        assert_eq!(names, ["accept", "content-length", "x-correlation-id"]);
    }

    #[test]
    fn te_trailers_passes_because_grpc_needs_it() {
        assert_eq!(
            forwarded(&[("te", "trailers"), ("x-correlation-id", "a")], ClientHeaders::Strip),
            ["te", "x-correlation-id"]
        );
    }

    #[test]
    fn the_inner_network_is_not_told_unless_asked_for() {
        let fields = [
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("via", "1.1 a"),
            ("x-correlation-id", "a"),
        ];
        assert_eq!(forwarded(&fields, ClientHeaders::Strip), ["x-correlation-id"]);
        assert_eq!(forwarded(&fields, ClientHeaders::Forward).len(), 4);
    }

    #[test]
    fn a_correlation_id_passes_untouched_and_is_made_when_absent() {
        let mut headers = map(&[("x-correlation-id", "Caller-1 with space")]);
        let found = survey(&headers);
        assert_eq!(to_provider(&mut headers, found, ClientHeaders::Strip), "Caller-1 with space");
        let mut headers = HeaderMap::new();
        let made = to_provider(&mut headers, Survey::default(), ClientHeaders::Strip);
        assert_eq!(made.len(), 32);
        assert_eq!(headers[CORRELATION_ID], made);
    }

    #[test]
    fn the_provider_cannot_speak_in_our_name() {
        let mut headers =
            map(&[("gw-retry-safe", "yes"), ("gw-error", "x"), ("content-type", "a/b"), ("connection", "x")]);
        to_caller(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }

    #[test]
    fn content_types_of_grpc_are_told_apart() {
        for (value, want) in [
            ("application/grpc", Content::Grpc),
            ("Application/gRPC+proto", Content::Grpc),
            ("application/grpc;charset=utf-8", Content::Grpc),
            ("application/grpc-web+proto", Content::GrpcWeb),
            ("application/grp", Content::Plain),
            ("application/json", Content::Plain),
        ] {
            assert_eq!(survey(&map(&[("content-type", value)])).content, want, "{value}");
        }
    }

    #[test]
    fn an_offer_of_h2c_is_no_upgrade() {
        assert!(!survey(&map(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")])).upgrade);
        assert!(survey(&map(&[("upgrade", "websocket")])).upgrade);
    }
}
