//! Several worker threads: that connections are spread over them, and that their number does not depend on it.

use crate::support::*;

/// Holds requests, one more each time, and returns how many connections serve in the end.
async fn grown(threads: &Threads) -> usize {
    const HELD: u32 = 4;
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(Behaviour { max_concurrent_streams: Some(1), ..Behaviour::default() }, &[&a]).await;
    let spec = PoolSpec {
        workers: threads.workers(),
        ..spec(sim.addr().port(), generation(1, &a), config(2, 8), Timeouts::default())
    };
    let pool = Pool::start(spec, &Handle::current());
    warm(&pool).await;
    assert_eq!(serving(&pool), 2, "the floor is the floor");
    let mut holding = Vec::new();
    for held in 1..=HELD {
        let holder = pool.clone();
        let worker = &threads.handles[held as usize % threads.handles.len()];
        holding.push(worker.spawn(async move {
            let ask = request("GET", &[("sim-stall", "before_response")], Chunks::default());
            send(&holder, ask, &options()).await.map(|_| ())
        }));
        eventually("it is held", || pool.status().in_flight == held).await;
        // A connection with three quarters of its streams taken wants another beside it.
        eventually("another one serves", || serving(&pool) > held as usize && pool.status().dialling == 0)
            .await;
    }
    // Four streams in use and a quarter to spare, one stream a connection: six. Later looks of the supervisor may be
    // needed to get there.
    eventually("as many serve as the load needs", || serving(&pool) == 6).await;
    let serving = serving(&pool);
    holding.iter().for_each(tokio::task::JoinHandle::abort);
    pool.stop(SOON).await;
    serving
}

#[test]
fn the_number_of_connections_does_not_depend_on_the_number_of_workers() {
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let grown: Vec<_> = [1, 2, 5]
        .into_iter()
        .map(|count| {
            let threads = Threads::start(count);
            let grown = control.block_on(grown(&threads));
            threads.stop();
            grown
        })
        .collect();
    assert_eq!(grown, [grown[0]; 3], "with 1, 2 and 5 workers");
}
