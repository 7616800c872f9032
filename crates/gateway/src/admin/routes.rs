//! The admin endpoints.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::{Deserialize, Serialize};

use super::{AdminState, HostCheck, connections::connections, drift::drift, host};
use crate::grpc;

/// The text format that Prometheus scrapes.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "\
tsh-gateway admin

/healthz          200 while the process runs
/readyz           200 once the floors of required environments were met; ?environment=NAME asks for one
/metrics          Prometheus metrics
/api/v1/pools     connections by environment, JSON; ?environment=NAME asks for one
/api/v1/connections  living and dead connections, JSON; filters: environment, state, cause, protocol,
                  generation, address, id, since (seconds), limit
/api/v1/drift     what changed about the providers, JSON; filters: environment, field, limit
gRPC              tsh.gateway.v1.Pools, grpc.health.v1.Health, reflection
";

/// All endpoints behind the host check.
pub fn router(state: AdminState, check: HostCheck) -> Router {
    let grpc = grpc::admin_routes(Arc::clone(&state.pools), &state.health);
    Router::new()
        .route("/", get(async || INDEX))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/pools", get(pools))
        .route("/api/v1/connections", get(connections))
        .route("/api/v1/drift", get(drift))
        .with_state(state)
        .merge(grpc)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(check, host::check))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    environment: Option<String>,
}

#[derive(Serialize)]
struct Problem {
    code: &'static str,
    message: String,
}

async fn readyz(State(state): State<AdminState>, Query(selection): Query<Selection>) -> Response {
    let answer = match &selection.environment {
        None => state.readiness.overall(),
        Some(name) => match state.readiness.environment(name) {
            Some(answer) => answer,
            None => return unknown_environment(&state, name),
        },
    };
    let status = if answer.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    uncached((status, Json(answer)))
}

async fn metrics(State(state): State<AdminState>) -> Response {
    // Counting what the workers recorded and writing the text takes milliseconds; other requests go on.
    let rendered = tokio::task::spawn_blocking(move || {
        state.telemetry.flush();
        state.telemetry.metrics().render(&state.pools)
    });
    match rendered.await {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn pools(State(state): State<AdminState>, Query(selection): Query<Selection>) -> Response {
    match grpc::list_pools(&state.pools, selection.environment.as_deref().unwrap_or_default()) {
        Some(list) => uncached(Json(list)),
        None => unknown_environment(&state, selection.environment.as_deref().unwrap_or_default()),
    }
}

fn unknown_environment(state: &AdminState, name: &str) -> Response {
    let known: Vec<&str> = state.pools.iter().map(|view| view.environment()).collect();
    let message = format!("there is no environment `{name}`; there are: {}", known.join(", "));
    (StatusCode::NOT_FOUND, Json(Problem { code: "unknown_environment", message })).into_response()
}

async fn not_found(request: Request) -> Response {
    if grpc::is_grpc(request.headers()) {
        return tonic::Status::unimplemented("the admin listener serves no such method").into_http();
    }
    (StatusCode::NOT_FOUND, "not found; / lists what there is\n").into_response()
}

pub(super) fn uncached(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
pub(super) mod tests;
