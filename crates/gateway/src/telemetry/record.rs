//! The record of one finished request: what is handed to the recorder, and how it is stored on the way there.
//!
//! Owns [`Outcome`] and the batch it is packed into. Text is copied, not shared: holding slices of a caller's
//! read buffer until the recorder wakes would keep that buffer from being used again.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use pool::{Journey, RetrySafe};
use tokio::time::Instant;

use crate::outcome::ErrorCode;

/// Longest path kept for the access log, in bytes; longer ones are cut there and end in `…`.
pub const MAX_LOGGED_PATH: usize = 1024;

/// Longest correlation identifier kept for the access log, in bytes. The one that is forwarded is never cut.
pub const MAX_LOGGED_CORRELATION: usize = 256;

/// How the caller spoke to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerProtocol {
    /// HTTP/1.1 (or 1.0).
    Http11,
    /// HTTP/2 in clear text.
    H2c,
    /// A gRPC call of `tsh.gateway.v1.Egress`.
    Grpc,
}

impl CallerProtocol {
    /// The word in the access log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http11 => "http/1.1",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
        }
    }
}

/// How an exchange ended, from the caller's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The provider's response was delivered whole.
    Complete,
    /// The reply was made by the gateway: no response of the provider was begun.
    GatewayReply,
    /// The caller went away.
    CallerGone,
    /// The provider cut its response after the header.
    ProviderCut,
    /// A time limit ended it after the response had begun.
    Timeout,
    /// The gateway stopped before it was complete.
    Stopped,
}

impl Ended {
    /// The word in the access log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::GatewayReply => "gateway_reply",
            Self::CallerGone => "caller_gone",
            Self::ProviderCut => "provider_cut",
            Self::Timeout => "timeout",
            Self::Stopped => "stopped",
        }
    }
}

/// Everything that is reported about one request; exactly one is recorded per request.
///
/// Holds no header but the correlation identifier, and no body. Borrowed: recording copies what it needs.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    /// When the request's header was complete.
    pub started: Instant,
    /// From then to the last byte of the response, or to the failure.
    pub total: Duration,
    /// Method.
    pub method: &'a Method,
    /// Path; from a `?` on it is not kept.
    pub path: &'a str,
    /// The correlation identifier, as it was forwarded.
    pub correlation_id: &'a [u8],
    /// Index of the route in the catalog; `None` if none matched or none was asked.
    pub route: Option<u16>,
    /// Index of the environment in the catalog; `None` if the request was refused before one was found.
    pub environment: Option<u16>,
    /// How the caller spoke to us.
    pub protocol: CallerProtocol,
    /// The caller's address; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Index of the caller's name in the catalog; `None` if it has none there.
    pub caller: Option<u16>,
    /// HTTP status of the reply (for gRPC: of the provider's response, or of the error's row).
    pub status: u16,
    /// Why there was no whole response; `None` when the provider's response was delivered, whatever its status.
    pub code: Option<ErrorCode>,
    /// What the caller was told about a retry; `None` where it was told nothing.
    pub retry_safe: Option<RetrySafe>,
    /// The way through the pool; the default if the request never got there.
    pub journey: Journey,
    /// Bytes of the request's body taken from the caller.
    pub bytes_in: u64,
    /// Bytes of the response's body given to the caller.
    pub bytes_out: u64,
    /// How it ended.
    pub ended: Ended,
}

/// A record at rest; its text is in the batch's arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) started: Instant,
    pub(crate) total: Duration,
    pub(crate) journey: Journey,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    text: u32,
    path: u16,
    correlation_id: u16,
    method: u8,
    pub(crate) path_cut: bool,
    pub(crate) caller: Option<u16>,
    pub(crate) route: Option<u16>,
    pub(crate) environment: Option<u16>,
    pub(crate) status: u16,
    pub(crate) protocol: CallerProtocol,
    pub(crate) ended: Ended,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) retry_safe: Option<RetrySafe>,
}

/// The batch has no room.
#[derive(Debug)]
pub(crate) struct Full;

/// Records waiting for the recorder: two vectors that never grow beyond what they were made with.
#[derive(Debug)]
pub(crate) struct Batch {
    entries: Vec<Entry>,
    text: Vec<u8>,
}

/// Text kept per record on average; longer paths fill a batch sooner.
const TEXT_PER_RECORD: usize = 128;

/// Longest method kept, in bytes: its length is stored in one.
const MAX_METHOD: usize = u8::MAX as usize;

impl Batch {
    /// Room for `records` records of usual length.
    pub(crate) fn with_room(records: usize) -> Self {
        // An empty batch takes any record.
        let text = (records * TEXT_PER_RECORD).max(MAX_LOGGED_PATH + MAX_LOGGED_CORRELATION + MAX_METHOD);
        Self { entries: Vec::with_capacity(records.max(1)), text: Vec::with_capacity(text) }
    }

    /// Copies `outcome` in.
    pub(crate) fn push(&mut self, outcome: &Outcome<'_>) -> Result<(), Full> {
        let (path, path_cut) = logged_path(outcome.path);
        let method = cut(outcome.method.as_str().as_bytes(), MAX_METHOD);
        let correlation = cut(outcome.correlation_id, MAX_LOGGED_CORRELATION);
        let need = method.len() + path.len() + correlation.len();
        if self.entries.len() == self.entries.capacity() || self.text.capacity() - self.text.len() < need {
            return Err(Full);
        }
        // The casts cannot cut: each length is bounded above by its constant, the arena by its capacity.
        let entry = Entry {
            started: outcome.started,
            total: outcome.total,
            journey: outcome.journey,
            peer: outcome.peer,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
            text: self.text.len() as u32,
            path: path.len() as u16,
            correlation_id: correlation.len() as u16,
            method: method.len() as u8,
            path_cut,
            caller: outcome.caller,
            route: outcome.route,
            environment: outcome.environment,
            status: outcome.status,
            protocol: outcome.protocol,
            ended: outcome.ended,
            code: outcome.code,
            retry_safe: outcome.retry_safe,
        };
        self.text.extend_from_slice(method);
        self.text.extend_from_slice(path);
        self.text.extend_from_slice(correlation);
        self.entries.push(entry);
        Ok(())
    }

    /// Whether it is at half of its room: time to wake the recorder.
    pub(crate) fn is_half_full(&self) -> bool {
        self.entries.len() * 2 >= self.entries.capacity() || self.text.len() * 2 >= self.text.capacity()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.text.clear();
    }

    /// The records with their text, in the order recorded.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Entry, Text<'_>)> {
        self.entries.iter().map(|entry| {
            let (method, rest) = self.text[entry.text as usize..].split_at(usize::from(entry.method));
            let (path, rest) = rest.split_at(usize::from(entry.path));
            let correlation_id = &rest[..usize::from(entry.correlation_id)];
            (entry, Text { method, path, correlation_id })
        })
    }
}

/// The text of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) path: &'a [u8],
    pub(crate) correlation_id: &'a [u8],
}

/// The part of a path that is logged, and whether it was cut. The query may hold personal data: it is not kept.
fn logged_path(path: &str) -> (&[u8], bool) {
    let bytes = path.as_bytes();
    let bytes = bytes.iter().position(|&b| b == b'?').map_or(bytes, |query| &bytes[..query]);
    (cut(bytes, MAX_LOGGED_PATH), bytes.len() > MAX_LOGGED_PATH)
}

fn cut(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plain successful request.
    pub(crate) fn delivered<'a>(method: &'a Method, path: &'a str) -> Outcome<'a> {
        Outcome {
            started: Instant::now(),
            total: Duration::from_millis(3),
            method,
            path,
            correlation_id: b"corr-1",
            route: Some(0),
            environment: Some(0),
            protocol: CallerProtocol::Http11,
            peer: Some(SocketAddr::from(([127, 0, 0, 1], 4711))),
            caller: Some(0),
            status: 200,
            code: None,
            retry_safe: None,
            journey: Journey::default(),
            bytes_in: 10,
            bytes_out: 20,
            ended: Ended::Complete,
        }
    }

    #[test]
    fn a_record_keeps_its_text_but_not_the_query() {
        let mut batch = Batch::with_room(4);
        batch.push(&delivered(&Method::POST, "/cards?pan=4111")).unwrap();
        batch.push(&delivered(&Method::GET, "/")).unwrap();
        let texts: Vec<_> = batch.iter().map(|(_, t)| (t.method, t.path, t.correlation_id)).collect();
        assert_eq!(
            texts,
            [(&b"POST"[..], &b"/cards"[..], &b"corr-1"[..]), (&b"GET"[..], &b"/"[..], &b"corr-1"[..])]
        );
    }

    #[test]
    fn a_batch_refuses_what_it_has_no_room_for_and_never_grows() {
        let mut batch = Batch::with_room(2);
        let room = (batch.entries.capacity(), batch.text.capacity());
        let mut taken = 0;
        while batch.push(&delivered(&Method::GET, "/x")).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, room.0);
        batch.clear();
        let long = format!("/{}", "a".repeat(5000));
        let mut taken = 0;
        while batch.push(&delivered(&Method::GET, &long)).is_ok() {
            taken += 1;
        }
        assert!(taken <= room.1 / MAX_LOGGED_PATH);
        assert_eq!((batch.entries.capacity(), batch.text.capacity()), room);
    }

    #[test]
    fn a_path_is_cut_one_past_the_limit_and_not_at_it() {
        let at = format!("/{}", "a".repeat(MAX_LOGGED_PATH - 1));
        assert!(!logged_path(&at).1);
        let past = format!("{at}a");
        assert_eq!(logged_path(&past), (at.as_bytes(), true));
    }
}
