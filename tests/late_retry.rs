//! A task that gives up at its deadline, fails by that, and is started again has a deadline again.
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod common;

use std::time::Duration;

use common::{cpu_only, watchdog};
use miniflow::worker::{Failure, Task, TaskResult};
use miniflow::{Outcome, SubmitOptions};

/// Obedient in its first attempt, deaf in the second.
fn gives_up_once(task: &mut Task<'_>) -> TaskResult {
    while task.attempt() > 1 || !task.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Failure::new(1, "late"))
}

#[test]
fn the_attempt_after_a_late_one_has_its_own_deadline() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(gives_up_once)
        .kill_grace(Duration::from_millis(500))
        .start()
        .unwrap();
    let options = SubmitOptions::new()
        .max_attempts(2)
        .deadline(Duration::from_millis(50))
        .retry_failed(true);
    let id = engine.submit_with(b"", &options).unwrap();
    let end = engine.wait(id, Some(Duration::from_secs(20))).unwrap();
    assert_eq!((end.outcome(), end.attempt()), (Outcome::TimedOut, 2));
    assert!(end.ran() >= Duration::from_millis(50), "{end:?}");
}
