//! Counters and histograms of requests, indexed by route and environment.

use metrics::{Counter, Histogram};
use pool::Journey;

use super::{Catalog, Registrar, definitions as def};
use crate::{outcome::ErrorCode, telemetry::record::Entry};

/// Outcomes of delivered responses, by class of status; `other` for numbers that are no HTTP status.
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "other"];

/// One block of counters per route, one per environment asked for by name, one for requests without either.
pub(crate) struct RequestMetrics {
    routes: usize,
    environments: usize,
    outcomes: Vec<Counter>,
    /// By environment; the last is for requests that found none.
    phases: Vec<Phases>,
}

struct Phases {
    queue: Histogram,
    connect: Histogram,
    send: Histogram,
    ttfb: Histogram,
    total: Histogram,
    queue_wait: Option<Histogram>,
    waited_for_dial: Option<Counter>,
    bytes_in: Counter,
    bytes_out: Counter,
}

/// What is counted about a request, on whichever thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    pub(crate) route: Option<u16>,
    pub(crate) environment: Option<u16>,
    pub(crate) status: u16,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) waited_for_dial: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl RequestMetrics {
    pub(super) fn register(registrar: &Registrar, catalog: &Catalog) -> Self {
        let none = "";
        let mut outcomes = Vec::new();
        let mut block = |environment: &str, route: &str| {
            let labels = CLASSES.into_iter().chain(ErrorCode::ALL.iter().map(|code| code.as_str()));
            for outcome in labels {
                let labels = [("environment", environment), ("route", route), ("outcome", outcome)];
                outcomes.push(registrar.counter(&def::REQUESTS, &labels));
            }
        };
        for route in &catalog.routes {
            block(catalog.environments.get(route.environment).map_or(none, String::as_str), &route.name);
        }
        for environment in &catalog.environments {
            block(environment, none);
        }
        block(none, none);
        let mut phases: Vec<Phases> =
            catalog.environments.iter().map(|name| Phases::register(registrar, name)).collect();
        phases.push(Phases::register_without_environment(registrar));
        Self { routes: catalog.routes.len(), environments: catalog.environments.len(), outcomes, phases }
    }

    /// Counts a request: exact, whatever happens to its record.
    pub(crate) fn count(&self, series: &Series) {
        let outcome = match series.code {
            Some(code) => CLASSES.len() + code as usize,
            None => class(series.status),
        };
        let block = match (series.route, series.environment) {
            (Some(route), _) if usize::from(route) < self.routes => usize::from(route),
            (_, Some(environment)) if usize::from(environment) < self.environments => {
                self.routes + usize::from(environment)
            }
            _ => self.routes + self.environments,
        };
        self.outcomes[block * (CLASSES.len() + ErrorCode::ALL.len()) + outcome].increment(1);
        let phases = self.phases(series.environment);
        if series.waited_for_dial
            && let Some(counter) = &phases.waited_for_dial
        {
            counter.increment(1);
        }
        if series.bytes_in > 0 {
            phases.bytes_in.increment(series.bytes_in);
        }
        if series.bytes_out > 0 {
            phases.bytes_out.increment(series.bytes_out);
        }
    }

    /// Puts the times of a request into their histograms.
    pub(crate) fn time(&self, entry: &Entry) {
        let phases = self.phases(entry.environment);
        phases.total.record(entry.total);
        let Journey { queue, connect, send, ttfb, attempts, .. } = entry.journey;
        if !queue.is_zero() {
            phases.queue.record(queue);
            if let Some(wait) = &phases.queue_wait {
                wait.record(queue);
            }
        }
        if !connect.is_zero() {
            phases.connect.record(connect);
        }
        if attempts > 0 {
            phases.send.record(send);
            if !ttfb.is_zero() {
                phases.ttfb.record(ttfb);
            }
        }
    }

    fn phases(&self, environment: Option<u16>) -> &Phases {
        let index = environment.map_or(self.environments, usize::from).min(self.environments);
        &self.phases[index]
    }
}

impl Phases {
    fn register(registrar: &Registrar, environment: &str) -> Self {
        Self {
            queue_wait: Some(registrar.histogram(&def::QUEUE_WAIT_SECONDS, &[("environment", environment)])),
            waited_for_dial: Some(registrar.counter(&def::WAITED_FOR_DIAL, &[("environment", environment)])),
            ..Self::register_phases(registrar, environment)
        }
    }

    /// Requests that found no environment never get to a queue; only their total time and bytes are recorded.
    fn register_without_environment(registrar: &Registrar) -> Self {
        let none = Histogram::noop;
        let total = registrar.histogram(&def::REQUEST_SECONDS, &[("environment", ""), ("phase", "total")]);
        let bytes =
            |direction| registrar.counter(&def::BODY_BYTES, &[("environment", ""), ("direction", direction)]);
        Self {
            queue: none(),
            connect: none(),
            send: none(),
            ttfb: none(),
            total,
            queue_wait: None,
            waited_for_dial: None,
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
        }
    }

    fn register_phases(registrar: &Registrar, environment: &str) -> Self {
        let phase = |phase| {
            registrar.histogram(&def::REQUEST_SECONDS, &[("environment", environment), ("phase", phase)])
        };
        let bytes = |direction| {
            registrar.counter(&def::BODY_BYTES, &[("environment", environment), ("direction", direction)])
        };
        Self {
            queue: phase("queue"),
            connect: phase("connect"),
            send: phase("send"),
            ttfb: phase("ttfb"),
            total: phase("total"),
            queue_wait: None,
            waited_for_dial: None,
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
        }
    }
}

fn class(status: u16) -> usize {
    match status / 100 {
        class @ 2..=5 => usize::from(class) - 2,
        _ => CLASSES.len() - 1,
    }
}
