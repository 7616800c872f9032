//! The page: its frame, and what comes in which order.

use std::fmt::Write as _;

use super::{
    folder::Folder,
    scenario,
    stats::{Part, group},
    summary,
    svg::{Look, escape},
    timeline,
};

const STYLE: &str = include_str!("style.css");

/// The looks of subjects over the whole page, so that one has the same colour everywhere.
#[derive(Debug)]
pub(super) struct Palette<'a> {
    subjects: Vec<&'a str>,
    /// How many of them, from the front, are no references.
    rivals: usize,
}

impl<'a> Palette<'a> {
    fn of(folder: &'a Folder, ours: &str) -> Self {
        let mut subjects: Vec<&str> = Vec::new();
        for report in &folder.reports {
            if !subjects.contains(&report.setup.subject.as_str()) {
                subjects.push(&report.setup.subject);
            }
        }
        subjects.sort_by_key(|subject| Part::of(subject, ours));
        let rivals = subjects.partition_point(|subject| Part::of(subject, ours) != Part::Reference);
        Self { subjects, rivals }
    }

    /// How a subject looks.
    pub(super) fn look(&self, subject: &str) -> Look {
        let at = self.subjects.iter().position(|known| *known == subject).unwrap_or_default();
        at.checked_sub(self.rivals).map_or(Look::nth(at), Look::reference)
    }
}

/// The whole page.
pub(super) fn render(folder: &Folder, title: &str, ours: &str) -> String {
    let palette = Palette::of(folder, ours);
    let scenarios = group(&folder.reports, ours);
    let title = escape(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Load report {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Load report</h1>\n"
    );
    if scenarios.is_empty() {
        let _infallible = writeln!(page, "<p>{title}.</p>");
    } else {
        let (runs, subjects) = (folder.reports.len(), palette.subjects.len());
        let _infallible = writeln!(
            page,
            "<p>{title}. Runs: {runs}, subjects: {subjects}, scenarios: {}.</p>",
            scenarios.len()
        );
        page.push_str(&summary::verdict(&folder.reports));
        page.push_str(&summary::table(&scenarios, ours));
    }
    page.push_str(&summary::figures(&folder.figures));
    for scenario in &scenarios {
        page.push_str(&scenario::section(scenario, &palette));
    }
    for report in &folder.handshakes {
        page.push_str(&timeline::handshakes(report));
    }
    for (name, samples) in &folder.series {
        page.push_str(&timeline::gateway(name, samples));
    }
    for (name, storm) in &folder.storms {
        page.push_str(&timeline::storm(name, storm));
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// One drawing with its title and the sentence that says what it shows.
pub(super) fn figure(title: &str, sentence: &str, drawing: &str) -> String {
    format!(
        "<figure>\n<figcaption><strong>{}</strong>{}</figcaption>\n{drawing}\n</figure>\n",
        escape(title),
        escape(sentence)
    )
}

/// A section of drawings; `intro` is text.
pub(super) fn section(title: &str, intro: &str, inside: &str) -> String {
    format!(
        "<section>\n<h2>{}</h2>\n<p>{}</p>\n<div class=\"plots\">\n{inside}</div>\n</section>\n",
        escape(title),
        escape(intro)
    )
}
