//! Owns the text of scripts: TOML or JSON in, checked steps out.

use serde::Deserialize;

use super::{Action, MAX_EVENTS, Script, ScriptError, Span, Step, changed};
use crate::behaviour::Behaviour;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScript {
    #[serde(default)]
    seed: u64,
    #[serde(default, rename = "step")]
    steps: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    at_ms: Option<u64>,
    between_ms: Option<[u64; 2]>,
    #[serde(default = "once")]
    times: u32,
    for_ms: Option<Span>,
    action: Action,
}

fn once() -> u32 {
    1
}

pub(super) fn parse(text: &str) -> Result<Script, ScriptError> {
    let raw: RawScript = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| ScriptError::Syntax(error.to_string()))?
    } else {
        toml::from_str(text).map_err(|error| ScriptError::Syntax(error.to_string()))?
    };
    let mut steps = Vec::with_capacity(raw.steps.len());
    for (index, step) in raw.steps.into_iter().enumerate() {
        let step = checked(step).map_err(|problem| ScriptError::Step { number: index + 1, problem })?;
        steps.push(step);
    }
    // One that is taken back is two events.
    let events = steps.iter().map(|step| 2 * u64::from(step.times)).sum();
    if events > MAX_EVENTS {
        return Err(ScriptError::TooLong { events });
    }
    Ok(Script { seed: raw.seed, steps })
}

fn checked(raw: RawStep) -> Result<Step, String> {
    let when = match (raw.at_ms, raw.between_ms) {
        (Some(at), None) => Span::Exactly(at),
        (None, Some(bounds)) => Span::Between(bounds),
        _ => return Err("give either `at_ms` or `between_ms`".to_owned()),
    };
    in_order("between_ms", when)?;
    if raw.times == 0 {
        return Err("`times` must be at least 1; leave it out for once".to_owned());
    }
    if let Some(lasting) = raw.for_ms {
        in_order("for_ms", lasting)?;
        if !matches!(raw.action, Action::Behaviour(_) | Action::Listening { .. }) {
            return Err("`for_ms` goes with `behaviour` and `listening`, which can be taken back".to_owned());
        }
    }
    match &raw.action {
        Action::Behaviour(keys) => drop(changed(&Behaviour::default(), keys)?),
        Action::Restore(keys) => known(keys)?,
        Action::Restart { down_ms } => in_order("down_ms", *down_ms)?,
        _ => {}
    }
    Ok(Step { when, times: raw.times, lasting: raw.for_ms, action: raw.action })
}

fn in_order(key: &str, span: Span) -> Result<(), String> {
    match span {
        Span::Between([from, to]) if from > to => {
            Err(format!("`{key}` must be [from, to] with from at most to; it is [{from}, {to}]"))
        }
        _ => Ok(()),
    }
}

fn known(keys: &[String]) -> Result<(), String> {
    let all = super::as_map(&Behaviour::default())?;
    match keys.iter().find(|key| !all.contains_key(*key)) {
        Some(key) => Err(format!("restore: `{key}` is no key of the behaviour")),
        None => Ok(()),
    }
}
