//! `/api/v1/connections`: the passports of living connections and the obituaries of dead ones.
//!
//! Owns the selection and the order: living connections first, the youngest first; then dead ones, the last to end
//! first. The number in an access log line's `connection` is the `id` here.

mod entry;
mod filter;

use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::Serialize;
use time::OffsetDateTime;

use self::{entry::Entry, filter::Filter};
use super::{AdminState, parameters::BadParameter, routes::uncached};
use crate::telemetry::{Condition, PoolView};

/// The answer.
#[derive(Serialize)]
struct List {
    connections: Vec<Entry>,
    /// There are more than the limit let through.
    truncated: bool,
}

/// Answers the endpoint.
pub(super) async fn connections(State(state): State<AdminState>, RawQuery(query): RawQuery) -> Response {
    let names: Vec<&str> = state.pools.iter().map(|view| view.environment()).collect();
    let now = state.obituaries.now();
    let filter = match Filter::parse(query.as_deref().unwrap_or_default(), &names, now) {
        Ok(filter) => filter,
        Err(fault) => return BadParameter::into_response(fault),
    };
    // Ten thousand entries take milliseconds to write; supervisors share this thread.
    let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&select(&state, &filter, now)));
    match written.await {
        Ok(Ok(json)) => uncached(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json)),
        Ok(Err(error)) => fault(&error),
        Err(error) => fault(&error),
    }
}

fn fault(error: &dyn std::fmt::Display) -> Response {
    tracing::error!(%error, "the connections could not be listed");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

fn select(state: &AdminState, filter: &Filter, now: OffsetDateTime) -> List {
    // One more than asked for, to know whether that is all.
    let enough = filter.limit + 1;
    let mut connections = living(&state.pools, filter, now);
    connections.truncate(enough);
    if filter.wants_dead() {
        let room = enough - connections.len();
        connections.extend(state.obituaries.find(&filter.dead, room).iter().map(Entry::dead));
    }
    let truncated = connections.len() > filter.limit;
    connections.truncate(filter.limit);
    List { connections, truncated }
}

fn living(pools: &[std::sync::Arc<dyn PoolView>], filter: &Filter, now: OffsetDateTime) -> Vec<Entry> {
    if !filter.wants_living() {
        return Vec::new();
    }
    let wanted = pools.iter().filter(|view| filter.wants_environment(view.environment()));
    let mut entries: Vec<Entry> = wanted
        .filter_map(|view| match view.condition() {
            Condition::Pooled(status) => Some(status),
            Condition::Quarantined(_) => None,
        })
        .flat_map(|status| {
            let chosen = status.connections.into_iter().filter(|connection| filter.wants(connection));
            chosen.map(|connection| Entry::living(&status.environment, connection, now)).collect::<Vec<_>>()
        })
        .collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.id()));
    entries
}

#[cfg(test)]
mod tests;
