//! One request, one outcome: the guard that records it, whatever ends it.

use std::sync::Arc;

use http::{HeaderValue, Method, uri::PathAndQuery};
use pool::{Journey, RetrySafe};
use tokio::time::Instant;

use super::{caller::Caller, reply::Form};
use crate::{
    outcome::ErrorCode,
    telemetry::{Ended, Outcome},
};

/// A request under way. Recorded exactly once: when it is finished, or when it is dropped because the caller left.
pub(super) struct Exchange {
    caller: Arc<Caller>,
    pub(super) started: Instant,
    /// In which form a failure is told.
    pub(super) form: Form,
    pub(super) method: Method,
    path: Option<PathAndQuery>,
    pub(super) correlation_id: Option<HeaderValue>,
    pub(super) route: Option<u16>,
    pub(super) environment: Option<u16>,
    pub(super) status: u16,
    pub(super) code: Option<ErrorCode>,
    pub(super) retry_safe: Option<RetrySafe>,
    pub(super) journey: Journey,
    pub(super) bytes_out: u64,
    recorded: bool,
}

impl Exchange {
    /// Boxed: it passes through a dozen hands on its way into the reply's body, and is half a kilobyte.
    pub(super) fn begin(caller: Arc<Caller>, method: Method, path: Option<PathAndQuery>) -> Box<Self> {
        Box::new(Self {
            caller,
            started: Instant::now(),
            form: Form::Problem,
            method,
            path,
            correlation_id: None,
            route: None,
            environment: None,
            status: 0,
            code: None,
            retry_safe: None,
            journey: Journey::default(),
            bytes_out: 0,
            recorded: false,
        })
    }

    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Remembers a failure; the outcome is recorded when the reply has been delivered.
    pub(super) fn fail(&mut self, code: ErrorCode, retry_safe: RetrySafe) {
        self.code = Some(code);
        self.status = code.row().status;
        self.retry_safe = Some(retry_safe);
    }

    /// Records how it ended.
    pub(super) fn finish(mut self: Box<Self>, ended: Ended) {
        // A reply made for a caller that has left reaches nobody.
        let left = self.code == Some(ErrorCode::CallerGone);
        self.record(if left { Ended::CallerGone } else { ended });
    }

    fn record(&mut self, ended: Ended) {
        self.recorded = true;
        self.caller.recorder.record(&Outcome {
            started: self.started,
            total: self.started.elapsed(),
            method: &self.method,
            path: self.path.as_ref().map_or("", |path| path.as_str()),
            correlation_id: self.correlation_id.as_ref().map_or(b"", |id| id.as_bytes()),
            route: self.route,
            environment: self.environment,
            protocol: self.caller.protocol,
            peer: self.caller.peer,
            caller: self.caller.share.name,
            status: self.status,
            code: self.code,
            retry_safe: self.retry_safe,
            journey: self.journey,
            bytes_in: self.journey.body_bytes,
            bytes_out: self.bytes_out,
            ended,
        });
        // HTTP/2 carries others beside this one, and watches over itself.
        if self.caller.is_http1() {
            self.caller.phase.exchange_ended();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.recorded {
            // Dropped in the middle: by us if we are stopping, else because the caller left.
            let (code, ended) = if self.caller.core.is_stopping() {
                (ErrorCode::Stopping, Ended::Stopped)
            } else {
                (ErrorCode::CallerGone, Ended::CallerGone)
            };
            if self.code.is_none() {
                self.fail(code, RetrySafe::Unknown);
            }
            self.record(ended);
        }
    }
}
