//! Where dials run: not where requests do.

use std::sync::mpsc;

use crate::support::*;

/// A thread with a runtime of its own, until it is dropped.
struct Thread {
    handle: Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Thread {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self { handle, stop: Some(stop), thread: Some(thread) }
    }

    /// Keeps the thread busy until the sender is dropped; returns when it is.
    async fn occupy(&self) -> mpsc::Sender<()> {
        let (busy, is_busy) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        self.handle.spawn(async move {
            let _ = busy.send(());
            let _ = released.recv();
        });
        is_busy.await.unwrap();
        release
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

async fn start_apart(behaviour: Behaviour, dialler: &Thread) -> (Simulator, Pool) {
    let a = client("CUSTOMER-0001-SBX");
    let sim = provider(behaviour, &[&a]).await;
    let pool = start_at_port(sim.addr().port(), &a, dialler);
    (sim, pool)
}

fn start_at_port(port: u16, client: &ClientCredentials, dialler: &Thread) -> Pool {
    start_with(port, client, dialler, Timeouts::default())
}

fn start_with(port: u16, client: &ClientCredentials, dialler: &Thread, timeouts: Timeouts) -> Pool {
    let spec = PoolSpec {
        key: PoolKey { customer: "C".into(), environment: "sandbox".into(), authority: HOST.into() },
        target: Target {
            host: HOST.to_owned(),
            port: 443,
            connect: Some(HostPort { host: "127.0.0.1".to_owned(), port }),
            via: None,
        },
        generation: generation(1, client),
        config: config(2, 2),
        timeouts,
        seed: 7,
        workers: Workers::current().dialling_on(dialler.handle.clone()),
        observer: Arc::new(Unobserved),
        obituaries: Obituaries::new(Arc::new(SystemClock)),
    };
    Pool::start(spec, &Handle::current())
}

#[tokio::test]
async fn a_dialler_that_is_held_up_holds_up_no_request() {
    for behaviour in [Behaviour::default(), http11()] {
        let dialler = Thread::start();
        let (sim, pool) = start_apart(behaviour, &dialler).await;
        warm(&pool).await;
        let release = dialler.occupy().await;
        // As long as a slow signature takes, and longer: what serves goes on.
        for _ in 0..20 {
            exchange(&pool, get()).await.unwrap();
        }
        assert_eq!(sim.ledger().requests, 20);
        drop(release);
    }
}

#[tokio::test]
async fn nothing_is_dialled_while_the_dialler_is_held_up() {
    for behaviour in [Behaviour::default(), http11()] {
        let dialler = Thread::start();
        let release = dialler.occupy().await;
        let (sim, pool) = start_apart(behaviour, &dialler).await;
        eventually("dials wait for their thread", || pool.status().dialling == 2).await;
        assert_eq!(sim.ledger().connections_accepted, 0);
        drop(release);
        warm(&pool).await;
        exchange(&pool, get()).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_does_not_depend_on_the_reactor_that_dialled_it() {
    for behaviour in [Behaviour::default(), http11()] {
        let dialler = Thread::start();
        let (_sim, pool) = start_apart(behaviour, &dialler).await;
        warm(&pool).await;
        drop(dialler);
        for _ in 0..20 {
            let ask = request("POST", &[("sim-body-bytes", "200000")], Chunks::of(&["a body"]));
            let (status, body, ..) = exchange(&pool, ask).await.unwrap();
            assert_eq!((status, body.len()), (StatusCode::OK, 200_000));
        }
    }
}

#[tokio::test]
async fn a_stop_ends_dials_on_the_other_thread() {
    let dialler = Thread::start();
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let patient = Timeouts { tls: PATIENT, ..Timeouts::default() };
    let pool = start_with(port, &client("CUSTOMER-0001-SBX"), &dialler, patient);
    let (one, two) = (silent.accept().await.unwrap().0, silent.accept().await.unwrap().0);
    timeout(SOON, pool.stop(PATIENT)).await.expect("neither the dials' hour nor its own is waited for");
    for mut tcp in [one, two] {
        timeout(SOON, tcp.read_to_end(&mut Vec::new())).await.expect("its socket is closed").unwrap();
    }
}

/// The last of four dials at once may be told of before the supervisor looks: it must not count twice, as a connection
/// and as a dial, or the fifth is never made.
#[tokio::test]
async fn a_floor_above_what_is_dialled_at_once_is_met() {
    let a = client("CUSTOMER-0001-SBX");
    let threads = Threads::start(2);
    for behaviour in [Behaviour::default(), http11()] {
        let sim = provider(behaviour, &[&a]).await;
        for _ in 0..20 {
            let timeouts = Timeouts::default();
            let spec = PoolSpec {
                workers: threads.workers(),
                ..spec(sim.addr().port(), generation(1, &a), config(9, 9), timeouts)
            };
            let pool = Pool::start(spec, &Handle::current());
            warm(&pool).await;
            pool.stop(SOON).await;
        }
    }
    threads.stop();
}
