//! The number of workers goes up and down at random under load, while workers are killed: every task ends
//! exactly once, nothing is left behind, and another process that reads the table of workers all the while
//! never sees a row that is not whole.
//!
//! 500 resizes; `MINIFLOW_LONG=1` makes 10 000.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use common::{Name, Random, SetAtEnd, children, cpu_only, is_alive, until, watchdog_alone};
use miniflow::monitor::Monitor;
use miniflow::{Class, Engine, Policy, SubmitOptions, TaskId, WorkerRow, WorkerState};

const MOST: u32 = 6;
const THREADS: u32 = 2;
/// Tasks that are submitted ahead.
const AHEAD: usize = 5000;

/// Tells this program to be a monitor, and of which engine.
const MONITORED: &str = "MINIFLOW_TEST_MONITORED";

/// What a monitor has seen of one incarnation of a worker.
struct Seen {
    slot: u32,
    pid: u32,
    state: WorkerState,
    completed: u64,
    busy_ns: u64,
}

/// What a monitor has seen so far. In a row that is made of two, something does not fit.
#[derive(Default)]
struct History {
    tables: u64,
    rows: u64,
    incarnations: BTreeMap<u64, Seen>,
    /// The newest incarnation of each slot.
    newest: BTreeMap<u32, u64>,
}

impl History {
    fn note(&mut self, rows: &[WorkerRow]) {
        self.tables += 1;
        self.rows += rows.len() as u64;
        let slots: BTreeSet<u32> = rows.iter().map(|row| row.slot).collect();
        assert_eq!(slots.len(), rows.len(), "one row a slot: {rows:#?}");
        for row in rows {
            assert!(row.slot < MOST, "{row:#?}");
            assert_eq!(
                (row.class, row.threads),
                (Class::CpuBound, THREADS),
                "{row:#?}"
            );
            assert!(row.failed <= row.completed, "{row:#?}");
            let is_there = matches!(row.state, WorkerState::Ready | WorkerState::Draining);
            assert!(!is_there || row.pid != 0, "{row:#?}");

            let newest = self.newest.entry(row.slot).or_insert(row.incarnation);
            assert!(row.incarnation >= *newest, "back to an older one: {row:#?}");
            *newest = row.incarnation;
            let seen = self.incarnations.entry(row.incarnation).or_insert(Seen {
                slot: row.slot,
                pid: row.pid,
                state: row.state,
                completed: row.completed,
                busy_ns: row.busy_ns,
            });
            assert_eq!(seen.slot, row.slot, "in two slots: {row:#?}");
            assert!([0, row.pid].contains(&seen.pid), "two processes: {row:#?}");
            assert!(seen.state as u8 <= row.state as u8, "younger: {row:#?}");
            assert!(seen.completed <= row.completed, "undone: {row:#?}");
            assert!(seen.busy_ns <= row.busy_ns, "undone: {row:#?}");
            seen.pid = row.pid;
            seen.state = row.state;
            seen.completed = row.completed;
            seen.busy_ns = row.busy_ns;
        }
    }
}

/// Not a test by itself: reads the table of an engine until its standard input is closed, also by the
/// end of the test.
#[test]
fn a_monitor_that_never_looks_away() {
    let Ok(name) = std::env::var(MONITORED) else {
        return;
    };
    let monitor = Monitor::open(&name).unwrap();
    let end = AtomicBool::new(false);
    let mut history = History::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            end.store(true, SeqCst);
        });
        println!("UP");
        while !end.load(SeqCst) {
            history.note(&monitor.workers());
        }
    });
    assert!(history.tables > 100 && history.incarnations.len() > 10);
    println!(
        "SEEN {} tables, {} rows, {} incarnations",
        history.tables,
        history.rows,
        history.incarnations.len()
    );
}

/// A process that monitors the engine; ended when it is dropped.
struct Watcher(Child);

impl Watcher {
    fn start(name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "a_monitor_that_never_looks_away", "--nocapture"])
            .env(MONITORED, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut watcher = Self(command.spawn().unwrap());
        let stdout = watcher.0.stdout.as_mut().unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"UP\n") {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "it has ended");
            said.push(byte[0]);
        }
        watcher
    }

    /// Has it stop; what it says it has seen.
    fn end(mut self) -> String {
        drop(self.0.stdin.take());
        let mut said = String::new();
        let stdout = self.0.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut said).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "the monitor: {status}\n{said}");
        let seen = said.lines().find(|line| line.starts_with("SEEN"));
        seen.unwrap().to_owned()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker that leaves may be gone before it is killed.
fn kill_if_there(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Resizes at random, kills now and then, and changes the policy; returns the processes that it has seen.
fn stir(engine: &Engine, resizes: u32) -> BTreeSet<u32> {
    let policies = [Policy::LeastLoaded, Policy::PowerOfTwo, Policy::RoundRobin];
    let mut random = Random(u64::from(resizes));
    let mut pids = BTreeSet::new();
    for round in 0..resizes {
        let workers = 1 + random.below(u64::from(MOST)) as u32;
        engine.resize(Class::CpuBound, workers).unwrap();
        match random.below(4) {
            // At once the next one: what has begun is called off.
            0 => {}
            1 => until("the workers are there", || {
                engine.stats().workers == u64::from(workers)
            }),
            _ => {
                let before = engine.stats().completed;
                until("a task has ended", || engine.stats().completed > before);
            }
        }
        let rows = engine.workers();
        pids.extend(rows.iter().map(|row| row.pid).filter(|&pid| pid != 0));
        if round % 10 == 0 && !rows.is_empty() {
            let victim = rows[random.below(rows.len() as u64) as usize].pid;
            if victim != 0 {
                kill_if_there(victim);
            }
        }
        if round % 50 == 0 {
            let policy = &policies[(round / 50 % 3) as usize];
            engine.set_policy(policy.clone()).unwrap();
        }
    }
    pids
}

/// Tasks that were accepted and have not ended.
#[derive(Default)]
struct Open {
    ids: HashSet<TaskId>,
    ended: u64,
}

impl Open {
    fn submit(&mut self, engine: &Engine, key: u64) {
        let options = SubmitOptions::new().sticky_key(key).user_data(key);
        let id = engine.submit_with(b"", &options).unwrap();
        assert!(self.ids.insert(id), "an id that is used already");
    }

    fn poll(&mut self, engine: &Engine) {
        for completion in engine.poll(256, Some(Duration::from_millis(5))).unwrap() {
            let id = completion.id();
            assert!(self.ids.remove(&id), "not accepted, or ended twice: {id}");
            assert!(completion.is_completed(), "{}", completion.text());
            self.ended += 1;
        }
    }
}

#[test]
fn resizes_and_kills_under_load_lose_no_task_leave_nothing_and_never_tear_the_table() {
    let long = std::env::var_os("MINIFLOW_LONG").is_some_and(|v| v != "0");
    let (resizes, _watchdog) = if long {
        (10_000, watchdog_alone(3600))
    } else {
        (500, watchdog_alone(300))
    };
    let name = Name::unique();
    let engine = cpu_only(2, THREADS)
        .workers_between(Class::CpuBound, 2, MOST)
        .default_attempts(1000) // no task ends by a kill, but every one that it hits is started again
        .name(&*name)
        .handler(|task| {
            // Now and then one that a kill may hit.
            if task.user_data() == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
        .start()
        .unwrap();
    let watcher = Watcher::start(&name);
    let done = AtomicBool::new(false);
    let mut open = Open::default();
    let pids = std::thread::scope(|scope| {
        let stirring = scope.spawn(|| {
            let _end = SetAtEnd(&done); // also if an assertion fails here
            stir(&engine, resizes)
        });
        while !done.load(SeqCst) || !open.ids.is_empty() {
            if !done.load(SeqCst) && open.ids.len() < AHEAD {
                // 0 is no key.
                (0..20).for_each(|key| open.submit(&engine, key));
            }
            open.poll(&engine);
        }
        stirring.join().unwrap()
    });

    let stats = engine.stats();
    assert_eq!(
        (stats.submitted, stats.completed, stats.policy_failures),
        (open.ended, open.ended, 0)
    );
    assert_eq!((stats.queued, stats.on_workers, stats.unpolled), (0, 0, 0));
    assert!(stats.died > 0 && stats.retried > 0, "no kill has hit");
    let decisions = engine.scaling_decisions();
    assert_eq!(decisions.len(), resizes.min(1000) as usize);
    for pair in decisions.windows(2) {
        assert_eq!(pair[0].after, pair[1].before);
    }
    let target = decisions.last().unwrap().after;
    until("as many workers as the last resize said", || {
        engine.stats().workers == u64::from(target) && engine.workers().len() == target as usize
    });
    let seen = watcher.end();
    engine.stop(Some(Duration::from_secs(10))).unwrap();
    drop(engine);
    assert_eq!(children(), Vec::<u32>::new());
    let left: Vec<u32> = pids.into_iter().filter(|&pid| is_alive(pid)).collect();
    assert_eq!(left, Vec::<u32>::new());
    assert!(!name.path().exists());
    println!(
        "{resizes} resizes, {} tasks, {} started again, {} workers started, {} killed; the monitor has {seen}",
        stats.submitted, stats.retried, stats.spawned, stats.died
    );
}
