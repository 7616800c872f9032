//! Latency over percentiles: the x axis gives every further nine the same room, the y axis is logarithmic.

use super::svg::{Anchor, Look, Scale, Svg, WIDTH, legend_height};

/// Inner edges of the drawing.
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 250.0;

/// Points drawn per curve at most: more than pixels would be waste.
const POINTS: u32 = 240;

/// Percentiles that have a tick: the share of requests that is slower, and the name.
const TICKS: [(f64, &str); 7] = [
    (0.5, "50 %"),
    (0.1, "90 %"),
    (0.01, "99 %"),
    (1e-3, "99.9 %"),
    (1e-4, "99.99 %"),
    (1e-5, "99.999 %"),
    (1e-6, "99.9999 %"),
];

/// One subject.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Its colour and dashes.
    pub look: Look,
    /// `[µs, requests]` in ascending order; not empty.
    pub buckets: Vec<(u64, u64)>,
}

/// Draws all curves that have buckets; `None` if none has.
pub(super) fn draw(curves: &[Curve], label: &str) -> Option<String> {
    let drawn: Vec<&Curve> = curves.iter().filter(|curve| !curve.buckets.is_empty()).collect();
    let values = || drawn.iter().flat_map(|curve| &curve.buckets).map(|&(us, _)| us.max(1) as f64);
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    let requests = |curve: &&Curve| curve.buckets.iter().map(|&(_, count)| count).sum::<u64>();
    let most = drawn.iter().map(requests).max()?;
    let x = Scale::new((0.0, nines(last_rank(most)).max(2.0)), (LEFT, RIGHT));
    // A little room above and below, so that no curve lies on the frame; a decade at least, so that there are ticks.
    let spare = (0.5 - (high.log10() - low.log10()) / 2.0).max(0.05);
    let (from, to) = (low.log10() - spare, high.log10() + spare);
    let y = Scale::new((from, to), (BOTTOM, TOP));
    let names: Vec<_> = drawn.iter().map(|curve| (curve.name.as_str(), curve.look)).collect();
    let mut svg = Svg::new(BOTTOM + 42.0 + legend_height(&names, LEFT), label);
    for us in grid(from, to) {
        svg.line((LEFT, y.at(us.log10())), (RIGHT, y.at(us.log10())), "grid");
        svg.text(LEFT - 6.0, y.at(us.log10()) + 4.0, Anchor::End, "tick", time(us));
    }
    for (slower, name) in TICKS {
        let at = nines(1.0 - slower);
        if at > nines(last_rank(most)).max(2.0) {
            continue;
        }
        svg.line((x.at(at), TOP), (x.at(at), BOTTOM), "grid");
        svg.text(x.at(at), BOTTOM + 15.0, Anchor::Middle, "tick", name);
    }
    svg.text_upwards(12.0, f64::midpoint(TOP, BOTTOM), "latency");
    svg.text(f64::midpoint(LEFT, RIGHT), BOTTOM + 33.0, Anchor::Middle, "axis", "requests answered within");
    for curve in &drawn {
        let points = points(&curve.buckets).map(|(at, us)| (x.at(at), y.at(us.log10())));
        svg.curve(&points.collect::<Vec<_>>(), curve.look, &curve.name);
    }
    svg.line((LEFT, TOP), (LEFT, BOTTOM), "frame");
    svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "frame");
    svg.legend(&names, LEFT, BOTTOM + 50.0);
    Some(svg.finish())
}

/// How many nines a share has: 0.9 has one, 0.99 two.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// Share of the requests up to the middle of the last of `count`: beyond it nothing is known.
fn last_rank(count: u64) -> f64 {
    1.0 - 0.5 / count.max(1) as f64
}

/// `(nines, µs)` along the curve, evenly over the axis, ending at the largest value.
fn points(buckets: &[(u64, u64)]) -> impl Iterator<Item = (f64, f64)> {
    let total: u64 = buckets.iter().map(|&(_, count)| count).sum();
    let end = nines(last_rank(total));
    let mut below = 0;
    let mut index = 0;
    (0..=POINTS).map(move |point| {
        let at = end * f64::from(point) / f64::from(POINTS);
        let share = 1.0 - 10f64.powf(-at);
        let rank = (share * total as f64).ceil().clamp(1.0, total as f64) as u64;
        while index + 1 < buckets.len() && below + buckets[index].1 < rank {
            below += buckets[index].1;
            index += 1;
        }
        (at, buckets[index].0.max(1) as f64)
    })
}

/// Powers of ten, with 2 and 5 between them where there are few, µs.
fn grid(from: f64, to: f64) -> Vec<f64> {
    let within = |us: &f64| (from..=to).contains(&us.log10());
    let all = |steps: &'static [f64]| {
        let decades = from.floor() as i32..=to.ceil() as i32;
        decades.flat_map(move |decade| steps.iter().map(move |step| step * 10f64.powi(decade))).filter(within)
    };
    let tens: Vec<f64> = all(&[1.0]).collect();
    if tens.len() > 3 { tens } else { all(&[1.0, 2.0, 5.0]).collect() }
}

fn time(us: f64) -> String {
    let (value, unit) = match us {
        _ if us >= 1e6 => (us / 1e6, "s"),
        _ if us >= 1e3 => (us / 1e3, "ms"),
        _ => (us, "µs"),
    };
    format!("{value:.0} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_passes_through_its_percentiles_and_ends_at_the_largest_value() {
        let buckets: Vec<(u64, u64)> = (1..=1000).map(|us| (us, 1)).collect();
        let points: Vec<_> = points(&buckets).collect();
        assert_eq!(points.last().unwrap().1 as u64, 1000);
        for (at, us) in points {
            let share = 1.0 - 10f64.powf(-at);
            assert!((us - share * 1000.0).abs() <= 1.0, "{at} nines: {us} µs");
        }
    }

    #[test]
    fn few_decades_get_steps_between_them() {
        assert_eq!(grid(1.95, 3.1), [100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(grid(0.0, 5.0).len(), 6);
        assert_eq!([50.0, 2_000.0, 1e6].map(time), ["50 µs", "2 ms", "1 s"]);
    }

    #[test]
    fn one_value_alone_is_a_flat_line_and_none_is_no_drawing() {
        let curve = |buckets| Curve { name: "x".into(), look: Look::nth(0), buckets };
        assert!(draw(&[curve(vec![(3000, 1)])], "").is_some());
        assert!(draw(&[curve(Vec::new())], "").is_none());
    }
}
