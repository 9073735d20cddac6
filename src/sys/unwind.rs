//! Backtraces from inside a signal handler, by the unwinder that comes with every Rust program.
//!
//! `_Unwind_Backtrace` itself, not a crate around it: libgcc_s (or libunwind) is linked in any case,
//! and nothing but the raw addresses is wanted. It allocates nothing. It finds the tables of a
//! module by `_dl_find_object`, which takes no lock (glibc 2.35 and gcc 12 on); older ones walk the
//! list of modules under the loader's lock, and code that registers tables of its own (a JIT) adds
//! a mutex in older libgcc_s. Whoever calls this in a signal handler must be able to end a hang, and
//! to survive a fault on a stack that makes no sense.

use std::ffi::{c_int, c_void};

/// The unwinder's own state; only its address is known here.
#[repr(C)]
struct UnwindContext {
    _opaque: [u8; 0],
}

type Step = extern "C" fn(*mut UnwindContext, *mut c_void) -> c_int;

unsafe extern "C" {
    fn _Unwind_Backtrace(step: Step, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut UnwindContext, before: *mut c_int) -> usize;
}

const GO_ON: c_int = 0;
const STOP: c_int = 4; // _URC_NORMAL_STOP

/// Frames that a signal handler and the system's part of its delivery may take.
const OWN: u32 = 32;

struct Walk<'a> {
    /// Where the trace begins.
    pc: u64,
    found: bool,
    skipped: u32,
    frame: &'a mut dyn FnMut(u64) -> bool,
}

/// Calls `frame` with an address inside each instruction that is being executed, innermost first,
/// until it says false; beginning with the frame at `pc`, an address that was interrupted by a
/// signal. Returns whether that frame was found.
pub(crate) fn backtrace(pc: u64, frame: &mut dyn FnMut(u64) -> bool) -> bool {
    let mut walk = Walk {
        pc,
        found: false,
        skipped: 0,
        frame,
    };
    // SAFETY: `step` casts the argument back to what it is, and `walk` outlives the call, which
    // ends before this function returns.
    unsafe { _Unwind_Backtrace(step, (&raw mut walk).cast()) };
    walk.found
}

extern "C" fn step(context: *mut UnwindContext, argument: *mut c_void) -> c_int {
    // SAFETY: `backtrace` passes a `Walk` that nobody else uses meanwhile.
    let walk = unsafe { &mut *argument.cast::<Walk<'_>>() };
    let mut before = 0;
    // SAFETY: the unwinder's own context, and a valid place for the answer.
    let ip = unsafe { _Unwind_GetIPInfo(context, &raw mut before) } as u64;
    if !walk.found {
        if ip != walk.pc {
            walk.skipped += 1;
            return if walk.skipped < OWN { GO_ON } else { STOP };
        }
        walk.found = true;
    }
    // A return address lies behind the call that is being executed, an interrupted one does not.
    let inside = if before == 0 {
        ip.saturating_sub(1)
    } else {
        ip
    };
    if ip != 0 && (walk.frame)(inside) {
        GO_ON
    } else {
        STOP
    }
}

/// Has the unwinder do once what it does only the first time, such as being loaded.
pub(crate) fn warm_up() {
    backtrace(u64::MAX, &mut |_| false);
}
