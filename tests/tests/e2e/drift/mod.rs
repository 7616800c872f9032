//! A provider that changes while the gateway runs: each change is listed once, counted once and logged once.

mod watch;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use provider_sim::{Behaviour, GoAwayForm, HttpVersions, KeyExchange, Resumption, Rotation, TlsVersions};
use tokio::task::JoinHandle;
use tsh_tests::{Http1, NameServer, Provider, caller::ask, empty, names::PROVIDER_NAME};

use watch::Watch;

#[tokio::test]
async fn another_tls_version() {
    let watch = Watch::start("drift-tls").await;
    watch.provider.behave(|b| b.tls = TlsVersions::Tls12Only);
    watch.renew().await;
    let change = watch.told_once_for_all("tls_version", "warning").await;
    assert_eq!(change["sentence"], "tls_version 1.3 -> 1.2");
}

#[tokio::test]
async fn another_key_exchange() {
    let watch = Watch::start("drift-group").await;
    watch.provider.behave(|b| b.key_exchange = KeyExchange::Classical);
    // What a resumed handshake says of its group is not compared.
    watch.provider.sim.forget_sessions().unwrap();
    watch.renew().await;
    let change = watch.told_once("key_exchange", "warning").await;
    assert_eq!((&change["from"], &change["to"]), (&"X25519MLKEM768".into(), &"X25519".into()), "{change}");
    assert_eq!(watch.told(), ["key_exchange"]);
}

#[tokio::test]
async fn another_certificate_of_the_same_authority() {
    let watch = Watch::start("drift-leaf").await;
    watch.provider.sim.rotate_certificate(Rotation::Leaf).unwrap();
    watch.renew().await;
    let change = watch.told_once("leaf", "notice").await;
    assert_ne!(change["from"], change["to"]);
    assert_eq!(watch.told(), ["leaf"], "the issuer is the same");
}

#[tokio::test]
async fn another_authority_that_is_trusted_too() {
    let provider = Provider::start().await;
    let next = Arc::new(provider.pki.replaced().unwrap());
    let anchors = provider.pki.anchors_pem() + &next.anchors_pem();
    let watch =
        Watch::over("drift-issuer", provider, |plan| plan.with(|environment| environment.anchors = anchors))
            .await;
    watch.provider.sim.set_pki(next).unwrap();
    watch.renew().await;
    watch.told_once("anchor", "warning").await;
    watch.told_once("issuer", "warning").await;
    watch.told_once("leaf", "notice").await;
    assert_eq!(watch.told(), ["anchor", "issuer", "leaf"]);
}

#[tokio::test]
async fn another_protocol() {
    let watch = Watch::start("drift-alpn").await;
    watch.provider.behave(|b| b.http = HttpVersions::Http11Only);
    watch.renew().await;
    let change = watch.told_once("alpn", "warning").await;
    assert_eq!(change["sentence"], "alpn h2 -> http/1.1");
    assert_eq!(watch.told(), ["alpn"]);
    watch.renew().await;
    // HTTP/1.1 knows no GOAWAY.
    let change = watch.told_once("farewell", "notice").await;
    assert_eq!(change["sentence"], "farewell goaway -> close");
    watch.told_once("alpn", "warning").await;
}

#[tokio::test]
async fn tickets_that_are_not_sent_any_more() {
    let watch = Watch::start("drift-tickets").await;
    watch.provider.behave(|b| b.tickets = 0);
    // Tickets follow full handshakes only.
    watch.provider.sim.forget_sessions().unwrap();
    watch.renew().await;
    let change = watch.told_once("tickets", "warning").await;
    assert_eq!(change["sentence"], "tickets 2 -> 0");
}

#[tokio::test]
async fn tickets_that_are_not_taken_any_more() {
    let watch = Watch::start("drift-resumption").await;
    watch.renew().await;
    assert!(watch.lab.total(watch.environment, "handshakes_resumed").await > 0);
    watch.provider.behave(|b| b.resumption = Resumption::Refuse);
    watch.renew().await;
    let change = watch.told_once_for_all("resumption", "warning").await;
    assert_eq!(change["sentence"], "resumption accepted -> refused");
    assert_eq!(watch.told(), ["resumption"]);
}

async fn another_address() {
    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let provider = Provider::also_at(&[AWAY], Behaviour::default()).await;
    let names = NameServer::start(&[HOME]).await;
    let connect = format!("{PROVIDER_NAME}:{}", provider.sim.addr().port());
    let servers = format!("[dns]\nservers = [\"{}\"]", names.address());
    let watch = Watch::over("drift-address", provider, |plan| {
        plan.with(|environment| environment.connect = connect).section(&servers)
    })
    .await;
    names.say(&[AWAY]);
    let change = watch.told_once("address", "notice").await;
    assert_eq!(change["sentence"], "address 127.0.0.1 -> 127.0.0.2");
    assert_eq!(watch.told(), ["address"]);
}

#[tokio::test]
async fn another_way_to_say_goodbye() {
    let watch = Watch::start("drift-farewell").await;
    watch.renew_under_a_request("one").await;
    watch.provider.behave(|b| b.goaway_form = GoAwayForm::TwoPhase);
    watch.renew_under_a_request("two").await;
    let change = watch.told_once("farewell", "notice").await;
    assert_eq!(change["sentence"], "farewell goaway -> goaway twice");
    watch.renew_under_a_request("three").await;
    assert_eq!(watch.told_once("farewell", "notice").await, change);
    assert_eq!(watch.told(), ["farewell"]);
}

#[tokio::test]
async fn a_number_of_requests_after_which_connections_end() {
    let watch = Watch::start("drift-requests").await;
    watch.provider.behave(|b| b.goaway_after_requests = Some(20));
    let requests = requests(&watch, |_| 0);
    let change = watch.told_once("enforced_requests", "warning").await;
    requests.abort();
    assert_eq!(change["sentence"], "enforced_requests none -> 20");
    assert_eq!(watch.told(), ["enforced_requests"]);
}

async fn an_age_at_which_connections_end() {
    let age = Some(Duration::from_millis(2200));
    let provider = Provider::with(Behaviour { goaway_after: age, ..Behaviour::default() }).await;
    let watch = Watch::over("drift-age", provider, |plan| plan).await;
    // Connections of one age that carry very different numbers of requests: it is the age that they have in common.
    let requests = requests(&watch, |connection| if connection.is_multiple_of(2) { 100 } else { 10 });
    let change = watch.told_once("enforced_age", "warning").await;
    requests.abort();
    assert_eq!(change["from"], "none");
    assert!(change["to"].as_str().unwrap().starts_with("2."), "{change}");
    assert_eq!(watch.told(), ["enforced_age"]);
}

async fn an_idle_time_after_which_connections_end() {
    let idle = Some(Duration::from_millis(1500));
    let provider = Provider::with(Behaviour { goaway_after_idle: idle, ..Behaviour::default() }).await;
    let watch = Watch::over("drift-idle", provider, |plan| plan).await;
    let change = watch.told_once("enforced_idle", "warning").await;
    assert_eq!(change["from"], "none");
    assert!(change["to"].as_str().unwrap().starts_with("1."), "{change}");
    assert_eq!(watch.told(), ["enforced_idle"]);
}

/// Each of them waits for a clock: side by side.
#[tokio::test]
async fn another_address_and_limits_on_age_and_idleness() {
    tokio::join!(
        another_address(),
        an_age_at_which_connections_end(),
        an_idle_time_after_which_connections_end()
    );
}

/// Requests one after another, until aborted. `delay` says how many milliseconds the provider takes, by the number
/// that it gave to the connection of the request before.
fn requests(watch: &Watch, delay: fn(u64) -> u64) -> JoinHandle<()> {
    let address = watch.lab.egress();
    tokio::spawn(async move {
        let mut caller = Http1::connect(address).await;
        let mut connection = 0;
        for n in 0.. {
            let request = ask("GET", "/", &format!("load-{n}")).header("sim-delay-ms", delay(connection));
            let reply = caller.send(request.body(empty()).expect("a request")).await;
            connection = reply.header("sim-connection").parse().unwrap_or(connection);
            if !caller.is_open().await {
                caller = Http1::connect(address).await;
            }
        }
    })
}
