//! Listeners and routes: the rules between keys.

use http::Method;
use pool::RetryPolicy;

use crate::config::testing::{Fixture, GOOD, PRODUCTION, with};
use crate::config::{AccessLog, Finding, Severity};

#[track_caller]
fn says(finding: &Finding, message: &str, remedy: &str) {
    assert!(finding.message.contains(message), "message of {finding:#?}");
    assert!(finding.remedy.contains(remedy), "remedy of {finding:#?}");
}

fn listening_on(address: &str) -> String {
    GOOD.replace("listen = [\"127.0.0.1:0\"]", &format!("listen = [\"{address}\"]"))
}

#[test]
fn a_listener_beyond_loopback_is_refused_unless_explicitly_allowed() {
    let fixture = Fixture::new();
    for address in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080"] {
        let finding = fixture.only(&listening_on(address), "listener_not_loopback");
        says(&finding, "callers are not authenticated", "allow_unauthenticated = true");
        assert_eq!(finding.key_path, "egress.listen[0]");
        let allowed = listening_on(address).replace("# egress", "allow_unauthenticated = true");
        let finding = fixture.only(&allowed, "unauthenticated_callers");
        assert_eq!(finding.severity, Severity::Warning);
        assert!(fixture.inspect(&allowed).config.unwrap().egress.allow_unauthenticated);
    }
}

#[test]
fn a_deadline_header_is_a_name_without_a_meaning_of_its_own() {
    let fixture = Fixture::new();
    let text = with("egress", "deadline_header = \"X-Request-Timeout-Ms\"");
    let header = fixture.inspect(&text).config.unwrap().egress.deadline_header.unwrap();
    assert_eq!(header, "x-request-timeout-ms");
    for (name, message) in [
        ("a b", "not a header name"),
        ("Content-Length", "meaning of its own"),
        ("grpc-timeout", "meaning of its own"),
        ("gw-deadline", "meaning of its own"),
    ] {
        let text = with("egress", &format!("deadline_header = \"{name}\""));
        says(&fixture.only(&text, "bad_header"), message, "x-request-timeout-ms");
    }
}

#[test]
fn name_servers_are_addresses_with_53_for_a_port_unless_told() {
    let fixture = Fixture::new();
    let dns = |servers: &str| format!("{GOOD}[dns]\nservers = [{servers}]\n");
    let config = fixture.inspect(&dns("\"10.0.0.53\", \"[fd00::53]:5353\", \"::1\"")).config.unwrap();
    let servers: Vec<_> = config.environments[0].pool.name_servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.53:53", "[fd00::53]:5353", "[::1]:53"]);
    for wrong in ["\"ns.bank\"", "\"10.0.0.53:0\"", "\"10.0.0.53:65536\""] {
        says(&fixture.only(&dns(wrong), "bad_address"), "not the address of a name server", "10.0.0.53");
    }
    let nine = ["\"10.0.0.1\""; 9].join(",");
    says(&fixture.only(&dns(&nine), "too_many_servers"), "9 name servers", "nearest");
}

#[test]
fn distrust_of_the_last_stream_id_is_a_switch() {
    let fixture = Fixture::new();
    let text = with("environment", "pool = { trust_last_stream_id = false, learned_limits = false }");
    let pool = fixture.inspect(&text).config.unwrap().environments.remove(0).pool;
    assert_eq!(pool.last_stream_id, pool::LastStreamId::DistrustedUnlessIdempotent);
    assert_eq!(pool.learned_limits, pool::LearnedLimitsMode::Off);
}

#[test]
fn the_admin_listener_never_leaves_loopback() {
    let fixture = Fixture::new();
    let text = with("egress", "allow_unauthenticated = true")
        .replace("\"127.0.0.1:0\"\n[env", "\"0.0.0.0:9901\"\n[env");
    says(&fixture.only(&text, "admin_not_loopback"), "reached from other hosts", "127.0.0.1");
}

#[test]
fn two_listeners_on_one_address_are_refused_and_free_ports_are_not() {
    let fixture = Fixture::new();
    let finding = fixture.only(&listening_on("127.0.0.1:8080\", \"127.0.0.1:8080"), "duplicate_listener");
    says(&finding, "already taken by egress.listen[0]", "own address or port");
    let text =
        listening_on("127.0.0.1:8080").replace("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:8080\"");
    assert_eq!(fixture.only(&text, "duplicate_listener").key_path, "admin.listen");
    assert_eq!(fixture.findings(&listening_on("127.0.0.1:0\", \"127.0.0.1:0")), []);
}

#[test]
fn an_empty_list_of_listeners_is_refused() {
    let fixture = Fixture::new();
    let text = GOOD.replace("listen = [\"127.0.0.1:0\"]", "listen = []");
    says(&fixture.only(&text, "no_listener"), "no caller could reach", "name an address");
}

#[test]
fn a_bad_url_is_refused() {
    let fixture = Fixture::new();
    for url in ["not a url", "http://h/", "https://h/?q", "https://h/a/%2e%2E/"] {
        let text = GOOD.replace("https://tmg.dbp-stg.thalescloud.io/1/sandbox-v2/", url);
        let finding = fixture.only(&text, "bad_endpoint");
        assert_eq!(finding.key_path, "environments.sandbox.endpoint");
        assert!(finding.remedy.contains("https://host/base/path/"), "{finding}");
    }
    fixture.only(&with("environment", "via = \"https://p:1\""), "bad_via");
    fixture.only(&with("environment", "connect = \"127.0.0.1\""), "bad_connect");
}

#[test]
fn a_route_to_an_unknown_environment_names_the_nearest() {
    let fixture = Fixture::new();
    let text = GOOD.replace("environment = \"sandbox\"", "environment = \"sandbix\"");
    let finding = fixture.only(&text, "unknown_environment");
    says(&finding, "no environment \"sandbix\"", "nearest environment is \"sandbox\"");
    assert_eq!(finding.key_path, "routes[0].environment");
}

#[test]
fn a_faulty_environment_does_not_make_its_routes_faulty() {
    let fixture = Fixture::new();
    fixture.only(&GOOD.replace("stage = \"sandbox\"\n", ""), "missing_key");
}

#[test]
fn a_route_is_read_in_full() {
    let fixture = Fixture::new();
    let text = with(
        "route",
        "name = \"pay\"\npath_prefix = \"/pay/v1\"\nhost = \"TSH.internal\"\nmethod = [\"GET\", \"POST\"]\nheader = { \"X-Pod\" = \"a\", x-any = \"*\" }\nstrip_prefix = \"/pay\"\nretry = \"idempotent\"",
    );
    let inspection = fixture.inspect(&text);
    assert_eq!(inspection.findings, []);
    let route = inspection.config.unwrap().routes.remove(0);
    assert_eq!(route.name, "pay");
    assert_eq!(route.path_prefix.as_deref(), Some("/pay/v1"));
    assert_eq!(route.host.as_deref(), Some("tsh.internal"));
    assert_eq!(route.method, Some(vec![Method::GET, Method::POST]));
    assert_eq!(route.header[0], ("x-pod".parse().unwrap(), Some("a".parse().unwrap())));
    assert_eq!(route.header[1], ("x-any".parse().unwrap(), None));
    assert_eq!(route.strip_prefix.as_deref(), Some("/pay"));
    assert_eq!(route.retry, RetryPolicy::Idempotent);
}

#[test]
fn strip_prefix_true_means_the_path_prefix() {
    let fixture = Fixture::new();
    let strip =
        |line: &str| fixture.inspect(&with("route", line)).config.unwrap().routes[0].strip_prefix.clone();
    assert_eq!(strip("path_prefix = \"/a\"\nstrip_prefix = true").as_deref(), Some("/a"));
    assert_eq!(strip("path_prefix = \"/a\"\nstrip_prefix = false"), None);
}

#[test]
fn a_prefix_that_cannot_be_stripped_is_refused() {
    let fixture = Fixture::new();
    for line in
        ["path_prefix = \"/a\"\nstrip_prefix = \"/b\"", "strip_prefix = \"/b\"", "strip_prefix = true"]
    {
        let finding = fixture.only(&with("route", line), "strip_prefix_outside_route");
        assert!(finding.remedy.contains("begins with `strip_prefix`"), "{finding}");
    }
}

#[test]
fn faulty_conditions_of_a_route_are_refused() {
    let fixture = Fixture::new();
    for (line, code, message) in [
        ("path_prefix = \"a\"", "bad_path", "begin with `/`"),
        ("path_prefix = \"/a/../b\"", "bad_path", "dot segments"),
        ("path_prefix = \"/a?b\"", "bad_path", "query"),
        ("path_prefix = \"/a b\"", "bad_path", "characters"),
        ("host = \"http://a\"", "bad_host", "not a host"),
        ("method = \"get\"", "bad_method", "lower case"),
        ("method = [\"CONNECT\"]", "bad_method", "never forwarded"),
        ("header = { \"a b\" = \"x\" }", "bad_header", "not a header name"),
        ("header = { a = \"\\u0001\" }", "bad_header", "cannot stand in a header"),
        ("timeout_ms = 1\ntimeouts = { response_header_ms = 1 }", "conflicting_keys", "both set"),
    ] {
        let finding = fixture.only(&with("route", line), code);
        assert!(finding.message.contains(message), "{finding}");
    }
}

#[test]
fn routes_that_can_never_match_draw_a_warning() {
    let fixture = Fixture::new();
    let text = format!("{GOOD}[[routes]]\npath_prefix = \"/a\"\nenvironment = \"sandbox\"\n");
    let finding = fixture.only(&text, "route_unreachable");
    says(&finding, "routes[0]", "first match wins");
    assert_eq!((finding.severity, finding.key_path.as_str()), (Severity::Warning, "routes[1]"));
    let text = format!("{}[[routes]]\nenvironment = \"sandbox\"\n", with("route", "path_prefix = \"/a\""));
    assert_eq!(fixture.findings(&text), []);
}

#[test]
fn routes_have_names_of_their_own() {
    let fixture = Fixture::new();
    let text = format!(
        "{}[[routes]]\nname = \"a\"\nenvironment = \"sandbox\"\n",
        with("route", "name = \"a\"\nhost = \"h\"")
    );
    says(&fixture.only(&text, "duplicate_route"), "already taken by routes[0]", "name of its own");
}

#[test]
fn an_environment_without_a_route_draws_a_warning() {
    let fixture = Fixture::new();
    let finding = fixture.only(&format!("{GOOD}{PRODUCTION}"), "environment_without_route");
    assert_eq!(finding.severity, Severity::Warning);
    says(&finding, "\"production\"", "environment = \"production\"");
}

#[test]
fn names_of_environments_fit_into_labels() {
    let fixture = Fixture::new();
    let finding = fixture.only(
        &GOOD
            .replace("environments.sandbox", "environments.\"a b\"")
            .replace("environment = \"sandbox\"", "environment = \"a b\""),
        "bad_name",
    );
    says(&finding, "\"a b\"", "letters, digits");
}

#[test]
fn the_access_log_has_four_places() {
    let fixture = Fixture::new();
    for (value, place) in [
        ("off", AccessLog::Off),
        ("stdout", AccessLog::Stdout),
        ("stderr", AccessLog::Stderr),
        ("file:logs/a.jsonl", AccessLog::File(fixture.folder().join("logs/a.jsonl"))),
    ] {
        let config = fixture.inspect(&format!("{GOOD}[log]\naccess = \"{value}\"\n")).config.unwrap();
        assert_eq!(config.log.access, place);
    }
}
