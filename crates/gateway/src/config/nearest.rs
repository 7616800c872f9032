//! The known word nearest to an unknown one.
//!
//! Owns the measure of nearness; what is known comes from `keys` or from the configuration itself.

/// The candidate that was most likely meant, if one is near enough: at most a third of the letters differ,
/// or one word begins with the other.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let plain = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let known = candidate.to_ascii_lowercase().replace('-', "_");
            // The unit is what is left out most often.
            let stem = ["_ms", "_s", "_bytes"].iter().find_map(|unit| known.strip_suffix(unit));
            let distance = if stem == Some(&plain) { 0 } else { strsim::damerau_levenshtein(&plain, &known) };
            let bound = (known.len().max(plain.len()) / 3).max(1);
            let begins = plain.len() >= 3 && (known.starts_with(&plain) || plain.starts_with(&known));
            (distance <= bound || begins).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_pen_finds_its_key() {
        let known = ["min_connections", "max_connections", "max_streams"];
        assert_eq!(nearest("max_connection", known), Some("max_connections"));
        assert_eq!(nearest("mix_connections", known), Some("min_connections"));
        assert_eq!(nearest("max-streams", known), Some("max_streams"));
    }

    #[test]
    fn a_missing_unit_finds_its_key() {
        assert_eq!(nearest("timeout", ["timeouts", "timeout_ms", "retry"]), Some("timeout_ms"));
    }

    #[test]
    fn a_stranger_finds_nothing() {
        assert_eq!(nearest("colour", ["listen", "allow_unauthenticated"]), None);
        assert_eq!(nearest("x", ["listen"]), None);
    }
}
