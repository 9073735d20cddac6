//! Error codes, the calling thread's last error text, and the wall that no panic passes.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};
use crate::ffi::types::*;

/// The code of an error.
pub(crate) fn code(error: &Error) -> i32 {
    match error {
        Error::Invalid(_) => MF_E_INVALID,
        Error::WouldBlock(_) => MF_E_WOULD_BLOCK,
        Error::Timeout => MF_E_TIMEOUT,
        Error::TooLarge { .. } => MF_E_TOO_LARGE,
        Error::NotFound => MF_E_NOT_FOUND,
        Error::Closed => MF_E_CLOSED,
        Error::NoMemory(_) => MF_E_NO_MEMORY,
        Error::System { .. } => MF_E_SYSTEM,
        Error::Unsupported(_) => MF_E_UNSUPPORTED,
        Error::Internal(_) => MF_E_INTERNAL,
    }
}

fn name(code: i32) -> &'static CStr {
    match code {
        MF_OK => c"MF_OK",
        MF_E_INVALID => c"MF_E_INVALID",
        MF_E_WOULD_BLOCK => c"MF_E_WOULD_BLOCK",
        MF_E_TIMEOUT => c"MF_E_TIMEOUT",
        MF_E_TOO_LARGE => c"MF_E_TOO_LARGE",
        MF_E_NOT_FOUND => c"MF_E_NOT_FOUND",
        MF_E_CLOSED => c"MF_E_CLOSED",
        MF_E_NO_MEMORY => c"MF_E_NO_MEMORY",
        MF_E_SYSTEM => c"MF_E_SYSTEM",
        MF_E_UNSUPPORTED => c"MF_E_UNSUPPORTED",
        MF_E_INTERNAL => c"MF_E_INTERNAL",
        _ => c"MF_E_UNKNOWN",
    }
}

thread_local! {
    /// The last error's text and a NUL, or nothing. Kept between errors, so that a full queue
    /// costs no allocation.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the body of an exported function: its value, or the code of its error, whose text becomes
/// the thread's last one. A panic is `MF_E_INTERNAL`.
#[inline]
pub(crate) fn guard(body: impl FnOnce() -> Result<i32>) -> i32 {
    guard_or(body, code)
}

/// [`guard`] for a function that returns something else than a code.
#[inline]
pub(crate) fn guard_or<R>(
    body: impl FnOnce() -> Result<R>,
    otherwise: impl FnOnce(&Error) -> R,
) -> R {
    // AssertUnwindSafe: what a body shares with later calls stands behind locks and atomics that
    // are consistent at every step; the engine is written for threads that panic.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => fail(&error, otherwise),
        Err(panic) => fail(&panicked(&*panic), otherwise),
    }
}

#[cold]
fn fail<R>(error: &Error, otherwise: impl FnOnce(&Error) -> R) -> R {
    note(error);
    otherwise(error)
}

/// An answer that is an error in C and none in Rust: `code`, with a text as errors have it.
pub(crate) fn refuse(code: i32, text: &str) -> i32 {
    note(&text);
    code
}

/// Makes a text the thread's last one.
fn note(text: &dyn fmt::Display) {
    // No text in a thread whose locals are being destroyed, or from inside its own formatting.
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            last.clear();
            let _ = write!(NoNul(&mut last), "{text}"); // writing to a String does not fail
            last.push('\0');
        }
    });
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(not a text)");
    Error::Internal(format!("panic: {text}"))
}

/// Leaves NULs out: the text is a C string.
struct NoNul<'a>(&'a mut String);

impl Write for NoNul<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split('\0') {
            self.0.push_str(piece);
        }
        Ok(())
    }
}

/// The name of an error code, such as "MF_E_TIMEOUT"; "MF_E_UNKNOWN" for any other number. A
/// positive count is not an error: ask only for negative values and 0.
///
/// Returns a static string. Any thread, also in a forked child. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mf_error_name(error: i32) -> *const c_char {
    name(error).as_ptr()
}

/// What went wrong in the calling thread's last call that failed, as UTF-8 text; an empty string
/// if none has. Calls that succeed leave it alone.
///
/// Returns a string that is valid until the same thread's next failing call. Any thread, also in a
/// forked child. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mf_last_error() -> *const c_char {
    LAST.try_with(|last| match last.try_borrow() {
        Ok(last) if !last.is_empty() => last.as_ptr().cast(),
        _ => c"".as_ptr(),
    })
    .unwrap_or(c"".as_ptr())
}

/// The version of the binary interface of the library that is loaded; compare it with
/// MF_ABI_VERSION of the header.
///
/// Any thread, also in a forked child. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mf_abi_version() -> u32 {
    MF_ABI_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Full;
    use std::io;

    #[test]
    fn every_error_has_its_code_and_every_code_its_name() {
        let system = Error::System {
            call: "close",
            what: "x".into(),
            source: io::Error::from_raw_os_error(9),
        };
        let table = [
            (Error::Invalid(String::new()), -1, c"MF_E_INVALID"),
            (Error::WouldBlock(Full::Tasks), -2, c"MF_E_WOULD_BLOCK"),
            (Error::Timeout, -3, c"MF_E_TIMEOUT"),
            (Error::TooLarge { len: 2, max: 1 }, -4, c"MF_E_TOO_LARGE"),
            (Error::NotFound, -5, c"MF_E_NOT_FOUND"),
            (Error::Closed, -6, c"MF_E_CLOSED"),
            (Error::NoMemory(String::new()), -7, c"MF_E_NO_MEMORY"),
            (system, -8, c"MF_E_SYSTEM"),
            (Error::Unsupported(String::new()), -9, c"MF_E_UNSUPPORTED"),
            (Error::Internal(String::new()), -10, c"MF_E_INTERNAL"),
        ];
        for (error, number, text) in table {
            assert_eq!(code(&error), number);
            assert_eq!(name(number), text);
        }
        assert_eq!(name(MF_OK), c"MF_OK");
        assert_eq!(name(-11), c"MF_E_UNKNOWN");
    }

    fn last() -> String {
        // SAFETY: a C string that lives until this thread's next failing call.
        let text = unsafe { CStr::from_ptr(mf_last_error()) };
        text.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_failure_leaves_its_text_and_a_panic_stays_inside() {
        assert_eq!(last(), "");
        assert_eq!(guard(|| Err(Error::invalid("bad\0 name"))), MF_E_INVALID);
        assert_eq!(last(), "bad name");
        assert_eq!(guard(|| Ok(7)), 7);
        assert_eq!(last(), "bad name");
        assert_eq!(guard(|| panic!("on purpose")), MF_E_INTERNAL);
        assert_eq!(last(), "internal error: panic: on purpose");
    }
}
