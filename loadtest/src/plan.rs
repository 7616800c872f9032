//! The checked plan of a run: what the flags mean together. After this nothing can be invalid.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::PathAndQuery};

use crate::{
    args::{ProtocolArg, RunArgs},
    error::Error,
    grpc::SendTarget,
    schedule::{Extent, Pacing},
    storm::Steering,
    units::StatusSet,
};

/// Measured time when neither `--duration` nor `--requests` is given: long enough for a p99.9 at 1000/s.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Time-outs when `--timeout` is not given: of a request, and of a streamed body.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// Largest body kept in memory and sent as it is; larger ones are streamed with `--upload-bytes`.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// Everything a caller needs to know to send requests and judge replies.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Address dialled.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: ProtocolArg,
    /// `Host` or `:authority`.
    pub authority: String,
    /// Path and query of every request.
    pub path: PathAndQuery,
    /// Method of every request.
    pub method: Method,
    /// Extra headers of every request.
    pub headers: HeaderMap,
    /// Body of every request.
    pub body: Bytes,
    /// Body streamed instead, with its size in bytes.
    pub upload_bytes: Option<u64>,
    /// Arrivals.
    pub pacing: Pacing,
    /// Length of the measured part.
    pub extent: Extent,
    /// Length of the part before it.
    pub warmup: Duration,
    /// From the intended start to the last byte of the reply.
    pub timeout: Duration,
    /// Connections over all workers.
    pub connections: u32,
    /// Callers per connection.
    pub streams: u32,
    /// Worker threads; never more than connections.
    pub threads: u32,
    /// Statuses that count as answered.
    pub expect_status: StatusSet,
    /// Body length every reply must have.
    pub expect_body_bytes: Option<u64>,
    /// Prefix of the correlation ids, if every request gets one.
    pub correlation: Option<String>,
    /// Orders to the simulator that some requests carry.
    pub steering: Option<Steering>,
    /// What `SendRequest.target` names.
    pub send_target: SendTarget,
}

impl Plan {
    /// Checks the flags and resolves the target.
    ///
    /// # Errors
    /// [`Error::Usage`] for flags that contradict each other, [`Error::Resolve`] for a name without address.
    pub(crate) fn from_args(args: &RunArgs) -> Result<Self, Error> {
        let (host, port, authority, path) = parse_target(&args.target)?;
        check_combinations(args)?;
        let upload = args.upload_bytes.is_some();
        let body = Bytes::from(vec![b'x'; args.body_bytes as usize]);
        let method = match &args.method {
            Some(method) => method.clone(),
            None if upload || !body.is_empty() => Method::POST,
            None => Method::GET,
        };
        let connections = if upload { 1 } else { args.connections };
        let extent = match (args.requests, args.duration) {
            _ if upload => Extent::Requests(1),
            (Some(requests), _) => Extent::Requests(requests),
            (None, duration) => Extent::Time(duration.unwrap_or(DEFAULT_DURATION)),
        };
        let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
        Ok(Self {
            address: args.connect.map_or_else(|| resolve(&host, port), Ok)?,
            protocol: args.protocol,
            authority,
            path,
            method,
            headers: parse_headers(&args.headers)?,
            body,
            upload_bytes: args.upload_bytes,
            pacing: args.rate.map_or(Pacing::Closed, |rate| Pacing::Open { rate }),
            extent,
            warmup: if upload { Duration::ZERO } else { args.warmup },
            timeout: args.timeout.unwrap_or(if upload { DEFAULT_UPLOAD_TIMEOUT } else { DEFAULT_TIMEOUT }),
            connections,
            streams: if upload || args.protocol == ProtocolArg::Http1 { 1 } else { args.streams },
            threads: args.threads.min(connections),
            expect_status: args.expect_status.clone(),
            expect_body_bytes: args.expect_body_bytes,
            correlation: args.correlation.then(|| format!("lg-{seed:016x}")),
            steering: None,
            send_target: send_target(args)?,
        })
    }

    /// The headers of request `sequence`: those of every request, its correlation id, its order to the simulator.
    pub(crate) fn headers_of(&self, sequence: u64) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(id) = self.correlation_id(sequence) {
            // Hexadecimal digits, letters and hyphens are valid in a header.
            headers.insert("x-correlation-id", HeaderValue::from_str(&id).expect("visible ASCII"));
        }
        if let Some((name, value)) = self.steering.and_then(|steering| steering.header(sequence)) {
            headers.insert(name, value);
        }
        headers
    }

    /// The correlation id of request `sequence`, if requests have one.
    pub(crate) fn correlation_id(&self, sequence: u64) -> Option<String> {
        self.correlation.as_ref().map(|prefix| format!("{prefix}-{sequence}"))
    }
}

fn check_combinations(args: &RunArgs) -> Result<(), Error> {
    let usage = |text: &str| Err(Error::Usage(text.to_owned()));
    if args.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return usage("--rate must be above zero");
    }
    if args.upload_bytes.is_none() && args.rate.is_none() && !args.closed {
        return usage("say how requests are paced: --rate PER_SECOND (open loop) or --closed");
    }
    if args.upload_bytes.is_some() && args.protocol == ProtocolArg::Grpc {
        return usage("--upload-bytes streams a body; Egress/Send is unary, use http1 or h2c");
    }
    if args.protocol == ProtocolArg::Http1 && args.streams > 1 {
        return usage("--streams needs --protocol h2c or grpc; HTTP/1.1 has one request per connection");
    }
    if args.body_bytes > MAX_BODY_BYTES {
        return usage("--body-bytes is kept in memory, at most 64MiB; use --upload-bytes for more");
    }
    if args.timeout.is_some_and(|timeout| timeout.is_zero()) {
        return usage("--timeout must be above zero");
    }
    if args.duration.is_some_and(|duration| duration.is_zero()) {
        return usage("--duration must be above zero");
    }
    Ok(())
}

/// Host, port, authority and path of a target.
///
/// # Errors
/// [`Error::Usage`].
pub(crate) fn parse_target(target: &str) -> Result<(String, u16, String, PathAndQuery), Error> {
    let usage =
        |why: &str| Error::Usage(format!("--target `{target}` {why}, as in http://127.0.0.1:8080/path"));
    let uri: Uri = target.parse().map_err(|_| usage("is not a URL: write one"))?;
    if uri.scheme_str() != Some("http") {
        return Err(usage("must begin with http:// (callers of the gateway speak cleartext)"));
    }
    let authority = uri.authority().ok_or_else(|| usage("names no host: write one"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Ok((host, authority.port_u16().unwrap_or(80), authority.as_str().to_owned(), path))
}

/// The first address of a host.
///
/// # Errors
/// [`Error::Resolve`].
pub(crate) fn resolve(host: &str, port: u16) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Resolve { host: host.to_owned(), source };
    let mut addresses = (host, port).to_socket_addrs().map_err(failed)?;
    addresses.next().ok_or_else(|| failed(std::io::Error::other("the name has no address")))
}

fn parse_headers(lines: &[String]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let usage = || Error::Usage(format!("--header `{line}` is not a header: write name:value"));
        let (name, value) = line.split_once(':').ok_or_else(usage)?;
        let name: HeaderName = name.trim().parse().map_err(|_| usage())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| usage())?;
        if name == header::HOST || name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
            return Err(Error::Usage(format!(
                "--header {name} is set by loadgen from --target and the body"
            )));
        }
        headers.append(name, value);
    }
    Ok(headers)
}

fn send_target(args: &RunArgs) -> Result<SendTarget, Error> {
    match (args.environment.as_str(), args.route.as_str()) {
        ("", "") => Ok(SendTarget::ByRoutes),
        (environment, "") => Ok(SendTarget::Environment(environment.to_owned())),
        ("", route) => Ok(SendTarget::Route(route.to_owned())),
        _ => {
            Err(Error::Usage("SendRequest names an environment or a route: drop one of the two flags".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn plan(flags: &[&str]) -> Result<Plan, Error> {
        let cli = Cli::try_parse_from(["loadgen"].iter().chain(flags)).unwrap();
        Plan::from_args(&cli.run.unwrap())
    }

    fn usage(flags: &[&str]) -> String {
        match plan(flags) {
            Err(Error::Usage(text)) => text,
            other => panic!("expected wrong usage of {flags:?}, got {other:?}"),
        }
    }

    const TARGET: [&str; 2] = ["--target", "http://127.0.0.1:8080/a?b=c"];

    #[test]
    fn the_target_is_taken_apart() {
        let plan = plan(&[&TARGET[..], &["--rate", "5"]].concat()).unwrap();
        assert_eq!(plan.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((plan.authority.as_str(), plan.path.as_str()), ("127.0.0.1:8080", "/a?b=c"));
        assert_eq!((plan.method, plan.extent), (Method::GET, Extent::Time(DEFAULT_DURATION)));
    }

    #[test]
    fn an_ipv6_target_keeps_its_brackets_in_the_authority_only() {
        let plan = plan(&["--target", "http://[::1]:81", "--closed"]).unwrap();
        assert_eq!(plan.address, "[::1]:81".parse().unwrap());
        assert_eq!(plan.authority, "[::1]:81");
    }

    #[test]
    fn a_body_makes_it_a_post() {
        let flags = [&TARGET[..], &["--closed", "--body-bytes", "1KiB"]].concat();
        let plan = plan(&flags).unwrap();
        assert_eq!((plan.method, plan.body.len()), (Method::POST, 1024));
    }

    #[test]
    fn wrong_usage_says_how_to_mend_it() {
        assert!(usage(&TARGET).contains("--rate PER_SECOND (open loop) or --closed"));
        assert!(usage(&["--target", "https://h/", "--closed"]).contains("http://"));
        let with = |flags: &[&'static str]| usage(&[&TARGET[..], flags].concat());
        assert!(with(&["--rate", "0"]).contains("above zero"));
        assert!(with(&["--rate", "NaN"]).contains("above zero"));
        assert!(with(&["--closed", "--streams", "8"]).contains("h2c or grpc"));
        assert!(with(&["--closed", "--header", "nonsense"]).contains("name:value"));
        assert!(with(&["--closed", "--header", "Host: x"]).contains("set by loadgen"));
        assert!(with(&["--protocol", "grpc", "--upload-bytes", "1GiB"]).contains("unary"));
        assert!(with(&["--closed", "--environment", "a", "--route", "b"]).contains("drop one"));
    }

    #[test]
    fn correlation_ids_are_repeatable_from_their_seed() {
        let flags = [&TARGET[..], &["--closed", "--correlation", "--seed", "255"]].concat();
        let plan = plan(&flags).unwrap();
        assert_eq!(plan.correlation_id(7).unwrap(), "lg-00000000000000ff-7");
    }
}
