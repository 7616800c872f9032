//! The rules of the behaviour as data.

use super::*;

#[test]
fn an_empty_document_is_the_default() {
    let read: Behaviour = serde_json::from_str("{}").unwrap();
    assert_eq!(read, Behaviour::default());
}

#[test]
fn durations_in_files_are_milliseconds_with_the_unit_in_the_key() {
    let read: Behaviour = serde_json::from_str(r#"{"latency_ms": 40, "goaway_after_ms": 2000}"#).unwrap();
    assert_eq!(read.latency, Duration::from_millis(40));
    assert_eq!(read.goaway_after, Some(Duration::from_secs(2)));
    let text = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Behaviour>(&text).unwrap(), read);
}

#[test]
fn an_unknown_key_is_refused() {
    let error = serde_json::from_str::<Behaviour>(r#"{"latencyms": 40}"#).unwrap_err();
    assert!(error.to_string().contains("latencyms"), "{error}");
}

#[test]
fn limits_hold_at_the_limit_and_fail_one_past_it() {
    let with_tickets = |tickets| Behaviour { tickets, ..Behaviour::default() }.validate();
    assert!(with_tickets(20).is_ok());
    assert!(with_tickets(21).unwrap_err().to_string().contains("tickets"));
    let with_cap = |cap| Behaviour { max_concurrent_streams: Some(cap), ..Behaviour::default() }.validate();
    assert!(with_cap(1).is_ok());
    assert!(with_cap(0).is_ok(), "a provider may announce that it takes none");
    let with_table = |size| Behaviour { header_table_size: Some(size), ..Behaviour::default() }.validate();
    assert!(with_table(4096).is_ok());
    assert!(with_table(4097).unwrap_err().to_string().contains("header_table_size"));
    let with_debug = |n| Behaviour { goaway_debug: "x".repeat(n), ..Behaviour::default() }.validate();
    assert!(with_debug(1024).is_ok());
    assert!(with_debug(1025).unwrap_err().to_string().contains("goaway_debug"));
}

#[test]
fn reset_reasons_are_known_by_their_names() {
    assert_eq!(ResetReason::named("refused_stream"), Some(ResetReason::RefusedStream));
    assert_eq!(ResetReason::named("http11_required"), Some(ResetReason::Http11Required));
    assert_eq!(ResetReason::named("250").map(|reason| u32::from(reason.code())), Some(250));
    assert_eq!(ResetReason::named("nonsense"), None);
}
