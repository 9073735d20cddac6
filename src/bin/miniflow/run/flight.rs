//! The tasks between the thread that submits them and the one that writes their results: never more
//! than a window of them, so that memory is bounded whatever the length of the input.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use miniflow::TaskId;

use super::bell::Bell;

/// Tasks whose results are not written yet, at most.
pub(crate) const WINDOW: usize = 2048;
/// Memory that a task needs may be given back without word to those who wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Shared between the two threads.
#[derive(Debug)]
pub(crate) struct Flight {
    state: Mutex<State>,
    /// There is room, or the flight is closed.
    changed: Condvar,
    /// Rings when there is something for the writing thread that is no completion.
    bell: Bell,
}

#[derive(Debug, Default)]
struct State {
    /// By index. `None` if the task was not accepted.
    open: BTreeMap<u64, Option<TaskId>>,
    rejected: Vec<Rejected>,
    /// Nothing more may be submitted for now: too many results wait for their turn.
    held: bool,
    /// Nothing more may be submitted.
    closed: bool,
    /// Nothing more will be submitted.
    ended: bool,
}

/// A task that the engine did not accept.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) index: u64,
    pub(crate) why: String,
}

impl Flight {
    pub(crate) fn new(bell: Bell) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            bell,
        }
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the submitting thread ----

    /// Waits until one more task may be submitted; false if none may any more.
    pub(crate) fn await_room(&self) -> bool {
        let full = |state: &mut State| !state.closed && (state.held || state.open.len() >= WINDOW);
        let waited = self.changed.wait_while(self.lock(), full);
        !waited.unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Waits until a task has ended, for a short time.
    pub(crate) fn await_change(&self) {
        let waited = self.changed.wait_timeout(self.lock(), LOOK_AGAIN);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes what `submit` returns. Under the lock: the task may end before `submit` returns.
    pub(crate) fn submit(
        &self,
        index: u64,
        submit: impl FnOnce() -> miniflow::Result<TaskId>,
    ) -> miniflow::Result<()> {
        let mut state = self.lock();
        let id = submit()?;
        state.open.insert(index, Some(id));
        Ok(())
    }

    /// Notes a task that cannot be submitted.
    pub(crate) fn reject(&self, index: u64, why: String) {
        let mut state = self.lock();
        state.open.insert(index, None);
        state.rejected.push(Rejected { index, why });
        drop(state);
        self.bell.ring();
    }

    /// There are no more tasks.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.bell.ring();
    }

    // ---- the writing thread ----

    /// Lets no more task be submitted.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Lets no task be submitted for now.
    pub(crate) fn hold(&self, hold: bool) {
        self.lock().held = hold;
        self.changed.notify_all();
    }

    /// The results of these tasks are written, or will never be.
    pub(crate) fn leave(&self, indices: &[u64]) {
        let mut state = self.lock();
        for index in indices {
            state.open.remove(index);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The task whose result is the next one to be written, in order.
    pub(crate) fn first(&self) -> Option<u64> {
        self.lock().open.first_key_value().map(|(&index, _)| index)
    }

    pub(crate) fn take_rejected(&self) -> Vec<Rejected> {
        std::mem::take(&mut self.lock().rejected)
    }

    /// The ids of all tasks that were submitted and have not left.
    pub(crate) fn ids(&self) -> Vec<TaskId> {
        self.lock().open.values().filter_map(|id| *id).collect()
    }

    /// Whether no task is left, and none will come.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.open.is_empty() && (state.ended || state.closed)
    }
}
