//! Workers that write over their own page, flood the host, and say what no worker says.
//!
//! From inside a real worker, through what its process has: its mapping, its eventfd and its control
//! socket. The host must not crash or hang, give every task one completion, and serve the other
//! worker's tasks as if nothing had happened.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{Board, Random, bytes, cpu_only, until, watchdog, watchdog_alone};
use miniflow::worker::{Task, TaskResult};
use miniflow::{Completion, Engine, Error, Outcome, TaskId, WorkerState};
use rustix::io::{ReadWriteFlags, preadv2};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Words of the board: who misbehaves, as slot + 1, and what it found.
const CULPRIT: usize = 0;
const ANSWER: usize = 1;
const GATE: usize = 2;

fn long() -> bool {
    std::env::var_os("MINIFLOW_LONG").is_some_and(|v| v != "0")
}

// ---- inside the worker ----

/// The worker's own page, found as any stray pointer might find it.
fn page() -> &'static [AtomicU64] {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|l| l.contains("memfd:miniflow-up") && l.contains(" rw-s "))
        .unwrap();
    let (from, to) = line
        .split_whitespace()
        .next()
        .unwrap()
        .split_once('-')
        .unwrap();
    let address = |hex| usize::from_str_radix(hex, 16).unwrap();
    let (from, to) = (address(from), address(to));
    let start = std::ptr::with_exposed_provenance::<AtomicU64>(from);
    // SAFETY: a mapping of this process, which it never unmaps; atomics take any bit pattern.
    unsafe { std::slice::from_raw_parts(start, (to - from) / 8) }
}

const BITMAP: usize = 256 / 8;
const SLOTS: usize = 320 / 8;
/// Words of a slot, and where they are in it.
const SLOT: usize = 32;
const TICKET: usize = 0;
const DONE: usize = 8;
const KIND: usize = 9;
const RESULT: usize = 13;
const CREDITS: usize = 512;
/// Where the results begin.
const RESULTS: usize = 135_168 / 8;

/// The ways to write over a page. Those for which the host must find the worker out come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Harm {
    InvertBitmap,
    ForgeCompletion,
    ForgeKind,
    ForgeOffsets,
    // From here on what the host notices depends on what is there just then.
    RandomWords,
    AllSlots,
    ResultOffsets,
    Head,
    Epoch,
    DoneWords,
    Zeros,
    Results,
    Everything,
}

const HARMS: [Harm; 13] = [
    Harm::InvertBitmap,
    Harm::ForgeCompletion,
    Harm::ForgeKind,
    Harm::ForgeOffsets,
    Harm::RandomWords,
    Harm::AllSlots,
    Harm::ResultOffsets,
    Harm::Head,
    Harm::Epoch,
    Harm::DoneWords,
    Harm::Zeros,
    Harm::Results,
    Harm::Everything,
];
/// How many of them are certain to be noticed.
const CERTAIN: usize = 4;

fn scribble(harm: Harm, random: &mut Random) {
    let page = page();
    let slot = |slot: usize, word: usize| &page[SLOTS + slot * SLOT + word];
    let forge = |kind: u64, offset: u64| {
        // The completion of a started task: of this one, at least.
        for index in 0..CREDITS {
            let ticket = slot(index, TICKET).load(Relaxed);
            if ticket != 0 && slot(index, DONE).load(Relaxed) != ticket {
                slot(index, KIND).store(kind, Relaxed);
                slot(index, RESULT).store(offset, Relaxed);
                slot(index, DONE).store(ticket, Release);
                page[BITMAP + index / 64].fetch_xor(1 << (index % 64), Release);
            }
        }
    };
    match harm {
        Harm::InvertBitmap => {
            for word in &page[BITMAP..BITMAP + 8] {
                word.fetch_xor(u64::MAX, Release);
            }
        }
        Harm::ForgeCompletion => forge(1 << 8 | 700 << 32, u64::MAX - 7),
        Harm::ForgeKind => forge(99 | 8 << 32, 0),
        Harm::ForgeOffsets => forge(1 << 8 | 1 << 52, random.next() & !7),
        Harm::RandomWords => {
            for _ in 0..64 {
                let word = random.next() as usize % (SLOTS + CREDITS * SLOT);
                page[word].store(random.next(), Relaxed);
            }
        }
        Harm::AllSlots => {
            for word in &page[SLOTS..SLOTS + CREDITS * SLOT] {
                word.store(random.next(), Relaxed);
            }
        }
        Harm::ResultOffsets => {
            for index in 0..CREDITS {
                slot(index, RESULT).store(random.next() >> (random.next() % 64), Relaxed);
            }
        }
        Harm::Head => page[0].store(random.next() >> (random.next() % 64), Relaxed),
        Harm::Epoch => page[128 / 8].store(random.next(), Relaxed),
        Harm::DoneWords => {
            let newest = (0..CREDITS).map(|i| slot(i, TICKET).load(Relaxed)).max();
            for index in 0..CREDITS {
                let ticket = newest.unwrap_or(0) + random.next() % 64;
                slot(index, DONE).store(ticket, Release);
            }
        }
        Harm::Zeros => page[..SLOTS + CREDITS * SLOT]
            .iter()
            .for_each(|word| word.store(0, Relaxed)),
        Harm::Results => page[RESULTS..RESULTS + (16 << 10)]
            .iter()
            .for_each(|word| word.store(random.next(), Relaxed)),
        Harm::Everything => {
            for &harm in &HARMS[..HARMS.len() - 1] {
                scribble(harm, random);
            }
        }
    }
}

/// What an honest task answers.
fn answer(payload: &[u8]) -> Vec<u8> {
    payload.iter().map(|byte| byte ^ 0x5a).collect()
}

/// `h`, number of the harm, seed: writes over the page, once or for a while. `x`: does what the
/// test says. Else answers.
fn handler(
    board: Board,
    other: impl Fn(Board) + Send + Sync,
) -> impl Fn(&mut Task<'_>) -> TaskResult + Send + Sync {
    move |task| {
        let payload = task.payload().to_vec();
        match payload.first() {
            Some(b'h') => {
                board.set(CULPRIT, u64::from(task.worker()) + 1);
                let seed = u64::from_le_bytes(payload[2..10].try_into().unwrap());
                let mut random = Random(seed | 1);
                let until = Instant::now() + Duration::from_millis(seed % 8 * 3);
                loop {
                    scribble(HARMS[usize::from(payload[1])], &mut random);
                    // A second inversion would undo the first.
                    if usize::from(payload[1]) < CERTAIN || Instant::now() >= until {
                        break;
                    }
                }
                if usize::from(payload[1]) < CERTAIN {
                    // The runtime would make it good again. It is killed meanwhile.
                    thread::sleep(Duration::from_secs(60));
                }
                if seed & 64 != 0 {
                    thread::sleep(Duration::from_millis(seed >> 8 & 15));
                }
                Ok(task.reply(b"done")?)
            }
            Some(b'x') => {
                board.set(CULPRIT, u64::from(task.worker()) + 1);
                other(board);
                Ok(())
            }
            _ => Ok(task.reply(&answer(&payload))?),
        }
    }
}

// ---- the host ----

/// Threads of the host that take completions and look around, all the time.
struct Crowd<'scope> {
    completions: Receiver<Completion>,
    threads: Vec<thread::ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Crowd<'scope> {
    fn start<'env>(
        scope: &'scope thread::Scope<'scope, 'env>,
        engine: &'env Engine,
        stop: &'env AtomicBool,
    ) -> Self {
        let (send, completions) = channel();
        let mut threads = Vec::new();
        for poller in 0..2 {
            let send = send.clone();
            threads.push(scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let wait = Some(Duration::from_millis(20 * poller));
                    for completion in engine.poll(16, wait).unwrap() {
                        send.send(completion).unwrap();
                    }
                    if poller == 0 {
                        thread::sleep(Duration::from_micros(300));
                    }
                }
            }));
        }
        threads.push(scope.spawn(move || {
            while !stop.load(Relaxed) {
                let _ = engine.stats();
                let _ = engine.workers();
                let _ = engine.status_json();
                thread::sleep(Duration::from_millis(1));
            }
        }));
        Self {
            completions,
            threads,
        }
    }

    /// The completions of all these tasks, each once. `overdue` is called when none comes for a
    /// while.
    #[track_caller]
    fn collect(
        &self,
        engine: &Engine,
        ids: &HashSet<TaskId>,
        overdue: impl Fn(),
    ) -> HashMap<TaskId, Completion> {
        let start = Instant::now();
        let mut got = HashMap::new();
        while got.len() < ids.len() {
            let next = self.completions.recv_timeout(Duration::from_secs(1));
            let Ok(completion) = next else {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "{} of {} completions: {:?} {:#?}",
                    got.len(),
                    ids.len(),
                    engine.stats(),
                    engine.workers()
                );
                overdue();
                continue;
            };
            assert!(
                ids.contains(&completion.id()),
                "not asked for: {completion:?}"
            );
            let before = got.insert(completion.id(), completion);
            assert!(before.is_none(), "twice: {before:?}");
        }
        got
    }

    fn stop(self, stop: &AtomicBool) {
        stop.store(true, Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        assert!(
            self.completions.try_recv().is_err(),
            "one completion too many"
        );
    }
}

fn submit(engine: &Engine, payload: &[u8]) -> TaskId {
    loop {
        match engine.submit(payload) {
            Err(Error::WouldBlock(_)) => thread::sleep(Duration::from_micros(200)),
            other => return other.unwrap(),
        }
    }
}

/// Submits ordinary tasks with payloads (and so results) of every size.
fn submit_ordinary(engine: &Engine, random: &mut Random, count: usize) -> Vec<(TaskId, Vec<u8>)> {
    let lengths = [1, 40, 41, 152, 153, 2000, 20_000];
    let tasks = (0..count).map(|_| {
        let mut payload = bytes(random.next(), lengths[random.next() as usize % 7]);
        payload[0] = b'o';
        (submit(engine, &payload), payload)
    });
    tasks.collect()
}

/// The processes by slot, once both are ready and known. (A worker may be ready before the zygote's
/// word of it has come.)
fn pids(engine: &Engine) -> Option<HashMap<u32, u32>> {
    let rows = engine.workers();
    let rows = rows
        .iter()
        .filter(|row| row.state == WorkerState::Ready && row.pid != 0);
    let pids: HashMap<u32, u32> = rows.map(|row| (row.slot, row.pid)).collect();
    (pids.len() == 2).then_some(pids)
}

#[track_caller]
fn both(engine: &Engine) -> HashMap<u32, u32> {
    until("both workers are ready", || pids(engine).is_some());
    pids(engine).unwrap()
}

/// Whether another worker is in this slot, and all are ready.
fn is_replaced(engine: &Engine, slot: u32, pid: u32) -> bool {
    pids(engine).is_some_and(|pids| pids[&slot] != pid)
}

/// Kills this worker, if it is still in this slot.
fn kill_if_there(engine: &Engine, slot: u32, pid: u32) {
    let rows = engine.workers();
    if rows.iter().any(|row| row.slot == slot && row.pid == pid) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        // It may be gone just now.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Whoever misbehaved is replaced: by the engine, if it noticed, else by us.
#[track_caller]
fn replace(engine: &Engine, culprit: u32, pid: u32) {
    until("the culprit is replaced", || {
        kill_if_there(engine, culprit, pid);
        is_replaced(engine, culprit, pid)
    });
}

/// Ends the crowd also if the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn culprit(board: Board) -> u32 {
    until("somebody misbehaves", || board.get(CULPRIT) != 0);
    let culprit = board.get(CULPRIT) as u32 - 1;
    board.set(CULPRIT, 0);
    culprit
}

#[test]
fn a_worker_that_writes_over_its_page_harms_no_other() {
    let _watchdog = watchdog(if long() { 1800 } else { 120 });
    let seed = std::env::var("MINIFLOW_SEED").map_or(0x5eed_1234_5678, |s| s.parse().unwrap());
    let mut random = Random(seed | 1);
    let rounds = if long() { 20_000 } else { 39 };
    let board = Board::new();
    let engine = cpu_only(2, 2)
        .handler(handler(board, |_| ()))
        .result_arena(16 << 20)
        .start()
        .unwrap();
    let stop = AtomicBool::new(false);
    let (mut noticed, mut spoilt) = (0, 0);
    let lost = std::cell::Cell::new(0);
    thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let crowd = Crowd::start(scope, &engine, &stop);
        for round in 0..rounds {
            let harm = HARMS[round % HARMS.len()];
            let pids = both(&engine);
            let before = engine.stats().violations;
            let mut ordinary = submit_ordinary(&engine, &mut random, 20);
            let mut payload = vec![b'h', harm as u8];
            payload.extend_from_slice(&random.next().to_le_bytes());
            let scribbler = submit(&engine, &payload);
            ordinary.extend(submit_ordinary(&engine, &mut random, 20));
            let culprit = culprit(board);

            let mut ids: HashSet<TaskId> = ordinary.iter().map(|o| o.0).collect();
            ids.insert(scribbler);
            // A worker that has lost a task may wait for the next one for ever, as any worker may be
            // slow; whoever minds has deadlines.
            let got = crowd.collect(&engine, &ids, || {
                kill_if_there(&engine, culprit, pids[&culprit]);
                lost.set(lost.get() + 1);
            });
            for (id, payload) in &ordinary {
                let completion = &got[id];
                let right = completion.is_completed() && completion.to_vec() == answer(payload);
                if completion.worker() == culprit {
                    spoilt += u32::from(!right); // it ran beside the scribbler
                } else {
                    assert!(right, "{harm:?}: {completion:?} {}", completion.text());
                }
            }
            if round % HARMS.len() < CERTAIN {
                let what = format!("the host notices {harm:?} in round {round}");
                until(&what, || engine.stats().violations > before);
            }
            replace(&engine, culprit, pids[&culprit]);
            noticed += u32::from(engine.stats().violations > before);
            board.set(CULPRIT, 0);
        }
        crowd.stop(&stop);
    });
    let stats = engine.stats();
    println!(
        "{rounds} rounds, {noticed} noticed, {spoilt} tasks spoilt, {} times a task lost: {stats:?}",
        lost.get()
    );
    let ended = stats.completed + stats.failed + stats.crashed + stats.cancelled;
    assert_eq!(
        (stats.submitted, stats.payload_bytes),
        (ended, 0),
        "{stats:?}"
    );
    assert_eq!(
        stats.violations,
        u64::from(noticed),
        "one for each worker: {stats:?}"
    );
}

// ---- control socket and eventfd ----

/// A descriptor of this worker by what it links to.
fn descriptor(kind: &str) -> BorrowedFd<'static> {
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let fd = fds
        .filter(|fd| fs::read_link(fd.path()).is_ok_and(|l| l.to_string_lossy().contains(kind)))
        .find_map(|fd| fd.file_name().to_str()?.parse::<RawFd>().ok())
        .unwrap();
    // SAFETY: open (it was listed), and never closed by this process.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn message(tag: u64, number: u64) -> Vec<u8> {
    [tag, number, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

const HELLO: u64 = 1;
const EXEC_FAILED: u64 = 2;
const NEED_RESULTS: u64 = 3;
const LEAVING: u64 = 4;
const SEAT_REFUSED: u64 = 8;

/// Says something to the host; false if it does not listen (now).
fn say(bytes: &[u8], fds: &[BorrowedFd<'_>], wait: bool) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, !wait);
    sendmsg(
        descriptor("socket:"),
        &[IoSlice::new(bytes)],
        &mut control,
        flags,
    )
    .is_ok()
}

/// One worker does `what`, once; ordinary tasks go on beside it and afterwards. Answers how long
/// the engine needed for them and what became of the culprit's task.
#[track_caller]
fn beside(
    what: impl Fn(Board) + Send + Sync + 'static,
    check: impl FnOnce(&Engine, Board, u32, u32),
) -> Outcome {
    let board = Board::new();
    let engine = cpu_only(2, 1)
        .handler(handler(board, what))
        .stop_grace(Duration::from_millis(300))
        .start()
        .unwrap();
    let mut random = Random(7);
    let stop = AtomicBool::new(false);
    let mut outcome = None;
    thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let crowd = Crowd::start(scope, &engine, &stop);
        let pids = both(&engine);
        let bad = submit(&engine, b"x");
        let culprit = culprit(board);
        let mut ids = HashSet::from([bad]);
        let mut payloads = HashMap::new();
        for _ in 0..20 {
            for (id, payload) in submit_ordinary(&engine, &mut random, 10) {
                ids.insert(id);
                payloads.insert(id, payload);
            }
            thread::sleep(Duration::from_millis(10));
        }
        check(&engine, board, culprit, pids[&culprit]);
        board.set(GATE, 1);
        for (id, completion) in crowd.collect(&engine, &ids, || ()) {
            match payloads.get(&id) {
                None => outcome = Some(completion.outcome()),
                // What it had not started may have been on its lane when it was found out.
                Some(_) if completion.worker() == culprit && !completion.is_completed() => {
                    assert_eq!(completion.outcome(), Outcome::Crashed);
                }
                Some(payload) => assert!(completion.to_vec() == answer(payload)),
            }
        }
        crowd.stop(&stop);
    });
    let stats = engine.stats();
    let ended = stats.completed + stats.failed + stats.crashed + stats.cancelled;
    assert_eq!(
        (stats.submitted, stats.payload_bytes),
        (ended, 0),
        "{stats:?}"
    );
    outcome.unwrap()
}

#[track_caller]
fn found_out(engine: &Engine, board: Board, culprit: u32, pid: u32) {
    until("it is found out", || engine.stats().violations == 1);
    board.set(GATE, 1);
    until("it is replaced", || is_replaced(engine, culprit, pid));
}

#[test]
fn what_no_worker_says_is_a_violation() {
    let _watchdog = watchdog_alone(120);
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let nonsense: [fn(); 9] = [
        || assert!(say(b"nonsense", &[], true)),
        || assert!(say(&message(HELLO, 0), &[], true)),
        || assert!(say(&message(EXEC_FAILED, 2), &[], true)),
        || assert!(say(&message(SEAT_REFUSED, 0), &[], true)),
        || assert!(say(&message(99, 0), &[], true)),
        || assert!(say(&message(NEED_RESULTS, u64::MAX), &[], true)),
        || {
            let long = [message(LEAVING, 0), vec![0; 400]].concat();
            assert!(say(&long, &[], true));
        },
        || {
            // Descriptors that the host has no use for; it must not keep them.
            let file = fs::File::open("/proc/self/maps").unwrap();
            assert!(say(&message(NEED_RESULTS, 1), &[file.as_fd(); 8], true));
        },
        || {
            // More signals than tasks. The counter takes no more than this.
            let most = (u64::MAX - 1).to_ne_bytes();
            rustix::io::write(descriptor("[eventfd]"), &most).unwrap();
        },
    ];
    for say in nonsense {
        let outcome = beside(
            move |board| {
                say();
                board.wait(GATE);
                thread::sleep(Duration::from_secs(60)); // it is killed meanwhile
            },
            found_out,
        );
        assert_eq!(outcome, Outcome::Crashed);
    }
    assert_eq!(open(), before, "descriptors are left");
}

#[test]
fn a_worker_that_floods_its_socket_holds_nobody_up() {
    let _watchdog = watchdog(120);
    let outcome = beside(
        |board| {
            // Each of them may be said, and as often as one likes.
            while board.get(GATE) == 0 {
                for len in [0, 1, 0, 4096] {
                    board[ANSWER].fetch_add(
                        u64::from(say(&message(NEED_RESULTS, len), &[], false)),
                        Relaxed,
                    );
                }
            }
        },
        |engine, board, _, _| {
            let heard = board.get(ANSWER);
            println!("{heard} messages in about 0.2 s");
            assert_eq!((engine.stats().violations, engine.stats().workers), (0, 2));
        },
    );
    assert_eq!(outcome, Outcome::Completed);
}

#[test]
fn a_worker_that_floods_its_eventfd_is_found_out() {
    let _watchdog = watchdog(120);
    let outcome = beside(
        |_| {
            let event = descriptor("[eventfd]");
            loop {
                let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
            }
        },
        found_out,
    );
    assert_eq!(outcome, Outcome::Crashed);
}

#[test]
fn an_eventfd_that_its_worker_reads_and_makes_blocking_stops_no_host_thread() {
    let _watchdog = watchdog(120);
    let outcome = beside(
        |board| {
            let event = descriptor("[eventfd]");
            let flags = rustix::fs::fcntl_getfl(event).unwrap();
            rustix::fs::fcntl_setfl(event, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
            // Reads it as fast as it can, so that the host, which was told that it is readable,
            // finds nothing. (Itself it must not wait, or its task would never end.)
            while board.get(GATE) == 0 {
                rustix::io::write(event, &1_u64.to_ne_bytes()).ok();
                let mut count = [0; 8];
                let mut buffer = [IoSliceMut::new(&mut count)];
                preadv2(event, &mut buffer, u64::MAX, ReadWriteFlags::NOWAIT).ok();
            }
        },
        |engine, _, _, _| assert!(engine.stats().violations <= 1),
    );
    assert!(matches!(outcome, Outcome::Completed | Outcome::Crashed));
}

#[test]
fn a_worker_that_keeps_saying_that_it_leaves_is_made_to() {
    let _watchdog = watchdog(120);
    let outcome = beside(
        |_| {
            loop {
                say(&message(LEAVING, 0), &[], false);
                thread::sleep(Duration::from_millis(20));
            }
        },
        |engine, _, culprit, pid| {
            until("it is replaced", || is_replaced(engine, culprit, pid));
        },
    );
    assert_eq!(outcome, Outcome::Crashed);
}

#[test]
fn the_kernel_refuses_what_the_protocol_cannot() {
    let _watchdog = watchdog(60);
    let board = Board::new();
    let engine = cpu_only(1, 1)
        .handler(handler(board, |board| {
            use rustix::mm::MapFlags;
            use rustix::mm::{Advice, MprotectFlags, ProtFlags, madvise, mmap, mprotect};
            let mut allowed = 0;
            for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
                let Some(name) = line.split("memfd:").nth(1) else {
                    continue;
                };
                let (from, _) = line.split_once('-').unwrap();
                let from = usize::from_str_radix(from, 16).unwrap();
                let start = std::ptr::with_exposed_provenance_mut(from);
                if !name.starts_with("miniflow-up") {
                    let access = MprotectFlags::READ | MprotectFlags::WRITE;
                    // SAFETY: at most the page can be written afterwards.
                    let writable = unsafe { mprotect(start, 4096, access) };
                    allowed |= u64::from(writable.is_ok());
                }
                // SAFETY: nobody holds references to plain data in these pages.
                let removed = unsafe { madvise(start, 4096, Advice::LinuxRemove) };
                allowed |= u64::from(removed.is_ok()) << 1;
            }
            for fd in fs::read_dir("/proc/self/fd").unwrap().flatten() {
                let link = fs::read_link(fd.path()).unwrap();
                if !link.to_string_lossy().contains("memfd:miniflow") {
                    continue;
                }
                // Through the descriptor that it has, and through one that is opened anew.
                let number = fd.file_name().to_str().unwrap().parse().unwrap();
                // SAFETY: open (it was listed), and never closed by this process.
                let old = unsafe { BorrowedFd::borrow_raw(number) };
                let new = fs::File::options().read(true).write(true).open(fd.path());
                let new = new.as_ref().map(AsFd::as_fd);
                for fd in [Some(old), new.ok()].into_iter().flatten() {
                    let access = ProtFlags::READ | ProtFlags::WRITE;
                    let anywhere = std::ptr::null_mut();
                    // SAFETY: a new mapping, at an address of the kernel's choice.
                    let map = unsafe { mmap(anywhere, 4096, access, MapFlags::SHARED, fd, 0) };
                    allowed |= u64::from(map.is_ok()) << 2;
                    let grown = rustix::fs::ftruncate(fd, 1 << 30).is_ok();
                    let cut = rustix::fs::ftruncate(fd, 0).is_ok();
                    let written = rustix::io::pwrite(fd, b"x", 0).is_ok();
                    let hole = rustix::fs::FallocateFlags::PUNCH_HOLE
                        | rustix::fs::FallocateFlags::KEEP_SIZE;
                    let punched = rustix::fs::fallocate(fd, hole, 0, 4096).is_ok();
                    allowed |= u64::from(grown) << 3 | u64::from(cut) << 4;
                    allowed |= u64::from(written) << 5 | u64::from(punched) << 6;
                }
            }
            board.set(ANSWER, 1 << 63 | allowed);
        }))
        .start()
        .unwrap();
    let id = engine.submit(b"x").unwrap();
    assert!(engine.wait(id, None).unwrap().is_completed());
    assert_eq!(board.get(ANSWER), 1 << 63, "something was allowed");
    let id = engine.submit(b"ordinary").unwrap();
    assert_eq!(engine.wait(id, None).unwrap().to_vec(), answer(b"ordinary"));
}
