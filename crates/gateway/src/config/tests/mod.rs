//! What a configuration means, and what every bad one is told: each test reads the message.

mod certificates;
mod reference;
mod rules;
mod structure;

use super::testing::{Fixture, GOOD, NOW, PRODUCTION, with};
use super::{ConnectTo, ListenAddress, Severity, load};

#[test]
fn a_good_file_loads_without_a_finding() {
    let fixture = Fixture::new();
    let loaded = load(&fixture.write_config(GOOD), NOW).unwrap();
    assert_eq!(loaded.findings, []);
    let config = loaded.config;
    assert_eq!(config.environments.len(), 1);
    let sandbox = &config.environments[0];
    let credentials = sandbox.credentials.as_ref().unwrap();
    assert_eq!(credentials.identity.certificate().common_name(), Some("CUSTOMER-0001-SBX"));
    assert_eq!(credentials.trust.anchors().len(), 1);
    assert!(credentials.trust.pins().is_empty());
    assert_eq!(sandbox.endpoint.base_path, "/1/sandbox-v2");
    assert!(sandbox.required);
    assert_eq!(sandbox.pool, pool::PoolConfig::default());
    assert_eq!(sandbox.timeouts, pool::Timeouts::default());
    assert_eq!(config.routes[0].name, "route-1");
    assert_eq!(config.routes[0].environment, 0);
    assert_eq!(config.environment("sandbox").map(|(index, _)| index), Some(0));
}

#[test]
fn listeners_default_to_loopback() {
    let fixture = Fixture::new();
    let text = GOOD.replace("listen = [\"127.0.0.1:0\"]", "").replace("listen = \"127.0.0.1:0\"", "");
    let config = fixture.inspect(&text).config.unwrap();
    assert_eq!(config.egress.listen, [ListenAddress::Tcp(([127, 0, 0, 1], 8080).into())]);
    assert_eq!(config.admin.listen, ListenAddress::Tcp(([127, 0, 0, 1], 9901).into()));
}

#[test]
fn the_sample_of_the_contract_loads_with_its_bare_names_looked_up_in_assets() {
    let fixture = Fixture::new();
    let text = format!(
        r#"
[egress]
listen = ["127.0.0.1:8080", "unix:egress.sock"]
[admin]
listen = "127.0.0.1:9901"
[environments.sandbox]
stage = "sandbox"
customer = "CUSTOMER-0001"
assets = "assets/sandbox"
endpoint = "https://tmg.dbp-stg.thalescloud.io/1/sandbox-v2/"
connect = "127.0.0.1:9443"
via = "http://proxy.internal:3128"
required = true
regime = "tsh"
[environments.sandbox.identity]
certificate = "CUSTOMER_TLS_CLIENT_CERTIFICATE.pem"
key = "CUSTOMER_TLS_CLIENT_CERTIFICATE.key"
common_name = "CUSTOMER-0001-SBX"
[environments.sandbox.trust]
anchors = ["TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem"]
pins = ["sha256/{pin}"]
[environments.sandbox.pool]
min_connections = 2
max_connections = 8
[[routes]]
path_prefix = "/"
environment = "sandbox"
"#,
        pin = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    );
    let inspection = fixture.inspect(&text);
    assert_eq!(inspection.findings, []);
    let config = inspection.config.unwrap();
    let sandbox = &config.environments[0];
    assert_eq!(sandbox.connect, Some(ConnectTo::Address(([127, 0, 0, 1], 9443).into())));
    assert_eq!(sandbox.credentials.as_ref().unwrap().trust.pins().len(), 1);
    assert_eq!(config.egress.listen[1], ListenAddress::Unix(fixture.folder().join("egress.sock")));
}

#[test]
fn a_path_with_a_folder_resolves_against_the_file_and_not_against_assets() {
    let fixture = Fixture::new();
    let text = with("identity", "certificate = \"./assets/sandbox/CUSTOMER_TLS_CLIENT_CERTIFICATE.pem\"");
    assert_eq!(fixture.findings(&text), []);
}

#[test]
fn files_can_be_named_without_assets() {
    let fixture = Fixture::new();
    let text = with("identity", "certificate = \"assets/sandbox/CUSTOMER_TLS_CLIENT_CERTIFICATE.pem\"\nkey = \"assets/sandbox/CUSTOMER_TLS_CLIENT_CERTIFICATE.key\"")
        .replace("assets = \"assets/sandbox\"\n", "")
        .replace("# trust", "anchors = \"assets/sandbox/TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem\"");
    assert_eq!(fixture.findings(&text), []);
}

#[test]
fn time_outs_merge_from_the_file_through_the_environment_to_the_route() {
    let fixture = Fixture::new();
    let text = with("route", "timeout_ms = 3000\ntimeouts = { idle_ms = 4000 }")
        .replace("# environment", "timeouts = { queue_ms = 200, idle_ms = 2000, connect_ms = 20 }")
        + "[timeouts]\nqueue_ms = 100\ntotal_ms = 1000\nfirst_byte_ms = 7\n";
    let config = fixture.inspect(&text).config.unwrap();
    let millis = |duration: std::time::Duration| duration.as_millis();
    assert_eq!(millis(config.timeouts.queue), 100);
    assert_eq!(millis(config.caller_timeouts.first_byte), 7);
    let environment = config.environments[0].timeouts;
    assert_eq!(
        (millis(environment.queue), millis(environment.connect), millis(environment.idle)),
        (200, 20, 2000)
    );
    assert_eq!(environment.total.map(millis), Some(1000));
    let route = config.routes[0].timeouts;
    assert_eq!((millis(route.queue), millis(route.response_header), millis(route.idle)), (200, 3000, 4000));
    assert_eq!(millis(config.environments[0].timeouts.response_header), 30_000);
}

#[test]
fn all_faults_are_reported_at_once_each_with_its_place_and_remedy() {
    let fixture = Fixture::new();
    let text = with("environment", "stagee = \"x\"\nconnect = \"nowhere\"\npool = { min_connections = 0 }")
        .replace("listen = [\"127.0.0.1:0\"]", "listen = [\"0.0.0.0:1\", \"nonsense\"]")
        .replace("\"CUSTOMER-0001-SBX\"", "\"SOMEBODY\"")
        .replace("# trust", "pins = [\"md5/x\"]")
        .replace("environment = \"sandbox\"", "environment = \"sandbax\"");
    let error = load(&fixture.write_config(&text), NOW).unwrap_err();
    let codes: Vec<_> = error.findings.iter().map(|finding| finding.code).collect();
    for code in [
        "listener_not_loopback",
        "bad_listen_address",
        "unknown_key",
        "bad_connect",
        "out_of_range",
        "wrong_common_name",
        "malformed_pin",
        "unknown_environment",
    ] {
        assert!(codes.contains(&code), "{code} is missing from {codes:?}");
    }
    for finding in &error.findings {
        assert!(!finding.key_path.is_empty() && finding.line.is_some(), "{finding}");
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty(), "{finding}");
    }
    assert!(error.findings.is_sorted_by_key(|finding| finding.line), "in the order of the file");
}

#[test]
fn the_text_of_a_finding_says_where_what_and_how_to_mend_it() {
    let fixture = Fixture::new();
    let text = with("environment", "pool = { max_connection = 3 }");
    let finding = fixture.only(&text, "unknown_key");
    let line = text.lines().position(|line| line.starts_with("pool")).unwrap() + 1;
    assert_eq!(
        finding.to_string(),
        format!(
            "error[unknown_key] {}:{line} environments.sandbox.pool.max_connection\n  unknown key `max_connection`\n  remedy: the nearest known key is `max_connections`",
            fixture.folder().join("gateway.toml").display()
        )
    );
}

#[test]
fn two_stages_with_their_own_identities_load() {
    let fixture = Fixture::new();
    let text = format!(
        "{}{PRODUCTION}[[routes]]\nhost = \"p\"\nenvironment = \"production\"\n",
        with("route", "host = \"s\"")
    );
    let inspection = fixture.inspect(&text);
    assert_eq!(inspection.findings, []);
    assert!(inspection.config.is_some());
}

#[test]
fn severities_order_errors_first() {
    assert!(Severity::Error < Severity::Quarantine && Severity::Quarantine < Severity::Warning);
}
