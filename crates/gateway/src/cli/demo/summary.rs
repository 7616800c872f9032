//! What is said at the end, for people and for programs, and whether it is good.

use provider_sim::Ledger;
use serde::Serialize;

use super::{
    screen::{Paint, Style},
    snapshot::{Environment, Snapshot},
    table,
    tally::Quantiles,
    text,
};
use crate::runtime::Stopped;

/// The end of a demonstration.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    /// Every request was answered, and none processed twice.
    good: bool,
    /// How long traffic ran.
    seconds: f64,
    answered: u64,
    lost: u64,
    /// Requests that a provider processed more than once.
    processed_twice: usize,
    /// 1 - connections / requests, over all environments.
    reuse_ratio: f64,
    handshakes_full: u64,
    handshakes_resumed: u64,
    latency: Quantiles,
    environments: Vec<Environment>,
    /// What the providers saw, in the same order.
    providers: Vec<Ledger>,
    /// Callers and streams that the stop had to cut.
    cut: u64,
    #[serde(skip)]
    last: Snapshot,
}

impl Summary {
    /// `last` is the look after the traffic had ended.
    pub(super) fn new(last: Snapshot, ledgers: &[Ledger], processed_twice: usize, stopped: Stopped) -> Self {
        let (answered, lost) = last.totals();
        let sum = |of: fn(&Environment) -> u64| last.environments.iter().map(of).sum::<u64>();
        let (full, resumed) = (sum(|e| e.handshakes_full.count), sum(|e| e.handshakes_resumed.count));
        let requests = sum(|e| e.requests);
        let reuse_ratio = if requests == 0 { 0.0 } else { 1.0 - (full + resumed) as f64 / requests as f64 };
        Self {
            good: lost == 0 && answered > 0 && processed_twice == 0,
            seconds: last.elapsed.as_secs_f64(),
            answered,
            lost,
            processed_twice,
            reuse_ratio: reuse_ratio.max(0.0),
            handshakes_full: full,
            handshakes_resumed: resumed,
            latency: last.latency,
            environments: last.environments.clone(),
            providers: ledgers.to_vec(),
            cut: stopped.callers as u64 + u64::from(stopped.streams),
            last,
        }
    }

    /// Whether the exit code is 0.
    pub(super) fn is_good(&self) -> bool {
        self.good
    }

    /// For people.
    pub(super) fn text(&self, paint: Paint) -> String {
        let mut lines = table::whole(&self.last, paint);
        lines.push(String::new());
        let seen: u64 = self.providers.iter().map(|ledger| ledger.connections_accepted).sum();
        lines.push(format!(
            "{} in {}, reuse {}",
            text::counted(self.answered + self.lost, "request"),
            text::length(self.last.elapsed),
            text::share(self.reuse_ratio),
        ));
        lines.push(format!(
            "handshakes: {} full, {} resumed (the providers saw {})",
            text::count(self.handshakes_full),
            text::count(self.handshakes_resumed),
            text::counted(seen, "connection"),
        ));
        lines.push(format!(
            "latency: p50 {}, p99 {}, longest {}",
            text::micros(self.latency.p50_us),
            text::micros(self.latency.p99_us),
            text::micros(self.latency.max_us),
        ));
        lines.extend(self.faults(paint));
        lines.push(self.verdict(paint));
        lines.join("\n") + "\n"
    }

    fn faults(&self, paint: Paint) -> Vec<String> {
        let mut faults = Vec::new();
        for environment in &self.environments {
            for (reason, times) in &environment.calls.reasons {
                faults.push(format!("{}: {} lost: {reason}", environment.name, text::count(*times)));
            }
            if let Some(failure) = &environment.failure {
                faults.push(format!("{}: the last dial failed: {failure}", environment.name));
            }
        }
        if self.processed_twice > 0 {
            let times = text::counted(self.processed_twice as u64, "request");
            faults.push(format!("a provider processed {times} more than once"));
        }
        if self.cut > 0 {
            faults.push(format!("{} connections or streams cut at the stop", text::count(self.cut)));
        }
        faults.iter().map(|fault| paint.apply(Style::Bad, fault)).collect()
    }

    fn verdict(&self, paint: Paint) -> String {
        if self.good {
            paint.apply(Style::Good, "every request was answered, none was processed twice")
        } else if self.answered + self.lost == 0 {
            paint.apply(Style::Bad, "no request was made")
        } else if self.lost == 0 {
            paint.apply(Style::Bad, "every request was answered, but not every one was processed once")
        } else {
            paint.apply(Style::Bad, &format!("{} lost", text::counted(self.lost, "request")))
        }
    }
}

#[cfg(test)]
mod tests;
