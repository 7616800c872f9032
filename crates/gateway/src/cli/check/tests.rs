//! What `check` prints and how it exits.

use std::net::TcpListener;

use super::*;
use crate::config::testing::{Client, Fixture, GOOD, NOW};

fn args(path: &Path) -> CheckArgs {
    CheckArgs { config: Some(path.to_owned()), json: false, skip_listeners: false, keys: false }
}

fn run(path: &Path, args: &CheckArgs) -> (u8, String) {
    let mut out = Vec::new();
    let code = check_file(path, args, NOW, &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn a_good_file_exits_0_and_shows_what_requests_go_out_with() {
    let fixture = Fixture::new();
    let path = fixture.write_config(GOOD);
    let (code, text) = run(&path, &args(&path));
    assert_eq!(code, GOOD_CODE, "{text}");
    assert!(text.contains("sandbox (sandbox, customer CUSTOMER-0001): https://tmg.dbp-stg"), "{text}");
    assert!(text.contains("common name CUSTOMER-0001-SBX, until 2027-11-23T12:00:00Z"), "{text}");
    assert!(text.contains("anchor:   CN=Test Issuing CA"), "{text}");
    assert!(text.ends_with("gateway.toml: good: 0 errors, 0 warnings\n"), "{text}");
}

const GOOD_CODE: u8 = super::GOOD;

#[test]
fn all_faults_are_printed_at_once_and_the_exit_code_is_1() {
    let fixture = Fixture::new();
    let faulty =
        GOOD.replace("customer =", "custmer =").replace("environment = \"sandbox\"", "environment = \"x\"");
    let path = fixture.write_config(&faulty);
    let (code, text) = run(&path, &args(&path));
    assert_eq!(code, FINDINGS);
    for part in [
        "error[unknown_key]",
        "environments.sandbox.custmer",
        "nearest known key is `customer`",
        "error[missing_key]",
        "error[unknown_environment]",
        "3 errors",
    ] {
        assert!(text.contains(part), "{part} is missing from\n{text}");
    }
}

#[test]
fn an_expired_certificate_is_a_finding_although_the_gateway_would_start() {
    let fixture = Fixture::new();
    let past = NOW - time::Duration::days(1);
    Client::new("CUSTOMER-0001-SBX")
        .valid(past - time::Duration::days(30), past)
        .write(&fixture.assets("sandbox"));
    let path = fixture.write_config(GOOD);
    let (code, text) = run(&path, &args(&path));
    assert_eq!(code, FINDINGS);
    assert!(text.contains("quarantine[certificate_expired]"), "{text}");
    assert!(text.contains("quarantined: certificate_expired"), "{text}");
    assert!(text.contains("not good: 0 errors, 1 quarantine, 0 warnings"), "{text}");
}

#[test]
fn a_port_in_use_is_reported_at_its_key_even_beside_other_faults() {
    let fixture = Fixture::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = GOOD
        .replace("[\"127.0.0.1:0\"]", &format!("[\"127.0.0.1:{port}\"]"))
        .replace("customer =", "custmer =");
    let path = fixture.write_config(&text);
    let (code, report) = run(&path, &args(&path));
    assert_eq!(code, FINDINGS);
    assert!(report.contains("error[address_in_use]") && report.contains("egress.listen[0]"), "{report}");
    assert!(report.contains(&format!("127.0.0.1:{port} is in use by another process")), "{report}");
    assert!(report.contains("error[unknown_key]"), "{report}");
    let (_, report) = run(&path, &CheckArgs { skip_listeners: true, ..args(&path) });
    assert!(!report.contains("address_in_use"), "{report}");
}

#[test]
fn json_carries_the_same_findings() {
    let fixture = Fixture::new();
    let path = fixture.write_config(&GOOD.replace("stage = \"sandbox\"", "stage = \"sand\""));
    let (code, text) = run(&path, &CheckArgs { json: true, ..args(&path) });
    assert_eq!(code, FINDINGS);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["errors"], 1);
    let finding = &json["findings"][0];
    assert_eq!(finding["code"], "unknown_value");
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["key_path"], "environments.sandbox.stage");
    assert_eq!(finding["line"], 8);
    let path = fixture.write_config(GOOD);
    let (_, text) = run(&path, &CheckArgs { json: true, ..args(&path) });
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["environments"][0]["common_name"], "CUSTOMER-0001-SBX");
    assert_eq!(json["environments"][0]["stage"], "sandbox");
}

#[test]
fn the_exit_code_is_not_good_if_the_report_cannot_be_written() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let fixture = Fixture::new();
    let code = check(&args(&fixture.write_config(GOOD)), &mut Closed);
    assert_eq!(code, ExitCode::from(FINDINGS));
}

#[test]
fn keys_are_printed_on_demand() {
    let mut out = Vec::new();
    let args = CheckArgs { config: None, json: false, skip_listeners: false, keys: true };
    assert_eq!(check(&args, &mut out), ExitCode::from(GOOD_CODE));
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("| `min_connections` | 1 to 256 | `2` |"), "{text}");
}

#[test]
fn usage_without_a_file_exits_2() {
    let args = CheckArgs { config: None, json: false, skip_listeners: false, keys: false };
    assert_eq!(check(&args, &mut Vec::new()), ExitCode::from(USAGE));
}
