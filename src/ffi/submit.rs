//! Submitting: options, payloads that are copied, batches, payloads on loan.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use crate::Loan;
use crate::error::{Error, Result};
use crate::ffi::config::{none_set, reserved};
use crate::ffi::error::guard;
use crate::ffi::handle;
use crate::ffi::sized;
use crate::ffi::slab::{ProcessSlab, stale};
use crate::ffi::types::*;
use crate::task::{Class, Submission, SubmitOptions, TaskId};

const DEFAULT_OPTS: mf_submit_opts = mf_submit_opts {
    size: sized::size_field::<mf_submit_opts>(),
    task_class: MF_CPU_BOUND,
    priority: 0,
    flags: 0,
    user_data: 0,
    label: [0; 16],
    deadline_ns: 0,
    sticky_key: 0,
    max_attempts: 0,
    reserved0: 0,
};

/// The class of a number from C.
#[inline]
pub(crate) fn class(number: mf_class) -> Result<Class> {
    match number {
        MF_CPU_BOUND => Ok(Class::CpuBound),
        MF_IO_BOUND => Ok(Class::IoBound),
        other => Err(Error::invalid(format!("{other} is not a class"))),
    }
}

/// The options that C hands in; NULL = defaults.
///
/// # Safety
/// `opts` is NULL or valid for as many bytes as its `size` field says.
#[inline]
unsafe fn options(opts: *const mf_submit_opts) -> Result<SubmitOptions> {
    if opts.is_null() {
        return Ok(SubmitOptions::default());
    }
    // SAFETY: the caller's word.
    let opts = unsafe { sized::read_growable(opts, DEFAULT_OPTS, "mf_submit_opts") }?;
    if opts.reserved0 != 0 {
        return Err(reserved("mf_submit_opts"));
    }
    let retries = MF_RETRY_FAILED | MF_RETRY_TIMEOUT;
    none_set(opts.flags & !retries, 0, "mf_submit_opts.flags")?;
    let mut options = SubmitOptions::new()
        .class(class(opts.task_class)?)
        .priority(opts.priority)
        .user_data(opts.user_data)
        .label(opts.label)
        .max_attempts(opts.max_attempts)
        .sticky_key(opts.sticky_key)
        .retry_failed(opts.flags & MF_RETRY_FAILED != 0)
        .retry_timed_out(opts.flags & MF_RETRY_TIMEOUT != 0);
    if opts.deadline_ns != 0 {
        options = options.deadline(sized::timeout(opts.deadline_ns).unwrap_or(Duration::MAX));
    }
    Ok(options)
}

/// Fills `opts` with the defaults: CPU-bound, priority 0, at most once, nothing else.
///
/// - `opts`: is written, at most `size` bytes.
/// - `size`: the caller's sizeof(mf_submit_opts).
///
/// Returns MF_OK, or MF_E_INVALID for NULL or a size that no version of mf_submit_opts has. Any
/// thread, also in a forked child. Since 0.1.
///
/// # Safety
/// `opts` is NULL or valid for writes of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_submit_opts_init(opts: *mut mf_submit_opts, size: usize) -> i32 {
    guard(|| {
        sized::check(opts, "the options")?;
        sized::check_size::<mf_submit_opts>(size, "mf_submit_opts")?;
        // SAFETY: checked, and valid for `size` bytes by the caller's word.
        unsafe { sized::write_sized(opts, &DEFAULT_OPTS, size) };
        Ok(MF_OK)
    })
}

/// Hands an id out, if it is wanted.
///
/// # Safety
/// `to` is NULL or valid for a write.
#[inline]
unsafe fn put_id(to: *mut mf_task_id, id: TaskId) -> Result<i32> {
    let bytes = *id.as_bytes();
    // SAFETY: the caller's word.
    unsafe { sized::write_if_wanted(to, mf_task_id { bytes }, "id") }?;
    Ok(MF_OK)
}

/// Submits a task; the payload is copied.
///
/// - `engine`: the engine.
/// - `payload`, `len`: the payload in bytes; `payload` may be NULL if `len` is 0.
/// - `opts`: options; NULL = defaults.
/// - `id`: receives the task's id; NULL = not wanted.
///
/// Returns MF_OK, or
/// - MF_E_WOULD_BLOCK: mf_config.max_tasks are in flight or not fetched, or the payload arena is
///   full;
/// - MF_E_TOO_LARGE: more than mf_config.max_payload;
/// - MF_E_CLOSED: the engine is stopped;
/// - MF_E_INVALID: not an engine, NULL with a length, bad options, or a class without workers;
/// - MF_E_UNSUPPORTED: an option that this version does not have;
/// - MF_E_NO_MEMORY: the system has none.
///
/// Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `payload` is NULL or valid for reads of `len` bytes, `opts` is NULL or valid for as many bytes
/// as its size says, `id` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_submit(
    engine: *mut mf_engine,
    payload: *const c_void,
    len: usize,
    opts: *const mf_submit_opts,
    id: *mut mf_task_id,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        // SAFETY: the caller's word.
        let options = unsafe { options(opts) }?;
        // SAFETY: the caller's word.
        let payload = unsafe { sized::bytes(payload, len, "payload") }?;
        let task = engine.submit_with(payload, &options)?;
        // SAFETY: the caller's word.
        unsafe { put_id(id, task) }
    })
}

/// mf_submit() with the user data as an argument, so that threads can share one mf_submit_opts.
///
/// - `user_data`: comes back with the completion, instead of opts->user_data, also if it is 0. The
///   other arguments are those of mf_submit().
///
/// Returns MF_OK, or the errors of mf_submit(). Does not wait. Any thread. Forked child:
/// MF_E_INVALID. Since 0.1.
///
/// # Safety
/// As for mf_submit(); nobody writes the options during this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_submit_as(
    engine: *mut mf_engine,
    payload: *const c_void,
    len: usize,
    opts: *const mf_submit_opts,
    user_data: u64,
    id: *mut mf_task_id,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        // SAFETY: the caller's word.
        let options = unsafe { options(opts) }?.user_data(user_data);
        // SAFETY: the caller's word.
        let payload = unsafe { sized::bytes(payload, len, "payload") }?;
        let task = engine.submit_with(payload, &options)?;
        // SAFETY: the caller's word.
        unsafe { put_id(id, task) }
    })
}

/// mf_submit() that waits for room.
///
/// - `timeout_ns`: nanoseconds to wait; < 0 for ever, 0 not at all. The other arguments are those
///   of mf_submit().
///
/// Returns MF_OK, or the errors of mf_submit(), and MF_E_TIMEOUT: there was no room in time.
/// MF_E_WOULD_BLOCK comes at once when all room is held by completions that are ready for the
/// caller to fetch, or by payloads on loan: waiting would never end.
///
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// As for mf_submit().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_submit_wait(
    engine: *mut mf_engine,
    payload: *const c_void,
    len: usize,
    opts: *const mf_submit_opts,
    id: *mut mf_task_id,
    timeout_ns: i64,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        // SAFETY: the caller's word.
        let options = unsafe { options(opts) }?;
        // SAFETY: the caller's word.
        let payload = unsafe { sized::bytes(payload, len, "payload") }?;
        let task = engine.submit_wait(payload, &options, sized::timeout(timeout_ns))?;
        // SAFETY: the caller's word.
        unsafe { put_id(id, task) }
    })
}

/// A batch as C hands it in, read one by one.
struct Batch<'e> {
    next: *const mf_submission,
    size: usize,
    left: usize,
    /// The last options that were read: many submissions share theirs.
    opts: *const mf_submit_opts,
    options: SubmitOptions,
    /// Why reading ended early.
    error: &'e Cell<Option<Error>>,
}

const DEFAULT_SUBMISSION: mf_submission = mf_submission {
    size: 0,
    reserved0: 0,
    payload: ptr::null(),
    len: 0,
    opts: ptr::null(),
    user_data: 0,
};

impl Batch<'_> {
    /// Reads the submission at `next`.
    #[inline]
    fn read(&mut self) -> Result<mf_submission> {
        let what = "mf_submission";
        // SAFETY: one of the `left` elements of `size` bytes that `mf_submit_batch` was given.
        let it = unsafe { sized::read_element(self.next, self.size, DEFAULT_SUBMISSION, what) }?;
        if it.size != 0 && it.size as usize != self.size {
            return Err(Error::invalid(format!(
                "the size of an mf_submission is {}, but sub_size is {}",
                it.size, self.size
            )));
        }
        if it.reserved0 != 0 {
            return Err(reserved("mf_submission"));
        }
        if !ptr::eq(self.opts, it.opts) {
            // SAFETY: by the word of `mf_submit_batch`'s caller.
            self.options = unsafe { options(it.opts) }?;
            self.opts = it.opts;
        }
        Ok(it)
    }
}

impl Iterator for Batch<'_> {
    type Item = Submission<'static>;

    #[inline]
    fn next(&mut self) -> Option<Submission<'static>> {
        if self.left == 0 {
            return None;
        }
        let read = self.read().and_then(|it| {
            // SAFETY: by the word of `mf_submit_batch`'s caller, whose call this does not outlive.
            let payload = unsafe { sized::bytes(it.payload, it.len, "mf_submission.payload") }?;
            Ok((payload, it.user_data))
        });
        match read {
            Ok((payload, user_data)) => {
                self.left -= 1;
                self.next = self.next.wrapping_byte_add(self.size);
                let mut options = self.options;
                if user_data != 0 {
                    options.user_data = user_data;
                }
                Some(Submission { payload, options })
            }
            Err(error) => {
                self.left = 0;
                self.error.set(Some(error));
                None
            }
        }
    }
}

/// Submits several tasks with one announcement to the workers; the payloads are copied.
///
/// - `engine`: the engine.
/// - `subs`: the submissions, an array of elements of `sub_size` bytes.
/// - `sub_size`: the caller's sizeof(mf_submission).
/// - `count`: the length of the array.
/// - `ids`: receives the ids of those that were accepted; NULL = not wanted.
///
/// Returns how many were accepted, which are the first ones. If there are some and not even the
/// first was accepted, its error, as for mf_submit(). MF_E_INVALID also for a `sub_size` that no
/// version of mf_submission has.
///
/// Does not wait. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `subs` is NULL or valid for reads of `count * sub_size` bytes, what they point to is as for
/// mf_submit(), `ids` is NULL or valid for writes of `count` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_submit_batch(
    engine: *mut mf_engine,
    subs: *const mf_submission,
    sub_size: usize,
    count: usize,
    ids: *mut mf_task_id,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        sized::check_size::<mf_submission>(sub_size, "mf_submission")?;
        if count == 0 {
            return Ok(0);
        }
        sized::check(subs, "subs")?;
        let unreadable = Cell::new(None);
        let batch = Batch {
            next: subs,
            size: sub_size,
            left: count.min(i32::MAX.unsigned_abs() as usize),
            opts: ptr::null(),
            options: SubmitOptions::default(),
            error: &unreadable,
        };
        let mut accepted = 0;
        let refused = engine.submit_each(batch, |id| {
            if !ids.is_null() {
                let bytes = *id.as_bytes();
                // SAFETY: room for `count` ids by the caller's word; an id has no alignment.
                unsafe { ids.wrapping_add(accepted).write(mf_task_id { bytes }) };
            }
            accepted += 1;
        });
        match unreadable.take().or(refused) {
            Some(error) if accepted == 0 => Err(error),
            _ => Ok(i32::try_from(accepted).unwrap_or(i32::MAX)),
        }
    })
}

/// Payload memory that C has on loan, and whose.
struct Lent {
    loan: Loan,
    engine: usize,
}

static LOANS: ProcessSlab<Lent> = ProcessSlab::new();

/// Room for a payload in shared memory, to be written in place and submitted without a copy. Its
/// bytes are undefined at first. The loan holds room of the payload arena until mf_submit_loaned()
/// or mf_loan_drop(), also beyond mf_engine_free().
///
/// - `engine`: the engine.
/// - `len`: bytes.
/// - `buf`: receives the loan; its `size` is set by the caller.
///
/// Returns MF_OK, or
/// - MF_E_WOULD_BLOCK: the payload arena is full;
/// - MF_E_TOO_LARGE: more than mf_config.max_payload;
/// - MF_E_CLOSED: the engine is stopped;
/// - MF_E_INVALID: not an engine, NULL, or a size that no version of mf_loan_buf has;
/// - MF_E_NO_MEMORY: the system has none.
///
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `buf` is NULL or valid for as many bytes as its size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_loan(engine: *mut mf_engine, len: usize, buf: *mut mf_loan_buf) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        unsafe { sized::check_growable(buf, "mf_loan_buf") }?;
        let mut loan = handle::find(engine)?.loan(len)?;
        let mut out = mf_loan_buf {
            size: 0, // set by `write_growable`
            reserved0: 0,
            ptr: loan.as_mut_ptr().cast(),
            len,
            handle: 0,
        };
        let lent = Lent {
            loan,
            engine: engine.addr(),
        };
        out.handle = LOANS.lock()?.insert(lent).0;
        // SAFETY: the caller's word.
        unsafe { sized::write_growable(buf, &out, "mf_loan_buf") }?;
        Ok(MF_OK)
    })
}

/// Submits a payload on loan, without a copy. After MF_OK the memory is the task's: neither read
/// nor write it, and do not drop the loan. After an error the loan is as before.
///
/// - `engine`: the engine that lent it.
/// - `buf`: the loan; it is not changed.
/// - `opts`, `id`: as for mf_submit().
///
/// Returns MF_OK, or the errors of mf_submit(); MF_E_INVALID also for a loan that was submitted or
/// dropped already, or that another engine gave. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// As for mf_submit() and mf_loan(); nobody writes the payload any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_submit_loaned(
    engine: *mut mf_engine,
    buf: *const mf_loan_buf,
    opts: *const mf_submit_opts,
    id: *mut mf_task_id,
) -> i32 {
    guard(|| {
        let _in_use = handle::find(engine)?;
        // SAFETY: the caller's word.
        let options = unsafe { options(opts) }?;
        // SAFETY: the caller's word.
        let loan = unsafe { handle_of(buf) }?;
        // The lock is held meanwhile, so that no other thread submits or drops the same loan.
        let mut loans = LOANS.lock_existing().ok_or_else(|| stale("the loan"))?;
        let mut place = loans.get(loan).ok_or_else(|| stale("the loan"))?;
        // SAFETY: the slab's value with this handle; its lock is held.
        let lent = unsafe { place.as_mut() };
        if lent.engine != engine.addr() {
            return Err(Error::invalid("another engine gave this loan"));
        }
        let task = lent.loan.try_submit(&options)?;
        drop(loans.remove(loan));
        drop(loans);
        // SAFETY: the caller's word.
        unsafe { put_id(id, task) }
    })
}

/// Gives a loan back without submitting it.
///
/// - `engine`: is not looked at, and may be NULL.
/// - `buf`: the loan; it is not changed. A handle of 0 is none: nothing happens.
///
/// Returns MF_OK, or MF_E_INVALID for NULL or a loan that was submitted or dropped already. Any
/// thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `buf` is NULL or valid for as many bytes as its size says; nobody uses its memory any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_loan_drop(engine: *mut mf_engine, buf: *const mf_loan_buf) -> i32 {
    let _ = engine;
    guard(|| {
        // SAFETY: the caller's word.
        let loan = unsafe { handle_of(buf) }?;
        if loan != 0 {
            drop(LOANS.take(loan, "the loan")?);
        }
        Ok(MF_OK)
    })
}

/// # Safety
/// `buf` is NULL or valid for as many bytes as its size says.
unsafe fn handle_of(buf: *const mf_loan_buf) -> Result<u64> {
    let none = mf_loan_buf {
        size: 0,
        reserved0: 0,
        ptr: ptr::null_mut(),
        len: 0,
        handle: 0,
    };
    // SAFETY: the caller's word.
    Ok(unsafe { sized::read_growable(buf, none, "mf_loan_buf") }?.handle)
}
