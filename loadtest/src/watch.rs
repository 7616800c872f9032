//! `loadgen watch`: looks at the gateway's metrics at a steady pace and keeps the few that a time series is drawn of.
//!
//! Owns the pace and the reading of Prometheus' text, as far as the gateway writes it. A look that fails is left
//! out: a gateway that restarts is part of what is watched.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use crate::{args::WatchArgs, error::Error, html::Sample, progress};

/// A scrape that takes longer failed.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Metrics of hundreds of environments fit.
const MOST_BYTES: usize = 16 << 20;

/// An hour at five per second is a fifth of it.
const MOST_SAMPLES: u32 = 100_000;

type Sender = http1::SendRequest<Empty<Bytes>>;

/// Samples for as long as asked, or until an interrupt, and writes the file.
///
/// # Errors
/// Wrong flags, no answer at all, or a file that cannot be written.
pub(crate) fn run(args: &WatchArgs, out: &mut dyn Write) -> Result<(), Error> {
    let due = samples_due(args)?;
    let authority = authority(&args.admin)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::System { action: "start a runtime", source })?;
    let (samples, failed) = runtime.block_on(watch(&authority, args.every, due))?;
    if samples.is_empty() {
        let cause = format!("none of {failed} looks at http://{authority}/metrics was answered");
        return Err(Error::Lab { action: "watch the gateway", cause });
    }
    // Plain data always serialises.
    let json = serde_json::to_vec(&samples).expect("plain data");
    let path = args.out.clone();
    fs::write(&path, json).map_err(|source| Error::File { action: "write", path, source })?;
    let told: io::Result<()> =
        writeln!(out, "{} samples, {failed} looks without an answer: {}", samples.len(), args.out.display());
    told.map_err(|source| Error::System { action: "write the report", source })
}

fn samples_due(args: &WatchArgs) -> Result<u32, Error> {
    let due = args.lasts.as_secs_f64() / args.every.as_secs_f64();
    if args.every < Duration::from_millis(1) || due > f64::from(MOST_SAMPLES) {
        return Err(Error::Usage(format!(
            "--every is at least 1ms, and --for at most {MOST_SAMPLES} times as long"
        )));
    }
    // One at the beginning, one at the end.
    Ok(due as u32 + 1)
}

fn authority(admin: &str) -> Result<String, Error> {
    let uri: Option<Uri> = admin.parse().ok();
    let authority = uri.as_ref().filter(|uri| uri.scheme_str() == Some("http")).and_then(Uri::authority);
    let with_port = authority.filter(|authority| authority.port_u16().is_some());
    with_port
        .map(ToString::to_string)
        .ok_or_else(|| Error::Usage(format!("--admin is http://host:port, not {admin}")))
}

async fn watch(authority: &str, every: Duration, due: u32) -> Result<(Vec<Sample>, u32), Error> {
    let host = authority.to_owned();
    let unresolved = |source| Error::Resolve { host: authority.to_owned(), source };
    let address = tokio::net::lookup_host(&host).await.map_err(unresolved)?.next();
    let address = address.ok_or_else(|| unresolved(io::ErrorKind::NotFound.into()))?;
    let start = Instant::now();
    let mut pace = interval_at(start, every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let bar = progress::steps(due.into());
    let (mut samples, mut failed, mut connection) = (Vec::new(), 0, None);
    let end = start + every * (due - 1);
    let mut stop = std::pin::pin!(stopped());
    loop {
        tokio::select! {
            tick = pace.tick() => {
                if tick > end { break; }
                match timeout(ANSWERS_WITHIN, scrape(address, authority, &mut connection)).await {
                    Ok(Some(text)) => {
                        let t_ms = start.elapsed().as_millis() as u64;
                        samples.push(Sample { t_ms, ..read(&text) });
                    }
                    _ => { failed += 1; connection = None; }
                }
                bar.inc(1);
                bar.set_message(format!("{} samples", samples.len()));
            }
            () = &mut stop => break,
        }
    }
    bar.finish_and_clear();
    Ok((samples, failed))
}

/// An interrupt, or the order to end: what there is is written.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// One look; `None` if it was not answered with metrics.
async fn scrape(address: SocketAddr, authority: &str, held: &mut Option<Sender>) -> Option<String> {
    let mut sender = match held.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => dial(address).await?,
    };
    sender.ready().await.ok()?;
    let request = Request::get("/metrics").header(header::HOST, authority).body(Empty::new()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.ok()?.to_bytes();
    *held = Some(sender);
    String::from_utf8(body.into()).ok()
}

async fn dial(address: SocketAddr) -> Option<Sender> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends when the sender is dropped; what it ends with shows in the next look.
    tokio::spawn(async move { drop(connection.await) });
    Some(sender)
}

/// What is kept of one text of metrics; its time is zero.
fn read(text: &str) -> Sample {
    let mut sample = Sample { reuse_ratio: f64::INFINITY, ..Sample::default() };
    for (name, labels, value) in text.lines().filter_map(line) {
        let count = value.max(0.0) as u64;
        let is = |label: &str| labels.contains(label);
        match name {
            "tsh_handshakes_total" if is("kind=\"full\"") && is("result=\"ok\"") => {
                sample.handshakes_full += count;
            }
            "tsh_handshakes_total" if is("kind=\"resumed\"") && is("result=\"ok\"") => {
                sample.handshakes_resumed += count;
            }
            "tsh_requests_total" => sample.requests += count,
            "tsh_connections" => sample.connections += count,
            "tsh_reuse_ratio" => sample.reuse_ratio = sample.reuse_ratio.min(value),
            _ => {}
        }
    }
    if !sample.reuse_ratio.is_finite() {
        sample.reuse_ratio = 0.0;
    }
    sample
}

/// Name, labels and value of a line; `None` for comments and for what is no number.
fn line(line: &str) -> Option<(&str, &str, f64)> {
    // Labels may hold spaces, values do not; the gateway writes no timestamps.
    let (series, value) = line.trim_end().rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let value: f64 = value.parse().ok()?;
    (!name.starts_with('#') && value.is_finite()).then_some((name, labels, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP tsh_requests_total Requests\n# TYPE tsh_requests_total counter\n\
        tsh_requests_total{environment=\"sandbox\",route=\"all\",outcome=\"2xx\"} 90\n\
        tsh_requests_total{environment=\"live\",route=\"a b\",outcome=\"queue_full\"} 10\n\
        tsh_handshakes_total{environment=\"sandbox\",kind=\"full\",result=\"ok\"} 4\n\
        tsh_handshakes_total{environment=\"sandbox\",kind=\"full\",result=\"other\"} 100\n\
        tsh_handshakes_total{environment=\"sandbox\",kind=\"resumed\",result=\"ok\"} 7\n\
        tsh_handshakes_total{environment=\"sandbox\",kind=\"unknown\",result=\"ok\"} 50\n\
        tsh_reuse_ratio{environment=\"sandbox\"} 0.95\ntsh_reuse_ratio{environment=\"live\"} 0.5\n\
        tsh_connections{environment=\"sandbox\",state=\"serving\",generation=\"active\"} 3\n\
        tsh_connections{environment=\"sandbox\",state=\"draining\",generation=\"active\"} 1\n\
        tsh_connections_closed_total{environment=\"sandbox\",cause=\"idle\"} 9\n\
        tsh_certificate_expiry_timestamp_seconds{environment=\"sandbox\"} NaN\n";

    #[test]
    fn counters_are_summed_by_kind_and_the_least_reuse_is_kept() {
        let expected = Sample {
            t_ms: 0,
            handshakes_full: 4,
            handshakes_resumed: 7,
            requests: 100,
            reuse_ratio: 0.5,
            connections: 4,
        };
        assert_eq!(read(METRICS), expected);
        assert_eq!(read("").reuse_ratio, 0.0, "JSON has no infinity");
    }

    #[test]
    fn only_an_address_with_a_port_is_taken_for_the_admin_listener() {
        assert_eq!(authority("http://127.0.0.1:9100").unwrap(), "127.0.0.1:9100");
        for bad in ["127.0.0.1:9100", "https://h:1", "http://h", ""] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn looks_that_are_not_answered_are_counted_and_left_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Refuses the first connection, answers one request on each of the others.
        tokio::spawn(async move {
            for look in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                if look == 0 {
                    continue;
                }
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut request = [0; 1024];
                let _read = stream.read(&mut request).await.unwrap();
                let length = METRICS.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(METRICS.as_bytes()).await.unwrap();
            }
        });
        let (samples, failed) = watch(&address.to_string(), Duration::from_millis(20), 6).await.unwrap();
        assert!(failed >= 1, "{failed}");
        assert!(!samples.is_empty() && samples.iter().all(|sample| sample.requests == 100), "{samples:?}");
        assert!(samples.windows(2).all(|pair| pair[0].t_ms <= pair[1].t_ms));
    }
}
