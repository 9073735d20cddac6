//! The number of workers follows the load, by the built-in policies and by the host's own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Board, collect, cpu_only, until, watchdog, watchdog_alone};
use miniflow::{
    Action, Builder, Candidate, Class, Completion, Engine, Error, Policy, Scaling, Snapshot,
    Submission, WorkerState,
};

fn scaled(min: u32, max: u32, scaling: Scaling) -> Builder {
    // Others may use this machine.
    let scaling = scaling.cpu(1.0).memory(1.0).memory_pressure(1.0);
    cpu_only(min, 1)
        .workers_between(Class::CpuBound, min, max)
        .scaling(scaling)
}

fn sleep_50_ms(_: &mut miniflow::worker::Task<'_>) -> miniflow::worker::TaskResult {
    std::thread::sleep(Duration::from_millis(50));
    Ok(())
}

fn submit(engine: &Engine, count: usize) {
    let tasks = (0..count).map(|_| Submission::from(&b""[..]));
    assert_eq!(engine.submit_batch(tasks).unwrap().len(), count);
}

fn actions(engine: &Engine, action: Action) -> usize {
    let decisions = engine.scaling_decisions();
    decisions.iter().filter(|d| d.action == action).count()
}

const TASKS: usize = 200;
/// How long each of them runs. One worker would take 10 s.
const SERVICE: Duration = Duration::from_millis(50);

/// What became of a load step.
struct Step {
    done: Vec<Completion>,
    /// From the submit of all tasks to their end.
    elapsed: Duration,
    /// When each worker was seen to be ready, from the submit.
    ready: BTreeMap<u32, Duration>,
}

impl Step {
    fn run(engine: &Engine) -> Self {
        let start = Instant::now();
        submit(engine, TASKS);
        let (mut done, mut ready) = (Vec::new(), BTreeMap::new());
        while done.len() < TASKS {
            done.extend(engine.poll(64, Some(Duration::from_millis(10))).unwrap());
            for row in engine.workers() {
                if row.state == WorkerState::Ready {
                    ready.entry(row.slot).or_insert_with(|| start.elapsed());
                }
            }
        }
        let elapsed = start.elapsed();
        Self {
            done,
            elapsed,
            ready,
        }
    }

    /// How many tasks each worker has begun since the last worker was ready.
    fn shares(&self) -> BTreeMap<u32, usize> {
        let all_ready = *self.ready.values().max().unwrap();
        let mut shares: BTreeMap<u32, usize> = self.ready.keys().map(|&slot| (slot, 0)).collect();
        for completion in self.done.iter().filter(|c| c.queued() >= all_ready) {
            *shares.get_mut(&completion.worker()).unwrap() += 1;
        }
        shares
    }

    /// The longest time for which a worker had nothing to do while a task waited.
    fn longest_idle(&self) -> Duration {
        let last_start = self.done.iter().map(Completion::queued).max().unwrap();
        let of_worker = |(&slot, &ready): (&u32, &Duration)| {
            let mut runs: Vec<(Duration, Duration)> = (self.done.iter())
                .filter(|c| c.worker() == slot)
                .map(|c| (c.queued(), c.queued() + c.ran()))
                .collect();
            runs.sort_unstable();
            runs.push((last_start, last_start));
            let mut free_since = ready;
            let mut longest = Duration::ZERO;
            for (start, end) in runs {
                longest = longest.max(start.saturating_sub(free_since));
                free_since = end;
            }
            longest
        };
        self.ready.iter().map(of_worker).max().unwrap()
    }
}

fn load_step(scaling: Scaling) {
    // The way back takes as many seconds as there are workers, instead of three times that.
    let engine = scaled(1, 8, scaling.idle_looks(1))
        .handler(sleep_50_ms)
        .start()
        .unwrap();
    let step = Step::run(&engine);
    assert!(step.done.iter().all(Completion::is_completed));
    assert!(
        step.elapsed * 4 < SERVICE * TASKS as u32,
        "{:?}: {:?}",
        step.elapsed,
        engine.scaling_decisions()
    );
    let shares = step.shares();
    let (least, most) = (
        shares.values().min().unwrap(),
        shares.values().max().unwrap(),
    );
    assert_eq!(shares.len(), 8, "{shares:?}");
    assert!(*most as f64 <= *least as f64 * 1.5, "{shares:?}");
    let idle = step.longest_idle();
    assert!(idle < SERVICE, "idle for {idle:?} while tasks waited");
    assert!(actions(&engine, Action::Grow) <= 4);
    for decision in engine.scaling_decisions() {
        assert!(!decision.reason.is_empty());
        assert_eq!(decision.snapshot.target, decision.before);
    }
    until("the minimum of workers is back", || {
        engine.workers().len() == 1 && engine.stats().workers == 1
    });
}

/// The times are those of a machine that others use too: three attempts.
fn thrice(test: impl Fn() + std::panic::UnwindSafe + Copy) {
    for _ in 0..2 {
        if std::panic::catch_unwind(test).is_ok() {
            return;
        }
    }
    test();
}

#[test]
fn a_load_step_is_spread_done_four_times_as_fast_and_forgotten_by_the_default_policy() {
    let _watchdog = watchdog_alone(180);
    thrice(|| load_step(Scaling::by_load()));
}

#[test]
fn a_load_step_is_spread_done_four_times_as_fast_and_forgotten_by_the_compatible_policy() {
    let _watchdog = watchdog_alone(180);
    thrice(|| load_step(Scaling::compatible()));
}

#[test]
fn a_load_step_is_spread_done_four_times_as_fast_and_forgotten_by_the_adaptive_policy() {
    let _watchdog = watchdog_alone(180);
    thrice(|| load_step(Scaling::adaptive()));
}

/// Six threads have enough to do for 5 s, then nobody has for 5 s, and so on for 3 minutes. Only with
/// `MINIFLOW_LONG=1`; the short form is the simulation in `src/engine/scaling`.
fn alternating_load(name: &str, scaling: Scaling) {
    if std::env::var_os("MINIFLOW_LONG").is_none() {
        println!(
            "SKIP: three minutes, with MINIFLOW_LONG=1 only; the policies' own tests simulate it"
        );
        return;
    }
    let _watchdog = watchdog(300);
    const HALF: Duration = Duration::from_secs(5);
    let engine = scaled(1, 8, scaling).handler(sleep_50_ms).start().unwrap();
    let between = SERVICE / 6;
    let start = Instant::now();
    let (mut submitted, mut ended) = (0, 0);
    let mut longest_wait = Duration::ZERO;
    let mut settled = None;
    for half in 0..36 {
        let end = HALF * (half + 1);
        let mut next = HALF * half;
        while start.elapsed() < end {
            if half % 2 == 0 && start.elapsed() >= next {
                next += between;
                engine.submit(b"").unwrap();
                submitted += 1;
                continue;
            }
            let until = if half % 2 == 0 { next.min(end) } else { end };
            let wait = until.saturating_sub(start.elapsed());
            for completion in engine.poll(64, Some(wait)).unwrap() {
                longest_wait = longest_wait.max(completion.queued());
                ended += 1;
            }
        }
        if half == 11 {
            settled = Some(engine.scaling_decisions().len());
        }
    }
    ended += collect(&engine, submitted - ended).len();
    let settled = settled.unwrap();
    let decisions = engine.scaling_decisions();
    let text: Vec<String> = (decisions.iter())
        .map(|d| {
            format!(
                "{:.1} s: {} -> {}",
                d.snapshot.now.as_secs_f32(),
                d.before,
                d.after
            )
        })
        .collect();
    println!(
        "{name}: {settled} actions in the first minute, {} afterwards; {ended} tasks, the longest wait {longest_wait:?}; {text:?}",
        decisions.len() - settled
    );
    assert_eq!(submitted, ended);
    assert!(settled > 0 && decisions.len() - settled <= 8, "{text:?}");
}

#[test]
fn a_load_that_alternates_does_not_make_workers_come_and_go_by_the_default_policy() {
    alternating_load("by_load", Scaling::by_load());
}

#[test]
fn a_load_that_alternates_does_not_make_workers_come_and_go_by_the_compatible_policy() {
    alternating_load("compatible", Scaling::compatible());
}

#[test]
fn a_load_that_alternates_does_not_make_workers_come_and_go_by_the_adaptive_policy() {
    alternating_load("adaptive", Scaling::adaptive());
}

#[test]
fn after_the_load_the_minimum_of_workers_comes_back() {
    let _watchdog = watchdog(120);
    let engine = scaled(1, 4, Scaling::adaptive().idle_looks(1))
        .handler(sleep_50_ms)
        .start()
        .unwrap();
    submit(&engine, 100);
    assert_eq!(collect(&engine, 100).len(), 100);
    assert!(actions(&engine, Action::Grow) > 0);
    until("one worker is left", || {
        engine.workers().len() == 1 && engine.stats().workers == 1
    });
    assert!(actions(&engine, Action::Shrink) > 0);
}

#[test]
fn the_worker_that_has_been_idle_longest_leaves_first() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let chosen = Arc::new(AtomicU32::new(0));
    let asked = Arc::clone(&chosen);
    let policy = move |_: Class, workers: &[Candidate]| {
        let slot = asked.load(SeqCst);
        workers.iter().position(|worker| worker.slot == slot)
    };
    let engine = cpu_only(5, 1)
        .policy(Policy::custom(policy))
        .handler(move |task| {
            if task.payload() == b"gate" {
                board.wait(0);
            }
            Ok(())
        })
        .start()
        .unwrap();
    let run = |slot| {
        chosen.store(slot, SeqCst);
        let id = engine.submit(b"").unwrap();
        assert_eq!(engine.wait(id, None).unwrap().worker(), slot);
    };
    for slot in [4, 2, 0, 3, 1] {
        run(slot);
    }
    // Its last task ended first, but it is not idle.
    chosen.store(4, SeqCst);
    engine.submit(b"gate").unwrap();
    let slots = || -> Vec<u32> { engine.workers().iter().map(|row| row.slot).collect() };
    for (workers, left) in [(4, vec![0, 1, 3, 4]), (3, vec![1, 3, 4]), (2, vec![1, 4])] {
        engine.resize(Class::CpuBound, workers).unwrap();
        until("the right one has left", || slots() == left);
    }
    board.set(0, 1);
    assert_eq!(collect(&engine, 1)[0].worker(), 4);
}

#[test]
fn new_workers_get_a_share_of_what_waits_already() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = scaled(1, 4, Scaling::by_load())
        .handler(move |_| {
            board.add(0);
            board.wait(1);
            Ok(())
        })
        .start()
        .unwrap();
    submit(&engine, 40);
    // Each task holds its worker: four run only if three new workers have taken theirs.
    until("four run", || board.get(0) == 4);
    board.set(1, 1);
    assert_eq!(collect(&engine, 40).len(), 40);
}

#[test]
fn a_resize_by_hand_is_kept_although_a_policy_would_decide_otherwise() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = scaled(1, 4, Scaling::by_load())
        .handler(move |_| {
            board.wait(0);
            Ok(())
        })
        .start()
        .unwrap();
    engine.resize(Class::CpuBound, 2).unwrap();
    submit(&engine, 50);
    until("two are ready", || engine.stats().workers == 2);
    let start = Instant::now();
    until("many looks have passed", || {
        start.elapsed() > Duration::from_secs(1)
    });
    assert_eq!(engine.workers().len(), 2);
    let decisions = engine.scaling_decisions();
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(
        (decisions[0].action, decisions[0].before, decisions[0].after),
        (Action::Resize, 1, 2)
    );
    board.set(0, 1);
    assert_eq!(collect(&engine, 50).len(), 50);
}

#[test]
fn what_a_policy_would_have_done_during_a_resize_by_hand_does_not_count_as_done() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = scaled(1, 64, Scaling::by_load())
        .handler(move |_| {
            board.wait(0);
            Ok(())
        })
        .start()
        .unwrap();
    engine.resize(Class::CpuBound, 2).unwrap();
    submit(&engine, 1000);
    until("the policy has its way again", || {
        actions(&engine, Action::Grow) > 0
    });
    let decisions = engine.scaling_decisions();
    // By one, then two, four ...: it has taken no step before.
    assert_eq!((decisions[1].before, decisions[1].after), (2, 3));
    board.set(0, 1);
    assert_eq!(collect(&engine, 1000).len(), 1000);
}

#[test]
fn a_policy_of_the_hosts_own_decides_within_the_limits() {
    let _watchdog = watchdog(60);
    let wanted = Arc::new(AtomicU32::new(3));
    let asked = Arc::clone(&wanted);
    let policy = move |s: &Snapshot| {
        assert_eq!((s.class, s.min, s.max), (Class::CpuBound, 1, 4));
        Some(asked.load(SeqCst))
    };
    let engine = scaled(
        1,
        4,
        Scaling::custom(policy).interval(Duration::from_millis(5)),
    )
    .handler(|_| Ok(()))
    .start()
    .unwrap();
    let reach = |ask: u32, workers: u64| {
        wanted.store(ask, SeqCst);
        until("the policy has its way", || {
            // A policy is asked while there is something to do.
            let id = engine.submit(b"").unwrap();
            engine.wait(id, None).unwrap();
            engine.stats().workers == workers
        });
    };
    reach(3, 3);
    reach(100, 4);
    reach(0, 1);
    assert_eq!(actions(&engine, Action::Failure), 0);
}

#[test]
fn a_policy_that_panics_is_logged_and_asked_again() {
    let _watchdog = watchdog(60);
    let mut calls = 0;
    let policy = move |_: &Snapshot| {
        calls += 1;
        if calls < 3 {
            std::panic::resume_unwind(Box::new("a bad policy"));
        }
        Some(2)
    };
    let board = Board::new();
    let engine = scaled(
        1,
        2,
        Scaling::custom(policy).interval(Duration::from_millis(5)),
    )
    .handler(move |_| {
        board.wait(0);
        Ok(())
    })
    .start()
    .unwrap();
    submit(&engine, 4);
    until("the third answer counts", || engine.stats().workers == 2);
    assert_eq!(actions(&engine, Action::Failure), 2);
    assert!(
        engine.scaling_decisions()[0]
            .reason
            .contains("a bad policy")
    );
    board.set(0, 1);
    assert_eq!(collect(&engine, 4).len(), 4);
}

#[test]
fn a_policy_that_thinks_for_ever_stalls_neither_the_engine_nor_its_end() {
    let _watchdog = watchdog(60);
    let asked = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&asked);
    let policy = move |_: &Snapshot| -> Option<u32> {
        told.store(true, SeqCst);
        loop {
            std::thread::park();
        }
    };
    let engine = scaled(
        2,
        4,
        Scaling::custom(policy).interval(Duration::from_millis(5)),
    )
    .handler(|_| Ok(()))
    .start()
    .unwrap();
    until("it is asked", || {
        let id = engine.submit(b"").unwrap();
        engine.wait(id, None).unwrap();
        asked.load(SeqCst)
    });
    submit(&engine, 1000);
    assert_eq!(collect(&engine, 1000).len(), 1000);
    let worker = engine.workers()[0];
    common::kill(worker.pid);
    until("the killed worker is replaced", || {
        engine.stats().workers == 2 && engine.workers()[0].pid != worker.pid
    });
    engine.stop(Some(Duration::from_secs(10))).unwrap();
}

#[test]
fn bad_settings_and_a_policy_that_is_used_twice_are_refused() {
    let _watchdog = watchdog(60);
    for scaling in [
        Scaling::by_load().interval(Duration::ZERO),
        Scaling::by_load().interval(Duration::MAX),
        Scaling::by_load().load(0.0),
        Scaling::by_load().peak(f32::NAN),
        Scaling::adaptive().idle_looks(0),
    ] {
        let started = cpu_only(1, 1).handler(|_| Ok(())).scaling(scaling).start();
        assert!(matches!(started, Err(Error::Invalid(_))));
    }
    let builder = scaled(1, 2, Scaling::custom(|_: &Snapshot| None)).handler(|_| Ok(()));
    let _first = builder.clone().start().unwrap();
    assert!(matches!(builder.start(), Err(Error::Invalid(_))));
}
