//! How workers are chosen: sticky keys, policies of the host's own, switching while tasks run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use common::{Board, collect, cpu_only, until, watchdog};
use miniflow::{
    Candidate, Class, Completion, Engine, Error, Outcome, Policy, Submission, SubmitOptions,
};

fn idle(_: &mut miniflow::worker::Task<'_>) -> miniflow::worker::TaskResult {
    Ok(())
}

fn keyed(key: u64) -> SubmitOptions {
    SubmitOptions::new().sticky_key(key).user_data(key)
}

/// The workers that ran each key.
fn homes(completions: &[Completion]) -> BTreeMap<u64, BTreeSet<u32>> {
    let mut homes = BTreeMap::<u64, BTreeSet<u32>>::new();
    for completion in completions {
        assert!(completion.is_completed(), "{}", completion.text());
        let key = completion.user_data();
        homes.entry(key).or_default().insert(completion.worker());
    }
    homes
}

fn run_keys(engine: &Engine, keys: u64, times: usize) -> BTreeMap<u64, u32> {
    let payload = &b""[..];
    let tasks = (0..times).flat_map(|_| 1..=keys).map(|key| Submission {
        payload,
        options: keyed(key),
    });
    let count = engine.submit_batch(tasks).unwrap().len();
    let homes = homes(&collect(engine, count));
    homes
        .into_iter()
        .map(|(key, workers)| {
            assert_eq!(workers.len(), 1, "key {key} ran on {workers:?}");
            (key, *workers.first().unwrap())
        })
        .collect()
}

#[test]
fn tasks_with_one_key_run_on_one_worker_and_keys_spread() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(4, 1).handler(idle).start().unwrap();
    let homes = run_keys(&engine, 100, 50);
    let used: BTreeSet<u32> = homes.values().copied().collect();
    assert_eq!(used.len(), 4);
    assert_eq!(run_keys(&engine, 100, 1), homes);
}

#[test]
fn keys_move_only_from_workers_that_leave_and_to_those_that_come() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(3, 1)
        .workers_between(Class::CpuBound, 3, 4)
        .handler(idle)
        .start()
        .unwrap();
    let three = run_keys(&engine, 200, 2);
    engine.resize(Class::CpuBound, 4).unwrap();
    until("the fourth worker is ready", || engine.stats().workers == 4);
    let four = run_keys(&engine, 200, 2);
    let mut moved = 0;
    for (key, home) in &four {
        if three[key] != *home {
            assert_eq!(*home, 3, "key {key} moved between workers that stayed");
            moved += 1;
        }
    }
    assert!((20..80).contains(&moved), "{moved} of 200");
    engine.resize(Class::CpuBound, 3).unwrap();
    until("one worker is gone", || engine.workers().len() == 3);
    let stayed: BTreeSet<u32> = engine.workers().iter().map(|row| row.slot).collect();
    for (key, home) in &run_keys(&engine, 200, 2) {
        if stayed.contains(&four[key]) {
            assert_eq!(
                *home, four[key],
                "key {key} moved although its worker stayed"
            );
        }
    }
}

#[test]
fn a_sticky_task_waits_for_its_worker_though_others_are_free_and_holds_up_nobody() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1)
        .handler(move |task| {
            if task.user_data() == 1 {
                board.wait(0);
            }
            Ok(())
        })
        .start()
        .unwrap();
    for _ in 0..50 {
        engine.submit_with(b"", &keyed(1)).unwrap();
    }
    for _ in 0..50 {
        engine.submit(b"").unwrap();
    }
    let others = collect(&engine, 50);
    assert!(others.iter().all(|c| c.user_data() == 0));
    let free: BTreeSet<u32> = others.iter().map(Completion::worker).collect();
    board.set(0, 1);
    let sticky = homes(&collect(&engine, 50));
    assert_eq!(sticky[&1].len(), 1);
    assert!(
        !free.is_subset(&sticky[&1]),
        "the other worker ran the rest"
    );
}

#[test]
fn sticky_tasks_of_a_killed_worker_go_to_its_replacement_or_another_and_none_is_lost() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(3, 1)
        .handler(move |task| {
            if task.user_data() == 1 {
                board.wait(0);
            }
            Ok(())
        })
        .start()
        .unwrap();
    const COUNT: usize = 100;
    for _ in 0..COUNT {
        engine.submit_with(b"", &keyed(1)).unwrap();
    }
    until("one runs", || {
        engine.workers().iter().any(|w| w.running > 0)
    });
    let home = *engine.workers().iter().find(|w| w.running > 0).unwrap();
    board.set(0, 1);
    common::kill(home.pid);
    let all = collect(&engine, COUNT);
    let bad = all.iter().filter(|c| !c.is_completed()).count();
    assert!(bad <= 1, "{bad} were not completed");
}

#[test]
fn a_sticky_task_that_waits_can_be_cancelled() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1)
        .handler(move |_| {
            board.wait(0);
            Ok(())
        })
        .start()
        .unwrap();
    let ids: Vec<_> = (0..20)
        .map(|_| engine.submit_with(b"", &keyed(9)).unwrap())
        .collect();
    assert!(engine.cancel_unstarted(ids[10]).unwrap());
    assert_eq!(
        engine.wait(ids[10], None).unwrap().outcome(),
        Outcome::Cancelled
    );
    assert_eq!(engine.stats().queued + engine.stats().on_workers, 19);
    board.set(0, 1);
    assert_eq!(homes(&collect(&engine, 19))[&9].len(), 1);
}

/// How many tasks each worker ran, and whether any was taken back from a worker that did not get to it.
fn in_turn(policy: Policy, workers: u32) -> (Vec<usize>, bool) {
    const TASKS: usize = 2000;
    let engine = cpu_only(workers, 1)
        .policy(policy)
        .handler(idle)
        .start()
        .unwrap();
    let tasks = (0..TASKS).map(|_| Submission::from(&b""[..]));
    assert_eq!(engine.submit_batch(tasks).unwrap().len(), TASKS);
    let mut counts = vec![0; workers as usize];
    for completion in collect(&engine, TASKS) {
        counts[completion.worker() as usize] += 1;
    }
    (counts, engine.stats().recalled > 0)
}

#[test]
fn every_policy_runs_every_task_with_few_workers_and_with_many() {
    let _watchdog = watchdog(120);
    for workers in [2, 3, 12] {
        for policy in [Policy::LeastLoaded, Policy::RoundRobin, Policy::PowerOfTwo] {
            let (counts, recalled) = in_turn(policy.clone(), workers);
            assert_eq!(counts.iter().sum::<usize>(), 2000);
            // A worker that the system did not let run loses what it was given.
            let all = counts.iter().all(|&c| c > 0);
            assert!(all || recalled, "{policy:?}: {counts:?}");
        }
    }
}

#[test]
fn a_policy_of_the_hosts_own_chooses_among_workers_with_room() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(3, 1)
        .policy(Policy::custom(|class: Class, workers: &[Candidate]| {
            assert_eq!(class, Class::CpuBound);
            assert!(workers.iter().all(|w| w.load < w.depth && w.pid != 0));
            workers.iter().position(|w| w.slot == 2)
        }))
        .handler(idle)
        .start()
        .unwrap();
    for _ in 0..100 {
        let id = engine.submit(b"").unwrap();
        assert_eq!(engine.wait(id, None).unwrap().worker(), 2);
    }
    assert_eq!(engine.stats().policy_failures, 0);
}

#[test]
fn a_policy_that_panics_or_names_no_worker_is_counted_and_breaks_nothing() {
    let _watchdog = watchdog(60);
    let calls = Arc::new(AtomicUsize::new(0));
    let policy = {
        let calls = Arc::clone(&calls);
        move |_: Class, workers: &[Candidate]| match calls.fetch_add(1, SeqCst) % 3 {
            0 => std::panic::resume_unwind(Box::new("a bad policy")),
            1 => Some(workers.len()),
            _ => None,
        }
    };
    let engine = cpu_only(3, 1)
        .policy(Policy::custom(policy))
        .handler(idle)
        .start()
        .unwrap();
    for _ in 0..300 {
        engine.submit(b"").unwrap();
    }
    assert!(collect(&engine, 300).iter().all(Completion::is_completed));
    let (calls, failures) = (calls.load(SeqCst) as u64, engine.stats().policy_failures);
    assert!(calls >= 3, "{calls}");
    assert_eq!(failures, calls - calls / 3);
}

#[test]
fn a_policy_that_calls_its_engine_fails_instead_of_waiting_for_itself() {
    let _watchdog = watchdog(60);
    let engine = Arc::new(cpu_only(2, 1).handler(idle).start().unwrap());
    let itself = Arc::new(OnceLock::<Weak<Engine>>::new());
    itself.set(Arc::downgrade(&engine)).unwrap();
    engine
        .set_policy(Policy::custom(move |_: Class, _: &[Candidate]| {
            let engine = itself.get()?.upgrade()?;
            usize::try_from(engine.stats().workers).ok()
        }))
        .unwrap();
    let id = engine.submit(b"").unwrap();
    assert!(engine.wait(id, None).unwrap().is_completed());
    assert!(engine.stats().policy_failures > 0);
}

#[test]
fn policies_change_while_tasks_are_submitted_and_the_old_one_is_not_asked_again() {
    let _watchdog = watchdog(120);
    let engine = cpu_only(4, 1).handler(idle).start().unwrap();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_usize {
                let calls = Arc::new(AtomicUsize::new(0));
                let counted = Arc::clone(&calls);
                let policy = Policy::custom(move |_: Class, workers: &[Candidate]| {
                    counted.fetch_add(1, SeqCst);
                    Some(round % workers.len())
                });
                engine.set_policy(policy).unwrap();
                until("it is asked", || calls.load(SeqCst) > 0);
                let next = [Policy::PowerOfTwo, Policy::RoundRobin, Policy::LeastLoaded];
                engine.set_policy(next[round % 3].clone()).unwrap();
                assert_eq!(Arc::strong_count(&calls), 1, "the old policy is gone");
            }
            done.store(1, SeqCst);
        });
        while done.load(SeqCst) == 0 {
            let tasks = (0..50).map(|_| Submission::from(&b""[..]));
            let count = engine.submit_batch(tasks).unwrap().len();
            assert!(collect(&engine, count).iter().all(Completion::is_completed));
        }
    });
    engine.stop(Some(Duration::from_secs(10))).unwrap();
    let closed = engine.set_policy(Policy::LeastLoaded);
    assert!(matches!(closed, Err(Error::Closed)));
}
