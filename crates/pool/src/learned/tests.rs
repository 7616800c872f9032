//! Limits are learned from agreeing ends only, and unlearned when outlived.

use super::*;

const RETEST: Duration = Duration::from_secs(600);

struct Provider {
    learned: Learned,
    now: Instant,
}

impl Provider {
    fn new() -> Self {
        Self { learned: Learned::new(RETEST), now: Instant::now() }
    }

    /// A busy connection ends `after` the last one.
    fn ends(&mut self, after: u64, requests: u64, age_s: u64) -> bool {
        self.now += Duration::from_secs(after);
        let age = Duration::from_secs(age_s);
        self.learned.note(Sample { at: self.now, requests, uncertain: 0, age, idle: None, orderly: true })
            != Noted::Nothing
    }

    /// Connections of these ages end in order, a moment apart, and the newest was in use.
    fn ends_together(&mut self, ages_ms: &[u64]) -> Noted {
        let mut noted = Noted::Nothing;
        for (n, age) in ages_ms.iter().enumerate() {
            self.now += Duration::from_millis(20);
            let age = Duration::from_millis(*age);
            let idle = (n + 1 < ages_ms.len()).then_some(age);
            let requests = 100 + 37 * n as u64;
            let sample = Sample { at: self.now, requests, uncertain: 0, age, idle, orderly: true };
            noted = self.learned.note(sample);
        }
        noted
    }

    fn ends_idle(&mut self, after: u64, idle_s: u64) -> bool {
        self.now += Duration::from_secs(after);
        let idle = Some(Duration::from_secs(idle_s));
        let age = Duration::from_secs(idle_s * 3);
        self.learned.note(Sample {
            at: self.now,
            requests: 17 * after,
            uncertain: 0,
            age,
            idle,
            orderly: true,
        }) != Noted::Nothing
    }
}

#[test]
fn two_ends_at_exactly_the_same_count_are_a_limit() {
    let mut p = Provider::new();
    assert!(!p.ends(0, 200, 3));
    assert!(p.ends(1, 200, 9));
    assert_eq!(p.learned.limits(), LearnedLimits { requests: Some(200), ..Default::default() });
}

#[test]
fn three_ends_at_about_the_same_count_are_a_limit_and_the_least_counts() {
    let mut p = Provider::new();
    p.ends(0, 1003, 3);
    assert!(!p.ends(1, 1000, 9));
    assert!(p.ends(1, 1010, 30));
    assert_eq!(p.learned.limits().requests, Some(1000));
}

#[test]
fn ends_that_have_nothing_in_common_teach_nothing() {
    let mut p = Provider::new();
    for (requests, age) in [(17, 3), (2000, 70), (400, 9), (90, 33), (1, 1), (750, 20)] {
        assert!(!p.ends(5, requests, age));
    }
    assert!(p.learned.limits().is_empty());
    assert_eq!(p.learned.retest_at(), None);
}

#[test]
fn equal_ages_are_a_limit_when_the_counts_differ() {
    let mut p = Provider::new();
    p.ends(0, 5000, 60);
    p.ends(20, 900, 61);
    assert!(p.ends(20, 12000, 60));
    let limits = p.learned.limits();
    assert_eq!((limits.requests, limits.age), (None, Some(Duration::from_secs(60))));
}

#[test]
fn connections_of_different_ages_that_end_together_are_one_event() {
    let mut p = Provider::new();
    for (requests, age) in [(100, 60), (300, 64), (700, 90), (50, 60)] {
        // A restart, or a break of the network.
        p.ends(0, requests, age);
    }
    assert!(p.learned.limits().is_empty());
}

/// A provider of HTTP/1.1 that restarts closes every idle connection; most of them carried few requests, and many the
/// same number, or about.
#[test]
fn idle_connections_that_a_restart_closes_teach_no_limit_on_requests() {
    let mut p = Provider::new();
    for requests in [5, 6, 5, 5, 7, 6, 12, 13, 12] {
        p.ends(0, requests, 20);
    }
    assert_eq!(p.learned.limits().requests, None);
}

#[test]
fn one_common_end_of_connections_of_one_age_is_acted_on_and_tested_at_once() {
    let mut p = Provider::new();
    assert_eq!(p.ends_together(&[60_000]), Noted::Nothing, "one alone says nothing");
    let mut p = Provider::new();
    assert_eq!(p.ends_together(&[60_000, 60_030]), Noted::Suspected);
    assert_eq!(p.learned.limits().age, Some(Duration::from_secs(60)));
    assert!(p.learned.retest_due(p.now), "it may have been an accident");
    p.learned.begin_test(p.now + Duration::from_secs(50));
    assert!(!p.learned.retest_due(p.now + Duration::from_secs(51)), "one test at a time");
}

#[test]
fn a_suspected_age_is_confirmed_by_the_connection_that_tests_it() {
    let mut p = Provider::new();
    p.ends_together(&[60_000, 60_030, 60_010]);
    p.learned.begin_test(p.now + Duration::from_secs(50));
    p.now += Duration::from_secs(60);
    assert_eq!(p.ends_together(&[60_020]), Noted::Learned);
    assert!(!p.learned.retest_due(p.now) && p.learned.retest_due(p.now + RETEST));
}

#[test]
fn a_suspected_age_is_dropped_by_the_connection_that_outlives_it() {
    let mut p = Provider::new();
    p.ends_together(&[60_000, 60_030]);
    assert!(!p.learned.outlived(0, Duration::from_secs(74), Duration::ZERO));
    assert!(p.learned.outlived(0, Duration::from_secs(76), Duration::ZERO));
    assert!(p.learned.limits().is_empty());
    assert!(!p.learned.retest_due(p.now + RETEST));
}

#[test]
fn an_event_that_also_ends_connections_of_another_age_was_an_accident() {
    for ages in [&[60_000, 60_030, 9_000][..], &[9_000, 60_000, 60_030], &[60_000, 9_000, 60_030]] {
        let mut p = Provider::new();
        p.ends_together(ages);
        assert!(p.learned.limits().is_empty(), "{ages:?}");
    }
}

#[test]
fn what_broke_or_was_idle_since_it_was_born_is_no_common_age() {
    let age = Duration::from_secs(60);
    for (idle, orderly) in [(None, false), (Some(age), true)] {
        let mut p = Provider::new();
        for requests in [3, 900] {
            p.learned.note(Sample { at: p.now, requests, uncertain: 0, age, idle, orderly });
        }
        assert!(p.learned.limits().is_empty(), "{idle:?} {orderly}");
    }
}

#[test]
fn under_a_steady_rate_the_tighter_fit_is_the_rule() {
    let mut p = Provider::new();
    p.ends(0, 1000, 60);
    p.ends(30, 1000, 62);
    p.ends(30, 1000, 61);
    let limits = p.learned.limits();
    assert_eq!((limits.requests, limits.age), (Some(1000), None));
}

#[test]
fn idle_closes_are_learned_apart_from_the_rest() {
    let mut p = Provider::new();
    p.ends_idle(0, 60);
    p.ends_idle(33, 60);
    assert!(p.ends_idle(47, 60));
    let limits = p.learned.limits();
    assert_eq!((limits.requests, limits.age, limits.idle), (None, None, Some(Duration::from_secs(60))));
}

#[test]
fn a_limit_that_became_stricter_is_learned_anew() {
    let mut p = Provider::new();
    p.ends(0, 200, 3);
    p.ends(1, 200, 9);
    p.ends(1, 100, 4);
    assert!(p.ends(1, 100, 7));
    assert_eq!(p.learned.limits().requests, Some(100));
}

#[test]
fn a_limit_is_put_to_the_test_and_dropped_when_outlived() {
    let mut p = Provider::new();
    p.ends(0, 200, 3);
    p.ends(1, 200, 9);
    assert!(!p.learned.retest_due(p.now));
    let later = p.now + RETEST;
    assert!(p.learned.retest_due(later));
    p.learned.begin_test(later);
    assert!(!p.learned.retest_due(later));
    let age = Duration::from_secs(100);
    assert!(!p.learned.outlived(250, age, Duration::ZERO), "a quarter more must be seen");
    assert!(p.learned.outlived(259, age, Duration::ZERO));
    assert!(p.learned.limits().is_empty());
    assert!(!p.ends(1, 200, 9), "it must be seen twice again");
}

#[test]
fn tiny_limits_and_short_ages_are_failures_not_rules() {
    let mut p = Provider::new();
    for _ in 0..5 {
        p.ends(1, 1, 1);
    }
    assert!(p.learned.limits().is_empty());
}
