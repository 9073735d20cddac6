//! Engines whose zygote is a program: a language runtime that loads once what its workers need.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{
    Name, Proc, children_of, collect, cpu_only, is_alive, kill, until, watchdog, watchdog_alone,
    worker, zygote_of,
};
use miniflow::worker::{SpawnRequest, Worker, Zygote};
use miniflow::{Builder, Completion, Engine, Error, Outcome, Sandbox, TaskId};

// ---- the programs: this one, executed again ----

/// What the zygote loads before it forks workers: its own pid.
static LOADED: OnceLock<u32> = OnceLock::new();

fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

/// Does what the payload says, and ends the process with the lane.
fn work(worker: &Worker) -> ! {
    while let Ok(mut assigned) = worker.next(None) {
        let reply = match assigned.task().payload() {
            b"loaded" => format!("{} {}", LOADED.get().copied().unwrap_or(0), parent()),
            b"hold" => {
                // Until the engine ends it.
                while !assigned.task().is_cancelled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                String::new()
            }
            b"crash" => {
                // SAFETY: not at all: it is meant to crash.
                unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
                unreachable!()
            }
            b"signal the host" => {
                let host = miniflow_host();
                // SAFETY: signal 0 is none; it asks for the permission only.
                match unsafe { libc::kill(host, 0) } {
                    0 => "allowed".into(),
                    _ => "denied".into(),
                }
            }
            b"descriptors" => fs::read_dir("/proc/self/fd").unwrap().count().to_string(),
            other => String::from_utf8_lossy(other).into_owned(),
        };
        assigned.task().reply(reply.as_bytes()).unwrap();
        assigned.finish(Ok(()));
    }
    exit(0)
}

fn miniflow_host() -> i32 {
    // Of a worker, the parent's parent.
    Proc::read(parent()).unwrap().parent as i32
}

fn exit(code: i32) -> ! {
    // SAFETY: a forked child runs none of its parent's exit handlers.
    unsafe { libc::_exit(code) }
}

/// Forks; `child` does not return.
fn fork(child: impl FnOnce()) -> u32 {
    // SAFETY: with --test-threads=1 this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            child();
            exit(70)
        }
        pid => pid as u32,
    }
}

fn fork_worker() -> u32 {
    fork(|| match Worker::join() {
        Ok(worker) => work(&worker),
        Err(_) => exit(70),
    })
}

fn is_zygote() -> bool {
    std::env::var_os("MINIFLOW_ZYGOTE").is_some()
}

fn serve(zygote: &Zygote) {
    while let Ok(request) = zygote.recv() {
        zygote.reply(&request, Ok(fork_worker())).unwrap();
    }
    exit(0);
}

#[test]
fn a_zygote_program() {
    if !is_zygote() {
        return;
    }
    let zygote = Zygote::open().unwrap();
    LOADED.set(std::process::id()).unwrap();
    serve(&zygote);
}

#[test]
fn a_zygote_program_that_fails() {
    if !is_zygote() {
        return;
    }
    let zygote = Zygote::open().unwrap();
    zygote.fail("there is no module named x\u{2026}").unwrap();
    while zygote.recv().is_ok() {} // the host ends it
}

#[test]
fn a_zygote_program_that_exits_at_once() {
    if is_zygote() {
        exit(33);
    }
}

#[test]
fn a_zygote_program_that_hangs() {
    if is_zygote() {
        let _zygote = Zygote::open().unwrap();
        loop {
            std::thread::park();
        }
    }
}

#[test]
fn a_zygote_program_whose_children_start_threads_before_they_join() {
    if !is_zygote() {
        return;
    }
    let zygote = Zygote::open().unwrap();
    while let Ok(request) = zygote.recv() {
        let child = fork(|| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || stopped.recv());
            let joined = Worker::join();
            drop(stop);
            thread.join().unwrap().unwrap_err();
            work(&joined.unwrap());
        });
        zygote.reply(&request, Ok(child)).unwrap();
    }
}

/// Loads until its host is dead.
#[test]
fn a_zygote_program_that_loads_for_long() {
    if !is_zygote() {
        return;
    }
    let zygote = Zygote::open().unwrap();
    let host_lives = || {
        let parent = fs::read(format!("/proc/{}/cmdline", parent())).unwrap_or_default();
        String::from_utf8_lossy(&parent).contains("a_host_that_waits_to_be_killed")
    };
    while host_lives() {
        std::thread::sleep(Duration::from_millis(1));
    }
    while zygote.recv().is_ok() {} // what it had asked for, if it is still dying
    exit(0);
}

/// Makes every mistake once, and is right in between.
#[test]
fn a_zygote_program_that_makes_mistakes() {
    if !is_zygote() {
        return;
    }
    let zygote = Zygote::open().unwrap();
    let invalid = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Invalid(_))));
    assert!(matches!(Zygote::open(), Err(Error::Invalid(_))), "twice");
    assert!(matches!(Worker::join(), Err(Error::Invalid(_))));
    let mut own = Command::new("true").spawn().unwrap();
    let serve = |zygote: &Zygote| -> SpawnRequest {
        let request = zygote.recv().unwrap();
        zygote.reply(&request, Ok(fork_worker())).unwrap();
        request
    };
    let first = serve(&zygote);
    invalid(zygote.reply(&first, Ok(own.id()))); // has an answer
    let _unanswered = zygote.recv().unwrap();
    serve(&zygote);
    let request = zygote.recv().unwrap();
    invalid(zygote.reply(&request, Ok(1))); // not a child
    serve(&zygote);
    let request = zygote.recv().unwrap();
    let failed = std::io::Error::from_raw_os_error(libc::EAGAIN);
    zygote.reply(&request, Err(failed)).unwrap();
    // What the zygote may, its children may not; and one that was forked for nothing has no lane.
    let status = {
        let mut status = 0;
        let child = fork(|| {
            let closed = matches!(zygote.recv(), Err(Error::Invalid(_)));
            let no_lane = matches!(Worker::join(), Err(Error::Invalid(_)));
            exit(i32::from(!(closed && no_lane)));
        });
        // SAFETY: a valid place for the answer.
        unsafe { libc::waitpid(child as i32, &raw mut status, 0) };
        status
    };
    assert_eq!(status, 0);
    let request = zygote.recv().unwrap();
    // A child that does not join.
    zygote.reply(&request, Ok(fork(|| exit(3)))).unwrap();
    serve(&zygote);
    // Nobody else has reaped what is not a worker.
    assert!(own.wait().unwrap().success());
    self::serve(&zygote);
}

/// Is killed between the fork and the answer.
#[test]
fn a_zygote_program_that_dies_before_the_child_joins() {
    if !is_zygote() {
        return;
    }
    let zygote = Zygote::open().unwrap();
    let me = std::process::id();
    let _request = zygote.recv().unwrap();
    fork(|| {
        while parent() == me {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(Worker::join(), Err(Error::Closed)));
        witness().write_all(b"closed").unwrap();
    });
    kill(me);
}

#[test]
fn a_zygote_program_that_dies_after_the_child_has_joined() {
    if !is_zygote() {
        return;
    }
    let zygote = Zygote::open().unwrap();
    let me = std::process::id();
    let _request = zygote.recv().unwrap();
    fork(|| {
        let worker = Worker::join().unwrap();
        kill(me);
        assert!(matches!(worker.next(None), Err(Error::Closed)));
        witness().write_all(b"closed").unwrap();
    });
    loop {
        std::thread::park();
    }
}

/// The pipe that the host has inherited to its zygote, which is the only one that these programs have.
fn witness() -> File {
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let pipe = fds
        .filter(|fd| fd.file_name().to_str().unwrap().parse::<i32>().unwrap() > 2)
        .map(|fd| fd.path())
        .find(|fd| fs::read_link(fd).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:")))
        .unwrap();
    File::options().write(true).open(pipe).unwrap()
}

// ---- the hosts ----

fn argv(program: &str) -> [String; 4] {
    let me = std::env::current_exe().unwrap();
    let me = me.to_str().unwrap().to_owned();
    [
        me,
        "--exact".into(),
        program.into(),
        "--test-threads=1".into(),
    ]
}

fn engine_of(program: &str, workers: u32) -> Builder {
    cpu_only(workers, 1).zygote_program(argv(program))
}

fn forked(workers: u32) -> Builder {
    engine_of("a_zygote_program", workers)
}

fn wait(engine: &Engine, id: TaskId) -> Completion {
    engine
        .wait(id, Some(Duration::from_secs(50)))
        .unwrap_or_else(|e| panic!("{e}: {:?} {:?}", engine.stats(), engine.workers()))
}

fn ask(engine: &Engine, what: &str) -> String {
    let id = engine.submit(what.as_bytes()).unwrap();
    let done = wait(engine, id);
    assert!(done.is_completed(), "{}", done.text());
    String::from_utf8(done.to_vec()).unwrap()
}

#[test]
fn workers_are_forked_by_the_program_and_have_what_it_has_loaded() {
    let _watchdog = watchdog(60);
    let engine = forked(3).start().unwrap();
    let zygote = zygote_of(&engine);
    assert_eq!(Proc::read(zygote).unwrap().group, zygote);
    for row in engine.workers() {
        let worker = Proc::read(row.pid).unwrap();
        assert_eq!(worker.name, "mf-worker");
        assert_eq!((worker.parent, worker.group), (zygote, zygote));
    }
    for _ in 0..100 {
        engine.submit(b"loaded").unwrap();
    }
    let expected = format!("{zygote} {zygote}");
    for done in collect(&engine, 100) {
        assert_eq!(done.to_vec(), expected.as_bytes());
    }
    let workers: Vec<u32> = engine.workers().iter().map(|row| row.pid).collect();
    engine.stop(None).unwrap();
    assert!(!is_alive(zygote));
    assert!(workers.iter().all(|&pid| !is_alive(pid)));
}

#[test]
fn a_killed_worker_is_replaced_within_milliseconds() {
    let _watchdog = watchdog_alone(120);
    let engine = forked(1).start().unwrap();
    let mut times = Vec::new();
    for _ in 0..50 {
        // One that has worked: others are replaced with a delay.
        assert_eq!(ask(&engine, "x"), "x");
        let old = worker(&engine, 0).pid;
        let start = Instant::now();
        kill(old);
        assert_eq!(ask_again(&engine), "again");
        times.push(start.elapsed());
        assert_ne!(worker(&engine, 0).pid, old);
    }
    times.sort_unstable();
    let p50 = times[times.len() / 2];
    println!(
        "from the kill of a worker to a result of the next: p50 {p50:?}, most {:?}",
        times[49]
    );
    assert!(p50 < Duration::from_millis(100), "{times:?}");
}

/// The answer to a task that may start on a dying worker.
fn ask_again(engine: &Engine) -> String {
    let options = miniflow::SubmitOptions::new().max_attempts(10);
    let id = engine.submit_with(b"again", &options).unwrap();
    String::from_utf8(wait(engine, id).to_vec()).unwrap()
}

#[test]
fn a_killed_zygote_is_replaced_and_its_workers_go_on() {
    let _watchdog = watchdog(60);
    let engine = forked(2).start().unwrap();
    let zygote = zygote_of(&engine);
    let workers = [worker(&engine, 0).pid, worker(&engine, 1).pid];
    for _ in 0..2 {
        engine.submit(b"hold").unwrap();
    }
    until("they run", || {
        engine.workers().iter().all(|row| row.running == 1)
    });
    kill(zygote);
    until("it is gone", || !is_alive(zygote));
    assert!(workers.iter().all(|&pid| is_alive(pid)));
    kill(workers[0]);
    assert_eq!(collect(&engine, 1)[0].outcome(), Outcome::Crashed);
    until("it is replaced", || {
        let row = worker_or_none(&engine, 0);
        row.is_some_and(|pid| pid != workers[0]) && engine.stats().workers == 2
    });
    let successor = Proc::read(worker(&engine, 0).pid).unwrap().parent;
    assert_ne!(successor, zygote);
    assert_eq!(ask(&engine, "loaded"), format!("{successor} {successor}"));
    assert!(is_alive(workers[1]));
    assert!(!engine.stats().degraded);
}

fn worker_or_none(engine: &Engine, slot: u32) -> Option<u32> {
    let rows = engine.workers();
    let row = rows.iter().find(|row| row.slot == slot)?;
    (row.pid != 0).then_some(row.pid)
}

#[track_caller]
fn fails_with(builder: Builder, words: &str) {
    match builder.start() {
        Ok(_) => panic!("it starts"),
        Err(e) => assert!(e.to_string().contains(words), "{e}"),
    }
}

#[test]
fn an_engine_whose_zygote_program_cannot_start_workers_fails_with_the_reason() {
    let _watchdog = watchdog(60);
    fails_with(
        engine_of("a_zygote_program_that_fails", 2),
        "no module named x\u{2026}",
    );
    fails_with(
        engine_of("a_zygote_program_that_exits_at_once", 2),
        "exit code 33",
    );
    let missing = cpu_only(2, 1).zygote_program(["/nowhere/at/all"]);
    fails_with(missing, "cannot execute");
    let hangs = engine_of("a_zygote_program_that_hangs", 1);
    let hangs = hangs.start_timeout(Duration::from_millis(300));
    assert!(matches!(hangs.start(), Err(Error::Timeout)));
    let empty = cpu_only(1, 1).zygote_program([""; 0]).start();
    assert!(matches!(empty, Err(Error::Invalid(_))));
}

#[test]
fn a_crash_of_a_worker_is_reported_with_its_signal() {
    let _watchdog = watchdog(60);
    let engine = forked(1).start().unwrap();
    let id = engine.submit(b"crash").unwrap();
    let done = wait(&engine, id);
    assert_eq!(done.outcome(), Outcome::Crashed);
    assert!(done.text().contains("SIGSEGV"), "{}", done.text());
    assert!(done.text().contains("work"), "{}", done.text()); // the function
    assert_eq!(ask(&engine, "x"), "x");
}

#[test]
fn the_sandbox_holds_for_workers_but_not_for_their_zygote() {
    let _watchdog = watchdog(60);
    let open = forked(1).start().unwrap();
    assert_eq!(ask(&open, "signal the host"), "allowed");
    let sandbox = Sandbox::new().seccomp(true).limit_files(40).limit_core(0);
    let engine = forked(1).sandbox(sandbox).start().unwrap();
    assert_eq!(ask(&engine, "signal the host"), "denied");
    let limits = |pid: u32| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = |pid: u32| {
        let limits = limits(pid);
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        line.unwrap().split_whitespace().nth(3).unwrap().to_owned()
    };
    assert_eq!(files(worker(&engine, 0).pid), "40");
    assert_eq!(files(zygote_of(&engine)), files(std::process::id()));
    let status = |pid: u32, field: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field).map(str::to_owned));
        line.unwrap().trim().to_owned()
    };
    assert_eq!(status(worker(&engine, 0).pid, "Seccomp:"), "2");
    assert_eq!(
        status(zygote_of(&engine), "NoNewPrivs:"),
        status(std::process::id(), "NoNewPrivs:")
    );
    // And one that is replaced is no freer.
    kill(worker(&engine, 0).pid);
    assert_eq!(ask_again(&engine), "again");
    assert_eq!(ask(&engine, "signal the host"), "denied");
}

#[test]
fn a_child_with_threads_runs_nothing_under_a_sandbox_that_would_not_hold_for_them() {
    let _watchdog = watchdog(60);
    let program = "a_zygote_program_whose_children_start_threads_before_they_join";
    let engine = engine_of(program, 1).start().unwrap();
    assert_eq!(ask(&engine, "x"), "x");
    let sandbox = Sandbox::new().no_new_privs(true);
    fails_with(engine_of(program, 1).sandbox(sandbox), "it must join first");
}

#[test]
fn more_workers_than_requests_fit_in_a_socket_wait_for_a_zygote_program_that_loads_for_long() {
    let _watchdog = watchdog(60);
    let engine = engine_of("a_zygote_program_that_hangs", 1000)
        .payload_arena(16 << 20)
        .start_timeout(Duration::from_millis(300));
    assert!(matches!(engine.start(), Err(Error::Timeout)));
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn a_hundred_workers_that_are_recycled_leave_no_zombies_and_no_descriptors() {
    let _watchdog = watchdog_alone(120);
    let engine = forked(2).recycle_after(1).start().unwrap();
    let zygote = zygote_of(&engine);
    let first = ask(&engine, "descriptors");
    let settled = || {
        until("all is quiet", || {
            engine.stats().workers == 2 && children_of(zygote).len() == 2
        });
        (descriptors(std::process::id()), descriptors(zygote))
    };
    let before = settled();
    while engine.stats().recycled < 100 {
        assert_eq!(ask(&engine, "x"), "x");
    }
    assert_eq!(ask(&engine, "descriptors"), first);
    assert_eq!(settled(), before);
    assert_eq!(engine.stats().died, 0);
}

#[test]
fn a_zygote_program_that_makes_mistakes_is_told_and_the_engine_goes_on() {
    let _watchdog = watchdog(60);
    let engine = engine_of("a_zygote_program_that_makes_mistakes", 1)
        .start()
        .unwrap();
    let zygote = zygote_of(&engine);
    for _ in 0..5 {
        let old = worker(&engine, 0).pid;
        assert_eq!(ask(&engine, "x"), "x");
        kill(old);
        until("it is replaced", || {
            worker_or_none(&engine, 0).is_some_and(|pid| pid != old) && engine.stats().workers == 1
        });
    }
    assert_eq!(zygote_of(&engine), zygote);
    assert_eq!(ask(&engine, "x"), "x");
}

/// A script that is one program or another, as a test says; removed when dropped.
struct Script(PathBuf);

impl Script {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("miniflow-test-zygote-{}-{number}", std::process::id());
        let script = Self(std::env::temp_dir().join(name));
        script.becomes("a_zygote_program");
        script
    }

    fn becomes(&self, program: &str) {
        let new = self.0.with_extension("new");
        let [me, exact, program, threads] = argv(program);
        fs::write(
            &new,
            format!("#!/bin/sh\nexec {me} {exact} {program} {threads}\n"),
        )
        .unwrap();
        fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }

    fn engine(&self) -> Engine {
        let builder = cpu_only(1, 1).start_timeout(Duration::from_secs(2));
        builder
            .zygote_program([self.0.to_str().unwrap()])
            .start()
            .unwrap()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// The text of a task that no worker could be started for.
fn reason(engine: &Engine) -> String {
    let id = engine.submit(b"x").unwrap();
    let failed = wait(engine, id);
    assert_eq!((failed.outcome(), failed.attempt()), (Outcome::Failed, 0));
    failed.text()
}

#[test]
fn tasks_fail_with_the_reason_while_the_zygote_program_cannot_be_started_again() {
    // Alone: a script that a forked child has open for writing, for a moment, cannot be executed.
    let _watchdog = watchdog_alone(120);
    let script = Script::new();
    for (program, words) in [
        ("a_zygote_program_that_fails", "no module named x\u{2026}"),
        ("a_zygote_program_that_exits_at_once", "exit code 33"),
        (
            "a_zygote_program_that_hangs",
            "has started no worker for 2s",
        ),
        ("", "cannot execute"),
    ] {
        script.becomes("a_zygote_program");
        let engine = script.engine();
        let zygote = zygote_of(&engine);
        if program.is_empty() {
            fs::remove_file(&script.0).unwrap();
        } else {
            script.becomes(program);
        }
        kill(zygote);
        until("it is gone", || !is_alive(zygote));
        assert_eq!(ask(&engine, "x"), "x", "its worker lives");
        kill(worker(&engine, 0).pid);
        until("it is gone", || engine.stats().workers == 0);
        let text = reason(&engine);
        assert!(text.contains(words), "{text}");
        assert!(!engine.stats().degraded);
        script.becomes("a_zygote_program");
        until("it works again", || {
            let id = engine.submit(b"x").unwrap();
            wait(&engine, id).is_completed()
        });
    }
}

#[test]
fn a_worker_does_not_outlive_a_zygote_that_dies_before_it_has_answered() {
    let _watchdog = watchdog(60);
    for program in [
        "a_zygote_program_that_dies_before_the_child_joins",
        "a_zygote_program_that_dies_after_the_child_has_joined",
    ] {
        let (mut read, write) = std::io::pipe().unwrap();
        fails_with(
            engine_of(program, 1).inherit([write.as_raw_fd()]),
            "SIGKILL",
        );
        drop(write);
        let mut said = String::new();
        read.read_to_string(&mut said).unwrap(); // the end of which is the end of all of them
        // The engine may have tried once more before it gave up.
        assert!(
            !said.is_empty() && said.replace("closed", "").is_empty(),
            "{program}: {said}"
        );
    }
}

// ---- the death of the host ----

const HOST: &str = "MINIFLOW_TEST_ZYGOTE_PROGRAM_HOST";
const PROGRAM: &str = "MINIFLOW_TEST_ZYGOTE_PROGRAM";

#[test]
fn a_host_that_waits_to_be_killed() {
    let (Ok(name), Ok(program)) = (std::env::var(HOST), std::env::var(PROGRAM)) else {
        return;
    };
    let builder = engine_of(&program, 2).name(name);
    let engine = builder.start_timeout(Duration::from_secs(3600)).start();
    let engine = engine.unwrap();
    for _ in 0..2 {
        engine.submit(b"hold").unwrap();
    }
    loop {
        std::thread::park();
    }
}

/// A host in a process of its own; killed when dropped.
struct Host(Child);

impl Host {
    fn start(name: &Name, program: &str) -> Self {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_host_that_waits_to_be_killed"])
            .env(HOST, &**name)
            .env(PROGRAM, program)
            .stdout(Stdio::null())
            .spawn()
            .map(Self)
            .unwrap()
    }

    /// Its processes, once they are what `wanted` says of the workers and their zygote.
    fn family(&self, mut wanted: impl FnMut(&[u32], u32) -> bool) -> Vec<u32> {
        let mut family = Vec::new();
        until("the engine is up", || {
            let [zygote] = children_of(self.0.id())[..] else {
                return false;
            };
            family = children_of(zygote);
            let reached = wanted(&family, zygote);
            family.push(zygote);
            reached
        });
        family
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[track_caller]
fn nothing_is_left(name: &Name, family: &[u32]) {
    until("nothing is left", || {
        !name.path().exists() && family.iter().all(|&pid| !is_alive(pid))
    });
}

#[test]
fn nothing_is_left_of_a_host_that_is_killed() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let host = Host::start(&name, "a_zygote_program");
    // Each has its watcher.
    let runs = |pid: &u32| Proc::read(*pid).is_some_and(|worker| worker.threads > 1);
    let family = host.family(|workers, _| workers.len() == 2 && workers.iter().all(runs));
    assert!(name.path().exists() && family.iter().all(|&pid| is_alive(pid)));
    drop(host);
    nothing_is_left(&name, &family);
}

#[test]
fn nothing_is_left_of_a_host_that_is_killed_while_its_zygote_program_loads() {
    let _watchdog = watchdog(60);
    let name = Name::unique();
    let host = Host::start(&name, "a_zygote_program_that_loads_for_long");
    let loads = |zygote: u32| {
        let program = fs::read(format!("/proc/{zygote}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&program).contains("that_loads_for_long")
    };
    let family = host.family(|_, zygote| loads(zygote) && name.path().exists());
    drop(host);
    nothing_is_left(&name, &family);
}
