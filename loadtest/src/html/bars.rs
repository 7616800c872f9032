//! Bars lying on their side, one per subject: room for names, and for figures behind the bars.

use super::{
    stats::Spread,
    svg::{Anchor, Look, Scale, Svg, WIDTH, clipped, plain, short, ticks, width},
};

/// Height of one subject.
const ROW: f64 = 28.0;

/// Room for names at most; more would leave none for bars.
const NAMES: f64 = 270.0;

/// One subject's bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// Name beside it.
    pub name: String,
    /// Its colour.
    pub look: Look,
    /// Length of the bar and ends of the whisker.
    pub spread: Spread,
}

/// Draws them from zero; `axis` is the title of the axis with the unit.
pub(super) fn draw(bars: &[Bar], axis: &str, label: &str) -> String {
    let names = bars.iter().map(|bar| width(&bar.name)).fold(30.0, f64::max).min(NAMES);
    let left = names + 10.0;
    let right = WIDTH - 62.0;
    let bottom = bars.len() as f64 * ROW + 6.0;
    let most = bars.iter().map(|bar| bar.spread.max).fold(0.0, f64::max);
    let ticks = ticks(0.0, most, 5);
    let scale = Scale::new((0.0, ticks.last().copied().unwrap_or(1.0)), (left, right));
    let mut svg = Svg::new(bottom + 42.0, label);
    for tick in ticks {
        let x = scale.at(tick);
        svg.line((x, 4.0), (x, bottom), "grid");
        svg.text(x, bottom + 15.0, Anchor::Middle, "tick", plain(tick));
    }
    svg.text(f64::midpoint(left, right), bottom + 34.0, Anchor::Middle, "axis", axis);
    for (row, bar) in bars.iter().enumerate() {
        let (top, Spread { median, min, max }) = (row as f64 * ROW + 6.0, bar.spread);
        let middle = top + ROW / 2.0 - 3.0;
        let hint = format!("{}: median {}, {} to {}", bar.name, short(median), short(min), short(max));
        svg.text(left - 7.0, middle + 4.0, Anchor::End, "label", clipped(&bar.name, names));
        svg.bar((left, top), (scale.at(median) - left, ROW - 6.0), bar.look, &hint);
        if max > min {
            // Twice, so that it is seen on bars of any colour.
            for class in ["halo", "whisker"] {
                svg.line((scale.at(min), middle), (scale.at(max), middle), class);
                for end in [min, max] {
                    svg.line((scale.at(end), middle - 5.0), (scale.at(end), middle + 5.0), class);
                }
            }
        }
        svg.text(scale.at(max) + 7.0, middle + 4.0, Anchor::Start, "value", short(median));
    }
    svg.line((left, 4.0), (left, bottom), "frame");
    svg.finish()
}
