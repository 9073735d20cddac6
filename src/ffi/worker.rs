//! Worker programs: processes that join a lane which they inherited.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::ffi::error::guard;
use crate::ffi::handle::{self, Kind};
use crate::ffi::sized;
use crate::ffi::task;
use crate::ffi::types::*;
use crate::sys::fork::ForkGuard;
use crate::task::Class;
use crate::worker::Worker;

/// The one lane that a process can join.
struct Joined {
    worker: Worker,
    guard: ForkGuard,
    left: AtomicBool,
}

static JOINED: OnceLock<Joined> = OnceLock::new();

fn the_handle() -> *mut mf_worker {
    handle::token(Kind::Worker, 0, 1)
}

fn find(worker: *const mf_worker) -> Result<&'static Joined> {
    let joined = JOINED
        .get()
        // Relaxed: a flag that guards no data; a call that just overlaps with leaving is fine.
        .filter(|joined| ptr::eq(worker, the_handle()) && !joined.left.load(Ordering::Relaxed))
        .ok_or_else(|| {
            Error::invalid(if worker.is_null() {
                "the worker is NULL"
            } else {
                "this is not a worker, or one that has left"
            })
        })?;
    if joined.guard.is_child() {
        return Err(handle::in_child());
    }
    Ok(joined)
}

/// Joins the lane that this program inherited from the engine that started it
/// (mf_config.worker_argv), or from the zygote that has forked it (MF_ZYGOTE). Once per process; the
/// engine sends tasks from then on.
///
/// In a zygote's child this comes before anything else, threads above all: it restricts the process
/// as mf_config.sandbox says. After an error such a child must exit, by _exit().
///
/// - `worker`: receives the handle.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: NULL, or the process was neither started by an engine nor forked by a zygote
///   between mf_zygote_recv() and mf_zygote_reply(), or it has joined already;
/// - MF_E_CLOSED: the zygote that has forked it is gone;
/// - MF_E_UNSUPPORTED: host and worker use different versions of the shared layout;
/// - MF_E_NO_MEMORY, MF_E_SYSTEM: the system refuses.
///
/// Starts a small thread, which ends this process if the host dies. From then on SIGTERM, which the
/// engine sends before it kills, makes mf_worker_next() answer MF_E_CLOSED and hands back what is not
/// started, unless the program has its own use for that signal. Any thread. Forked child:
/// MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `worker` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_worker_join(worker: *mut *mut mf_worker) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        unsafe { sized::write(worker, ptr::null_mut(), "worker") }?;
        let joined = Joined {
            guard: ForkGuard::new()?,
            worker: Worker::join()?,
            left: AtomicBool::new(false),
        };
        if JOINED.set(joined).is_err() {
            return Err(Error::Internal("two lanes in one process".into()));
        }
        // SAFETY: the caller's word.
        unsafe { sized::write(worker, the_handle(), "worker") }?;
        Ok(MF_OK)
    })
}

/// Takes the next task. Threads may wait here side by side.
///
/// - `worker`: the joined lane.
/// - `task`: receives the task, to be ended by mf_task_finish() or mf_task_end(), on any thread; NULL
///   with every error.
/// - `timeout_ns`: nanoseconds to wait for one; < 0 for ever, 0 not at all.
///
/// Returns MF_OK, or
/// - MF_E_TIMEOUT: none came in time;
/// - MF_E_CLOSED: the engine wants no more of this worker: finish what is in hand and leave;
/// - MF_E_WOULD_BLOCK: as many tasks are in hand as mf_worker_concurrency() says;
/// - MF_E_INVALID: not a worker, or NULL.
///
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `task` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_worker_next(
    worker: *mut mf_worker,
    task: *mut *mut mf_task,
    timeout_ns: i64,
) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        unsafe { sized::write(task, ptr::null_mut(), "task") }?;
        let joined = find(worker)?;
        let assigned = joined.worker.next(sized::timeout(timeout_ns))?;
        let in_hand = task::hold(assigned)?;
        // SAFETY: the caller's word.
        unsafe { sized::write(task, in_hand, "task") }?;
        Ok(MF_OK)
    })
}

const NO_WORK: mf_work = mf_work {
    size: 0, // set by `write_growable`
    attempt: 0,
    task: ptr::null_mut(),
    payload: ptr::null(),
    len: 0,
    user_data: 0,
    id: mf_task_id { bytes: [0; 16] },
    label: [0; 16],
};

/// mf_worker_next() that also tells everything about the task, for callers to whom each call is
/// dear: what mf_task_payload(), mf_task_get_id(), mf_task_get_label(), mf_task_attempt() and
/// mf_task_user_data() would.
///
/// - `worker`: the joined lane.
/// - `work`: receives the task, to be ended as one of mf_worker_next() is; its `size` is set by the
///   caller. Zeros with every error, except if it is unusable itself.
/// - `timeout_ns`: nanoseconds to wait for one; < 0 for ever, 0 not at all.
///
/// Returns MF_OK, or the errors of mf_worker_next(); MF_E_INVALID also for a size that no version
/// of mf_work has. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `work` is NULL or valid for as many bytes as its size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_worker_take(
    worker: *mut mf_worker,
    work: *mut mf_work,
    timeout_ns: i64,
) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        unsafe { sized::write_growable(work, &NO_WORK, "mf_work") }?;
        let joined = find(worker)?;
        let assigned = joined.worker.next(sized::timeout(timeout_ns))?;
        let taken = task::describe(task::hold(assigned)?)?;
        // SAFETY: the caller's word.
        unsafe { sized::write_growable(work, &taken, "mf_work") }?;
        Ok(MF_OK)
    })
}

/// How many tasks this program may hold at a time: mf_class_config.threads.
///
/// Returns the number, or MF_E_INVALID if `worker` is not a worker. Any thread. Forked child:
/// MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_worker_concurrency(worker: *const mf_worker) -> i32 {
    guard(|| Ok(i32::try_from(find(worker)?.worker.concurrency()).unwrap_or(i32::MAX)))
}

/// The number of this worker in its engine, as in mf_completion.worker.
///
/// Returns the number, or MF_E_INVALID if `worker` is not a worker. Any thread. Forked child:
/// MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_worker_slot(worker: *const mf_worker) -> i32 {
    guard(|| Ok(i32::try_from(find(worker)?.worker.slot()).unwrap_or(i32::MAX)))
}

/// The class whose tasks this worker runs.
///
/// Returns MF_CPU_BOUND or MF_IO_BOUND, or MF_E_INVALID if `worker` is not a worker. Any thread.
/// Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_worker_class(worker: *const mf_worker) -> i32 {
    guard(|| {
        Ok(match find(worker)?.worker.class() {
            Class::CpuBound => MF_CPU_BOUND,
            Class::IoBound => MF_IO_BOUND,
        })
    })
}

/// Gives up the lane: no more tasks are taken, and what the engine had sent in advance goes to
/// another worker. The program should finish what it has in hand, which is still possible, and
/// exit: it is killed after the engine's `stop_grace_ns`. `worker` is stale afterwards.
///
/// Returns MF_OK, also for NULL, or MF_E_INVALID if `worker` is not a worker or has left already.
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_worker_leave(worker: *mut mf_worker) -> i32 {
    guard(|| {
        if !worker.is_null() {
            // Relaxed: as in `find`; the swap makes one of two that leave at once the loser.
            let left = find(worker)?.left.swap(true, Ordering::Relaxed);
            if left {
                return Err(Error::invalid("this worker has left already"));
            }
        }
        Ok(MF_OK)
    })
}
