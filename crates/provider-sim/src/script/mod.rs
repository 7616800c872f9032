//! Owns scripts: what the provider does when, as data with a seed, and how their text is read. It does not own
//! the playing.

mod play;
mod text;
mod timeline;

pub use play::Playing;
pub(crate) use play::play;

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::behaviour::{Behaviour, GoAwayForm};
use crate::door::Listening;
use crate::registry::Target;

/// More than any storm needs; a timeline is held in memory.
const MAX_EVENTS: u64 = 100_000;

/// What the provider does, and when: steps at fixed times or at times drawn from a seed. The same text and seed
/// give the same timeline.
///
/// The text is TOML, or JSON if it begins with `{`:
///
/// ```
/// let script = provider_sim::Script::parse(r#"
///     seed = 7
///
///     [[step]]
///     at_ms = 500
///     action = { end = { form = "two_phase" } }
///
///     [[step]]                      # ten resets of a random connection within the first minute
///     between_ms = [0, 60000]
///     times = 10
///     action = { end = { target = "random", form = "reset" } }
///
///     [[step]]
///     between_ms = [0, 60000]
///     action = { restart = { down_ms = [50, 500] } }
///
///     [[step]]                      # slow for two seconds
///     at_ms = 10000
///     for_ms = 2000
///     action = { behaviour = { latency_ms = 200 } }
/// "#)?;
/// assert_eq!(script.timeline().len(), 1 + 10 + 2 + 2);
/// # Ok::<(), provider_sim::ScriptError>(())
/// ```
///
/// | action | effect |
/// |---|---|
/// | `end = { form, target }` | [`Simulator::end`](crate::Simulator::end); `target` default `all` |
/// | `behaviour = { … }` | changes these keys of [`Behaviour`], the others stay |
/// | `restore = ["key", …]` | these keys, or all if none is named, as they were when the script began |
/// | `restart = { down_ms }` | [`Simulator::restart`](crate::Simulator::restart) |
/// | `listening = { state, address }` | [`Simulator::set_listening`](crate::Simulator::set_listening), at one address if given |
/// | `rotate_certificate = "leaf"` or `"authority"` | [`Simulator::rotate_certificate`](crate::Simulator::rotate_certificate) |
/// | `"forget_sessions"` | [`Simulator::forget_sessions`](crate::Simulator::forget_sessions) |
///
/// `at_ms` is a time since the script began, `between_ms` a pair to draw from; `times` repeats the step, each
/// time drawn anew, default 1. `for_ms` takes a `behaviour` or `listening` back after a while. `for_ms` and
/// `down_ms` are a number or a pair to draw from.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    seed: u64,
    steps: Vec<Step>,
}

/// Which certificate the provider replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// A new leaf with a new key, of the same authorities.
    Leaf,
    /// A new root, a new intermediate and a new leaf: nobody who trusts the old ones trusts it.
    Authority,
}

/// Why a script cannot be played. Every message says where, what, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The text is no TOML or JSON of the right shape.
    #[error("the script cannot be read: {0}")]
    Syntax(String),
    /// A step makes no sense.
    #[error("step {number} of the script: {problem}")]
    Step {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Too many events.
    #[error("the script has {events} events; lower `times` until there are at most 100000")]
    TooLong {
        /// How many.
        events: u64,
    },
}

/// One step, checked.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    when: Span,
    times: u32,
    lasting: Option<Span>,
    action: Action,
}

/// Milliseconds, fixed or to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Span {
    Exactly(u64),
    Between([u64; 2]),
}

impl Span {
    fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        Duration::from_millis(match self {
            Self::Exactly(millis) => millis,
            Self::Between([from, to]) => rng.u64(from..=to),
        })
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Action {
    End {
        #[serde(default)]
        target: Target,
        form: GoAwayForm,
    },
    Behaviour(Map<String, Value>),
    Restore(Vec<String>),
    Restart {
        down_ms: Span,
    },
    Listening {
        state: Listening,
        address: Option<IpAddr>,
    },
    RotateCertificate(Rotation),
    ForgetSessions,
}

impl Script {
    /// Reads and checks a script.
    ///
    /// # Errors
    /// [`ScriptError`], with the place in the text or the number of the step.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        text::parse(text)
    }

    /// The seed of every random choice in it. Default 0.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The same steps with another seed.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// What will happen when, in order, for people to read.
    pub fn timeline(&self) -> Vec<(Duration, String)> {
        timeline::of(self).into_iter().map(|event| (event.at, event.act.to_string())).collect()
    }
}

/// `behaviour` with these keys changed. The error names the key.
fn changed(behaviour: &Behaviour, keys: &Map<String, Value>) -> Result<Behaviour, String> {
    let mut whole = as_map(behaviour)?;
    whole.extend(keys.iter().map(|(key, value)| (key.clone(), value.clone())));
    let behaviour: Behaviour =
        serde_json::from_value(Value::Object(whole)).map_err(|error| format!("behaviour: {error}"))?;
    behaviour.validate().map_err(|error| error.to_string())?;
    Ok(behaviour)
}

fn as_map(behaviour: &Behaviour) -> Result<Map<String, Value>, String> {
    match serde_json::to_value(behaviour) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("behaviour: not a table".to_owned()),
        Err(error) => Err(format!("behaviour: {error}")),
    }
}

#[cfg(test)]
mod tests;
