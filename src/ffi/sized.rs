//! Pointers from C: checked for NULL and alignment, and structs that may be of another version.
//!
//! A growable struct begins with a `u32`, its size as the caller's compiler saw it. A caller may
//! be older (its struct is shorter: what it does not know keeps its default) or newer (its struct
//! is longer: what we do not know must be zero, and is zeroed where we write).

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use crate::error::{Error, Result};
use crate::ffi::config::mf_config;
use crate::ffi::types::*;

/// No struct of this interface comes near this size: a larger one is garbage.
const LARGEST: usize = 4096;

/// A `repr(C)` struct that C hands in or gets back.
///
/// # Safety
/// Every bit pattern is a value, there is no padding, and the first field is the `u32` size.
pub(crate) unsafe trait Growable: Copy {
    /// Its size in the first released version, below which no caller can be.
    const FIRST: usize;
}

macro_rules! growable {
    ($($type:ty = $first:literal),+ $(,)?) => { $(
        // SAFETY: `repr(C)`, made of integers, raw pointers and optional function pointers, with
        // `size` first; the assertions in `tests/c/layout.c` leave no room for padding.
        unsafe impl Growable for $type {
            const FIRST: usize = $first;
        }
        const _: () = assert!(size_of::<$type>() >= $first && size_of::<$type>() <= LARGEST);
    )+ };
}

growable! {
    mf_submission = 40,
    mf_submit_opts = 64,
    mf_loan_buf = 32,
    mf_engine_stats = 152,
    mf_worker_row = 96,
    mf_scaling_decision = 256,
    mf_task_info = 40,
    mf_work = 72,
    mf_log_record = 3712,
    mf_zygote_request = 16,
    mf_config = 336,
}

/// Refuses NULL and misaligned pointers.
#[inline]
pub(crate) fn check<T>(pointer: *const T, what: &str) -> Result<()> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(bad_pointer(pointer.is_null(), what));
    }
    Ok(())
}

#[cold]
fn bad_pointer(null: bool, what: &str) -> Error {
    let how = if null { "NULL" } else { "misaligned" };
    Error::invalid(format!("{what} is {how}"))
}

/// The value that C's `pointer` points to.
///
/// # Safety
/// `pointer` is NULL, misaligned or valid for a read of an initialised `T`.
#[inline]
pub(crate) unsafe fn read<T: Copy>(pointer: *const T, what: &str) -> Result<T> {
    check(pointer, what)?;
    // SAFETY: not NULL and aligned, so valid by the caller's word.
    Ok(unsafe { pointer.read() })
}

/// Stores `value` where C wants it.
///
/// # Safety
/// `pointer` is NULL, misaligned or valid for a write of a `T`.
#[inline]
pub(crate) unsafe fn write<T>(pointer: *mut T, value: T, what: &str) -> Result<()> {
    check(pointer, what)?;
    // SAFETY: not NULL and aligned, so valid by the caller's word.
    unsafe { pointer.write(value) };
    Ok(())
}

/// [`write`](fn@write) to a place that may be NULL, for outputs that the caller can do without.
///
/// # Safety
/// As for [`write`](fn@write).
#[inline]
pub(crate) unsafe fn write_if_wanted<T>(pointer: *mut T, value: T, what: &str) -> Result<()> {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's word.
    unsafe { write(pointer, value, what) }
}

/// `len` bytes of C's memory; NULL will do for none.
///
/// # Safety
/// `pointer` is NULL or valid for reads of `len` bytes that nobody writes during `'a`.
#[inline]
pub(crate) unsafe fn bytes<'a>(pointer: *const c_void, len: usize, what: &str) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    check(pointer.cast::<u8>(), what)?;
    if isize::try_from(len).is_err() {
        let max = isize::MAX.unsigned_abs();
        return Err(Error::TooLarge { len, max });
    }
    // SAFETY: not NULL, of a length that an object can have, and valid by the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}

/// A C string that must be UTF-8.
///
/// # Safety
/// `pointer` is NULL or a NUL-terminated string that nobody writes during `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    check(pointer, what)?;
    // SAFETY: not NULL, so a string by the caller's word.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str()
        .map_err(|_| Error::invalid(format!("{what} is not UTF-8")))
}

/// The size that a growable struct says it has.
///
/// # Safety
/// `pointer` is NULL, misaligned or valid for a read of its `size` field.
#[inline]
unsafe fn size_of_callers<T: Growable>(pointer: *const T, what: &str) -> Result<usize> {
    check(pointer, what)?;
    // SAFETY: not NULL and aligned; `Growable` says that a `u32` is first.
    let size = unsafe { pointer.cast::<u32>().read() };
    check_size::<T>(size as usize, what)?;
    Ok(size as usize)
}

/// Refuses sizes that no version of `T` can have.
#[inline]
pub(crate) fn check_size<T: Growable>(size: usize, what: &str) -> Result<()> {
    if !(T::FIRST..=LARGEST).contains(&size) || !size.is_multiple_of(align_of::<T>()) {
        return Err(bad_size::<T>(size, what));
    }
    Ok(())
}

#[cold]
fn bad_size<T: Growable>(size: usize, what: &str) -> Error {
    Error::invalid(format!(
        "the size of {what} is {size}, and no version of it has that: it is {} here",
        size_of::<T>()
    ))
}

/// Reads a growable struct. What a shorter one lacks is taken from `default`.
///
/// # Safety
/// `pointer` is NULL, misaligned or valid for a read of as many bytes as its `size` field says.
#[inline]
pub(crate) unsafe fn read_growable<T: Growable>(
    pointer: *const T,
    default: T,
    what: &str,
) -> Result<T> {
    // SAFETY: the caller's word.
    let size = unsafe { size_of_callers(pointer, what) }?;
    // SAFETY: `size` was checked, and is what the struct says of itself.
    unsafe { read_element(pointer, size, default, what) }
}

/// [`read_growable`] for an element of an array, whose size the array's owner has told.
///
/// # Safety
/// `pointer` is NULL, misaligned or valid for a read of `size` bytes; [`check_size`] approved it.
#[inline]
pub(crate) unsafe fn read_element<T: Growable>(
    pointer: *const T,
    size: usize,
    default: T,
    what: &str,
) -> Result<T> {
    check(pointer, what)?;
    let ours = size_of::<T>();
    if size == ours {
        // SAFETY: aligned, and of the same size as ours; any bits are a value of a `Growable`.
        return Ok(unsafe { pointer.read() });
    }
    // SAFETY: the caller's word.
    unsafe { read_other_version(pointer, size, default, what) }
}

#[cold]
unsafe fn read_other_version<T: Growable>(
    pointer: *const T,
    size: usize,
    default: T,
    what: &str,
) -> Result<T> {
    let (from, ours) = (pointer.cast::<u8>(), size_of::<T>());
    let mut value = default;
    // SAFETY: both are valid for the shorter length; `value` is a local, so they do not overlap.
    unsafe { ptr::copy_nonoverlapping(from, (&raw mut value).cast::<u8>(), size.min(ours)) };
    for offset in ours..size {
        // SAFETY: inside the `size` bytes that are valid by the caller's word.
        if unsafe { from.wrapping_add(offset).read() } != 0 {
            return Err(Error::invalid(format!(
                "{what} has fields of a later version that are set"
            )));
        }
    }
    Ok(value)
}

/// Writes a growable struct into the caller's, whose `size` field says how much of it there is.
///
/// # Safety
/// `pointer` is NULL, misaligned or valid for as many bytes as its `size` field says.
pub(crate) unsafe fn write_growable<T: Growable>(
    pointer: *mut T,
    value: &T,
    what: &str,
) -> Result<()> {
    // SAFETY: the caller's word.
    let size = unsafe { size_of_callers(pointer, what) }?;
    // SAFETY: `size` was checked, and is what the struct says of itself.
    unsafe { write_sized(pointer, value, size) };
    Ok(())
}

/// Checks a growable output before the work is done that fills it.
///
/// # Safety
/// As for [`write_growable`].
pub(crate) unsafe fn check_growable<T: Growable>(pointer: *const T, what: &str) -> Result<()> {
    // SAFETY: the caller's word.
    unsafe { size_of_callers(pointer, what) }.map(drop)
}

/// Writes the first `size` bytes of a struct, with zeros for what a later version may have there,
/// and `size` as its size.
///
/// # Safety
/// `pointer` is aligned and valid for writes of `size` bytes; [`check_size`] approved it.
pub(crate) unsafe fn write_sized<T: Growable>(pointer: *mut T, value: &T, size: usize) {
    let (to, ours) = (pointer.cast::<u8>(), size_of::<T>());
    // SAFETY: both are valid for the shorter length; `value` is ours, so they do not overlap.
    unsafe { ptr::copy_nonoverlapping((&raw const *value).cast(), to, size.min(ours)) };
    if size > ours {
        // SAFETY: inside the `size` bytes that are valid by the caller's word.
        unsafe { to.wrapping_add(ours).write_bytes(0, size - ours) };
    }
    let size = u32::try_from(size).unwrap_or(0); // at most LARGEST
    // SAFETY: aligned; `Growable` says that a `u32` is first.
    unsafe { pointer.cast::<u32>().write(size) };
}

/// The size field of a struct of this version.
pub(crate) const fn size_field<T: Growable>() -> u32 {
    assert!(size_of::<T>() <= LARGEST);
    #[expect(clippy::cast_possible_truncation, reason = "asserted")]
    let size = size_of::<T>() as u32;
    size
}

/// C's time-out: nanoseconds, negative for ever.
#[inline]
pub(crate) fn timeout(ns: i64) -> Option<std::time::Duration> {
    u64::try_from(ns).ok().map(std::time::Duration::from_nanos)
}

/// Nanoseconds for C. (Without the 128-bit arithmetic of `Duration::as_nanos`.)
#[inline]
pub(crate) fn nanoseconds(duration: std::time::Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A struct of "our" version, and one of the next.
    #[repr(C)]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Ours {
        size: u32,
        a: u32,
        b: u64,
    }
    #[repr(C)]
    struct Newer {
        ours: Ours,
        c: u64,
    }
    // SAFETY: integers without padding, `size` first.
    unsafe impl Growable for Ours {
        const FIRST: usize = 8;
    }
    const DEFAULT: Ours = Ours {
        size: 16,
        a: 100,
        b: 200,
    };

    fn get(pointer: *const Ours) -> Result<Ours> {
        // SAFETY: every test hands in what it says it does.
        unsafe { read_growable(pointer, DEFAULT, "it") }
    }

    #[test]
    fn an_older_callers_struct_is_completed_and_a_newer_ones_must_be_zero_beyond() {
        let mut newer = Newer {
            ours: Ours {
                size: 16,
                a: 1,
                b: 2,
            },
            c: 0,
        };
        assert_eq!(get(&raw const newer.ours).unwrap().b, 2);
        newer.ours.size = 8;
        assert_eq!(
            get(&raw const newer.ours).unwrap(),
            Ours {
                size: 8,
                a: 1,
                b: 200
            }
        );
        newer.ours.size = 24;
        assert_eq!(get((&raw const newer).cast()).unwrap().b, 2);
        newer.c = 1 << 40;
        assert!(get((&raw const newer).cast()).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let mut it = DEFAULT;
        for size in [0, 4, 12, 17, 5000, u32::MAX] {
            it.size = size;
            assert!(get(&raw const it).is_err(), "{size}");
        }
        assert!(get(ptr::null()).is_err());
        assert!(get((&raw const it).wrapping_byte_add(1)).is_err());
    }

    #[test]
    fn nothing_is_written_beyond_the_callers_size() {
        let mut newer = Newer {
            ours: Ours {
                size: 8,
                a: 0,
                b: 7,
            },
            c: 9,
        };
        // SAFETY: valid for the 8 bytes that it says.
        unsafe { write_growable(&raw mut newer.ours, &DEFAULT, "it") }.unwrap();
        assert_eq!((newer.ours.size, newer.ours.a, newer.ours.b), (8, 100, 7));
        newer.ours.size = 24;
        // SAFETY: valid for the 24 bytes that it says.
        unsafe { write_growable((&raw mut newer).cast::<Ours>(), &DEFAULT, "it") }.unwrap();
        assert_eq!((newer.ours.size, newer.ours.b, newer.c), (24, 200, 0));
    }
}
