//! Criterion benchmarks: what handshakes, leases, verdicts and whole requests cost. See `docs/benchmarks.md`.

use std::{hint::black_box, sync::Barrier, thread, time::Duration};

use criterion::{BatchSize, Criterion, Throughput};
use pool::{bench::Leases, workers};
use provider_sim::KeyAlgorithm;
use tls_core::HandshakeKind;
use tokio::{runtime::Runtime, time::Instant};
use tsh_benches::{
    handshake::{Handshakes, Tickets},
    http::Caller,
    parts,
    rig::Rig,
};

fn main() {
    let limits = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASUREMENT).sample_size(50);
    let mut criterion = limits.configure_from_args();
    handshakes(&mut criterion);
    leases(&mut criterion);
    decisions(&mut criterion);
    requests(&mut criterion);
    criterion.final_summary();
}

/// Short enough that nobody hesitates to run them; `--measurement-time` and `--sample-size` ask for more.
const WARM_UP: Duration = Duration::from_secs(1);
const MEASUREMENT: Duration = Duration::from_secs(3);

/// Client, server and the bytes between them: each figure is the sum of both halves.
fn handshakes(c: &mut Criterion) {
    let keys =
        [("p256", KeyAlgorithm::EcP256), ("p384", KeyAlgorithm::EcP384), ("rsa2048", KeyAlgorithm::Rsa2048)];
    for (name, key) in keys {
        let mut full = Handshakes::new(key, Tickets::Refused);
        c.bench_function(&format!("handshake_full_{name}"), |b| {
            b.iter(|| assert_eq!(black_box(full.shake()).kind, HandshakeKind::Full));
        });
        let mut resumed = Handshakes::new(key, Tickets::Kept);
        assert_eq!(resumed.shake().kind, HandshakeKind::Full, "there is no ticket yet");
        c.bench_function(&format!("handshake_resumed_{name}"), |b| {
            b.iter(|| assert_eq!(black_box(resumed.shake()).kind, HandshakeKind::Resumed));
        });
    }
}

/// One iteration: every thread leases a stream once and gives it back.
fn leases(c: &mut Criterion) {
    let leases = parts::leases();
    let mut group = c.benchmark_group("pool");
    for (name, threads) in [("lease_and_return_1_thread", 1), ("lease_and_return_8_threads", 8)] {
        group.throughput(Throughput::Elements(threads));
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| lease_in_threads(&leases, threads as usize, iterations));
        });
    }
    group.finish();
}

/// From the first thread's first lease to the last thread's last; starting the threads is not counted.
fn lease_in_threads(leases: &Leases, threads: usize, iterations: u64) -> Duration {
    let barrier = Barrier::new(threads);
    let work = |index| {
        workers::enter(index % parts::CONNECTIONS);
        barrier.wait();
        let began = Instant::now();
        for _ in 0..iterations {
            parts::lease_and_return(leases);
        }
        (began, Instant::now())
    };
    let work = &work;
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|index| scope.spawn(move || work(index))).collect();
        let spans = running.into_iter().map(|thread| thread.join().expect("a thread that does not panic"));
        let (began, ended) = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).expect("a thread");
        ended - began
    })
}

/// What is decided about a request: with nothing sent yet, and after a failure.
fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool");
    group.throughput(Throughput::Elements(parts::VERDICT_CASES));
    group.bench_function("verdict_decide_48_cases", |b| b.iter(parts::verdict_decide));
    group.finish();
    let core = parts::core();
    c.bench_function("prepare_request", |b| {
        b.iter_batched(
            parts::callers_request,
            |request| parts::prepare_request(&core, request),
            BatchSize::SmallInput,
        );
    });
}

/// Caller, gateway and provider on one thread, one request after the other: each figure is the sum of all three.
fn requests(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let rig = runtime.block_on(Rig::start());
    let mut bench = |name: &str, mut caller: Caller| {
        c.bench_function(name, |b| b.iter_custom(|iterations| send(&runtime, &mut caller, iterations)));
    };
    bench("request_through_gateway_in_memory_http1", runtime.block_on(rig.http1()));
    bench("request_through_gateway_in_memory_h2c", runtime.block_on(rig.h2c()));
    bench("request_without_gateway_in_memory", runtime.block_on(rig.direct()));
    runtime.block_on(async { rig.stop() });
}

fn send(runtime: &Runtime, caller: &mut Caller, iterations: u64) -> Duration {
    runtime.block_on(async {
        let began = Instant::now();
        for _ in 0..iterations {
            caller.send().await;
        }
        began.elapsed()
    })
}
