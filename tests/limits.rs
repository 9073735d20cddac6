//! Attempts, deadlines, cancellation by force, workers that stop, hang or wear out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Board, collect, cpu_only, kill, until, watchdog, worker};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Completion, Engine, Outcome, SubmitOptions, TaskId, TaskState};
use rustix::process::{Pid, Signal, kill_process};

const SHORT: Duration = Duration::from_millis(40);
/// Longer than a task that does nothing takes on any machine.
const LONG: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_millis(20);

/// Board words.
const GATE: usize = 0;
const STARTS: usize = 100;

fn die() {
    kill(std::process::id());
}

/// A handler whose tasks count their starts (word `STARTS + user_data`) and do what their payload
/// says: `die`, `die once`, `fail`, `fail once`, `spin`, `polite` (spins until it is asked to stop),
/// `gate`, or nothing.
fn scripted(board: Board) -> impl Fn(&mut Task<'_>) -> TaskResult + Send + Sync {
    move |task| {
        board.add(STARTS + task.user_data() as usize);
        match task.payload() {
            b"die" => die(),
            b"die once" if task.attempt() == 1 => die(),
            b"fail" => return Err("no".into()),
            b"fail once" if task.attempt() == 1 => return Err("not yet".into()),
            b"spin" => loop {
                std::hint::spin_loop();
            },
            b"spin once" if task.attempt() == 1 => loop {
                std::hint::spin_loop();
            },
            b"polite" => {
                while !task.is_cancelled() {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
            b"gate" => board.wait(GATE),
            b"progress" => {
                task.progress(3, 10);
                board.wait(GATE);
            }
            _ => {}
        }
        Ok(task.reply(&task.attempt().to_le_bytes())?)
    }
}

fn submit(engine: &Engine, what: &str, number: u64, options: SubmitOptions) -> TaskId {
    let options = options.user_data(number);
    engine.submit_with(what.as_bytes(), &options).unwrap()
}

fn wait(engine: &Engine, id: TaskId) -> Completion {
    engine.wait(id, Some(Duration::from_secs(20))).unwrap()
}

#[track_caller]
fn assert_end(completion: &Completion, outcome: Outcome, attempt: u32) {
    assert_eq!(
        (completion.outcome(), completion.attempt()),
        (outcome, attempt),
        "{}",
        completion.text()
    );
}

// ---- attempts ----

#[test]
fn a_task_whose_worker_dies_is_started_again_while_attempts_are_left() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1).handler(scripted(board)).start().unwrap();
    let thrice = SubmitOptions::new().max_attempts(3);
    let id = submit(&engine, "die once", 1, thrice);
    let done = wait(&engine, id);
    assert_end(&done, Outcome::Completed, 2);
    assert_eq!(done.to_vec(), 2_u32.to_le_bytes());
    assert_eq!(board.get(STARTS + 1), 2);
    let stats = engine.stats();
    assert_eq!((stats.retried, stats.died, stats.crashed), (1, 1, 0));
}

#[test]
fn a_poison_task_stops_after_its_attempts() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1).handler(scripted(board)).start().unwrap();
    let id = submit(&engine, "die", 1, SubmitOptions::new().max_attempts(3));
    let good: Vec<TaskId> = (0..20)
        .map(|_| submit(&engine, "", 2, SubmitOptions::new()))
        .collect();
    let done = wait(&engine, id);
    assert_end(&done, Outcome::Crashed, 3);
    assert!(done.text().contains("attempt 3"), "{}", done.text());
    assert!(!done.is_collateral());
    assert_eq!((done.code(), done.by_signal()), (9, true));
    assert_eq!(board.get(STARTS + 1), 3);
    for id in good {
        assert_end(&wait(&engine, id), Outcome::Completed, 1);
    }
    assert_eq!(engine.stats().died, 3);
}

#[test]
fn the_default_of_the_engine_counts_where_a_task_does_not_say() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .default_attempts(2)
        .handler(scripted(board))
        .start()
        .unwrap();
    let ids = [
        submit(&engine, "die", 1, SubmitOptions::new()),
        submit(&engine, "die", 2, SubmitOptions::new().max_attempts(1)),
    ];
    assert_end(&wait(&engine, ids[0]), Outcome::Crashed, 2);
    assert_end(&wait(&engine, ids[1]), Outcome::Crashed, 1);
    assert_eq!((board.get(STARTS + 1), board.get(STARTS + 2)), (2, 1));
}

#[test]
fn suspects_are_started_again_alone_so_that_blame_becomes_exact() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    // What runs beside a suspect in its second attempt would be seen here.
    let engine = cpu_only(1, 4)
        .handler(move |task| {
            let running = board[1].fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            if task.attempt() == 1 {
                if board.add(2) + 1 == 4 && task.payload() == b"killer" {
                    board.set(GATE, 1);
                }
                while board.get(2) < 4 {
                    std::thread::sleep(Duration::from_micros(100));
                }
                if task.payload() == b"killer" {
                    die();
                }
                loop {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            board[3].fetch_max(running - 4, std::sync::atomic::Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(3));
            if task.payload() == b"killer" {
                die();
            }
            board[1].fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        })
        .start()
        .unwrap();
    let twice = SubmitOptions::new().max_attempts(2);
    let killer = submit(&engine, "killer", 1, twice);
    let others: Vec<TaskId> = (0..3).map(|_| submit(&engine, "", 2, twice)).collect();
    // More work waits: it must not run beside a suspect either.
    let done = wait(&engine, killer);
    assert_end(&done, Outcome::Crashed, 2);
    assert!(!done.is_collateral(), "it died alone");
    for id in others {
        assert_end(&wait(&engine, id), Outcome::Completed, 2);
    }
    assert_eq!(engine.stats().retried, 4);
    assert!(board.get(3) <= 2, "{} ran beside one another", board.get(3));
}

#[test]
fn a_task_that_runs_alone_holds_up_the_others_only_while_it_runs() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 2).handler(scripted(board)).start().unwrap();
    let twice = SubmitOptions::new().max_attempts(2);
    let suspects = [
        submit(&engine, "die once", 1, twice),
        submit(&engine, "gate", 2, twice),
    ];
    let others: Vec<TaskId> = (0..200)
        .map(|_| submit(&engine, "", 3, SubmitOptions::new()))
        .collect();
    board.set(GATE, 1);
    for id in suspects.into_iter().chain(others) {
        assert!(wait(&engine, id).is_completed());
    }
    let stats = engine.stats();
    assert_eq!((stats.queued, stats.on_workers, stats.crashed), (0, 0, 0));
}

#[test]
fn a_failed_task_is_started_again_only_if_it_asks_for_it() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(scripted(board)).start().unwrap();
    let thrice = SubmitOptions::new().max_attempts(3);
    let asked = thrice.retry_failed(true);
    let id = submit(&engine, "fail", 1, thrice);
    assert_end(&wait(&engine, id), Outcome::Failed, 1);
    let id = submit(&engine, "fail", 2, asked);
    assert_end(&wait(&engine, id), Outcome::Failed, 3);
    let id = submit(&engine, "fail once", 3, asked);
    assert_end(&wait(&engine, id), Outcome::Completed, 2);
    let starts = [1, 2, 3].map(|task| board.get(STARTS + task));
    assert_eq!(starts, [1, 3, 2]);
    assert_eq!(engine.stats().payload_bytes, 0);
}

#[test]
fn a_retried_task_keeps_its_large_payload() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(|task| {
            if task.attempt() == 1 {
                die();
            }
            let payload = task.payload().to_vec();
            Ok(task.reply(&payload)?)
        })
        .start()
        .unwrap();
    let payload = common::bytes(7, 300_000);
    let options = SubmitOptions::new().max_attempts(2);
    let id = engine.submit_with(&payload, &options).unwrap();
    let done = wait(&engine, id);
    assert!(done.to_vec() == payload);
    assert_eq!(engine.stats().payload_bytes, 0);
}

#[test]
fn good_tasks_behind_many_that_kill_their_worker_complete() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(scripted(Board::new()))
        .start()
        .unwrap();
    let poison: Vec<TaskId> = (0..12)
        .map(|_| submit(&engine, "die", 1, SubmitOptions::new()))
        .collect();
    let stubborn = submit(&engine, "die", 1, SubmitOptions::new().max_attempts(9));
    let good: Vec<TaskId> = (0..5)
        .map(|_| submit(&engine, "", 2, SubmitOptions::new()))
        .collect();
    for id in poison {
        assert_end(&wait(&engine, id), Outcome::Crashed, 1);
    }
    assert_end(&wait(&engine, stubborn), Outcome::Crashed, 9);
    for id in good {
        assert_end(&wait(&engine, id), Outcome::Completed, 1);
    }
}

#[test]
fn a_process_that_a_handler_has_forked_is_not_the_worker() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(|task| {
            // SAFETY: the child does nothing but wait for a signal.
            let child = unsafe { libc::fork() };
            if child == 0 {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            let mut status = 0;
            // SAFETY: a child of this process that nobody has waited for.
            unsafe { libc::kill(child, libc::SIGTERM) };
            // SAFETY: the same, and a place for its status.
            let rc = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(rc, child);
            Ok(task.reply(&status.to_le_bytes())?)
        })
        .start()
        .unwrap();
    let pid = worker(&engine, 0).pid;
    for _ in 0..3 {
        let id = engine.submit(b"").unwrap();
        let done = wait(&engine, id);
        assert_end(&done, Outcome::Completed, 1);
        assert_eq!(done.to_vec(), libc::SIGTERM.to_le_bytes());
    }
    assert_eq!(worker(&engine, 0).pid, pid);
}

// ---- deadlines ----

#[test]
fn a_late_task_is_timed_out_when_its_worker_is_dead_and_the_worker_is_replaced() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .kill_grace(GRACE)
        .handler(scripted(board))
        .start()
        .unwrap();
    let pid = worker(&engine, 0).pid;
    let begin = Instant::now();
    let late = submit(&engine, "spin", 1, SubmitOptions::new().deadline(SHORT));
    let next = submit(&engine, "", 2, SubmitOptions::new());
    let done = wait(&engine, late);
    let took = begin.elapsed();
    assert_end(&done, Outcome::TimedOut, 1);
    assert!(!common::is_alive(pid), "settled before the worker is dead");
    assert!(done.text().contains("deadline"), "{}", done.text());
    assert!(took >= SHORT + GRACE, "after {took:?}");
    assert!(done.ran() >= SHORT, "{:?}", done.ran());
    assert_end(&wait(&engine, next), Outcome::Completed, 1);
    let stats = engine.stats();
    assert_eq!((stats.timed_out, stats.killed, stats.died), (1, 1, 0));
    assert_eq!(stats.violations, 0);
}

#[test]
fn a_late_task_that_listens_completes_and_its_worker_lives_or_leaves_in_order() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .kill_grace(Duration::from_secs(10))
        .handler(scripted(Board::new()))
        .start()
        .unwrap();
    let id = submit(&engine, "polite", 1, SubmitOptions::new().deadline(SHORT));
    assert_end(&wait(&engine, id), Outcome::Completed, 1);
    let id = submit(&engine, "", 1, SubmitOptions::new());
    assert_end(&wait(&engine, id), Outcome::Completed, 1);
}

#[test]
fn the_grace_of_a_late_task_may_be_longer_than_that_of_a_stop() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .kill_grace(Duration::from_secs(20))
        .stop_grace(SHORT)
        .handler(|task| {
            while !task.is_cancelled() {
                std::thread::sleep(Duration::from_micros(100));
            }
            std::thread::sleep(SHORT * 10); // it tidies up
            Ok(())
        })
        .start()
        .unwrap();
    let id = submit(&engine, "", 1, SubmitOptions::new().deadline(SHORT));
    assert_end(&wait(&engine, id), Outcome::Completed, 1);
}

#[test]
fn neighbours_of_a_late_task_may_finish_in_the_grace_and_else_are_bystanders() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 3)
        .kill_grace(Duration::from_millis(200))
        .handler(scripted(board))
        .start()
        .unwrap();
    let stuck = submit(&engine, "gate", 1, SubmitOptions::new());
    let stuck_twice = submit(&engine, "gate", 2, SubmitOptions::new().max_attempts(2));
    let late = submit(&engine, "spin", 3, SubmitOptions::new().deadline(SHORT));
    let done = wait(&engine, late);
    assert_end(&done, Outcome::TimedOut, 1);
    let bystander = wait(&engine, stuck);
    assert_end(&bystander, Outcome::Crashed, 1);
    assert!(bystander.is_collateral());
    let text = bystander.text();
    assert!(
        text.contains(&late.to_string()),
        "names the culprit: {text}"
    );
    board.set(GATE, 1);
    assert_end(&wait(&engine, stuck_twice), Outcome::Completed, 2);
}

#[test]
fn a_deadline_counts_from_the_start_not_from_the_submit() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(scripted(board)).start().unwrap();
    let first = submit(&engine, "gate", 1, SubmitOptions::new());
    let waiting: Vec<TaskId> = (0..5)
        .map(|_| submit(&engine, "", 2, SubmitOptions::new().deadline(LONG)))
        .collect();
    std::thread::sleep(LONG * 2);
    board.set(GATE, 1);
    assert!(wait(&engine, first).is_completed());
    for id in waiting {
        let done = wait(&engine, id);
        assert_end(&done, Outcome::Completed, 1);
    }
    assert_eq!(engine.stats().killed, 0);
}

#[test]
fn a_class_has_a_default_deadline_that_a_task_can_lift() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(2, 1)
        .default_deadline(miniflow::Class::CpuBound, SHORT)
        .kill_grace(GRACE)
        .handler(scripted(board))
        .start()
        .unwrap();
    let unlimited = SubmitOptions::new().deadline(Duration::MAX);
    let patient = submit(&engine, "gate", 1, unlimited);
    let late = submit(&engine, "gate", 2, SubmitOptions::new());
    assert_end(&wait(&engine, late), Outcome::TimedOut, 1);
    board.set(GATE, 1);
    assert_end(&wait(&engine, patient), Outcome::Completed, 1);
}

#[test]
fn a_late_task_is_started_again_only_if_it_asks_for_it() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .kill_grace(GRACE)
        .handler(scripted(board))
        .start()
        .unwrap();
    let twice = SubmitOptions::new().deadline(SHORT).max_attempts(2);
    let id = submit(&engine, "spin", 1, twice);
    assert_end(&wait(&engine, id), Outcome::TimedOut, 1);
    let asked = twice.deadline(LONG).retry_timed_out(true);
    let id = submit(&engine, "spin once", 2, asked);
    assert_end(&wait(&engine, id), Outcome::Completed, 2);
    assert_eq!(board.get(STARTS + 2), 2);
}

// ---- cancellation ----

#[test]
fn a_running_task_that_does_not_listen_is_cancelled_by_force() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .kill_grace(GRACE)
        .handler(scripted(board))
        .start()
        .unwrap();
    let retried = SubmitOptions::new().max_attempts(5);
    let id = submit(&engine, "spin", 1, retried);
    let queued = submit(&engine, "", 2, retried);
    until("it runs", || board.get(STARTS + 1) == 1);
    engine.cancel(id).unwrap();
    assert!(engine.wait(id, Some(SHORT)).is_err(), "it does not listen");
    engine.cancel_kill(id).unwrap();
    let done = wait(&engine, id);
    assert_end(&done, Outcome::Cancelled, 1);
    assert!(done.text().contains("by force"), "{}", done.text());
    assert_end(&wait(&engine, queued), Outcome::Completed, 1);
    let stats = engine.stats();
    assert_eq!((stats.cancelled, stats.killed, stats.died), (1, 1, 0));
    assert_eq!(board.get(STARTS + 1), 1, "not started again");
}

#[test]
fn cancelling_a_queued_task_by_force_harms_no_worker() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(scripted(board)).start().unwrap();
    let first = submit(&engine, "gate", 1, SubmitOptions::new());
    until("it runs", || board.get(STARTS + 1) == 1);
    let queued: Vec<TaskId> = (0..20)
        .map(|_| submit(&engine, "", 2, SubmitOptions::new()))
        .collect();
    for &id in &queued {
        engine.cancel_kill(id).unwrap();
    }
    board.set(GATE, 1);
    assert!(wait(&engine, first).is_completed());
    for id in queued {
        assert_end(&wait(&engine, id), Outcome::Cancelled, 0);
    }
    assert_eq!((engine.stats().killed, board.get(STARTS + 2)), (0, 0));
}

#[test]
fn the_host_sees_how_far_a_task_is() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(scripted(board)).start().unwrap();
    let id = submit(&engine, "progress", 1, SubmitOptions::new());
    until("it reports", || {
        matches!(
            engine.task_state(id).unwrap(),
            TaskState::Running {
                progress: (3, 10),
                ..
            }
        )
    });
    board.set(GATE, 1);
    assert!(wait(&engine, id).is_completed());
}

// ---- workers that do not work ----

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn a_worker_that_is_stopped_for_too_long_is_killed_and_its_tasks_are_settled() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .stopped_grace(SHORT)
        .handler(scripted(board))
        .start()
        .unwrap();
    let running = submit(&engine, "gate", 1, SubmitOptions::new());
    let queued = submit(&engine, "", 2, SubmitOptions::new());
    until("it runs", || board.get(STARTS + 1) == 1);
    signal(worker(&engine, 0).pid, Signal::STOP);
    let done = wait(&engine, running);
    assert_end(&done, Outcome::Crashed, 1);
    assert!(done.text().contains("stopped"), "{}", done.text());
    assert_end(&wait(&engine, queued), Outcome::Completed, 1);
    assert_eq!(engine.stats().killed, 1);
}

#[test]
fn a_worker_that_is_stopped_for_a_moment_only_is_left_alone() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .stopped_grace(Duration::from_secs(30))
        .handler(scripted(board))
        .start()
        .unwrap();
    let pid = worker(&engine, 0).pid;
    let id = submit(&engine, "gate", 1, SubmitOptions::new());
    until("it runs", || board.get(STARTS + 1) == 1);
    signal(pid, Signal::STOP);
    std::thread::sleep(SHORT);
    signal(pid, Signal::CONT);
    board.set(GATE, 1);
    assert_end(&wait(&engine, id), Outcome::Completed, 1);
    assert_eq!(worker(&engine, 0).pid, pid);
}

#[test]
fn a_worker_under_a_debugger_is_left_alone() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .stopped_grace(SHORT)
        .kill_grace(GRACE)
        .handler(scripted(board))
        .start()
        .unwrap();
    let pid = worker(&engine, 0).pid;
    let id = submit(&engine, "gate", 1, SubmitOptions::new().deadline(LONG * 2));
    until("it runs", || board.get(STARTS + 1) == 1);
    let tracee = pid.cast_signed();
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: attaches to a process; no memory of this one is involved.
    let rc = unsafe { libc::ptrace(libc::PTRACE_ATTACH, tracee, null, null) };
    if rc != 0 {
        eprintln!("SKIP: ptrace is not allowed here");
        return;
    }
    until("it is stopped by the debugger", || {
        common::Proc::read(pid).is_some_and(|p| p.state == 't')
    });
    std::thread::sleep(LONG * 3); // far beyond the deadline and the grace for stopped ones
    assert!(common::is_alive(pid));
    assert_eq!(engine.stats().killed, 0);
    board.set(GATE, 1);
    // SAFETY: as above.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, tracee, null, null) };
    let done = wait(&engine, id);
    assert!(
        matches!(done.outcome(), Outcome::Completed | Outcome::TimedOut),
        "{}",
        done.text()
    );
}

/// Not a test by itself: a worker program that joins, takes as many tasks as its variable says, and
/// sleeps.
#[test]
fn a_program_that_falls_asleep() {
    let Some(tasks) = std::env::var_os("MINIFLOW_LANE").and(std::env::var("SLEEPER_TASKS").ok())
    else {
        return;
    };
    let worker = miniflow::worker::Worker::join().unwrap();
    for _ in 0..tasks.parse().unwrap() {
        match worker.next(None) {
            Ok(assigned) => assigned.finish(Ok(())),
            Err(_) => return, // the engine stops
        }
    }
    std::thread::sleep(Duration::from_secs(1000));
}

fn sleepers(tasks: u32) -> miniflow::Builder {
    // SAFETY: each test has a process of its own (and the others of this file do not look).
    unsafe { std::env::set_var("SLEEPER_TASKS", tasks.to_string()) };
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    cpu_only(1, 1)
        .hang_timeout(Duration::from_millis(300))
        .kill_grace(GRACE)
        .program([program, "--exact", "a_program_that_falls_asleep"])
}

#[test]
fn a_worker_that_leaves_its_tasks_unstarted_is_taken_for_hung_and_replaced() {
    let _watchdog = watchdog(60);
    let engine = sleepers(3).start().unwrap();
    let ids: Vec<TaskId> = (0..8).map(|_| engine.submit(b"").unwrap()).collect();
    for id in ids {
        assert_end(&wait(&engine, id), Outcome::Completed, 1);
    }
    let stats = engine.stats();
    assert!(stats.killed >= 2, "{stats:?}");
    assert_eq!((stats.crashed, stats.violations), (0, 0));
}

#[test]
fn tasks_that_no_worker_ever_starts_fail_with_the_reason() {
    let _watchdog = watchdog(60);
    let engine = sleepers(0).start().unwrap();
    let id = engine.submit(b"").unwrap();
    let done = wait(&engine, id);
    assert_end(&done, Outcome::Failed, 0);
    assert!(done.text().contains("started none"), "{}", done.text());
}

#[test]
fn a_worker_is_replaced_after_its_share_of_tasks() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1)
        .recycle_after(50)
        .handler(|task| Ok(task.reply(&std::process::id().to_le_bytes())?))
        .start()
        .unwrap();
    for _ in 0..500 {
        engine.submit(b"").unwrap();
    }
    let mut by_pid = std::collections::HashMap::new();
    for done in collect(&engine, 500) {
        assert_end(&done, Outcome::Completed, 1);
        *by_pid.entry(done.to_vec()).or_insert(0) += 1;
    }
    assert!(by_pid.values().all(|&tasks| tasks <= 50), "{by_pid:?}");
    assert!(by_pid.len() >= 10);
    until("they are replaced", || engine.stats().recycled >= 9);
    let stats = engine.stats();
    assert_eq!((stats.died, stats.killed, stats.crashed), (0, 0, 0));
}

#[test]
fn a_worker_that_has_grown_too_large_is_replaced() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .recycle_rss(100 << 20)
        .handler(|task| {
            if task.payload() == b"grow" {
                std::hint::black_box(vec![1_u8; 200 << 20].leak());
            }
            Ok(())
        })
        .start()
        .unwrap();
    let pid = worker(&engine, 0).pid;
    let id = engine.submit(b"grow").unwrap();
    assert!(wait(&engine, id).is_completed());
    until("it is replaced", || {
        let id = engine.submit(b"").unwrap();
        assert!(wait(&engine, id).is_completed());
        engine.workers().iter().all(|row| row.pid != pid)
    });
    let stats = engine.stats();
    // More than once if the host itself is large: what a worker shares with it counts.
    assert!(stats.recycled >= 1);
    assert_eq!((stats.died, stats.crashed), (0, 0));
}

#[test]
fn a_worker_that_is_asked_to_end_by_hand_finishes_what_it_runs() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    // However long that takes: this is no stop.
    let engine = cpu_only(1, 1)
        .stop_grace(Duration::from_millis(1))
        .handler(scripted(board))
        .start()
        .unwrap();
    let pid = worker(&engine, 0).pid;
    let running = submit(&engine, "gate", 1, SubmitOptions::new());
    until("it runs", || board.get(STARTS + 1) == 1);
    let queued: Vec<TaskId> = (0..10)
        .map(|_| submit(&engine, "", 2, SubmitOptions::new()))
        .collect();
    signal(pid, Signal::TERM);
    std::thread::sleep(SHORT);
    board.set(GATE, 1);
    assert_end(&wait(&engine, running), Outcome::Completed, 1);
    for id in queued {
        assert_end(&wait(&engine, id), Outcome::Completed, 1);
    }
    until("it is replaced", || {
        engine
            .workers()
            .iter()
            .any(|row| row.pid != pid && row.pid != 0)
    });
    kill(worker(&engine, 0).pid); // also the new one can be killed
}
