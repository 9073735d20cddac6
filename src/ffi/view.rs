//! Views: payloads that a program keeps beyond their tasks.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use crate::error::Result;
use crate::ffi::error::guard;
use crate::ffi::sized;
use crate::ffi::slab::{ProcessSlab, stale};
use crate::ffi::task;
use crate::ffi::types::*;
use crate::sys::view::View;

/// Shared: one thread may detach a view while another, wrongly, releases it.
static VIEWS: ProcessSlab<Arc<View>> = ProcessSlab::new();

/// The payload of the task in hand as memory of its own, which stays readable after the task's end:
/// for language runtimes whose objects lie over payloads and may outlive the task.
///
/// - `task`: the task in hand, also a handler's.
/// - `data`: receives the address of the payload: not NULL, also if it is empty, and aligned to 64
///   bytes. Read-only.
/// - `len`: receives its bytes.
/// - `view`: receives a handle for mf_view_detach() and mf_view_release(), never 0.
///
/// The bytes are the payload until the task ends. After that the memory is still there, but the host
/// puts other payloads into it, unless mf_view_detach() was called before. Where a payload is shorter
/// than a page, the view is a copy: nothing is ever put into that, and detaching it costs nothing.
///
/// Returns MF_OK, or with NULL, 0 and 0
/// - MF_E_INVALID: a stale task, or NULL;
/// - MF_E_NO_MEMORY: the process has too little memory or too many mappings (vm.max_map_count);
/// - MF_E_SYSTEM: the system refuses.
///
/// The pages of the payload are mapped once more, at the cost of a system call; a task can have
/// several views. One thread at a time for one task. Forked child: MF_E_INVALID; but it inherits the
/// memory of the views that its parent has, for as long as it lives. Since 0.1.
///
/// # Safety
/// `data`, `len` and `view` are NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_task_view(
    task: *const mf_task,
    data: *mut *const c_void,
    len: *mut usize,
    view: *mut u64,
) -> i32 {
    guard(|| {
        // SAFETY: the caller's word.
        unsafe { put(data, len, view, (ptr::null(), 0, 0)) }?;
        let new = Arc::new(task::with(task, |task| task.view())?);
        let (start, count) = (new.start().as_ptr().cast_const().cast(), new.len());
        let handle = VIEWS.lock()?.insert(new).0;
        // SAFETY: the caller's word.
        unsafe { put(data, len, view, (start, count, handle)) }?;
        Ok(MF_OK)
    })
}

/// Stores what a view is.
///
/// # Safety
/// The pointers are NULL, misaligned or valid for a write.
unsafe fn put(
    data: *mut *const c_void,
    len: *mut usize,
    view: *mut u64,
    values: (*const c_void, usize, u64),
) -> Result<()> {
    // SAFETY: the caller's word.
    unsafe { sized::write(data, values.0, "data") }?;
    // SAFETY: the caller's word.
    unsafe { sized::write(len, values.1, "len") }?;
    // SAFETY: the caller's word.
    unsafe { sized::write(view, values.2, "view") }
}

/// Makes the memory of a view this process's own: it keeps the bytes that it has now, at the same
/// address, until mf_view_release(). To be called before the task ends, and only if something still
/// refers to the view: it costs a copy, and memory for it.
///
/// - `view`: as mf_task_view() gave it. Detaching it again changes nothing.
///
/// Returns MF_OK, or
/// - MF_E_INVALID: not a view, or one that was released;
/// - MF_E_NO_MEMORY, MF_E_SYSTEM: the system refuses. Nothing has changed.
///
/// Other threads may read the memory meanwhile, and see what they saw before. Any thread. Forked
/// child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_view_detach(view: u64) -> i32 {
    guard(|| {
        let views = VIEWS.lock_existing();
        let place = views.as_ref().and_then(|views| views.get(view));
        // SAFETY: the slab's value with this handle, which stays while the lock is held.
        let found = place.map(|place| Arc::clone(unsafe { place.as_ref() }));
        drop(views); // copying may take long
        found.ok_or_else(|| stale("the view"))?.detach()?;
        Ok(MF_OK)
    })
}

/// Gives the memory of a view back, detached or not, before or after the end of its task. Nothing may
/// refer to it any more.
///
/// - `view`: as mf_task_view() gave it. 0 is none: nothing happens.
///
/// Returns MF_OK, or MF_E_INVALID for one that was released already, or is made up. Any thread.
/// Forked child: MF_E_INVALID, also for the parent's views. Since 0.1.
///
/// # Safety
/// Nobody reads the memory any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_view_release(view: u64) -> i32 {
    guard(|| {
        if view != 0 {
            drop(VIEWS.take(view, "the view")?); // unmapped without the lock
        }
        Ok(MF_OK)
    })
}
