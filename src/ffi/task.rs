//! The task in hand, on the worker's side: its handle, and what can be done with it.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::ffi::error::{guard, guard_or};
use crate::ffi::handle::{self, Kind};
use crate::ffi::sized;
use crate::ffi::types::*;
use crate::sys::fork::ForkGuard;
use crate::worker::{Assigned, Failure, Task};

/// Tasks that one process can have in hand: more than the threads of any worker.
const CELLS: u16 = 1024;

/// Whose task it is.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives in a static cell, and only the small variant is made often"
)]
enum Held {
    /// The worker runtime's, lent to a handler until it returns.
    Lent(NonNull<Task<'static>>),
    /// The program's own, until it finishes it.
    Own(Assigned<'static>),
}

/// One place for a task. On its own cache lines: each thread keeps to one cell.
#[repr(align(128))]
struct TaskCell {
    /// `generation << 32 | FREE..=ENDING`.
    state: AtomicU64,
    /// There while the cell is `LIVE`.
    content: UnsafeCell<Option<(Held, ForkGuard)>>,
}

// SAFETY: `content` belongs to whoever moved `state` to `FILLING` or `ENDING`; while it is `LIVE`
// one thread at a time uses the task, by the contract of `mf_task`, and a `Task` may be used on
// any thread.
unsafe impl Sync for TaskCell {}

const FREE: u64 = 0;
const FILLING: u64 = 1;
const LIVE: u64 = 2;
const ENDING: u64 = 3;
const PHASE: u64 = 3;

static TASK_CELLS: [TaskCell; CELLS as usize] = [const {
    TaskCell {
        state: AtomicU64::new(1 << 32),
        content: UnsafeCell::new(None),
    }
}; CELLS as usize];

thread_local! {
    /// The cell that this thread had last.
    static USUAL: Cell<u16> = const { Cell::new(0) };
}

/// A task that has a handle, until this is dropped.
pub(crate) struct InHand {
    cell: &'static TaskCell,
    token: *mut mf_task,
}

impl InHand {
    /// Lends a handler's task to C.
    #[inline]
    pub(crate) fn lend(task: &mut Task<'_>) -> Result<Self> {
        Self::claim(Held::Lent(NonNull::from(task).cast()))
    }

    /// The handle for C.
    #[inline]
    pub(crate) fn token(&self) -> *mut mf_task {
        self.token
    }

    #[inline]
    fn claim(held: Held) -> Result<Self> {
        let guard = ForkGuard::new()?;
        let usual = USUAL.get();
        for step in 0..CELLS {
            let index = (usual + step) % CELLS;
            let cell = &TASK_CELLS[usize::from(index)];
            // Relaxed: only a candidate.
            let state = cell.state.load(Ordering::Relaxed);
            // Acquire: pairs with the Release in `end`; the content is empty.
            if state & PHASE != FREE
                || cell
                    .state
                    .compare_exchange(state, state | FILLING, Ordering::Acquire, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            USUAL.set(index);
            // SAFETY: `FILLING` is ours alone.
            unsafe { *cell.content.get() = Some((held, guard)) };
            // Release: publishes the content to whatever thread C takes the task to.
            cell.state.store(state | LIVE, Ordering::Release);
            let generation = u32::try_from(state >> 32).unwrap_or(0);
            let token = handle::token(Kind::Task, index, generation);
            return Ok(Self { cell, token });
        }
        Err(Error::NoMemory(format!(
            "{CELLS} tasks are in hand already"
        )))
    }
}

impl Drop for InHand {
    #[inline]
    fn drop(&mut self) {
        // Relaxed: the cell is this task's until the store below.
        let state = self.cell.state.load(Ordering::Relaxed);
        // SAFETY: the handler has returned, or `end` moved the cell to `ENDING`: it is ours.
        unsafe { *self.cell.content.get() = None };
        // The handle is stale from here on. Release: pairs with the Acquire in `claim`.
        let next = (state & !PHASE).wrapping_add(1 << 32);
        self.cell.state.store(next | FREE, Ordering::Release);
    }
}

/// Gives a program's task a handle.
pub(crate) fn hold(assigned: Assigned<'static>) -> Result<*mut mf_task> {
    let in_hand = InHand::claim(Held::Own(assigned))?;
    let token = in_hand.token();
    #[expect(
        clippy::mem_forget,
        reason = "`end` takes over what dropping it would do"
    )]
    std::mem::forget(in_hand);
    Ok(token)
}

/// Everything about a task in hand, for C.
pub(crate) fn describe(task: *mut mf_task) -> Result<mf_work> {
    // Only now: a short payload lies beside the task, where the task lies by now.
    with(task, |in_hand| {
        let payload = in_hand.payload();
        Ok(mf_work {
            size: 0, // set by `write_growable`
            attempt: in_hand.attempt(),
            task,
            payload: payload.as_ptr().cast(),
            len: payload.len(),
            user_data: in_hand.user_data(),
            id: mf_task_id {
                bytes: *in_hand.id().as_bytes(),
            },
            label: in_hand.label().0,
        })
    })
}

#[cold]
fn zero_code() -> Error {
    Error::invalid("the code is 0, which would mean success")
}

#[cold]
fn not_a_task(task: *const mf_task) -> Error {
    Error::invalid(if task.is_null() {
        "the task is NULL"
    } else {
        "this is not a task in hand, or one that was finished"
    })
}

#[inline]
fn find(task: *const mf_task) -> Result<&'static TaskCell> {
    let cell = handle::parse(Kind::Task, task).and_then(|(index, generation)| {
        let cell = TASK_CELLS.get(usize::from(index))?;
        let live = u64::from(generation) << 32 | LIVE;
        // Acquire: pairs with the Release store in `claim`; the content is visible.
        (cell.state.load(Ordering::Acquire) == live).then_some(cell)
    });
    cell.ok_or_else(|| not_a_task(task))
}

/// Runs `body` on the task of a handle.
#[inline]
pub(crate) fn with<R>(
    task: *const mf_task,
    body: impl FnOnce(&mut Task<'static>) -> Result<R>,
) -> Result<R> {
    let cell = find(task)?;
    // SAFETY: the cell is `LIVE` with the handle's generation, and by the contract of `mf_task`
    // no other thread uses or finishes the task during this call.
    let content = unsafe { &mut *cell.content.get() };
    match content {
        Some((_, guard)) if guard.is_child() => Err(handle::in_child()),
        // SAFETY: lent by `lend`, whose borrow outlasts the handle; exclusive as above.
        Some((Held::Lent(task), _)) => body(unsafe { task.as_mut() }),
        Some((Held::Own(assigned), _)) => body(assigned.task()),
        None => Err(not_a_task(task)),
    }
}

/// Finishes a program's task, unless `last` fails, which comes before.
#[inline]
fn end(
    task: *const mf_task,
    last: impl FnOnce(&mut Task<'static>) -> Result<()>,
    result: Result<(), Failure>,
) -> Result<()> {
    let cell = find(task)?;
    // SAFETY: as in `with`.
    match unsafe { &mut *cell.content.get() } {
        Some((_, guard)) if guard.is_child() => return Err(handle::in_child()),
        Some((Held::Lent(_), _)) => {
            return Err(Error::invalid(
                "a handler's task ends when the handler returns",
            ));
        }
        Some((Held::Own(assigned), _)) => last(assigned.task())?,
        None => return Err(not_a_task(task)),
    }
    let (_, generation) = handle::parse(Kind::Task, task).ok_or_else(|| not_a_task(task))?;
    let live = u64::from(generation) << 32 | LIVE;
    // Acquire: as in `find`. The exchange makes one of two threads that finish at once the loser.
    cell.state
        .compare_exchange(
            live,
            live & !PHASE | ENDING,
            Ordering::Acquire,
            Ordering::Relaxed,
        )
        .map_err(|_| not_a_task(task))?;
    let in_hand = InHand {
        cell,
        token: task.cast_mut(),
    };
    // SAFETY: `ENDING` is ours alone.
    let content = unsafe { (*cell.content.get()).take() };
    drop(in_hand);
    if let Some((Held::Own(assigned), _)) = content {
        assigned.finish(result);
    }
    Ok(())
}

/// The payload of the task in hand, read in place.
///
/// - `task`: the task in hand.
/// - `len`: receives the payload's bytes.
///
/// Returns the payload, which is read-only and stays until the task ends; not NULL, also if it is
/// empty. NULL if `task` is not a task in hand or `len` is NULL (MF_E_INVALID for
/// mf_last_error()). One thread at a time for one task. Forked child: NULL. Since 0.1.
///
/// # Safety
/// `len` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_payload(task: *const mf_task, len: *mut usize) -> *const c_void {
    let body = || {
        sized::check(len, "len")?;
        with(task, |task| {
            let payload = task.payload();
            // SAFETY: the caller's word.
            unsafe { sized::write(len, payload.len(), "len") }?;
            Ok(payload.as_ptr().cast())
        })
    };
    guard_or(body, |_| {
        // SAFETY: the caller's word.
        let _ = unsafe { sized::write_if_wanted(len, 0, "len") };
        ptr::null()
    })
}

/// The id of the task in hand, as mf_submit() gave it to the host.
///
/// - `task`: the task in hand.
/// - `id`: receives it.
///
/// Returns MF_OK, or MF_E_INVALID for a stale task or NULL. One thread at a time for one task.
/// Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `id` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_get_id(task: *const mf_task, id: *mut mf_task_id) -> i32 {
    guard(|| {
        with(task, |task| {
            let bytes = *task.id().as_bytes();
            // SAFETY: the caller's word.
            unsafe { sized::write(id, mf_task_id { bytes }, "id") }?;
            Ok(MF_OK)
        })
    })
}

/// The submitter's own id for the task in hand, mf_submit_opts.label; zeros if none was given.
///
/// - `task`: the task in hand.
/// - `label`: receives 16 bytes.
///
/// Returns MF_OK, or MF_E_INVALID for a stale task or NULL. One thread at a time for one task.
/// Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `label` is NULL or valid for a write of 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_get_label(task: *const mf_task, label: *mut u8) -> i32 {
    guard(|| {
        with(task, |task| {
            // SAFETY: the caller's word; 16 bytes have no alignment.
            unsafe { sized::write(label.cast::<[u8; 16]>(), task.label().0, "label") }?;
            Ok(MF_OK)
        })
    })
}

/// 1 in the first start of the task in hand, 2 in the second, and so on; 0 if it is not a task in
/// hand (MF_E_INVALID for mf_last_error()). One thread at a time for one task. Forked child: 0.
/// Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_attempt(task: *const mf_task) -> u32 {
    guard_or(|| with(task, |task| Ok(task.attempt())), |_| 0)
}

/// The number that the submitter gave as mf_submit_opts.user_data; 0 if it is not a task in hand
/// (MF_E_INVALID for mf_last_error()). One thread at a time for one task. Forked child: 0.
/// Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_user_data(task: *const mf_task) -> u64 {
    guard_or(|| with(task, |task| Ok(task.user_data())), |_| 0)
}

/// Sets the result of the task in hand, copying it. A second reply replaces the first; a failure
/// replaces them all. After a failure with data there is no reply any more (MF_E_INVALID).
///
/// - `task`: the task in hand.
/// - `data`, `len`: the result in bytes; `data` may be NULL if `len` is 0.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: a stale task, or NULL with a length;
/// - MF_E_TOO_LARGE: more than mf_config.max_result;
/// - MF_E_NO_MEMORY: the host holds all of this worker's result memory for longer than
///   mf_config.reply_wait_ns, for which this call waits.
///
/// One thread at a time for one task. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `data` is NULL or valid for reads of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_reply(task: *mut mf_task, data: *const c_void, len: usize) -> i32 {
    guard(|| {
        with(task, |task| {
            // SAFETY: the caller's word.
            task.reply(unsafe { sized::bytes(data, len, "data") }?)?;
            Ok(MF_OK)
        })
    })
}

/// Room for a result of the task in hand, to be written in place: saves the copy of
/// mf_task_reply(). Its bytes are undefined at first.
///
/// - `task`: the task in hand.
/// - `len`: bytes.
/// - `buf`: receives the address, valid until the task ends or is replied to again.
///
/// Returns MF_OK, or the errors of mf_task_reply(), with `*buf` NULL. One thread at a time for one
/// task. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `buf` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_reply_buf(
    task: *mut mf_task,
    len: usize,
    buf: *mut *mut c_void,
) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        unsafe { sized::write(buf, ptr::null_mut(), "buf") }?;
        with(task, |task| {
            let room = task.reply_buf(len)?.as_mut_ptr().cast();
            // SAFETY: the caller's word.
            unsafe { sized::write(buf, room, "buf") }?;
            Ok(MF_OK)
        })
    })
}

/// Makes the task in hand fail when it ends, whatever its handler returns or mf_task_finish() is
/// given.
///
/// - `task`: the task in hand.
/// - `code`: comes back as mf_completion.code; not 0.
/// - `text`: a string for people, which comes back as mf_completion.data; NULL = none. Bytes that
///   are not UTF-8 are replaced.
///
/// Returns MF_OK, or MF_E_INVALID for a stale task or a code of 0. One thread at a time for one
/// task. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_fail(task: *mut mf_task, code: i32, text: *const c_char) -> i32 {
    guard(|| {
        with(task, |task| {
            if code == 0 {
                return Err(zero_code());
            }
            let text = if text.is_null() {
                String::new()
            } else {
                // SAFETY: not NULL, so a string by the caller's word.
                let text = unsafe { CStr::from_ptr(text) };
                text.to_string_lossy().into_owned()
            };
            task.fail(code, text);
            Ok(MF_OK)
        })
    })
}

/// mf_task_fail() with data for a program to read instead of a text: any bytes, as many as a result
/// may have, which come back as they are, with MF_F_DATA in mf_completion.flags.
///
/// - `task`: the task in hand.
/// - `code`: comes back as mf_completion.code; not 0.
/// - `data`, `len`: bytes, which are copied; `data` may be NULL if `len` is 0.
///
/// The data take the place of the result: an earlier reply is gone, and a later one is
/// MF_E_INVALID. Of several failures the last one counts, with a text or with data.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: a stale task, a code of 0, or NULL with a length;
/// - MF_E_TOO_LARGE, MF_E_NO_MEMORY: as for mf_task_reply(). The task has not failed by this call.
///
/// Waits as mf_task_reply() does. One thread at a time for one task. Forked child: MF_E_INVALID.
/// Since 0.1.
///
/// # Safety
/// `data` is NULL or valid for reads of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_fail_data(
    task: *mut mf_task,
    code: i32,
    data: *const c_void,
    len: usize,
) -> i32 {
    guard(|| {
        with(task, |task| {
            if code == 0 {
                return Err(zero_code());
            }
            // SAFETY: the caller's word.
            task.fail_with_data(code, unsafe { sized::bytes(data, len, "data") }?)?;
            Ok(MF_OK)
        })
    })
}

/// Tells whoever asks mf_task_state() how far the task in hand is. Cheap.
///
/// - `task`: the task in hand.
/// - `done`, `total`: in units of the task's own; a `total` of 0 means that it is not known.
///
/// Returns MF_OK, or MF_E_INVALID for a stale task. One thread at a time for one task. Forked
/// child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_progress(task: *mut mf_task, done: u64, total: u64) -> i32 {
    guard(|| {
        with(task, |task| {
            task.progress(done, total);
            Ok(MF_OK)
        })
    })
}

/// Whether the host asked for the task in hand to be cancelled: it should then return soon, with a
/// code of its own or mf_task_fail(). Cheap.
///
/// Returns 1 or 0, or MF_E_INVALID for a stale task. One thread at a time for one task. Forked
/// child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_cancelled(task: *const mf_task) -> i32 {
    guard(|| with(task, |task| Ok(i32::from(task.is_cancelled()))))
}

/// Ends a task that mf_worker_next() or mf_worker_take() gave out. The handle is stale afterwards,
/// and so is what mf_task_payload() and mf_task_reply_buf() gave.
///
/// - `task`: the task in hand. A handler's task is none of those: it ends when the handler returns.
/// - `code`: 0 = completed, anything else = failed with that code.
///
/// Returns MF_OK, or MF_E_INVALID for a stale task or a handler's. Any thread, not only the one
/// that took the task. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// No other thread uses the task during this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_finish(task: *mut mf_task, code: i32) -> i32 {
    guard(|| {
        let result = match code {
            0 => Ok(()),
            code => Err(Failure::new(
                code,
                format!("the worker program returned {code}"),
            )),
        };
        end(task, |_| Ok(()), result)?;
        Ok(MF_OK)
    })
}

/// Ends a task that mf_worker_next() or mf_worker_take() gave out, with its result: mf_task_reply()
/// or mf_task_fail_data(), and mf_task_finish(), in one call.
///
/// - `task`: the task in hand, not a handler's.
/// - `code`: 0 = completed, and the data are its result; anything else = failed with that code, and
///   the data come back as they are, with MF_F_DATA in mf_completion.flags.
/// - `data`, `len`: bytes, which are copied; `data` may be NULL if `len` is 0.
///
/// A code of 0 does not undo what mf_task_fail() or mf_task_fail_data() was told before; the data are
/// not used then. Any other code replaces that failure.
///
/// Returns MF_OK: the task has ended and the handle is stale, as after mf_task_finish(). With every
/// error the task is still in hand (an earlier reply may be gone) and can be ended with something
/// smaller:
/// - MF_E_INVALID: a stale task or a handler's, or NULL with a length;
/// - MF_E_TOO_LARGE, MF_E_NO_MEMORY: as for mf_task_reply().
///
/// Waits as mf_task_reply() does. Any thread, not only the one that took the task. Forked child:
/// MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `data` is NULL or valid for reads of `len` bytes; no other thread uses the task during this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_end(
    task: *mut mf_task,
    code: i32,
    data: *const c_void,
    len: usize,
) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        let data = unsafe { sized::bytes(data, len, "data") }?;
        let last = |in_hand: &mut Task<'static>| match code {
            0 if in_hand.has_failed() => Ok(()),
            0 => in_hand.reply(data),
            code => in_hand.fail_with_data(code, data),
        };
        end(task, last, Ok(()))?;
        Ok(MF_OK)
    })
}
