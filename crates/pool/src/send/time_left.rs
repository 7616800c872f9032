//! Telling the provider how much time the caller leaves it: header fields written anew for each attempt.
//!
//! Owns the forms of these fields. Reading them from callers is the gateway's work.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// Header fields that tell the provider how much time is left. Put into the extensions of a request before
/// [`crate::Pool::send`]: each attempt then carries what is left when it is sent, rounded down, so that time spent
/// in the queue or on an earlier attempt is never promised to the provider.
#[derive(Clone, Debug)]
pub struct TimeLeft {
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// The fields, each with its form. A field that is there already is replaced.
    pub fields: Vec<(HeaderName, TimeForm)>,
}

/// How a field tells a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// At most eight digits and a unit: `grpc-timeout` of gRPC over HTTP/2.
    Grpc,
    /// Milliseconds in decimal digits.
    Millis,
}

impl TimeLeft {
    /// Writes the fields as of `now`.
    pub fn write(&self, headers: &mut HeaderMap, now: Instant) {
        let left = self.deadline.saturating_duration_since(now);
        for (name, form) in &self.fields {
            headers.insert(name.clone(), form.value(left));
        }
    }
}

impl TimeForm {
    /// The time in this form, rounded down.
    #[must_use]
    pub fn value(self, time: Duration) -> HeaderValue {
        let text = match self {
            Self::Grpc => grpc(time),
            Self::Millis => time.as_millis().to_string(),
        };
        // Digits and a letter are valid in a header.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// The finest unit that eight digits can hold.
fn grpc(time: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let nanos = time.as_nanos();
    let units = [('n', 1), ('u', 1_000), ('m', 1_000_000), ('S', 1_000_000_000), ('M', 60_000_000_000)];
    match units.into_iter().find(|(_, size)| nanos / size <= MOST) {
        Some((unit, size)) => format!("{}{unit}", nanos / size),
        None => format!("{}H", (nanos / 3_600_000_000_000).min(MOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_has_at_most_eight_digits_in_the_finest_unit_that_fits() {
        for (time, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(2), "2000000u"),
            (Duration::from_micros(100_000_999), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(60 * 100_000_000), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(TimeForm::Grpc.value(time), text, "{time:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_is_what_is_left_rounded_down() {
        let account = TimeLeft {
            deadline: Instant::now() + Duration::from_micros(1_500_900),
            fields: vec![
                (HeaderName::from_static("grpc-timeout"), TimeForm::Grpc),
                (HeaderName::from_static("x-ms"), TimeForm::Millis),
            ],
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-ms", HeaderValue::from_static("9999"));
        tokio::time::advance(Duration::from_millis(500)).await;
        account.write(&mut headers, Instant::now());
        assert_eq!(
            (headers["grpc-timeout"].as_bytes(), headers["x-ms"].as_bytes()),
            (&b"1000900u"[..], &b"1000"[..])
        );
        tokio::time::advance(Duration::from_secs(9)).await;
        account.write(&mut headers, Instant::now());
        assert_eq!(headers["x-ms"], "0", "after the deadline nothing is left");
        assert_eq!(headers.len(), 2, "fields are replaced");
    }
}
