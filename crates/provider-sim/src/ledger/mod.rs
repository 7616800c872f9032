//! Owns the books: what the server saw, counted where it happens, so that tests can compare it with what the
//! gateway claims. It does not own any decision.

mod seen;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

pub use seen::Account;
use seen::Seen;

/// A snapshot of the books since start. Counters only grow; gauges are named `…_open` and `peak_…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// TCP connections accepted.
    pub connections_accepted: u64,
    /// TCP connections open now.
    pub connections_open: u64,
    /// Connections that spoke HTTP/2.
    pub connections_http2: u64,
    /// Connections that spoke HTTP/1.1.
    pub connections_http11: u64,
    /// Full handshakes that ended well.
    pub handshakes_full: u64,
    /// Resumed handshakes that ended well.
    pub handshakes_resumed: u64,
    /// Handshakes that this server refused: the client's certificate, or because it was told to.
    pub handshakes_refused: u64,
    /// Handshakes that failed otherwise: the client refused us, or went away.
    pub handshakes_failed: u64,
    /// Requests whose header block arrived complete, whatever became of them.
    pub requests_arrived: u64,
    /// Requests taken up for processing.
    pub requests: u64,
    /// Of these, disowned by a GOAWAY with a lower last id. A client may send them again.
    pub requests_disowned: u64,
    /// Requests that crossed a GOAWAY and were ignored, unprocessed.
    pub requests_ignored: u64,
    /// Requests answered 400 by [`ClientAuth::RefuseHttp`](crate::ClientAuth::RefuseHttp), unprocessed.
    pub requests_refused: u64,
    /// Responses sent to their end.
    pub responses: u64,
    /// Bytes of request bodies received.
    pub body_bytes_received: u64,
    /// Bytes of response bodies sent.
    pub body_bytes_sent: u64,
    /// GOAWAY frames sent on purpose.
    pub goaways_sent: u64,
    /// Streams refused with REFUSED_STREAM on purpose, unprocessed.
    pub refused_streams: u64,
    /// Streams reset on purpose, processed.
    pub resets: u64,
    /// Streams that the client reset, seen while they were being served.
    pub client_resets: u64,
    /// HTTP/2 streams open now, as the wire has them.
    pub streams_open: u64,
    /// Most streams that were open at once on one connection.
    pub peak_streams: u64,
    /// Streams opened above the limit that the client had acknowledged.
    pub stream_limit_breaches: u64,
    /// PING frames received.
    pub pings: u64,
    /// SETTINGS frames that clients have acknowledged: one per HTTP/2 connection, and one per change.
    pub settings_acknowledged: u64,
    /// Calls to a customer's ingress that were dialled, whatever became of them.
    pub customer_calls: u64,
    /// Of these, refused by the customer with a TLS alert, within the handshake or at the first read after it.
    pub customer_calls_refused: u64,
}

macro_rules! books {
    ($($field:ident),* $(,)?) => {
        #[derive(Default)]
        pub(crate) struct Books {
            $(pub(crate) $field: Count,)*
            seen: Mutex<Seen>,
        }

        impl Books {
            pub(crate) fn snapshot(&self) -> Ledger {
                Ledger { $($field: self.$field.get(),)* }
            }
        }
    };
}

books!(
    connections_accepted,
    connections_open,
    connections_http2,
    connections_http11,
    handshakes_full,
    handshakes_resumed,
    handshakes_refused,
    handshakes_failed,
    requests_arrived,
    requests,
    requests_disowned,
    requests_ignored,
    requests_refused,
    responses,
    body_bytes_received,
    body_bytes_sent,
    goaways_sent,
    refused_streams,
    resets,
    client_resets,
    streams_open,
    peak_streams,
    stream_limit_breaches,
    pings,
    settings_acknowledged,
    customer_calls,
    customer_calls_refused,
);

impl Books {
    /// The header block of a request with this correlation id is complete.
    pub(crate) fn arrived(&self, correlation_id: Option<&str>) {
        self.requests_arrived.add(1);
        if let Some(id) = correlation_id {
            self.seen.lock().arrive(id);
        }
    }

    /// A request with this correlation id is taken up for processing.
    pub(crate) fn processed(&self, correlation_id: Option<&str>) {
        self.requests.add(1);
        if let Some(id) = correlation_id {
            self.seen.lock().mark(id);
        }
    }

    /// A request taken up before has been disowned: it counts as not processed.
    pub(crate) fn disowned(&self, correlation_id: Option<&str>) {
        self.requests_disowned.add(1);
        if let Some(id) = correlation_id {
            self.seen.lock().unmark(id);
        }
    }

    pub(crate) fn account(&self, correlation_id: &str) -> Account {
        self.seen.lock().account(correlation_id)
    }

    pub(crate) fn duplicated(&self) -> Vec<String> {
        self.seen.lock().duplicated()
    }
}

/// One number, written by many. Relaxed: the numbers do not order anything.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn at_least(&self, n: u64) {
        // Read first: a peak is rarely beaten, and a read does not steal the cache line.
        if self.get() < n {
            self.0.fetch_max(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
