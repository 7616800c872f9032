//! The ledger agrees with what a client saw, and everything is back at zero at rest.

use bytes::Bytes;
use provider_sim::Behaviour;

use crate::support::{World, post, read};

#[tokio::test]
async fn all_gauges_return_to_zero() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    let pending: Vec<_> =
        (0..50).map(|_| client.start(post("/").body(()).unwrap(), Bytes::from_static(b"x"))).collect();
    for (n, response) in pending.into_iter().enumerate() {
        if n % 3 == 0 {
            drop(response);
        } else {
            read(response.await.unwrap()).await.unwrap();
        }
    }
    drop(client.send);
    client.driver.await.unwrap().unwrap();
    while world.simulator.ledger().connections_open > 0 {
        tokio::task::yield_now().await;
    }
    let ledger = world.simulator.ledger();
    assert_eq!((ledger.streams_open, ledger.connections_accepted), (0, 1));
    assert!(ledger.peak_streams <= 50);
}

#[tokio::test]
async fn a_request_sent_twice_is_a_duplicate() {
    let world = World::new(Behaviour::default()).await;
    let client = world.http2().await;
    for id in ["once", "twice", "twice"] {
        client.call(post("/").header("x-correlation-id", id).body(()).unwrap(), b"").await.unwrap();
    }
    assert_eq!(world.simulator.duplicated(), ["twice"]);
    assert_eq!((world.simulator.seen("once"), world.simulator.seen("never")), (1, 0));
}

#[test]
fn secrets_stay_out_of_debug_and_files_are_private() {
    let pki = provider_sim::Pki::generate(provider_sim::PkiOptions::default()).unwrap();
    let client = pki.issue_client(provider_sim::ClientSpec::default()).unwrap();
    let secret = client.key_pem.lines().nth(1).unwrap();
    assert!(!format!("{client:?} {pki:?}").contains(secret));

    let dir = tempfile::tempdir().unwrap();
    provider_sim::write_assets(dir.path(), &pki, &client).unwrap();
    let anchors = std::fs::read_to_string(dir.path().join("TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem")).unwrap();
    assert_eq!(anchors, pki.anchors_pem());
    let key = dir.path().join("CUSTOMER_TLS_CLIENT_CERTIFICATE.key");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), client.key_pem);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let missing = provider_sim::write_assets(&dir.path().join("nowhere"), &pki, &client).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
}
