//! What callers cost that are connected and do nothing: memory of the program under test against their number.
//!
//! HTTP/1.1 callers connect one after the other, send one request each and stay. One at a time, so that the
//! program opens no more connections of its own than one caller needs: what is measured is the callers.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    args::IdleArgs,
    error::Error,
    plan::{parse_target, resolve},
    process::{Depth, Watch},
};

/// Body of each request: as in the scenarios of load.
const BODY_BYTES: usize = 1024;
/// Between two looks at memory while all callers rest.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Sender = http1::SendRequest<Full<Bytes>>;

/// The figure, in the form that `loadgen summary` reads.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the program under test.
    pub subject: String,
    /// Always `Pss per idle caller`.
    pub name: &'static str,
    /// Always `B`.
    pub unit: &'static str,
    /// `Pss` with all callers less that with none, per caller, bytes.
    pub value: f64,
    /// `[callers, Pss in bytes]`: none, each quarter on the way, all after the rest.
    pub points: Vec<(u32, u64)>,
}

impl Idle {
    /// Writes one line for people.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let points: Vec<_> =
            self.points.iter().map(|(callers, bytes)| format!("{callers}: {} KiB", bytes >> 10)).collect();
        writeln!(
            out,
            "{} on {}: {:.1} KB per idle caller; Pss at {}",
            self.scenario,
            self.subject,
            self.value / 1000.0,
            points.join(", ")
        )
    }
}

/// Opens the callers, lets them rest, reads memory.
///
/// # Errors
/// [`Error::Usage`] for a wrong target or process, [`Error::Connect`] when a caller gets no reply.
pub(crate) fn run(args: &IdleArgs) -> Result<Idle, Error> {
    let (host, port, authority, path) = parse_target(&args.target)?;
    let target = Target { address: resolve(&host, port)?, authority, path: path.as_str().to_owned() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::System { action: "start a runtime", source })?;
    let points = runtime.block_on(measure(args, &target))?;
    Ok(Idle {
        scenario: args.scenario.clone(),
        subject: args.subject.clone(),
        name: "Pss per idle caller",
        unit: "B",
        value: slope(&points),
        points,
    })
}

struct Target {
    address: SocketAddr,
    authority: String,
    path: String,
}

async fn measure(args: &IdleArgs, target: &Target) -> Result<Vec<(u32, u64)>, Error> {
    // What the first request of all makes the program set up is not the callers'.
    drop(caller(target).await?);
    let mut points = vec![(0, at_rest(args).await?)];
    let mut callers = Vec::with_capacity(args.connections as usize);
    for number in 1..=args.connections {
        callers.push(caller(target).await?);
        if number.is_multiple_of(args.connections.div_ceil(4)) && number < args.connections {
            points.push((number, proportional(args.pid)?));
        }
    }
    points.push((args.connections, at_rest(args).await?));
    // A caller that was closed meanwhile has given its memory back: then the figure would be of fewer.
    let gone = callers.iter().filter(|caller| caller.is_closed()).count();
    if gone > 0 {
        return Err(Error::Connect {
            address: target.address,
            cause: format!("{gone} of {} idle callers were closed meanwhile", args.connections),
        });
    }
    Ok(points)
}

/// A connection that has carried one request.
async fn caller(target: &Target) -> Result<Sender, Error> {
    let failed = |cause: String| Error::Connect { address: target.address, cause };
    let stream = TcpStream::connect(target.address).await.map_err(|error| failed(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    // Ends when the sender is dropped or the other side closes.
    tokio::spawn(async move {
        let _seen_by_request = connection.await;
    });
    let mut request = Request::new(Full::new(Bytes::from_static(&[b'x'; BODY_BYTES])));
    *request.method_mut() = Method::POST;
    // Both were parsed from a URL.
    *request.uri_mut() = target.path.parse().expect("a path");
    let host = HeaderValue::from_str(&target.authority).expect("an authority");
    request.headers_mut().insert(header::HOST, host);
    let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
    let status = response.status();
    response.into_body().collect().await.map_err(|error| failed(error.to_string()))?;
    if status.is_success() { Ok(sender) } else { Err(failed(format!("the reply was {status}"))) }
}

/// The smallest of the looks during the rest: buffers shrink and freed pages go back with a delay.
async fn at_rest(args: &IdleArgs) -> Result<u64, Error> {
    let looks = (args.hold.as_millis() / LOOK_EVERY.as_millis()).max(1);
    let mut least = u64::MAX;
    for _ in 0..looks {
        sleep(LOOK_EVERY).await;
        least = least.min(proportional(args.pid)?);
    }
    Ok(least)
}

/// `Pss` of the process and its descendants now, bytes.
fn proportional(pid: u32) -> Result<u64, Error> {
    let mut watch = Watch::new(&[pid])?;
    watch.sample(Depth::Full);
    match watch.pss_peak_bytes() {
        0 => Err(Error::Usage(format!("--pid {pid}: its smaps_rollup cannot be read"))),
        bytes => Ok(bytes),
    }
}

/// Bytes per caller between the first and the last point.
fn slope(points: &[(u32, u64)]) -> f64 {
    match (points.first(), points.last()) {
        (Some(none), Some(all)) if all.0 > none.0 => {
            (all.1 as f64 - none.1 as f64) / f64::from(all.0 - none.0)
        }
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_taken_between_the_ends_and_may_be_negative() {
        assert!((slope(&[(0, 1_000), (5, 90_000), (10, 201_000)]) - 20_000.0).abs() < 1e-9);
        assert!((slope(&[(0, 2_000), (10, 1_000)]) + 100.0).abs() < 1e-9);
        assert!(slope(&[]).abs() < 1e-9);
    }
}
