//! The application health request over HTTP/1.1: only a refused certificate fails a dial by it. Where
//! it is answered badly, slowly or not at all, connections are proven otherwise and serve, and the checks over the pool
//! decide.

use std::sync::atomic::{AtomicU32, Ordering};

use pool::{BreakerState, DialFailureStatus, Health, HealthCheck, Proof};

use crate::support::*;

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

/// How the health endpoint behaves; everything else is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Answers(&'static str),
    /// Never.
    Silent,
    /// Closes without a word.
    Closes,
    /// Says that it closes, and does.
    AnswersAndCloses,
}

/// The provider, and how often its health endpoint was asked.
async fn with(endpoint: Endpoint) -> (u16, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    let port = raw("http/1.1", move |mut tls| {
        let counter = counter.clone();
        async move {
            while let Some((head, body)) = read_whole(&mut tls, PATIENT).await {
                if !head.starts_with("get /health ") {
                    answer(&mut tls, &body).await;
                    continue;
                }
                counter.fetch_add(1, Ordering::Relaxed);
                if !answer_health(&mut tls, endpoint).await {
                    return;
                }
            }
        }
    })
    .await;
    (port, asked)
}

/// Whether the connection goes on.
async fn answer_health(tls: &mut Tls, endpoint: Endpoint) -> bool {
    let with = async |tls: &mut Tls, head: &str| {
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: 4\r\n\r\nwell");
        let _ = tls.write_all(head.as_bytes()).await;
        let _ = tls.flush().await;
    };
    match endpoint {
        Endpoint::Answers(status) => {
            with(tls, status).await;
            true
        }
        Endpoint::Silent => {
            // Until the asker leaves.
            let _ = tls.read_u8().await;
            false
        }
        Endpoint::Closes => false,
        Endpoint::AnswersAndCloses => {
            with(tls, "200 OK\r\nconnection: close").await;
            let _ = tls.shutdown().await;
            false
        }
    }
}

fn check(interval: Duration) -> Option<HealthCheck> {
    let timeout = Duration::from_millis(300);
    Some(HealthCheck { interval, timeout, ..HealthCheck::get("/health".parse().unwrap()) })
}

fn last_failure(pool: &Pool) -> Option<DialFailureStatus> {
    pool.status().last_failure
}

#[tokio::test]
async fn a_sick_slow_or_closing_health_endpoint_keeps_no_http11_connection_from_serving() {
    for (endpoint, proof) in [
        (Endpoint::Answers("200 OK"), Proof::HealthRequest),
        (Endpoint::Answers("503 Service Unavailable"), Proof::Ticket),
        (Endpoint::Silent, Proof::Ticket),
        (Endpoint::Closes, Proof::Ticket),
        (Endpoint::AnswersAndCloses, Proof::Ticket),
    ] {
        let (port, asked) = with(endpoint).await;
        let a = client("CUSTOMER-0001-SBX");
        let config = PoolConfig { health: check(PATIENT), ..config(3, 3) };
        let pool = start_at(port, generation(1, &a), config, Timeouts::default());
        in_the_end("the floor is met", pool.warm()).await;
        for _ in 0..3 {
            exchange(&pool, get()).await.unwrap_or_else(|e| panic!("{endpoint:?}: {e:?}"));
        }
        let status = pool.status();
        assert!(status.connections.iter().all(|c| c.proof == Some(proof)), "{endpoint:?}: {status:?}");
        assert_eq!(status.breaker.state, BreakerState::Closed, "{endpoint:?}: no dial is held back");
        assert!(last_failure(&pool).is_none(), "{endpoint:?}: {:?}", last_failure(&pool));
        assert!((1..=3).contains(&asked.load(Ordering::Relaxed)), "{endpoint:?}: asked at each dial");
    }
}

#[tokio::test]
async fn without_tickets_a_quiet_window_proves_what_the_health_request_does_not() {
    let a = client("CUSTOMER-0001-SBX");
    let sick = provider_sim::Respond::Fixed { status: 503, body_bytes: 4 };
    let tls = provider_sim::TlsVersions::Tls13Only;
    let sim = provider(Behaviour { respond: sick, tickets: 0, tls, ..http11() }, &[&a]).await;
    let config = PoolConfig { health: check(PATIENT), ..config(1, 1) };
    let pool = start(&sim, generation(1, &a), config, Timeouts::default());
    warm(&pool).await;
    assert_eq!(pool.status().connections[0].proof, Some(Proof::QuietWindow));
}

#[tokio::test]
async fn a_connection_that_the_question_cost_is_not_asked_again_until_it_is_answered() {
    let (port, asked) = with(Endpoint::Closes).await;
    let a = client("CUSTOMER-0001-SBX");
    let config = PoolConfig { health: check(PATIENT), max_age: Duration::from_millis(300), ..config(1, 2) };
    let pool = start_at(port, generation(1, &a), config, Timeouts::default());
    in_the_end("the floor is met", pool.warm()).await;
    let lost = pool.status().totals.dials_failed;
    assert_eq!((lost, asked.load(Ordering::Relaxed)), (1, 1), "the first was lost by it, and is counted");
    let replaced = async {
        while pool.status().totals.connections < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_the_end("others take its place", replaced).await;
    assert_eq!(pool.status().totals.dials_failed, lost, "their successors were not asked");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_slow_or_closing_health_endpoint_counts_as_unhealthy_over_http11() {
    for endpoint in [Endpoint::Answers("503 Service Unavailable"), Endpoint::Silent, Endpoint::Closes] {
        let (port, _) = with(endpoint).await;
        let a = client("CUSTOMER-0001-SBX");
        let config = PoolConfig { health: check(Duration::from_millis(50)), ..config(2, 2) };
        let pool = start_at(port, generation(1, &a), config, Timeouts::default());
        let refuses = async {
            while !pool.status().breaker.refuses_requests {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_the_end("the breaker refuses requests", refuses).await;
        assert!(matches!(pool.status().health, Some(Health::Unhealthy { .. })), "{endpoint:?}");
        let error = exchange(&pool, get()).await.unwrap_err();
        let SendErrorKind::Unavailable(cause) = &error.kind else { panic!("{endpoint:?}: {error:?}") };
        assert_eq!((cause.code(), error.retry_safe), ("provider_unhealthy", RetrySafe::Yes), "{endpoint:?}");
    }
}

#[tokio::test]
async fn a_certificate_refused_late_is_an_identity_fault_with_a_health_request_too() {
    let a = client("CUSTOMER-0001-SBX");
    for tickets in [0, 2] {
        let client_auth = provider_sim::ClientAuth::RefuseLate;
        let tls = provider_sim::TlsVersions::Tls13Only;
        let sim = provider(Behaviour { client_auth, tickets, tls, ..http11() }, &[&a]).await;
        let config = PoolConfig { health: check(PATIENT), ..config(1, 1) };
        let pool = start(&sim, generation(1, &a), config, Timeouts::default());
        let error = exchange(&pool, get()).await.unwrap_err();
        let SendErrorKind::Unavailable(cause) = &error.kind else { panic!("{error:?}") };
        assert!(cause.is_identity_fault(), "{tickets} tickets: {cause}");
        assert_eq!(sim.ledger().requests, 0, "it was never asked");
    }
}
