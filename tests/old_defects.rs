//! The known defects of the system before this one, which it must not have: one test each. Those of its
//! Python interface are in `python/tests/test_old_defects.py`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use common::{Board, Random, SetAtEnd, cpu_only, until, watchdog};
use miniflow::{Class, Completion, Engine, Error, Full, Policy, Submission, TaskId, WorkerState};

fn submit(engine: &Engine, count: usize) -> BTreeSet<TaskId> {
    let tasks = (0..count).map(|_| Submission::from(&b""[..]));
    let ids = engine.submit_batch(tasks).unwrap();
    assert_eq!(ids.len(), count);
    ids.into_iter().collect()
}

fn collect(engine: &Engine, mut expected: BTreeSet<TaskId>) -> Vec<Completion> {
    let completions = common::collect(engine, expected.len());
    for completion in &completions {
        assert!(expected.remove(&completion.id()), "it was not accepted");
        assert!(completion.is_completed(), "{}", completion.text());
    }
    completions
}

/// Only the first process had threads, however many were added: all work went to it.
#[test]
fn new_processes_got_no_work() {
    let _watchdog = watchdog(60);
    for policy in [Policy::LeastLoaded, Policy::RoundRobin, Policy::PowerOfTwo] {
        let board = Board::new();
        let engine = cpu_only(1, 2)
            .workers_between(Class::CpuBound, 1, 4)
            .policy(policy.clone())
            .handler(move |task| {
                // Counts itself in, and waits until it is let out.
                let round = usize::from(task.payload()[0]);
                board.add(2 * round);
                board.wait(2 * round + 1);
                Ok(())
            })
            .start()
            .unwrap();
        for round in 0..2 {
            // As many as there will be threads: at first they wait for the new processes, then the
            // processes for them.
            let ids = engine.submit_batch(vec![Submission::from(&[round as u8][..]); 8]);
            engine.resize(Class::CpuBound, 4).unwrap();
            until("every thread of every process has a task", || {
                board.get(2 * round) == 8
            });
            board.set(2 * round + 1, 1);
            let mut tasks = BTreeMap::<u32, usize>::new();
            for completion in collect(&engine, ids.unwrap().into_iter().collect()) {
                *tasks.entry(completion.worker()).or_default() += 1;
            }
            assert_eq!(
                tasks.into_values().collect::<Vec<_>>(),
                [2; 4],
                "{policy:?}"
            );
        }
    }
}

/// The list of processes was changed without a lock: who read it meanwhile crashed, or saw processes
/// that were not there.
#[test]
fn the_list_of_processes_raced() {
    let _watchdog = watchdog(120);
    const RESIZES: u64 = 200;
    let engine = cpu_only(1, 1)
        .workers_between(Class::CpuBound, 1, 6)
        .handler(|_| Ok(()))
        .start()
        .unwrap();
    let done = AtomicBool::new(false);
    let read = || {
        // Which process an incarnation is.
        let mut pids = BTreeMap::<u64, u32>::new();
        while !done.load(SeqCst) {
            let rows = engine.workers();
            let slots: BTreeSet<u32> = rows.iter().map(|row| row.slot).collect();
            assert_eq!(slots.len(), rows.len(), "one row a slot");
            for row in rows {
                assert!(row.slot < 6 && row.threads == 1);
                assert!(row.state != WorkerState::Ready || row.pid != 0);
                if row.pid != 0 {
                    assert_eq!(*pids.entry(row.incarnation).or_insert(row.pid), row.pid);
                }
            }
            assert!(engine.stats().workers <= 6);
            assert!(engine.status_json().contains("workers"));
        }
    };
    std::thread::scope(|scope| {
        let _end = SetAtEnd(&done); // also if an assertion fails here
        for _ in 0..3 {
            scope.spawn(read);
        }
        let mut random = Random(1);
        for _ in 0..RESIZES {
            let workers = 1 + random.below(6) as u32;
            engine.resize(Class::CpuBound, workers).unwrap();
            let tasks = submit(&engine, 20);
            collect(&engine, tasks);
        }
    });
}

/// The index of the process whose turn it was ran out of bounds when the list had become shorter.
#[test]
fn the_index_of_the_round_robin_ran_out_of_bounds() {
    let _watchdog = watchdog(120);
    // Few workers are kept in a list, many in an index: from either to one, and across.
    for sizes in [[8, 1], [12, 1], [12, 9], [12, 5]] {
        let [most, least] = sizes;
        let engine = cpu_only(most, 1)
            .workers_between(Class::CpuBound, least, most)
            .policy(Policy::RoundRobin)
            .handler(|_| Ok(()))
            .start()
            .unwrap();
        for round in 0..20 {
            let workers = sizes[round % 2];
            engine.resize(Class::CpuBound, workers).unwrap();
            // While they come and go, and when they have: the turn is beyond the end then.
            let tasks = submit(&engine, 100);
            collect(&engine, tasks);
            until("all have come or gone", || {
                engine.stats().workers == u64::from(workers)
            });
            let recalled = engine.stats().recalled;
            let used: BTreeSet<u32> = (0..workers)
                .map(|_| {
                    let id = engine.submit(b"").unwrap();
                    engine.wait(id, None).unwrap().worker()
                })
                .collect();
            // A worker that the kernel kept from its task has lost it to another.
            if engine.stats().recalled == recalled {
                assert_eq!(used.len() as u32, workers, "{used:?}");
            }
        }
    }
}

/// What found a queue full was dropped, and nobody was told.
#[test]
fn a_full_queue_dropped_tasks_silently() {
    let _watchdog = watchdog(60);
    const ROOM: u32 = 50;
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .max_tasks(ROOM)
        .handler(move |_| {
            board.wait(0);
            Ok(())
        })
        .start()
        .unwrap();
    let (mut accepted, mut refused) = (BTreeSet::new(), 0);
    for _ in 0..3 * ROOM {
        match engine.submit(b"") {
            Ok(id) => assert!(accepted.insert(id)),
            Err(Error::WouldBlock(Full::Tasks)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((accepted.len() as u32, refused), (ROOM, 2 * ROOM));
    let stats = engine.stats();
    assert_eq!(stats.would_block, u64::from(refused));
    assert_eq!(stats.submitted, u64::from(ROOM));
    // Of a batch, what there was no room for has no id.
    let batch = engine.submit_batch([Submission::from(&b""[..]); 2]);
    assert!(matches!(batch, Err(Error::WouldBlock(_))));
    board.set(0, 1);
    collect(&engine, accepted);
    let nothing = engine.poll(1, Some(std::time::Duration::from_millis(50)));
    assert_eq!(nothing.unwrap().len(), 0);
    let again = submit(&engine, ROOM as usize);
    collect(&engine, again);
}
