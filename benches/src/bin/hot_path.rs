//! Runs one operation so many times, on one thread: `hot_path OPERATION COUNT`. To be counted by `instructions.sh`.

use std::{hint::black_box, process::ExitCode};

use provider_sim::KeyAlgorithm;
use tsh_benches::{
    handshake::{Handshakes, Tickets},
    http::Caller,
    parts,
    rig::Rig,
};

/// Repetitions before the count begins: buffers, tables and windows reach their size.
const WARM_UP: u64 = 50;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let operation = arguments.next().unwrap_or_default();
    let Some(count) = arguments.next().and_then(|count| count.parse().ok()) else {
        return ExitCode::from(2);
    };
    match operation.as_str() {
        "lease_and_return" => {
            let leases = parts::leases();
            repeat(count, || parts::lease_and_return(&leases));
        }
        "verdict_decide_48_cases" => repeat(count, parts::verdict_decide),
        "prepare_request" => {
            let core = parts::core();
            repeat(count, || parts::prepare_request(&core, parts::callers_request()));
        }
        "callers_request" => repeat(count, || drop(black_box(parts::callers_request()))),
        "handshake_full" => handshakes(Tickets::Refused, count),
        "handshake_resumed" => handshakes(Tickets::Kept, count),
        "request_http1" => requests(count, async |rig| rig.http1().await),
        "request_h2c" => requests(count, async |rig| rig.h2c().await),
        "request_direct" => requests(count, async |rig| rig.direct().await),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn repeat(count: u64, mut operation: impl FnMut()) {
    (0..WARM_UP).for_each(|_| operation());
    measured(&mut || (0..count).for_each(|_| operation()));
}

fn handshakes(tickets: Tickets, count: u64) {
    let mut handshakes = Handshakes::new(KeyAlgorithm::EcP256, tickets);
    repeat(count, || drop(black_box(handshakes.shake())));
}

fn requests(count: u64, connect: impl AsyncFnOnce(&Rig) -> Caller) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    // A runtime without a reactor asks the system for nothing that it could refuse.
    let runtime = runtime.expect("a runtime");
    let (rig, mut caller) = runtime.block_on(async {
        let rig = Rig::start().await;
        let caller = connect(&rig).await;
        (rig, caller)
    });
    let mut send = |count| {
        runtime.block_on(async {
            for _ in 0..count {
                caller.send().await;
            }
        });
    };
    send(WARM_UP);
    measured(&mut || send(count));
    runtime.block_on(async { rig.stop() });
}

/// What happens in here, on this thread, is counted: callgrind is told this function's name.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}
