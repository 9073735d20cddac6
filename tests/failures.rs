//! How handlers fail tasks: with a text for people or with data for a program.

#![allow(clippy::unwrap_used, reason = "a test says so when it fails")]

mod common;

use std::time::Duration;

use common::{cpu_only, watchdog};
use miniflow::worker::{Failure, Task, TaskResult};
use miniflow::{Completion, Engine, Error, Outcome, SubmitOptions};

const LONG: Option<Duration> = Some(Duration::from_secs(20));
const MAX_RESULT: usize = 100_000;

/// The way in which the first byte of the payload says that it shall; the rest is the data.
fn fail(task: &mut Task<'_>) -> TaskResult {
    let Some((way, data)) = task.payload().split_first() else {
        return Ok(());
    };
    let (way, data) = (*way, data.to_vec());
    match way {
        b'r' => Err(Failure::with_data(3, data)),
        b't' => {
            task.reply(b"lost")?;
            task.fail_with_data(0, &data)?;
            let late = task.reply(b"late");
            if !matches!(late, Err(Error::Invalid(_))) {
                return Err(Failure::new(99, format!("{late:?}")));
            }
            Err(Failure::new(98, "the last word has who spoke to the task"))
        }
        b'c' => {
            task.fail_with_data(4, &data)?;
            task.fail(5, "a text");
            Ok(())
        }
        b'o' => {
            task.fail(6, "a text");
            let refused = task.fail_with_data(7, &data);
            if !matches!(refused, Err(Error::TooLarge { .. })) {
                return Err(Failure::new(99, format!("{refused:?}")));
            }
            Ok(())
        }
        _ => Err(Failure::new(97, "no such way")),
    }
}

fn engine() -> Engine {
    cpu_only(1, 1)
        .max_result(MAX_RESULT as u64)
        .handler(fail)
        .start()
        .unwrap()
}

fn run(engine: &Engine, way: u8, data: &[u8]) -> Completion {
    let payload: Vec<u8> = [&[way][..], data].concat();
    let id = engine.submit(&payload).unwrap();
    engine.wait(id, LONG).unwrap()
}

#[test]
fn data_of_a_failure_come_back_as_they_are_up_to_the_largest_result() {
    let _watchdog = watchdog(60);
    let engine = engine();
    for len in [0, 1, 48, 49, 152, 153, 5000, MAX_RESULT] {
        // No UTF-8, and NULs.
        let data: Vec<u8> = (0..=255).rev().cycle().take(len).collect();
        for (way, code) in [(b'r', 3), (b't', 1)] {
            let failed = run(&engine, way, &data);
            assert_eq!((failed.outcome(), failed.code()), (Outcome::Failed, code));
            assert!(failed.failed_with_data() && !failed.is_collateral());
            assert!(failed.to_vec() == data, "{len}");
        }
    }
}

#[test]
fn of_two_failures_the_last_one_counts() {
    let _watchdog = watchdog(60);
    let failed = run(&engine(), b'c', b"data");
    assert_eq!((failed.outcome(), failed.code()), (Outcome::Failed, 5));
    assert_eq!(
        (failed.failed_with_data(), failed.text().as_str()),
        (false, "a text")
    );
}

#[test]
fn data_that_are_too_large_are_refused_and_replaced_by_a_text_where_nobody_can_be_told() {
    let _watchdog = watchdog(60);
    let (engine, data) = (engine(), vec![0; MAX_RESULT + 1]);
    let failed = run(&engine, b'o', &data);
    assert_eq!((failed.code(), failed.text().as_str()), (6, "a text"));
    assert!(!failed.failed_with_data());
    let failed = run(&engine, b'r', &data);
    assert_eq!((failed.outcome(), failed.code()), (Outcome::Failed, 3));
    assert!(!failed.failed_with_data());
    assert!(failed.text().contains("100001"), "{}", failed.text());
}

#[test]
fn a_failure_with_data_is_started_again_if_the_task_asks_for_it() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(|task: &mut Task<'_>| {
            let attempt = task.attempt().to_le_bytes();
            task.fail_with_data(9, &attempt)?;
            Ok(())
        })
        .start()
        .unwrap();
    let options = SubmitOptions::new().max_attempts(3).retry_failed(true);
    let id = engine.submit_with(b"", &options).unwrap();
    let failed = engine.wait(id, LONG).unwrap();
    assert!(failed.failed_with_data());
    assert_eq!((failed.code(), failed.attempt()), (9, 3));
    assert_eq!(failed.to_vec(), 3_u32.to_le_bytes());
    assert_eq!(engine.stats().failed, 1);
}

#[test]
fn a_failure_says_what_it_is_made_of() {
    let data = Failure::with_data(0, *b"\xff");
    assert_eq!(
        (data.code(), data.text(), data.data()),
        (1, "", Some(&b"\xff"[..]))
    );
    let text = Failure::new(2, "x");
    assert_eq!((text.code(), text.text(), text.data()), (2, "x", None));
}
