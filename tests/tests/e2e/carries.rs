//! Requests get through as they were sent: every form of HTTP that internal services speak.

use http::{Request, header};
use tsh_tests::{
    Feed, Http1, Lab, Plan, Provider,
    caller::{HOST, Reply, ask},
    empty, full, within,
};

/// The provider's description of the request it got.
async fn described(lab: &Lab, request: http::request::Builder, body: tsh_tests::Body) -> serde_json::Value {
    let reply = lab.send(request.header("sim-respond", "describe").body(body).unwrap()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn field<'a>(described: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    described["headers"].as_array()?.iter().find(|pair| pair[0] == name)?[1].as_str()
}

#[tokio::test]
async fn get_and_post_over_http1_come_back_as_they_were_sent() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    assert_eq!(lab.get("/cards").await.status, 200);
    let request = ask("POST", "/cards?x=%2F", "post-1").header("content-type", "application/json");
    let reply = lab.send(request.body(full("{\"a\":1}")).unwrap()).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"{\"a\":1}"[..]));
    assert_eq!(reply.header("content-type"), "application/json");
    let line = lab.log_line("post-1").await;
    assert_eq!(
        (&line["outcome"], &line["status"], &line["route"]),
        (&"ok".into(), &200.into(), &"all".into())
    );
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&7.into(), &7.into()));
    assert_eq!(line["environment"], "sandbox");
    assert_eq!(line["path"], "/cards", "no query in the log");
}

#[tokio::test]
async fn a_chunked_body_is_streamed_and_comes_back() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut raw = lab.raw().await;
    raw.write(format!(
        "POST /c HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    ))
    .await;
    raw.write("3\r\nabc\r\n").await;
    raw.write("2;ext=1\r\nde\r\n0\r\n\r\n").await;
    let reply = raw.read_to_end().await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(reply.contains("abc") && reply.contains("de"), "{reply}");
    assert_eq!(provider.sim.ledger().body_bytes_received, 5);
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut connection = lab.http1().await;
    for n in 0..20 {
        let request = ask("POST", "/k", &format!("keep-{n}")).body(full(n.to_string())).unwrap();
        assert_eq!(connection.send(request).await.body, n.to_string());
    }
    assert_eq!(lab.metrics().await.count("tsh_caller_connections_accepted_total", &[]), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut raw = lab.raw().await;
    // The first is slower than the others: order must not come from luck.
    let slow =
        format!("POST /1 HTTP/1.1\r\nHost: {HOST}\r\nsim-delay-ms: 100\r\nContent-Length: 3\r\n\r\none");
    let next = format!("POST /2 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\ntwo");
    let last =
        format!("POST /3 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nthree");
    raw.write(format!("{slow}{next}{last}")).await;
    let reply = raw.read_to_end().await;
    let order: Vec<_> = ["one", "two", "three"].iter().map(|word| reply.find(word)).collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} {reply}");
    assert_eq!(reply.matches("HTTP/1.1 200").count(), 3);
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut raw = lab.raw().await;
    raw.write(format!(
        "POST /e HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    ))
    .await;
    let begin = raw.read_until("100 Continue").await;
    assert!(begin.starts_with("HTTP/1.1 100 Continue"), "{begin}");
    raw.write("body").await;
    // The echo may begin before the body: part of its head may have come already.
    let reply = begin + &raw.read_to_end().await;
    assert!(reply.contains("HTTP/1.1 200") && reply.contains("body"), "{reply}");
}

#[tokio::test]
async fn absolute_form_is_matched_by_its_authority() {
    let provider = Provider::start().await;
    let plan = Plan::at(&provider)
        .routes("[[routes]]\nname = \"by-host\"\nhost = \"sandbox.thales\"\nenvironment = \"sandbox\"\n");
    let lab = plan.ready().await;
    let mut raw = lab.raw().await;
    raw.write(
        "GET http://sandbox.thales/abs?q=1 HTTP/1.1\r\nHost: sandbox.thales\r\nsim-respond: describe\r\n\
         Connection: close\r\n\r\n",
    )
    .await;
    let reply = raw.read_to_end().await;
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("\"path\":\"/abs?q=1\""), "{reply}");
    assert_eq!(lab.get("/abs").await.header("gw-error"), "no_route");
}

#[tokio::test]
async fn head_and_204_have_no_body_and_the_connection_stays_usable() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut connection = lab.http1().await;
    let head = ask("HEAD", "/h", "head-1").header("sim-body-bytes", "50").body(empty()).unwrap();
    let reply = connection.send(head).await;
    assert_eq!((reply.status, reply.body.len(), reply.header("content-length")), (200, 0, "50"), "{reply:?}");
    let none = ask("DELETE", "/n", "none-1").header("sim-status", "204").body(empty()).unwrap();
    let reply = connection.send(none).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    let reply = connection.send(ask("POST", "/p", "after-1").body(full("x")).unwrap()).await;
    assert_eq!(&reply.body[..], b"x");
    for id in ["head-1", "none-1", "after-1"] {
        assert_eq!(lab.log_line(id).await["outcome"], "ok");
    }
}

#[tokio::test]
async fn h2c_by_prior_knowledge_carries_many_streams_at_once() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let connection = lab.h2c().await;
    let calls = (0..50).map(|n| {
        let mut connection = connection.clone();
        async move {
            let request = ask("POST", "/h2", &format!("h2-{n}")).header("sim-delay-ms", "50");
            connection.send(request.body(full(n.to_string())).unwrap()).await
        }
    });
    for (n, reply) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!((reply.status, &reply.body[..]), (200, n.to_string().as_bytes()));
    }
    assert_eq!(lab.log_line("h2-0").await["protocol"], "h2c");
}

#[tokio::test]
async fn a_unix_socket_carries_requests_too() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).unix().ready().await;
    let stream = tokio::net::UnixStream::connect(lab.socket()).await.unwrap();
    let mut connection = Http1::over(stream).await;
    let reply = connection.send(ask("POST", "/u", "unix-1").body(full("over a file")).unwrap()).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"over a file"[..]));
    assert_eq!(lab.log_line("unix-1").await["peer"], serde_json::Value::Null);
}

#[tokio::test]
async fn hop_by_hop_fields_stay_here_and_the_host_is_the_provider_s() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).with(|e| e.endpoint = "https://tsh.test/1/mg/".into()).ready().await;
    let request = ask("POST", "/cards/1?x=a%20b", "hop-1")
        .header(header::CONNECTION, "x-private")
        .header("x-private", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "gzip")
        .header("proxy-authorization", "Basic c2VjcmV0")
        .header("forwarded", "for=10.1.2.3")
        .header("x-forwarded-for", "10.1.2.3")
        .header("x-real-ip", "10.1.2.3")
        .header("via", "1.1 inner")
        .header("authorization", "Bearer t")
        .header("accept", "application/json");
    let seen = described(&lab, request, full("abc")).await;
    assert_eq!(seen["path"], "/1/mg/cards/1?x=a%20b");
    assert_eq!((&seen["authority"], &seen["scheme"]), (&"tsh.test".into(), &"https".into()));
    assert_eq!(field(&seen, "x-correlation-id"), Some("hop-1"));
    assert_eq!(field(&seen, "authorization"), Some("Bearer t"));
    assert_eq!(field(&seen, "content-length"), Some("3"));
    let gone = "connection x-private keep-alive te proxy-authorization forwarded x-forwarded-for x-real-ip via host \
                transfer-encoding";
    for name in gone.split_whitespace() {
        assert_eq!(field(&seen, name), None, "{name}");
    }
    let line = lab.log_line("hop-1").await.to_string();
    assert!(!line.contains("Bearer") && !line.contains("c2VjcmV0"), "{line}");
}

#[tokio::test]
async fn forwarded_fields_pass_when_asked_for() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).egress("forward_client_headers = true").ready().await;
    let seen = described(&lab, ask("GET", "/", "fwd").header("x-forwarded-for", "10.1.2.3"), empty()).await;
    assert_eq!(field(&seen, "x-forwarded-for"), Some("10.1.2.3"));
}

#[tokio::test]
async fn a_correlation_id_is_made_where_there_is_none() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let request = Request::get(format!("http://{HOST}/")).header("sim-respond", "describe").body(empty());
    let reply: Reply = lab.send(request.unwrap()).await;
    let seen = reply.json();
    let made = field(&seen, "x-correlation-id").unwrap();
    assert_eq!(made.len(), 32);
    assert_eq!(reply.header("x-correlation-id"), made);
    lab.log_line(made).await;
}

#[tokio::test]
async fn the_provider_cannot_speak_in_the_gateway_s_name() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    // The simulator sets no header of that name itself; trailers are the closest it offers.
    let request = ask("POST", "/", "forge-1").header("sim-trailers", "gw-retry-safe=yes,x-sum=1");
    let reply = lab.h2c().await.send(request.body(full("x")).unwrap()).await;
    assert_eq!((reply.status, reply.header("gw-error"), reply.header("gw-retry-safe")), (200, "", ""));
    let trailers = reply.trailers.unwrap();
    assert_eq!(trailers["x-sum"], "1");
    assert!(!trailers.contains_key("gw-retry-safe"), "{trailers:?}");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    let mut connection = lab.h2c().await;
    let (feed, body) = Feed::new();
    let request =
        ask("POST", "/t", "trailers-1").header("te", "trailers").header("sim-respond", "describe").body(body);
    let sending = async {
        feed.send("abc").await;
        feed.trailers([("x-sum".parse().unwrap(), "42".parse().unwrap())].into_iter().collect()).await;
    };
    let (reply, ()) = tokio::join!(connection.send(request.unwrap()), sending);
    assert_eq!(reply.json()["trailers"], serde_json::json!([["x-sum", "42"]]), "{reply:?}");
    let request =
        ask("POST", "/t", "trailers-2").header("sim-trailers", "x-out=7").body(full("abc")).unwrap();
    let reply = connection.send(request).await;
    assert_eq!(reply.trailers.unwrap()["x-out"], "7");
}

#[tokio::test]
async fn an_early_response_arrives_while_the_body_is_still_being_sent() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for version in ["h1", "h2c"] {
        let id = format!("early-{version}");
        let (feed, body) = Feed::new();
        let request = ask("POST", "/", &id).header("sim-early", "1").header("sim-body-bytes", "5");
        let request = request.body(body).unwrap();
        let reply = if version == "h1" {
            let mut connection = lab.http1().await;
            let response = within("an early response", connection.open(request)).await.unwrap();
            Reply::read(response).await
        } else {
            lab.h2c().await.send(request).await
        };
        assert_eq!((reply.status, reply.body.len(), reply.cut), (200, 5, None), "{version}");
        drop(feed);
        assert_eq!(lab.log_line(&id).await["outcome"], "ok");
    }
}

#[tokio::test]
async fn a_response_header_of_many_kinds_and_sizes_passes() {
    let provider = Provider::start().await;
    let lab = Plan::at(&provider).ready().await;
    for (name, value, length) in
        [("sim-empty-frames", "30", 4), ("sim-frame-bytes", "1", 4), ("sim-header-bytes", "20000", 4)]
    {
        let reply = lab.send(ask("POST", "/", name).header(name, value).body(full("abcd")).unwrap()).await;
        assert_eq!((reply.status, reply.body.len()), (200, length), "{name}");
    }
    let reply = lab.send(ask("GET", "/", "status").header("sim-status", "418").body(empty()).unwrap()).await;
    assert_eq!((reply.status, reply.header("gw-error")), (418, ""), "a provider's 4xx is its own word");
    assert_eq!(lab.metrics().await.outcomes("4xx"), 1);
}
