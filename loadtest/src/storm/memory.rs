//! Resident memory over time, and whether it grows: a straight line through the second half.

use std::fs;

use serde::Serialize;

/// One look at the process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Seconds since the start.
    pub at: f64,
    /// Resident memory, bytes.
    pub resident: u64,
}

/// Resident memory of this process in bytes; `None` where there is no `/proc`.
pub(super) fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// A storm as long as this is judged by what each request leaves behind; a shorter one shows the allocator's rhythm.
const LONG: f64 = 600.0;
/// What a short storm may grow by, bytes.
const SHORT_GROWTH: f64 = 16.0 * 1024.0 * 1024.0;
/// What a long one may grow by, bytes per request: 8 MiB in 600,000, which is ten minutes at 1,000 a second.
const BYTES_PER_REQUEST: f64 = 8.0 * 1024.0 * 1024.0 / 600_000.0;

/// What [`growth`] may be after `seconds` at `rate` requests per second, bytes.
pub(super) fn growth_limit(seconds: f64, rate: f64) -> f64 {
    if seconds < LONG { SHORT_GROWTH } else { BYTES_PER_REQUEST * rate * seconds / 2.0 }
}

/// By how much a storm grew, as it is judged: a long one by the line through its second half, a short one by its lowest
/// points in the second and in the last quarter, for the allocator gives back only later what a fault made it take.
pub(super) fn growth(samples: &[Sample], seconds: f64) -> f64 {
    if seconds >= LONG {
        return second_half(samples, seconds).growth;
    }
    let lowest = |from: f64, to: f64| {
        let within = samples.iter().filter(|s| (seconds * from..=seconds * to).contains(&s.at));
        within.map(|s| s.resident).min()
    };
    // Sizes are far below 2^52.
    lowest(0.25, 0.5).zip(lowest(0.75, 1.0)).map_or(0.0, |(then, now)| now as f64 - then as f64)
}

/// What a line through samples says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Trend {
    /// Slope, bytes per second.
    pub bytes_per_second: f64,
    /// Slope times the time between first and last sample: what the line grew by, bytes.
    pub growth: f64,
}

/// The line of least squares through the samples of the second half of `seconds`.
pub(super) fn second_half(samples: &[Sample], seconds: f64) -> Trend {
    let half: Vec<Sample> = samples.iter().copied().filter(|sample| sample.at >= seconds / 2.0).collect();
    let (Some(first), Some(last)) = (half.first(), half.last()) else { return Trend::default() };
    let n = half.len() as f64;
    let mean_at = half.iter().map(|s| s.at).sum::<f64>() / n;
    let mean_resident = half.iter().map(|s| s.resident as f64).sum::<f64>() / n;
    let covariance: f64 = half.iter().map(|s| (s.at - mean_at) * (s.resident as f64 - mean_resident)).sum();
    let variance: f64 = half.iter().map(|s| (s.at - mean_at).powi(2)).sum();
    if variance == 0.0 {
        return Trend::default();
    }
    let bytes_per_second = covariance / variance;
    Trend { bytes_per_second, growth: bytes_per_second * (last.at - first.at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..=100).map(|s| Sample { at: s as f64, resident: resident(s) }).collect()
    }

    #[test]
    fn a_leak_shows_in_the_second_half_and_a_start_does_not() {
        let leak = second_half(&samples(|s| 1_000_000 + 1000 * s), 100.0);
        assert!((leak.bytes_per_second - 1000.0).abs() < 1e-6 && (leak.growth - 50_000.0).abs() < 1e-3);
        let start = second_half(&samples(|s| 1_000_000 + 10_000 * s.min(40)), 100.0);
        assert!(start.growth.abs() < 1e-3, "{start:?}");
    }

    #[test]
    fn a_long_storm_is_judged_by_what_a_request_leaves_behind() {
        let mib = |limit: f64| (limit / f64::from(1 << 20) * 100.0).round() / 100.0;
        assert_eq!(mib(growth_limit(30.0, 1000.0)), 16.0);
        assert_eq!(mib(growth_limit(600.0, 1000.0)), 4.0);
        assert_eq!(mib(growth_limit(1200.0, 1000.0)), 8.0);
        assert_eq!(mib(growth_limit(600.0, 2000.0)), 8.0);
    }

    #[test]
    fn a_short_storm_is_judged_by_its_lowest_points() {
        let spike = |s| 50_000_000 + if (80..95).contains(&s) { 40_000_000 } else { 0 } + 1000 * s;
        assert_eq!(growth(&samples(spike), 100.0), 50_000.0, "from second 25 to 75");
        assert_eq!(growth(&[], 100.0), 0.0);
    }

    #[test]
    fn noise_is_no_growth() {
        let noise = second_half(&samples(|s| 1_000_000 + 50_000 * (s % 2)), 100.0);
        assert!(noise.growth.abs() < 10_000.0, "{noise:?}");
    }

    #[test]
    fn too_few_samples_are_no_trend() {
        assert_eq!(second_half(&[], 10.0), Trend::default());
        assert_eq!(second_half(&[Sample { at: 9.0, resident: 5 }], 10.0), Trend::default());
    }
}
