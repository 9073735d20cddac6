//! A real memory fault.

use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Ends this process by SIGSEGV.
pub(super) fn segfault() -> ! {
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let page =
        unsafe { mmap_anonymous(ptr::null_mut(), 4096, ProtFlags::empty(), MapFlags::PRIVATE) };
    if let Ok(page) = page {
        // SAFETY: aligned, and mapped for nobody else; that the page must not be read is what the
        // processor will say, and the read never returns.
        unsafe { page.cast::<u64>().read_volatile() };
    }
    std::process::abort() // no page to be had: at least it ends
}
