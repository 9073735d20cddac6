//! Dispatch policies, from C.

use std::ffi::c_void;

use crate::config::Policy;
use crate::engine::policy::{Candidate, DispatchPolicy};
use crate::error::{Error, Result};
use crate::ffi::config::{
    MF_DISPATCH_CUSTOM, MF_DISPATCH_LEAST_LOADED, MF_DISPATCH_POWER_OF_TWO,
    MF_DISPATCH_ROUND_ROBIN, mf_dispatch_fn,
};
use crate::ffi::error::guard;
use crate::ffi::handle;
use crate::ffi::sized;
use crate::ffi::types::*;
use crate::task::Class;

/// The policy of a number and a function.
pub(crate) fn of(policy: i32, function: mf_dispatch_fn, user: *mut c_void) -> Result<Policy> {
    let policy = match policy {
        MF_DISPATCH_LEAST_LOADED => Policy::LeastLoaded,
        MF_DISPATCH_ROUND_ROBIN => Policy::RoundRobin,
        MF_DISPATCH_POWER_OF_TWO => Policy::PowerOfTwo,
        MF_DISPATCH_CUSTOM => {
            let Some(function) = function else {
                return Err(Error::invalid(
                    "MF_DISPATCH_CUSTOM without a dispatch function",
                ));
            };
            return Ok(Policy::custom(ForeignPolicy { function, user }));
        }
        other => {
            return Err(Error::invalid(format!(
                "the dispatch policy is {other}, which is unknown"
            )));
        }
    };
    if function.is_some() {
        return Err(Error::invalid(
            "a dispatch function without MF_DISPATCH_CUSTOM",
        ));
    }
    Ok(policy)
}

type Function = unsafe extern "C" fn(
    user: *mut c_void,
    task_class: mf_class,
    rows: *const mf_worker_row,
    row_size: usize,
    count: usize,
) -> i32;

/// An `mf_dispatch_fn` with its argument.
struct ForeignPolicy {
    function: Function,
    user: *mut c_void,
}

// SAFETY: the library only passes `user` on; the contract of `mf_dispatch_fn` says that the function
// is called on any thread (one at a time), so what it points to is the caller's to guard.
unsafe impl Send for ForeignPolicy {}
// SAFETY: as above.
unsafe impl Sync for ForeignPolicy {}

impl DispatchPolicy for ForeignPolicy {
    fn choose(&self, class: Class, workers: &[Candidate]) -> Option<usize> {
        let rows: Vec<mf_worker_row> = workers.iter().map(|w| row(class, w)).collect();
        // SAFETY: a function of this type by the word of whoever handed it in, with its own argument
        // and rows that stay until it returns.
        let answer = unsafe {
            (self.function)(
                self.user,
                class as i32,
                rows.as_ptr(),
                size_of::<mf_worker_row>(),
                rows.len(),
            )
        };
        usize::try_from(answer).ok()
    }
}

fn row(class: Class, worker: &Candidate) -> mf_worker_row {
    mf_worker_row {
        size: sized::size_field::<mf_worker_row>(),
        slot: worker.slot,
        pid: worker.pid,
        task_class: class as i32,
        state: MF_WORKER_READY,
        threads: worker.threads,
        depth: worker.depth,
        queued: worker.load.saturating_sub(worker.threads),
        running: worker.load.min(worker.threads),
        cpu_permille: 0,
        incarnation: worker.incarnation,
        completed: worker.completed,
        failed: worker.failed,
        crashed: worker.crashed,
        busy_ns: worker.busy_ns,
        service_ns: worker.service_ns,
        rss_bytes: 0,
    }
}

/// Changes how workers are chosen, from the next choice on. When it returns, a function that was in
/// use before is not called any more.
///
/// - `engine`: the engine.
/// - `policy`: MF_DISPATCH_*.
/// - `dispatch`: for MF_DISPATCH_CUSTOM, else NULL; it is needed until it is replaced or the engine is
///   stopped.
/// - `user`: its first argument.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: not an engine, an unknown policy, or a function that does not fit it;
/// - MF_E_CLOSED: the engine is stopped.
///
/// Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `dispatch` is NULL or a function that keeps to what mf_dispatch_fn says, with this `user`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_set_dispatch_policy(
    engine: *mut mf_engine,
    policy: i32,
    dispatch: mf_dispatch_fn,
    user: *mut c_void,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        engine.set_policy(of(policy, dispatch, user)?)?;
        Ok(MF_OK)
    })
}
