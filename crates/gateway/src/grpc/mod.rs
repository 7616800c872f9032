//! The gRPC API: `Egress` and health on egress listeners, `Pools` and health on the admin listener.
//!
//! Owns the conversion between gRPC messages and HTTP requests, gRPC's form of errors, and the record of each
//! call. Routing and sending belong to the egress path, reached through [`EgressCore`].

mod core;
mod egress;
mod error;
mod headers;
mod health;
mod pools;
mod recorded;
pub(crate) mod timeout;

use std::sync::Arc;

use axum::Router;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use tonic::service::Routes;

pub use self::{
    core::{Call, CallerIdentity, EgressCore, Executed, Failure, Placed, Target},
    health::Health,
    pools::list as list_pools,
};
use self::{egress::EgressService, pools::PoolsService, recorded::Recorded};
use crate::telemetry::{PoolView, RecorderHandle};

/// The messages and services of `tsh.gateway.v1`, generated from `proto/`.
// Generated services carry no doc comments; the protos document every message, field and method.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    tonic::include_proto!("tsh.gateway.v1");
}

/// Descriptors of what egress listeners serve, for reflection.
const EGRESS_DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("egress");

/// Descriptors of what the admin listener serves, for reflection.
const POOLS_DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("pools");

/// Bounds of the gRPC API.
#[derive(Clone, Copy, Debug)]
pub struct GrpcLimits {
    /// Largest message either way, in bytes. Default 4 MiB, which is what gRPC clients take by default.
    pub message_bytes: usize,
    /// Most header fields in a request message. Default 100.
    pub max_headers: usize,
    /// Most bytes of header names and values in a request message. Default 64 KiB.
    pub max_header_bytes: usize,
}

impl Default for GrpcLimits {
    fn default() -> Self {
        Self { message_bytes: 4 * 1024 * 1024, max_headers: 100, max_header_bytes: 64 * 1024 }
    }
}

/// Whether a path on an egress listener belongs to the gRPC API; such paths beat routes.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    path.starts_with("/tsh.gateway.v1.") || path.starts_with("/grpc.")
}

/// The header of a reply that tells a failure to a gRPC client: a status without a message ("Trailers-Only" in gRPC
/// over HTTP/2).
pub(crate) fn trailers_only(failure: &Failure, correlation_id: Option<&HeaderValue>) -> HeaderMap {
    error::status(failure, correlation_id).into_http::<()>().into_parts().0.headers
}

/// Whether a request speaks gRPC, by its content type.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// What an egress listener serves at reserved paths: `Egress`, health, reflection. Call it as a tower service
/// with requests of any body; put a [`CallerIdentity`] into their extensions. One per worker, with its recorder.
pub fn egress_routes(
    core: Arc<dyn EgressCore>,
    recorder: RecorderHandle,
    health: &Health,
    limits: GrpcLimits,
) -> Router {
    let service = proto::egress_server::EgressServer::new(EgressService::new(core, limits))
        .max_decoding_message_size(limits.message_bytes);
    with_reflection(Routes::new(Recorded::new(service, recorder)), health, EGRESS_DESCRIPTORS)
        .into_axum_router()
}

/// What the admin listener serves besides its HTTP endpoints; has no fallback, to be merged.
pub(crate) fn admin_routes(pools: Arc<[Arc<dyn PoolView>]>, health: &Health) -> Router {
    let service = proto::pools_server::PoolsServer::new(PoolsService::new(pools));
    with_reflection(Routes::new(service), health, POOLS_DESCRIPTORS).into_axum_router().reset_fallback()
}

/// Adds health and both versions of reflection, which list exactly what is served.
fn with_reflection(routes: Routes, health: &Health, descriptors: &'static [u8]) -> Routes {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The descriptors are compiled in and a test serves them; they cannot be malformed at run time.
    let current = builder().build_v1().expect("compiled-in descriptors are valid");
    let older = builder().build_v1alpha().expect("compiled-in descriptors are valid");
    routes.add_service(health.server()).add_service(current).add_service(older).prepare()
}

#[cfg(test)]
mod tests;
