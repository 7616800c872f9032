//! What the gateway reports about itself: metrics, the access log, diagnostics.
//!
//! Owns the record made of each request and everything derived from it off the request's path. It decides
//! nothing: a full queue or disk costs log lines, which are counted, and never traffic.
//!
//! ```text
//! worker ──record──▶ shard (bounded) ──▶ "tsh-recorder" ──▶ histograms, counters
//!                                              └──lines──▶ queue (bounded) ──▶ "tsh-access-log" ──▶ file
//! ```

pub mod access_log;
mod json_line;
pub mod line_writer;
pub mod log;
pub mod metrics;
pub mod record;
pub mod recorder;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;

pub use access_log::AccessLogTarget;
pub use metrics::{Catalog, CatalogRoute, Metrics};
pub use record::{CallerProtocol, Ended, Outcome};
pub use recorder::{Flusher, Recorder, RecorderHandle, RecorderOptions, StopReport};
pub use view::{CertificateExpiry, CertificateRole, Condition, PoolView, Quarantined, Requirement};
