//! Owns the way from a script to its events: every random choice is made here, from the seed. Pure.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Action, Rotation, Script, Step};
use crate::behaviour::GoAwayForm;
use crate::door::Listening;
use crate::registry::Target;

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// Since the script began.
    pub(super) at: Duration,
    pub(super) act: Act,
}

/// One thing to do, with nothing left to chance but the connection of [`Target::Random`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    End(Target, GoAwayForm),
    Change(Map<String, Value>),
    /// No keys are all keys.
    Restore(Vec<String>),
    /// The provider goes away, as at the beginning of a restart.
    Leave,
    /// It comes back, unless another restart is under way.
    Return,
    Listen(Listening, Option<IpAddr>),
    Rotate(Rotation),
    Forget,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End(target, form) => write!(f, "end {target:?}: {form:?}"),
            Self::Change(keys) => write!(f, "behaviour {}", Value::Object(keys.clone())),
            Self::Restore(keys) if keys.is_empty() => f.write_str("restore the behaviour"),
            Self::Restore(keys) => write!(f, "restore {}", keys.join(", ")),
            Self::Leave => f.write_str("go away"),
            Self::Return => f.write_str("come back"),
            Self::Listen(listening, None) => write!(f, "listening: {listening:?}"),
            Self::Listen(listening, Some(address)) => write!(f, "listening at {address}: {listening:?}"),
            Self::Rotate(rotation) => write!(f, "new certificate: {rotation:?}"),
            Self::Forget => f.write_str("forget sessions"),
        }
    }
}

/// All events in order; those at the same time in the order of the steps.
pub(super) fn of(script: &Script) -> Vec<Event> {
    let mut rng = fastrand::Rng::with_seed(script.seed);
    let mut events = Vec::new();
    for step in &script.steps {
        for _ in 0..step.times {
            add(step, &mut rng, &mut events);
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

fn add(step: &Step, rng: &mut fastrand::Rng, events: &mut Vec<Event>) {
    let at = step.when.draw(rng);
    let back = step.lasting.map(|lasting| at + lasting.draw(rng));
    let (act, undo) = match &step.action {
        Action::End { target, form } => (Act::End(*target, *form), None),
        Action::Behaviour(keys) => {
            let names = keys.keys().cloned().collect();
            (Act::Change(keys.clone()), back.map(|back| (back, Act::Restore(names))))
        }
        Action::Restore(keys) => (Act::Restore(keys.clone()), None),
        Action::Restart { down_ms } => (Act::Leave, Some((at + down_ms.draw(rng), Act::Return))),
        Action::Listening { state, address } => {
            let undo = back.map(|back| (back, Act::Listen(Listening::Accepting, *address)));
            (Act::Listen(*state, *address), undo)
        }
        Action::RotateCertificate(rotation) => (Act::Rotate(*rotation), None),
        Action::ForgetSessions => (Act::Forget, None),
    };
    events.push(Event { at, act });
    events.extend(undo.map(|(at, act)| Event { at, act }));
}
