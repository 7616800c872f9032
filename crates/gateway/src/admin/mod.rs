//! The admin listener: health, readiness, metrics, pools; for the machine's own users only.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the list of these |
//! | `/healthz` | 200 while the process runs |
//! | `/readyz[?environment=NAME]` | 200 once the floors of required environments (or the one asked for) were met, else 503 with the reasons |
//! | `/metrics` | Prometheus text |
//! | `/api/v1/pools[?environment=NAME]` | JSON of `tsh.gateway.v1.Pools.List` |
//! | `/api/v1/connections` | JSON: passports of living and obituaries of dead connections; filters in the query |
//! | `/api/v1/drift` | JSON: what changed about the providers |
//! | gRPC | `tsh.gateway.v1.Pools`, `grpc.health.v1.Health`, reflection |
//!
//! Owns these endpoints and their guard against DNS rebinding. It changes nothing: every endpoint only reads.

mod connections;
mod drift;
mod host;
mod listen;
mod parameters;
mod readiness;
mod routes;
mod serve;

use std::sync::Arc;

use pool::Obituaries;

pub use host::HostCheck;
pub use listen::{AdminListener, bind_unix};
pub use readiness::{Answer, Readiness, Reason};
pub use routes::router;
pub use serve::serve;

use crate::{
    grpc::Health,
    telemetry::{Flusher, PoolView},
};

/// What the admin listener shows.
#[derive(Clone)]
pub struct AdminState {
    /// Metrics, brought up to date before each scrape.
    pub telemetry: Flusher,
    /// The environments, in the order of the configuration.
    pub pools: Arc<[Arc<dyn PoolView>]>,
    /// Dead connections of all pools.
    pub obituaries: Arc<Obituaries>,
    /// The latch behind `/readyz`.
    pub readiness: Arc<Readiness>,
    /// The statuses behind `grpc.health.v1`.
    pub health: Health,
}
