//! The gate through which streams are opened, by itself. Its interleavings are walked through by loom (package
//! `pool-loom`).

use std::sync::atomic::Ordering;

use super::super::opening::Opening;

#[test]
fn a_lease_above_a_lowered_limit_does_not_enter() {
    let gate = Opening::default();
    drop(gate.enter(|| 50).expect("no limit is known yet"));
    gate.set_limit(1);
    assert!(gate.enter(|| 2).is_none());
    assert!(gate.is_quiet(), "who was turned away has left");
    assert!(gate.enter(|| 1).is_some());
}

#[test]
fn the_driver_sees_who_is_about_to_open() {
    let gate = Opening::default();
    let entered = gate.enter(|| 1).unwrap();
    assert!(!gate.is_quiet());
    drop(entered);
    assert!(gate.is_quiet());
}

/// Real threads, because the claim is about their interleaving: whenever the driver, having lowered the limit, sees
/// nobody inside, no later opening goes by the old limit.
#[test]
fn no_opening_goes_by_an_old_limit_once_the_gate_is_quiet() {
    for _ in 0..2_000 {
        let gate = Opening::default();
        let settings_read = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if let Some(_entered) = gate.enter(|| 2) {
                    assert!(!settings_read.load(Ordering::SeqCst), "opened behind the driver's back");
                }
            });
            gate.set_limit(1);
            while !gate.is_quiet() {
                std::hint::spin_loop();
            }
            settings_read.store(true, Ordering::SeqCst);
        });
    }
}
