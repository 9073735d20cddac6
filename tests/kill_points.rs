//! A worker is killed between any two stores of the lane protocol, one after the other, alone and
//! with its other threads in mid-publication. Each time, every task ends once, and as it should.
//!
//! `cargo test --features kill-points --test kill_points`; `KILL_POINT=finish.` picks the points
//! whose name begins so, `MINIFLOW_LONG=1` kills at each of the first 60 passes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::{Board, bytes, checksum, cpu_only, is_alive, until, watchdog_alone, zygote_of};
use miniflow::kill_points::{self, NAMES};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Class, Completion, Engine, Outcome, SubmitOptions, TaskId, WorkerState};

// ---- what happens at each point ----

/// What the host has workers do until one is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// A mixed bag of tasks.
    Work,
    /// Results for which the arena must grow.
    Grow,
    /// Long tasks come up in front of short ones.
    Recall,
    /// Tasks are cancelled while they wait on a worker.
    Cancel,
    /// One more worker is started.
    Start,
    /// A worker is sent away.
    Leave,
}

/// What the kill costs the thread that comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// It has no task in hand, or one that is not started or is done.
    Nothing,
    /// One task is started, and the handler has been called so many times.
    Task(u64),
    /// It may be between two tasks or at the start of one.
    Either,
}

/// Which threads come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Those that run tasks (not the watcher, which comes by when it recalls some).
    Any,
    /// Those that run tasks, if there are several.
    OneOfSeveral,
    Watcher,
}

struct Point {
    name: &'static str,
    scene: Scene,
    who: Who,
    cost: Cost,
    /// How many passes do no harm, in several cases.
    skips: &'static [u32],
}

const FEW: &[u32] = &[0, 5, 23];
const FIRST: &[u32] = &[0];
const TWO: &[u32] = &[0, 1];

const fn point(
    name: &'static str,
    scene: Scene,
    who: Who,
    cost: Cost,
    skips: &'static [u32],
) -> Point {
    Point {
        name,
        scene,
        who,
        cost,
        skips,
    }
}

/// Every name, some of them several times.
const POINTS: &[Point] = {
    use Cost::{Either, Nothing, Task};
    use Scene::{Cancel, Grow, Leave, Recall, Start, Work};
    use Who::{Any, OneOfSeveral, Watcher};
    &[
        point("open.before-down", Start, Any, Nothing, TWO),
        point("open.after-down", Start, Any, Nothing, FIRST),
        point("open.before-up", Start, Any, Nothing, FIRST),
        point("open.after-up", Start, Any, Nothing, FIRST),
        point("open.watching", Start, Any, Nothing, FIRST),
        point("hello.before", Start, Any, Nothing, FIRST),
        point("hello.after", Start, Any, Nothing, TWO),
        point("claim.before", Work, Any, Nothing, FEW),
        point("claim.after", Work, Any, Nothing, FEW),
        point("start.before-time", Work, Any, Nothing, FEW),
        point("start.before-progress", Work, Any, Nothing, FEW),
        point("start.mid-progress", Work, Any, Nothing, FEW),
        point("start.before-ticket", Work, Any, Nothing, FEW),
        point("start.after-ticket", Work, Any, Task(0), FEW),
        point("start.cancelled", Cancel, Any, Task(0), TWO),
        point("start.before-flush", Work, Any, Task(0), FEW),
        point("handler.before", Work, Any, Task(0), FEW),
        point("progress.before-total", Work, Any, Task(1), FEW),
        point("progress.before-done", Work, Any, Task(1), FEW),
        point("progress.after-done", Work, Any, Task(1), FEW),
        point("results.reclaimed", Work, Any, Task(1), FEW),
        point("results.before-ask", Grow, Any, Task(1), FIRST),
        point("results.after-ask", Grow, Any, Task(1), FIRST),
        point("results.answered", Grow, Watcher, Either, FIRST),
        point("results.allocated", Work, Any, Task(1), FEW),
        point("results.allocated", Grow, Any, Task(1), TWO),
        point("handler.half-reply", Work, Any, Task(1), FEW),
        point("handler.half-reply", Grow, Any, Task(1), TWO),
        point("handler.after", Work, Any, Task(1), FEW),
        point("finish.before-kind", Work, Any, Task(1), FEW),
        point("finish.before-code", Work, Any, Task(1), FEW),
        point("finish.before-start", Work, Any, Task(1), FEW),
        point("finish.before-end", Work, Any, Task(1), FEW),
        point("finish.before-result", Work, Any, Task(1), FEW),
        point("finish.mid-result", Work, Any, Task(1), &[0, 1, 2, 5, 23]),
        point("finish.before-done", Work, Any, Task(1), FEW),
        point("finish.after-done", Work, Any, Nothing, FEW),
        // A thread also flushes when it has just started a task that may run long.
        point("flush.before-flip", Work, Any, Either, FEW),
        point("flush.after-flip", Work, Any, Either, FEW),
        point("flush.before-signal", Work, Any, Either, FEW),
        point("flush.after-signal", Work, Any, Either, FEW),
        point("lead.taken", Work, OneOfSeveral, Nothing, FEW),
        point("sleep.before-epoch", Work, Any, Nothing, FEW),
        point("sleep.after-epoch", Work, Any, Nothing, FEW),
        point("sleep.before-clear", Work, Any, Nothing, FEW),
        point("sleep.after-clear", Work, Any, Nothing, FEW),
        point("lead.before-leave", Work, OneOfSeveral, Nothing, FEW),
        point("lead.before-hand-on", Work, OneOfSeveral, Nothing, FEW),
        point("lead.left", Work, OneOfSeveral, Nothing, FEW),
        point("follow.woken", Work, OneOfSeveral, Nothing, FEW),
        point("recall.heard", Recall, Watcher, Either, FIRST),
        point("claim.before", Recall, Watcher, Either, FIRST),
        point("claim.after", Recall, Watcher, Either, TWO),
        point("recall.claimed", Recall, Watcher, Either, TWO),
        point("finish.before-kind", Recall, Watcher, Either, TWO),
        point("finish.before-code", Recall, Watcher, Either, FIRST),
        point("finish.before-start", Recall, Watcher, Either, FIRST),
        point("finish.before-end", Recall, Watcher, Either, FIRST),
        point("finish.before-result", Recall, Watcher, Either, FIRST),
        point("finish.before-done", Recall, Watcher, Either, TWO),
        point("finish.after-done", Recall, Watcher, Either, TWO),
        point("recall.published", Recall, Watcher, Either, TWO),
        point("flush.before-flip", Recall, Watcher, Either, FIRST),
        point("flush.after-flip", Recall, Watcher, Either, FIRST),
        point("flush.before-signal", Recall, Watcher, Either, FIRST),
        point("flush.after-signal", Recall, Watcher, Either, FIRST),
        point("recall.flushed", Recall, Watcher, Either, FIRST),
        point("close.heard", Leave, Watcher, Either, FIRST),
        point("close.closing", Leave, Watcher, Either, FIRST),
        point("close.woken", Leave, Watcher, Either, FIRST),
        point("leave.thread", Leave, Any, Nothing, FIRST),
        point("leave.exit", Leave, Any, Nothing, FIRST),
    ]
};

/// One task's way, in order; and whether a worker that is killed there has started the task
/// without having finished it (`None`: it may have started the next).
const WAY: &[(&str, Option<bool>)] = &[
    ("claim.before", Some(false)),
    ("claim.after", Some(false)),
    ("start.before-time", Some(false)),
    ("start.before-progress", Some(false)),
    ("start.mid-progress", Some(false)),
    ("start.before-ticket", Some(false)),
    ("start.after-ticket", Some(true)),
    ("handler.before", Some(true)),
    ("progress.before-done", Some(true)),
    ("handler.half-reply", Some(true)),
    ("handler.after", Some(true)),
    ("finish.before-kind", Some(true)),
    ("finish.before-code", Some(true)),
    ("finish.before-start", Some(true)),
    ("finish.before-end", Some(true)),
    ("finish.before-result", Some(true)),
    ("finish.mid-result", Some(true)),
    ("finish.before-done", Some(true)),
    ("finish.after-done", Some(false)),
    ("flush.before-flip", None),
    ("flush.after-flip", None),
];

// ---- one case ----

/// Printed if the case fails, wherever that is.
struct Context(String);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("KILL POINT {}: {:?}", self.0, kill_points::report());
        }
    }
}

/// How long a condition may take to come true that comes true by itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tasks of one engine at most.
const TASKS: usize = 8192;

/// How often each task's handler was called: shared with the workers.
static CALLS: LazyLock<Vec<Board>> =
    LazyLock::new(|| (0..TASKS / 512).map(|_| Board::new()).collect());

fn calls(task: u64) -> u64 {
    CALLS[task as usize / 512].get(task as usize % 512)
}

/// What a handler does, as it stands in a task's `user_data`.
#[derive(Debug, Clone, Copy)]
struct Job {
    number: u64,
    sleep_us: u64,
    reply: usize,
}

impl Job {
    fn pack(self) -> u64 {
        self.number | self.sleep_us << 16 | (self.reply as u64) << 32
    }

    fn unpack(word: u64) -> Self {
        Self {
            number: word & 0xffff,
            sleep_us: word >> 16 & 0xffff,
            reply: (word >> 32) as usize,
        }
    }
}

fn handle(task: &mut Task<'_>) -> TaskResult {
    let job = Job::unpack(task.user_data());
    CALLS[job.number as usize / 512].add(job.number as usize % 512);
    if job.sleep_us > 0 {
        std::thread::sleep(Duration::from_micros(job.sleep_us));
    }
    task.progress(1, 2);
    let reply = bytes(checksum(task.payload()), job.reply);
    let (first, second) = reply.split_at(job.reply / 2);
    let (one, two) = task.reply_buf(job.reply)?.split_at_mut(first.len());
    one.copy_from_slice(first);
    kill_points::here("handler.half-reply");
    two.copy_from_slice(second);
    Ok(())
}

struct Sent {
    job: Job,
    payload: Vec<u8>,
    cancelled: bool,
}

/// An engine, what was submitted to it, and what has come back.
struct Run {
    engine: Engine,
    sent: HashMap<TaskId, Sent>,
    next: u64,
    ended: Vec<(Sent, Completion)>,
    crashed: Vec<(u64, Completion)>,
    checked: u64,
    pids: HashSet<u32>,
    zygote: u32,
    one_by_one: bool,
}

impl Run {
    fn start(workers: u32, threads: u32, one_by_one: bool, spin: bool) -> Self {
        assert!(kill_points::prepare());
        kill_points::disarm();
        for board in CALLS.iter() {
            (0..512).for_each(|word| board.set(word, 0));
        }
        let mut builder = cpu_only(workers, threads)
            .workers_between(Class::CpuBound, workers, 4)
            .handler(handle);
        if !spin {
            builder = builder.spin(Duration::ZERO);
        }
        let engine = builder.start().unwrap();
        let zygote = zygote_of(&engine);
        Self {
            engine,
            sent: HashMap::new(),
            next: 0,
            ended: Vec::new(),
            crashed: Vec::new(),
            checked: 0,
            pids: HashSet::new(),
            zygote,
            one_by_one,
        }
    }

    fn submit(&mut self, payload: usize, reply: usize, sleep_us: u64) -> TaskId {
        let job = Job {
            number: self.next,
            sleep_us,
            reply,
        };
        self.next += 1;
        assert!(self.next as usize <= TASKS, "the point is never reached");
        let payload = bytes(job.number, payload);
        let options = SubmitOptions::new().user_data(job.pack());
        let id = self.engine.submit_with(&payload, &options).unwrap();
        let sent = Sent {
            job,
            payload,
            cancelled: false,
        };
        assert!(self.sent.insert(id, sent).is_none());
        id
    }

    /// Submits tasks of all kinds.
    fn burst(&mut self, count: u64) {
        for _ in 0..count {
            let n = self.next as usize;
            let payload = [8, 40, 41, 500, 5000][n % 5];
            let reply = [0, 8, 152, 153, 2000, 20_000][n % 6];
            let sleep = if n % 8 == 7 { 200 } else { 0 };
            self.submit(payload, reply, sleep);
        }
    }

    fn note_pids(&mut self) {
        let rows = self.engine.workers();
        self.pids.extend(rows.iter().map(|row| row.pid));
    }

    /// Waits until everything has ended.
    fn collect(&mut self) {
        self.note_pids();
        self.check();
        let completions = if self.one_by_one {
            let ids: Vec<TaskId> = self.sent.keys().copied().collect();
            let wait = Some(PATIENCE);
            ids.iter()
                .map(|&id| self.engine.wait(id, wait).unwrap())
                .collect()
        } else {
            common::collect(&self.engine, self.sent.len())
        };
        for completion in completions {
            let sent = self.sent.remove(&completion.id());
            let sent = sent.expect("a completion that nobody is owed");
            self.ended.push((sent, completion));
        }
        assert!(self.sent.is_empty());
        assert!(
            self.engine
                .poll(1, Some(Duration::ZERO))
                .unwrap()
                .is_empty()
        );
    }

    /// Checks what has ended: a moment later, so that some of it is read after its worker's death.
    fn check(&mut self) {
        for (sent, completion) in self.ended.drain(..) {
            self.checked += 1;
            let calls = calls(sent.job.number);
            // What is cancelled before any worker has it has no attempt.
            let never_out = sent.cancelled && completion.attempt() == 0;
            assert!(completion.attempt() == 1 || never_out, "{:?}", sent.job);
            match completion.outcome() {
                Outcome::Completed => {
                    assert_eq!(calls, 1, "{:?}: completed, calls of its handler", sent.job);
                    let reply = bytes(checksum(&sent.payload), sent.job.reply);
                    assert!(completion.to_vec() == reply, "{:?}: wrong bytes", sent.job);
                }
                Outcome::Crashed => {
                    assert!(calls <= 1, "{:?}: called {calls} times", sent.job);
                    self.crashed.push((calls, completion));
                }
                Outcome::Cancelled if sent.cancelled => {
                    assert_eq!(calls, 0, "{:?}: cancelled, yet called", sent.job);
                }
                other => panic!("{:?}: {other:?}: {}", sent.job, completion.text()),
            }
        }
    }

    fn wait_for_workers(&self, count: u64) {
        until("all workers are there", || {
            let rows = self.engine.workers();
            let ready = rows.iter().filter(|row| row.state == WorkerState::Ready);
            assert!(ready.clone().all(|row| row.pid != 0), "{rows:?}");
            rows.len() as u64 == count && ready.count() == rows.len()
        });
    }

    /// Has the workers do what leads to the point.
    fn play(&mut self, scene: Scene, threads: u64, skip: u32) {
        match scene {
            Scene::Work => {
                self.burst(if threads == 1 { 8 } else { 24 });
                self.collect();
            }
            Scene::Grow => {
                for _ in 0..4 {
                    self.submit(8, 300_000, 0);
                }
                self.collect();
            }
            Scene::Recall => {
                // Short ones, so that the lanes become deep.
                for _ in 0..64 {
                    self.submit(8, 8, 0);
                }
                self.collect();
                for _ in 0..2 * threads {
                    self.submit(8, 8, 25_000);
                }
                self.burst(12);
                self.collect();
            }
            Scene::Cancel => {
                for _ in 0..2 * threads {
                    self.submit(8, 8, 1000);
                }
                for _ in 0..4 {
                    let id = self.submit(50, 8, 0);
                    self.engine.cancel(id).unwrap();
                    self.sent.get_mut(&id).unwrap().cancelled = true;
                }
                self.collect();
            }
            Scene::Start => {
                // So many that the last of them is the one to be killed.
                let workers = 3 + skip;
                self.engine.resize(Class::CpuBound, workers).unwrap();
                let start = Instant::now();
                while self.engine.stats().died == 0 {
                    assert!(start.elapsed() < PATIENCE, "nobody is killed");
                    self.burst(8);
                    self.collect();
                }
                self.wait_for_workers(workers.into());
                self.engine.resize(Class::CpuBound, 2).unwrap();
                self.wait_for_workers(2);
            }
            Scene::Leave => {
                self.engine.resize(Class::CpuBound, 3).unwrap();
                self.wait_for_workers(3);
                self.note_pids();
                self.burst(12);
                self.engine.resize(Class::CpuBound, 2).unwrap();
                self.collect();
                self.wait_for_workers(2);
            }
        }
    }

    /// What must hold at the end, whatever was killed; returns the tasks that crashed, each with
    /// the calls of its handler. `died` is how many deaths nobody had asked for.
    fn finish(mut self, workers: u64, kills: u32, died: u64) -> Vec<(u64, Completion)> {
        // It goes on.
        self.burst(16);
        self.collect();
        until("the death is noticed", || self.engine.stats().died >= died);
        self.wait_for_workers(workers);
        self.note_pids();
        self.check();
        let report = kill_points::report();
        kill_points::disarm();
        assert_eq!(report.killed, kills);
        for (_, crash) in &self.crashed {
            let text = crash.text();
            assert_eq!((crash.code(), crash.by_signal()), (9, true), "{text}");
            assert!(text.contains("SIGKILL"), "{text}");
            if kills == 1 {
                let pid = format!("pid {}", report.victim);
                assert!(text.contains(&pid), "{pid} is not in `{text}`");
                assert_eq!(crash.is_collateral(), self.crashed.len() > 1);
            }
        }
        let stats = self.engine.stats();
        assert_eq!(stats.violations, 0, "taken for a violation: {stats:?}");
        assert_eq!(stats.crashed, self.crashed.len() as u64);
        assert_eq!((stats.submitted, self.checked), (self.next, self.next));
        assert_eq!((stats.payload_bytes, stats.unpolled), (0, 0), "{stats:?}");
        assert_eq!(stats.died, died, "{stats:?}");
        drop(self.engine);
        self.pids.extend([self.zygote, report.victim]);
        self.pids.remove(&0);
        until("no process is left", || {
            !self.pids.iter().any(|&pid| is_alive(pid))
        });
        self.crashed
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, {:?})", self.name, self.scene, self.who)
    }
}

/// Kills one worker at the point and checks what becomes of everything.
fn case(point: &Point, threads: u32, skip: u32) {
    let _context = Context(format!("{point}, {threads} threads, after {skip} passes"));
    // By turns: collected by poll or by id, workers that spin or not.
    let odd = skip % 2 == 1;
    let mut run = Run::start(2, threads, odd, odd != (threads == 1));
    let armed = match point.who {
        Who::Watcher => kill_points::arm_watcher(point.name, skip),
        _ => kill_points::arm(point.name, skip, 1),
    };
    assert!(armed);
    while kill_points::report().killed == 0 {
        run.play(point.scene, u64::from(threads), skip);
    }
    // Who is sent away does not count as dead, however it ends.
    let crashed = run.finish(2, 1, u64::from(point.scene != Scene::Leave));

    let count = crashed.len();
    let threads = threads as usize;
    let allowed = match point.cost {
        Cost::Nothing => 0..=threads - 1,
        Cost::Task(_) => 1..=threads,
        Cost::Either => 0..=threads,
    };
    assert!(
        allowed.contains(&count),
        "{count} tasks crashed, not {allowed:?}"
    );
    if threads == 1
        && let Cost::Task(calls) = point.cost
    {
        assert_eq!(crashed[0].0, calls, "calls of the crashed task's handler");
    }
}

fn cases(scenes: &[Scene], threads: u32) {
    let _watchdog = watchdog_alone(300);
    let wanted = std::env::var("KILL_POINT").unwrap_or_default();
    for point in POINTS {
        if !scenes.contains(&point.scene)
            || !point.name.starts_with(&wanted)
            || (threads == 1 && point.who == Who::OneOfSeveral)
        {
            continue;
        }
        let long = std::env::var_os("MINIFLOW_LONG").is_some() && point.skips == FEW;
        let many: Vec<u32> = (0..60).collect();
        for &skip in if long { &many } else { point.skips } {
            let start = Instant::now();
            case(point, threads, skip);
            println!("{:6.1?} {point}, skip {skip}", start.elapsed());
        }
    }
}

// ---- the tests ----

#[test]
fn every_point_has_its_cases() {
    let known: HashSet<&str> = NAMES.iter().copied().collect();
    assert_eq!(known.len(), NAMES.len(), "a name stands there twice");
    let tried: HashSet<&str> = POINTS.iter().map(|point| point.name).collect();
    let untried: Vec<_> = known.symmetric_difference(&tried).collect();
    assert!(untried.is_empty(), "no case, or no such point: {untried:?}");
}

#[test]
fn killed_at_every_store_of_a_task() {
    cases(&[Scene::Work], 1);
}

#[test]
fn killed_at_every_store_of_a_task_with_four_threads() {
    cases(&[Scene::Work], 4);
}

#[test]
fn killed_while_results_grow_tasks_are_recalled_or_cancelled() {
    cases(&[Scene::Grow, Scene::Recall, Scene::Cancel], 1);
}

#[test]
fn killed_while_results_grow_tasks_are_recalled_or_cancelled_with_four_threads() {
    cases(&[Scene::Grow, Scene::Recall, Scene::Cancel], 4);
}

#[test]
fn killed_while_it_starts_or_leaves() {
    cases(&[Scene::Start, Scene::Leave], 1);
    cases(&[Scene::Start, Scene::Leave], 4);
}

/// Four threads stop each at another store, or all at the same one, and then the worker is killed:
/// what each has in hand ends as if it had been alone.
#[test]
fn killed_with_four_threads_in_mid_publication() {
    let _watchdog = watchdog_alone(300);
    let mut sets = Vec::new();
    for first in 0..WAY.len() {
        sets.push([WAY[first]; 4]);
        for step in [1, 5] {
            sets.push(std::array::from_fn(|i| WAY[(first + i * step) % WAY.len()]));
        }
    }
    for (number, set) in sets.iter().enumerate() {
        let names = set.map(|(name, _)| name);
        let _context = Context(format!("{names:?}"));
        let mut run = Run::start(1, 4, number % 2 == 1, false);
        assert!(kill_points::arm_stages(&names));
        while kill_points::report().killed == 0 {
            for n in 0..100 {
                run.submit([8, 50][n % 2], [8, 152, 400][n % 3], 20);
            }
            run.collect();
        }
        assert_eq!(kill_points::report().gathered, 4, "threads that stopped");
        let crashed = run.finish(1, 1, 1).len();
        let certain = set.iter().filter(|(_, started)| *started == Some(true));
        let possible = set.iter().filter(|(_, started)| *started != Some(false));
        let allowed = certain.count()..=possible.count();
        assert!(
            allowed.contains(&crashed),
            "{crashed} tasks crashed, not {allowed:?}"
        );
    }
}

/// The one that takes a dead worker's place dies at the same point, and the next one too.
#[test]
fn killed_three_times_in_a_row() {
    const KILLS: u32 = 3;
    let _watchdog = watchdog_alone(300);
    for point in POINTS.iter().filter(|p| p.scene == Scene::Work) {
        if point.who != Who::Any {
            continue;
        }
        let _context = Context(format!("{point}, three times"));
        let mut run = Run::start(1, 1, false, false);
        assert!(kill_points::arm(point.name, 2, KILLS));
        while kill_points::report().killed < KILLS {
            run.play(point.scene, 1, 0);
        }
        let crashed = run.finish(1, KILLS, KILLS.into()).len() as u32;
        let allowed = match point.cost {
            Cost::Nothing => 0..=0,
            Cost::Task(_) => KILLS..=KILLS,
            Cost::Either => 0..=KILLS,
        };
        assert!(
            allowed.contains(&crashed),
            "{crashed} tasks crashed, not {allowed:?}"
        );
    }
}

/// While the engine stops, every task still ends once, and nothing is left.
fn killed_while_stopping(name: &str, threads: u32, drain: Option<Duration>) {
    let _context = Context(format!("{name}, {threads} threads, stop({drain:?})"));
    let mut run = Run::start(2, threads, false, false);
    for n in 0..40 {
        run.submit([8, 50][n % 2], [8, 152, 400][n % 3], 200);
    }
    run.note_pids();
    let of_watcher = ["recall.", "close."].iter().any(|s| name.starts_with(s));
    assert!(if of_watcher {
        kill_points::arm_watcher(name, 0)
    } else {
        kill_points::arm(name, 0, 1)
    });
    run.engine.stop(drain).unwrap();
    let report = kill_points::report();
    kill_points::disarm();
    // A stop that does not wait may find nothing to recall.
    assert!(report.killed == 1 || (drain.is_some() && !name.starts_with("leave.")));
    let mut crashed = 0;
    for completion in common::collect(&run.engine, 40) {
        let sent = run.sent.remove(&completion.id()).unwrap();
        let calls = calls(sent.job.number);
        assert!(calls <= 1, "{:?}: called {calls} times", sent.job);
        match completion.outcome() {
            Outcome::Completed => {
                let reply = bytes(checksum(&sent.payload), sent.job.reply);
                assert!(completion.to_vec() == reply, "{:?}: wrong bytes", sent.job);
                assert_eq!(calls, 1);
            }
            Outcome::Crashed => crashed += 1,
            Outcome::Cancelled if drain.is_some() => {}
            other => panic!("{:?}: {other:?}: {}", sent.job, completion.text()),
        }
    }
    assert!(crashed <= threads, "{crashed} tasks crashed");
    let stats = run.engine.stats();
    assert_eq!((stats.violations, stats.payload_bytes), (0, 0), "{stats:?}");
    drop(run.engine);
    run.pids.extend([run.zygote, report.victim]);
    run.pids.remove(&0);
    until("no process is left", || {
        !run.pids.iter().any(|&pid| is_alive(pid))
    });
}

#[test]
fn killed_while_the_engine_stops() {
    let _watchdog = watchdog_alone(300);
    for threads in [1, 4] {
        for (name, _) in WAY {
            killed_while_stopping(name, threads, None);
            killed_while_stopping(name, threads, Some(Duration::ZERO));
        }
        for name in ["close.heard", "close.closing", "leave.thread", "leave.exit"] {
            killed_while_stopping(name, threads, None);
            killed_while_stopping(name, threads, Some(Duration::ZERO));
        }
        for name in ["recall.heard", "recall.claimed", "recall.published"] {
            killed_while_stopping(name, threads, Some(Duration::ZERO));
        }
    }
}
