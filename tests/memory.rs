//! What an engine does when memory comes to its end: nothing grows, then idle workers leave, then submits
//! are refused; and back. The engines here read a `/proc` that the test writes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Board, collect, cpu_only, until, watchdog};
use miniflow::{Action, Class, Engine, Error, Full, Scaling, Submission, SubmitOptions};

/// A directory with what the kernel would say. Removed when dropped.
struct System(PathBuf);

impl System {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = NEXT.fetch_add(1, SeqCst);
        let name = format!("miniflow-system-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Whoever reads the file sees the old text or the new one.
    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    /// So much of the machine's memory is in use.
    fn use_percent(&self, percent: u64) {
        let left = (100 - percent) * 10_000;
        self.write(
            "proc/meminfo",
            &format!("MemTotal: 1000000 kB\nMemAvailable: {left} kB\n"),
        );
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn submit(engine: &Engine, count: usize) {
    let tasks = (0..count).map(|_| Submission::from(&b""[..]));
    assert_eq!(engine.submit_batch(tasks).unwrap().len(), count);
}

fn is_refused<T>(result: Result<T, Error>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::WouldBlock(Full::Memory)) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Until the engine has looked, it does not know.
fn until_refused(engine: &Engine) {
    until("submits are refused", || is_refused(engine.submit(b"")));
}

/// Waits so long that the engine has looked several times.
fn let_it_look() {
    let start = Instant::now();
    until("time has passed", || {
        start.elapsed() > Duration::from_secs(1)
    });
}

#[test]
fn nothing_grows_while_memory_is_short_or_tasks_stand_still_for_it() {
    let _watchdog = watchdog(60);
    let system = System::new();
    system.use_percent(92);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .workers_between(Class::CpuBound, 1, 4)
        .scaling(Scaling::by_load().cpu(1.0))
        .system_root(&system.0)
        .handler(move |_| {
            board.wait(0);
            Ok(())
        })
        .start()
        .unwrap();
    submit(&engine, 100);
    let_it_look();
    assert_eq!(engine.scaling_decisions(), []);
    system.write("proc/pressure/memory", "some avg10=30.00 avg60=0\n");
    system.use_percent(50);
    let_it_look();
    assert_eq!(engine.scaling_decisions(), []);
    system.write("proc/pressure/memory", "some avg10=0.00 avg60=0\n");
    until("it grows", || engine.stats().workers == 4);
    let first = &engine.scaling_decisions()[0];
    assert_eq!(first.action, Action::Grow);
    assert!((0.49..0.51).contains(&first.snapshot.memory.unwrap()));
    assert_eq!(first.snapshot.memory_pressure, Some(0.0));
    board.set(0, 1);
    assert_eq!(collect(&engine, 100).len(), 100);
}

#[test]
fn the_control_group_counts_as_the_machine_does() {
    let _watchdog = watchdog(60);
    let system = System::new();
    system.use_percent(10);
    system.write("proc/self/cgroup", "0::/job/part\n");
    system.write(
        "proc/self/mountinfo",
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    );
    system.write("sys/fs/cgroup/job/memory.max", "1000000\n");
    system.write("sys/fs/cgroup/job/memory.current", "990000\n");
    let engine = cpu_only(1, 1)
        .system_root(&system.0)
        .handler(|_| Ok(()))
        .start()
        .unwrap();
    until_refused(&engine);
    system.write("sys/fs/cgroup/job/memory.stat", "inactive_file 500000\n");
    until("submits are accepted", || engine.submit(b"").is_ok());
}

#[test]
fn idle_workers_leave_one_by_one_down_to_the_minimum_and_busy_ones_stay() {
    let _watchdog = watchdog(60);
    let system = System::new();
    system.use_percent(50);
    let board = Board::new();
    let engine = cpu_only(2, 1)
        .workers_between(Class::CpuBound, 2, 6)
        .scaling(Scaling::by_load().cpu(1.0))
        .system_root(&system.0)
        .handler(move |_| {
            board.add(1);
            board.wait(0);
            Ok(())
        })
        .start()
        .unwrap();
    engine.resize(Class::CpuBound, 6).unwrap();
    until("six are ready", || engine.stats().workers == 6);
    submit(&engine, 3);
    until("three run", || board.get(1) == 3);
    let busy = |engine: &Engine| {
        let rows = engine.workers();
        let pids = rows.iter().filter(|row| row.running > 0).map(|row| row.pid);
        pids.collect::<Vec<_>>()
    };
    let running = busy(&engine);
    assert_eq!(running.len(), 3);
    system.use_percent(96);
    until("the idle ones have left", || engine.workers().len() == 3);
    let_it_look();
    assert_eq!((busy(&engine), engine.workers().len()), (running, 3));
    let shed: Vec<_> = engine.scaling_decisions().split_off(1);
    let steps: Vec<_> = shed.iter().map(|d| (d.before, d.after)).collect();
    assert_eq!(steps, [(6, 5), (5, 4), (4, 3)]);
    for decision in &shed {
        assert_eq!(decision.action, Action::Shrink);
        assert!(
            decision.reason.contains("96 % of the memory"),
            "{decision:?}"
        );
    }
    board.set(0, 1);
    assert_eq!(collect(&engine, 3).len(), 3);
    until("the minimum is left", || engine.workers().len() == 2);
    let_it_look();
    assert_eq!(engine.workers().len(), 2);
    // What shall run, still does.
    submit(&engine, 100);
    assert_eq!(collect(&engine, 100).len(), 100);
}

#[test]
fn submits_would_block_while_memory_is_at_its_end_and_what_was_accepted_goes_on() {
    let _watchdog = watchdog(60);
    let system = System::new();
    system.use_percent(50);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .system_root(&system.0)
        .handler(move |_| {
            board.wait(0);
            Ok(())
        })
        .start()
        .unwrap();
    submit(&engine, 10);
    system.use_percent(99);
    until("loans are refused", || is_refused(engine.loan(100)));
    let refused = engine.stats().would_block;
    let options = SubmitOptions::new();
    assert!(is_refused(engine.submit(b"")));
    assert!(is_refused(engine.submit(&[0; 10_000])));
    assert!(is_refused(
        engine.submit_batch([Submission::from(&b""[..]); 3])
    ));
    let late = engine.submit_wait(b"", &options, Some(Duration::from_millis(50)));
    assert!(matches!(late, Err(Error::Timeout)));
    assert_eq!(engine.stats().would_block, refused + 4);

    board.set(0, 1);
    assert_eq!(collect(&engine, 10).len(), 10);
    // Nothing is in flight: only the engine itself can notice that it is over.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| engine.submit_wait(b"", &options, None));
        until("it waits", || engine.stats().would_block > refused + 4);
        system.use_percent(50);
        let id = waits.join().unwrap().unwrap();
        assert!(engine.wait(id, None).unwrap().is_completed());
    });

    system.use_percent(99);
    submit(&engine, 1);
    until_refused(&engine);
    let refused = engine.stats().would_block;
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| engine.submit_wait(b"", &options, None));
        until("it waits", || engine.stats().would_block > refused);
        engine.stop(Some(Duration::from_secs(10))).unwrap();
        let answer = waits.join().unwrap();
        assert!(matches!(answer, Err(Error::Closed)), "{answer:?}");
    });
}

#[test]
fn limits_of_memory_can_be_lifted_and_bad_ones_are_refused() {
    let _watchdog = watchdog(60);
    let system = System::new();
    system.use_percent(99);
    let builder = cpu_only(1, 1).system_root(&system.0).handler(|_| Ok(()));
    let engine = (builder.clone().scaling(Scaling::off().memory_refuse(1.0)))
        .start()
        .unwrap();
    submit(&engine, 1);
    let_it_look();
    submit(&engine, 1);
    for scaling in [
        Scaling::off().memory_refuse(0.0),
        Scaling::by_load().memory(f32::NAN),
        Scaling::by_load().memory_pressure(-1.0),
        Scaling::by_load().memory_shed(1.5),
    ] {
        let started = builder.clone().scaling(scaling).start();
        assert!(matches!(started, Err(Error::Invalid(_))));
    }
}

#[test]
fn where_the_kernel_says_nothing_about_memory_nothing_is_done_about_it() {
    let _watchdog = watchdog(60);
    let system = System::new();
    let engine = cpu_only(1, 1)
        .workers_between(Class::CpuBound, 1, 2)
        .scaling(Scaling::by_load().cpu(1.0))
        .system_root(&system.0)
        .handler(|_| {
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        })
        .start()
        .unwrap();
    submit(&engine, 100);
    assert_eq!(collect(&engine, 100).len(), 100);
    let first = &engine.scaling_decisions()[0];
    assert_eq!(
        (first.snapshot.memory, first.snapshot.memory_pressure),
        (None, None)
    );
}

// ---- a real machine ----

#[test]
fn the_memory_of_this_machine_counts() {
    let _watchdog = watchdog(60);
    // More than that is in use on every machine.
    let engine = cpu_only(1, 1)
        .scaling(Scaling::off().memory_refuse(0.001))
        .handler(|_| Ok(()))
        .start()
        .unwrap();
    until_refused(&engine);
    let error = engine.submit(b"").unwrap_err().to_string();
    assert!(error.starts_with("would block: memory"), "{error}");
}

// ---- a real control group ----

/// Tells this program to be a host in this control group.
const GROUP: &str = "MINIFLOW_TEST_GROUP";
const LIMIT: usize = 256 << 20;

/// Not a test by itself: a host in a control group that may have 256 MiB. It uses a part of them itself,
/// and gives it back.
#[test]
fn a_host_in_a_small_control_group() {
    let Some(group) = std::env::var_os(GROUP) else {
        return;
    };
    let _watchdog = watchdog(60);
    let procs = Path::new(&group).join("cgroup.procs");
    fs::write(procs, std::process::id().to_string()).unwrap();
    let engine = cpu_only(1, 1)
        // Far from the end, where the kernel would kill.
        .scaling(Scaling::off().memory_refuse(0.6))
        .handler(|_| Ok(()))
        .start()
        .unwrap();
    submit(&engine, 1);
    let hoard = vec![1_u8; LIMIT * 7 / 10];
    until_refused(&engine);
    assert!(hoard.iter().all(|&byte| byte == 1));
    drop(hoard);
    until("submits are accepted", || engine.submit(b"").is_ok());
    println!("BOTH");
}

/// Removed when dropped; it must be empty then.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Beside the group of this process; the error says why that cannot be.
    fn new() -> Result<Self, String> {
        let text = |path: &Path| fs::read_to_string(path).map_err(|e| format!("{path:?}: {e}"));
        let own = text(Path::new("/proc/self/cgroup"))?;
        let own = (own.lines().find_map(|line| line.strip_prefix("0::/"))).ok_or("no cgroup v2")?;
        if own.is_empty() {
            return Err("this process is in the topmost group that it can see".into());
        }
        let parent = Path::new("/sys/fs/cgroup").join(own);
        let parent = parent.parent().ok_or("no parent group")?;
        let controllers = text(&parent.join("cgroup.subtree_control"))?;
        if !controllers.split_whitespace().any(|c| c == "memory") {
            return Err("no memory controller beside this process".into());
        }
        let path = parent.join(format!("miniflow-test-{}", std::process::id()));
        fs::create_dir(&path).map_err(|e| format!("{path:?}: {e}"))?;
        let group = Self(path);
        fs::write(group.0.join("memory.max"), LIMIT.to_string()).map_err(|e| e.to_string())?;
        Ok(group)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_host_in_a_control_group_refuses_submits_when_that_is_nearly_full() {
    let _watchdog = watchdog(120);
    let group = match ControlGroup::new() {
        Ok(group) => group,
        Err(why) => {
            let _ = writeln!(
                std::io::stderr(),
                "SKIP no control group can be made: {why}"
            );
            return;
        }
    };
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_host_in_a_small_control_group", "--nocapture"])
        .env(GROUP, &group.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    host.stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(host.wait().unwrap().success(), "{said}");
    assert!(said.contains("BOTH"), "{said}");
    until("the group is empty", || {
        fs::read_to_string(group.0.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty())
    });
}
