//! Loom models of the host's sleep epoch: one worker, two threads of the host that sleep, one
//! (the main thread) that polls without sleeping.
//!
//! The eventfds are level-triggered and have no time-out, so a lost wake-up is a deadlock.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::*;
use crate::sys::model::{explore, must_fail, without_full_fence};
use crate::sys::sync::{AtomicU64, load_acquire, lock};

const TOTAL: u64 = 2;
/// The sleeper that leaves after a while, and the one that stays until everything is there.
const GUEST: usize = 0;
const OWNER: usize = 1;

/// What the kernel keeps of the eventfds: which are readable.
#[derive(Default)]
struct Readable {
    worker: bool,
    kick: [bool; 2],
}

/// What the engine's lock guards.
#[derive(Default)]
struct Core {
    sleepers: Sleepers,
    taken: u64,
}

struct Engine {
    epoch: HostEpoch,
    signaller: Signaller,
    /// Completions so far; stands for done words and bitmap.
    published: AtomicU64,
    readable: Mutex<Readable>,
    rang: Condvar,
    core: Mutex<Core>,
}

impl Engine {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            epoch: Line(AtomicU32::new(0)),
            signaller: Signaller::new(),
            published: AtomicU64::new(0),
            readable: Mutex::new(Readable::default()),
            rang: Condvar::new(),
            core: Mutex::new(Core::default()),
        })
    }

    /// Makes an eventfd readable.
    fn signal(&self, set: impl FnOnce(&mut Readable)) {
        set(&mut lock(&self.readable));
        self.rang.notify_all();
    }

    /// Sleeps until the worker's eventfd or the thread's own is readable.
    fn wait(&self, me: usize) {
        let mut readable = lock(&self.readable);
        while !readable.worker && !readable.kick[me] {
            readable = self.rang.wait(readable).expect("not poisoned");
        }
    }

    fn drain_bells(&self, me: usize) {
        let mut readable = lock(&self.readable);
        readable.worker = false;
        readable.kick[me] = false;
    }

    /// The worker: finishes one task.
    fn finish(&self, due: Due) {
        let before = self.published.load(Ordering::Relaxed);
        self.published.store(before + 1, Ordering::Release);
        if due(&self.signaller, &self.epoch) {
            self.signal(|readable| readable.worker = true);
        }
    }

    /// Takes what is there. Whoever takes the last one wakes the others.
    fn scan(&self, core: &mut Core) {
        let published = load_acquire(&self.published);
        if core.taken != published {
            core.taken = published;
            if core.taken == TOTAL {
                self.signal(|readable| readable.kick = [true; 2]);
            }
        }
    }

    /// One sleep, as `engine::shared::Shared::lead` does it. `false` once everything is there.
    fn sleep(&self, me: usize, protocol: &Protocol) -> bool {
        let mut core = lock(&self.core);
        (protocol.arm)(&mut core.sleepers, &self.epoch);
        self.scan(&mut core);
        if core.taken != TOTAL {
            drop(core);
            self.wait(me);
            core = lock(&self.core);
        }
        (protocol.wake_up)(self, &mut core, me);
        core.taken != TOTAL
    }
}

type Due = fn(&Signaller, &HostEpoch) -> bool;

/// The parts that a model can replace by wrong ones.
#[derive(Clone, Copy)]
struct Protocol {
    arm: fn(&mut Sleepers, &HostEpoch),
    due: Due,
    wake_up: fn(&Engine, &mut Core, usize),
}

const RIGHT: Protocol = Protocol {
    arm: Sleepers::arm,
    due: Signaller::due,
    wake_up: |engine, core, me| {
        engine.drain_bells(me);
        let _ = core.sleepers.disarm(&engine.epoch);
        engine.scan(core);
    },
};

/// The owner sleeps until everything is there; the guest sleeps once. With `kicked` something else
/// than a completion ends the guest's sleep.
fn run(protocol: Protocol, kicked: bool, poll: bool) {
    let engine = Engine::new();
    if kicked {
        engine.signal(|readable| readable.kick[GUEST] = true);
    }
    let worker = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || (0..TOTAL).for_each(|_| engine.finish(protocol.due)))
    };
    let guest = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            engine.sleep(GUEST, &protocol);
        })
    };
    let owner = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || while engine.sleep(OWNER, &protocol) {})
    };
    if poll {
        engine.scan(&mut lock(&engine.core));
    }
    for thread in [worker, guest, owner] {
        thread.join().expect("a thread failed");
    }
    let core = lock(&engine.core);
    assert_eq!(core.taken, TOTAL);
    assert_eq!(core.sleepers.asleep, 0);
    assert_eq!(
        engine.epoch.0.load(Ordering::Relaxed),
        0,
        "everybody is awake"
    );
}

#[test]
fn no_sleeper_misses_a_completion() {
    explore(|| run(RIGHT, false, true));
}

#[test]
fn no_sleeper_misses_a_completion_when_another_leaves_for_its_own_reasons() {
    explore(|| run(RIGHT, true, true));
}

#[test]
fn without_the_sleepers_fence_a_wake_up_is_lost() {
    must_fail("deadlock", || {
        let arm = |sleepers: &mut Sleepers, word: &_| without_full_fence(|| sleepers.arm(word));
        run(Protocol { arm, ..RIGHT }, false, false);
    });
}

#[test]
fn without_the_workers_fence_a_wake_up_is_lost() {
    must_fail("deadlock", || {
        let due = |signaller: &Signaller, word: &_| without_full_fence(|| signaller.due(word));
        run(Protocol { due, ..RIGHT }, false, false);
    });
}

#[test]
fn without_a_new_epoch_the_sleeper_that_stays_is_not_woken() {
    must_fail("deadlock", || {
        let wake_up = |engine: &Engine, core: &mut Core, me| {
            engine.drain_bells(me);
            if core.sleepers.asleep > 1 {
                core.sleepers.asleep -= 1;
            } else {
                let _ = core.sleepers.disarm(&engine.epoch);
            }
            engine.scan(core);
        };
        run(Protocol { wake_up, ..RIGHT }, true, false);
    });
}

#[test]
fn without_a_scan_after_the_new_epoch_the_sleeper_that_stays_is_not_woken() {
    must_fail("deadlock", || {
        let wake_up = |engine: &Engine, core: &mut Core, me| {
            engine.drain_bells(me);
            let _ = core.sleepers.disarm(&engine.epoch);
        };
        run(Protocol { wake_up, ..RIGHT }, true, false);
    });
}

/// The signal that is drained may belong to the new epoch, which counts as served from then on.
#[test]
fn bells_drained_after_the_new_epoch_swallow_the_signal_of_the_sleeper_that_stays() {
    must_fail("deadlock", || {
        let wake_up = |engine: &Engine, core: &mut Core, me| {
            let _ = core.sleepers.disarm(&engine.epoch);
            engine.drain_bells(me);
            engine.scan(core);
        };
        run(Protocol { wake_up, ..RIGHT }, true, false);
    });
}

/// A worker that held back a flip starts a task that runs until the host has reacted to it. The
/// host looks at the done word before it sleeps; the worker looks at `H` before it runs the task.
fn hold_back(host_sleeps: fn(&HostEpoch) -> bool) {
    let engine = Engine::new();
    let reacted = Arc::new((Mutex::new(false), Condvar::new()));
    let worker = {
        let (engine, reacted) = (Arc::clone(&engine), Arc::clone(&reacted));
        thread::spawn(move || {
            engine.published.store(TOTAL, Ordering::Release); // the done word
            if host_sleeps(&engine.epoch) && engine.signaller.due(&engine.epoch) {
                engine.signal(|readable| readable.worker = true);
            }
            let mut done = lock(&reacted.0);
            while !*done {
                done = reacted.1.wait(done).expect("not poisoned");
            }
        })
    };
    while engine.sleep(OWNER, &RIGHT) {}
    *lock(&reacted.0) = true;
    reacted.1.notify_all();
    worker.join().expect("a thread failed");
}

#[test]
fn a_flip_is_not_held_back_from_a_host_that_falls_asleep() {
    explore(|| hold_back(host_sleeps));
}

#[test]
fn without_a_fence_before_the_look_at_the_epoch_a_flip_is_held_back() {
    must_fail("deadlock", || {
        hold_back(|word| without_full_fence(|| host_sleeps(word)));
    });
}
