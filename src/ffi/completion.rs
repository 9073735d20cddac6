//! Completions: fetched in batches, held for C until it releases them.

use std::cell::Cell;
use std::ptr;
use std::sync::MutexGuard;
use std::time::Duration;

use crate::Completion;
use crate::engine::completion::Marks;
use crate::error::Result;
use crate::ffi::error::guard;
use crate::ffi::handle;
use crate::ffi::sized;
use crate::ffi::slab::{ProcessSlab, Slab, stale};
use crate::ffi::types::*;
use crate::task::TaskId;

/// Completions whose result C has not released, of all engines.
static HELD: ProcessSlab<Completion> = ProcessSlab::new();

/// Completions that one turn of `mf_poll` fetches: as many as stay in the first-level cache.
const TURN: usize = 128;

thread_local! {
    /// The list that this thread's polls fill, kept for its memory.
    static FETCHED: Cell<Vec<Completion>> = const { Cell::new(Vec::new()) };
}

const _: () = assert!(Marks::BY_SIGNAL.bits() as u32 == MF_F_BY_SIGNAL);
const _: () = assert!(Marks::COLLATERAL.bits() as u32 == MF_F_COLLATERAL);
const _: () = assert!(Marks::DATA.bits() as u32 == MF_F_DATA);

/// The C form of a completion, as far as the result does not matter.
#[inline]
fn describe(completion: &Completion) -> mf_completion {
    mf_completion {
        id: mf_task_id {
            bytes: *completion.id().as_bytes(),
        },
        user_data: completion.user_data(),
        outcome: completion.outcome() as i32,
        code: completion.code(),
        flags: u32::from(completion.marks.bits()),
        worker: completion.worker(),
        attempt: completion.attempt(),
        reserved0: 0,
        data: ptr::null(),
        len: completion.len(),
        queued_ns: sized::nanoseconds(completion.queued()),
        run_ns: sized::nanoseconds(completion.ran()),
        handle: 0,
        reserved: [0; 5],
    }
}

/// The slab, locked when the first result has to be kept and not before.
struct Keeper(Option<MutexGuard<'static, Slab<Completion>>>);

impl Keeper {
    /// Hands a completion to C. Its result, if it has one, is kept until released.
    ///
    /// # Safety
    /// `out` is aligned and valid for a write.
    #[inline]
    unsafe fn put(&mut self, out: *mut mf_completion, completion: Completion) -> Result<()> {
        let mut described = describe(&completion);
        if !completion.is_empty() {
            let slab = match &mut self.0 {
                Some(slab) => slab,
                none => none.insert(HELD.lock()?),
            };
            let (handle, place) = slab.insert(completion);
            // SAFETY: it was put there just now, and nobody else has the handle yet.
            described.data = unsafe { place.as_ref() }.as_ptr().cast();
            described.handle = handle;
        }
        // SAFETY: the caller's word.
        unsafe { out.write(described) };
        Ok(())
    }
}

/// Fetches completions: up to `max`, in no particular order.
///
/// - `engine`: the engine; also after mf_engine_stop().
/// - `completions`: receives them.
/// - `max`: how many there is room for; 0 is no error.
/// - `timeout_ns`: nanoseconds to wait for the first one; < 0 for ever, 0 not at all.
///
/// Returns how many there were; 0 means that none came in time. Each whose `handle` is not 0 holds
/// memory until mf_completion_release(). Errors:
/// - MF_E_INVALID: not an engine, or `completions` is NULL or misaligned;
/// - MF_E_CLOSED: the engine is stopped, every completion was fetched, and `timeout_ns` is < 0.
///
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `completions` is NULL or valid for writes of `max` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_poll(
    engine: *mut mf_engine,
    completions: *mut mf_completion,
    max: usize,
    timeout_ns: i64,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        if max == 0 {
            return Ok(0);
        }
        sized::check(completions, "completions")?;
        let max = max.min(i32::MAX.unsigned_abs() as usize);
        let mut timeout = sized::timeout(timeout_ns);
        let mut list = FETCHED.take();
        let mut count = 0;
        let answer = loop {
            let turn = TURN.min(max - count);
            if let Err(error) = engine.poll_into(&mut list, turn, timeout) {
                break if count == 0 { Err(error) } else { Ok(()) };
            }
            let fetched = list.len();
            let mut keeper = Keeper(None);
            for completion in list.drain(..) {
                let out = completions.wrapping_add(count);
                // SAFETY: aligned, and `count` is below `max`, up to which the caller gave room.
                unsafe { keeper.put(out, completion) }?;
                count += 1;
            }
            if fetched < turn || count == max {
                break Ok(());
            }
            timeout = Some(Duration::ZERO); // only the first one is waited for
        };
        FETCHED.set(list);
        answer.map(|()| i32::try_from(count).unwrap_or(i32::MAX))
    })
}

/// Waits for the completion of one task, which then never comes out of mf_poll().
///
/// - `engine`: the engine.
/// - `id`: the task.
/// - `completion`: receives its completion.
/// - `timeout_ns`: nanoseconds to wait; < 0 for ever, 0 not at all. After a time-out mf_poll() gets
///   the completion, unless it is waited for again.
///
/// Returns MF_OK, or
/// - MF_E_TIMEOUT: it did not end in time;
/// - MF_E_NOT_FOUND, at once: no such task, or its completion was handed out;
/// - MF_E_INVALID: not an engine, NULL, or another thread waits for the same task.
///
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `id` is NULL or valid for a read, `completion` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_wait(
    engine: *mut mf_engine,
    id: *const mf_task_id,
    completion: *mut mf_completion,
    timeout_ns: i64,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        sized::check(completion, "completion")?;
        // SAFETY: the caller's word.
        let id = unsafe { sized::read(id, "id") }?;
        let ended = engine.wait(TaskId::from_bytes(id.bytes), sized::timeout(timeout_ns))?;
        // SAFETY: checked above, and valid by the caller's word.
        unsafe { Keeper(None).put(completion, ended) }?;
        Ok(MF_OK)
    })
}

/// Gives the result of a completion back: its `data` is gone afterwards. Completions with a
/// `handle` of 0 have nothing to give back; releasing them is allowed and does nothing.
///
/// - `engine`: is not looked at, and may be NULL: results outlive the engine, and may be released
///   after mf_engine_free().
/// - `completion`: as mf_poll() or mf_wait() filled it, or a copy. It is not changed.
///
/// Returns MF_OK, or MF_E_INVALID for NULL or a completion that was released already. Any thread.
/// Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `completion` is NULL or valid for a read; nobody reads its `data` any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_completion_release(
    engine: *mut mf_engine,
    completion: *const mf_completion,
) -> i32 {
    let _ = engine;
    guard(|| {
        // SAFETY: the caller's word.
        let completion = unsafe { sized::read(completion, "completion") }?;
        if completion.handle != 0 {
            // Dropped without the lock: a long result goes back to its worker.
            drop(HELD.take(completion.handle, "the completion")?);
        }
        Ok(MF_OK)
    })
}

/// mf_completion_release() for an array, at less cost.
///
/// - `engine`: is not looked at, and may be NULL.
/// - `completions`: the array; it is not changed.
/// - `count`: its length.
///
/// Returns MF_OK, or MF_E_INVALID if `completions` is NULL while `count` is not 0, or if some of
/// them had been released already; the others are released. Any thread. Forked child:
/// MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `completions` is NULL or valid for reads of `count` elements; nobody reads their `data` any
/// more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_completion_release_batch(
    engine: *mut mf_engine,
    completions: *const mf_completion,
    count: usize,
) -> i32 {
    let _ = engine;
    guard(|| {
        if count == 0 {
            return Ok(MF_OK);
        }
        sized::check(completions, "completions")?;
        let mut slab = None;
        let mut bad = 0_usize;
        for index in 0..count {
            let place = completions.wrapping_add(index);
            // SAFETY: inside the caller's array; only the field is read.
            let handle = unsafe { (*place).handle };
            if handle == 0 {
                continue;
            }
            if slab.is_none() {
                slab = HELD.lock_existing();
            }
            let value = slab.as_mut().and_then(|slab| slab.remove(handle));
            bad += usize::from(value.is_none());
        }
        match bad {
            0 => Ok(MF_OK),
            _ => Err(stale(&format!("a completion ({bad} of {count})"))),
        }
    })
}
