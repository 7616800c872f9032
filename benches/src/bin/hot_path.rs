//! Runs one operation so many times, on one thread: `hot_path OPERATION COUNT`. To be counted by `instructions.sh`.
//!
//! Set-up costs the same for every count, so the difference of two counts is the operation's alone.

use std::process::ExitCode;

use tsh_benches::{http::Caller, parts, rig::Rig};

/// Requests before the count begins: buffers, tables and windows reach their size.
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
            (0..count).for_each(|_| parts::lease_and_return(&leases));
        }
        "verdict_decide" => (0..count / parts::VERDICT_CASES).for_each(|_| parts::verdict_decide()),
        "prepare_request" => {
            let core = parts::core();
            (0..count).for_each(|_| parts::prepare_request(&core, parts::callers_request()));
        }
        "callers_request" => (0..count).for_each(|_| drop(std::hint::black_box(parts::callers_request()))),
        "request_http1" => requests(count, async |rig| rig.http1().await),
        "request_h2c" => requests(count, async |rig| rig.h2c().await),
        "request_direct" => requests(count, async |rig| rig.direct().await),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn requests(count: u64, connect: impl AsyncFnOnce(&Rig) -> Caller) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    // Without a timer thread or a descriptor there is nothing that could fail.
    runtime.expect("a runtime").block_on(async {
        let rig = Rig::start().await;
        let mut caller = connect(&rig).await;
        for _ in 0..WARM_UP + count {
            caller.send().await;
        }
        rig.stop();
    });
}
