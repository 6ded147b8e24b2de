//! Hints to the memory system; none of them changes what a program computes.

/// Asks the CPU to fetch the cache lines of `memory`, at most the first 32 of them, without waiting.
///
/// ```
/// limnion_simd::prefetch(&[0; 100]);
/// ```
pub fn prefetch(memory: &[u8]) {
    for line in memory.chunks(64).take(32) {
        prefetch_line(line.as_ptr());
    }
}

/// Asks the CPU to fetch one cache line. Any address will do, mapped or not.
#[inline(always)]
pub(crate) fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing that the program can see and never faults. SSE, which the
    // intrinsic needs, is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch is a hint: it reads nothing that the program can see and never faults; the instruction
    // has no other effect on memory, flags or stack.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Asks the kernel to back a large buffer by huge pages, which saves a scan a few percent. Call it after the
/// allocation and before the first write. Does nothing to buffers under 4 MiB, and nothing but on Linux.
///
/// ```
/// let mut buffer: Vec<f32> = Vec::with_capacity(2 << 20);
/// limnion_simd::huge_pages(&buffer);
/// buffer.resize(2 << 20, 0.0);
/// ```
pub fn huge_pages<T>(buffer: &Vec<T>) {
    #[cfg(target_os = "linux")]
    {
        const HUGE: usize = 2 << 20;
        let length = buffer.capacity() * size_of::<T>();
        let start = (buffer.as_ptr() as usize).next_multiple_of(HUGE);
        let end = (buffer.as_ptr() as usize + length) / HUGE * HUGE;
        if length >= 2 * HUGE && start < end {
            // SAFETY: the range lies inside one live allocation and is aligned to pages of any size. The advice
            // changes how the kernel backs the range, never its contents; a refusal leaves all as it was.
            unsafe {
                libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}
