//! Frames of odd shapes.

use super::{Fault, LOST, PLAIN, RESPONSE_CUT};

pub(super) fn all() -> Vec<Fault> {
    vec![
        Fault { name: "90 empty DATA frames first", orders: &[("sim-empty-frames", "90")], ..PLAIN },
        Fault {
            name: "101 empty DATA frames first",
            orders: &[("sim-empty-frames", "101"), ("sim-body-bytes", "64")],
            sees: [RESPONSE_CUT; 4],
            ..PLAIN
        },
        Fault {
            name: "DATA frames of one byte",
            orders: &[("sim-frame-bytes", "1"), ("sim-body-bytes", "300")],
            ..PLAIN
        },
        Fault {
            name: "a response header of 200 KiB",
            orders: &[("sim-header-bytes", "200000")],
            sees: [LOST; 4],
            ..PLAIN
        },
    ]
}
