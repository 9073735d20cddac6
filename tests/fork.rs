//! Forks by the host, engines in hosts that have threads, several engines in one host.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use common::{
    Board, bytes, children_of, collect, cpu_only, until, watchdog, watchdog_alone, zygote_of,
};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Class, Completion, Error, Submission, SubmitOptions};
use rustix::process::{Pid, WaitOptions, waitpid};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn echo(task: &mut Task<'_>) -> TaskResult {
    let payload = task.payload().to_vec();
    Ok(task.reply(&payload)?)
}

/// Runs `body` in a forked child of this process, which has other threads; panics if it does. What
/// the child does must not need a lock that another thread may hold: a panic's message is lost.
#[track_caller]
fn in_a_forked_child(body: impl FnOnce() -> bool) {
    // SAFETY: the child does what is said above, and never returns.
    let child = match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no preconditions. If the test hangs, the child goes with it.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let body = std::panic::AssertUnwindSafe(body);
            let good = std::panic::catch_unwind(body).unwrap_or(false);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        child => Pid::from_raw(child).unwrap(),
    };
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child: {status:?}");
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "so that a call can be asked in place"
)]
fn invalid<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Invalid(_)))
}

#[test]
fn an_engine_refuses_to_work_in_a_forked_child() {
    let _watchdog = watchdog_alone(60);
    let engine = cpu_only(2, 1).handler(echo).start().unwrap();
    let id = engine.submit(b"parent's").unwrap();
    let mut loan = engine.loan(1000).unwrap();
    in_a_forked_child(|| {
        let options = SubmitOptions::new();
        let batch = [Submission::from(&b"x"[..])];
        invalid(engine.submit(b"x"))
            && invalid(engine.submit(&[0; 100_000]))
            && invalid(engine.submit_wait(b"x", &options, None))
            && invalid(engine.submit_batch(batch))
            && invalid(engine.loan(10))
            && invalid(loan.try_submit(&options))
            && invalid(engine.poll(1, None))
            && invalid(engine.wait(id, None))
            && invalid(engine.cancel(id))
            && invalid(engine.task_state(id))
            && invalid(engine.event_fd())
            && invalid(engine.resize(Class::CpuBound, 1))
            && invalid(engine.stop(None))
            && engine.completions().next().is_none()
            && engine.stats() == miniflow::Stats::default()
            && engine.workers().is_empty()
            && engine.status_json() == "{}"
            && engine.metrics_text().is_empty()
            && loan.is_empty()
    });
    assert_eq!(engine.wait(id, None).unwrap().to_vec(), b"parent's");
    loan.fill(4);
    let id = loan.submit(&SubmitOptions::new()).unwrap();
    assert_eq!(engine.wait(id, None).unwrap().to_vec(), [4; 1000]);
    engine.stop(None).unwrap();
}

#[test]
fn what_a_forked_child_drops_is_still_the_parents() {
    let _watchdog = watchdog_alone(60);
    let name = common::Name::unique();
    let engine = cpu_only(1, 1).name(&*name).handler(echo).start().unwrap();
    let payload = bytes(1, 1 << 20);
    let large = engine.submit(&payload).unwrap();
    let large = engine.wait(large, None).unwrap();
    let small = engine.submit(b"small").unwrap();
    let small = engine.wait(small, None).unwrap();
    let mut loan = engine.loan(1000).unwrap();
    loan.fill(4);
    let pid = engine.workers()[0].pid;

    let mut held = Some((engine, large, small, loan));
    // The child's copies of everything, by a move out of the child's copy of `held`.
    let mut take = || held.take();
    in_a_forked_child(|| {
        let Some((engine, large, small, loan)) = take() else {
            return false;
        };
        // The worker's memory is not mapped in the child: it reads as nothing, not as a crash.
        let mut buffer = [0; 100];
        let fine = large.to_vec().is_empty()
            && large.copy_to(&mut buffer) == 0
            && large.as_bytes().is_none()
            && small.to_vec() == b"small";
        drop(loan);
        drop(large);
        drop(engine);
        drop(small);
        fine
    });

    let (engine, large, small, loan) = held.unwrap();
    assert!(name.path().exists());
    assert!(large.to_vec() == payload);
    assert_eq!(small.to_vec(), b"small");
    drop(large);
    let id = loan.submit(&SubmitOptions::new()).unwrap();
    assert_eq!(engine.wait(id, None).unwrap().to_vec(), [4; 1000]);
    for _ in 0..100 {
        engine.submit(&[0; 20_000]).unwrap();
    }
    assert!(collect(&engine, 100).iter().all(Completion::is_completed));
    assert_eq!(engine.workers()[0].pid, pid);
    assert_eq!((engine.stats().died, engine.stats().payload_bytes), (0, 0));
}

#[test]
fn a_forked_child_that_outlives_the_engine_keeps_nothing_alive() {
    let _watchdog = watchdog_alone(60);
    let name = common::Name::unique();
    let board = Board::new();
    let engine = cpu_only(2, 1).name(&*name).handler(echo).start().unwrap();
    let zygote = zygote_of(&engine);
    let workers = children_of(zygote);
    // SAFETY: the child only waits and ends.
    let child = match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no preconditions.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            board.wait(0);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        child => Pid::from_raw(child).unwrap(),
    };
    engine.submit(b"x").unwrap();
    assert!(collect(&engine, 1)[0].is_completed());
    drop(engine);
    assert!(!common::is_alive(zygote));
    assert!(!workers.iter().any(|&pid| common::is_alive(pid)));
    assert!(!name.path().exists());
    // Its copies of the descriptors do not keep the name in use.
    drop(cpu_only(1, 1).name(&*name).handler(echo).start().unwrap());
    board.set(0, 1);
    waitpid(Some(child), WaitOptions::empty()).unwrap();
}

#[test]
fn a_forked_child_can_have_an_engine_of_its_own() {
    let _watchdog = watchdog_alone(60);
    let engine = cpu_only(1, 1).handler(echo).start().unwrap();
    in_a_forked_child(|| {
        let own = cpu_only(1, 1)
            .handler(|task| Ok(task.reply(b"child")?))
            .start();
        let Ok(own) = own else { return false };
        let Ok(id) = own.submit(b"") else {
            return false;
        };
        let completion = own.wait(id, Some(Duration::from_secs(10)));
        let fine = completion.is_ok_and(|c| c.to_vec() == b"child");
        fine && own.stop(None).is_ok() && invalid(engine.submit(b""))
    });
    let id = engine.submit(b"parent").unwrap();
    assert_eq!(engine.wait(id, None).unwrap().to_vec(), b"parent");
}

#[test]
fn an_engine_starts_in_a_process_that_has_threads() {
    let _watchdog = watchdog(60);
    let stop = AtomicBool::new(false);
    let lock = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // They allocate and hold locks at every moment, also when the zygote is forked.
        for thread in 0..3 {
            let (stop, lock) = (&stop, &lock);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let mut list = lock.lock().unwrap();
                    list.push(vec![thread; 1000]);
                    if list.len() > 100 {
                        list.clear();
                    }
                }
            });
        }
        for round in 0..20_u8 {
            let engine = cpu_only(2, 2)
                .handler(|task| {
                    let map: HashMap<u8, usize> = task
                        .payload()
                        .iter()
                        .map(|&b| (b, usize::from(b)))
                        .collect();
                    Ok(task.reply(&map.len().to_le_bytes())?)
                })
                .start()
                .unwrap();
            for _ in 0..50 {
                engine.submit(&[round, 100, 101]).unwrap();
            }
            for completion in collect(&engine, 50) {
                assert_eq!(completion.to_vec(), 3_usize.to_le_bytes());
            }
        }
        stop.store(true, SeqCst);
    });
}

#[test]
fn two_engines_in_one_process_do_not_know_each_other() {
    let _watchdog = watchdog(60);
    let start = |answer: &'static [u8]| {
        let builder = cpu_only(1, 2).handler(move |task| Ok(task.reply(answer)?));
        builder.start().unwrap()
    };
    let (first, second) = (start(b"first"), start(b"second"));
    let id = first.submit(b"").unwrap();
    assert!(matches!(second.wait(id, None), Err(Error::NotFound)));
    assert!(matches!(second.cancel(id), Err(Error::NotFound)));
    assert_eq!(first.wait(id, None).unwrap().to_vec(), b"first");

    std::thread::scope(|scope| {
        for (engine, answer) in [(&first, &b"first"[..]), (&second, b"second")] {
            scope.spawn(move || {
                for _ in 0..500 {
                    let id = engine.submit(b"").unwrap();
                    assert_eq!(engine.wait(id, None).unwrap().to_vec(), answer);
                }
            });
        }
    });
    assert_ne!(zygote_of(&first), zygote_of(&second));
    let workers = children_of(zygote_of(&first));
    drop(first);
    assert!(!workers.iter().any(|&pid| common::is_alive(pid)));
    let id = second.submit(b"").unwrap();
    assert_eq!(second.wait(id, None).unwrap().to_vec(), b"second");
}

#[test]
fn engines_started_at_once_by_several_threads_all_work() {
    let _watchdog = watchdog(60);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for round in 0..5_u8 {
                    let tag = [thread, round];
                    let engine = cpu_only(2, 1)
                        .handler(move |task| Ok(task.reply(&tag)?))
                        .start()
                        .unwrap();
                    for _ in 0..20 {
                        engine.submit(b"").unwrap();
                    }
                    for completion in collect(&engine, 20) {
                        assert_eq!(completion.to_vec(), tag);
                    }
                    engine.stop(None).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_handler_may_fork() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1)
        .handler(|task| {
            let status = std::process::Command::new("sh")
                .args(["-c", "exit 7"])
                .status()?;
            Ok(task.reply(&[status.code().unwrap_or(0) as u8])?)
        })
        .start()
        .unwrap();
    for _ in 0..5 {
        engine.submit(b"").unwrap();
    }
    assert!(collect(&engine, 5).iter().all(|c| c.to_vec() == [7]));
}

#[test]
fn a_host_that_reaps_every_child_does_no_harm() {
    let _watchdog = watchdog_alone(60);
    let engine = cpu_only(1, 1).handler(echo).start().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let _ = waitpid(None, WaitOptions::NOHANG);
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        engine.submit(b"x").unwrap();
        assert_eq!(collect(&engine, 1)[0].to_vec(), b"x");
        let before = engine.workers()[0];
        common::kill(before.pid);
        until("it is replaced", || {
            engine.stats().workers == 1 && engine.workers()[0].pid != before.pid
        });
        engine.submit(b"y").unwrap();
        assert_eq!(collect(&engine, 1)[0].to_vec(), b"y");
        engine.stop(None).unwrap();
        stop.store(true, SeqCst);
    });
    assert!(engine.poll(1, NOW).unwrap().is_empty());
}
