//! Diagnostics: what the gateway says about itself besides requests, on standard error.
//!
//! Owns the subscriber. Requests go to the access log; nothing here may hold a body, a key or `Authorization`.

use std::io;

use tracing::Level;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt,
};

use super::line_writer::{LineQueue, LineWriter, Losses};

/// The form of a diagnostic line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogForm {
    /// For a person.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Libraries below us speak at this level and above, whatever ours is: they trace per frame and per poll.
const FOREIGN_LEVEL: LevelFilter = LevelFilter::WARN;

/// Our crates.
const OURS: [&str; 5] = ["gateway", "pool", "tls_core", "provider_sim", "tsh_gateway"];

/// A diagnostics subscriber on any writer; [`install`] puts one on standard error for the whole process.
pub fn subscriber<W>(form: LogForm, level: Level, writer: W) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = OURS
        .iter()
        .fold(Targets::new().with_default(FOREIGN_LEVEL), |targets, ours| targets.with_target(*ours, level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match form {
        LogForm::Text => lines.with_filter(filter).boxed(),
        LogForm::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    Registry::default().with(layer)
}

/// Diagnostics on standard error, written by a thread of their own: a reader that stands still must not stop a worker.
/// Dropping it writes what waits, for up to a second.
pub struct Diagnostics {
    // Held for its drop.
    _writer: LineWriter,
}

/// Most lines of diagnostics waiting to be written; beyond it lines are dropped.
const MOST_LINES: usize = 4_096;

/// Sends diagnostics of the whole process to standard error. The first call wins: later ones (several gateways
/// in one process) change nothing.
///
/// # Errors
/// When the system gives no thread.
pub fn install(form: LogForm, level: Level) -> io::Result<Diagnostics> {
    let writer = LineWriter::start("tsh-diagnostics", io::stderr(), MOST_LINES, Losses::uncounted())?;
    let queue = writer.queue();
    // Somebody else's subscriber stays: this one then says nothing.
    let _ = tracing::subscriber::set_global_default(subscriber(form, level, move || Line(queue.clone())));
    Ok(Diagnostics { _writer: writer })
}

/// Takes one line and hands it to the writer's thread; never blocks.
struct Line(LineQueue);

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The formatter writes each event in one piece.
        self.0.push(line.to_vec(), 1);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::Seen;

    fn said(form: LogForm, level: Level, say: impl FnOnce()) -> String {
        let seen = Seen::default();
        let writer = seen.clone();
        tracing::subscriber::with_default(subscriber(form, level, move || writer.clone()), say);
        seen.text()
    }

    #[test]
    fn ours_are_heard_at_the_level_asked_for_and_libraries_from_warnings_up() {
        let text = said(LogForm::Text, Level::INFO, || {
            tracing::info!(target: "pool::dial", "ours");
            tracing::debug!(target: "pool::dial", "too low");
            tracing::info!(target: "h2::codec", "theirs");
            tracing::warn!(target: "h2::codec", "their warning");
        });
        assert!(text.contains("ours") && text.contains("their warning"), "{text}");
        assert!(!text.contains("too low") && !text.contains("theirs\n"), "{text}");
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_flat() {
        let text =
            said(LogForm::Json, Level::INFO, || tracing::warn!(environment = "sandbox", "provider down"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(
            (&line["environment"], &line["message"], &line["level"]),
            (&"sandbox".into(), &"provider down".into(), &"WARN".into())
        );
    }
}
