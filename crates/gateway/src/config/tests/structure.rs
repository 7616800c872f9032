//! The file as TOML: unknown keys, types, ranges, things named twice.

use crate::config::keys::{Kind, SECTIONS};
use crate::config::testing::{Fixture, GOOD, NOW, with};
use crate::config::{Finding, load};

#[track_caller]
fn says(finding: &Finding, message: &str, remedy: &str) {
    assert!(finding.message.contains(message), "message of {finding:#?}");
    assert!(finding.remedy.contains(remedy), "remedy of {finding:#?}");
}

#[test]
fn a_missing_configuration_file_is_named() {
    let error = load(std::path::Path::new("/no/such/gateway.toml"), NOW).unwrap_err();
    assert_eq!(error.findings[0].code, "file_missing");
    says(&error.findings[0], "/no/such/gateway.toml", "--config");
}

#[test]
fn an_unreadable_configuration_file_is_named() {
    let fixture = Fixture::new();
    let error = load(fixture.folder(), NOW).unwrap_err();
    assert_eq!(error.findings[0].code, "file_unreadable");
    says(&error.findings[0], "cannot be read", "this user may read it");
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let fixture = Fixture::new();
    for (text, key_path, remedy) in [
        (with("egress", "lisen = 1"), "egress.lisen", "nearest known key is `listen`"),
        (
            with("environment", "end_point = 1"),
            "environments.sandbox.end_point",
            "nearest known key is `endpoint`",
        ),
        (with("route", "path = \"/\""), "routes[0].path", "nearest known key is `path_prefix`"),
        (with("route", "timeout = 3"), "routes[0].timeout", "nearest known key is `timeout_ms`"),
        (format!("{GOOD}[timeout]\n"), "timeout", "nearest known key is `timeouts`"),
        (
            with("environment", "max_connections = 3"),
            "environments.sandbox.max_connections",
            "belongs in `[environments.NAME.pool]`",
        ),
        (with("egress", "colour = 3"), "egress.colour", "known here are `listen`"),
    ] {
        let finding = fixture.only(&text, "unknown_key");
        assert_eq!(finding.key_path, key_path);
        says(&finding, "unknown key", remedy);
    }
}

#[test]
fn a_key_of_a_later_version_is_refused_with_the_reason() {
    let fixture = Fixture::new();
    let finding = fixture.only(&with("route", "caller = \"payments\""), "unknown_key");
    says(&finding, "callers are not authenticated yet", "remove it");
}

#[test]
fn what_is_no_toml_is_told_by_line() {
    let fixture = Fixture::new();
    let findings = fixture.findings("[egress]\nlisten = 127.0.0.1:8080\n");
    assert_eq!((findings[0].code, findings[0].line), ("syntax", Some(2)));
    says(&findings[0], "not TOML", "strings stand in quotes");
    assert!(
        findings.iter().all(|f| f.code != "missing_key"),
        "what was skipped is not missing: {findings:#?}"
    );
}

#[test]
fn a_file_that_is_not_utf_8_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.write_config("");
    std::fs::write(&path, b"[egress]\nlisten = \"\xff\"\n").unwrap();
    let error = load(&path, NOW).unwrap_err();
    says(&error.findings[0], "line 2 is not UTF-8", "UTF-8");
}

#[test]
fn a_duplicate_environment_is_refused() {
    let fixture = Fixture::new();
    let text = format!("{GOOD}[environments.sandbox]\nstage = \"sandbox\"\n");
    let finding = fixture.only(&text, "duplicate_environment");
    says(&finding, "\"sandbox\" is there twice", "a name of its own");
    assert_eq!(finding.line.map(|l| l as usize), Some(GOOD.lines().count() + 1));
}

#[test]
fn environments_that_differ_in_case_alone_are_refused() {
    let fixture = Fixture::new();
    let second = GOOD[GOOD.find("[environments.sandbox]").unwrap()..GOOD.find("[[routes]]").unwrap()]
        .replace("environments.sandbox", "environments.Sandbox");
    let finding = fixture.only(&format!("{GOOD}{second}"), "duplicate_environment");
    says(&finding, "case of letters", "a name of its own");
}

#[test]
fn a_key_written_twice_is_refused() {
    let fixture = Fixture::new();
    let finding = fixture.only(&with("environment", "customer = \"B\""), "duplicate_key");
    says(&finding, "`customer` is there twice", "keep one");
}

#[test]
fn wrong_types_are_told_what_is_wanted() {
    let fixture = Fixture::new();
    for (text, message) in [
        (with("environment", "required = \"yes\""), "`required` must be true or false"),
        (
            with("environment", "pool = { max_connections = \"8\" }"),
            "`max_connections` must be a whole number",
        ),
        (with("environment", "pool = { max_connections = 8.5 }"), "`max_connections` must be a whole number"),
        (with("environment", "via = 3"), "`via` must be a string"),
        (with("environment", "pool = 3"), "is not a table"),
        (with("trust", "pins = [3]"), "`pins` must be a list of strings"),
        (with("trust", "pins = true"), "`pins` must be a list of strings"),
        (with("trust", "anchors = 3"), "`anchors` must be a list of strings"),
        (with("route", "header = { a = 1 }"), "`a` must be a string"),
        (
            format!("routes = 3\n{}", &GOOD[..GOOD.find("[[routes]]").unwrap()]),
            "`routes` must be a list of tables",
        ),
        (format!("log = \"x\"\n{GOOD}"), "`log` is not a table"),
    ] {
        let finding = fixture.only(&text, "wrong_type");
        assert!(finding.message.contains(message), "{finding}");
    }
}

#[test]
fn missing_keys_are_named_with_what_they_are_for() {
    let fixture = Fixture::new();
    for (line, remedy) in [
        ("stage = \"sandbox\"\n", "stage = \"sandbox\""),
        ("customer = \"CUSTOMER-0001\"\n", "received from Thales"),
        ("endpoint = \"https://tmg.dbp-stg.thalescloud.io/1/sandbox-v2/\"\n", "TSH_INBOUND_HOST"),
        ("common_name = \"CUSTOMER-0001-SBX\"\n", "S14"),
        ("environment = \"sandbox\"\n", "environments of this file"),
    ] {
        assert!(GOOD.contains(line));
        let finding = fixture.only(&GOOD.replace(line, ""), "missing_key");
        says(&finding, "is missing", remedy);
    }
}

#[test]
fn an_empty_file_is_told_to_add_an_environment() {
    let fixture = Fixture::new();
    let finding = fixture.only("", "no_environment");
    says(&finding, "nowhere to send", "[environments.sandbox]");
}

#[test]
fn words_are_compared_with_those_known() {
    let fixture = Fixture::new();
    for (text, remedy) in [
        (GOOD.replace("stage = \"sandbox\"", "stage = \"sandbx\""), "nearest known value is \"sandbox\""),
        (with("environment", "regime = \"tsg\""), "nearest known value is \"tsh\""),
        (
            with("environment", "tls = { key_exchange = [\"x25519mlkem\"] }"),
            "nearest known value is \"x25519mlkem768\"",
        ),
        (with("environment", "tls = { alpn = [\"http/2\"] }"), "\"h2\""),
        (with("route", "retry = \"always\""), "\"unprocessed\", \"idempotent\", \"never\""),
        (format!("{GOOD}[log]\nlevel = \"warning\"\n"), "nearest known value is \"warn\""),
        (format!("{GOOD}[log]\naccess = \"std_out\"\n"), "nearest is \"stdout\""),
    ] {
        let finding = fixture.only(&text, "unknown_value");
        assert!(finding.remedy.contains(remedy), "{finding}");
    }
}

#[test]
fn a_list_of_words_has_none_twice_and_is_not_empty() {
    let fixture = Fixture::new();
    fixture.only(&with("environment", "tls = { alpn = [\"h2\", \"h2\"] }"), "duplicate_value");
    let findings = fixture.findings(&with("environment", "tls = { key_exchange = [] }"));
    assert!(findings.iter().any(|f| f.code == "empty_value"), "{findings:#?}");
}

#[test]
fn min_above_max_is_refused_even_against_a_default() {
    let fixture = Fixture::new();
    for (pool, message) in [
        (
            "min_connections = 5, max_connections = 4",
            "`min_connections` is 5, above `max_connections`, which is 4",
        ),
        ("min_connections = 9", "which is 8 (its default)"),
        ("max_connections = 1", "`min_connections` is 2 (its default), above `max_connections`"),
        ("http1_max_connections = 1", "above `http1_max_connections`"),
        ("backoff_initial_ms = 20000", "above `backoff_max_ms`"),
    ] {
        let finding = fixture.only(&with("environment", &format!("pool = {{ {pool} }}")), "min_above_max");
        says(&finding, message, "lower");
    }
    let text = format!("{GOOD}[limits]\nreplay_buffer_total_bytes = 1\n");
    says(&fixture.only(&text, "min_above_max"), "`replay_buffer_bytes`", "lower");
}

#[test]
fn the_windows_of_all_streams_fit_into_that_of_the_connection() {
    let fixture = Fixture::new();
    for (pool, message, remedy) in [
        (
            "connection_window_bytes = 1048576, stream_window_bytes = 2097152, max_streams = 1",
            "`stream_window_bytes` (2097152) times `max_streams` (1) is 2097152, above `connection_window_bytes` (1048576)",
            "raise `connection_window_bytes` to 2097152, or lower `stream_window_bytes` to 1048576",
        ),
        ("max_streams = 129", "times `max_streams` (129) is 33816576", "or lower `max_streams` to 128"),
        ("stream_window_bytes = 335545", "is 33554500", "`stream_window_bytes` to 335544"),
        // No connection window may be that large: what cannot be done is not proposed.
        ("stream_window_bytes = 16777216", "is 1677721600", "lower `stream_window_bytes` to 335544, or"),
        ("connection_window_bytes = 26214399", "above `connection_window_bytes` (26214399)", "to 26214400"),
    ] {
        let text = with("environment", &format!("pool = {{ {pool} }}"));
        let finding = fixture.only(&text, "windows_overbooked");
        says(&finding, message, remedy);
        assert!(finding.key_path.starts_with("environments.sandbox.pool."), "{finding}");
        assert!(!finding.remedy.contains("1677721600"), "more than any window may have: {finding}");
    }
    for pool in ["max_streams = 128", "stream_window_bytes = 335544", "connection_window_bytes = 26214400"] {
        assert_eq!(fixture.findings(&with("environment", &format!("pool = {{ {pool} }}"))), [], "{pool}");
    }
}

/// What a section needs besides the key in question.
fn needs(heading: &str) -> &'static str {
    match heading {
        "`[callers.NAME]`" => "[callers.sandbox]\nuids = [1]\n",
        "`[environments.NAME.health]`" => "[environments.sandbox.health]\npath = \"/health\"\n",
        _ => "",
    }
}

/// The file with `line` in the section of this heading.
fn in_section(heading: &str, line: &str) -> String {
    if !needs(heading).is_empty() {
        return format!("{GOOD}{}{line}\n", needs(heading));
    }
    match heading {
        "`[egress]`" => with("egress", line),
        "`[environments.NAME]`" => with("environment", line),
        "`[environments.NAME.trust]`" => with("trust", line),
        "`[[routes]]`" => with("route", line),
        "`[routes.timeouts]`" => with("route", &format!("timeouts = {{ {line} }}")),
        _ => format!("{GOOD}{}\n{line}\n", heading.trim_matches('`').replace("NAME", "sandbox")),
    }
}

#[test]
fn every_number_is_read_at_its_limits_and_refused_one_past_them() {
    let fixture = Fixture::new();
    for (heading, keys) in SECTIONS {
        let text = format!("{GOOD}{}", needs(heading));
        let plain = format!("{:?}", fixture.inspect(&text).config.unwrap());
        for key in *keys {
            let Kind::Whole { min, max, .. } = key.kind else { continue };
            for value in [min, max] {
                let inspection = fixture.inspect(&in_section(heading, &format!("{} = {value}", key.name)));
                let codes: Vec<_> = inspection.findings.iter().map(|f| f.code).collect();
                assert!(
                    codes.iter().all(|code| ["min_above_max", "windows_overbooked"].contains(code)),
                    "{heading} {} = {value}: {codes:?}",
                    key.name
                );
                let is_default = key.default == value.to_string() || key.default.starts_with('(');
                if let Some(config) = inspection.config.filter(|_| !is_default) {
                    assert_ne!(format!("{config:?}"), plain, "{heading} {} has no effect", key.name);
                }
            }
            for value in [i128::from(min) - 1, i128::from(max) + 1] {
                let finding =
                    fixture.only(&in_section(heading, &format!("{} = {value}", key.name)), "out_of_range");
                says(&finding, &format!("may be {min} to {max}"), "choose a value");
            }
        }
    }
}

#[test]
fn every_default_is_what_the_reference_says() {
    let fixture = Fixture::new();
    let good = GOOD.replace("listen = [\"127.0.0.1:0\"]\n", "").replace("listen = \"127.0.0.1:0\"\n", "");
    for (heading, keys) in SECTIONS {
        let text = format!("{good}{}", needs(heading));
        let plain = format!("{:?}", fixture.inspect(&text).config.unwrap());
        for key in keys.iter().filter(|key| !key.default.starts_with('(')) {
            let line = format!("{} = {}", key.name, key.default);
            let text = if *heading == "`[admin]`" {
                text.replace("[admin]\n", &format!("[admin]\n{line}\n"))
            } else {
                in_section(heading, &line)
                    .replace("listen = [\"127.0.0.1:0\"]\n", "")
                    .replace("listen = \"127.0.0.1:0\"\n", "")
            };
            let inspection = fixture.inspect(&text);
            assert_eq!(inspection.findings, [], "{heading} {line}");
            assert_eq!(format!("{:?}", inspection.config.unwrap()), plain, "{heading} {line}");
        }
    }
}

#[test]
fn a_mangled_file_is_judged_without_a_panic_and_every_fault_has_its_remedy() {
    let fixture = Fixture::new();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let good = with("route", "path_prefix = \"/é\"\nheader = { a = \"b\" }\ntimeout_ms = 1");
    let pieces: Vec<_> = good.split_inclusive(['\n', ' ', '.', '"', ']']).collect();
    for _ in 0..300 {
        let mut pieces = pieces.clone();
        for _ in 0..random.usize(1..4) {
            let (one, other) = (random.usize(..pieces.len()), random.usize(..pieces.len()));
            match random.u8(..3) {
                0 => drop(pieces.remove(one)),
                1 => pieces.swap(one, other),
                _ => pieces.insert(one, pieces[other]),
            }
        }
        let text = pieces.concat();
        let inspection = fixture.inspect(&text);
        let has_error = inspection.findings.iter().any(|f| f.severity == crate::config::Severity::Error);
        assert_eq!(
            inspection.config.is_none(),
            has_error,
            "seed {seed}:\n{text}\n{:#?}",
            inspection.findings
        );
        for finding in &inspection.findings {
            assert!(
                !finding.message.is_empty() && !finding.remedy.is_empty(),
                "seed {seed}: {finding}\n{text}"
            );
        }
    }
}
