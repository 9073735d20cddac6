//! What the loom models share: exploring one, expecting one to fail, and weakening the code under
//! test. Exists only in tests under `--cfg loom`.
//!
//! A model that passes proves little until it is seen to fail. So the code under test gets its
//! fences and atomics from here, and a model can run one call of it with the fence or the
//! `Release` left out ([`without_full_fence`], [`without_release`]). The switch belongs to the
//! loom thread that runs the call, so it hits exactly that one side of a protocol.

use std::cell::Cell;
use std::ops::Deref;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use loom::sync::atomic::{self, Ordering};

/// Involuntary switches per execution if `LOOM_MAX_PREEMPTIONS` does not say otherwise.
const PREEMPTIONS: usize = 3;

/// Explores every execution of `model` within the preemption bound, and says how many there were.
pub(crate) fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_within(usize::MAX, model);
}

/// [`explore`] for a model that is too large for the bound: with at most `most` preemptions.
pub(crate) fn explore_within(most: usize, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    let bound = builder.preemption_bound.unwrap_or(PREEMPTIONS).min(most);
    builder.preemption_bound = Some(bound);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed); // Relaxed: only one thread really runs.
        model();
    });
    eprintln!(
        "{}: {} executions with at most {bound} preemptions",
        std::thread::current().name().unwrap_or_default(),
        executions.load(Ordering::Relaxed),
    );
}

/// With this many switches every sabotaged model has failed so far.
const ENOUGH_TO_FAIL: &str = "2";
/// Set in a process that runs one sabotaged model.
const SABOTAGED: &str = "MINIFLOW_SABOTAGED_MODEL";

/// A checked negative: `model` must fail, and say `why`. It runs in a process of its own, because
/// loom does not outlive the deadlock that it reports. Called by the test itself, which that
/// process finds by the name of this thread.
pub(crate) fn must_fail(why: &str, model: impl Fn() + Send + Sync + 'static) {
    if std::env::var_os(SABOTAGED).is_some() {
        return explore(model);
    }
    let thread = std::thread::current();
    let test = thread.name().expect("a test has a name");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=2"])
        .env(SABOTAGED, "1")
        .env("LOOM_MAX_PREEMPTIONS", ENOUGH_TO_FAIL)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("this program can be run again");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains(why),
        "{}, and not because of: {why}\n{text}",
        output.status
    );
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Nothing,
    FullFence,
    Release,
}

loom::thread_local! {
    static MISSING: Cell<Missing> = Cell::new(Missing::Nothing);
}

/// Runs `call` with its `SeqCst` fences left out.
pub(crate) fn without_full_fence<R>(call: impl FnOnce() -> R) -> R {
    weakened(Missing::FullFence, call)
}

/// Runs `call` with its `Release` stores and read-modify-writes made `Relaxed`.
pub(crate) fn without_release<R>(call: impl FnOnce() -> R) -> R {
    weakened(Missing::Release, call)
}

fn weakened<R>(missing: Missing, call: impl FnOnce() -> R) -> R {
    MISSING.with(|m| m.set(missing));
    let result = call();
    MISSING.with(|m| m.set(Missing::Nothing));
    result
}

fn is_missing(what: Missing) -> bool {
    MISSING.with(Cell::get) == what
}

fn weaken(order: Ordering) -> Ordering {
    if order == Ordering::Release && is_missing(Missing::Release) {
        Ordering::Relaxed
    } else {
        order
    }
}

/// [`loom::sync::atomic::fence`], unless it is left out.
pub(crate) fn fence(order: Ordering) {
    if order != Ordering::SeqCst || !is_missing(Missing::FullFence) {
        atomic::fence(order);
    }
}

/// [`loom::sync::atomic::AtomicU64`], whose `Release` can be left out.
#[derive(Debug)]
pub(crate) struct AtomicU64(atomic::AtomicU64);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, weaken(order));
    }

    pub(crate) fn fetch_xor(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_xor(value, weaken(order))
    }
}

impl Deref for AtomicU64 {
    type Target = atomic::AtomicU64;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
