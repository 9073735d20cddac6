//! What the behaviour tests share: a watchdog, memory shared with the workers, a look at processes.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a failure here fails the test"
)]

pub(crate) mod exposition;
pub(crate) mod http;
pub(crate) mod run;

use std::fs;
use std::io::Read;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use miniflow::{Builder, Class, Completion, Engine, WorkerRow};
use rustix::process::{Pid, Signal, kill_process};

/// How long a condition may take to come true that comes true by itself.
const PATIENCE: Duration = Duration::from_secs(20);

// ---- watchdog ----

/// What every test holds: ends the whole process if the test takes too long, and keeps those apart
/// that share a process (with nextest, each has its own).
pub(crate) struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _company: Company,
}

/// Which other tests of this process run meanwhile.
#[allow(dead_code, reason = "held, not read")]
enum Company {
    Some(RwLockReadGuard<'static, ()>),
    None(RwLockWriteGuard<'static, ()>),
}

static COMPANY: RwLock<()> = RwLock::new(());

/// Aborts the process with a message if the guard is not dropped within `seconds`. The zygotes
/// notice that and take their workers along.
#[must_use]
pub(crate) fn watchdog(seconds: u64) -> Watchdog {
    let shared = COMPANY.read().unwrap_or_else(PoisonError::into_inner);
    start_watchdog(seconds, Company::Some(shared))
}

/// The same for a test that looks at the whole process (its descriptors, children, processor time)
/// or at the clock: no other test of this process runs meanwhile.
#[must_use]
pub(crate) fn watchdog_alone(seconds: u64) -> Watchdog {
    let exclusive = COMPANY.write().unwrap_or_else(PoisonError::into_inner);
    start_watchdog(seconds, Company::None(exclusive))
}

fn start_watchdog(seconds: u64, company: Company) -> Watchdog {
    let (stop, stopped) = channel();
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let thread = std::thread::spawn(move || {
        if stopped.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("WATCHDOG: `{test}` takes longer than {seconds} s");
            for thread in fs::read_dir("/proc/self/task").unwrap().flatten() {
                let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
                eprintln!("  thread {} in {}", read("comm").trim_end(), read("wchan"));
            }
            for child in children() {
                eprintln!("  child {child}: {:?}", Proc::read(child));
            }
            std::process::abort();
        }
    });
    Watchdog {
        stop: Some(stop),
        thread: Some(thread),
        _company: company,
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Waits for a condition that comes true by itself.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tells other threads that this one has ended, in whatever way.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

// ---- memory shared with the workers ----

/// A page of words that forked children share, unlike other memory: what handlers and tests tell
/// each other. Zeros at first.
#[derive(Clone, Copy)]
pub(crate) struct Board(&'static [AtomicU64; 512]);

impl Board {
    /// A new page. Never unmapped: a worker may outlive the test.
    pub(crate) fn new() -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, access, MapFlags::SHARED) }
            .unwrap();
        let page = NonNull::new(page).unwrap().cast::<[AtomicU64; 512]>();
        // SAFETY: a page of zeros, valid as atomics, never unmapped.
        Self(unsafe { page.as_ref() })
    }

    pub(crate) fn get(&self, word: usize) -> u64 {
        self.0[word].load(SeqCst)
    }

    pub(crate) fn set(&self, word: usize, value: u64) {
        self.0[word].store(value, SeqCst);
    }

    pub(crate) fn add(&self, word: usize) -> u64 {
        self.0[word].fetch_add(1, SeqCst)
    }

    /// In a handler: waits until the word is not 0.
    pub(crate) fn wait(&self, word: usize) {
        while self.get(word) == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Deref for Board {
    type Target = [AtomicU64; 512];

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

// ---- engines ----

/// An engine with CPU-bound workers only.
pub(crate) fn cpu_only(workers: u32, threads: u32) -> Builder {
    Engine::builder()
        .workers(Class::CpuBound, workers)
        .threads(Class::CpuBound, threads)
        .workers(Class::IoBound, 0)
}

/// Polls until `count` completions are there.
#[track_caller]
pub(crate) fn collect(engine: &Engine, count: usize) -> Vec<Completion> {
    let start = Instant::now();
    let mut completions = Vec::new();
    while completions.len() < count {
        assert!(
            start.elapsed() < PATIENCE,
            "{} of {count} completions within {PATIENCE:?}: {:?} {:#?}",
            completions.len(),
            engine.stats(),
            engine.workers()
        );
        let wait = Some(Duration::from_millis(100));
        let wanted = count - completions.len();
        engine.poll_into(&mut completions, wanted, wait).unwrap();
    }
    completions
}

/// The worker that is in this slot.
#[track_caller]
pub(crate) fn worker(engine: &Engine, slot: u32) -> WorkerRow {
    let rows = engine.workers();
    *rows.iter().find(|row| row.slot == slot).unwrap()
}

/// Some bytes that depend on `seed`, and on where they are: every page begins with its number.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut page = Vec::with_capacity(4096);
    while page.len() < len.min(4096) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        page.extend_from_slice(&state.to_le_bytes());
    }
    let mut out = page.repeat(len.div_ceil(4096));
    for (number, page) in (0_u64..).zip(out.chunks_exact_mut(4096)) {
        page[..8].copy_from_slice(&(seed ^ number).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// FNV-1a over words: any byte that differs changes it.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x100_0000_01b3);
        sum ^= sum >> 29;
    }
    sum
}

// ---- processes ----

/// What `/proc/PID/stat` says about a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proc {
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    /// Processor time, in ticks of 1/100 s.
    pub(crate) ticks: u64,
    pub(crate) threads: u64,
}

impl Proc {
    /// `None` if there is no such process.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            name: name.to_owned(),
            state: fields[0].chars().next()?,
            parent: fields[1].parse().ok()?,
            group: fields[2].parse().ok()?,
            ticks: fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?,
            threads: fields[17].parse().ok()?,
        })
    }
}

/// Whether a process is there and not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    Proc::read(pid).is_some_and(|p| p.state != 'Z' && p.state != 'X')
}

/// The children of this process, zombies too.
pub(crate) fn children() -> Vec<u32> {
    children_of(std::process::id())
}

/// The children of a process, zombies too.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| Proc::read(pid).is_some_and(|p| p.parent == parent))
        .collect()
}

/// The zygote of the only engine of this process.
#[track_caller]
pub(crate) fn zygote_of(engine: &Engine) -> u32 {
    Proc::read(engine.workers()[0].pid).unwrap().parent
}

/// `kill -9`.
#[track_caller]
pub(crate) fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

/// An engine name that no other test and no other run uses. Removed when dropped, if a failing test
/// has left it.
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = NEXT.fetch_add(1, SeqCst);
        Self(format!("test-{}-{next}", std::process::id()))
    }

    /// Where it appears.
    pub(crate) fn path(&self) -> PathBuf {
        let uid = rustix::process::geteuid().as_raw();
        format!("/dev/shm/miniflow.{uid}.{}", self.0).into()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        fs::remove_file(self.path()).ok();
    }
}

/// Processor time that a process and its threads have used so far.
#[track_caller]
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let mut clock = 0;
    // SAFETY: a valid place for the answer.
    let rc = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    assert_eq!(rc, 0, "no processor clock of {pid}");
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer.
    let rc = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(rc, 0, "{pid} is gone");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

// ---- chance ----

/// A small generator (splitmix64): what it gives follows from its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

// ---- the command line ----

/// Runs the `miniflow` at `program` with these arguments: its status and what it printed. Kills it
/// and fails if it does not end in time; its zygotes take the workers along.
#[track_caller]
pub(crate) fn run_to_end(program: &str, args: &[&str], patience: Duration) -> (ExitStatus, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("`miniflow {args:?}` does not end within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    (status, reader.join().unwrap().unwrap())
}
