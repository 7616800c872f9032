//! The terminal: frames drawn over each other in place, and how much room there is.
//!
//! Owns escape sequences. What stands in a frame is `table`'s.

use std::io::{self, Write};

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// They are.
    Colored,
    /// `NO_COLOR` asks for none.
    Plain,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presentation {
    /// A table, refreshed in place.
    Table(Paint),
    /// A line per second.
    Lines,
    /// Not at all; the summary is JSON.
    Json,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As any text.
    Normal,
    /// A heading.
    Bold,
    /// Of less weight.
    Dim,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
}

impl Paint {
    /// The text in this style.
    pub(super) fn apply(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Normal => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Bad => "1;31",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Colored => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Room on a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// In a line.
    pub(super) columns: usize,
    /// Lines.
    pub(super) rows: usize,
}

/// What terminals have had since 1978, where the system does not say.
const USUAL_SIZE: Size = Size { columns: 80, rows: 24 };

/// The size of the terminal behind standard output.
pub(super) fn terminal_size() -> Size {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => USUAL_SIZE,
    }
}

/// A place to draw on. Dropping it makes the cursor visible again.
pub(super) struct Screen<'w> {
    out: &'w mut (dyn Write + Send),
    /// Stands above the frames.
    preface: &'w str,
    drawn: usize,
    size: Option<Size>,
    cursor: Cursor,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cursor {
    Shown,
    Hidden,
}

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const CLEAR_REST_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_ALL: &str = "\x1b[2J\x1b[H";

impl<'w> Screen<'w> {
    /// A screen below `preface`, which has been written already and is written anew when the screen is cleared.
    pub(super) fn new(out: &'w mut (dyn Write + Send), presentation: Presentation, preface: &'w str) -> Self {
        let cursor = match presentation {
            Presentation::Table(_) => Cursor::Hidden,
            Presentation::Lines | Presentation::Json => Cursor::Shown,
        };
        Self { out, preface, drawn: 0, size: None, cursor }
    }

    /// Writes a line below what there is.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Draws lines over those of the last frame, in one write. No line may be longer than the terminal is wide,
    /// and there must be fewer of them than it has rows.
    pub(super) fn frame(&mut self, lines: &[String], size: Size) -> io::Result<()> {
        let mut frame = String::with_capacity(2048);
        match self.size {
            None => frame.push_str(HIDE_CURSOR),
            // The terminal has broken the old lines anew: nobody knows where they stand.
            Some(old) if old != size => {
                frame.push_str(CLEAR_ALL);
                frame.push_str(self.preface);
            }
            Some(_) if self.drawn > 0 => frame.push_str(&format!("\x1b[{}A\r", self.drawn)),
            Some(_) => {}
        }
        for line in lines {
            frame.push_str(line);
            frame.push_str(CLEAR_REST_OF_LINE);
            frame.push('\n');
        }
        frame.push_str(CLEAR_BELOW);
        self.out.write_all(frame.as_bytes())?;
        (self.drawn, self.size) = (lines.len(), Some(size));
        self.out.flush()
    }

    /// Ends drawing and takes the last frame away.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\r{CLEAR_BELOW}", self.drawn)?;
        }
        self.show_cursor()
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        if self.cursor == Cursor::Shown {
            return Ok(());
        }
        self.cursor = Cursor::Shown;
        self.out.write_all(SHOW_CURSOR.as_bytes())?;
        self.out.flush()
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // Whoever cannot be written to has no cursor either.
        let _ = self.show_cursor();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 80, rows: 24 };

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_frame_is_drawn_over_the_last_one_and_taken_away_at_the_end() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Presentation::Table(Paint::Plain), "above\n");
        screen.frame(&lines(&["a", "b"]), SIZE).unwrap();
        screen.frame(&lines(&["c"]), SIZE).unwrap();
        screen.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\x1b[?25la\x1b[K\nb\x1b[K\n\x1b[J\x1b[2A\rc\x1b[K\n\x1b[J\x1b[1A\r\x1b[J\x1b[?25h");
    }

    #[test]
    fn another_size_begins_on_an_empty_screen_with_what_stood_above() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Presentation::Table(Paint::Plain), "above\n");
        screen.frame(&lines(&["a"]), SIZE).unwrap();
        screen.frame(&lines(&["b"]), Size { columns: 40, rows: 24 }).unwrap();
        drop(screen);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\x1b[2J\x1b[Habove\nb"), "{text:?}");
    }

    #[test]
    fn the_cursor_comes_back_even_if_nobody_finishes() {
        let mut out = Vec::new();
        drop(Screen::new(&mut out, Presentation::Table(Paint::Plain), ""));
        assert_eq!(out, SHOW_CURSOR.as_bytes());
    }

    #[test]
    fn lines_carry_no_escape_sequences() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Presentation::Lines, "");
        screen.line("1 s").unwrap();
        screen.finish().unwrap();
        assert_eq!(out, b"1 s\n");
    }

    #[test]
    fn no_color_leaves_text_alone() {
        assert_eq!(Paint::Plain.apply(Style::Bad, "3"), "3");
        assert_eq!(Paint::Colored.apply(Style::Bad, "3"), "\x1b[1;31m3\x1b[0m");
        assert_eq!(Paint::Colored.apply(Style::Normal, "3"), "3");
    }
}
