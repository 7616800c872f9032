//! Parsing of the units people write on a command line: durations (`8s`), sizes (`1GiB`), status sets (`2xx`).
//!
//! Owns no defaults; those stand beside the flags in `args.rs`.

use std::time::Duration;

use http::StatusCode;

/// Parses a duration written as a number and one of `us`, `ms`, `s`, `m`.
///
/// # Errors
/// A sentence for the command line when the unit or the number is not understood.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => {
            return Err(format!("`{text}` is not a duration: write a number and us, ms, s or m, as in `8s`"));
        }
    };
    let value: f64 = number.parse().map_err(|_| {
        format!("`{text}` is not a duration: `{number}` is not a number, write `8s` or `500ms`")
    })?;
    Duration::try_from_secs_f64(value * scale).map_err(|_| format!("`{text}` is out of range for a duration"))
}

/// Parses a size in bytes: plain, or with `KiB`, `MiB`, `GiB`.
///
/// # Errors
/// A sentence for the command line when the unit or the number is not understood.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("`{text}` is not a size: write bytes, or KiB, MiB, GiB, as in `1GiB`")),
    };
    let value: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a size: `{number}` is not a whole number"))?;
    value.checked_mul(scale).ok_or_else(|| format!("`{text}` is larger than 2^64 bytes"))
}

/// A set of acceptable statuses: classes (`2xx`) and single codes, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusSet {
    ranges: Vec<(u16, u16)>,
}

impl StatusSet {
    /// Whether a reply with this status counts as answered.
    pub(crate) fn contains(&self, status: StatusCode) -> bool {
        let code = status.as_u16();
        self.ranges.iter().any(|&(low, high)| (low..=high).contains(&code))
    }
}

/// Parses `2xx`, `204` or `2xx,404`.
///
/// # Errors
/// A sentence for the command line when a part is neither a class nor a code from 100 to 599.
pub(crate) fn status_set(text: &str) -> Result<StatusSet, String> {
    let ranges = text.split(',').map(str::trim).map(status_range).collect::<Result<Vec<_>, _>>()?;
    Ok(StatusSet { ranges })
}

fn status_range(part: &str) -> Result<(u16, u16), String> {
    let complaint = || format!("`{part}` is no status: write a class as `2xx` or a code as `204`");
    if let Some(class) = part.strip_suffix("xx") {
        let class: u16 = class.parse().map_err(|_| complaint())?;
        return if (1..=5).contains(&class) { Ok((class * 100, class * 100 + 99)) } else { Err(complaint()) };
    }
    match part.parse() {
        Ok(code @ 100..=599) => Ok((code, code)),
        _ => Err(complaint()),
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("8s").unwrap(), Duration::from_secs(8));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("250us").unwrap(), Duration::from_micros(250));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for bad in ["8", "s", "8h", "-1s", "", "1.2.3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_binary_and_bounded() {
        assert_eq!(size("1024").unwrap(), 1024);
        assert_eq!(size("64KiB").unwrap(), 65_536);
        assert_eq!(size("1GiB").unwrap(), 1 << 30);
        for bad in ["1GB", "", "x", "1.5KiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_status_set_joins_classes_and_codes() {
        let set = status_set("2xx,404").unwrap();
        assert!(set.contains(StatusCode::OK) && set.contains(StatusCode::NOT_FOUND));
        assert!(set.contains(StatusCode::from_u16(299).unwrap()));
        assert!(!set.contains(StatusCode::MULTIPLE_CHOICES) && !set.contains(StatusCode::BAD_GATEWAY));
        for bad in ["", "6xx", "99", "600", "ok"] {
            assert!(status_set(bad).is_err(), "{bad}");
        }
    }
}
