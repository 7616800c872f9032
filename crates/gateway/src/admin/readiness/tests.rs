//! Tests of readiness.

use super::*;
use crate::telemetry::{Quarantined, testing::FakeView};

fn two() -> (Arc<FakeView>, Arc<FakeView>, Arc<Readiness>) {
    let required = FakeView::new("production", Requirement::Required);
    let optional = FakeView::new("sandbox", Requirement::Optional);
    let views: [Arc<dyn PoolView>; 2] = [required.clone(), optional.clone()];
    (required, optional, Readiness::new(views))
}

#[test]
fn ready_once_the_floors_of_required_environments_were_met_and_then_for_good() {
    let (production, _sandbox, readiness) = two();
    assert!(!readiness.overall().ready);
    production.serve();
    assert!(readiness.overall().ready, "an optional environment is not waited for");
    production.fail("connection_refused");
    assert!(readiness.overall().ready, "it latches");
}

#[test]
fn a_floor_met_between_two_questions_counts() {
    let (production, _sandbox, readiness) = two();
    production.serve();
    readiness.refresh();
    production.fail("connection_refused");
    assert!(readiness.overall().ready);
}

#[test]
fn one_environment_can_be_asked_for_by_name() {
    let (production, sandbox, readiness) = two();
    production.serve();
    assert!(readiness.environment("production").unwrap().ready);
    assert!(!readiness.environment("sandbox").unwrap().ready);
    sandbox.serve();
    assert!(readiness.environment("sandbox").unwrap().ready);
    assert!(readiness.environment("staging").is_none());
}

#[test]
fn the_reasons_say_what_is_waited_for() {
    let (production, _sandbox, readiness) = two();
    let reason = |readiness: &Readiness| readiness.overall().reasons.remove(0);
    assert_eq!(reason(&readiness).code, "floor_not_met");
    assert_eq!(reason(&readiness).message, "0 of 2 connections serve");
    production.fail("unknown_ca");
    assert_eq!(reason(&readiness).code, "unknown_ca");
    assert!(reason(&readiness).message.contains("nobody there"));
    production
        .quarantine(Quarantined { code: ErrorCode::CertificateExpired, message: "renew it".to_owned() });
    assert_eq!(reason(&readiness).code, "certificate_expired");
    assert_eq!(reason(&readiness).environment, "production");
}

#[test]
fn a_stop_makes_everything_unready_at_once() {
    let (production, _sandbox, readiness) = two();
    production.serve();
    assert!(readiness.overall().ready);
    readiness.stop();
    assert_eq!(readiness.overall().reasons[0].code, "stopping");
    assert!(!readiness.environment("production").unwrap().ready);
    assert!(readiness.serving().all(|(_, serving)| !serving));
}

#[test]
fn serving_follows_the_present_and_not_the_latch() {
    let (production, _sandbox, readiness) = two();
    let serving =
        |readiness: &Readiness| readiness.serving().find(|(name, _)| *name == "production").unwrap().1;
    assert!(!serving(&readiness));
    production.serve();
    assert!(serving(&readiness));
    production.fail("connection_refused");
    assert!(!serving(&readiness));
}
