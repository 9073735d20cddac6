//! The crash report from the worker's side: which task a thread has in hand, and the page that the
//! report goes to. See [`sys::crash`](crate::sys::crash) for the handlers and
//! [`shm::crash`](crate::shm::crash) for the words.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::shm::crash::SEVERAL;
use crate::sys::crash::{self, Dispositions, Fault, Recorder};
use crate::sys::sigstack::SignalStack;
use crate::worker::lane::Lane;

/// What a thread that takes tasks keeps for the day that it crashes.
struct Prepared {
    id: u32,
    _stack: Option<SignalStack>,
}

thread_local! {
    static PREPARED: Prepared = Prepared {
        id: thread_id(),
        _stack: SignalStack::install(),
    };
}

fn thread_id() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

/// Gives this thread, which is going to take tasks, a signal stack; the kernel's id of it.
pub(crate) fn enter_thread() -> u32 {
    let _ = this_thread();
    thread_id() // it may have been another in the process that this one was forked from
}

/// The same, for a thread that comes here again and again.
pub(crate) fn this_thread() -> u32 {
    // A destructor of thread-local data that takes tasks does without the stack.
    PREPARED
        .try_with(|prepared| prepared.id)
        .unwrap_or_else(|_| thread_id())
}

/// Has the faults of this process reported in its lane. Afterwards they go to `previous`, or, if
/// that is not given, to where they go now.
pub(crate) fn install(lane: &Arc<Lane>, previous: Option<Dispositions>) {
    // Leaked: there is one lane in the life of a process, and a handler may run to its very end.
    let lane: &'static Arc<Lane> = Box::leak(Box::new(Arc::clone(lane)));
    crash::install(&**lane, previous);
}

impl Recorder for Lane {
    fn is_ours(&self) -> bool {
        !self.shared().is_childs_copy()
    }

    /// The ticket of the task that the thread has started and not finished. A program that takes
    /// several tasks with one thread may be busy with any of them.
    fn task_of(&self, thread: u32) -> u64 {
        let slots = &self.shared().up().slots;
        let mut tickets = slots
            .iter()
            .filter_map(|slot| slot.in_hand_of(u64::from(thread)));
        match (tickets.next(), tickets.next()) {
            (None, _) => 0,
            (Some(ticket), None) => ticket,
            (Some(_), Some(_)) => SEVERAL,
        }
    }

    fn begin(&self, fault: &Fault, task: u64) {
        self.shared().up().crash.begin(
            [fault.signal, fault.code],
            fault.address,
            fault.thread,
            task,
            fault.pc,
        );
    }

    fn frame(&self, address: u64) -> bool {
        self.shared().up().crash.push(address)
    }

    fn complete(&self) {
        self.shared().up().crash.complete();
    }
}
