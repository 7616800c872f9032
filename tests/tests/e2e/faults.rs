//! What a provider can do wrong while a request is under way or connections are made: one name each.

use std::time::Duration;

use provider_sim::{Behaviour, ClientAuth, GoAwayForm, Stall, TlsVersions};
use tsh_tests::{
    EnvironmentPlan, Feed, Lab, Plan, Provider, Reply,
    caller::ask,
    empty, eventually, full,
    tls::{self, Closed, FullBacklog},
    within,
};

/// A gateway before a provider that cannot be dialled; every request fails with `code`, and a retry is safe.
async fn never_dials(plan: Plan, code: &str) -> (Lab, Reply) {
    let lab = plan.start().await;
    // The first request may come before the first dial has failed: it waits, and gets the same answer.
    let first = lab.fails(lab.ask("POST", "/first"), code, "yes").await;
    let second = lab.fails(lab.ask("GET", "/second"), code, "yes").await;
    assert_eq!(first.status, second.status);
    let metrics = lab.metrics().await;
    let dials = metrics.count("tsh_handshakes_total", &[("result", code)]);
    assert!(dials > 0, "dials are counted under the same name");
    assert_eq!(metrics.count("tsh_handshakes_total", &[("result", "ok")]), 0);
    assert_eq!(metrics.sum("tsh_floor_met", &[]), 0.0);
    let ready = lab.admin_get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["reasons"][0]["code"]), (503, &code.into()), "{ready:?}");
    let pool = lab.pool("sandbox").await;
    assert_eq!(pool["last_failure"]["code"], code, "{pool}");
    (lab, second)
}

fn dialling(provider: &Provider, connect: impl ToString) -> Plan {
    let connect = connect.to_string();
    Plan::at(provider).with(|e| e.connect = connect)
}

#[tokio::test]
async fn a_provider_that_is_down_refuses_the_connection() {
    let provider = Provider::start().await;
    let closed = Closed::make();
    never_dials(dialling(&provider, closed.address()), "connection_refused").await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let provider = Provider::start().await;
    let (_, reply) = never_dials(dialling(&provider, "no-such-host.invalid:443"), "dns_failure").await;
    assert!(reply.json()["detail"].as_str().unwrap().contains("no-such-host.invalid"), "{reply:?}");
}

#[tokio::test]
async fn a_connect_that_hangs() {
    let provider = Provider::start().await;
    let full = FullBacklog::make().await;
    let plan = dialling(&provider, full.address).with(|e| e.timeouts = "connect_ms = 150".into());
    never_dials(plan, "connect_timeout").await;
}

#[tokio::test]
async fn a_handshake_that_hangs() {
    let provider = Provider::with(Behaviour { stall: Stall::AtHandshake, ..Behaviour::default() }).await;
    let plan = Plan::at(&provider).with(|e| e.timeouts = "tls_ms = 150".into());
    never_dials(plan, "tls_timeout").await;
}

#[tokio::test]
async fn a_proof_that_does_not_come() {
    let provider = Provider::with(Behaviour { stall: Stall::BeforeSettings, ..Behaviour::default() }).await;
    let plan = Plan::at(&provider).with(|e| e.timeouts = "prove_ms = 150".into());
    never_dials(plan, "prove_timeout").await;
    assert_eq!(provider.sim.ledger().requests, 0);
}

#[tokio::test]
async fn a_provider_that_does_not_speak_tls() {
    let provider = Provider::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plan = dialling(&provider, listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = tcp.read(&mut [0; 1024]).await;
            let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    never_dials(plan, "tls_protocol_error").await;
}

#[tokio::test]
async fn a_provider_that_closes_during_the_handshake() {
    let provider = Provider::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plan = dialling(&provider, listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        while let Ok((mut tcp, _)) = listener.accept().await {
            // The whole ClientHello is read, so that the close is a FIN and no reset.
            let _ = tcp.read(&mut [0; 16 * 1024]).await;
        }
    });
    never_dials(plan, "tls_closed").await;
}

#[tokio::test]
async fn neither_version_of_http() {
    let provider = Provider::start().await;
    let address =
        tls::server(&provider.pki.server_chain_pem(), &provider.pki.server_key_pem(), &["spdy/3"]).await;
    never_dials(dialling(&provider, address), "no_common_alpn").await;
}

#[tokio::test]
async fn our_certificate_refused_early_and_late() {
    for (tls, client_auth) in [
        (TlsVersions::Tls12Only, ClientAuth::RefuseLate),
        (TlsVersions::Tls13Only, ClientAuth::RefuseLate),
        (TlsVersions::Both, ClientAuth::RefuseEarly),
    ] {
        let provider = Provider::with(Behaviour { tls, client_auth, ..Behaviour::default() }).await;
        let (_, reply) = never_dials(Plan::at(&provider), "identity_refused").await;
        assert!(reply.json()["detail"].as_str().unwrap().contains("endorsed"), "{reply:?}");
        let ledger = provider.sim.ledger();
        assert_eq!(ledger.requests, 0, "{tls:?}");
        assert!(
            ledger.handshakes_refused <= 4,
            "{tls:?}: a refused certificate is not tried again and again"
        );
    }
}

#[tokio::test]
async fn a_provider_without_an_answer() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).route("timeout_ms = 150").ready().await;
    let request = ask("POST", "/", "slow-1").header("sim-stall", "before_response").body(full("x")).unwrap();
    lab.fails(request, "response_timeout", "unknown").await;
    eventually("the provider sees the reset", async || {
        (provider.sim.ledger().client_resets == 1).then_some(())
    })
    .await;
    assert_eq!(lab.get("/").await.status, 200, "the connection serves on");
    assert_eq!(provider.sim.ledger().connections_accepted, 2);
}

#[tokio::test]
async fn a_stream_that_the_provider_resets() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for reason in ["internal_error", "cancel", "enhance_your_calm", "no_error"] {
        let request = ask("GET", "/", reason).header("sim-reset", reason).body(empty()).unwrap();
        lab.fails(request, "provider_reset", "unknown").await;
        assert_eq!(provider.sim.seen(reason), 1, "what may have been processed is never sent again");
    }
}

#[tokio::test]
async fn a_connection_that_dies_under_a_request() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for form in ["fin", "reset", "abrupt"] {
        let request = ask("POST", "/", form).header("sim-goaway", form).header("sim-delay-ms", "60000");
        lab.fails(request.body(full("x")).unwrap(), "provider_reset", "unknown").await;
        assert_eq!(provider.sim.seen(form), 1);
        lab.until_ready().await;
    }
}

#[tokio::test]
async fn a_response_cut_in_the_middle_is_not_passed_off_as_whole() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for (version, chunked) in [("h1", false), ("h1", true), ("h2c", false)] {
        let id = format!("cut-{version}-{chunked}");
        let mut request =
            ask("GET", "/", &id).header("sim-body-bytes", "10000").header("sim-reset-at", "mid_body");
        if chunked {
            // With trailers the simulator announces no length.
            request = request.header("sim-trailers", "x-sum=1");
        }
        let request = request.body(empty()).unwrap();
        let (mut http1, mut h2c) = (lab.http1().await, lab.h2c().await);
        let call =
            async { if version == "h1" { http1.open(request).await } else { h2c.open(request).await } };
        // The cut may come before our own header is out: then the caller gets no reply at all, never a whole one.
        if let Ok(response) = within("a response or its end", call).await {
            let reply = Reply::read(response).await;
            assert_eq!(reply.status, 200);
            assert!(reply.cut.is_some() && reply.body.len() < 10_000, "{id}: {} bytes", reply.body.len());
        }
        lab.assert_logged(&id, "response_cut", "unknown").await;
        let line = lab.log_line(&id).await;
        assert_eq!((&line["ended"], &line["status"]), (&"provider_cut".into(), &200.into()));
    }
    lab.until_counted("response_cut", 3).await;
}

#[tokio::test]
async fn a_body_that_stands_still() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).with(|e| e.timeouts = "idle_ms = 200".into()).ready().await;
    let request = ask("GET", "/", "idle-1").header("sim-body-bytes", "1000").header("sim-stall", "mid_body");
    let reply = lab.send(request.body(empty()).unwrap()).await;
    assert!(reply.cut.is_some(), "{reply:?}");
    lab.assert_logged("idle-1", "idle_timeout", "unknown").await;
    // Upwards: the header of the reply is not out yet, so it can say so.
    let (feed, body) = Feed::new();
    let request = ask("POST", "/", "idle-2").header("sim-stall", "read_nothing").body(body).unwrap();
    let pushing = async { while feed.send(vec![0; 64 * 1024]).await {} };
    let (_, ()) = tokio::join!(lab.fails(request, "idle_timeout", "unknown"), pushing);
}

#[tokio::test]
async fn a_deadline_of_the_whole_exchange() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).route("timeouts = { total_ms = 200 }").ready().await;
    let request = ask("GET", "/", "total-1").header("sim-delay-ms", "60000").body(empty()).unwrap();
    lab.fails(request, "deadline_exceeded", "unknown").await;
    // The deadline holds for the response's body too.
    let request = ask("GET", "/", "total-2").header("sim-body-bytes", "1000").header("sim-stall", "mid_body");
    let reply = lab.send(request.body(empty()).unwrap()).await;
    assert!(reply.cut.is_some(), "{reply:?}");
    lab.assert_logged("total-2", "deadline_exceeded", "unknown").await;
}

#[tokio::test]
async fn a_full_queue_and_a_queue_that_takes_too_long() {
    let provider = Provider::start().await;
    let pool = "min_connections = 1\nmax_connections = 1\nmax_streams = 1\nqueue_capacity = 1";
    let plan = Plan::at(&provider).with(|e| {
        e.pool = pool.into();
        e.timeouts = "queue_ms = 400".into();
    });
    let lab = plan.ready().await;
    let (mut holder, mut waiter) = (lab.http1().await, lab.http1().await);
    let hold = ask("GET", "/", "hold").header("sim-delay-ms", "60000").body(empty()).unwrap();
    let held = tokio::spawn(async move { holder.open(hold).await.map(|_| ()) });
    eventually("the stream is taken", async || (provider.sim.seen("hold") == 1).then_some(())).await;
    let wait = tokio::spawn(async move { waiter.send(ask("GET", "/", "wait").body(empty()).unwrap()).await });
    eventually("one waits", async || (lab.pool("sandbox").await["queue_depth"] == 1).then_some(())).await;
    lab.fails(lab.ask("GET", "/"), "queue_full", "yes").await;
    let reply = within("the queue's time is up", wait).await.unwrap();
    lab.assert_failed(&reply, "wait", "queue_timeout", "yes").await;
    lab.until_counted("queue_timeout", 1).await;
    assert_eq!((provider.sim.seen("wait"), lab.pool("sandbox").await["queue_depth"].as_u64()), (0, Some(0)));
    held.abort();
    eventually("the stream is free again", async || (lab.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn an_outage_is_answered_at_once_and_ends_by_itself() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let address = provider.sim.addr();
    let Provider { sim, pki, client } = provider;
    sim.stop().await;
    eventually("the outage is known", async || {
        (lab.pool("sandbox").await["last_failure"]["code"] == "connection_refused").then_some(())
    })
    .await;
    let began = tokio::time::Instant::now();
    lab.fails(lab.ask("GET", "/"), "connection_refused", "yes").await;
    assert!(began.elapsed() < Duration::from_secs(1), "not after the queue's time");
    assert_eq!(lab.admin_get("/readyz").await.status, 200, "readiness is a latch");
    let options = provider_sim::SimulatorOptions {
        listen: address,
        endorsed: vec![client.endorsed()],
        ..provider_sim::SimulatorOptions::new(pki)
    };
    let _sim = provider_sim::Simulator::start(options).await.unwrap();
    eventually("it serves again", async || (lab.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_proxy_that_opens_no_tunnel_and_one_that_does() {
    let provider = Provider::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let via = format!("via = \"http://{}\"", listener.local_addr().unwrap());
    let (sender, mut answers) = tokio::sync::watch::channel("HTTP/1.1 407 Proxy Authentication Required");
    tokio::spawn(async move {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
        while let Ok((tcp, _)) = listener.accept().await {
            let answer = *answers.borrow_and_update();
            tokio::spawn(async move {
                let mut tcp = BufReader::new(tcp);
                let mut line = String::new();
                let mut target = String::new();
                while line != "\r\n" {
                    line.clear();
                    if tcp.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    if let Some(rest) = line.strip_prefix("CONNECT ") {
                        target = rest.split(' ').next().unwrap_or_default().to_owned();
                    }
                }
                let _ = tcp.write_all(format!("{answer}\r\n\r\n").as_bytes()).await;
                if answer.contains("200")
                    && let Ok(mut far) = tokio::net::TcpStream::connect(&target).await
                {
                    let _ = copy_bidirectional(&mut tcp, &mut far).await;
                }
            });
        }
    });
    let (lab, reply) = never_dials(Plan::at(&provider).with(|e| e.more = via), "via_failure").await;
    assert!(reply.json()["detail"].as_str().unwrap().contains("407"), "{reply:?}");
    sender.send_replace("HTTP/1.1 200 Connection established");
    lab.until_ready().await;
    assert_eq!(lab.get("/").await.status, 200);
}

#[tokio::test]
async fn an_environment_at_another_name_is_not_touched_by_a_fault_here() {
    let (good, bad) = (Provider::start().await, Provider::start().await);
    bad.behave(|b| b.goaway_form = GoAwayForm::Reset);
    let mut first = EnvironmentPlan::at("bad", &bad);
    first.customer = "CUSTOMER-0002".into();
    let routes =
        "[[routes]]\npath_prefix = \"/bad\"\nenvironment = \"bad\"\n[[routes]]\nenvironment = \"good\"\n";
    let lab = Plan::of(first).and(EnvironmentPlan::at("good", &good)).routes(routes).ready().await;
    let request = ask("GET", "/bad", "bad-1").header("sim-goaway", "reset").body(empty()).unwrap();
    lab.fails(request, "provider_reset", "unknown").await;
    assert_eq!(lab.get("/good").await.status, 200);
    assert_eq!(good.sim.ledger().connections_accepted, 2);
}
