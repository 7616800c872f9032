//! `/api/v1/drift`: what changed about the providers since the process started, newest first.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use pool::{DriftChange, DriftField};
use serde::Serialize;

use super::{
    AdminState,
    parameters::{BadParameter, Parameters},
    routes::uncached,
};

/// Changes in an answer unless asked otherwise, and at most.
const DEFAULT_LIMIT: usize = 100;
const MOST: usize = 10_000;

/// One change.
#[derive(Serialize)]
struct Entry {
    environment: String,
    /// What happened in one sentence.
    sentence: String,
    #[serde(flatten)]
    change: DriftChange,
}

/// The answer.
#[derive(Serialize)]
struct List {
    changes: Vec<Entry>,
    /// There are more than the limit let through.
    truncated: bool,
}

/// Answers the endpoint.
pub(super) async fn drift(State(state): State<AdminState>, RawQuery(query): RawQuery) -> Response {
    match list(&state, query.as_deref().unwrap_or_default()) {
        Ok(list) => uncached(Json(list)),
        Err(fault) => fault.into_response(),
    }
}

fn list(state: &AdminState, query: &str) -> Result<List, BadParameter> {
    let parameters = Parameters::parse(query, &["environment", "field", "limit"])?;
    let names: Vec<&str> = state.pools.iter().map(|view| view.environment()).collect();
    let wanted = parameters.get("environment");
    if let Some(name) = wanted.filter(|name| !names.contains(name)) {
        return Err(BadParameter::value("environment", name, names));
    }
    let field = parameters.choose("field", DriftField::ALL.map(|field| (field, field.as_str())))?;
    let limit = parameters.limit(DEFAULT_LIMIT, MOST)?;
    let mut changes: Vec<Entry> = state
        .pools
        .iter()
        .filter(|view| wanted.is_none_or(|name| name == view.environment()))
        .flat_map(|view| view.drift().into_iter().map(|change| (view.environment(), change)))
        .filter(|(_, change)| field.is_none_or(|field| field == change.field))
        .map(|(environment, change)| Entry {
            environment: environment.to_owned(),
            sentence: change.to_string(),
            change,
        })
        .collect();
    // Stable: changes of one moment stay in the order of their pool.
    changes.sort_by_key(|entry| std::cmp::Reverse(entry.change.when));
    let truncated = changes.len() > limit;
    changes.truncate(limit);
    Ok(List { changes, truncated })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use pool::{DriftKind, DriftSeverity, DriftValue};
    use time::macros::datetime;

    use super::*;
    use crate::admin::routes::tests::fixture;

    fn change(field: DriftField, minute: u8) -> DriftChange {
        DriftChange {
            when: datetime!(2026-03-01 12:00 UTC).replace_minute(minute).unwrap(),
            field,
            from: DriftValue::Number(500),
            to: DriftValue::Number(100),
            kind: DriftKind::New,
            severity: DriftSeverity::Warning,
            repeats: 0,
        }
    }

    #[tokio::test]
    async fn changes_are_listed_newest_first_as_sentences_and_as_fields() {
        let fixture = fixture().await;
        let changes = [change(DriftField::MaxFrameSize, 1), change(DriftField::MaxConcurrentStreams, 2)];
        fixture.sandbox.edit(|status| status.drift = changes.to_vec());
        let (status, answer) = fixture.json("/api/v1/drift").await;
        assert_eq!(status, StatusCode::OK);
        let first = &answer["changes"][0];
        assert_eq!(first["sentence"], "max_concurrent_streams 500 -> 100");
        assert_eq!(
            (&first["environment"], &first["field"]),
            (&"sandbox".into(), &"max_concurrent_streams".into())
        );
        assert_eq!((&first["from"], &first["to"]), (&"500".into(), &"100".into()));
        assert_eq!((&first["when"], &first["severity"]), (&"2026-03-01T12:02:00Z".into(), &"warning".into()));
        let count = async |query: &str| {
            let (_, answer) = fixture.json(&format!("/api/v1/drift?{query}")).await;
            (answer["changes"].as_array().unwrap().len(), answer["truncated"].as_bool().unwrap())
        };
        assert_eq!(count("field=max_frame_size").await, (1, false));
        assert_eq!(count("environment=production").await, (0, false));
        assert_eq!(count("limit=1").await, (1, true));
    }

    #[tokio::test]
    async fn what_cannot_be_understood_is_refused() {
        let fixture = fixture().await;
        for (query, parameter) in [
            ("state=dead", "state"),
            ("field=colour", "field"),
            ("environment=x", "environment"),
            ("limit=0", "limit"),
        ] {
            let (status, problem) = fixture.json(&format!("/api/v1/drift?{query}")).await;
            assert_eq!(
                (status, &problem["parameter"]),
                (StatusCode::BAD_REQUEST, &parameter.into()),
                "{query}"
            );
        }
    }
}
