//! The rules of scripts as data.

use super::*;

fn one(step: &str) -> Result<Script, ScriptError> {
    Script::parse(&format!("[[step]]\n{step}"))
}

fn storm(seed: u64) -> Script {
    let text = r#"
        [[step]]
        between_ms = [1000, 60000]
        times = 20
        action = { end = { target = "random", form = { behind = { streams = 3 } } } }

        [[step]]
        between_ms = [1000, 60000]
        times = 5
        action = { restart = { down_ms = [50, 500] } }

        [[step]]
        at_ms = 2000
        for_ms = 300
        action = { behaviour = { latency_ms = 200, max_concurrent_streams = 1 } }
    "#;
    Script::parse(text).unwrap().with_seed(seed)
}

#[test]
fn the_same_seed_gives_the_same_timeline_and_another_seed_another() {
    assert_eq!(storm(7).timeline(), storm(7).timeline());
    assert_ne!(storm(7).timeline(), storm(8).timeline());
    let timeline = storm(7).timeline();
    assert_eq!(timeline.len(), 20 + 2 * 5 + 2);
    assert!(timeline.is_sorted_by_key(|(at, _)| *at));
    assert!(timeline.iter().all(|(at, _)| (1000..=60_500).contains(&at.as_millis())), "{timeline:?}");
}

#[test]
fn what_lasts_for_a_while_is_taken_back() {
    let script = one("at_ms = 2000\nfor_ms = 300\naction = { behaviour = { latency_ms = 200 } }").unwrap();
    let timeline = script.timeline();
    assert_eq!(timeline[0], (Duration::from_millis(2000), r#"behaviour {"latency_ms":200}"#.to_owned()));
    assert_eq!(timeline[1], (Duration::from_millis(2300), "restore latency_ms".to_owned()));
}

#[test]
fn json_and_toml_say_the_same() {
    let json = r#"{"seed": 3, "step": [{"between_ms": [1, 9], "action": {"rotate_certificate": "leaf"}}]}"#;
    let toml = "seed = 3\n[[step]]\nbetween_ms = [1, 9]\naction = { rotate_certificate = \"leaf\" }";
    assert_eq!(Script::parse(json).unwrap(), Script::parse(toml).unwrap());
    assert_eq!(Script::parse(json).unwrap().seed(), 3);
    assert_eq!(Script::parse("").unwrap().timeline(), []);
}

#[test]
fn a_fault_is_told_with_its_place_and_its_remedy() {
    let cases = [
        ("action = \"forget_sessions\"", "either `at_ms` or `between_ms`"),
        ("at_ms = 1\nbetween_ms = [1, 2]\naction = \"forget_sessions\"", "either `at_ms`"),
        ("between_ms = [5, 2]\naction = \"forget_sessions\"", "[5, 2]"),
        ("at_ms = 1\ntimes = 0\naction = \"forget_sessions\"", "at least 1"),
        ("at_ms = 1\nfor_ms = 5\naction = \"forget_sessions\"", "goes with `behaviour`"),
        ("at_ms = 1\naction = { behaviour = { latencyms = 1 } }", "latencyms"),
        ("at_ms = 1\naction = { behaviour = { tickets = 21 } }", "must be 0 to 20"),
        ("at_ms = 1\naction = { restore = [\"latency\"] }", "`latency` is no key"),
        ("at_ms = 1\naction = { restart = { down_ms = [9, 1] } }", "down_ms"),
    ];
    for (step, expected) in cases {
        let error = one(step).unwrap_err().to_string();
        assert!(error.starts_with("step 1") && error.contains(expected), "{step}: {error}");
    }
    let error = one("at_ms = 1\naction = \"explode\"").unwrap_err().to_string();
    assert!(error.contains("explode") && error.contains("line 3"), "{error}");
    let error = one("at_ms = 1\ntimes = 50001\naction = \"forget_sessions\"").unwrap_err().to_string();
    assert!(error.contains("100002"), "{error}");
    assert!(one("at_ms = 1\ntimes = 50000\naction = \"forget_sessions\"").is_ok());
}
