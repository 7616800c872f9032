//! `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").

use std::time::Duration;

use http::HeaderName;

/// The field.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a value must look like, for messages about wrong ones.
pub(crate) const FORM: &str = "1 to 8 digits and a unit: H, M, S, m, u or n, as in 500m";

/// Reads a value; `None` for a wrong one.
pub(crate) fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use pool::TimeForm;

    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_wrong_ones_are_not() {
        for (text, micros) in
            [("1H", 3_600_000_000), ("2M", 120_000_000), ("3S", 3_000_000), ("4m", 4_000), ("5u", 5)]
        {
            assert_eq!(parse(text.as_bytes()), Some(Duration::from_micros(micros)), "{text}");
        }
        assert_eq!(parse(b"99999999n"), Some(Duration::from_nanos(99_999_999)));
        for text in ["", "S", "1", "1s", "-1S", "123456789S", "1 S", " 1S", "1.5S"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_told_to_the_provider_is_never_longer_and_loses_at_most_the_last_of_eight_digits() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..1_000 {
            let time = Duration::from_nanos(random.u64(..) >> random.u32(0..64));
            let told = parse(TimeForm::Grpc.value(time).as_bytes());
            let told = told.unwrap_or_else(|| panic!("seed {seed}: {time:?} is told in a wrong form"));
            assert!(told <= time, "seed {seed}: {told:?} for {time:?}");
            let lost = (time - told).as_nanos();
            assert!(lost <= time.as_nanos() / 1_000, "seed {seed}: {told:?} for {time:?}");
        }
    }
}
