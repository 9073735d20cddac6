//! The life of an engine, and the control of its tasks and workers.

use std::os::fd::AsRawFd;
use std::ptr;

use crate::error::{Error, Result};
use crate::ffi::config::mf_config;
use crate::ffi::error::{guard, refuse};
use crate::ffi::handle;
use crate::ffi::sized;
use crate::ffi::submit::class;
use crate::ffi::types::*;
use crate::task::{TaskId, TaskState};

/// Starts an engine; returns when the minimum of workers is ready.
///
/// - `cfg`: the settings, with a handler or a worker program.
/// - `engine`: receives the handle, to be freed by mf_engine_free(); NULL with every error.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: NULL, or a bad setting, which mf_last_error() names, or a name in use;
/// - MF_E_UNSUPPORTED: a setting that this version does not have, or a kernel that lacks something;
/// - MF_E_TIMEOUT: the workers are not ready within mf_config.start_timeout_ns;
/// - MF_E_SYSTEM, MF_E_NO_MEMORY: the system refuses, or the program cannot be executed;
/// - MF_E_INTERNAL: a worker ended before it was ready.
///
/// Forks a process that later forks the workers: they see this process's memory as it is now. If
/// this process has other threads, a handler may use malloc, but no lock that another thread holds
/// now. Start engines early. Any thread; also in a forked child, which cannot use its parent's
/// engines but can have its own. Since 0.1.
///
/// # Safety
/// `cfg` is NULL or valid for as many bytes as its size says, and its pointers are what its
/// comments say; `engine` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_engine_start(
    cfg: *const mf_config,
    engine: *mut *mut mf_engine,
) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        unsafe { sized::write(engine, ptr::null_mut(), "engine") }?;
        // SAFETY: the caller's word.
        let cfg = unsafe { sized::read_growable(cfg, mf_config::defaults(), "mf_config") }?;
        // SAFETY: the caller's word.
        let started = unsafe { cfg.to_builder() }?.start()?;
        let new = handle::adopt(started)?;
        // SAFETY: the caller's word.
        unsafe { sized::write(engine, new, "engine") }?;
        Ok(MF_OK)
    })
}

/// Stops an engine: refuses new tasks, lets those that were accepted finish for at most
/// `drain_ns`, then cancels the rest, killing workers that do not listen after
/// mf_config.stop_grace_ns. Each task still has its completion, which can be fetched until
/// mf_engine_free().
///
/// - `engine`: the engine.
/// - `drain_ns`: nanoseconds; < 0 for as long as it takes, 0 not at all.
///
/// Returns MF_OK, or
/// - MF_E_CLOSED: it was stopped before, or is being stopped;
/// - MF_E_INVALID: not an engine.
///
/// Waits. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_engine_stop(engine: *mut mf_engine, drain_ns: i64) -> i32 {
    guard(|| {
        handle::find(engine)?.stop(sized::timeout(drain_ns))?;
        Ok(MF_OK)
    })
}

/// Frees an engine; stops it first, without a drain, if that was not done. Completions that were
/// not fetched are lost. Results that were not released, and loans, stay valid until they are.
///
/// - `engine`: the engine; NULL is allowed and does nothing. It is stale afterwards.
///
/// Returns MF_OK, or MF_E_INVALID for a handle that is no engine, or was freed already.
///
/// Calls of other threads on this engine end first, waiting ones with MF_E_CLOSED or what they
/// waited for. Any thread. Forked child: MF_E_INVALID, and the parent's engine goes on. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_engine_free(engine: *mut mf_engine) -> i32 {
    guard(|| {
        if !engine.is_null() {
            handle::free(engine)?;
        }
        Ok(MF_OK)
    })
}

/// # Safety
/// `id` is NULL or valid for a read.
unsafe fn task_id(id: *const mf_task_id) -> Result<TaskId> {
    // SAFETY: the caller's word.
    let id = unsafe { sized::read(id, "id") }?;
    Ok(TaskId::from_bytes(id.bytes))
}

/// Asks for a task to be cancelled. A queued task is; a running one is told, mf_task_cancelled(),
/// and with MF_CANCEL_KILL its worker is killed unless the task ends by itself within
/// mf_config.kill_grace_ns. Tasks that run beside it may then end as MF_CRASHED with
/// MF_F_COLLATERAL. What became of the task, its completion says.
///
/// With MF_CANCEL_UNSTARTED, MF_OK means that the task will never run, and its completion says
/// MF_CANCELLED (which an earlier call may have seen to). Else nothing has changed, and the task is
/// not told either.
///
/// - `engine`: the engine.
/// - `id`: the task.
/// - `flags`: 0, MF_CANCEL_KILL or MF_CANCEL_UNSTARTED.
///
/// Returns MF_OK, or
/// - MF_E_WOULD_BLOCK: with MF_CANCEL_UNSTARTED, a worker has been given the task, even if it is not
///   started yet; or it was started before and waits for its next attempt; or it has ended, and its
///   completion can be fetched;
/// - MF_E_NOT_FOUND: no such task, or its completion was handed out;
/// - MF_E_INVALID: not an engine, NULL, or unknown flags.
///
/// Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `id` is NULL or valid for a read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_cancel(
    engine: *mut mf_engine,
    id: *const mf_task_id,
    flags: u32,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        // SAFETY: the caller's word.
        let id = unsafe { task_id(id) }?;
        match flags {
            0 => engine.cancel(id)?,
            MF_CANCEL_KILL => engine.cancel_kill(id)?,
            MF_CANCEL_UNSTARTED => {
                if !engine.cancel_unstarted(id)? {
                    let text = "would block: a worker has, or had, the task already";
                    return Ok(refuse(MF_E_WOULD_BLOCK, text));
                }
            }
            other => {
                return Err(Error::invalid(format!(
                    "the flags of mf_cancel are not a choice that there is: {other:#x}"
                )));
            }
        }
        Ok(MF_OK)
    })
}

/// Where a task is: queued, running (on which worker, since when, how far), or done.
///
/// - `engine`: the engine.
/// - `id`: the task.
/// - `state`: receives the answer; its `size` is set by the caller.
///
/// Returns MF_OK, or
/// - MF_E_NOT_FOUND: no such task, or its completion was handed out;
/// - MF_E_INVALID: not an engine, NULL, or a size that no version of mf_task_info has.
///
/// Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `id` is NULL or valid for a read, `state` is NULL or valid for as many bytes as its size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_state(
    engine: *mut mf_engine,
    id: *const mf_task_id,
    state: *mut mf_task_info,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        // SAFETY: the caller's word.
        unsafe { sized::check_growable(state, "mf_task_info") }?;
        // SAFETY: the caller's word.
        let id = unsafe { task_id(id) }?;
        let mut info = mf_task_info {
            size: 0, // set by `write_growable`
            state: MF_TASK_QUEUED,
            worker: MF_NO_WORKER,
            reserved0: 0,
            elapsed_ns: 0,
            progress_done: 0,
            progress_total: 0,
        };
        match engine.task_state(id)? {
            TaskState::Queued => {}
            TaskState::Done => info.state = MF_TASK_DONE,
            TaskState::Running {
                worker,
                elapsed,
                progress,
            } => {
                info.state = MF_TASK_RUNNING;
                info.worker = worker;
                info.elapsed_ns = sized::nanoseconds(elapsed);
                (info.progress_done, info.progress_total) = progress;
            }
        }
        // SAFETY: the caller's word.
        unsafe { sized::write_growable(state, &info, "mf_task_info") }?;
        Ok(MF_OK)
    })
}

/// A descriptor for the host's own loop (epoll, poll, select): readable, level-triggered, when
/// completions may be waiting. It belongs to the engine, which closes it in mf_engine_free().
///
/// Never read it: call mf_poll() with a timeout of 0 until it returns 0. Edge-triggered loops must
/// do so before every wait.
///
/// - `engine`: the engine.
///
/// Returns the descriptor, the same every time, or
/// - MF_E_SYSTEM: none can be made;
/// - MF_E_INVALID: not an engine.
///
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_event_fd(engine: *mut mf_engine) -> i32 {
    guard(|| Ok(handle::find(engine)?.event_fd()?.as_raw_fd()))
}

/// Sets how many workers a class has. More are started; fewer leave when they have finished what
/// they run, and what waits on them goes to others.
///
/// - `engine`: the engine.
/// - `task_class`: MF_CPU_BOUND or MF_IO_BOUND.
/// - `workers`: up to mf_class_config.max_workers.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: not an engine, an unknown class, too many, or none while the class has tasks;
/// - MF_E_CLOSED: the engine is stopped.
///
/// Does not wait for them. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_resize(
    engine: *mut mf_engine,
    task_class: mf_class,
    workers: u32,
) -> i32 {
    guard(|| {
        handle::find(engine)?.resize(class(task_class)?, workers)?;
        Ok(MF_OK)
    })
}

/// How many bytes a text has that C wants in `buf`, where as much of it is put as fits.
///
/// # Safety
/// `buf` is NULL or valid for writes of `cap` bytes.
pub(crate) unsafe fn put_text(text: &str, buf: *mut u8, cap: usize) -> Result<i32> {
    if cap > 0 {
        sized::check(buf, "buf")?;
        let len = text.floor_char_boundary(cap - 1);
        // SAFETY: `len` is below `cap`; the text is ours, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buf, len) };
        // SAFETY: as above.
        unsafe { buf.wrapping_add(len).write(0) };
    }
    i32::try_from(text.len()).map_err(|_| Error::Internal("a text beyond 2 GiB".into()))
}
