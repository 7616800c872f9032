//! What every caller does: take a ticket, exchange one request under the time-out, enter the outcome.
//!
//! The protocols are in `http1.rs`, `h2c.rs` and `grpc.rs`; they turn one ticket into one reply or loss.

use std::{future::Future, sync::Arc};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    plan::Plan,
    record::{Lost, LostKind, Recorder, Reply, Told},
    schedule::Ticket,
    source::Source,
};

/// One caller: at most one request at a time.
pub(crate) trait Exchange: Send {
    /// Sends one request and reads its reply to the end.
    ///
    /// # Errors
    /// The loss, whose kind says how far it came.
    ///
    /// # Cancel safety
    /// Dropped at the time-out: the request is given up, the next call starts clean.
    fn exchange(&mut self, ticket: &Ticket) -> impl Future<Output = Result<Reply, Lost>> + Send;
}

/// Runs one caller until its source has no more tickets.
pub(crate) async fn run(
    plan: Arc<Plan>,
    source: Arc<Source>,
    record: Arc<Mutex<Recorder>>,
    mut caller: impl Exchange,
) {
    while let Some(ticket) = source.next().await {
        record.lock().start(&ticket, Instant::now());
        let deadline = ticket.intended + plan.timeout;
        let outcome = match tokio::time::timeout_at(deadline, caller.exchange(&ticket)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                Err(Lost::new(LostKind::Timeout, format_args!("no complete reply within {:?}", plan.timeout)))
            }
        };
        record.lock().end(&ticket, outcome, Instant::now());
    }
}

/// Judges a complete reply by its status and length.
///
/// # Errors
/// A loss of kind `Status` or `Body`; its detail carries the gateway's error code where there is one.
pub(crate) fn judge(
    plan: &Plan,
    status: StatusCode,
    headers: &HeaderMap,
    body_bytes: u64,
) -> Result<Reply, Lost> {
    if !plan.expect_status.contains(status) {
        let code = headers.get("gw-error").and_then(|value| value.to_str().ok()).unwrap_or("none");
        let detail = format!("status {}, gw-error {code}", status.as_u16());
        let told = Told::read(headers);
        return Err(Lost { kind: LostKind::Status, detail, status: Some(status), told });
    }
    match plan.expect_body_bytes {
        Some(expected) if expected != body_bytes => {
            let detail = format!("body of {body_bytes} bytes instead of {expected}");
            Err(Lost { kind: LostKind::Body, detail, status: Some(status), told: None })
        }
        _ => Ok(Reply { status, body_bytes }),
    }
}
