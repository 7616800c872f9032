//! Owns the order to end one connection: the form and what its frames carry. It does not own how it is done.

use std::sync::Arc;
use std::time::Duration;

use crate::behaviour::{Behaviour, GoAwayForm, ResetReason};

/// How a connection is to be ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) form: GoAwayForm,
    pub(crate) code: ResetReason,
    pub(crate) debug: Arc<str>,
    /// Between the two frames of [`GoAwayForm::TwoPhase`]; zero is a round trip.
    pub(crate) wait: Duration,
}

impl Ending {
    /// As the behaviour says.
    pub(crate) fn of(behaviour: &Behaviour) -> Self {
        Self {
            form: behaviour.goaway_form,
            code: behaviour.goaway_code,
            debug: behaviour.goaway_debug.as_str().into(),
            wait: behaviour.goaway_wait,
        }
    }

    /// As the behaviour says, in another form.
    pub(crate) fn in_form(behaviour: &Behaviour, form: GoAwayForm) -> Self {
        Self { form, ..Self::of(behaviour) }
    }
}
