//! The command line, as written by people. What it means together is decided in `plan.rs`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::units::{self, StatusSet};

const EXAMPLES: &str = "\
Examples:
  1500 requests per second for 8 seconds over cleartext HTTP/2, latency from the intended start:
    loadgen --target http://127.0.0.1:8080/orders --protocol h2c --rate 1500 --duration 8s

  CPU per request of process 4242 with 64 HTTP/1.1 callers as fast as they can:
    loadgen --target http://127.0.0.1:8080/ --protocol http1 --closed --connections 64 --pid 4242

  One GiB up and down, streamed:
    loadgen --target http://127.0.0.1:8080/ --protocol h2c --upload-bytes 1GiB --pid 4242

  A table of earlier runs:
    loadgen table loadtest/results/latest

  Ten minutes of storm, and the ledger at its end:
    loadgen storm --for 10m --rate 1000 --seed 1 --out storm.json

Exit code: 0 every request answered as expected, 1 a request was lost or the run failed, 2 wrong usage.";

/// Open-loop load generator for HTTP/1.1, cleartext HTTP/2 and gRPC
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    /// Something other than a run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A run.
    #[command(flatten)]
    pub run: Option<RunArgs>,
}

/// Commands beside the run itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print one table of JSON reports: medians over equal scenarios, and ratios between subjects
    Table(TableArgs),
    /// Judge a run of the laboratory: medians, spreads, ratios to the best peer, as lab.json and as text
    Summary(SummaryArgs),
    /// Memory that callers cost who sent one request and stay connected
    Idle(IdleArgs),
    /// Relay TCP with a delay, to put a long way between the gateway and a provider on this machine
    Relay(RelayArgs),
    /// A bare proxy of the same libraries: what the gateway costs above it is the price of what it does
    Floor(FloorArgs),
    /// A gateway, a provider that misbehaves in every way at random, callers at a fixed rate; then the ledger
    Storm(StormArgs),
    /// End all connections again and again: how many of the new ones resume, with 0, 1 and 20 tickets
    Resumption(ResumptionArgs),
    /// End all connections at once under load, over a long way: how soon one serves, and with how many dials
    Redial(RedialArgs),
    /// CPU time of the client's half of TLS handshakes: full and resumed, by kind of key and key exchange
    Handshakes(HandshakesArgs),
    /// Sample the gateway's metrics while something runs, for the report's time series
    Watch(WatchArgs),
    /// Write one HTML page with plots of all JSON reports in a folder
    Html(HtmlArgs),
}

/// Flags of `loadgen handshakes`.
#[derive(Debug, Args)]
pub(crate) struct HandshakesArgs {
    /// Handshakes of each kind in a round
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// Rounds; the figures are medians over them
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Write the figures as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Flags of `loadgen watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The gateway's admin listener: http://host:port
    #[arg(long, value_name = "URL")]
    pub admin: String,
    /// How long; an interrupt ends it early and writes what there is
    #[arg(long = "for", value_name = "TIME", value_parser = units::duration, default_value = "10s")]
    pub lasts: Duration,
    /// Between two samples
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "200ms")]
    pub every: Duration,
    /// File to write; `loadgen html` finds those named timeseries-NAME.json
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Flags of `loadgen html`.
#[derive(Debug, Args)]
pub(crate) struct HtmlArgs {
    /// Folder of JSON reports; report.html is written into it
    pub folder: PathBuf,
    /// The subject whose rivals are the peers; names that continue it with a dash are its variants
    #[arg(long, value_name = "NAME", default_value = "gateway")]
    pub ours: String,
}

/// Flags of `loadgen resumption`.
#[derive(Debug, Args)]
pub(crate) struct ResumptionArgs {
    /// How often all connections are ended
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub times: u32,
    /// Write the figures as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Flags of `loadgen redial`.
#[derive(Debug, Args)]
pub(crate) struct RedialArgs {
    /// Round trip to the provider
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "40ms")]
    pub round_trip: Duration,
    /// Requests per second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 300.0)]
    pub rate: f64,
    /// How often in each way
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub times: u32,
    /// What the machine may add to each time: timers, other work on its cores
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "20ms")]
    pub slack: Duration,
    /// How long the provider is away, where it goes away
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "500ms")]
    pub away: Duration,
    /// Write the figures as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Flags of `loadgen storm`.
#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    /// How long requests start [default: 10m]
    #[arg(long = "for", value_name = "TIME", value_parser = units::duration)]
    pub lasts: Option<Duration>,
    /// 30 seconds, as in CI, unless --for says otherwise
    #[arg(long)]
    pub short: bool,
    /// Requests per second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000.0)]
    pub rate: f64,
    /// Seed of all that is random [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write everything as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Flags of `loadgen relay`.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Address to listen on, loopback
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Address to relay to, loopback
    #[arg(long, value_name = "ADDRESS")]
    pub to: SocketAddr,
    /// Round trip to add: half each way
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "40ms")]
    pub round_trip: Duration,
}

/// Flags of `loadgen floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Address to listen on, loopback
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// The provider: HTTP/2 with mutual TLS, a certificate for localhost
    #[arg(long, value_name = "ADDRESS")]
    pub to: SocketAddr,
    /// Folder with the assets under their names
    #[arg(long, value_name = "DIR")]
    pub assets: PathBuf,
}

/// Flags of `loadgen table`.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// Report files, or folders of them
    #[arg(required = true)]
    pub reports: Vec<PathBuf>,
}

/// Flags of `loadgen summary`.
#[derive(Debug, Args)]
pub(crate) struct SummaryArgs {
    /// Folder of a run: its reports, and single figures in `figures`
    pub folder: PathBuf,
}

/// Flags of `loadgen idle`.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// Where each caller sends its one request: http://host:port/path
    #[arg(long, value_name = "URL")]
    pub target: String,
    /// Process whose memory is read, with its descendants
    #[arg(long, value_name = "PID")]
    pub pid: u32,
    /// Callers
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub connections: u32,
    /// How long memory is looked at, before the first and after the last caller; the smallest look counts
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "5s")]
    pub hold: Duration,
    /// Scenario name kept in the figure
    #[arg(long, value_name = "NAME", default_value = "idle")]
    pub scenario: String,
    /// Name of the program under test kept in the figure
    #[arg(long, value_name = "NAME", default_value = "target")]
    pub subject: String,
    /// Write the figure as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Protocol spoken to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolArg {
    /// HTTP/1.1, keep-alive, one request at a time per connection
    Http1,
    /// HTTP/2 cleartext by prior knowledge
    H2c,
    /// gRPC `tsh.gateway.v1.Egress/Send` over cleartext HTTP/2
    Grpc,
}

/// Flags of a run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where to send requests: http://host:port/path
    #[arg(long, value_name = "URL")]
    pub target: String,
    /// Protocol to speak
    #[arg(long, value_enum, default_value = "http1")]
    pub protocol: ProtocolArg,
    /// Open loop: requests per second, whatever the replies do
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "closed")]
    pub rate: Option<f64>,
    /// Closed loop: every caller as fast as it can
    #[arg(long)]
    pub closed: bool,
    /// Connections to open
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub connections: u32,
    /// Concurrent streams per connection (h2c and grpc)
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams: u32,
    /// Start requests for this long after the warm-up [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with = "requests")]
    pub duration: Option<Duration>,
    /// Start this many requests after the warm-up, instead of --duration
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Load before measuring starts; a loss in it fails the run too
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "1s")]
    pub warmup: Duration,
    /// A request without a complete reply this long after its intended start is lost
    /// [default: 5s, 10m with --upload-bytes]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub timeout: Option<Duration>,
    /// Request body size
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "0")]
    pub body_bytes: u64,
    /// Request method [default: POST with a body, else GET]
    #[arg(long)]
    pub method: Option<http::Method>,
    /// Extra request header, repeatable
    #[arg(long = "header", value_name = "K:V")]
    pub headers: Vec<String>,
    /// Statuses that count as answered: classes and codes
    #[arg(long, value_name = "SET", value_parser = units::status_set, default_value = "2xx")]
    pub expect_status: StatusSet,
    /// Body length every reply must have
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub expect_body_bytes: Option<u64>,
    /// Give every request a unique x-correlation-id; its prefix is reported
    #[arg(long)]
    pub correlation: bool,
    /// Seed of the correlation prefix [default: random, reported]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Environment named in SendRequest (grpc)
    #[arg(long, value_name = "NAME", default_value = "")]
    pub environment: String,
    /// Route named in SendRequest (grpc)
    #[arg(long, value_name = "NAME", default_value = "")]
    pub route: String,
    /// Stream one body of this size up, count what streams down; nothing is buffered (http1 and h2c)
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    #[arg(conflicts_with_all = ["rate", "closed", "duration", "requests", "body_bytes"])]
    pub upload_bytes: Option<u64>,
    /// Measure CPU time and memory of this process and its descendants, repeatable
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Threads of the generator
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Write the report as JSON to this file (`-` for standard output, instead of the text)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Scenario name kept in the report
    #[arg(long, value_name = "NAME", default_value = "run")]
    pub scenario: String,
    /// Name of the program under test kept in the report
    #[arg(long, value_name = "NAME", default_value = "target")]
    pub subject: String,
    /// No progress bar and no text report
    #[arg(long)]
    pub quiet: bool,
    /// Dial this address instead of resolving the target's host
    #[arg(long, value_name = "ADDRESS")]
    pub connect: Option<SocketAddr>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_needs_a_target_and_a_table_does_not() {
        assert!(Cli::try_parse_from(["loadgen", "--rate", "10"]).is_err());
        assert!(Cli::try_parse_from(["loadgen"]).is_err());
        let table = Cli::try_parse_from(["loadgen", "table", "results"]).unwrap();
        assert!(matches!(table.command, Some(Command::Table(_))));
    }

    #[test]
    fn pacings_and_extents_exclude_each_other() {
        let target = ["loadgen", "--target", "http://h/"];
        for bad in [
            &["--rate", "10", "--closed"][..],
            &["--duration", "1s", "--requests", "5"],
            &["--upload-bytes", "1GiB", "--rate", "5"],
        ] {
            assert!(Cli::try_parse_from(target.iter().chain(bad)).is_err(), "{bad:?}");
        }
    }
}
