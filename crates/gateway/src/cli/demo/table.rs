//! What a look is shown as: the live table, or a line.
//!
//! Owns rows and their layout. Everything fits the terminal: rows of less weight go first, and no line is longer
//! than there is room, for a line that wraps would ruin the drawing in place.

use super::{
    screen::{Paint, Size, Style},
    snapshot::{Environment, Snapshot},
    tally::Quantiles,
    text,
};

/// One row: its label, how early it goes when there is no room (0: never), its cells.
struct Row {
    label: &'static str,
    weight: u8,
    cell: fn(&Environment) -> (Style, String),
}

const fn row(label: &'static str, weight: u8, cell: fn(&Environment) -> (Style, String)) -> Row {
    Row { label, weight, cell }
}

/// In the order of the table. Weights are all different, so that rows go one by one.
const ROWS: [Row; 17] = [
    row("connections serving", 2, |e| normal(e.connections.serving)),
    row("  draining", 12, |e| quiet(e.connections.draining)),
    row("  dialing", 13, |e| quiet(e.connections.dialing)),
    row("in flight", 11, |e| normal(e.in_flight)),
    row("queue", 10, |e| quiet(e.queue)),
    row("requests", 1, |e| (Style::Bold, text::count(e.requests))),
    row("  per second", 14, |e| (Style::Normal, format!("{:.0}", e.per_second))),
    row("  reuse", 3, |e| (Style::Normal, text::share(e.reuse_ratio))),
    row("handshakes full", 4, |e| (Style::Normal, text::count(e.handshakes_full.count))),
    row("  TLS, median", 15, |e| median(e.handshakes_full.tls)),
    row("handshakes resumed", 5, |e| (Style::Normal, text::count(e.handshakes_resumed.count))),
    row("  TLS, median", 16, |e| median(e.handshakes_resumed.tls)),
    row("GOAWAY received", 6, |e| (Style::Normal, text::count(e.goaways))),
    row("replays saved", 7, |e| (Style::Normal, text::count(e.replays))),
    row("latency p50", 9, |e| (Style::Normal, time(e.calls.latency, |l| l.p50_us))),
    row("  p99", 8, |e| (Style::Normal, time(e.calls.latency, |l| l.p99_us))),
    row("lost", 0, |e| lost(e.calls.lost)),
];

/// Lines that are no rows: title, space, names.
const HEAD: usize = 3;
/// Characters of a cell; the widest content is a time or a count in the millions.
const CELL: usize = 14;
/// Characters of a label.
const LABEL: usize = 22;

/// The table as lines: at most `size.rows - 1` of them, none wider than `size.columns`.
pub(super) fn frame(snapshot: &Snapshot, size: Size, paint: Paint) -> Vec<String> {
    let layout = Layout::new(size, paint, snapshot.environments.len());
    // One line less than there are: the cursor stands below the table.
    let room = size.rows.saturating_sub(1).max(1);
    let mut lines = vec![layout.title(snapshot)];
    if room > HEAD + 1 {
        lines.push(String::new());
    }
    if room > 2 {
        lines.push(layout.names(snapshot));
    }
    lines.extend(rows(snapshot, &layout, room.saturating_sub(lines.len())));
    let failures = snapshot.environments.iter().filter_map(|e| Some((e.name, e.failure.as_ref()?)));
    for (name, failure) in failures {
        if lines.len() < room {
            lines.push(layout.fit(Style::Bad, &format!("{name}: {failure}")));
        }
    }
    lines
}

/// The rows for all environments, at most `room` of them. Also the body of the summary.
fn rows(snapshot: &Snapshot, layout: &Layout, room: usize) -> Vec<String> {
    let mut weights: Vec<u8> = ROWS.iter().map(|row| row.weight).collect();
    weights.sort_unstable();
    let Some(&heaviest) = weights.get(room.min(weights.len()).wrapping_sub(1)) else { return Vec::new() };
    let kept = ROWS.iter().filter(|row| row.weight <= heaviest);
    kept.map(|row| layout.row(row, &snapshot.environments)).collect()
}

/// The names and all rows, for the summary.
pub(super) fn whole(snapshot: &Snapshot, paint: Paint) -> Vec<String> {
    let size = Size { columns: LABEL + CELL * snapshot.environments.len(), rows: usize::MAX };
    let layout = Layout::new(size, paint, snapshot.environments.len());
    let mut lines = vec![layout.names(snapshot)];
    lines.extend(rows(snapshot, &layout, ROWS.len()));
    lines
}

/// One look as one line.
pub(super) fn line(snapshot: &Snapshot) -> String {
    let (answered, lost) = snapshot.totals();
    let mut text = format!(
        "{:>4} s  {} answered, {lost} lost, p50 {}, p99 {}",
        (snapshot.elapsed.as_millis() + 500) / 1000,
        text::count(answered),
        time(snapshot.latency, |l| l.p50_us),
        time(snapshot.latency, |l| l.p99_us),
    );
    for e in &snapshot.environments {
        text.push_str(&format!(
            " | {}: {} serving, {} in flight, {} queued, reuse {}, handshakes {} full ({}) {} resumed ({}), {} goaways, {} replays",
            e.name,
            e.connections.serving,
            e.in_flight,
            e.queue,
            text::share(e.reuse_ratio),
            e.handshakes_full.count,
            median(e.handshakes_full.tls).1,
            e.handshakes_resumed.count,
            median(e.handshakes_resumed.tls).1,
            e.goaways,
            e.replays,
        ));
        if let Some(failure) = &e.failure {
            text.push_str(&format!(", FAILS: {failure}"));
        }
    }
    text
}

/// Where things stand in a line.
struct Layout {
    columns: usize,
    label: usize,
    cell: usize,
    paint: Paint,
}

impl Layout {
    fn new(size: Size, paint: Paint, cells: usize) -> Self {
        let cells = cells.max(1);
        let label = LABEL.min(size.columns / 2);
        let cell = CELL.min((size.columns - label) / cells);
        Self { columns: size.columns, label, cell, paint }
    }

    fn title(&self, snapshot: &Snapshot) -> String {
        let (answered, lost) = snapshot.totals();
        let time = match snapshot.planned {
            Some(planned) => format!("{} of {}", text::clock(snapshot.elapsed), text::clock(planned)),
            None => text::clock(snapshot.elapsed),
        };
        let style = if lost == 0 { Style::Bold } else { Style::Bad };
        let count = text::count(answered);
        self.fit(style, &format!("TSH Gateway demo  {time}  {count} answered, {} lost", text::count(lost)))
    }

    fn names(&self, snapshot: &Snapshot) -> String {
        let mut line = " ".repeat(self.label);
        for environment in &snapshot.environments {
            line.push_str(&self.cell(Style::Bold, environment.name));
        }
        line
    }

    fn row(&self, row: &Row, environments: &[Environment]) -> String {
        let label = clipped(row.label, self.label);
        let mut line = format!("{label:<width$}", width = self.label);
        for environment in environments {
            let (style, text) = (row.cell)(environment);
            line.push_str(&self.cell(style, &text));
        }
        line
    }

    /// A cell, to the right. What does not fit is cut, and never stands against its neighbour.
    fn cell(&self, style: Style, text: &str) -> String {
        let text = clipped(text, self.cell.saturating_sub(1));
        let space = " ".repeat(self.cell - text.len());
        space + &self.paint.apply(style, text)
    }

    fn fit(&self, style: Style, text: &str) -> String {
        // Messages may come from afar: no control characters on the terminal.
        let text: String =
            text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        self.paint.apply(style, clipped(&text, self.columns))
    }
}

/// The first `width` characters of an ASCII text.
fn clipped(text: &str, width: usize) -> &str {
    &text[..text.len().min(width)]
}

fn normal(number: u32) -> (Style, String) {
    (Style::Normal, text::count(number.into()))
}

/// A number that is mostly zero, and then of no interest.
fn quiet(number: u32) -> (Style, String) {
    (if number == 0 { Style::Dim } else { Style::Normal }, text::count(number.into()))
}

fn lost(number: u64) -> (Style, String) {
    (if number == 0 { Style::Good } else { Style::Bad }, text::count(number))
}

fn median(times: Quantiles) -> (Style, String) {
    (Style::Dim, time(times, |t| t.p50_us))
}

fn time(times: Quantiles, point: fn(&Quantiles) -> u64) -> String {
    if times.count == 0 { "-".to_owned() } else { text::micros(point(&times)) }
}

#[cfg(test)]
mod tests;
