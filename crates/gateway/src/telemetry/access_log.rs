//! The access log: one JSON line per request, and where the lines go.
//!
//! Owns the form of a line. Never in it: bodies, queries, headers other than the correlation identifier.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

use super::{
    json_line::{JsonLine, name},
    line_writer::Sink,
    metrics::Catalog,
    record::{Entry, Text},
};

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file, made with mode 0640 if absent. When it is renamed or removed (log rotation) it is
    /// opened anew within a second of the next line.
    File(PathBuf),
}

impl AccessLogTarget {
    /// Opens it; `None` for [`Off`](Self::Off).
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(&self) -> io::Result<Option<Box<dyn Sink>>> {
        Ok(Some(match self {
            Self::Off => return Ok(None),
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
            Self::File(path) => Box::new(LogFile::open(path)?),
        }))
    }
}

impl Sink for Box<dyn Sink> {
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        (**self).write_lines(lines)
    }
}

/// How often the path is compared with the open file.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

/// A file that follows its name: rotation needs no signal.
struct LogFile {
    path: PathBuf,
    file: File,
    checked: Instant,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, checked: Instant::now() })
    }

    fn follow_rename(&mut self) -> io::Result<()> {
        let open = self.file.metadata()?;
        let same =
            std::fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (open.dev(), open.ino()));
        if !same {
            self.file = append(&self.path)?;
        }
        Ok(())
    }
}

impl Sink for LogFile {
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.checked.elapsed() >= ROTATION_CHECK {
            self.checked = Instant::now();
            self.follow_rename()?;
        }
        self.file.write_all(lines)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Turns the monotonic time of records into the text of wall time. Set anew now and then, so that it follows
/// corrections.
#[derive(Clone, Debug)]
pub(crate) struct WallTime {
    instant: Instant,
    /// Microseconds since 1970.
    wall_us: i128,
    /// The second whose text is kept: records of one second share all but its fraction.
    second: i128,
    text: String,
}

impl WallTime {
    pub(crate) fn now() -> Self {
        Self::at(Instant::now(), OffsetDateTime::now_utc())
    }

    fn at(instant: Instant, wall: OffsetDateTime) -> Self {
        Self { instant, wall_us: wall.unix_timestamp_nanos() / 1_000, second: i128::MIN, text: String::new() }
    }

    /// RFC 3339 in UTC with microseconds.
    fn text(&mut self, at: Instant) -> &str {
        let since = at.saturating_duration_since(self.instant).as_micros();
        let before = self.instant.saturating_duration_since(at).as_micros();
        // A duration in microseconds is far below what the type holds.
        let at_us = self.wall_us + since as i128 - before as i128;
        let second = at_us.div_euclid(1_000_000);
        if second != self.second {
            self.second = second;
            self.text = second_text(second);
        }
        // Behind the seconds: six digits and the zone.
        self.text.truncate(SECOND_LENGTH);
        let fraction = at_us.rem_euclid(1_000_000) as u32;
        let mut digits = *b".000000Z";
        let mut rest = fraction;
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.text.extend(digits.map(char::from));
        &self.text
    }
}

/// Length of `2026-11-23T21:00:00`.
const SECOND_LENGTH: usize = 19;

fn second_text(second: i128) -> String {
    let at = i64::try_from(second).ok().and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
    let mut text = at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
    // A clock beyond the year 9999 has no such form.
    if text.len() < SECOND_LENGTH {
        text = "1970-01-01T00:00:00".to_owned();
    }
    text.truncate(SECOND_LENGTH);
    text
}

/// Appends the line of one record, newline included. The order of fields is the order in the file.
pub(crate) fn write_line(
    out: &mut Vec<u8>,
    wall: &mut WallTime,
    catalog: &Catalog,
    entry: &Entry,
    text: Text<'_>,
) {
    let row = entry.code.map(|code| code.row());
    let mut line = JsonLine::begin(out);
    line.word(name!("time"), wall.text(entry.started))
        .word(name!("level"), row.map_or("info", |row| level_word(row.level)))
        .text(name!("correlation_id"), text.correlation_id)
        .word(name!("protocol"), entry.protocol.as_str());
    match entry.peer {
        Some(peer) => line.address(name!("peer"), peer),
        None => line.null(name!("peer")),
    };
    line.text(name!("caller"), catalog.caller(entry.caller).as_bytes())
        .text(name!("method"), text.method)
        .text(name!("path"), text.path);
    if entry.path_cut {
        line.flag(name!("path_cut"), true);
    }
    line.text(name!("route"), catalog.route(entry.route).as_bytes())
        .text(name!("environment"), catalog.environment(entry.environment).as_bytes())
        .number(name!("status"), entry.status.into())
        .word(name!("outcome"), row.map_or("ok", |row| row.code))
        .word(name!("ended"), entry.ended.as_str());
    if let Some(row) = row {
        line.word(name!("blame"), row.blame.as_str());
    }
    if let Some(safe) = entry.retry_safe {
        line.word(name!("retry_safe"), safe.as_str());
    }
    write_journey(&mut line, entry);
    line.number(name!("bytes_in"), entry.bytes_in).number(name!("bytes_out"), entry.bytes_out);
    line.end();
}

fn write_journey(line: &mut JsonLine<'_>, entry: &Entry) {
    let journey = &entry.journey;
    match journey.connection {
        Some(id) => line.number(name!("connection"), id.0),
        None => line.null(name!("connection")),
    };
    line.number(name!("generation"), journey.generation)
        .flag(name!("reused"), journey.reused)
        .flag(name!("resumed"), journey.resumed)
        .number(name!("attempts"), journey.attempts.into())
        .flag(name!("waited_for_dial"), journey.waited_for_dial)
        .number(name!("queue_us"), micros(journey.queue))
        .number(name!("connect_us"), micros(journey.connect))
        .number(name!("send_us"), micros(journey.send))
        .number(name!("ttfb_us"), micros(journey.ttfb))
        .number(name!("total_us"), micros(entry.total));
}

/// Whole microseconds; ends at 584,000 years.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn level_word(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}

#[cfg(test)]
mod tests;
