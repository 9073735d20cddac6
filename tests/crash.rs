//! Workers die of faults; the completion says where, and whose fault it was.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use common::{Board, collect, cpu_only, kill, until, watchdog, watchdog_alone, worker};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Builder, Completion, Engine, Outcome, SubmitOptions};

#[path = "c/library.rs"]
#[allow(dead_code, reason = "every test file uses a part of it")]
mod library;

// ---- ways to die ----

#[inline(never)]
fn parse_header(header: *mut u8) {
    // SAFETY: none: this is the mistake.
    unsafe { header.write_volatile(black_box(1)) };
}

#[inline(never)]
fn fill_nothing() {
    // SAFETY: none: this is the mistake.
    unsafe { libc::memset(black_box(std::ptr::null_mut()), 1, black_box(100)) };
}

#[inline(never)]
fn give_up() {
    std::process::abort();
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "this is the mistake")]
fn recurse(depth: u64) -> u64 {
    let room = black_box([depth; 100]);
    recurse(depth + 1) + room[99]
}

#[inline(never)]
fn call_nothing() -> u64 {
    type Function = extern "C" fn() -> u64;
    // SAFETY: none: this is the mistake.
    let function: Function = unsafe { std::mem::transmute(black_box(8_usize)) };
    function() + 1
}

#[inline(never)]
fn raise_it(signal: c_int) {
    // SAFETY: no preconditions.
    let rc = unsafe { libc::raise(signal) };
    black_box(rc); // there is something left to do: no tail call
}

/// Reads a page of a mapping behind the end of its file.
#[inline(never)]
fn read_behind_the_end() {
    let file = rustix::fs::memfd_create("empty", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let access = rustix::mm::ProtFlags::READ;
    let flags = rustix::mm::MapFlags::SHARED;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let page =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, access, flags, &file, 0) }.unwrap();
    // SAFETY: none: this is the mistake.
    black_box(unsafe { page.cast::<u8>().read_volatile() });
}

/// Dies as its payload says.
fn die(task: &mut Task<'_>) -> TaskResult {
    match task.payload() {
        b"write" => parse_header(black_box(16_usize) as *mut u8),
        b"null" => fill_nothing(),
        b"abort" => give_up(),
        b"recurse" => drop(black_box(recurse(0))),
        b"call" => drop(black_box(call_nothing())),
        b"fpe" => raise_it(libc::SIGFPE),
        b"ill" => raise_it(libc::SIGILL),
        b"bus" => read_behind_the_end(),
        b"thread" => drop(std::thread::spawn(|| parse_header(16 as *mut u8)).join()),
        payload => {
            let payload = payload.to_vec();
            task.reply(&payload)?;
        }
    }
    Ok(())
}

// ---- what came of it ----

#[track_caller]
fn assert_crash(crash: &Completion, signal: i32, how: &str) {
    assert_eq!(crash.outcome(), Outcome::Crashed);
    assert_eq!((crash.code(), crash.by_signal()), (signal, true));
    let (text, id) = (crash.text(), crash.id());
    for part in [
        format!("worker {} (pid ", crash.worker()),
        format!(") {how}"),
        format!(" running task {id}, attempt 1"),
    ] {
        assert!(text.contains(&part), "`{part}` is not in `{text}`");
    }
}

/// Runs a task until its text names a function: a busy machine may take longer to find the name
/// than a completion waits for it. The rest must be right each time.
#[track_caller]
fn crash_of(engine: &Engine, payload: &str, signal: i32, how: &str, place: &str) -> Completion {
    let mut text = String::new();
    for _ in 0..10 {
        let id = engine.submit(payload.as_bytes()).unwrap();
        let crash = engine.wait(id, None).unwrap();
        assert_crash(&crash, signal, how);
        assert!(!crash.is_collateral());
        text = crash.text();
        if text.contains(", in ") {
            assert!(text.contains(place), "`{place}` is not in `{text}`");
            return crash;
        }
    }
    panic!("no name in `{text}`");
}

#[track_caller]
fn assert_works(engine: &Engine) {
    let id = engine.submit(b"fine").unwrap();
    assert_eq!(engine.wait(id, None).unwrap().to_vec(), b"fine");
}

#[test]
fn a_wild_write_is_told_by_address_function_and_file() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(die).start().unwrap();
    let segv = libc::SIGSEGV;
    let how = "died of SIGSEGV at 0x10";
    let place = ", in crash::parse_header (crash.rs:";
    crash_of(&engine, "write", segv, how, place);
    // What crashes in the C library is the fault of who called it.
    let how = "died of SIGSEGV at 0x0";
    let place = ", in crash::fill_nothing (crash.rs:";
    crash_of(&engine, "null", segv, how, place);
    assert_works(&engine);
    assert_eq!(engine.stats().violations, 0);
}

#[test]
fn a_jump_to_where_no_code_is_is_told_by_its_caller() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(die).start().unwrap();
    let how = "died of SIGSEGV at 0x8";
    let place = ", in crash::call_nothing (crash.rs:";
    crash_of(&engine, "call", libc::SIGSEGV, how, place);
    assert_works(&engine);
}

#[test]
fn an_abort_is_told_by_who_gave_up() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(die).start().unwrap();
    let place = ", in crash::give_up (crash.rs:";
    crash_of(&engine, "abort", libc::SIGABRT, "died of SIGABRT", place);
    assert_works(&engine);
}

/// On the first thread of a worker, and on those that it starts.
#[test]
fn a_stack_overflow_is_told_on_every_thread() {
    let _watchdog = watchdog(60);
    for threads in [1, 2] {
        let engine = cpu_only(1, threads).handler(die).start().unwrap();
        for _ in 0..3 {
            let place = ", in crash::recurse (crash.rs:";
            let how = "died of SIGSEGV at 0x";
            let crash = {
                let id = engine.submit(b"recurse").unwrap();
                engine.wait(id, None).unwrap()
            };
            assert_eq!(crash.code(), libc::SIGSEGV, "{}", crash.text());
            assert!(crash.text().contains(how), "{}", crash.text());
            if crash.text().contains(", in ") {
                assert!(crash.text().contains(place), "{}", crash.text());
            }
        }
        assert_works(&engine);
    }
}

#[test]
fn the_other_faults_are_told_too() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(die).start().unwrap();
    let place = ", in crash::raise_it (crash.rs:";
    crash_of(&engine, "fpe", libc::SIGFPE, "died of SIGFPE", place);
    crash_of(&engine, "ill", libc::SIGILL, "died of SIGILL", place);
    let place = ", in crash::read_behind_the_end (crash.rs:";
    crash_of(&engine, "bus", libc::SIGBUS, "died of SIGBUS at 0x", place);
    assert_works(&engine);
}

#[test]
fn a_kill_leaves_no_report() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1).handler(wait_or_die(board)).start().unwrap();
    let id = engine.submit(b"wait").unwrap();
    until("it runs", || board.get(1) == 1);
    let pid = worker(&engine, 0).pid;
    kill(pid);
    let crash = engine.wait(id, None).unwrap();
    let text = format!("worker 0 (pid {pid}) died of SIGKILL running task {id}, attempt 1");
    assert_eq!(crash.text(), text);
}

/// Tasks that wait until word 0 of the board is set, and then, one of them, die.
fn wait_or_die(board: Board) -> impl Fn(&mut Task<'_>) -> TaskResult + Send + Sync {
    move |task| {
        board.add(1);
        board.wait(0);
        if task.user_data() == 1 {
            return die(task);
        }
        std::thread::sleep(Duration::from_secs(1000));
        Ok(())
    }
}

#[test]
fn the_task_whose_thread_crashed_is_told_from_its_neighbours() {
    let _watchdog = watchdog(60);
    for guilty in 0..4 {
        let board = Board::new();
        let engine = cpu_only(1, 4).handler(wait_or_die(board)).start().unwrap();
        let ids: Vec<_> = (0..4)
            .map(|number| {
                let options = SubmitOptions::new().user_data(u64::from(number == guilty));
                engine.submit_with(b"write", &options).unwrap()
            })
            .collect();
        until("all run", || board.get(1) == 4);
        board.set(0, 1);
        for crash in collect(&engine, 4) {
            let text = crash.text();
            assert_crash(&crash, libc::SIGSEGV, "died of SIGSEGV at 0x10");
            let is_guilty = crash.id() == ids[guilty];
            assert_eq!(crash.is_collateral(), !is_guilty, "{text}");
            let beside = format!(", beside task {}, which crashed", ids[guilty]);
            assert_eq!(text.contains(&beside), !is_guilty, "{text}");
            if is_guilty && text.contains(", in ") {
                assert!(text.contains("crash::parse_header"), "{text}");
            }
        }
    }
}

#[test]
fn a_crash_on_a_thread_of_the_handlers_own_convicts_nobody() {
    let _watchdog = watchdog(60);
    let engine = cpu_only(1, 1).handler(die).start().unwrap();
    let how = "died of SIGSEGV at 0x10";
    let place = ", on a thread that took no task, in crash::parse_header (crash.rs:";
    crash_of(&engine, "thread", libc::SIGSEGV, how, place);
    assert_works(&engine);
}

/// Several threads crash at once: one report, one end.
#[test]
fn threads_that_crash_together_end_their_worker_once() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let handler = move |task: &mut Task<'_>| {
        board.add(1);
        board.wait(0);
        die(task)
    };
    let engine = cpu_only(1, 4).handler(handler).start().unwrap();
    for number in 0..4 {
        let payload: &[u8] = if number % 2 == 0 { b"write" } else { b"abort" };
        engine.submit(payload).unwrap();
    }
    until("all run", || board.get(1) == 4);
    board.set(0, 1);
    let crashes = collect(&engine, 4);
    let convicted = crashes.iter().filter(|c| !c.is_collateral());
    assert_eq!(convicted.count(), 1);
    let signal = crashes[0].code();
    assert!([libc::SIGSEGV, libc::SIGABRT].contains(&signal));
    assert!(crashes.iter().all(|crash| crash.code() == signal));
    assert_eq!(engine.stats().died, 1);
}

// ---- the host's own handlers ----

static BOARD: OnceLock<Board> = OnceLock::new();

extern "C" fn note_and_go_on(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let board = BOARD.get().unwrap();
    // SAFETY: the kernel passes a valid description of the signal.
    let info = unsafe { &*info };
    // SAFETY: which is that of a fault; of an abort the field means nothing.
    board.set(3, unsafe { info.si_addr() } as u64);
    board.set(4, signal as u64);
    board.add(2);
    // SAFETY: an all-zero `sigaction` is SIG_DFL.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a valid disposition; the fault happens again when this returns.
    unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
    if signal == libc::SIGABRT {
        // SAFETY: no preconditions.
        unsafe { libc::raise(signal) };
    }
}

/// A host with a fault handler of its own.
fn with_host_handler(signals: &[c_int], builder: Builder) -> Engine {
    BOARD.set(Board::new()).ok();
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = note_and_go_on;
    // SAFETY: an all-zero `sigaction` is valid.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for &signal in signals {
        // SAFETY: a valid disposition; nothing of this process faults but on purpose.
        let rc = unsafe { libc::sigaction(signal, &raw const ours, std::ptr::null_mut()) };
        assert_eq!(rc, 0);
    }
    builder.start().unwrap()
}

/// The fault handlers of some language runtimes put right what a program does on purpose.
#[test]
fn a_fault_that_the_host_puts_right_blames_nobody_later() {
    let _watchdog = watchdog_alone(60);
    extern "C" fn open_the_page(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: the kernel passes a valid description of the signal.
        let info = unsafe { &*info };
        // SAFETY: which is that of a fault.
        let page = unsafe { info.si_addr() };
        // SAFETY: the page that the task below has mapped and closed.
        unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    }
    let handler = |task: &mut Task<'_>| {
        if task.payload() == b"mend" {
            use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
            let (access, flags) = (ProtFlags::empty(), MapFlags::PRIVATE);
            // SAFETY: a new mapping, at an address of the kernel's choice.
            let page = unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, access, flags) }?;
            parse_header(page.cast());
            return Ok(());
        }
        die(task)
    };
    // SAFETY: an all-zero `sigaction` is valid.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    let open: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = open_the_page;
    ours.sa_sigaction = open as usize;
    ours.sa_flags = libc::SA_SIGINFO;
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a valid disposition; nothing of this process faults but on purpose.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const ours, &raw mut before) };
    let engine = cpu_only(1, 1).handler(handler).start();
    // The zygote has it; the engines of other tests shall not.
    // SAFETY: the disposition that was there.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const before, std::ptr::null_mut()) };
    let engine = engine.unwrap();
    for _ in 0..3 {
        let id = engine.submit(b"mend").unwrap();
        assert!(engine.wait(id, None).unwrap().is_completed());
    }
    let pid = worker(&engine, 0).pid;
    let id = engine.submit(b"abort").unwrap();
    let crash = engine.wait(id, None).unwrap();
    let text = format!("worker 0 (pid {pid}) died of SIGABRT running task {id}, attempt 1");
    assert_eq!((crash.code(), crash.text()), (libc::SIGABRT, text));
}

#[test]
fn the_hosts_own_handlers_run_too_and_the_signal_is_the_same() {
    let _watchdog = watchdog_alone(60);
    let signals = [libc::SIGSEGV, libc::SIGABRT];
    let engine = with_host_handler(&signals, cpu_only(1, 1).handler(die));
    let board = BOARD.get().unwrap();
    let crash = |payload: &[u8]| {
        let id = engine.submit(payload).unwrap();
        engine.wait(id, None).unwrap()
    };
    assert_crash(&crash(b"write"), libc::SIGSEGV, "died of SIGSEGV at 0x10");
    assert_eq!((board.get(2), board.get(3), board.get(4)), (1, 0x10, 11));
    assert_crash(&crash(b"abort"), libc::SIGABRT, "died of SIGABRT");
    assert_eq!((board.get(2), board.get(4)), (2, 6));
    assert_crash(&crash(b"bus"), libc::SIGBUS, "died of SIGBUS at 0x");
    assert_eq!(board.get(2), 2, "not its signal");
    assert_works(&engine);
}

// ---- the log ----

/// Keeps what the engine has to say.
struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Error {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn the_log_has_the_headline_and_the_whole_backtrace() {
    let _watchdog = watchdog_alone(60);
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let engine = cpu_only(1, 1).handler(die).start().unwrap();
    let pid = worker(&engine, 0).pid;
    let id = engine.submit(b"write").unwrap();
    engine.wait(id, None).unwrap();
    let find = |parts: &[&str]| {
        let lines = LOG.0.lock().unwrap();
        lines
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let headline =
        format!("worker 0 (pid {pid}) died of SIGSEGV at 0x10 in thread {pid} running task {id}");
    until("the headline is there", || find(&[&headline]));
    let backtrace =
        format!("worker 0 (pid {pid}), backtrace of its thread {pid}, running task {id}:");
    let frames = [
        "#0",
        "crash::parse_header (crash.rs:",
        "crash::die (crash.rs:",
        "miniflow::worker::pool::",
    ];
    let parts = [&[backtrace.as_str()], &frames[..]].concat();
    until("the backtrace is there", || find(&parts));
}

// ---- worker programs ----

/// A worker program that dies of a null pointer, compiled with this flag.
fn with_program(flag: &str, threads: u32) -> Engine {
    // One for each test: they run side by side.
    let name = format!("crash-worker{flag}-{threads}");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut compiler = Command::new("gcc");
    compiler
        .args(["-std=c11", flag, "-O1", "-pthread", "-I"])
        .arg(library::root().join("include"))
        .arg(library::root().join("tests/c/crash.c"))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(library::libraries())
        .arg("-lminiflow")
        .arg(format!("-Wl,-rpath,{}", library::libraries().display()));
    library::run(&mut compiler);
    let argv = [program.as_os_str(), "--worker".as_ref()];
    cpu_only(1, threads).program(argv).start().unwrap()
}

#[test]
fn a_worker_program_is_read_from_its_own_files() {
    let _watchdog = watchdog(60);
    let engine = with_program("-g", 1);
    let how = "died of SIGSEGV at 0x0";
    let place = ", in parse_header (crash.c:9)";
    crash_of(&engine, "", libc::SIGSEGV, how, place);
    assert_works(&engine);
}

#[test]
fn without_debug_information_there_is_a_symbol_or_at_least_a_place() {
    let _watchdog = watchdog(60);
    let how = "died of SIGSEGV at 0x0";
    let engine = with_program("-g0", 1);
    crash_of(&engine, "", libc::SIGSEGV, how, ", in parse_header+0x");
    let engine = with_program("-s", 1);
    let place = ", in crash-worker-s-1+0x";
    crash_of(&engine, "", libc::SIGSEGV, how, place);
}

#[test]
fn a_thread_with_several_tasks_in_hand_convicts_none_of_them() {
    let _watchdog = watchdog(60);
    let engine = with_program("-g", 2);
    for _ in 0..2 {
        engine.submit(b"two").unwrap();
    }
    for crash in collect(&engine, 2) {
        assert_crash(&crash, libc::SIGSEGV, "died of SIGSEGV at 0x0");
        assert!(crash.is_collateral());
        let part = ", on a thread that had several tasks in hand";
        assert!(crash.text().contains(part), "{}", crash.text());
    }
}

extern "C" fn repair(_: c_int) {}

#[test]
fn a_host_that_knows_what_to_do_about_its_signals_may_meet_several() {
    let _watchdog = watchdog_alone(60);
    let handler: extern "C" fn(c_int) = repair;
    let before = [libc::SIGSEGV, libc::SIGFPE].map(|signal| {
        // SAFETY: all zeros is a valid `sigaction`.
        let [mut action, mut before]: [libc::sigaction; 2] = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as usize;
        // SAFETY: the handler does nothing, and there is a place for the old action.
        unsafe { libc::sigaction(signal, &raw const action, &raw mut before) };
        (signal, before)
    });
    let engine = cpu_only(1, 1)
        .handler(|task| {
            for signal in [libc::SIGSEGV, libc::SIGFPE, libc::SIGSEGV] {
                // SAFETY: somebody knows what to do about it.
                unsafe { libc::raise(signal) };
            }
            Ok(task.reply(b"still here")?)
        })
        .start();
    for (signal, before) in before {
        // SAFETY: the action that was there; the zygote has ours.
        unsafe { libc::sigaction(signal, &raw const before, std::ptr::null_mut()) };
    }
    let engine = engine.unwrap();
    for _ in 0..2 {
        let id = engine.submit(b"").unwrap();
        let done = engine.wait(id, Some(Duration::from_secs(20))).unwrap();
        assert!(done.is_completed(), "{}", done.text());
    }
    assert_eq!(engine.stats().died, 0);
}
