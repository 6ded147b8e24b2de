//! Vector kernels for limnion, with the CPU level chosen at run time.
//!
//! Every kernel is written once as plain Rust, its *scalar twin*, which is the specification; and again for each
//! [`Level`] of CPU. All levels return the same bits: floating-point sums keep one order of additions
//! ([`dot_f32`] says which), multiplications and additions are rounded separately, and integer sums are exact.
//!
//! Every function is safe: a [`Level`] is the proof that the CPU has the instructions, and lengths are taken from
//! the slices. Where two lengths should agree and do not, the shorter one counts. The level is looked at once per
//! call, outside of all loops.
//!
//! ```
//! use limnion_simd::{Level, dot_f32};
//!
//! let level = Level::current();
//! assert_eq!(dot_f32(level, &[1.0, 2.0], &[3.0, 4.0]), 11.0);
//! ```

/// Calls the kernel of the level: `scalar::name`, `avx2::name` and so on, in modules next to the caller.
macro_rules! dispatch {
    ($level:expr, $kernel:ident($($argument:expr),*)) => {
        match $level.kind() {
            $crate::level::Kind::Scalar => scalar::$kernel($($argument),*),
            // SAFETY: the kernel is safe but for the CPU features that it is compiled for, and a level of this kind
            // is only made where the CPU has them. So it is for the levels below.
            #[cfg(target_arch = "x86_64")]
            $crate::level::Kind::Avx2 => unsafe { avx2::$kernel($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::level::Kind::Avx512 => unsafe { avx512::$kernel($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::level::Kind::Avx512Vnni => unsafe { avx512vnni::$kernel($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            $crate::level::Kind::Neon => unsafe { neon::$kernel($($argument),*) },
        }
    };
}

mod block;
pub mod code;
mod distance;
mod integer;
mod level;
mod lut;
mod memory;
mod popcount;
mod products;
mod record;
mod rotation;
mod scan;
mod signs;
mod survivors;
#[cfg(test)]
mod testing;
mod vector;

pub use block::{BlockShape, Line, bytes, bytes_mut};
pub use distance::{dot_f32, dot_f32_f16, dot_f32_rows, l2sq_f32, l2sq_f32_f16, l2sq_f32_rows, sum_abs};
pub use integer::{dot_i8, dots_i8, l2sq_i8};
pub use level::{Level, cpu_features};
pub use lut::Lut;
pub use memory::{huge_pages, prefetch};
pub use popcount::{hamming, hamming_rows, popcount};
pub use products::dot_i8_each;
pub use record::gather;
pub use rotation::{fht, flip_signs, kac_walk, scale};
pub use scan::{Bound, ListBlock, Probe, estimate_blocks, scan, scan_lists, scan_selected};
pub use signs::pack_signs;
pub use survivors::{Survivor, Survivors};
