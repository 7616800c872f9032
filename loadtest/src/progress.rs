//! The progress bar: on standard error, only if that is a terminal and nobody asked for quiet.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::record::Live;

/// Whether people want to see progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// If standard error is a terminal.
    Terminal,
    /// Never.
    Hidden,
}

/// A bar over the time, or over the requests, of a run.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    scale: Scale,
}

/// What the length of the bar stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale {
    /// The time until the last request starts.
    Time(Duration),
    /// The requests of the run.
    Requests(u64),
}

impl Progress {
    /// An empty bar.
    pub(crate) fn new(scale: Scale, visibility: Visibility) -> Self {
        if visibility == Visibility::Hidden || !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), scale };
        }
        let length = match scale {
            Scale::Time(time) => time.as_millis() as u64,
            Scale::Requests(requests) => requests,
        };
        let template = "{elapsed_precise} [{bar:32}] {msg}";
        // The template is a constant; a mistake in it shows at the first run.
        let style = ProgressStyle::with_template(template).expect("constant template").progress_chars("=> ");
        Self { bar: ProgressBar::new(length).with_style(style), scale }
    }

    /// Moves the bar to what has happened after `elapsed`.
    pub(crate) fn show(&self, elapsed: Duration, live: &Live) {
        if self.bar.is_hidden() {
            return;
        }
        let ended = live.ended();
        self.bar.set_position(match self.scale {
            Scale::Time(_) => elapsed.as_millis() as u64,
            Scale::Requests(_) => ended,
        });
        self.bar.set_message(format!("{ended} ended, {} lost", live.lost()));
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar over `length` steps of a command that counts no requests, with words beside it; hidden unless standard
/// error is a terminal.
pub(crate) fn steps(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // As above: a constant.
    let style =
        ProgressStyle::with_template("{elapsed_precise} [{bar:32}] {msg}").expect("constant template");
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}
