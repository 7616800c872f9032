//! GOAWAY in every form, at every phase of a request.

use provider_sim::{GoAwayForm, ResetReason};

use super::{
    END, Fault, LOST, PLAIN, RESET, RESPONSE_CUT, Sees, UNPROCESSED, USED_UP, When, ends_with, holding, made,
    slow,
};

pub(super) fn while_it_runs() -> Vec<Fault> {
    let disowned = [Sees::Replayed, Sees::Replayed, UNPROCESSED, Sees::Replayed];
    vec![
        Fault {
            sees: disowned,
            ..ends_with(
                "GOAWAY, last-stream-id 0, while the request runs",
                made! { holding(); goaway_form: GoAwayForm::Zero },
                Sees::Answer,
            )
        },
        Fault {
            sees: disowned,
            ..ends_with(
                "GOAWAY, last-stream-id just below the request",
                made! { holding(); goaway_form: GoAwayForm::Behind { streams: 1 } },
                Sees::Answer,
            )
        },
        ends_with(
            "GOAWAY, last-stream-id the request's own",
            made! { slow(); goaway_form: GoAwayForm::Immediate },
            Sees::Answer,
        ),
        ends_with(
            "GOAWAY, last-stream-id 2^31-1, alone",
            made! { slow(); goaway_form: GoAwayForm::MaxOnly },
            Sees::Answer,
        ),
        ends_with("GOAWAY in two phases", made! { slow(); goaway_form: GoAwayForm::TwoPhase }, Sees::Answer),
        ends_with(
            "GOAWAY with an error, then the end",
            made! { holding(); goaway_form: GoAwayForm::Abrupt { reason: ResetReason::InternalError } },
            LOST,
        ),
        Fault {
            name: "GOAWAY on every connection just before the request",
            when: When::Before,
            act: END,
            sees: [Sees::Answer, Sees::Answer, Sees::AnswerOrFails(RESET, "yes"), Sees::Answer],
            ..PLAIN
        },
        Fault {
            name: "GOAWAY, last-stream-id 0, in the response body",
            behaviour: made! { Default::default(); goaway_form: GoAwayForm::Zero },
            orders: &[("sim-stall", "mid_body"), ("sim-body-bytes", "8192")],
            when: When::During,
            act: |s| {
                Box::pin(async {
                    s.until_begun().await;
                    s.provider.sim.goaway_all();
                })
            },
            sees: [RESPONSE_CUT; 4],
            ..PLAIN
        },
    ]
}

/// Phases of a request: how the order is called, and how the row is.
macro_rules! finishing {
    ($($name:literal: $form:literal at $point:literal),* $(,)?) => {
        vec![$(Fault {
            name: $name,
            orders: &[
                ("sim-goaway", $form),
                ("sim-goaway-at", $point),
                ("sim-trailers", "x-checksum=1"),
            ],
            ..PLAIN
        }),*]
    };
}

/// The request's own number or the largest: it is finished, at whatever phase that is said. Number 0: it is disowned,
/// and again at each replay.
pub(super) fn at_each_phase() -> Vec<Fault> {
    let mut all = finishing! {
        "GOAWAY, last-stream-id the request's own, at its HEADERS": "immediate" at "headers",
        "GOAWAY, last-stream-id the request's own, during its DATA": "immediate" at "request_data",
        "GOAWAY, last-stream-id the request's own, after the response's HEADERS":
            "immediate" at "response_headers",
        "GOAWAY, last-stream-id the request's own, before the trailers": "immediate" at "before_trailers",
        "GOAWAY, last-stream-id 2^31-1, at the request's HEADERS": "max_only" at "headers",
        "GOAWAY, last-stream-id 2^31-1, during the request's DATA": "max_only" at "request_data",
        "GOAWAY, last-stream-id 2^31-1, after the response's HEADERS": "max_only" at "response_headers",
        "GOAWAY, last-stream-id 2^31-1, before the trailers": "max_only" at "before_trailers",
    };
    all.extend(disowned_at_each_phase());
    all
}

fn disowned_at_each_phase() -> Vec<Fault> {
    let [_, used_up, perhaps, _] = USED_UP;
    vec![
        Fault {
            name: "GOAWAY, last-stream-id 0, at the request's HEADERS, at every attempt",
            orders: &[("sim-goaway", "zero"), ("sim-goaway-at", "headers")],
            sees: USED_UP,
            ..PLAIN
        },
        Fault {
            name: "GOAWAY, last-stream-id 0, during the request's DATA, at every attempt",
            orders: &[("sim-goaway", "zero"), ("sim-goaway-at", "request_data")],
            // Without a body there is no such moment.
            sees: [Sees::Answer, used_up, perhaps, used_up],
            ..PLAIN
        },
        Fault {
            name: "GOAWAY, last-stream-id 0, after the response's HEADERS",
            orders: &[
                ("sim-goaway", "zero"),
                ("sim-goaway-at", "response_headers"),
                ("sim-stall", "after_headers"),
                ("sim-body-bytes", "64"),
            ],
            sees: [RESPONSE_CUT; 4],
            ..PLAIN
        },
        Fault {
            name: "GOAWAY, last-stream-id 0, between response body and trailers",
            orders: &[
                ("sim-goaway", "zero"),
                ("sim-goaway-at", "before_trailers"),
                ("sim-stall", "before_trailers"),
                ("sim-trailers", "x-checksum=1"),
                ("sim-body-bytes", "64"),
            ],
            sees: [RESPONSE_CUT; 4],
            ..PLAIN
        },
    ]
}
