//! Things over time: lines, and marks in lanes under them.

use super::svg::{Anchor, Look, Scale, Svg, WIDTH, clipped, legend_height, plain, ticks, width};

const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 10.0;
/// Height of the lines' part.
const HEIGHT: f64 = 170.0;
/// Room for names of lanes at most.
const NAMES: f64 = 190.0;
/// Height of one lane.
const LANE: f64 = 17.0;

/// Where the y axis begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// At zero.
    Zero,
    /// Near the smallest value.
    Data,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Name in the legend.
    pub name: String,
    /// Its colour and dashes.
    pub look: Look,
    /// Seconds, value.
    pub points: Vec<(f64, f64)>,
}

/// Moments of one kind.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// Name beside it.
    pub name: String,
    /// Seconds.
    pub at: Vec<f64>,
}

/// Everything in one drawing.
#[derive(Clone, Debug)]
pub(super) struct Plot<'a> {
    /// Title of the y axis with the unit.
    pub axis: &'a str,
    /// Where it begins.
    pub base: Base,
    /// The lines.
    pub lines: Vec<Line>,
    /// Lanes under them.
    pub lanes: Vec<Lane>,
}

/// Draws it; `None` if there is no line with a point.
pub(super) fn draw(plot: &Plot<'_>, label: &str) -> Option<String> {
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let lane_ends = plot.lanes.iter().flat_map(|lane| &lane.at).copied();
    let end = points().map(|point| point.0).chain(lane_ends).reduce(f64::max)?;
    let high = points().map(|point| point.1).reduce(f64::max)?;
    let low = match plot.base {
        Base::Zero => 0.0,
        Base::Data => points().map(|point| point.1).reduce(f64::min)?,
    };
    let names = plot.lanes.iter().map(|lane| width(&lane.name)).fold(56.0, f64::max).min(NAMES);
    let left = names + 10.0;
    let values = ticks(low, high, 4);
    let (floor, lanes) = (TOP + HEIGHT, plot.lanes.len() as f64 * LANE);
    let y = Scale::new((values[0], values.last().copied().unwrap_or(high)), (floor, TOP));
    let x = Scale::new((0.0, end), (left, RIGHT));
    let bottom = floor + if lanes > 0.0 { lanes + 6.0 } else { 0.0 };
    // One line is named by the axis.
    let named = if plot.lines.len() > 1 { plot.lines.as_slice() } else { &[] };
    let legend: Vec<_> = named.iter().map(|line| (line.name.as_str(), line.look)).collect();
    let mut svg = Svg::new(bottom + 42.0 + legend_height(&legend, left), label);
    for value in values {
        svg.line((left, y.at(value)), (RIGHT, y.at(value)), "grid");
        svg.text(left - 6.0, y.at(value) + 4.0, Anchor::End, "tick", plain(value));
    }
    for second in ticks(0.0, end, 6).into_iter().filter(|second| *second <= end * 1.001) {
        svg.line((x.at(second), TOP), (x.at(second), bottom), "grid");
        svg.text(x.at(second), bottom + 15.0, Anchor::Middle, "tick", plain(second));
    }
    svg.text_upwards(12.0, f64::midpoint(TOP, floor), plot.axis);
    svg.text(f64::midpoint(left, RIGHT), bottom + 33.0, Anchor::Middle, "axis", "time since the start, s");
    for line in &plot.lines {
        let drawn: Vec<_> = line.points.iter().map(|&(at, value)| (x.at(at), y.at(value))).collect();
        svg.curve(&drawn, line.look, &line.name);
    }
    for (row, lane) in plot.lanes.iter().enumerate() {
        let middle = floor + 6.0 + (row as f64 + 0.5) * LANE;
        svg.text(left - 6.0, middle + 4.0, Anchor::End, "tick", clipped(&lane.name, names));
        for &at in &lane.at {
            svg.dot((x.at(at), middle), Look::nth(1), &format!("{} at {at:.1} s", lane.name));
        }
    }
    svg.line((left, TOP), (left, bottom), "frame");
    svg.line((left, floor), (RIGHT, floor), "frame");
    svg.legend(&legend, left, bottom + 50.0);
    Some(svg.finish())
}
