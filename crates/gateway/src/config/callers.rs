//! `[callers.NAME]`: callers by name, for their share of the queue and for the access log. Grants no trust.
//!
//! Owns reading them and the rules between them. Finding the caller of a connection is the work of `egress`.

use std::net::IpAddr;
use std::num::NonZeroU16;

use super::finding::Complaint;
use super::keys;
use super::model::{CallerGroup, Prefix};
use super::report::At;
use super::tree::{Section, Text};

/// Longest name: it stands in log lines.
const MAX_NAME: usize = 63;
/// Most callers: each accepted connection is compared with all of them.
const MOST: usize = 1000;

/// Reads all callers. Those with faults are left out; the faults are reported.
pub(crate) fn read(root: &Section<'_>) -> Vec<CallerGroup> {
    let sections = root.named_sections("callers", keys::CALLER);
    if sections.len() > MOST {
        let what = format!("{} callers are named; {MOST} may be", sections.len());
        let complaint = Complaint::new("too_many_callers", what, "give one caller several addresses");
        root.report().error(&root.at_key("callers"), complaint);
        return Vec::new();
    }
    let mut taken: Vec<(Claim, At)> = Vec::new();
    sections.iter().filter_map(|(name, section)| read_caller(section, name, &mut taken)).collect()
}

/// What only one caller can have.
#[derive(PartialEq)]
enum Claim {
    Prefix(Prefix),
    Uid(u32),
}

fn read_caller(section: &Section<'_>, name: &str, taken: &mut Vec<(Claim, At)>) -> Option<CallerGroup> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    // `-` alone stands for no caller in the access log.
    if name.is_empty() || name == "-" || name.len() > MAX_NAME || !name.chars().all(fits) {
        let what = format!("\"{name}\" cannot name a caller");
        let remedy = format!("use letters, digits, `-` and `_`, at most {MAX_NAME} characters");
        section.report().error(section.at(), Complaint::new("bad_name", what, remedy));
        return None;
    }
    let mut group = CallerGroup {
        name: name.to_owned(),
        addresses: Vec::new(),
        uids: Vec::new(),
        weight: NonZeroU16::MIN,
    };
    for text in section.texts("addresses").unwrap_or_default() {
        match parse_prefix(&text) {
            Ok(prefix) => {
                claim(section, Claim::Prefix(prefix), text.at, taken);
                group.addresses.push(prefix);
            }
            Err(complaint) => section.report().error(&text.at, complaint),
        }
    }
    for (uid, at) in section.numbers("uids", 0..=u64::from(u32::MAX)).unwrap_or_default() {
        // The range was checked.
        let Ok(uid) = u32::try_from(uid) else { continue };
        claim(section, Claim::Uid(uid), at, taken);
        group.uids.push(uid);
    }
    if !section.has("addresses") && !section.has("uids") {
        let complaint = Complaint::new(
            "caller_matches_nobody",
            format!("\"{name}\" has neither `addresses` nor `uids`, so no connection is its own"),
            "add addresses = [\"10.1.0.0/16\"] for TCP or uids = [1000] for Unix sockets",
        );
        section.report().error(section.at(), complaint);
    }
    if let Some(weight) = section.whole("weight").and_then(|n| NonZeroU16::new(u16::try_from(n).ok()?)) {
        group.weight = weight;
    }
    Some(group)
}

fn claim(section: &Section<'_>, claim: Claim, at: At, taken: &mut Vec<(Claim, At)>) {
    if let Some((_, first)) = taken.iter().find(|(other, _)| *other == claim) {
        let what = format!("it is claimed already at {}", first.key_path);
        section.report().error(&at, Complaint::new("duplicate_value", what, "name it once"));
    }
    taken.push((claim, at));
}

/// An address, or a network as address and length. Bits beyond the length must be zero.
fn parse_prefix(text: &Text<'_>) -> Result<Prefix, Complaint> {
    let bad = |what: String| {
        Complaint::new(
            "bad_address",
            what,
            "write an address, or a network as in \"10.1.0.0/16\" or \"fd00::/8\"",
        )
    };
    let (address, length) = match text.value.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text.value, None),
    };
    let address: IpAddr =
        address.parse().map_err(|_| bad(format!("\"{}\" is not an IP address or network", text.value)))?;
    if address.to_canonical() != address {
        return Err(bad(format!("\"{}\" is an IPv4 address in the form of IPv6", text.value)));
    }
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(digits) => digits
            .parse::<u8>()
            .ok()
            .filter(|n| *n <= most && !digits.starts_with('+'))
            .ok_or_else(|| bad(format!("the length in \"{}\" is not 0 to {most}", text.value)))?,
    };
    let prefix = Prefix::new(address, length);
    if prefix.address() != address {
        let what = format!("\"{}\" has bits beyond its length", text.value);
        let remedy = format!("write the network, \"{prefix}\", or the address alone, \"{address}\"");
        return Err(Complaint::new("bad_address", what, remedy));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{Fixture, GOOD};

    fn callers(text: &str) -> Vec<CallerGroup> {
        let inspection = Fixture::new().inspect(&format!("{GOOD}{text}"));
        assert_eq!(inspection.findings, []);
        inspection.config.unwrap().callers
    }

    #[test]
    fn a_caller_has_addresses_users_and_a_weight() {
        let read = callers(
            "[callers.cards]\naddresses = [\"10.1.0.0/16\", \"fd00::/8\", \"10.2.3.4\"]\nuids = [1000]\nweight = 5\n\
             [callers.batch]\nuids = [0, 4294967295]\n",
        );
        assert_eq!(read.len(), 2);
        let cards = read.iter().find(|c| c.name == "cards").unwrap();
        let shown: Vec<_> = cards.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.1.0.0/16", "fd00::/8", "10.2.3.4/32"]);
        assert_eq!((cards.weight.get(), &cards.uids[..]), (5, &[1000][..]));
        let batch = read.iter().find(|c| c.name == "batch").unwrap();
        assert_eq!((batch.weight.get(), &batch.uids[..]), (1, &[0, u32::MAX][..]));
    }

    #[test]
    fn every_wrong_caller_is_told_what_is_wrong_and_how_to_mend_it() {
        let fixture = Fixture::new();
        for (text, code, message, remedy) in [
            (
                "[callers.a]\nweight = 2",
                "caller_matches_nobody",
                "neither `addresses` nor `uids`",
                "uids = [",
            ),
            ("[callers.a]\nuids = [1]\nweight = 0", "out_of_range", "may be 1 to 1000", "choose"),
            ("[callers.a]\nuids = [1]\nweight = 1001", "out_of_range", "may be 1 to 1000", "choose"),
            ("[callers.a]\nuids = [-1]", "out_of_range", "0 to 4294967295", "choose"),
            ("[callers.a]\nuids = [4294967296]", "out_of_range", "0 to 4294967295", "choose"),
            ("[callers.a]\nuids = \"root\"", "wrong_type", "a list of whole numbers", "[1, 2]"),
            ("[callers.a]\nuids = [\"root\"]", "wrong_type", "a list of whole numbers", "without quotes"),
            ("[callers.a]\naddresses = [\"host\"]", "bad_address", "not an IP address", "10.1.0.0/16"),
            ("[callers.a]\naddresses = [\"10.0.0.0/33\"]", "bad_address", "0 to 32", "10.1.0.0/16"),
            ("[callers.a]\naddresses = [\"10.0.0.0/\"]", "bad_address", "0 to 32", "10.1.0.0/16"),
            ("[callers.a]\naddresses = [\"10.0.0.0/+8\"]", "bad_address", "0 to 32", "10.1.0.0/16"),
            (
                "[callers.a]\naddresses = [\"10.1.2.3/16\"]",
                "bad_address",
                "beyond its length",
                "\"10.1.0.0/16\"",
            ),
            ("[callers.a]\naddresses = [\"::ffff:10.0.0.1\"]", "bad_address", "form of IPv6", "10.1.0.0/16"),
            ("[callers.\"a b\"]\nuids = [1]", "bad_name", "cannot name a caller", "letters"),
            ("[callers.-]\nuids = [1]", "bad_name", "cannot name a caller", "letters"),
            (
                "[callers.a]\nuids = [1]\n[callers.b]\nuids = [1]",
                "duplicate_value",
                "callers.a.uids[0]",
                "once",
            ),
            (
                "[callers.a]\naddresses = \"::1\"\n[callers.b]\naddresses = \"::1/128\"",
                "duplicate_value",
                "callers.a.addresses",
                "once",
            ),
            ("[callers.a]\nuids = [1]\nwieght = 2", "unknown_key", "wieght", "`weight`"),
        ] {
            let finding = fixture.only(&format!("{GOOD}{text}\n"), code);
            assert!(finding.message.contains(message), "{text}: {finding}");
            assert!(finding.remedy.contains(remedy), "{text}: {finding}");
        }
    }

    #[test]
    fn a_thousand_callers_may_be_named_and_not_one_more() {
        let many =
            |n: usize| -> String { (0..n).map(|i| format!("[callers.c{i}]\nuids = [{i}]\n")).collect() };
        assert_eq!(callers(&many(MOST)).len(), MOST);
        let fixture = Fixture::new();
        fixture.only(&format!("{GOOD}{}", many(MOST + 1)), "too_many_callers");
    }
}
