//! The report of one run: the same facts as JSON for programs and as text for people.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::record::{Ledger, LostKind, Recorder};

/// Changes when a field changes its meaning or goes away.
pub(crate) const FORMAT: u32 = 1;

/// What was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the program under test.
    pub subject: String,
    /// Target URL.
    pub target: String,
    /// `http1`, `h2c` or `grpc`.
    pub protocol: String,
    /// Requests per second of an open loop; none in a closed loop.
    pub rate: Option<f64>,
    /// Connections.
    pub connections: u32,
    /// Callers per connection.
    pub streams: u32,
    /// Request body, bytes.
    pub body_bytes: u64,
    /// Prefix of the correlation ids, if requests had them.
    pub correlation_prefix: Option<String>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// What was run.
    pub setup: Setup,
    /// Length of the measured window, seconds.
    pub seconds: f64,
    /// Requests ended per second in the window.
    pub requests_per_second: f64,
    /// Measured requests.
    pub ledger: Ledger,
    /// Requests of the warm-up.
    pub warmup: Ledger,
    /// From intended start to the end of the reply, answered measured requests, µs.
    pub latency_us: Percentiles,
    /// From intended start until a caller took the request, measured requests, µs.
    pub lag_us: Percentiles,
    /// Measured replies by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Body bytes received.
    pub body_bytes_received: u64,
    /// Connections opened after the first ones.
    pub reconnects: u64,
    /// Stopped by a signal before its end.
    pub interrupted: bool,
    /// The first loss of each kind, in words.
    pub first_lost: BTreeMap<LostKind, String>,
    /// The program under test, if `--pid` named it.
    pub process: Option<Usage>,
    /// The generator itself: it shares the machine with what it measures.
    pub generator: Usage,
    /// `[µs, requests]`: every bucket of the latency histogram that is not empty.
    #[serde(default)]
    pub histogram: Vec<(u64, u64)>,
}

/// Cost in the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// CPU time, seconds.
    pub cpu_seconds: f64,
    /// CPU time per request ended in the window, µs.
    pub cpu_us_per_request: f64,
    /// Largest sum of resident memory of its processes in the whole run, bytes.
    pub rss_peak_bytes: u64,
    /// The same with shared pages divided among their users, bytes; 0 if not readable.
    pub pss_peak_bytes: u64,
}

/// Order statistics of a histogram, µs; zeros if it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest.
    pub min: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Largest.
    pub max: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            mean: histogram.mean(),
            min: histogram.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

/// What the runner saw beside the record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// Length, seconds.
    pub seconds: f64,
    /// Requests ended in it.
    pub ended: u64,
    /// CPU time of the program under test in it, with its peaks; none without `--pid`.
    pub process: Option<Usage>,
    /// CPU time of the generator in it.
    pub generator: Usage,
    /// Connections opened after the first ones.
    pub reconnects: u64,
    /// Stopped by a signal.
    pub interrupted: bool,
}

impl Report {
    /// Joins the parts.
    pub(crate) fn new(setup: Setup, record: &Recorder, window: Window) -> Self {
        let per_request = |usage: Usage| Usage {
            cpu_us_per_request: usage.cpu_seconds * 1e6 / window.ended.max(1) as f64,
            ..usage
        };
        Self {
            format: FORMAT,
            setup,
            seconds: window.seconds,
            requests_per_second: if window.seconds > 0.0 {
                window.ended as f64 / window.seconds
            } else {
                0.0
            },
            ledger: record.measured.clone(),
            warmup: record.warmup.clone(),
            latency_us: Percentiles::of(&record.latency),
            lag_us: Percentiles::of(&record.lag),
            statuses: record.statuses.clone(),
            body_bytes_received: record.body_bytes,
            reconnects: window.reconnects,
            interrupted: window.interrupted,
            first_lost: record.samples.clone(),
            process: window.process.map(per_request),
            generator: per_request(window.generator),
            histogram: record
                .latency
                .iter_recorded()
                .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
                .collect(),
        }
    }

    /// Whether every request, warm-up included, was answered, at least one was measured, and nothing is
    /// missing from the books.
    pub(crate) fn is_good(&self) -> bool {
        let clean = |ledger: &Ledger| ledger.is_balanced() && ledger.lost_total() == 0;
        clean(&self.ledger) && clean(&self.warmup) && self.ledger.ok > 0
    }

    /// Writes the report for people.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let setup = &self.setup;
        let pacing = setup.rate.map_or("closed loop".to_owned(), |rate| format!("open loop {rate}/s"));
        writeln!(
            out,
            "{} on {}: {} {pacing}, {} connections x {}, {} B bodies, {:.1} s",
            setup.scenario,
            setup.subject,
            setup.protocol,
            setup.connections,
            setup.streams,
            setup.body_bytes,
            self.seconds,
        )?;
        if let Some(prefix) = &setup.correlation_prefix {
            writeln!(out, "  correlation  {prefix}-N")?;
        }
        write_ledger(out, "warm-up", &self.warmup)?;
        write_ledger(out, "ledger", &self.ledger)?;
        for (kind, cause) in &self.first_lost {
            writeln!(out, "  first {}: {cause}", name(*kind))?;
        }
        if self.interrupted {
            writeln!(out, "  interrupted  by a signal before its end")?;
        }
        writeln!(
            out,
            "  rate         {:.1} requests/s, {} reconnects",
            self.requests_per_second, self.reconnects
        )?;
        write_percentiles(out, "latency", &self.latency_us)?;
        write_percentiles(out, "lag", &self.lag_us)?;
        writeln!(out, "  received     {} of bodies", mebibytes(self.body_bytes_received))?;
        if let Some(process) = &self.process {
            write_usage(out, &setup.subject, process)?;
        }
        write_usage(out, "loadgen", &self.generator)
    }
}

/// Kind of loss as in JSON.
pub(crate) fn name(kind: LostKind) -> String {
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn write_ledger(out: &mut dyn Write, title: &str, ledger: &Ledger) -> io::Result<()> {
    let lost = ledger.lost_total();
    write!(out, "  {title:<12} started {} = ok {} + lost {lost}", ledger.started, ledger.ok)?;
    let kinds: Vec<_> = ledger.lost.iter().map(|(kind, count)| format!("{} {count}", name(*kind))).collect();
    if !kinds.is_empty() {
        write!(out, " ({})", kinds.join(", "))?;
    }
    writeln!(out, "{}", if ledger.is_balanced() { "" } else { "  DOES NOT BALANCE" })
}

fn write_percentiles(out: &mut dyn Write, title: &str, p: &Percentiles) -> io::Result<()> {
    let ms = |us: u64| us as f64 / 1000.0;
    writeln!(
        out,
        "  {title:<12} ms: p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}",
        ms(p.p50),
        ms(p.p90),
        ms(p.p99),
        ms(p.p999),
        ms(p.max),
    )
}

fn write_usage(out: &mut dyn Write, title: &str, usage: &Usage) -> io::Result<()> {
    writeln!(
        out,
        "  {title:<12} {:.2} µs CPU per request ({:.2} s), peak RSS {}, PSS {}",
        usage.cpu_us_per_request,
        usage.cpu_seconds,
        mebibytes(usage.rss_peak_bytes),
        mebibytes(usage.pss_peak_bytes),
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use http::StatusCode;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        record::{Lost, Reply},
        schedule::{Phase, Ticket},
    };

    pub(crate) fn setup(scenario: &str, subject: &str) -> Setup {
        Setup {
            scenario: scenario.into(),
            subject: subject.into(),
            target: "http://127.0.0.1:1/".into(),
            protocol: "h2c".into(),
            rate: Some(1500.0),
            connections: 4,
            streams: 32,
            body_bytes: 1024,
            correlation_prefix: None,
        }
    }

    fn record(outcomes: impl IntoIterator<Item = Result<(), LostKind>>) -> Recorder {
        let mut record = Recorder::new(Arc::default());
        for outcome in outcomes {
            let ticket = Ticket { intended: Instant::now(), phase: Phase::Measured, sequence: 0 };
            record.start(&ticket, ticket.intended);
            let reply = Reply { status: StatusCode::OK, body_bytes: 4 };
            let ended = ticket.intended + std::time::Duration::from_millis(3);
            record.end(&ticket, outcome.map(|()| reply).map_err(|kind| Lost::new(kind, "cause")), ended);
        }
        record
    }

    #[test]
    fn cpu_per_request_divides_by_what_ended_in_the_window() {
        let usage = Usage { cpu_seconds: 0.5, ..Usage::default() };
        let window = Window { seconds: 2.0, ended: 10_000, process: Some(usage), ..Window::default() };
        let report = Report::new(setup("a", "gateway"), &record([Ok(())]), window);
        assert!((report.process.unwrap().cpu_us_per_request - 50.0).abs() < 1e-9);
        assert!((report.requests_per_second - 5000.0).abs() < 1e-9);
    }

    #[test]
    fn one_lost_request_makes_a_bad_run() {
        let report = |record: &Recorder| Report::new(setup("a", "g"), record, Window::default());
        assert!(report(&record([Ok(()), Ok(())])).is_good());
        assert!(!report(&record([Ok(()), Err(LostKind::Goaway)])).is_good());
        assert!(!report(&record([])).is_good(), "nothing measured proves nothing");
        let mut in_flight = record([Ok(())]);
        in_flight.measured.started += 1;
        assert!(!report(&in_flight).is_good(), "a request without outcome");
        let mut warmup = record([Ok(())]);
        warmup.warmup.started = 1;
        warmup.warmup.lost.insert(LostKind::Timeout, 1);
        assert!(!report(&warmup).is_good(), "a loss in the warm-up");
    }

    #[test]
    fn the_text_prints_the_ledger_and_the_first_cause() {
        let record = record([Ok(()), Ok(()), Err(LostKind::GrpcStatus)]);
        let report = Report::new(setup("d", "gateway"), &record, Window::default());
        let mut text = Vec::new();
        report.write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("started 3 = ok 2 + lost 1 (grpc_status 1)"), "{text}");
        assert!(text.contains("first grpc_status: cause"), "{text}");
        assert!(text.contains("p50 3.0"), "{text}");
        assert!(!text.contains("BALANCE"), "{text}");
    }

    #[test]
    fn json_survives_a_round_trip() {
        let record = record([Ok(()), Err(LostKind::Reset)]);
        let report = Report::new(setup("b", "gateway"), &record, Window::default());
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains("\"lost\":{\"reset\":1}"), "{json}");
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        assert_eq!(report.histogram.iter().map(|(_, count)| count).sum::<u64>(), 1);
    }
}
