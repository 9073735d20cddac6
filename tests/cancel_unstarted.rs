//! Cancelling a task only if it will then never run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says so when it fails"
)]

mod common;

use std::time::Duration;

use common::{Board, cpu_only, until, watchdog};
use miniflow::worker::{Failure, Task};
use miniflow::{Engine, Error, Outcome, SubmitOptions, TaskState};

const LONG: Option<Duration> = Some(Duration::from_secs(20));
/// Words of the board: the gate that handlers wait at, those that got there, and runs by user data.
const GATE: usize = 0;
const ARRIVED: usize = 1;
const RUNS: usize = 2;

/// Counts its run and waits for the gate if its payload says so.
fn engine(board: Board, workers: u32) -> Engine {
    cpu_only(workers, 1)
        .handler(move |task: &mut Task<'_>| {
            board.add(RUNS + usize::try_from(task.user_data())?);
            if task.payload() == b"wait" {
                board.add(ARRIVED);
                board.wait(GATE);
            }
            match task.is_cancelled() {
                true => Err(Failure::new(1, "told to stop")),
                false => Ok(()),
            }
        })
        .start()
        .unwrap()
}

fn numbered(number: u64) -> SubmitOptions {
    SubmitOptions::new().user_data(number)
}

#[test]
fn what_waits_never_runs_and_what_a_worker_has_is_left_alone() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = engine(board, 1);
    let running = engine.submit_with(b"wait", &numbered(0)).unwrap();
    until("it runs", || board.get(ARRIVED) == 1);
    // More than a worker is given in advance.
    let others: Vec<_> = (1..10)
        .map(|n| engine.submit_with(b"", &numbered(n)).unwrap())
        .collect();
    assert!(!engine.cancel_unstarted(running).unwrap());
    let cancelled: Vec<_> = others
        .iter()
        .map(|&id| engine.cancel_unstarted(id).unwrap())
        .collect();
    assert!(
        cancelled.iter().filter(|c| **c).count() >= 7,
        "{cancelled:?}"
    );
    for (id, never_runs) in others.iter().zip(&cancelled) {
        // Asked again: the same, unless it was handed back meanwhile.
        assert!(engine.cancel_unstarted(*id).unwrap() || !never_runs);
    }
    let left: Vec<_> = others
        .iter()
        .filter(|id| engine.task_state(**id).unwrap() != TaskState::Done)
        .collect();
    board.set(GATE, 1);
    // It was not told.
    assert!(engine.wait(running, LONG).unwrap().is_completed());
    for (n, id) in others.iter().enumerate() {
        let end = engine.wait(*id, LONG).unwrap();
        let runs = board.get(RUNS + 1 + n);
        if left.contains(&id) {
            assert_eq!((end.outcome(), runs), (Outcome::Completed, 1));
        } else {
            assert_eq!(
                (end.outcome(), end.attempt(), runs),
                (Outcome::Cancelled, 0, 0)
            );
        }
        assert!(matches!(engine.cancel_unstarted(*id), Err(Error::NotFound)));
    }
}

#[test]
fn a_task_that_has_ended_is_not_cancelled() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = engine(board, 1);
    let id = engine.submit_with(b"", &numbered(0)).unwrap();
    until("it is done", || {
        engine.task_state(id).unwrap() == TaskState::Done
    });
    assert!(!engine.cancel_unstarted(id).unwrap());
    assert!(engine.wait(id, LONG).unwrap().is_completed());
}

#[test]
fn a_task_that_waits_for_its_second_attempt_was_started() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .handler(move |task: &mut Task<'_>| {
            if task.payload() == b"again" {
                board.add(ARRIVED);
                if task.attempt() == 1 {
                    return Err(Failure::new(1, "once more"));
                }
            } else {
                board.wait(GATE);
            }
            Ok(())
        })
        .start()
        .unwrap();
    let options = SubmitOptions::new().max_attempts(2).retry_failed(true);
    let again = engine.submit_with(b"again", &options).unwrap();
    for _ in 0..10 {
        engine.submit(b"").unwrap(); // the worker has enough to do
    }
    until("it waits in the central queue again", || {
        // A poll takes its failure in; none of the others ends, so that it is handed back.
        assert!(engine.poll(1, Some(Duration::ZERO)).unwrap().is_empty());
        let stats = engine.stats();
        board.get(ARRIVED) == 1
            && (stats.on_workers, stats.queued) == (1, 10)
            && engine.task_state(again).unwrap() == TaskState::Queued
    });
    assert!(!engine.cancel_unstarted(again).unwrap());
    board.set(GATE, 1);
    let end = engine.wait(again, LONG).unwrap();
    assert_eq!((end.outcome(), end.attempt()), (Outcome::Completed, 2));
}

#[test]
fn while_workers_take_tasks_each_either_runs_or_is_cancelled() {
    const TASKS: u64 = 400;
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = engine(board, 2);
    let ids: Vec<_> = (0..TASKS)
        .map(|n| engine.submit_with(b"", &numbered(n)).unwrap())
        .collect();
    let mut cancelled = vec![false; ids.len()];
    // From both ends: those that workers are about to get, and those that wait for long.
    for n in (0..ids.len()).map(|i| {
        if i % 2 == 0 {
            i / 2
        } else {
            ids.len() - 1 - i / 2
        }
    }) {
        cancelled[n] = engine.cancel_unstarted(ids[n]).unwrap();
        if n % 8 == 0 {
            std::thread::yield_now();
        }
    }
    for (n, (id, cancelled)) in ids.iter().zip(cancelled).enumerate() {
        let end = engine.wait(*id, LONG).unwrap();
        let expected = match cancelled {
            true => (Outcome::Cancelled, 0, 0),
            false => (Outcome::Completed, 1, 1),
        };
        assert_eq!(
            (end.outcome(), end.attempt(), board.get(RUNS + n)),
            expected,
            "task {n}"
        );
    }
}
