//! A host that polls in small portions, and keeps many tasks on their way, gets every one of them
//! in its turn: what is finished again and again does not push itself in front.
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod common;

use std::time::{Duration, Instant};

use common::watchdog;
use miniflow::{Class, Engine, SubmitOptions, TaskState};

/// Keeps `in_flight` tasks on their way on `workers` workers and polls `portion` at a time; no task
/// may stay out while more than `limit` later ones come back.
fn every_task_has_its_turn(workers: u32, in_flight: u64, portion: usize, limit: u64) {
    let engine = Engine::builder()
        .handler(|_| Ok(()))
        .workers(Class::CpuBound, workers)
        .workers(Class::IoBound, 0)
        .start()
        .unwrap();
    let mut next = 0;
    let mut submit = || {
        let options = SubmitOptions::new().user_data(next);
        next += 1;
        (engine.submit_with(&[], &options).unwrap(), next)
    };
    for _ in 0..in_flight {
        submit();
    }
    let (mut completions, mut submitted) = (Vec::new(), Vec::new());
    let mut collected = 0;
    while collected < 50 * in_flight {
        completions.clear();
        let patience = Some(Duration::from_secs(20));
        let count = engine
            .poll_into(&mut completions, portion, patience)
            .unwrap();
        assert!((1..=portion).contains(&count));
        for completion in &completions {
            let (id, number) = submit();
            submitted.push(id);
            let age = number - completion.user_data();
            assert!(age <= limit, "{age} tasks were submitted meanwhile");
        }
        collected += count as u64;
        // What was submitted last is finished before the next poll, and so could push itself in
        // front of all that was finished before. Unless it waits in the central queue: hence no
        // longer than a millisecond.
        let end = Instant::now() + Duration::from_millis(1);
        for id in submitted.drain(..) {
            while engine.task_state(id).unwrap() != TaskState::Done && Instant::now() < end {
                std::thread::yield_now();
            }
        }
    }
    engine.stop(None).unwrap();
}

#[test]
fn on_one_worker() {
    let _watchdog = watchdog(60);
    every_task_has_its_turn(1, 200, 8, 800);
}

#[test]
fn on_four_workers() {
    let _watchdog = watchdog(60);
    every_task_has_its_turn(4, 400, 8, 1_600);
}
