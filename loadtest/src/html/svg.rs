//! Building blocks of a drawing: marks, axes, ticks.
//!
//! Owns nothing about what is drawn. Colours come from the page's style by class, so that light, dark and paper
//! each have their own.

use std::fmt::{Display, Write as _};

/// Width of every drawing, in its own units; one is a pixel at most.
pub(super) const WIDTH: f64 = 560.0;

/// Colours of the page's style for series, `c0` and on; those beyond share one and differ in the dashes.
const COLOURS: usize = 8;

/// Greys after them, for what is no rival.
const GREYS: usize = 2;

/// Dashes tell lines apart without colour.
const DASHES: [&str; 5] = ["none", "7 3", "2 3", "9 3 2 3", "14 4"];

/// Room that a text of the drawings' type takes, at most: by the widest of common fonts, letter by letter.
pub(super) fn width(text: &str) -> f64 {
    text.chars().map(letter).sum()
}

fn letter(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | ' ' | '.' | ',' | ':' | '\'' | '|' => 4.2,
        'f' | 'r' | 't' | '-' | '(' | ')' => 5.3,
        'm' | 'w' | 'M' | 'W' | '…' => 11.8,
        'A'..='Z' | '0'..='9' => 8.5,
        _ => 7.6,
    }
}

/// As much of a text as fits into `room`; what is left out is shown by dots.
pub(super) fn clipped(text: &str, room: f64) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut left = room - letter('…');
    let fits = |c: &char| {
        left -= letter(*c);
        left >= 0.0
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

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

/// How a series looks in every drawing of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    colour: usize,
    dashes: &'static str,
}

impl Look {
    /// Of the series of this number.
    pub(super) const fn nth(number: usize) -> Self {
        Self { colour: number % COLOURS, dashes: DASHES[number % DASHES.len()] }
    }

    /// Of the series of this number, where it has a drawing to itself.
    pub(super) const fn solid(number: usize) -> Self {
        Self { colour: number % COLOURS, dashes: DASHES[0] }
    }

    /// Of the reference of this number: a grey.
    pub(super) const fn reference(number: usize) -> Self {
        Self { colour: COLOURS + number % GREYS, dashes: DASHES[(number + 1) % DASHES.len()] }
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

    /// A filled box with words for whoever points at it.
    pub(super) fn bar(&mut self, at: (f64, f64), size: (f64, f64), look: Look, hint: &str) {
        let (colour, hint) = (look.colour, escape(hint));
        self.push(format_args!(
            r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" class="f{colour}"><title>{hint}</title></rect>"#,
            at.0,
            at.1,
            size.0.max(0.0),
            size.1
        ));
    }

    /// A dot.
    pub(super) fn dot(&mut self, at: (f64, f64), look: Look, hint: &str) {
        let (colour, hint) = (look.colour, escape(hint));
        self.push(format_args!(
            r#"<circle cx="{:.1}" cy="{:.1}" r="3" class="f{colour}"><title>{hint}</title></circle>"#,
            at.0, at.1
        ));
    }

    /// A line through points.
    pub(super) fn curve(&mut self, points: &[(f64, f64)], look: Look, hint: &str) {
        let (Look { colour, dashes }, hint) = (look, escape(hint));
        let mut path = String::new();
        for (x, y) in points {
            let _infallible = write!(path, "{x:.1},{y:.1} ");
        }
        self.push(format_args!(
            r#"<polyline points="{}" class="curve s{colour}" stroke-dasharray="{dashes}"><title>{hint}</title></polyline>"#,
            path.trim_end()
        ));
    }

    /// Names beside samples of their lines, in rows from `y` on.
    pub(super) fn legend(&mut self, names: &[(&str, Look)], left: f64, y: f64) {
        for (&(name, look), (x, row)) in names.iter().zip(legend_places(names, left)) {
            let y = y + f64::from(row) * LEGEND_ROW;
            self.curve(&[(x, y), (x + 28.0, y)], look, name);
            self.text(x + 34.0, y + 4.0, Anchor::Start, "label", name);
        }
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

/// Height of a row of a legend.
const LEGEND_ROW: f64 = 18.0;

/// Height of a legend that begins at `left`.
pub(super) fn legend_height(names: &[(&str, Look)], left: f64) -> f64 {
    legend_places(names, left).last().map_or(0.0, |(_, row)| f64::from(row + 1) * LEGEND_ROW)
}

/// Position along the row, and the row, of every name.
fn legend_places(names: &[(&str, Look)], left: f64) -> impl Iterator<Item = (f64, u32)> {
    let (mut x, mut row) = (left, 0);
    names.iter().map(move |(name, _)| {
        let room = 34.0 + width(name) + 14.0;
        if x > left && x + room > WIDTH {
            (x, row) = (left, row + 1);
        }
        let place = (x, row);
        x += room;
        place
    })
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
    fn a_legend_takes_the_rows_it_needs_and_stays_inside() {
        let names = vec![("a subject of some length", Look::nth(0)); 5];
        let places: Vec<_> = legend_places(&names, 60.0).collect();
        assert_eq!(places.iter().map(|place| place.1).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
        assert!((legend_height(&names, 60.0) - 54.0).abs() < 1e-9);
    }

    #[test]
    fn references_are_grey_and_no_series_is() {
        assert!((0..20).all(|number| Look::nth(number).colour < COLOURS));
        assert!((0..4).all(|number| Look::reference(number).colour >= COLOURS));
        assert_ne!(Look::nth(0), Look::nth(8), "the dashes differ");
    }

    #[test]
    fn long_names_are_clipped_to_the_room_there_is() {
        assert_eq!(clipped("nginx", 100.0), "nginx");
        let clip = clipped("RSA 2048, X25519MLKEM768, resumed", 100.0);
        assert!(clip.starts_with("RSA 2048") && clip.ends_with('…') && width(&clip) <= 100.0, "{clip}");
        assert_eq!(clipped("x", 0.0), "…");
    }

    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
