//! Limits of the system that are reached: each is an error that names the limit, and the engine works
//! on when the scarcity ends.
//!
//! Limits are the whole process's, so each test runs in a process of its own: this program, told to
//! run one test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Name, collect, cpu_only, kill, until, watchdog, worker, zygote_of};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Completion, Engine, Error, Full, Outcome, TaskId};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

const CHILD: &str = "MINIFLOW_TEST_CHILD";

/// True in the process in which the body of `test` is to run; else runs it there.
#[track_caller]
fn is_child(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn echo(task: &mut Task<'_>) -> TaskResult {
    let payload = task.payload().to_vec();
    Ok(task.reply(&payload)?)
}

fn soft_limit(resource: Resource, value: u64) {
    let maximum = getrlimit(resource).maximum;
    let current = Some(value);
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

fn unlimit(resource: Resource) {
    let maximum = getrlimit(resource).maximum;
    let current = maximum;
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

fn wait(engine: &Engine, id: TaskId) -> Completion {
    engine.wait(id, Some(Duration::from_secs(20))).unwrap()
}

#[track_caller]
fn assert_says(text: &str, part: &str) {
    assert!(text.contains(part), "`{part}` is not in `{text}`");
}

/// A submit ends well, again and again, now that there is no scarcity.
#[track_caller]
fn assert_works(engine: &Engine) {
    until("it works again", || {
        let id = engine.submit(&[7; 5000]).unwrap();
        wait(engine, id).is_completed()
    });
    for _ in 0..100 {
        engine.submit(&[1; 300]).unwrap();
    }
    assert!(collect(engine, 100).iter().all(Completion::is_completed));
    assert_eq!(engine.stats().payload_bytes, 0);
}

#[test]
fn without_descriptors_an_engine_does_not_start_and_says_why() {
    if !is_child("without_descriptors_an_engine_does_not_start_and_says_why") {
        return;
    }
    let _watchdog = watchdog(60);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    // Wherever it is met.
    for more in 0..20 {
        soft_limit(Resource::Nofile, open + more);
        match cpu_only(1, 1).handler(echo).start() {
            Ok(engine) => {
                assert!(more > 5, "with {more}");
                unlimit(Resource::Nofile);
                return assert_works(&engine);
            }
            Err(e) => assert_says(&e.to_string(), "RLIMIT_NOFILE"),
        }
        let left = std::fs::read_dir("/proc/self/fd").map_or(open, |fds| fds.count() as u64);
        assert!(left <= open, "{left} of {open} descriptors are open");
    }
    panic!("20 descriptors are not enough");
}

#[test]
fn without_descriptors_a_dead_worker_is_replaced_later() {
    if !is_child("without_descriptors_a_dead_worker_is_replaced_later") {
        return;
    }
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1).handler(echo).start().unwrap();
    let victim = worker(&engine, 0).pid;
    soft_limit(Resource::Nofile, 5);
    kill(victim);
    until("it is gone", || engine.stats().died == 1);
    // The other one does all the work.
    for _ in 0..100 {
        engine.submit(&[3; 200]).unwrap();
    }
    assert!(collect(&engine, 100).iter().all(Completion::is_completed));
    unlimit(Resource::Nofile);
    until("it is replaced", || engine.stats().workers == 2);
    assert_works(&engine);
}

#[test]
fn without_any_worker_and_descriptors_tasks_fail_with_the_reason() {
    if !is_child("without_any_worker_and_descriptors_tasks_fail_with_the_reason") {
        return;
    }
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(echo).start().unwrap();
    let victim = worker(&engine, 0).pid;
    soft_limit(Resource::Nofile, 5);
    kill(victim);
    until("it is gone", || engine.stats().died == 1);
    let id = engine.submit(b"x").unwrap();
    let failed = wait(&engine, id);
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert_says(&failed.text(), "RLIMIT_NOFILE");
    unlimit(Resource::Nofile);
    assert_works(&engine);
}

fn address_space() -> u64 {
    let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = sizes.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn without_address_space_an_engine_does_not_start_and_says_why() {
    if !is_child("without_address_space_an_engine_does_not_start_and_says_why") {
        return;
    }
    let _watchdog = watchdog(60);
    let mut refused = 0;
    // The first start tests the kernel, with a thread: the standard library aborts the process if a
    // new thread gets its stack and then no room for its signal stack.
    assert_works(&cpu_only(1, 1).handler(echo).start().unwrap());
    for megabytes in [32, 128, 200, 300, 320] {
        soft_limit(Resource::As, address_space() + (megabytes << 20));
        match cpu_only(1, 1).handler(echo).start() {
            Ok(_) => {}
            Err(e) => {
                refused += 1;
                // Also if it is a worker, which inherits the limit, that meets it.
                assert_says(&e.to_string(), "RLIMIT_AS");
            }
        }
    }
    assert!(refused >= 2, "{refused}");
    unlimit(Resource::As);
    assert_works(&cpu_only(1, 1).handler(echo).start().unwrap());
}

#[test]
fn without_address_space_the_workers_that_live_go_on() {
    if !is_child("without_address_space_the_workers_that_live_go_on") {
        return;
    }
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 1)
        .max_tasks(60_000)
        .handler(echo)
        .start()
        .unwrap();
    let victim = worker(&engine, 0).pid;
    soft_limit(Resource::As, address_space() + (4 << 20));
    kill(victim);
    until("it is gone", || engine.stats().died == 1);
    let large = common::bytes(1, 4 << 20);
    for _ in 0..20_000 {
        engine.submit(&[3; 30]).unwrap();
    }
    let id = engine.submit(&large[..1 << 20]).unwrap();
    let done = wait(&engine, id);
    assert!(done.is_completed(), "{}", done.text());
    let mut reader = done.reader();
    let mut buffer = [0; 4096];
    for chunk in large[..1 << 20].chunks(4096) {
        std::io::Read::read_exact(&mut reader, &mut buffer).unwrap();
        assert!(buffer == *chunk);
    }
    assert!(
        collect(&engine, 20_000)
            .iter()
            .all(Completion::is_completed)
    );
    unlimit(Resource::As);
    until("it is replaced", || engine.stats().workers == 2);
    drop(done);
    assert_works(&engine);
}

#[test]
fn a_fork_that_is_refused_is_tried_again_and_tasks_fail_meanwhile() {
    if !is_child("a_fork_that_is_refused_is_tried_again_and_tasks_fail_meanwhile") {
        return;
    }
    let _watchdog = watchdog(60);
    if rustix::process::geteuid().is_root() {
        // Root is exempt from the limit.
        // SAFETY: no other thread of this process depends on who it is.
        let rc = unsafe { libc::syscall(libc::SYS_setresuid, 65_533, 65_533, 65_533) };
        assert_eq!(rc, 0);
    }
    let engine = cpu_only(1, 1).handler(echo).start().unwrap();
    let zygote = rustix::process::Pid::from_raw(zygote_of(&engine).cast_signed());
    let limit = |current| {
        let maximum = getrlimit(Resource::Nproc).maximum;
        prlimit(zygote, Resource::Nproc, Rlimit { current, maximum }).unwrap();
    };
    limit(Some(0));
    // Not by kill(2): whoever changes who it is may not signal others.
    let id = engine.submit(b"x").unwrap();
    assert!(wait(&engine, id).is_completed());
    kill(worker(&engine, 0).pid);
    until("it is gone", || engine.stats().died >= 1);
    let id = engine.submit(b"x").unwrap();
    let failed = wait(&engine, id);
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert_says(&failed.text(), "RLIMIT_NPROC");
    limit(getrlimit(Resource::Nproc).maximum);
    assert_works(&engine);
}

#[test]
fn a_small_dev_shm_stops_neither_lanes_nor_arenas_and_names_itself() {
    if !is_child("a_small_dev_shm_stops_neither_lanes_nor_arenas_and_names_itself") {
        return;
    }
    let _watchdog = watchdog(60);
    // SAFETY: a mount namespace of this process's own; it is the only thread that matters.
    let own = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    let mounted = own
        && Command::new("sh")
            .args([
                "-c",
                "mount --make-rprivate / && mount -t tmpfs -o size=64k none /dev/shm",
            ])
            .status()
            .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("SKIP: no file system can be mounted here");
        return;
    }
    let name = Name::unique();
    let small = cpu_only(2, 1).name(&*name).handler(echo).start().unwrap();
    let id = small.submit(&common::bytes(3, 4 << 20)).unwrap();
    assert!(wait(&small, id).is_completed());
    assert_works(&small);
    drop(small);
    let large = cpu_only(1, 1)
        .workers_between(miniflow::Class::CpuBound, 1, 1000)
        .name(&*name)
        .handler(echo)
        .start();
    match large {
        Err(Error::NoMemory(text)) => assert_says(&text, "/dev/shm"),
        other => panic!("{other:?}"),
    }
    assert!(!name.path().exists());

    // A name that nobody has asked for is not worth a failure.
    let large = cpu_only(1, 1)
        .workers_between(miniflow::Class::CpuBound, 1, 1000)
        .handler(echo)
        .start()
        .unwrap();
    assert_eq!(large.name(), None);
    let status = large.status();
    assert_eq!((status.name, status.notes.len()), (None, 1));
    assert_says(&status.notes[0], "has no name");
    assert_says(&status.notes[0], "/dev/shm");
    assert_works(&large);
}

#[test]
fn what_is_full_is_named_and_has_room_again_later() {
    let _watchdog = watchdog(60);
    let board = common::Board::new();
    let engine = cpu_only(1, 1)
        .max_tasks(100)
        .max_payload(1 << 20)
        .payload_arena(2 << 20)
        .handler(move |task| {
            board.wait(0);
            echo(task)
        })
        .start()
        .unwrap();
    let payload = vec![5; 1 << 20];
    for _ in 0..2 {
        engine.submit(&payload).unwrap();
    }
    match engine.submit(&payload) {
        Err(e @ Error::WouldBlock(Full::Payloads)) => assert_says(&e.to_string(), "payload_arena"),
        other => panic!("{other:?}"),
    }
    for _ in 0..98 {
        engine.submit(b"x").unwrap();
    }
    match engine.submit(b"x") {
        Err(e @ Error::WouldBlock(Full::Tasks)) => assert_says(&e.to_string(), "max_tasks"),
        other => panic!("{other:?}"),
    }
    match engine.submit(&vec![0; (1 << 20) + 1]) {
        Err(e @ Error::TooLarge { .. }) => assert_says(&e.to_string(), "1048576"),
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.stats().would_block, 2);
    board.set(0, 1);
    assert!(collect(&engine, 100).iter().all(Completion::is_completed));
    assert_works(&engine);
}
