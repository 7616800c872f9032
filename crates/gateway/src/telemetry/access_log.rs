//! The access log: one JSON line per request, and where the lines go.
//!
//! Owns the form of a line. Never in it: bodies, queries, headers other than the correlation identifier.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

use super::{
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

/// Turns the monotonic time of records into wall time. Taken anew now and then, so that it follows corrections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallTime {
    instant: Instant,
    wall: SystemTime,
}

impl WallTime {
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    fn at(&self, instant: Instant) -> OffsetDateTime {
        let wall = match instant.checked_duration_since(self.instant) {
            Some(after) => self.wall.checked_add(after),
            None => self.wall.checked_sub(self.instant.duration_since(instant)),
        };
        wall.unwrap_or(self.wall).into()
    }
}

/// A line; the order of fields is the order in the file.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    level: &'static str,
    correlation_id: LossyText<'a>,
    protocol: &'static str,
    peer: Option<SocketAddr>,
    caller: &'a str,
    method: LossyText<'a>,
    path: LossyText<'a>,
    #[serde(skip_serializing_if = "is_false")]
    path_cut: bool,
    route: &'a str,
    environment: &'a str,
    status: u16,
    outcome: &'static str,
    ended: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    blame: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_safe: Option<&'static str>,
    connection: Option<u64>,
    generation: u64,
    reused: bool,
    resumed: bool,
    attempts: u8,
    waited_for_dial: bool,
    queue_us: u64,
    connect_us: u64,
    send_us: u64,
    ttfb_us: u64,
    total_us: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Appends the line of one record, newline included.
pub(crate) fn write_line(
    out: &mut Vec<u8>,
    wall: &WallTime,
    catalog: &Catalog,
    entry: &Entry,
    text: Text<'_>,
) {
    let row = entry.code.map(|code| code.row());
    let journey = &entry.journey;
    let line = Line {
        time: Timestamp(wall.at(entry.started)),
        level: row.map_or("info", |row| level_word(row.level)),
        correlation_id: LossyText(text.correlation_id),
        protocol: entry.protocol.as_str(),
        peer: entry.peer,
        caller: catalog.caller(entry.caller),
        method: LossyText(text.method),
        path: LossyText(text.path),
        path_cut: entry.path_cut,
        route: catalog.route(entry.route),
        environment: catalog.environment(entry.environment),
        status: entry.status,
        outcome: row.map_or("ok", |row| row.code),
        ended: entry.ended.as_str(),
        blame: row.map(|row| row.blame.as_str()),
        retry_safe: entry.retry_safe.map(|safe| safe.as_str()),
        connection: journey.connection.map(|id| id.0),
        generation: journey.generation,
        reused: journey.reused,
        resumed: journey.resumed,
        attempts: journey.attempts,
        waited_for_dial: journey.waited_for_dial,
        queue_us: micros(journey.queue),
        connect_us: micros(journey.connect),
        send_us: micros(journey.send),
        ttfb_us: micros(journey.ttfb),
        total_us: micros(entry.total),
        bytes_in: entry.bytes_in,
        bytes_out: entry.bytes_out,
    };
    let begin = out.len();
    // Writing to memory and serialising numbers and strings cannot fail; should it, no half line stays.
    if serde_json::to_writer(&mut *out, &line).is_err() {
        out.truncate(begin);
        return;
    }
    out.push(b'\n');
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

fn is_false(value: &bool) -> bool {
    !value
}

/// Bytes of a header or path as JSON text; what is not UTF-8 becomes U+FFFD.
struct LossyText<'a>(&'a [u8]);

impl Serialize for LossyText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.0))
    }
}

/// Wall time in UTC, to the microsecond.
struct Timestamp(OffsetDateTime);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // 9999-12-31T23:59:59.999999Z
        let mut text = [0u8; 32];
        let mut rest = &mut text[..];
        let micros = self.0.nanosecond() / 1_000 * 1_000;
        let at = self.0.replace_nanosecond(micros).unwrap_or(self.0);
        at.format_into(&mut rest, &Rfc3339).map_err(serde::ser::Error::custom)?;
        let unused = rest.len();
        let length = text.len() - unused;
        serializer.serialize_str(&String::from_utf8_lossy(&text[..length]))
    }
}

#[cfg(test)]
mod tests;
