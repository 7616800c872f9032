//! The metrics: every handle is made at start-up, so recording is an index and an atomic.
//!
//! Owns names, labels, buckets and handles. Values come from the recorder (requests), from pools by way of
//! [`pool::Observer`] (dials, deaths) and, at the moment of a scrape, from [`PoolView`] (everything that is a
//! state). Each gateway has its own registry: several live in one test process.

mod definitions;
mod environment;
mod histogram;
mod observer;
mod requests;

use std::sync::Arc;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use definitions as def;
pub use definitions::{DEFINITIONS, Definition, Kind};
use environment::EnvironmentMetrics;
use histogram::Histograms;
use requests::RequestMetrics;
pub(crate) use requests::Series;

use super::{line_writer::Losses, view::PoolView};

/// The names that indexes in an [`Outcome`](super::Outcome) stand for; the bounded label sets are made of them.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Names of the environments, by index.
    pub environments: Vec<String>,
    /// The routes, by index.
    pub routes: Vec<CatalogRoute>,
    /// Names of callers, by index.
    pub callers: Vec<String>,
}

/// One route of the catalog.
#[derive(Clone, Debug)]
pub struct CatalogRoute {
    /// Its name.
    pub name: String,
    /// Index of the environment it leads to.
    pub environment: usize,
}

impl Catalog {
    /// Name of an environment; empty for none.
    #[must_use]
    pub fn environment(&self, index: Option<u16>) -> &str {
        index.and_then(|i| self.environments.get(usize::from(i))).map_or("", String::as_str)
    }

    /// Name of a caller; `-` for one without.
    #[must_use]
    pub fn caller(&self, index: Option<u16>) -> &str {
        index.and_then(|i| self.callers.get(usize::from(i))).map_or("-", String::as_str)
    }

    /// Name of a route; empty for none.
    #[must_use]
    pub fn route(&self, index: Option<u16>) -> &str {
        index.and_then(|i| self.routes.get(usize::from(i))).map_or("", |route| route.name.as_str())
    }
}

/// Handles for whoever accepts callers' connections.
#[derive(Clone)]
pub struct CallerMetrics {
    /// Connections open now.
    pub open: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections turned away at the limit.
    pub refused: Counter,
    /// Failures of `accept`.
    pub accept_errors: Counter,
}

/// All metrics of one gateway.
pub struct Metrics {
    exporter: PrometheusHandle,
    histograms: Histograms,
    catalog: Catalog,
    requests: RequestMetrics,
    environments: Vec<Arc<EnvironmentMetrics>>,
    callers: CallerMetrics,
    losses: Losses,
    records_dropped: Counter,
    scrape_errors: Counter,
}

impl Metrics {
    /// Registers everything for this catalog.
    #[must_use]
    pub fn new(catalog: Catalog) -> Arc<Self> {
        let registrar = Registrar::new();
        let build = registrar.gauge(&def::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]);
        build.set(1.0);
        let losses = Losses {
            queue_full: registrar.counter(&def::LOG_LINES_DROPPED, &[("reason", "queue_full")]),
            write_error: registrar.counter(&def::LOG_LINES_DROPPED, &[("reason", "write_error")]),
        };
        let mut metrics = Self {
            exporter: registrar.recorder.handle(),
            histograms: Histograms::default(),
            requests: RequestMetrics::register(&registrar, &catalog),
            environments: catalog
                .environments
                .iter()
                .map(|name| Arc::new(EnvironmentMetrics::register(&registrar, name)))
                .collect(),
            callers: CallerMetrics {
                open: registrar.gauge(&def::CALLER_CONNECTIONS, &[]),
                accepted: registrar.counter(&def::CALLERS_ACCEPTED, &[]),
                refused: registrar.counter(&def::CALLERS_REFUSED, &[]),
                accept_errors: registrar.counter(&def::ACCEPT_ERRORS, &[]),
            },
            losses,
            records_dropped: registrar.counter(&def::RECORDS_DROPPED, &[]),
            scrape_errors: registrar.counter(&def::UNKNOWN_ENVIRONMENTS, &[]),
            catalog,
        };
        // Only now are all of them registered.
        metrics.histograms = registrar.histograms;
        Arc::new(metrics)
    }

    /// The names behind indexes.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The observer to give to the pool of the environment with this index; `None` if there is no such.
    #[must_use]
    pub fn observer(&self, environment: usize) -> Option<Arc<dyn pool::Observer>> {
        let metrics = Arc::clone(self.environments.get(environment)?);
        Some(Arc::new(observer::PoolObserver::new(metrics)))
    }

    /// Handles for whoever accepts callers' connections.
    #[must_use]
    pub fn callers(&self) -> &CallerMetrics {
        &self.callers
    }

    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    pub(crate) fn records_dropped(&self) -> &Counter {
        &self.records_dropped
    }

    pub(crate) fn requests(&self) -> &RequestMetrics {
        &self.requests
    }

    /// The text of `/metrics`, with gauges read from `pools` now. Takes up to some milliseconds: not for a worker
    /// that carries traffic.
    #[must_use]
    pub fn render(&self, pools: &[Arc<dyn PoolView>]) -> String {
        for view in pools {
            match self.catalog.environments.iter().position(|name| name == view.environment()) {
                Some(index) => self.environments[index].observe(view.as_ref()),
                None => self.scrape_errors.increment(1),
            }
        }
        let mut text = self.exporter.render();
        self.histograms.render(&mut text);
        text
    }
}

/// Makes handles from definitions.
pub(crate) struct Registrar {
    recorder: PrometheusRecorder,
    histograms: Histograms,
}

const METADATA: Metadata<'static> = Metadata::new("tsh_gateway", Level::INFO, None);

impl Registrar {
    fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for definition in DEFINITIONS {
            let (name, help) = (definition.name.into(), definition.help.into());
            match definition.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => {}
            }
        }
        Self { recorder, histograms: Histograms::default() }
    }

    pub(crate) fn counter(&self, definition: &Definition, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&key(definition, labels), &METADATA)
    }

    pub(crate) fn gauge(&self, definition: &Definition, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(definition, labels), &METADATA)
    }

    pub(crate) fn histogram(
        &self,
        definition: &Definition,
        labels: &[(&'static str, &str)],
    ) -> metrics::Histogram {
        check_labels(definition, labels);
        match definition.kind {
            Kind::Histogram(bounds) => self.histograms.register(definition, bounds, labels),
            Kind::Counter | Kind::Gauge => metrics::Histogram::noop(),
        }
    }
}

fn check_labels(definition: &Definition, labels: &[(&'static str, &str)]) {
    debug_assert!(
        labels.iter().map(|(name, _)| name).eq(definition.labels.iter()),
        "{} is defined with the labels {:?}",
        definition.name,
        definition.labels
    );
}

fn key(definition: &Definition, labels: &[(&'static str, &str)]) -> Key {
    check_labels(definition, labels);
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(definition.name, labels)
}

#[cfg(test)]
mod tests;
