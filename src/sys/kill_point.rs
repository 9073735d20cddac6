//! Named points between the stores of the lane protocol at which a test has a worker killed.
//!
//! `kill_point!("name")` is nothing at all unless the feature `kill-points` is on. With it, a
//! process that comes by at a point that is *armed* sends itself SIGKILL: what it has stored until
//! then is what its host finds.
//!
//! The state lies in one page that the host maps, shared, before it starts an engine: the zygote
//! and every worker have it too, so that what one worker has used up the next one does not find
//! again.

/// Has this process killed here, if a test wants that. The name must be one of `NAMES`, or the
/// build fails.
#[cfg(all(feature = "kill-points", not(loom)))]
macro_rules! kill_point {
    ($name:literal) => {{
        const POINT: usize = $crate::sys::kill_point::index($name);
        const _: () = assert!(POINT < $crate::sys::kill_point::NAMES.len(), "no such name");
        $crate::sys::kill_point::pass(POINT);
    }};
}

/// Nothing: see the other one.
#[cfg(not(all(feature = "kill-points", not(loom))))]
macro_rules! kill_point {
    ($name:literal) => {};
}

pub(crate) use kill_point;

#[cfg(all(feature = "kill-points", not(loom)))]
pub use armed::{Report, arm, arm_stages, arm_watcher, disarm, here, prepare, report};
#[cfg(all(feature = "kill-points", not(loom)))]
pub(crate) use armed::{index, pass};

/// Every point, in about the order in which a worker comes by. A point that stands between two
/// stores is *after* the one and *before* the other.
#[cfg(all(feature = "kill-points", not(loom)))]
pub const NAMES: &[&str] = &[
    // A worker starts.
    "open.before-down",
    "open.after-down",
    "open.before-up",
    "open.after-up",
    "open.watching",
    "hello.before",
    "hello.after",
    // A descriptor is claimed, its task started.
    "claim.before",
    "claim.after",
    "start.before-time",
    "start.before-progress",
    "start.mid-progress",
    "start.before-ticket",
    "start.after-ticket",
    "start.cancelled",
    "start.before-flush",
    // User code runs.
    "handler.before",
    "progress.before-total",
    "progress.before-done",
    "progress.after-done",
    "results.reclaimed",
    "results.before-ask",
    "results.after-ask",
    "results.answered",
    "results.allocated",
    "handler.half-reply",
    "handler.after",
    // The completion is published.
    "finish.before-kind",
    "finish.before-code",
    "finish.before-start",
    "finish.before-end",
    "finish.before-result",
    "finish.mid-result",
    "finish.before-done",
    "finish.after-done",
    "flush.before-flip",
    "flush.after-flip",
    "flush.before-signal",
    "flush.after-signal",
    // Nothing is to be done.
    "lead.taken",
    "sleep.before-epoch",
    "sleep.after-epoch",
    "sleep.before-clear",
    "sleep.after-clear",
    "lead.before-leave",
    "lead.before-hand-on",
    "lead.left",
    "follow.woken",
    // The watcher.
    "recall.heard",
    "recall.claimed",
    "recall.published",
    "recall.flushed",
    "close.heard",
    "close.closing",
    "close.woken",
    // A worker leaves.
    "leave.thread",
    "leave.exit",
];

#[cfg(all(feature = "kill-points", not(loom)))]
mod armed {
    use std::cell::Cell;
    use std::ptr::NonNull;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst, compiler_fence};
    use std::time::{Duration, Instant};

    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    use rustix::process::{Signal, getpid, kill_process};

    use super::NAMES;

    /// Most threads that a test stops in mid-publication.
    const MAX_STAGES: usize = 8;
    /// How long those that have stopped wait for the others.
    const GATHERING: Duration = Duration::from_millis(500);
    const LOOK_AGAIN: Duration = Duration::from_micros(100);

    const OFF: u32 = 0;
    const TASK_THREADS: u32 = 1;
    const WATCHER: u32 = 2;
    const STAGES: u32 = 3;

    /// What a test wants, and what has become of it. All accesses are SeqCst: speed matters only
    /// for those that an unarmed point makes, and a SeqCst load is an ordinary one on x86.
    #[repr(C)]
    #[derive(Debug)]
    struct Page {
        /// Never killed.
        host: AtomicU32,
        mode: AtomicU32,
        point: AtomicU32,
        /// Passes that do no harm yet.
        skip: AtomicU32,
        /// Processes still to be killed.
        kills: AtomicU32,
        killed: AtomicU32,
        victim: AtomicU32,
        /// The point at which each thread stops.
        stages: [AtomicU32; MAX_STAGES],
        stage_count: AtomicU32,
        /// The process whose threads stop.
        gathering: AtomicU32,
        roles: AtomicU32,
        gathered: AtomicU32,
    }

    const SIZE: usize = 4096;
    const _: () = assert!(size_of::<Page>() <= SIZE);

    static PAGE: OnceLock<&'static Page> = OnceLock::new();

    const NO_ROLE: u32 = u32::MAX;
    thread_local! {
        /// Which of the stages is this thread's.
        static ROLE: Cell<u32> = const { Cell::new(NO_ROLE) };
    }

    /// What has happened since the last [`arm`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Report {
        /// Processes killed.
        pub killed: u32,
        /// The last of them.
        pub victim: u32,
        /// Threads that had stopped when it was killed, with [`arm_stages`].
        pub gathered: u32,
    }

    /// The number of a name; `NAMES.len()` if it is none.
    pub(crate) const fn index(name: &str) -> usize {
        let mut at = 0;
        while at < NAMES.len() && !equal(NAMES[at].as_bytes(), name.as_bytes()) {
            at += 1;
        }
        at
    }

    const fn equal(a: &[u8], b: &[u8]) -> bool {
        let mut at = 0;
        while at < a.len() && at < b.len() && a[at] == b[at] {
            at += 1;
        }
        at == a.len() && at == b.len()
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are few names")]
    fn number(name: &str) -> Option<u32> {
        let at = index(name);
        (at < NAMES.len()).then_some(at as u32)
    }

    /// Maps the page; to be called before an engine is started. False if the kernel refuses.
    #[must_use]
    pub fn prepare() -> bool {
        if PAGE.get().is_some() {
            return true;
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), SIZE, access, MapFlags::SHARED) };
        let Some(page) = page.ok().and_then(NonNull::new) else {
            return false;
        };
        // SAFETY: page-aligned, large enough (asserted above), never unmapped, and zeros are valid
        // for the atomics of which alone `Page` consists.
        let page = unsafe { page.cast::<Page>().as_ref() };
        page.host.store(std::process::id(), SeqCst);
        PAGE.get_or_init(|| page);
        true
    }

    /// Kills the worker of which a thread, not its watcher, comes by at this point after `skip`
    /// others did, and `kills - 1` more. False if there is no such name or no page.
    #[must_use]
    pub fn arm(name: &str, skip: u32, kills: u32) -> bool {
        set(TASK_THREADS, &[name], skip, kills)
    }

    /// [`arm`] for a worker's watcher thread only, and one kill.
    #[must_use]
    pub fn arm_watcher(name: &str, skip: u32) -> bool {
        set(WATCHER, &[name], skip, 1)
    }

    /// Stops threads of one worker, each at another of these points (or several at the same, if it
    /// is named several times), and kills it when as many have stopped as are named, or when that
    /// takes too long.
    #[must_use]
    pub fn arm_stages(names: &[&str]) -> bool {
        set(STAGES, names, 0, 1)
    }

    fn set(mode: u32, names: &[&str], skip: u32, kills: u32) -> bool {
        disarm();
        let numbers: Option<Vec<u32>> = names.iter().map(|name| number(name)).collect();
        let (Some(page), Some(numbers)) = (PAGE.get(), numbers) else {
            return false;
        };
        let (Some(&first), Ok(count)) = (numbers.first(), u32::try_from(numbers.len())) else {
            return false;
        };
        if numbers.len() > MAX_STAGES {
            return false;
        }
        for word in [
            &page.killed,
            &page.victim,
            &page.gathering,
            &page.roles,
            &page.gathered,
        ] {
            word.store(0, SeqCst);
        }
        for (stage, point) in page.stages.iter().zip(numbers) {
            stage.store(point, SeqCst);
        }
        page.stage_count.store(count, SeqCst);
        page.point.store(first, SeqCst);
        page.skip.store(skip, SeqCst);
        page.kills.store(kills, SeqCst);
        page.mode.store(mode, SeqCst);
        true
    }

    /// Nobody is killed any more.
    pub fn disarm() {
        if let Some(page) = PAGE.get() {
            page.mode.store(OFF, SeqCst);
        }
    }

    /// What has happened since the last [`arm`].
    #[must_use]
    pub fn report() -> Report {
        let read = |word: fn(&Page) -> &AtomicU32| PAGE.get().map_or(0, |p| word(p).load(SeqCst));
        Report {
            killed: read(|page| &page.killed),
            victim: read(|page| &page.victim),
            gathered: read(|page| &page.gathered),
        }
    }

    /// A point in a test's handler.
    pub fn here(name: &str) {
        pass(index(name));
    }

    /// What `kill_point!` calls.
    #[inline(never)]
    pub(crate) fn pass(point: usize) {
        // The stores around this must stay on their sides of it.
        compiler_fence(SeqCst);
        let Some(page) = PAGE.get() else { return };
        match page.mode.load(SeqCst) {
            OFF => {}
            STAGES => stop(page, point),
            mode => {
                if page.point.load(SeqCst) as usize == point
                    && is_watcher() == (mode == WATCHER)
                    && !take_one(&page.skip)
                {
                    die(page);
                }
            }
        }
    }

    fn is_watcher() -> bool {
        std::thread::current().name() == Some("mf-watcher")
    }

    /// Counts down; false at 0.
    fn take_one(word: &AtomicU32) -> bool {
        word.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok()
    }

    /// Kills this process, if it is a worker and there are kills left.
    fn die(page: &Page) {
        let me = std::process::id();
        if me == page.host.load(SeqCst) || !take_one(&page.kills) {
            return;
        }
        page.victim.store(me, SeqCst);
        page.killed.fetch_add(1, SeqCst);
        loop {
            // Does not return unless it fails, which it does not for one's own process.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    /// Stops this thread if this point is its own. The first of the points that it passes gives it
    /// its role.
    fn stop(page: &Page, point: usize) {
        let count = page.stage_count.load(SeqCst) as usize;
        let stages = &page.stages[..count.min(MAX_STAGES)];
        let is_here = |stage: &AtomicU32| stage.load(SeqCst) as usize == point;
        if !stages.iter().any(is_here) {
            return;
        }
        if is_watcher() {
            return;
        }
        let me = std::process::id();
        let owner = page.gathering.compare_exchange(0, me, SeqCst, SeqCst);
        if owner.is_err_and(|owner| owner != me) {
            return;
        }
        if ROLE.get() == NO_ROLE {
            ROLE.set(page.roles.fetch_add(1, SeqCst));
        }
        if !stages.get(ROLE.get() as usize).is_some_and(is_here) {
            return; // or there are more threads than stages
        }
        page.gathered.fetch_add(1, SeqCst);
        let deadline = Instant::now() + GATHERING;
        while (page.gathered.load(SeqCst) as usize) < stages.len() && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
        die(page);
        // Another thread is at it.
        loop {
            std::thread::sleep(GATHERING);
        }
    }
}
