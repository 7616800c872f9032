//! The provider stops dead and stays so.

use super::{super::stage::Short, Fault, IDLE_CUT, PLAIN, Sees, TIMEOUT};

pub(super) fn all() -> Vec<Fault> {
    // A body that nobody takes stands still before a response is due.
    let unread = [TIMEOUT, TIMEOUT, Sees::Fails(&["idle_timeout"], "unknown"), TIMEOUT];
    let both = Fault { short: &[Short::Header, Short::Idle], sees: unread, ..PLAIN };
    let idle = Fault { short: &[Short::Idle], sees: [IDLE_CUT; 4], ..PLAIN };
    vec![
        Fault { name: "stall: the request is never read", orders: &[("sim-stall", "read_nothing")], ..both },
        Fault { name: "stall before the response", orders: &[("sim-stall", "before_response")], ..both },
        Fault {
            name: "stall after the response header",
            orders: &[("sim-stall", "after_headers"), ("sim-body-bytes", "64")],
            ..idle
        },
        Fault {
            name: "stall in the response body",
            orders: &[("sim-stall", "mid_body"), ("sim-body-bytes", "8192")],
            ..idle
        },
        Fault {
            name: "stall before the trailers",
            orders: &[
                ("sim-stall", "before_trailers"),
                ("sim-trailers", "x-checksum=1"),
                ("sim-body-bytes", "64"),
            ],
            ..idle
        },
    ]
}
