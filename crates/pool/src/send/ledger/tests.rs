//! The ledger through random fates: the rules hold whatever the provider does.

use proptest::prelude::*;

use super::*;

/// One attempt's fate: how it failed, and whether the body is still whole afterwards.
#[derive(Clone, Copy, Debug)]
struct Fate {
    verdict: Verdict,
    cause: Cause,
    lets_go: bool,
    affordable: bool,
}

fn fate() -> impl Strategy<Value = Fate> {
    let verdict = proptest::sample::select(Verdict::ALL.to_vec());
    // Mostly the provider's doing, so that requests live long.
    let cause = prop_oneof![12 => Just(Cause::Provider), 1 => Just(Cause::Clock), 1 => Just(Cause::Caller)];
    (verdict, cause, prop::bool::weighted(0.1), any::<bool>())
        .prop_map(|(verdict, cause, lets_go, affordable)| Fate { verdict, cause, lets_go, affordable })
}

fn policy() -> impl Strategy<Value = RetryPolicy> {
    proptest::sample::select(vec![RetryPolicy::Unprocessed, RetryPolicy::Idempotent, RetryPolicy::Never])
}

fn trust() -> impl Strategy<Value = LastStreamId> {
    proptest::sample::select(vec![LastStreamId::Trusted, LastStreamId::DistrustedUnlessIdempotent])
}

proptest! {
    #[test]
    fn a_request_is_sent_at_most_three_times_and_never_again_without_leave(
        fates in prop::collection::vec(fate(), 1..64),
        policy in policy(),
        last_stream_id in trust(),
        post in any::<bool>(),
    ) {
        let method = if post { Method::POST } else { Method::DELETE };
        let terms = Terms { policy, last_stream_id, method: &method };
        let mut ledger = Ledger::default();
        let mut body = BodyHeld::Whole;
        let (mut sent, mut doubted, mut leases) = (0u32, false, 0u32);
        for fate in fates {
            ledger.begin();
            leases += 1;
            prop_assert!(leases <= u32::from(MAX_ATTEMPTS) + u32::from(MAX_UNSENT));
            let honest = fate.verdict.under(last_stream_id, &method);
            sent += u32::from(honest != Verdict::NotSent);
            prop_assert!(sent <= u32::from(MAX_ATTEMPTS));
            if fate.lets_go {
                body = BodyHeld::Gone;
            }
            let may_have_acted = !honest.is_unprocessed();
            let mut charged = false;
            let failed = Failed { verdict: fate.verdict, cause: fate.cause, body };
            let ruling = ledger.rule(failed, terms, || { charged = true; fate.affordable });
            prop_assert!(!charged || may_have_acted, "a provably unprocessed replay is never charged");
            match ruling {
                Ruling::LeaseAnew => {
                    prop_assert_eq!(honest, Verdict::NotSent);
                    prop_assert_eq!(body, BodyHeld::Whole);
                }
                Ruling::Replay => {
                    prop_assert_eq!(body, BodyHeld::Whole, "a body that was let go cannot be sent again");
                    prop_assert_eq!(fate.cause, Cause::Provider);
                    prop_assert_ne!(policy, RetryPolicy::Never);
                    if may_have_acted {
                        prop_assert!(policy == RetryPolicy::Idempotent && method.is_idempotent());
                        prop_assert!(charged && fate.affordable, "beyond the budget");
                        doubted = true;
                    }
                }
                Ruling::Report(report) => {
                    prop_assert!(!doubted || report.retry_safe == RetrySafe::Unknown, "doubt never goes away");
                    if may_have_acted || doubted {
                        prop_assert_ne!(report.retry_safe, RetrySafe::Yes);
                        prop_assert_eq!(report.loss, Loss::None);
                    }
                    prop_assert_eq!(report.denied == Denied::ByBudget, charged && !fate.affordable);
                    return Ok(());
                }
            }
        }
    }

    #[test]
    fn what_is_provably_unprocessed_and_held_fails_only_as_a_loss(
        verdicts in prop::collection::vec(
            proptest::sample::select(vec![Verdict::NotSent, Verdict::Refused, Verdict::AboveGoaway]), 20..40),
    ) {
        let method = Method::POST;
        let terms = Terms {
            policy: RetryPolicy::Unprocessed, last_stream_id: LastStreamId::Trusted, method: &method,
        };
        let mut ledger = Ledger::default();
        for verdict in verdicts {
            ledger.begin();
            let failed = Failed { verdict, cause: Cause::Provider, body: BodyHeld::Whole };
            if let Ruling::Report(report) = ledger.rule(failed, terms, || false) {
                prop_assert_eq!(report.loss, Loss::Unprocessed);
                prop_assert_eq!(report.retry_safe, RetrySafe::Yes);
                return Ok(());
            }
        }
        prop_assert!(false, "it must end");
    }
}

#[test]
fn a_replay_that_finds_no_stream_is_a_loss_only_where_a_pool_could_have_done_better() {
    let method = Method::POST;
    let terms =
        Terms { policy: RetryPolicy::Unprocessed, last_stream_id: LastStreamId::Trusted, method: &method };
    let mut ledger = Ledger::default();
    assert_eq!(ledger.starve(Starved::Queue).loss, Loss::None, "no attempt was made yet");
    ledger.begin();
    let failed = Failed { verdict: Verdict::AboveGoaway, cause: Cause::Provider, body: BodyHeld::Whole };
    assert_eq!(ledger.rule(failed, terms, || false), Ruling::Replay);
    assert_eq!(ledger.starve(Starved::Beyond).loss, Loss::None);
    assert_eq!(ledger.starve(Starved::Queue).loss, Loss::Unprocessed);
}

#[test]
fn a_last_stream_id_that_is_not_trusted_proves_nothing_for_calls_that_are_not_idempotent() {
    let failed = Failed { verdict: Verdict::AboveGoaway, cause: Cause::Provider, body: BodyHeld::Whole };
    for (method, expected) in [(Method::POST, false), (Method::PUT, true)] {
        let terms = Terms {
            policy: RetryPolicy::Unprocessed,
            last_stream_id: LastStreamId::DistrustedUnlessIdempotent,
            method: &method,
        };
        let mut ledger = Ledger::default();
        ledger.begin();
        assert_eq!(ledger.rule(failed, terms, || false) == Ruling::Replay, expected, "{method}");
    }
}
