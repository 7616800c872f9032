//! The directory with a resolver that is played by the test, and a paused clock.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

/// Each question waits for an answer from the test.
struct Played {
    answers: tokio::sync::Mutex<mpsc::Receiver<Said>>,
    asked: Arc<AtomicU32>,
}

/// What the test lets the name server say.
#[derive(Debug)]
enum Said {
    /// The half of one family; the question goes on.
    Half(Answer),
    /// All there is.
    Whole(Result<Answer, ResolveError>),
}

impl Resolve for Played {
    async fn resolve(&self, _: &str, early: oneshot::Sender<Answer>) -> Result<Answer, ResolveError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut early = Some(early);
        loop {
            match self.answers.lock().await.recv().await {
                Some(Said::Whole(answer)) => return answer,
                Some(Said::Half(half)) => early.take().unwrap().send(half).unwrap(),
                None => std::future::pending().await,
            }
        }
    }
}

struct Stage {
    directory: Arc<Directory>,
    asked: Arc<AtomicU32>,
    answer: mpsc::Sender<Said>,
}

impl Stage {
    fn set() -> Self {
        let (answer, answers) = mpsc::channel(16);
        let asked = Arc::new(AtomicU32::new(0));
        let resolver = Played { answers: tokio::sync::Mutex::new(answers), asked: asked.clone() };
        let place = HostPort { host: "tsh.test".to_owned(), port: 443 };
        let directory = Directory::start(place, LIMIT, resolver, &Handle::current(), || ());
        Self { directory: Arc::new(directory), asked, answer }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    async fn say(&self, ttl: u64, addresses: &[&str]) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let answer = Answer { addresses, ttl: Duration::from_secs(ttl), silent: None };
        self.answer.send(Said::Whole(Ok(answer))).await.unwrap();
    }

    /// One family is answered; nothing is heard of the other.
    async fn say_half(&self, ttl: u64, silent: Family, addresses: &[&str]) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let half = Answer { addresses, ttl: Duration::from_secs(ttl), silent: Some(silent) };
        self.answer.send(Said::Half(half)).await.unwrap();
    }

    fn valid_for(&self) -> Option<Duration> {
        self.directory.status(Instant::now()).unwrap().valid_for
    }

    fn known(&self) -> Vec<(String, u32)> {
        let addresses = self.directory.status(Instant::now()).unwrap().addresses;
        addresses.iter().map(|a| (a.address.to_string(), a.absent_answers)).collect()
    }

    async fn fail(&self) {
        let failed = ResolveError::Failed { detail: "SERVFAIL".to_owned() };
        self.answer.send(Said::Whole(Err(failed))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn dials_share_one_question() {
    let stage = Stage::set();
    let dials: Vec<_> = (0..20)
        .map(|_| {
            let directory = stage.directory.clone();
            tokio::spawn(async move { directory.candidates().await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stage.asked(), 1);
    stage.say(60, &["192.0.2.1"]).await;
    for dial in dials {
        assert_eq!(dial.await.unwrap().unwrap().addresses, ["192.0.2.1:443".parse().unwrap()]);
    }
    assert_eq!(stage.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_name_is_asked_for_again_when_its_ttl_ends_and_not_before() {
    let stage = Stage::set();
    stage.say(60, &["192.0.2.1"]).await;
    tokio::time::sleep(Duration::from_millis(59_900)).await;
    assert_eq!(stage.asked(), 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_used_when_a_new_one_is_long_in_coming() {
    let stage = Stage::set();
    stage.say(60, &["192.0.2.1"]).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    let began = Instant::now();
    assert_eq!(stage.directory.candidates().await.unwrap().addresses.len(), 1);
    assert_eq!(began.elapsed(), PATIENCE);
    // One that comes in time is used instead.
    let answer = stage.answer.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let addresses = vec!["192.0.2.2".parse().unwrap()];
        let whole = Answer { addresses, ttl: Duration::from_secs(60), silent: None };
        answer.send(Said::Whole(Ok(whole))).await.unwrap();
    });
    assert_eq!(stage.directory.candidates().await.unwrap().addresses, ["192.0.2.2:443".parse().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_ends_at_the_limit_and_is_asked_again() {
    let stage = Stage::set();
    let began = Instant::now();
    let error = stage.directory.candidates().await.unwrap_err();
    assert_eq!(began.elapsed(), LIMIT);
    assert_eq!(error.code(), "dns_failure");
    assert!(error.to_string().contains("no name server answered within 5s"), "{error}");
    // Told at once, not after another limit.
    assert!(stage.directory.candidates().await.is_err());
    assert_eq!((began.elapsed(), stage.asked()), (LIMIT, 1));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(stage.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_a_good_answer_holds_up_no_dial() {
    let stage = Stage::set();
    stage.say(1, &["192.0.2.1"]).await;
    stage.fail().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let began = Instant::now();
    assert!(stage.directory.candidates().await.is_ok());
    assert_eq!(began.elapsed(), Duration::ZERO);
    let status = stage.directory.status(Instant::now()).unwrap();
    assert_eq!(status.failure.as_deref(), Some("SERVFAIL"));
    assert_eq!((status.valid_for, status.addresses.len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn dials_that_begin_together_go_to_different_addresses() {
    let stage = Stage::set();
    stage.say(60, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut claims = Vec::new();
    for expected in [1, 2, 3, 1, 2, 3] {
        let candidates = stage.directory.candidates().await.unwrap();
        assert_eq!(candidates.addresses[0], format!("192.0.2.{expected}:443").parse().unwrap());
        claims.push(candidates.claim);
    }
    // Two end at the second, one socket lands elsewhere than it was meant to.
    claims.remove(4);
    claims.remove(1);
    assert_eq!(stage.directory.candidates().await.unwrap().addresses[0], "192.0.2.2:443".parse().unwrap());
    claims[0].move_to("192.0.2.2:443".parse().unwrap());
    claims[1].move_to("192.0.2.2:443".parse().unwrap());
    assert_eq!(stage.directory.candidates().await.unwrap().addresses[0], "192.0.2.1:443".parse().unwrap());
    drop(claims);
    assert!(stage.directory.shared.state.lock().in_use.is_empty(), "all counts return to zero");
}

#[tokio::test(start_paused = true)]
async fn an_address_is_never_asked_for() {
    let asked = Arc::new(AtomicU32::new(0));
    let (_answer, answers) = mpsc::channel(1);
    let resolver = Played { answers: tokio::sync::Mutex::new(answers), asked: asked.clone() };
    let place = HostPort { host: "::1".to_owned(), port: 9443 };
    let directory = Directory::start(place, LIMIT, resolver, &Handle::current(), || ());
    let candidates = directory.candidates().await.unwrap();
    assert_eq!(candidates.addresses, ["[::1]:9443".parse().unwrap()]);
    assert!(!directory.is_gone(candidates.addresses[0]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_after_a_stop() {
    let stage = Stage::set();
    stage.say(1, &["192.0.2.1"]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    stage.directory.stop();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_is_never_answered_holds_back_nothing_of_the_other() {
    for (silent, address) in [(Family::V6, "192.0.2.1"), (Family::V4, "2001:db8::1")] {
        let stage = Stage::set();
        let began = Instant::now();
        stage.say_half(60, silent, &[address]).await;
        let candidates = stage.directory.candidates().await.unwrap();
        assert_eq!(candidates.addresses, [SocketAddr::new(address.parse().unwrap(), 443)]);
        assert_eq!(began.elapsed(), Duration::ZERO);
        // The question for the other family ends at its limit, and that is no failure of the name.
        tokio::time::sleep(LIMIT * 2).await;
        let status = stage.directory.status(Instant::now()).unwrap();
        assert_eq!((status.failure, status.addresses.len(), stage.asked()), (None, 1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_half_joins_without_counting_the_first_again_or_outliving_it() {
    let stage = Stage::set();
    stage.say(2, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    stage.say_half(10, Family::V6, &["192.0.2.1"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let known = |of: &[(&str, u32)]| of.iter().map(|(a, n)| ((*a).to_owned(), *n)).collect::<Vec<_>>();
    let before = known(&[("192.0.2.1", 0), ("2001:db8::1", 0), ("192.0.2.2", 1)]);
    assert_eq!(stage.known(), before, "nothing is known of IPv6, so what was known stays");
    stage.say(10, &["2001:db8::2", "192.0.2.1"]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut known = stage.known();
    known.sort();
    let whole = [("192.0.2.1", 0), ("192.0.2.2", 1), ("2001:db8::1", 1), ("2001:db8::2", 0)];
    assert_eq!(known, whole.map(|(a, n)| (a.to_owned(), n)));
    assert!(stage.valid_for().unwrap() <= Duration::from_secs(9), "the TTL runs from the first half");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_still_waits_for_one_family_does_not_put_off_the_next() {
    let stage = Stage::set();
    stage.say_half(2, Family::V6, &["192.0.2.1"]).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(stage.asked(), 2, "the TTL is over: the late half is given up");
    stage.say_half(2, Family::V6, &["192.0.2.2"]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let candidates = stage.directory.candidates().await.unwrap();
    assert_eq!(candidates.addresses, ["192.0.2.2:443".parse().unwrap()]);
}
