//! The rules about one name, with time given by hand.

use super::*;

const NONE: [IpAddr; 0] = [];
const TTL: Duration = Duration::from_secs(60);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn answer(ttl: Duration, addresses: &[&str]) -> Result<Answer, ResolveError> {
    Ok(Answer { addresses: addresses.iter().map(|a| ip(a)).collect(), ttl, silent: None })
}

fn failed() -> Result<Answer, ResolveError> {
    Err(ResolveError::Failed { detail: "request timed out".to_owned() })
}

fn order(answers: &Answers, now: Instant, in_use: &[(&str, u32)]) -> Vec<String> {
    let used = |a: IpAddr| in_use.iter().find(|(name, _)| ip(name) == a).map_or(0, |(_, n)| *n);
    answers.candidates(now, used).iter().map(IpAddr::to_string).collect()
}

#[test]
fn an_answer_is_used_for_its_ttl_and_no_longer() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    assert_eq!(answers.demand(now), Demand::Wait);
    assert_eq!(answers.ask_at(), None, "at once");
    answers.note(now, answer(TTL, &["192.0.2.1"]));
    assert_eq!(answers.demand(now + TTL - Duration::from_nanos(1)), Demand::Use);
    assert_eq!(answers.demand(now + TTL), Demand::WaitBriefly);
    assert_eq!(answers.ask_at(), Some(now + TTL));
    assert_eq!(answers.valid_for(now + TTL / 2), Some(TTL / 2));
}

#[test]
fn ttl_zero_asks_for_each_dial_but_at_most_once_a_second() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    answers.note(now, answer(Duration::ZERO, &["192.0.2.1"]));
    assert_eq!(answers.demand(now + Duration::from_millis(999)), Demand::Use);
    assert_eq!(answers.demand(now + Duration::from_secs(1)), Demand::WaitBriefly);
}

#[test]
fn an_address_is_gone_after_three_answers_without_it_over_two_ttls() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    answers.note(now, answer(TTL, &["192.0.2.1"]));
    let mut at = now;
    for n in 1..=2 {
        at += TTL;
        assert_eq!(answers.note(at, answer(TTL, &["192.0.2.2"])).gone, NONE);
        assert!(!answers.is_gone(ip("192.0.2.1")), "after {n} answers");
        assert_eq!(order(&answers, at, &[]), ["192.0.2.2"], "but nothing new is dialled there");
    }
    at += TTL;
    assert_eq!(answers.note(at, answer(TTL, &["192.0.2.2"])).gone, [ip("192.0.2.1")]);
    assert!(answers.is_gone(ip("192.0.2.1")));
}

#[test]
fn quick_answers_do_not_make_an_address_gone_before_two_ttls() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    answers.note(now, answer(TTL, &["192.0.2.1"]));
    let first = now + TTL;
    for n in 0..20 {
        let change = answers.note(first + Duration::from_secs(5) * n, answer(TTL, &["192.0.2.2"]));
        assert_eq!(change.gone, NONE, "{n}");
    }
    let change = answers.note(first + TTL * 2, answer(Duration::from_secs(1), &["192.0.2.2"]));
    assert_eq!(change.gone, [ip("192.0.2.1")], "the longest TTL of the row counts");
}

#[test]
fn rotating_subsets_are_never_gone() {
    let (mut answers, mut at) = (Answers::default(), Instant::now());
    let subsets = [["192.0.2.1", "192.0.2.2"], ["192.0.2.3", "192.0.2.4"], ["192.0.2.5", "192.0.2.6"]];
    for turn in 0..30 {
        let change = answers.note(at, answer(TTL, &subsets[turn % 3]));
        assert_eq!(change.gone, NONE, "turn {turn}");
        at += TTL;
    }
    assert_eq!(answers.known().len(), 6);
}

#[test]
fn an_address_that_comes_back_starts_anew() {
    let (mut answers, mut at) = (Answers::default(), Instant::now());
    answers.note(at, answer(TTL, &["192.0.2.1"]));
    for _ in 0..5 {
        for _ in 0..2 {
            at += TTL;
            answers.note(at, answer(TTL, &["192.0.2.2"]));
        }
        at += TTL;
        let change = answers.note(at, answer(TTL, &["192.0.2.1", "192.0.2.2"]));
        assert_eq!((change.came, change.gone), (vec![], vec![]));
    }
    assert!(!answers.is_gone(ip("192.0.2.1")));
}

#[test]
fn the_last_good_answer_outlives_failures() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    answers.note(now, answer(TTL, &["192.0.2.1"]));
    let mut at = now + TTL;
    assert_eq!(answers.note(at, failed()).health, Health::Lost);
    assert_eq!(answers.demand(at), Demand::Use, "asked a moment ago");
    assert_eq!(answers.demand(at + Duration::from_secs(1)), Demand::WaitBriefly);
    for _ in 0..100 {
        at += TTL;
        let no_name = ResolveError::NoAddress { detail: "NXDOMAIN".to_owned(), ttl: TTL };
        assert_eq!(answers.note(at, Err(no_name)), Change::default());
    }
    assert_eq!(order(&answers, at, &[]), ["192.0.2.1"]);
    assert!(!answers.is_gone(ip("192.0.2.1")));
    assert_eq!(answers.failing().map(|(since, _)| since), Some(now + TTL));
    assert_eq!(answers.note(at, answer(TTL, &["192.0.2.1"])).health, Health::Regained);
    assert!(answers.failing().is_none());
}

#[test]
fn failures_are_asked_about_ever_more_rarely_and_negative_answers_soon() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    let mut pauses = Vec::new();
    for _ in 0..6 {
        answers.note(now, failed());
        pauses.push((answers.ask_at().unwrap() - now).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
    for (ttl, pause) in [(0, 1), (3, 3), (86_400, 5)] {
        let error = ResolveError::NoAddress { detail: "NXDOMAIN".into(), ttl: Duration::from_secs(ttl) };
        answers.note(now, Err(error));
        assert_eq!(answers.ask_at(), Some(now + Duration::from_secs(pause)));
    }
    assert_eq!(answers.demand(now), Demand::Refuse("NXDOMAIN".to_owned()));
    assert_eq!(answers.demand(now + Duration::from_secs(5)), Demand::Wait);
}

#[test]
fn a_family_that_was_not_answered_for_is_not_absent() {
    let (mut answers, mut at) = (Answers::default(), Instant::now());
    answers.note(at, answer(TTL, &["2001:db8::1", "192.0.2.1"]));
    for _ in 0..5 {
        at += TTL;
        let half = Answer { addresses: vec![ip("192.0.2.1")], ttl: TTL, silent: Some(Family::V6) };
        assert_eq!(answers.note(at, Ok(half)), Change::default());
    }
    assert_eq!(order(&answers, at, &[]), ["2001:db8::1", "192.0.2.1"]);
}

#[test]
fn families_take_turns_and_the_least_used_goes_first() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"];
    answers.note(now, answer(TTL, &all));
    let turns = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"];
    assert_eq!(order(&answers, now, &[]), turns);
    let used = [("2001:db8::1", 2), ("192.0.2.1", 1), ("192.0.2.2", 1)];
    assert_eq!(
        order(&answers, now, &used),
        ["2001:db8::2", "192.0.2.3", "192.0.2.1", "192.0.2.2", "2001:db8::1"]
    );
}

#[test]
fn an_address_that_failed_goes_last_for_a_while() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    answers.note(now, answer(Duration::from_secs(3600), &["192.0.2.1", "192.0.2.2"]));
    answers.struck(ip("192.0.2.1"), now);
    assert_eq!(order(&answers, now, &[("192.0.2.2", 9)]), ["192.0.2.2", "192.0.2.1"]);
    let later = now + PENALTY;
    assert_eq!(order(&answers, later, &[("192.0.2.2", 9)]), ["192.0.2.1", "192.0.2.2"]);
    answers.struck(ip("192.0.2.1"), later);
    assert_eq!(order(&answers, later + PENALTY, &[]), ["192.0.2.2", "192.0.2.1"], "twice as long");
    // Where all failed, the one whose failure is longest ago.
    answers.struck(ip("192.0.2.2"), later + PENALTY);
    assert_eq!(order(&answers, later + PENALTY, &[]), ["192.0.2.1", "192.0.2.2"]);
    answers.forgiven(ip("192.0.2.2"));
    assert_eq!(order(&answers, later + PENALTY, &[("192.0.2.2", 9)]), ["192.0.2.2", "192.0.2.1"]);
}

#[test]
fn what_is_remembered_is_bounded() {
    let (mut answers, mut at) = (Answers::default(), Instant::now());
    for turn in 0..40u32 {
        let addresses =
            (0..100).map(|n| IpAddr::from((0x0a00_0000 + turn * 100 + n).to_be_bytes())).collect();
        answers.note(at, Ok(Answer { addresses, ttl: Duration::from_secs(3600), silent: None }));
        at += Duration::from_secs(1);
        assert!(answers.known().len() <= MAX_KNOWN);
        assert_eq!(answers.candidates(at, |_| 0).len(), MAX_PER_ANSWER);
    }
}
