//! A pool's events as metrics and diagnostics.

use std::sync::Arc;

use pool::{CauseOfDeath, ConnectionId, DialReport, DriftField, Stale, Verdict};

use super::environment::EnvironmentMetrics;

/// Counts what one pool reports.
pub(super) struct PoolObserver {
    metrics: Arc<EnvironmentMetrics>,
}

impl PoolObserver {
    pub(super) fn new(metrics: Arc<EnvironmentMetrics>) -> Self {
        Self { metrics }
    }
}

impl pool::Observer for PoolObserver {
    fn dialled(&self, report: &DialReport) {
        self.metrics.handshakes(report.resumed, report.failure).increment(1);
        // Times of failures say how long a limit is, not how long a handshake takes.
        if let (Some(resumed), None) = (report.resumed, report.failure) {
            let phases = &report.phases;
            let times = [phases.dns, phases.tcp, phases.tls, phases.prove, Some(phases.total)];
            for (histogram, time) in self.metrics.handshake_seconds[usize::from(resumed)].iter().zip(times) {
                if let Some(time) = time {
                    histogram.record(time);
                }
            }
        }
    }

    fn closed(&self, _connection: ConnectionId, cause: CauseOfDeath, requests: u64) {
        if let Some(counter) = self.metrics.closed(cause) {
            counter.increment(1);
        }
        self.metrics.connection_requests.record(requests as f64);
    }

    fn goaway(&self, _connection: ConnectionId, error_code: u32) {
        self.metrics.goaways(error_code).increment(1);
    }

    fn retried(&self, verdict: Verdict) {
        if let Some(counter) = self.metrics.retries(verdict) {
            counter.increment(1);
        }
    }

    fn retry_denied(&self) {
        self.metrics.retries_denied.increment(1);
    }

    fn unprocessed_lost(&self) {
        self.metrics.unprocessed_lost.increment(1);
    }

    fn stale(&self, stale: Stale) {
        self.metrics.stale(stale).increment(1);
    }

    fn drifted(&self, field: DriftField) {
        if let Some(counter) = self.metrics.drift(field) {
            counter.increment(1);
        }
    }
}
