//! `docs/configuration.md` against the code.

use std::fs;

use crate::config::keys::SECTIONS;
use crate::config::reference;
use crate::config::testing::Fixture;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

/// The rows of the tables, each behind the heading it stands under.
fn rows(text: &str) -> Vec<String> {
    let mut heading = "";
    let mut rows = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            heading = line;
        } else if line.starts_with("| `") {
            rows.push(format!("{heading}: {line}"));
        }
    }
    rows
}

#[test]
fn the_documentation_lists_exactly_the_keys_that_the_code_knows() {
    let docs = fs::read_to_string(DOCS).unwrap();
    let (documented, known) = (rows(&docs), rows(&reference()));
    let missing: Vec<_> = known.iter().filter(|row| !documented.contains(row)).collect();
    let stale: Vec<_> = documented.iter().filter(|row| !known.contains(row)).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "missing: {missing:#?}\nstale: {stale:#?}\n(`tsh-gateway check --keys` prints the tables)"
    );
}

#[test]
fn the_examples_of_the_documentation_load() {
    let docs = fs::read_to_string(DOCS).unwrap();
    let examples: Vec<_> =
        docs.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 2, "the documentation has examples");
    for example in examples {
        let fixture = Fixture::new();
        assert_eq!(fixture.findings(example), [], "{example}");
    }
}

/// S8, S17, S9: the defaults are safe and stay so, because there is no key to change them.
#[test]
fn no_key_turns_verification_off_or_trusts_by_address() {
    for (heading, keys) in SECTIONS {
        for key in *keys {
            for word in
                ["insecure", "verify", "skip", "danger", "cidr", "network", "trusted", "source", "roots"]
            {
                assert!(!key.name.contains(word), "{heading} {}", key.name);
            }
        }
    }
}
