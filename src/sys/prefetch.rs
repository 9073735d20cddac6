//! Cache hints. A line that another core has touched takes 50 to 150 ns to fetch; a hint given one
//! or two tasks ahead lets that overlap with work. They change nothing but time.

/// Fetches the line of `word`, to be read soon.
#[inline]
pub(crate) fn read<T>(word: &T) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: PREFETCHT0 is a hint: it neither faults nor changes memory.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(word).cast(),
        );
    }
    #[cfg(all(target_arch = "aarch64", not(loom)))]
    // SAFETY: PRFM is a hint: it neither faults nor changes memory.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) word, options(nostack, readonly, preserves_flags));
    }
    #[cfg(any(loom, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = word;
}

/// Fetches the line of `word` and takes it from other cores, to be written soon.
#[inline]
pub(crate) fn write<T>(word: &T) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: PREFETCHW is a hint: it neither faults nor changes memory, and processors without it
    // take it as a no-op.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) word, options(nostack, readonly, preserves_flags));
    }
    #[cfg(all(target_arch = "aarch64", not(loom)))]
    // SAFETY: PRFM is a hint: it neither faults nor changes memory.
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{}]", in(reg) word, options(nostack, readonly, preserves_flags));
    }
    #[cfg(any(loom, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = word;
}
