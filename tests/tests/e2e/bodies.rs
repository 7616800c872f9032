//! Large bodies are streamed: they pass whole, and neither side can fill the gateway's memory.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tsh_tests::{Feed, Plan, Provider, caller::ask, empty, eventually, within};

const MIB: usize = 1024 * 1024;
/// What moves in the large tests.
const LARGE: usize = 64 * MIB;
/// Socket buffers of three hops and two HTTP/2 windows; far below [`LARGE`].
const BOUND: u64 = 32 * 1024 * 1024;

#[tokio::test]
async fn sixty_four_mebibytes_go_up_whole() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let (feed, body) = Feed::new();
    let request = ask("POST", "/up", "up-1").header("sim-respond", "sink").body(body).unwrap();
    let sending = async move {
        let block = Bytes::from(vec![7u8; 256 * 1024]);
        for _ in 0..LARGE / block.len() {
            assert!(feed.send(block.clone()).await);
        }
    };
    let mut connection = lab.http1().await;
    let (reply, ()) = tokio::join!(connection.send(request), sending);
    assert_eq!(reply.json()["received"], LARGE);
    assert_eq!(lab.log_line("up-1").await["bytes_in"], LARGE);
}

#[tokio::test]
async fn sixty_four_mebibytes_come_down_whole() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let request = ask("GET", "/down", "down-1").header("sim-body-bytes", LARGE.to_string());
    let mut connection = lab.http1().await;
    let mut body = connection.open(request.body(empty()).unwrap()).await.unwrap().into_body();
    let mut length = 0;
    while let Some(frame) = within("a piece", body.frame()).await {
        length += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    assert_eq!(length, LARGE);
    assert_eq!(lab.log_line("down-1").await["bytes_out"], LARGE);
}

#[tokio::test]
async fn a_provider_that_reads_nothing_stops_the_caller() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for version in ["h1", "h2c"] {
        let (feed, body) = Feed::new();
        let id = format!("stuck-{version}");
        let request = ask("POST", "/stuck", &id).header("sim-stall", "read_nothing").body(body).unwrap();
        let (mut http1, mut h2c) = (lab.http1().await, lab.h2c().await);
        let call = async {
            let _ = if version == "h1" { http1.open(request).await } else { h2c.open(request).await };
        };
        let push = async {
            let block = Bytes::from(vec![7u8; 64 * 1024]);
            let mut pushed = 0u64;
            // Nothing moved for this long: the brake is on.
            while let Ok(true) =
                tokio::time::timeout(Duration::from_millis(500), feed.send(block.clone())).await
            {
                pushed += block.len() as u64;
                assert!(pushed < BOUND, "{version}: nothing stops the caller");
            }
            pushed
        };
        let pushed = tokio::select! {
            pushed = push => pushed,
            () = call => panic!("{version}: an answer from a provider that gives none"),
        };
        assert!(pushed > 0);
        drop(feed);
    }
    let pool = lab.pool("sandbox").await;
    assert!(pool["replay_bytes"].as_u64().unwrap() <= 2 * 64 * 1024, "{pool}");
}

#[tokio::test]
async fn a_caller_that_reads_nothing_stops_the_provider() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let request = ask("GET", "/d", "slow-1").header("sim-body-bytes", LARGE.to_string());
    let mut connection = lab.http1().await;
    let response = connection.open(request.body(empty()).unwrap()).await.unwrap();
    let mut last = (0, tokio::time::Instant::now());
    eventually("the provider stops sending", async || {
        let sent = provider.sim.ledger().body_bytes_sent;
        if sent != last.0 {
            last = (sent, tokio::time::Instant::now());
        }
        (sent > 0 && last.1.elapsed() > Duration::from_millis(300)).then_some(())
    })
    .await;
    assert!(last.0 < BOUND, "{} bytes were taken for a caller that reads nothing", last.0);
    // Others are not held up by it.
    assert_eq!(lab.get("/other").await.status, 200);
    drop((response, connection));
    let line = lab.log_line("slow-1").await;
    assert_eq!(line["outcome"], "caller_gone", "{line}");
}

#[tokio::test]
async fn a_body_moves_while_both_sides_send() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for version in ["h1", "h2c"] {
        let (feed, body) = Feed::new();
        let request = ask("POST", "/echo", &format!("both-{version}")).body(body).unwrap();
        let (mut http1, mut h2c) = (lab.http1().await, lab.h2c().await);
        let call =
            async { if version == "h1" { http1.open(request).await } else { h2c.open(request).await } };
        let (response, sent) = tokio::join!(call, feed.send("first"));
        assert!(sent);
        let mut body = response.unwrap().into_body();
        for word in ["first", "second", "third"] {
            if word != "first" {
                assert!(feed.send(word).await);
            }
            let frame = within(word, body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word, "{version}");
        }
        drop(feed);
        assert!(
            within("the end", body.frame()).await.is_none_or(|f| f.unwrap().into_data().unwrap().is_empty())
        );
    }
}
