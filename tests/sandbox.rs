//! Workers try what the sandbox forbids; the same attempt succeeds without it, where it can.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{collect, cpu_only, kill, until, watchdog, watchdog_alone, worker};
use miniflow::worker::{Task, TaskResult, Worker};
use miniflow::{Builder, Completion, Engine, Error, Outcome, Sandbox};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

// ---- what workers try ----

/// A system call: 0 (any success) or the error number.
fn call(number: i64, args: [usize; 6]) -> i32 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the callers' pointers are of this process and valid for the call, or only numbers
    // that the kernel checks.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    match answer {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    }
}

fn pidfd(pid: usize) -> usize {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "pidfd_open of {pid}");
    fd as usize
}

/// A read or write of 8 bytes of another process's memory; what was read.
fn other_memory(number: i64, pid: usize, address: usize, value: u64) -> (i32, u64) {
    let mut word = value;
    let here = libc::iovec {
        iov_base: (&raw mut word).cast(),
        iov_len: 8,
    };
    let there = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(address),
        iov_len: 8,
    };
    let (here, there) = (&raw const here as usize, &raw const there as usize);
    let errno = call(number, [pid, here, 1, there, 1, 0]);
    (errno, word)
}

const PRIVATE: usize = 128;

/// A futex operation with the number `operation`, of a word that is 0, with another that is 0.
fn futex(operation: usize) -> i32 {
    let words = [0_u32; 2];
    let [first, second] = [&raw const words[0] as usize, &raw const words[1] as usize];
    call(libc::SYS_futex, [first, operation, 0, 0, second, 0])
}

/// Two threads that pass a token to and fro.
fn condition_variable() -> i32 {
    let (turn, changed) = (Mutex::new(0), Condvar::new());
    let play = |me: u32| {
        for _ in 0..100 {
            let turn = turn.lock().unwrap();
            *changed.wait_while(turn, |turn| *turn % 2 != me).unwrap() += 1;
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| play(0));
        play(1);
    });
    i32::from(*turn.lock().unwrap() != 200)
}

fn open_many(count: usize) -> i32 {
    let files: Result<Vec<File>, _> = (0..count).map(|_| File::open("/dev/null")).collect();
    files.map_or_else(|e| e.raw_os_error().unwrap(), |_| 0)
}

/// In a child of the worker: whether it may signal `pid`.
fn kill_from_a_child(pid: usize) -> i32 {
    // SAFETY: the child makes system calls only, and ends.
    match unsafe { libc::fork() } {
        0 => {
            let errno = call(libc::SYS_kill, [pid, 0, 0, 0, 0, 0]);
            // SAFETY: ends the child.
            unsafe { libc::_exit(errno) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a place for the answer.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            libc::WEXITSTATUS(status)
        }
    }
}

/// Uses processor time until this process has had that much.
fn burn(time: Duration) {
    let me = std::process::id();
    while common::cpu_time(me) < time {
        for _ in 0..100_000 {
            std::hint::spin_loop();
        }
    }
}

/// Does what the payload says, "NAME NUMBER NUMBER", and replies with the error number (0: it
/// worked) and a value.
fn attempt(task: &mut Task<'_>) -> TaskResult {
    let text = String::from_utf8(task.payload().to_vec()).unwrap();
    let mut words = text.split(' ');
    let name = words.next().unwrap().to_owned();
    let mut number = || words.next().map_or(0, |n| n.parse::<usize>().unwrap());
    let (pid, other) = (number(), number());
    let me = std::process::id() as usize;
    let mut value = 0;
    let signal = |call_number, target: usize| call(call_number, [target, 0, 0, 0, 0, 0]);
    let mut info = [0_i32; 32];
    info[2] = libc::SI_QUEUE;
    let info = info.as_ptr() as usize;
    let errno = match name.as_str() {
        "me" => {
            value = me as u64;
            0
        }
        "attach" => call(libc::SYS_ptrace, [16, pid, 0, 0, 0, 0]),
        "seize" => call(libc::SYS_ptrace, [0x4206, pid, 0, 0, 0, 0]),
        "traceme" => call(libc::SYS_ptrace, [0, 0, 0, 0, 0, 0]),
        "readv" => {
            let (errno, word) = other_memory(libc::SYS_process_vm_readv, pid, other, 0);
            value = word;
            errno
        }
        "writev" => other_memory(libc::SYS_process_vm_writev, pid, other, 0xbad).0,
        "getfd" => call(libc::SYS_pidfd_getfd, [pidfd(pid), 0, 0, 0, 0, 0]),
        "kcmp" => call(libc::SYS_kcmp, [me, pid, 2, 0, 0, 0]),
        "madvise" => {
            let place = [other & !4095, 4096];
            let place = place.as_ptr() as usize;
            call(libc::SYS_process_madvise, [pidfd(pid), place, 1, 20, 0, 0])
        }
        "kill" => signal(libc::SYS_kill, pid),
        "kill-all" => signal(libc::SYS_kill, usize::MAX),
        "kill-group" => signal(libc::SYS_kill, 0),
        "kill-that-group" => signal(libc::SYS_kill, pid.wrapping_neg()),
        "kill-self" => signal(libc::SYS_kill, me),
        "kill-from-child" => kill_from_a_child(pid),
        "tkill" => signal(libc::SYS_tkill, pid),
        "tgkill" => call(libc::SYS_tgkill, [pid, pid, 0, 0, 0, 0]),
        "tgkill-self" => call(libc::SYS_tgkill, [me, me, 0, 0, 0, 0]),
        "queue" => call(libc::SYS_rt_sigqueueinfo, [pid, 0, info, 0, 0, 0]),
        "queue-thread" => call(libc::SYS_rt_tgsigqueueinfo, [pid, pid, 0, info, 0, 0]),
        "pidfd-signal" => call(libc::SYS_pidfd_send_signal, [pidfd(pid), 0, 0, 0, 0, 0]),
        "prlimit" => call(libc::SYS_prlimit64, [pid, 4, 0, 0, 0, 0]),
        "own-prlimit" => call(libc::SYS_prlimit64, [0, 4, 0, 0, 0, 0]),
        "owner" => {
            let file = File::open("/dev/null").unwrap();
            call(
                libc::SYS_fcntl,
                [file.as_raw_fd() as usize, 8, pid, 0, 0, 0],
            )
        }
        "type-ahead" => {
            let file = File::open("/dev/null").unwrap();
            call(
                libc::SYS_ioctl,
                [file.as_raw_fd() as usize, 0x5412, 0, 0, 0, 0],
            )
        }
        "requeue" => futex(3),
        "cmp-requeue" => futex(4),
        "cmp-requeue-pi" => futex(12),
        "requeue-2" => call(456, [0; 6]),
        "private-requeue" => futex(3 | PRIVATE),
        "private-cmp-requeue" => futex(4 | PRIVATE),
        "wake" => futex(1),
        "condition" => condition_variable(),
        "x32" => call(0x4000_0000 + 521, [0x4206, pid, 0, 0, 0, 0]),
        "abort" => std::process::abort(),
        "raise" => {
            // SAFETY: takes numbers only.
            unsafe { libc::raise(libc::SIGUSR1) };
            0
        }
        "no-new-privs" => {
            value = prctl(libc::PR_GET_NO_NEW_PRIVS);
            0
        }
        "seccomp" => {
            value = prctl(libc::PR_GET_SECCOMP);
            0
        }
        "dumpable" => {
            value = prctl(libc::PR_GET_DUMPABLE);
            0
        }
        "allocate" => {
            let got = Vec::<u8>::new().try_reserve_exact(pid);
            if got.is_ok() { 0 } else { libc::ENOMEM }
        }
        "open" => open_many(pid),
        "burn" => {
            burn(Duration::from_millis(pid as u64));
            0
        }
        "core-limit" => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
            value = limit.current.unwrap_or(u64::MAX);
            0
        }
        "proc-mem" => OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .map_or_else(|e| e.raw_os_error().unwrap(), |_| 0),
        other => panic!("no such attempt: {other}"),
    };
    Ok(task.reply(format!("{errno} {value}").as_bytes())?)
}

fn prctl(option: i32) -> u64 {
    // SAFETY: an option that only reads.
    let value = unsafe { libc::prctl(option, 0, 0, 0, 0) };
    u64::try_from(value).unwrap()
}

/// Has a worker try it: the error number and the value.
#[track_caller]
fn tries(engine: &Engine, what: &str) -> (i32, u64) {
    let id = engine.submit(what.as_bytes()).unwrap();
    let done = engine.wait(id, Some(Duration::from_secs(20))).unwrap();
    assert!(done.is_completed(), "{what}: {}", done.text());
    let text = done.text();
    let (errno, value) = text.split_once(' ').unwrap();
    (errno.parse().unwrap(), value.parse().unwrap())
}

#[track_caller]
fn errno_of(engine: &Engine, what: &str) -> i32 {
    tries(engine, what).0
}

/// One worker with small arenas.
fn small() -> Builder {
    cpu_only(1, 1)
        .max_payload(1 << 20)
        .max_result(1 << 20)
        .payload_arena(4 << 20)
        .result_arena(4 << 20)
}

fn with(sandbox: Sandbox) -> Engine {
    let engine = small().handler(attempt).sandbox(sandbox).start().unwrap();
    // A worker may be ready before the zygote has told who it is.
    until("pids are known", || {
        engine.workers().iter().all(|w| w.pid != 0)
    });
    engine
}

fn filtered() -> Engine {
    with(Sandbox::new().seccomp(true))
}

fn plain() -> Engine {
    with(Sandbox::new())
}

/// A process that nobody needs.
struct Victim(std::process::Child);

impl Victim {
    fn new() -> Self {
        Self(Command::new("sleep").arg("100").spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

// ---- the filter ----

#[test]
fn without_the_filter_workers_may_trace_and_change_the_host() {
    let _watchdog = watchdog(60);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: a security module may forbid it by itself to who is not root");
        return;
    }
    let engine = plain();
    let host = std::process::id();
    let word = AtomicU64::new(0);
    let address = word.as_ptr() as usize;
    word.store(77, SeqCst); // after the fork: the worker's copy does not have it
    assert_eq!(tries(&engine, &format!("readv {host} {address}")), (0, 77));
    assert_eq!(errno_of(&engine, &format!("writev {host} {address}")), 0);
    assert_eq!(word.load(SeqCst), 0xbad);
    assert_eq!(errno_of(&engine, &format!("getfd {host}")), 0);
    assert_ne!(errno_of(&engine, &format!("kcmp {host}")), libc::EPERM);
    let advised = errno_of(&engine, &format!("madvise {host} {address}"));
    assert_ne!(advised, libc::EPERM);
    let victim = Victim::new();
    assert_eq!(errno_of(&engine, &format!("seize {}", victim.0.id())), 0);
    drop(engine); // while its tracer lives, nobody else can reap the victim
}

#[test]
fn the_filter_denies_tracing_and_reading_and_writing_the_host() {
    let _watchdog = watchdog(60);
    let engine = filtered();
    let host = std::process::id();
    let word = AtomicU64::new(0);
    let address = word.as_ptr() as usize;
    word.store(77, SeqCst);
    let victim = Victim::new();
    for what in [
        format!("readv {host} {address}"),
        format!("writev {host} {address}"),
        format!("getfd {host}"),
        format!("kcmp {host}"),
        format!("madvise {host} {address}"),
        format!("attach {host}"),
        format!("seize {host}"),
        format!("seize {}", common::zygote_of(&engine)),
        format!("seize {}", victim.0.id()),
        "traceme".to_owned(),
    ] {
        assert_eq!(tries(&engine, &what), (libc::EPERM, 0), "{what}");
    }
    assert_eq!(word.load(SeqCst), 77);
    assert_ne!(errno_of(&engine, &format!("x32 {host}")), 0);
}

#[test]
fn the_filter_denies_signals_to_others() {
    let _watchdog = watchdog(60);
    let host = std::process::id();
    let (plain, filtered) = (plain(), filtered());
    let group = rustix::process::getpgrp().as_raw_nonzero();
    let victim = Victim::new();
    let mut attempts = vec![
        "kill-all".to_owned(),
        "kill-group".to_owned(),
        format!("kill-that-group {group}"),
    ];
    let (zygote, brother) = (common::zygote_of(&filtered), worker(&plain, 0).pid);
    for target in [host, zygote, brother, victim.0.id()] {
        for what in [
            "kill",
            "kill-from-child",
            "tkill",
            "tgkill",
            "queue",
            "queue-thread",
            "pidfd-signal",
            "prlimit",
            "owner",
        ] {
            attempts.push(format!("{what} {target}"));
        }
    }
    for what in attempts {
        assert_eq!(errno_of(&plain, &what), 0, "{what}, without the filter");
        assert_eq!(errno_of(&filtered, &what), libc::EPERM, "{what}");
    }
    assert_eq!(errno_of(&filtered, "type-ahead"), libc::EPERM);
    assert_eq!(errno_of(&plain, "type-ahead"), libc::ENOTTY);
    for what in ["kill-self", "tgkill-self", "own-prlimit"] {
        assert_eq!(errno_of(&filtered, what), 0, "{what}");
    }
}

#[test]
fn a_filtered_worker_may_end_itself_and_so_may_its_replacement() {
    let _watchdog = watchdog(60);
    let engine = filtered();
    for (what, signal) in [
        ("abort", libc::SIGABRT),
        ("raise", libc::SIGUSR1),
        ("abort", libc::SIGABRT),
    ] {
        assert_eq!(tries(&engine, "seccomp"), (0, 2));
        let id = engine.submit(what.as_bytes()).unwrap();
        let crashed = engine.wait(id, None).unwrap();
        assert_eq!(crashed.outcome(), Outcome::Crashed);
        assert_eq!((crashed.code(), crashed.by_signal()), (signal, true));
    }
    // The zygote is not restricted: it and the host still kill.
    let pid = tries(&engine, "me").1;
    kill(pid as u32);
    until("it is replaced", || engine.stats().workers == 1);
    assert_eq!(tries(&engine, "seccomp"), (0, 2));
}

#[test]
fn the_filter_denies_requeueing_of_shared_futexes_only() {
    let _watchdog = watchdog(60);
    let (plain, filtered) = (plain(), filtered());
    for what in ["requeue", "cmp-requeue"] {
        assert_eq!(errno_of(&plain, what), 0, "{what}, without the filter");
    }
    for what in ["requeue", "cmp-requeue", "cmp-requeue-pi", "requeue-2"] {
        assert_ne!(errno_of(&plain, what), libc::EPERM, "{what}");
        assert_eq!(errno_of(&filtered, what), libc::EPERM, "{what}");
    }
    for what in [
        "private-requeue",
        "private-cmp-requeue",
        "wake",
        "condition",
    ] {
        assert_eq!(errno_of(&filtered, what), 0, "{what}");
    }
}

/// The engine's own sleeping, waking, recalling, large results and orderly end.
#[test]
fn the_engine_works_with_filtered_workers() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(2, 4)
        .handler(|task| {
            if task.user_data() == 1 {
                std::thread::sleep(Duration::from_millis(50));
            }
            let payload = task.payload().to_vec();
            Ok(task.reply(&payload)?)
        })
        .spin(Duration::ZERO)
        .sandbox(Sandbox::strict_without_host())
        .start()
        .unwrap();
    for round in 0..20_u64 {
        for index in 0..50 {
            let options = miniflow::SubmitOptions::new().user_data(u64::from(index == 0));
            let payload = common::bytes(round, index * 4000);
            engine.submit_with(&payload, &options).unwrap();
        }
        let done = collect(&engine, 50);
        assert!(done.iter().all(Completion::is_completed));
        let mut sizes: Vec<usize> = done.iter().map(|c| c.to_vec().len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, (0..50).map(|n| n * 4000).collect::<Vec<_>>());
    }
    engine.stop(None).unwrap();
    assert_eq!((engine.stats().died, engine.stats().violations), (0, 0));
}

trait WithoutHost {
    /// What does not touch this test process, which others share.
    fn strict_without_host() -> Sandbox;
}

impl WithoutHost for Sandbox {
    fn strict_without_host() -> Sandbox {
        Self::strict().undumpable_host(false)
    }
}

// ---- privileges and limits ----

#[test]
fn workers_gain_no_new_privileges() {
    let _watchdog = watchdog(60);
    assert_eq!(tries(&plain(), "no-new-privs"), (0, 0));
    let engine = with(Sandbox::new().no_new_privs(true));
    assert_eq!(tries(&engine, "no-new-privs"), (0, 1));
    assert_eq!(tries(&engine, "seccomp"), (0, 0), "that is another setting");
    assert_eq!(tries(&filtered(), "no-new-privs"), (0, 1));
    assert_eq!(
        prctl(libc::PR_GET_NO_NEW_PRIVS),
        0,
        "the host is not concerned"
    );
}

#[test]
fn memory_is_limited() {
    let _watchdog = watchdog_alone(60);
    // Handler workers begin with what this process has mapped, in a test run a lot.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let limit = pages * 4096 + (512 << 20);
    let huge = "allocate 1073741824";
    assert_eq!(errno_of(&plain(), huge), 0);
    let engine = with(Sandbox::new().limit_memory(limit));
    let pid = worker(&engine, 0).pid;
    assert_eq!(errno_of(&engine, huge), libc::ENOMEM);
    assert_eq!(errno_of(&engine, "allocate 1000000"), 0);
    assert_eq!(worker(&engine, 0).pid, pid, "the worker lives");
}

#[test]
fn open_files_are_limited() {
    let _watchdog = watchdog(60);
    assert_eq!(errno_of(&plain(), "open 100"), 0);
    let engine = with(Sandbox::new().limit_files(40));
    assert_eq!(errno_of(&engine, "open 100"), libc::EMFILE);
    assert_eq!(errno_of(&engine, "open 20"), 0);
}

#[test]
fn processor_time_is_limited() {
    let _watchdog = watchdog(60);
    assert_eq!(errno_of(&plain(), "burn 1300"), 0);
    let engine = with(Sandbox::new().limit_cpu(Duration::from_secs(1)));
    let id = engine.submit(b"burn 5000").unwrap();
    let crashed = engine.wait(id, Some(Duration::from_secs(30))).unwrap();
    assert_eq!(crashed.outcome(), Outcome::Crashed);
    assert_eq!((crashed.code(), crashed.by_signal()), (libc::SIGXCPU, true));
    assert!(crashed.text().contains("SIGXCPU"), "{}", crashed.text());
    assert_eq!(errno_of(&engine, "burn 10"), 0, "by its replacement");
}

#[test]
fn core_files_are_limited() {
    let _watchdog = watchdog(60);
    let now = rustix::process::getrlimit(rustix::process::Resource::Core);
    let most = now.current.unwrap_or(u64::MAX);
    assert_eq!(tries(&plain(), "core-limit"), (0, most));
    let engine = with(Sandbox::new().limit_core(12_288));
    assert_eq!(tries(&engine, "core-limit"), (0, most.min(12_288)));
    let engine = with(Sandbox::strict_without_host());
    assert_eq!(tries(&engine, "core-limit"), (0, 0));
}

// ---- what cannot be applied ----

#[track_caller]
fn refused(builder: Builder, sandbox: Sandbox, parts: &[&str]) -> Error {
    let start = Instant::now();
    let timeout = Duration::from_secs(30);
    let builder = builder.sandbox(sandbox).start_timeout(timeout);
    let error = builder.start().unwrap_err();
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in `{text}`");
    }
    assert!(start.elapsed() < timeout / 3, "{:?}", start.elapsed());
    error
}

#[test]
fn a_memory_limit_that_is_too_low_is_named() {
    let _watchdog = watchdog(60);
    let limit = |bytes| Sandbox::new().limit_memory(bytes);
    // Less than what must be mapped.
    let arenas = refused(
        small().handler(attempt),
        limit(8 << 20),
        &["memory limit is 8388608", "payload_arena"],
    );
    assert!(matches!(arenas, Error::Invalid(_)), "{arenas:?}");
    // Less than this process has already.
    let mapping = refused(
        small().handler(attempt),
        limit(9 << 20),
        &["9437184 bytes of memory", "raise"],
    );
    assert!(matches!(mapping, Error::NoMemory(_)), "{mapping:?}");
    // Less than the threads' stacks.
    let threads = cpu_only(1, 256).handler(attempt).payload_arena(16 << 20);
    let threads = threads.result_arena(16 << 20);
    refused(threads, limit(400 << 20), &["419430400 bytes", "raise"]);
    // A program ends by itself, or is never born.
    for bytes in [9 << 20, 14 << 20] {
        let text = format!("{bytes} bytes of memory");
        refused(small().program(program()), limit(bytes), &[&text, "raise"]);
    }
}

/// Has this thread, and the zygote that is forked from it, fail a system call.
fn fail_from_now_on(number: i64, conditions: Vec<SeccompCondition>, errno: i32) {
    let rules = match conditions.as_slice() {
        [] => vec![],
        _ => vec![SeccompRule::new(conditions).unwrap()],
    };
    let filter = SeccompFilter::new(
        [(number, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn a_kernel_without_filters_is_named() {
    let _watchdog = watchdog(60);
    for errno in [libc::ENOSYS, libc::EINVAL, libc::EACCES] {
        let test = move || {
            fail_from_now_on(libc::SYS_seccomp, vec![], errno);
            let builder = small().handler(attempt);
            let error = refused(builder, Sandbox::new().seccomp(true), &["seccomp"]);
            let unsupported = matches!(error, Error::Unsupported(_));
            assert_eq!(unsupported, errno != libc::EACCES, "{error:?}");
        };
        std::thread::spawn(test).join().unwrap();
    }
}

#[test]
fn the_step_that_fails_is_named() {
    let _watchdog = watchdog(60);
    let test = || {
        let arg = |index, value| {
            let (length, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
            SeccompCondition::new(index, length, equal, value).unwrap()
        };
        let set = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);
        let address_space = arg(1, u64::from(libc::RLIMIT_AS));
        let conditions = vec![address_space, set.unwrap()];
        fail_from_now_on(libc::SYS_prlimit64, conditions, libc::EPERM);
        let sandbox = Sandbox::strict_without_host().limit_files(100);
        let texts = ["limit a worker's memory", "setrlimit(RLIMIT_AS)"];
        for builder in [small().handler(attempt), small().program(program())] {
            refused(builder, sandbox.clone().limit_memory(1 << 30), &texts);
        }
        let engine = small().handler(attempt).sandbox(sandbox).start().unwrap();
        assert_eq!(tries(&engine, "seccomp"), (0, 2), "the others do not fail");
    };
    std::thread::spawn(test).join().unwrap();
}

// ---- programs ----

const LANE: &str = "MINIFLOW_LANE";

/// This very test program, as a worker program.
fn program() -> Vec<String> {
    let exe = std::env::current_exe().unwrap();
    let args = ["--exact", "a_worker_program", "--nocapture"];
    let mut argv = vec![exe.to_str().unwrap().to_owned()];
    argv.extend(args.map(str::to_owned));
    argv
}

/// Not a test by itself: see [`program`].
#[test]
fn a_worker_program() {
    if std::env::var_os(LANE).is_none() {
        return;
    }
    let Ok(worker) = Worker::join() else {
        std::process::exit(3);
    };
    while let Ok(mut assigned) = worker.next(None) {
        let result = attempt(assigned.task());
        assigned.finish(result);
    }
}

#[test]
fn a_worker_program_works_and_is_restricted() {
    let _watchdog = watchdog(60);
    let sandbox = Sandbox::strict_without_host()
        .limit_memory(4 << 30)
        .limit_files(64)
        .limit_cpu(Duration::from_secs(30));
    let start = |sandbox| small().program(program()).sandbox(sandbox).start().unwrap();
    let (plain, engine) = (start(Sandbox::new()), start(sandbox));
    for _ in 0..500 {
        engine.submit(b"me").unwrap();
    }
    assert!(collect(&engine, 500).iter().all(Completion::is_completed));

    let host = std::process::id();
    for what in [
        format!("kill {host}"),
        format!("getfd {host}"),
        "cmp-requeue".to_owned(),
    ] {
        assert_eq!(errno_of(&plain, &what), 0, "{what}, without the sandbox");
        assert_eq!(errno_of(&engine, &what), libc::EPERM, "{what}");
    }
    let word = 0_u64;
    let address = &raw const word as usize;
    let read = format!("readv {host} {address}");
    assert_eq!(errno_of(&engine, &read), libc::EPERM);
    assert_eq!(errno_of(&engine, "open 100"), libc::EMFILE);
    assert_eq!(errno_of(&engine, "allocate 5000000000"), libc::ENOMEM);
    assert_eq!(tries(&engine, "core-limit"), (0, 0));
    assert_eq!(tries(&engine, "no-new-privs"), (0, 1));
    assert_eq!(tries(&engine, "seccomp"), (0, 2));
    assert_eq!(errno_of(&engine, "condition"), 0);
    engine.stop(None).unwrap();
    assert_eq!(engine.stats().died, 0);
}

// ---- the host ----

const HOST: &str = "MINIFLOW_TEST_HOST";

/// In a host of its own, undumpable or not: what it and its worker see.
fn run_host(how: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_host_that_workers_attack", "--nocapture"])
        .env(HOST, how)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|l| Some(l.split_once("SEEN ")?.1));
    let errors = String::from_utf8_lossy(&output.stderr);
    line.unwrap_or_else(|| panic!("{text}\n{errors}"))
        .to_owned()
}

/// Not a test by itself: see [`run_host`].
#[test]
fn a_host_that_workers_attack() {
    let Some(how) = std::env::var_os(HOST) else {
        return;
    };
    let _watchdog = watchdog(60);
    if rustix::process::geteuid().is_root() {
        // Root may open everybody's memory. Other threads must not keep the power.
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::setresgid(65534, 65534, 65534) }, 0);
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
    }
    // The change of the user has made it undumpable already.
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }, 0);
    let engine = with(Sandbox::new().undumpable_host(how == "undumpable"));
    let host = std::process::id();
    let (errno, _) = tries(&engine, &format!("proc-mem {host}"));
    let (_, workers) = tries(&engine, "dumpable");
    drop(engine);
    let hosts = prctl(libc::PR_GET_DUMPABLE);
    println!("SEEN open {errno}, host {hosts}, worker {workers}");
}

#[test]
fn the_memory_of_an_undumpable_host_cannot_be_opened() {
    let _watchdog = watchdog(60);
    let seen = run_host("undumpable");
    assert_eq!(seen, format!("open {}, host 0, worker 0", libc::EACCES));
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    if scope.is_ok_and(|scope| scope.trim() != "0") {
        return; // the kernel protects every parent
    }
    assert_eq!(run_host("dumpable"), "open 0, host 1, worker 1");
}
