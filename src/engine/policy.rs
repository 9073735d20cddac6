//! Dispatch policies of the host's own.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::task::Class;

/// A worker that has room for a task, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Its slot.
    pub slot: u32,
    /// Its process.
    pub pid: u32,
    /// New for every process in the slot.
    pub incarnation: u64,
    /// Its threads.
    pub threads: u32,
    /// Tasks on it, running or waiting.
    pub load: u32,
    /// Most tasks that it is given at present, running ones included.
    pub depth: u32,
    /// Tasks that it has ended, failed ones included.
    pub completed: u64,
    /// Tasks that failed on it.
    pub failed: u64,
    /// Tasks that crashed in this slot, on processes before this one.
    pub crashed: u64,
    /// Time that it spent in handlers, in ns, over all threads.
    pub busy_ns: u64,
    /// Average time of a task, in ns.
    pub service_ns: u64,
}

/// Chooses workers for tasks; see [`Policy::Custom`](crate::Policy::Custom).
///
/// It is asked under the engine's lock, on whichever thread hands a task out: a thread that submits
/// or polls, or the engine's own. So it must be quick (every submit and poll waits for it), must not
/// wait for another thread that uses the engine, and must not use the engine itself: such a call
/// panics, which counts as a failure of the policy. It is not asked if only one worker could be
/// chosen, nor for tasks with a sticky key, nor by way of another engine whose policy uses this one.
///
/// A policy that panics, or answers with an index that there is not, is a bad policy but no danger:
/// the engine counts it ([`Stats::policy_failures`](crate::Stats::policy_failures)), logs it, and
/// chooses itself.
pub trait DispatchPolicy: Send + Sync {
    /// An index into `workers`, which all have room and are never fewer than two; `None` for the
    /// engine's own choice (the least loaded one).
    fn choose(&self, class: Class, workers: &[Candidate]) -> Option<usize>;
}

impl<F: Fn(Class, &[Candidate]) -> Option<usize> + Send + Sync> DispatchPolicy for F {
    fn choose(&self, class: Class, workers: &[Candidate]) -> Option<usize> {
        self(class, workers)
    }
}

/// A policy of the host's own, shared.
#[derive(Clone)]
pub struct Custom(Arc<dyn DispatchPolicy>);

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custom")
    }
}

impl From<Arc<dyn DispatchPolicy>> for Custom {
    fn from(policy: Arc<dyn DispatchPolicy>) -> Self {
        Self(policy)
    }
}

/// What came of asking.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An index into the candidates.
    This(usize),
    /// The engine's own choice.
    Own,
    /// None that makes sense.
    Failure(String),
}

impl Custom {
    pub(crate) fn ask(&self, engine: u32, class: Class, workers: &[Candidate]) -> Answer {
        if ASKED.get().is_some() {
            return Answer::Own; // it might use the engine whose policy this thread asks already
        }
        ASKED.set(Some(engine));
        // AssertUnwindSafe: it sees nothing of the engine's; its own state is its own care.
        let answer = catch_unwind(AssertUnwindSafe(|| self.0.choose(class, workers)));
        ASKED.set(None);
        match answer {
            Ok(None) => Answer::Own,
            Ok(Some(index)) if index < workers.len() => Answer::This(index),
            Ok(Some(index)) => Answer::Failure(format!(
                "it chose worker {index} of {} (counted from 0)",
                workers.len()
            )),
            Err(panic) => {
                let text = (panic.downcast_ref::<&str>().copied())
                    .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                Answer::Failure(format!("it panicked: {}", text.unwrap_or("(no text)")))
            }
        }
    }
}

thread_local! {
    /// The engine whose policy this thread asks at present, and whose lock it holds.
    static ASKED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Before this thread waits for the lock of an engine: unwinds if it holds that lock and would wait
/// for ever, because a policy uses the engine that asks it.
pub(crate) fn check_reentrance(engine: u32) {
    if ASKED.get() == Some(engine) {
        // Not `panic!`: that would write to stderr first.
        resume_unwind(Box::new(
            "a dispatch policy must not use the engine that asks it",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_index_that_there_is_is_an_answer() {
        let one = Candidate {
            slot: 0,
            pid: 1,
            incarnation: 1,
            threads: 1,
            load: 0,
            depth: 2,
            completed: 0,
            failed: 0,
            crashed: 0,
            busy_ns: 0,
            service_ns: 0,
        };
        let ask = |answer: fn() -> Option<usize>| {
            let policy: Arc<dyn DispatchPolicy> =
                Arc::new(move |_: Class, _: &[Candidate]| answer());
            Custom::from(policy).ask(7, Class::CpuBound, &[one; 2])
        };
        assert_eq!(ask(|| Some(1)), Answer::This(1));
        assert_eq!(ask(|| None), Answer::Own);
        assert!(matches!(ask(|| Some(2)), Answer::Failure(text) if text.contains("2 of 2")));
        assert!(matches!(
            ask(|| { check_reentrance(8); check_reentrance(7); None }),
            Answer::Failure(text) if text.contains("must not use the engine")
        ));
        // By way of another engine, whose policy is not asked then.
        let back: Arc<dyn DispatchPolicy> = Arc::new(|_: Class, _: &[Candidate]| {
            check_reentrance(7);
            Some(0)
        });
        let back = Custom::from(back);
        let policy: Arc<dyn DispatchPolicy> = Arc::new(move |_: Class, workers: &[Candidate]| {
            (back.ask(8, Class::CpuBound, workers) == Answer::Own).then_some(1)
        });
        let detour = Custom::from(policy).ask(7, Class::CpuBound, &[one; 2]);
        assert_eq!(detour, Answer::This(1));
        check_reentrance(7); // nobody is asked any more
    }
}
