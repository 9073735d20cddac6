//! Everything at once that moves tasks about: sticky keys, priorities, retries and cancellations, more workers
//! than are looked at one by one, and a submitter that waits for room, while workers come, go and are
//! killed, and the policy changes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use common::{Random, SetAtEnd, cpu_only, until, watchdog_alone};
use miniflow::{
    Candidate, Class, Completion, Engine, Error, Outcome, Policy, SubmitOptions, TaskId,
};

/// Few are looked at one by one, more are indexed: both, and the way from either to the other.
const MOST: u32 = 14;
const STIRS: u32 = 200;

/// Resizes, kills and changes the policy at random.
fn stir(engine: &Engine) {
    let policies = [
        Policy::LeastLoaded,
        Policy::PowerOfTwo,
        Policy::RoundRobin,
        Policy::custom(|_: Class, workers: &[Candidate]| Some(workers.len() - 1)),
        Policy::custom(|_: Class, workers: &[Candidate]| Some(workers.len())), // there is none
    ];
    let mut random = Random(1);
    for _ in 0..STIRS {
        match random.below(3) {
            0 => {
                let workers = 1 + random.below(u64::from(MOST)) as u32;
                engine.resize(Class::CpuBound, workers).unwrap();
            }
            1 => {
                let rows = engine.workers();
                let victim = rows.get(random.below(u64::from(MOST)) as usize);
                // One that leaves may be gone before it is killed.
                if let Some(pid) =
                    victim.and_then(|row| rustix::process::Pid::from_raw(row.pid.cast_signed()))
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            _ => {
                let policy = &policies[random.below(policies.len() as u64) as usize];
                engine.set_policy(policy.clone()).unwrap();
            }
        }
        let before = engine.stats().completed;
        until("a task has ended", || engine.stats().completed > before);
    }
}

fn options(random: &mut Random) -> SubmitOptions {
    let key = [0, 0, 1, 2, random.below(1000)][random.below(5) as usize];
    SubmitOptions::new()
        .sticky_key(key)
        .priority(random.below(7) as i32 - 3)
        .retry_failed(true)
        .user_data(random.below(100))
}

#[test]
fn whatever_moves_tasks_about_each_of_them_ends_once() {
    let _watchdog = watchdog_alone(300);
    let engine = cpu_only(1, 1)
        .workers_between(Class::CpuBound, 1, MOST)
        .max_tasks(300)
        .default_attempts(1000)
        .handler(|task| match task.user_data() {
            // Now and then one that a kill may hit, and one that fails at first.
            0 => {
                std::thread::sleep(Duration::from_millis(2));
                Ok(())
            }
            1 if task.attempt() < 3 => Err("not yet".into()),
            _ => Ok(()),
        })
        .start()
        .unwrap();
    let (stirred, blocked) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut accepted = Vec::<TaskId>::new();
    let (mut asked, mut never) = (HashSet::<TaskId>::new(), HashSet::<TaskId>::new());
    let mut done = Vec::<Completion>::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _end = SetAtEnd(&stirred); // also if an assertion fails here
            stir(&engine);
        });
        let waiting = scope.spawn(|| {
            let _end = SetAtEnd(&blocked);
            let (mut random, mut accepted) = (Random(2), Vec::new());
            while !stirred.load(SeqCst) {
                let wait = Some(Duration::from_millis(100));
                match engine.submit_wait(b"", &options(&mut random), wait) {
                    Ok(id) => accepted.push(id),
                    Err(Error::Timeout | Error::WouldBlock(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            accepted
        });
        let mut random = Random(3);
        while !stirred.load(SeqCst) || !blocked.load(SeqCst) {
            if !stirred.load(SeqCst)
                && let Ok(id) = engine.submit_with(b"", &options(&mut random))
            {
                accepted.push(id);
                match random.below(20) {
                    0 => {
                        engine.cancel(id).unwrap();
                        asked.insert(id);
                    }
                    1 if engine.cancel_unstarted(id).unwrap() => drop(never.insert(id)),
                    _ => {}
                }
            }
            done.extend(engine.poll(16, Some(Duration::from_millis(1))).unwrap());
        }
        accepted.extend(waiting.join().unwrap());
    });
    let left = accepted.len() - done.len();
    done.extend(common::collect(&engine, left));
    let ended: HashSet<TaskId> = done.iter().map(Completion::id).collect();
    assert_eq!(ended.len(), done.len(), "one ended twice");
    assert_eq!(ended, accepted.into_iter().collect());
    for completion in &done {
        let as_expected = match completion.outcome() {
            Outcome::Completed => !never.contains(&completion.id()),
            Outcome::Cancelled => [&asked, &never]
                .iter()
                .any(|c| c.contains(&completion.id())),
            // It was started before it was to be cancelled, and is not started again.
            Outcome::Failed => asked.contains(&completion.id()),
            _ => false,
        };
        assert!(as_expected, "{completion:?}");
    }
    let ran = |completion: &&Completion| completion.outcome() != Outcome::Cancelled;
    let ran = done.iter().filter(ran).count() as u64;
    let (stats, status) = (engine.stats(), engine.status());
    let class = status.class(Class::CpuBound).unwrap();
    assert_eq!(class.run_time.count(), ran);
    assert_eq!((stats.queued, stats.on_workers, stats.unpolled), (0, 0, 0));
    assert!(stats.died > 0 && stats.retried > 0 && stats.policy_failures > 0);
}
