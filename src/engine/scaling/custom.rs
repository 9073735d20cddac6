//! A scaling policy of the host's own, on a thread of its own.
//!
//! The supervisor leaves a question and goes on; the answer is there when it is there. A policy that
//! thinks for ever, fails or panics costs its own thread and nothing else.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Proposal, ScalingPolicy, Snapshot};
use crate::error::{Error, Result};
use crate::sys::sync::lock;

/// How long the end of the engine waits for a policy that is thinking.
const LAST_THOUGHT: Duration = Duration::from_secs(1);

/// What became of a question.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) snapshot: Snapshot,
    /// The error is the text of a panic.
    pub(crate) proposal: Result<Option<Proposal>, String>,
}

#[derive(Debug, Default)]
struct Desk {
    question: Option<Snapshot>,
    thinking: bool,
    answer: Option<Answer>,
    closed: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// The thread, as the supervisor sees it.
#[derive(Debug)]
pub(crate) struct Thinker(Arc<Shared>);

impl Thinker {
    /// `ring` is called when an answer is there.
    pub(crate) fn start(
        policy: Box<dyn ScalingPolicy>,
        ring: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("mf-scaling".into())
            .spawn(move || {
                think(policy, &theirs, ring);
                lock(&theirs.desk).ended = true;
                theirs.changed.notify_all();
            })
            .map_err(|e| Error::system("pthread_create", "cannot start the scaling thread", e))?;
        Ok(Self(shared))
    }

    /// Leaves a question; false if the policy still thinks about the one before.
    pub(crate) fn ask(&self, snapshot: Snapshot) -> bool {
        let mut desk = lock(&self.0.desk);
        if desk.thinking || desk.question.is_some() || desk.answer.is_some() {
            return false;
        }
        desk.question = Some(snapshot);
        self.0.changed.notify_all();
        true
    }

    pub(crate) fn answer(&self) -> Option<Answer> {
        lock(&self.0.desk).answer.take()
    }
}

impl Drop for Thinker {
    /// Waits for what the policy is thinking about, but not for ever: then its thread ends by itself,
    /// later.
    fn drop(&mut self) {
        let mut desk = lock(&self.0.desk);
        desk.closed = true;
        self.0.changed.notify_all();
        let (_desk, late) = self
            .0
            .changed
            .wait_timeout_while(desk, LAST_THOUGHT, |desk| !desk.ended)
            .unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            log::warn!("the scaling policy still thinks; its thread is left alone");
        }
    }
}

fn think(mut policy: Box<dyn ScalingPolicy>, shared: &Shared, ring: impl Fn()) {
    while let Some(snapshot) = next_question(shared) {
        // AssertUnwindSafe: what a panic leaves of the policy's state is the policy's own care.
        let decided = catch_unwind(AssertUnwindSafe(|| policy.decide(&snapshot)));
        let proposal = decided.map_err(|panic| {
            (panic.downcast_ref::<&str>().map(ToString::to_string))
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "(no text)".to_owned())
        });
        let mut desk = lock(&shared.desk);
        desk.thinking = false;
        desk.answer = Some(Answer { snapshot, proposal });
        drop(desk);
        ring();
    }
}

/// `None` when there will be none.
fn next_question(shared: &Shared) -> Option<Snapshot> {
    let mut desk: MutexGuard<'_, Desk> = lock(&shared.desk);
    loop {
        if desk.closed {
            return None;
        }
        if let Some(snapshot) = desk.question.take() {
            desk.thinking = true;
            return Some(snapshot);
        }
        desk = (shared.changed.wait(desk)).unwrap_or_else(PoisonError::into_inner);
    }
}
