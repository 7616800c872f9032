//! Building blocks of a drawing: marks, axes, ticks.
//!
//! Owns nothing about what is drawn. Colours come from the page's style by class, so that light, dark and paper
//! each have their own.

use std::fmt::{Display, Write as _};

/// Width of every drawing, in its own units; one is a pixel at most.
pub(super) const WIDTH: f64 = 560.0;

/// Colours in the page's style; subjects beyond them share one and differ in the dashes.
const COLOURS: usize = 8;

/// Dashes tell lines apart without colour.
const DASHES: [&str; 5] = ["none", "7 3", "2 3", "9 3 2 3", "14 4"];

/// Width of a letter of the small type that drawings use, at most on average.
pub(super) const LETTER: f64 = 6.8;

/// Where a text is anchored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A drawing in the making.
#[derive(Debug)]
pub(super) struct Svg {
    text: String,
}

// Writing to a `String` cannot fail: all results of `write!` here are of that kind.
impl Svg {
    /// An empty one of this height, described by `label` for those who do not see it.
    pub(super) fn new(height: f64, label: &str) -> Self {
        let mut text = String::new();
        let label = escape(label);
        let _infallible = write!(
            text,
            r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">"#
        );
        Self { text }
    }

    /// Writes words.
    pub(super) fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, words: impl Display) {
        let (anchor, words) = (anchor.as_str(), escape(&words.to_string()));
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{words}</text>"#
        ));
    }

    /// Writes words from the bottom to the top, centred.
    pub(super) fn text_upwards(&mut self, x: f64, y: f64, words: &str) {
        let words = escape(words);
        self.push(format_args!(
            r#"<text transform="translate({x:.1} {y:.1}) rotate(-90)" text-anchor="middle" class="axis">{words}</text>"#
        ));
    }

    /// A straight line of the style's class.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        self.push(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" class="{class}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    /// A filled box in the colour of series `index`, with words for whoever points at it.
    pub(super) fn bar(&mut self, at: (f64, f64), size: (f64, f64), index: usize, hint: &str) {
        let (colour, hint) = (index % COLOURS, escape(hint));
        self.push(format_args!(
            r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" class="f{colour}"><title>{hint}</title></rect>"#,
            at.0,
            at.1,
            size.0.max(0.0),
            size.1
        ));
    }

    /// A dot in the colour of series `index`.
    pub(super) fn dot(&mut self, at: (f64, f64), index: usize, hint: &str) {
        let (colour, hint) = (index % COLOURS, escape(hint));
        self.push(format_args!(
            r#"<circle cx="{:.1}" cy="{:.1}" r="3" class="f{colour}"><title>{hint}</title></circle>"#,
            at.0, at.1
        ));
    }

    /// A line through points in the colour and dashes of series `index`.
    pub(super) fn curve(&mut self, points: &[(f64, f64)], index: usize, hint: &str) {
        let (colour, dashes, hint) = (index % COLOURS, DASHES[index % DASHES.len()], escape(hint));
        let mut path = String::new();
        for (x, y) in points {
            let _infallible = write!(path, "{x:.1},{y:.1} ");
        }
        self.push(format_args!(
            r#"<polyline points="{}" class="curve s{colour}" stroke-dasharray="{dashes}"><title>{hint}</title></polyline>"#,
            path.trim_end()
        ));
    }

    /// Names beside samples of their lines, in as many rows as they need from `y` on; returns where the next
    /// thing may begin.
    pub(super) fn legend(&mut self, names: &[(String, usize)], left: f64, y: f64) -> f64 {
        let (mut x, mut y) = (left, y);
        for (name, index) in names {
            let width = 34.0 + name.chars().count() as f64 * LETTER + 14.0;
            if x > left && x + width > WIDTH {
                (x, y) = (left, y + 18.0);
            }
            self.curve(&[(x, y), (x + 28.0, y)], *index, name);
            self.text(x + 34.0, y + 4.0, Anchor::Start, "label", name);
            x += width;
        }
        y + 18.0
    }

    /// The finished element.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _infallible = writeln!(self.text, "{element}");
    }
}

/// Makes text harmless in HTML and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Maps values of a range to a stretch of the drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    /// Values `from.0..from.1` onto positions `to.0..to.1`; a range without extent is widened.
    pub(super) fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        let from = if from.1 > from.0 { from } else { (from.0, from.0 + 1.0) };
        Self { from, to }
    }

    /// Where a value stands; those outside stand at the edge.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = ((value - self.from.0) / (self.from.1 - self.from.0)).clamp(0.0, 1.0);
        self.to.0 + share * (self.to.1 - self.to.0)
    }
}

/// Round numbers from `low` to at least `high`, about `count` of them: steps of 1, 2 or 5 times a power of ten.
pub(super) fn ticks(low: f64, high: f64, count: u32) -> Vec<f64> {
    let range = if high > low { high - low } else { 1.0 };
    let rough = range / f64::from(count.max(1));
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(power * 10.0);
    let first = (low / step + 1e-9).floor();
    let last = (high / step - 1e-9).ceil().max(first + 1.0);
    let steps = (last - first) as u32;
    (0..=steps).map(|i| (first + f64::from(i)) * step).collect()
}

/// A number as short as it may be: three digits that count.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size == 0.0 => "0".to_owned(),
        _ if size >= 1e6 => format!("{:.1}M", value / 1e6),
        _ if size >= 1e4 => format!("{:.1}k", value / 1e3),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A tick's number: without digits that say nothing.
pub(super) fn plain(value: f64) -> String {
    let (value, unit) = if value.abs() >= 1e4 { (value / 1e3, "k") } else { (value, "") };
    let text = format!("{value:.5}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(ticks(0.0, 47.0, 5), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(ticks(0.0, 0.0, 5).first(), Some(&0.0));
        let near_one = ticks(0.997, 1.0, 3);
        assert!(near_one.first().unwrap() <= &0.997 && near_one.last().unwrap() >= &0.9999, "{near_one:?}");
        assert!(near_one.len() <= 6, "{near_one:?}");
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.257, 12.34, 999.6, 12_345.0, 2_500_000.0].map(short);
        assert_eq!(texts, ["0", "0.26", "12.3", "1000", "12.3k", "2.5M"]);
        assert_eq!([0.5, 10.0, 20_000.0, 0.999].map(plain), ["0.5", "10", "20k", "0.999"]);
    }

    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
