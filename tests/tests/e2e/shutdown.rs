//! The way out: what is in flight may end, nothing new begins, and what had to be cut is said.

use std::time::Duration;

use http_body_util::BodyExt;
use tsh_tests::{
    Plan, Provider,
    caller::{Reply, ask},
    empty, eventually, within,
};

async fn in_flight(provider: &Provider, id: &str) {
    eventually("the request is in flight", async || (provider.sim.seen(id) == 1).then_some(())).await;
}

#[tokio::test]
async fn requests_in_flight_end_and_new_ones_are_refused() {
    let provider = Provider::start().await;
    let mut lab = Plan::at(&provider).ready().await;
    let (mut http1, mut idle, mut h2c) = (lab.http1().await, lab.http1().await, lab.h2c().await);
    assert_eq!(idle.send(lab.ask("GET", "/")).await.status, 200);
    let slow = |id: &str| ask("GET", "/", id).header("sim-delay-ms", "1200").body(empty()).unwrap();
    let one = tokio::spawn(async move { (http1.send(slow("one")).await, http1.is_open().await) });
    let two = {
        let (mut h2c, request) = (h2c.clone(), slow("two"));
        tokio::spawn(async move { h2c.send(request).await })
    };
    in_flight(&provider, "one").await;
    in_flight(&provider, "two").await;
    let (egress, admin) = (lab.egress(), lab.admin());
    let stop = tokio::spawn(lab.take().stop());
    eventually("no new callers", async || {
        tokio::net::TcpStream::connect(egress).await.is_err().then_some(())
    })
    .await;
    assert!(tokio::net::TcpStream::connect(admin).await.is_ok(), "operators can look on");
    eventually("the idle caller is let go", async || (!idle.is_open().await).then_some(())).await;
    let (reply, open) = one.await.unwrap();
    assert_eq!((reply.status, reply.header("connection"), open), (200, "close", false));
    assert_eq!(two.await.unwrap().status, 200);
    // GOAWAY was said: the client library opens no stream any more.
    assert!(h2c.open(ask("GET", "/", "three").body(empty()).unwrap()).await.is_err());
    let stopped = within("the stop", stop).await.unwrap();
    assert!(stopped.is_clean(), "{stopped:?}");
    for id in ["one", "two"] {
        assert_eq!(lab.log_line(id).await["outcome"], "ok");
    }
    assert_eq!(provider.sim.seen("three"), 0);
    eventually("the provider's connections end", async || {
        (provider.sim.ledger().connections_open == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn readiness_ends_at_once() {
    let provider = Provider::start().await;
    let mut lab = Plan::at(&provider).ready().await;
    let mut caller = lab.http1().await;
    let slow = ask("GET", "/", "slow").header("sim-delay-ms", "700").body(empty()).unwrap();
    let call = tokio::spawn(async move { caller.send(slow).await.status });
    in_flight(&provider, "slow").await;
    let stop = tokio::spawn(lab.take().stop());
    let answer = eventually("not ready", async || {
        let reply = lab.admin_get("/readyz").await;
        (reply.status == 503).then_some(reply)
    })
    .await;
    assert_eq!(answer.json()["reasons"][0]["code"], "stopping");
    assert_eq!(call.await.unwrap(), 200);
    assert!(stop.await.unwrap().is_clean());
}

#[tokio::test]
async fn a_stop_ends_within_its_deadline_and_says_what_it_cut() {
    let provider = Provider::start().await;
    let plan = Plan::at(&provider).edit(|c| c.shutdown.drain = Duration::from_millis(300));
    let mut lab = plan.ready().await;
    let mut caller = lab.http1().await;
    let stuck = ask("GET", "/", "stuck").header("sim-delay-ms", "60000").body(empty()).unwrap();
    let call =
        tokio::spawn(async move { caller.open(stuck).await.map(|response| response.status().as_u16()) });
    in_flight(&provider, "stuck").await;
    let began = tokio::time::Instant::now();
    let stopped = within("the stop", lab.stop()).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!((stopped.callers, stopped.streams, stopped.log_lines), (1, 1, 0), "{stopped:?}");
    // Cut, or told so just in time; not left hanging.
    let told = within("the caller's end", call).await.unwrap();
    assert!(told.as_ref().map_or(true, |status| *status >= 500), "{told:?}");
    let line = lab.log_line("stuck").await;
    assert!(
        line["blame"] != "caller" && line["outcome"] != "ok",
        "it was we who cut it, not the caller: {line}"
    );
}

#[tokio::test]
async fn a_body_on_its_way_down_ends_before_the_stop() {
    let provider = Provider::start().await;
    let mut lab = Plan::at(&provider).ready().await;
    let mut caller = lab.http1().await;
    let request = ask("GET", "/", "large").header("sim-body-bytes", "8000000").body(empty()).unwrap();
    let mut response = caller.open(request).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap().len();
    let stop = tokio::spawn(lab.take().stop());
    let rest = Reply::read(response).await;
    assert_eq!((rest.cut, first + rest.body.len()), (None, 8_000_000));
    assert!(within("the stop", stop).await.unwrap().is_clean());
}
